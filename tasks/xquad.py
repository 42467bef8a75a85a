"""XQuAD: questions about a paragraph, answered in its words; 1,190 items a language.

Sets: xquad_ar, _de, _en, _hi, _th, _tr, _vi, _zh, with the prompts of lm-evaluation-harness. The likelihood is
that of the answer; a written answer is compared as SQuAD does.

Easy to get wrong: some files begin paragraphs with a byte order mark, which is no part of the text.
"""

import functools
import json
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/google-deepmind/xquad'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
WORDS = {  # language: words for context, question and answer
  'ar': ('سيا', 'سؤال', 'إجابة'),
  'de': ('Kontext', 'Frage', 'Antwort'),
  'en': ('Context', 'Question', 'Answer'),
  'hi': ('प्रसंग', 'सवाल', 'उत्तर'),
  'th': ('บริบท', 'คำถาม', 'คำตอบ'),
  'tr': ('Bağlam', 'Soru', 'Cevap'),
  'vi': ('Bối cảnh', 'Câu hỏi', 'Trả lời'),
  'zh': ('语境', '问题', '回答'),
}


def read(language: str):
  """Yields the questions of a language."""
  context, question, answer = WORDS[language]
  text = '\n'.join(reading.lines(reading.find(DATA, f'xquad/xquad.{language}.json', SOURCE)))
  for article in json.loads(text)['data']:
    for paragraph in article['paragraphs']:
      about = paragraph['context'].replace('\ufeff', '')
      for asked in paragraph['qas']:
        answers = [found['text'] for found in asked['answers']]
        yield {
          'id': asked['id'],
          'prompt': f'{context}: {about}\n\n{question}: {asked["question"]}\n\n{answer}:',
          'answers': list(dict.fromkeys(answers)),
        }


for code in WORDS:
  register_evaluation(
    f'xquad_{code}', functools.partial(read, code), kind='question', language=code,
    licence='CC BY-SA 4.0', source=SOURCE,
  )  # fmt: skip
