"""MGSM: 250 arithmetic problems of primary school in each of 11 languages; the answer is a number.

Sets: mgsm_bn, _de, _en, _es, _fr, _ja, _ru, _sw, _te, _th, _zh. Asked directly, without worked examples, with
the prompts of lm-evaluation-harness's mgsm_direct, some of which end in an English 'Answer:'.

Easy to get wrong: commas. '2,125' of the files is the number 2125.
"""

import functools
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/google-research/url-nlp'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
PROMPTS = {
  'bn': 'প্রশ্ন: {}\nAnswer:',
  'de': 'Frage: {}\nAntwort:',
  'en': 'Question: {}\nAnswer:',
  'es': 'Pregunta: {}\nRespuesta:',
  'fr': 'Question : {}\nRéponse :',
  'ja': '問題： {}\nAnswer:',
  'ru': 'Задача: {}\nAnswer:',
  'sw': 'Swali: {}\nAnswer:',
  'te': 'ప్రశ్న: {}\nAnswer:',
  'th': 'โจทย์: {}\nAnswer:',
  'zh': '问题： {}\nAnswer:',
}


def read(language: str):
  """Yields the problems of a language."""
  path = reading.find(DATA, f'mgsm/mgsm_{language}.tsv', SOURCE)
  for number, row in enumerate(reading.table(path, header=('problem', 'answer'))):
    yield {
      'id': str(number),
      'prompt': PROMPTS[language].format(row['problem']),
      'answers': [row['answer'].replace(',', '')],
    }


for code in PROMPTS:
  register_evaluation(
    f'mgsm_{code}', functools.partial(read, code), kind='question', language=code, answer='number',
    licence='CC BY 4.0', source=SOURCE,
  )  # fmt: skip
