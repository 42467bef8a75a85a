"""A scarce language in small: a tenth of the sample's Turkish beside all of its English.

`study_tr` is about 200,000 tokens of Turkish, which a study repeats; `study_en` is the sample's English whole, which
it never uses up. Held out are parts of the sample's held-out text, so that scoring them costs a few seconds
on one core. Which documents are kept is decided by a hash of each document's text, so it is the same with any number
of readers. Needs nothing but tasks/sample.

Easy to get wrong: comparing bits per byte with a run on `sample_tr`. The held-out text here is a part of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlink.data import sources
from jaxlink.data.register import LEXICONS, TextSource, register_corpus, register_language
from jaxlink.data.registry import RegisteredLexicon
from jaxlink.link import draws

DATA = Path(__file__).parent / 'sample'
TOKENIZER = DATA / 'tokenizer.model'


class Part(TextSource):
  """One of n documents of each split, by a hash of the text.

  Args:
    splits: files of each split.
    one_of: split → n; 1 keeps all.
    **reading: settings of `TextSource`.
  """

  def __init__(self, splits: Mapping[str, Path], *, one_of: Mapping[str, int], **reading: Any):
    self._one_of = dict(one_of)
    super().__init__(splits, **reading)

  def settings(self) -> dict[str, Any]:
    return {**super().settings(), 'one_of': self._one_of}

  def documents(self, split: str, index: int = 0, count: int = 1) -> Iterator[sources.Document]:
    for document in super().documents(split, index, count):
      if draws.key_of(document.text) % self._one_of[split] == 0:
        yield document


register_corpus(
  'study_en',
  Part(
    {'train': DATA / 'en.train.jsonl.gz', 'validation': DATA / 'en.validation.jsonl.gz'},
    one_of={'train': 1, 'validation': 4},
  ),
  language='en',
  tokenizer=TOKENIZER,
)
register_language(
  'study_tr',
  Part(
    {'train': DATA / 'tr.train.txt.gz', 'validation': DATA / 'tr.validation.txt.gz'},
    one_of={'train': 10, 'validation': 5},
  ),
  language='tr',
  tokenizer=TOKENIZER,
  auxiliary='study_en',
  lexicon=DATA / 'en-tr.tsv',
  share=0.3,
)
# The same words with each other's translations, for runs in which as many words are replaced by nonsense.
LEXICONS['study_tr_shuffled'] = RegisteredLexicon((str(DATA / 'en-tr.shuffled.tsv'),), 'tr')
