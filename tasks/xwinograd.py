"""XWinograd: whom a pronoun means, in English, French, Japanese, Portuguese and Russian.

Sets: xwinograd_en (2,325 items), _fr (83), _jp (959), _pt (263), _ru (305 of 315: a pronoun with nothing after
it leaves nothing to score). As lm-evaluation-harness asks it, by partial evaluation: either candidate stands in
the pronoun's place, and what follows it is scored, which is the same text for both. The 16 Chinese sentences of
the file are too few to be a set.

Easy to get wrong: where the pronoun is. Its words may occur twice, so its place is that of its token.
"""

import functools
import json
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/yandex-research/crosslingual_winograd'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
LANGUAGES = {'en': 'en', 'fr': 'fr', 'jp': 'ja', 'pt': 'pt', 'ru': 'ru'}  # as the file calls them
COLUMNS = ('language', 'set', 'origin', 'sentence', 'tokens', 'pronoun', 'candidates')
QUOTES = {'``': '"', "''": '"'}  # as its tokens have them


def read(language: str):
  """Yields the sentences of a language whose pronoun has text after it."""
  path = reading.find(DATA, 'xwinograd/dataset.tsv', SOURCE)
  rows = [row for row in reading.table(path, header=COLUMNS) if row['language'] == language]
  for number, row in enumerate(rows):
    sentence, (pronoun, (first, _), _) = row['sentence'], json.loads(row['pronoun'])
    start = 0
    for token in json.loads(row['tokens'])[:first]:
      token = QUOTES.get(token, token)
      start = sentence.index(token, start) + len(token)
    start = sentence.index(pronoun, start)
    before, after = sentence[:start], sentence[start + len(pronoun) :].strip()
    candidates = json.loads(row['candidates'])
    if after:
      yield {
        'id': str(number),
        'contexts': [before + candidate[0] for candidate in candidates],
        'choices': [after] * len(candidates),
        'label': [candidate[3] for candidate in candidates].index(True),
        'group': row['set'],
      }


for code, iso in LANGUAGES.items():
  register_evaluation(
    f'xwinograd_{code}', functools.partial(read, code), kind='choice', language=iso,
    licence='Apache-2.0', source=SOURCE,
  )  # fmt: skip
