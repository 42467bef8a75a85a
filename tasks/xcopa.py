"""XCOPA: which of two sentences is the cause, or the effect, of a first one; 500 test items a language.

Sets: xcopa_et, _ht, _id, _it, _qu, _sw, _ta, _th, _tr, _vi, _zh. As lm-evaluation-harness asks it: the
premise without its full stop and a connecting word, continued by either option.

Items are parallel, but not all are marked alike: against the other languages 51 of the Turkish ones, 37 of the
Swahili, 4 of the Indonesian and Italian and 250 of the Thai (which are all "effect") ask for an effect where the
cause is meant. They are asked as published, as everyone has them: no model can reach 100 % there.

Easy to get wrong: the first letter of an option is made small as Python does it, in Turkish too ('I' becomes
'i'), and the last character of a premise is dropped whatever it is: both as the harness has them.
"""

import functools
import json
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/cambridgeltl/xcopa'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
CONNECTORS = {  # language: before a cause, before an effect
  'et': ('sest', 'seetõttu'),
  'ht': ('poukisa', 'donk sa'),
  'id': ('karena', 'maka'),
  'it': ('perché', 'quindi'),
  'qu': ('imataq', 'chaymi'),
  'sw': ('kwa sababu', 'kwa hiyo'),
  'ta': ('காரணமாக', 'எனவே'),
  'th': ('เพราะ', 'ดังนั้น'),
  'tr': ('çünkü', 'bu yüzden'),
  'vi': ('bởi vì', 'vì vậy'),
  'zh': ('因为', '所以'),
}


def read(language: str, split: str = 'test'):
  """Yields the items of a language; the split is 'test' or 'val'."""
  cause, effect = CONNECTORS[language]
  path = reading.find(DATA, f'xcopa/{language}/{split}.{language}.jsonl', SOURCE)
  for row in map(json.loads, reading.lines(path)):
    connector = cause if row['question'] == 'cause' else effect
    options = (row['choice1'], row['choice2'])
    yield {
      'id': str(row['idx']),
      'context': f'{row["premise"].strip()[:-1]} {connector}',
      'choices': [option[0].lower() + option[1:] for option in options],
      'label': row['label'],
      'group': row['question'],
    }


for code in CONNECTORS:
  register_evaluation(
    f'xcopa_{code}', functools.partial(read, code), kind='choice', language=code,
    licence='CC BY 4.0', source=SOURCE,
  )  # fmt: skip
