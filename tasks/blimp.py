"""BLiMP: English sentence pairs of which one is grammatical; 67 paradigms of 1,000 pairs in one set, `blimp`.

Scores are broken down by phenomenon; an item's id names its paradigm.

Easy to get wrong: lm-evaluation-harness's own task scores ' Sentence' with a space before it. Here a text
has none, as at its beginning in training text.
"""

import json
import zipfile
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/alexwarstadt/blimp'
DATA = reading.folder(Path(__file__).parent / 'evaluation')


def read():
  """Yields all pairs, paradigm after paradigm."""
  with zipfile.ZipFile(reading.find(DATA, 'blimp/BLiMP.zip', SOURCE)) as archive:
    for name in sorted(
      n for n in archive.namelist() if n.startswith('data/') and n.endswith('.jsonl')
    ):
      for line in archive.read(name).decode('utf-8').splitlines():
        row = json.loads(line)
        yield {
          'id': f'{row["UID"]}:{row["pairID"]}',
          'context': '',
          'choices': [row['sentence_good'], row['sentence_bad']],
          'label': 0,
          'group': row['linguistics_term'],
        }


register_evaluation('blimp', read, kind='choice', language='en', licence='CC BY 4.0', source=SOURCE)
