"""EXAMS: questions of school examinations with 3 to 5 options, by subject.

Sets: exams_tr (393 questions) and exams_vi (488), with the larger exams_tr_train and exams_vi_train; and from
the multilingual file exams_bg, _hr, _hu, _it, _mk, _pl, _pt, _sq, _sr. lm-evaluation-harness has no task of
these; a question is asked as its ARC is, in the language's own words, and options are scored in full.

Easy to get wrong: exams_tr for a model trained on Wikipedia sentences that were retrieved for these very
questions (tasks/sample is such text). It has read about each of them: that is no evaluation.

Questions with an empty option, or none marked as right, are left out.
"""

import functools
import json
import tarfile
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/mhardalov/exams-qa'
WARNING = (
  'No evaluation for a model trained on text that was retrieved for these questions, such as that of '
  'tasks/sample and the paragraphs that EXAMS comes with'
)
DATA = reading.folder(Path(__file__).parent / 'evaluation')
WORDS = {  # language: its name in the files, a question's and an answer's word
  'bg': ('Bulgarian', 'Въпрос', 'Отговор'),
  'hr': ('Croatian', 'Pitanje', 'Odgovor'),
  'hu': ('Hungarian', 'Kérdés', 'Válasz'),
  'it': ('Italian', 'Domanda', 'Risposta'),
  'mk': ('North Macedonian', 'Прашање', 'Одговор'),
  'pl': ('Polish', 'Pytanie', 'Odpowiedź'),
  'pt': ('Portuguese', 'Pergunta', 'Resposta'),
  'sq': ('Albanian', 'Pyetja', 'Përgjigja'),
  'sr': ('Serbian', 'Питање', 'Одговор'),
  'tr': ('Turkish', 'Soru', 'Cevap'),
  'vi': ('Vietnamese', 'Câu hỏi', 'Trả lời'),
}


def read(language: str, file: str):
  """Yields the questions of a language in a file."""
  name, question, answer = WORDS[language]
  with tarfile.open(reading.find(DATA, f'exams/{file}.jsonl.tar.gz', SOURCE)) as archive:
    lines = [archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()]
  for row in map(json.loads, b''.join(lines).decode('utf-8').splitlines()):
    options = row['question']['choices']
    texts, letters = [o['text'].strip() for o in options], [o['label'] for o in options]
    if row['info']['language'] == name and all(texts) and row['answerKey'] in letters:
      yield {
        'id': row['id'],
        'context': f'{question}: {row["question"]["stem"].strip()}\n{answer}:',
        'choices': texts,
        'label': letters.index(row['answerKey']),
        'group': row['info']['subject'],
      }


FILES = {f'exams_{code}': (code, 'multilingual.dev') for code in WORDS}
for code in ('tr', 'vi'):
  FILES[f'exams_{code}'] = (code, f'crosslingual.dev_{code}')
  FILES[f'exams_{code}_train'] = (code, f'crosslingual.train_{code}')
for set_name, (code, file_name) in FILES.items():
  register_evaluation(
    set_name, functools.partial(read, code, file_name), kind='choice', language=code,
    licence='CC BY-SA 4.0', source=SOURCE, note=WARNING if code == 'tr' else '',
  )  # fmt: skip
