"""Evaluation text in training text, found by word n-grams that both have.

  index = ngram_index(items, n=13)          of an evaluation set
  found = overlap(index, training_texts)    which items, and which share of each, stand in training text
  remove_contamination(evaluation=[...])    the same as a SeqIO preprocessor: such documents go

In: texts. No TensorFlow is needed but by the preprocessor.

Easy to get wrong: short items. One of fewer than n words is compared as a whole, and one of a word or two
is in every newspaper: those below `least` words are not compared, and counted.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import fsspec
import numpy as np

from jaxlink.data import sources
from jaxlink.data.cleaning import grams, steps
from jaxlink.data.cleaning.compared import Comparing, is_itself, texts_of
from jaxlink.data.cleaning.steps import Verdict
from jaxlink.names import nearest

OVERLAP = 'overlap'  # of what is noted: 'overlap:{set}:{item}'


@dataclasses.dataclass(frozen=True)
class NgramIndex:
  """The n-grams of I items.

  Attributes:
    n: words in an n-gram.
    items: number of items.
    too_short: items that are not compared, for they have too few words.
    grams: uint64 [G], sorted keys of all n-grams, and of whole items of fewer words.
    lengths: int64 [L], the numbers of words that these have.
    gram_of: int32 [P], for each pair of an n-gram and an item that has it, the n-gram, ascending;
    item_of: int32 [P], and the item.
  """

  n: int
  items: int
  too_short: int
  grams: np.ndarray
  lengths: np.ndarray
  gram_of: np.ndarray
  item_of: np.ndarray

  def find(self, text: str) -> np.ndarray:
    """Returns which n-grams a text has: int64, ascending indices into `grams`."""
    words = grams.word_keys(grams.find_words(text))
    keys = [grams.gram_keys(words, n) for n in self.lengths.tolist()]
    found = np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]))
    at = np.searchsorted(self.grams, found)
    inside = at < len(self.grams)
    return at[inside][self.grams[at[inside]] == found[inside]]

  def items_with(self, found: np.ndarray) -> np.ndarray:
    """Returns the items that have any of some n-grams (indices into `grams`), ascending."""
    return np.unique(self.item_of[np.isin(self.gram_of, found)])


@dataclasses.dataclass(frozen=True)
class Overlap:
  """What training text shares with an evaluation set.

  Attributes:
    documents: training documents that were read.
    touched: those that share an n-gram with an item.
    shares: float64 [I], of each item's n-grams those found in training text; NaN of one that is too short.
  """

  documents: int
  touched: int
  shares: np.ndarray

  @property
  def contaminated(self) -> np.ndarray:
    """The items with any n-gram in training text, ascending."""
    return np.flatnonzero(self.shares > 0)


def ngram_index(texts: Iterable[str], n: int = 13, *, least: int = 8) -> NgramIndex:
  """Indexes the n-grams of evaluation items.

  Args:
    texts: an item each.
    n: words in an n-gram.
    least: items of fewer words are not compared; those of fewer than n words as a whole.

  Raises:
    ValueError: n or `least` below 1.

  Source: GPT-3, arXiv 2005.14165, appendix C: n-grams of 8 to 13 words without case and punctuation, at
  least 8 for all but synthetic sets.
  """
  for name, value in (('n', n), ('least', least)):
    if value < 1:
      raise ValueError(f'ngram_index({name}={value}): 1 or more.')
  keys, items, lengths, too_short, number = [], [], set(), 0, 0
  for text in texts:
    words = grams.word_keys(grams.find_words(text))
    if len(words) < least:
      too_short += 1
    else:
      lengths.add(min(n, len(words)))
      found = np.unique(grams.gram_keys(words, min(n, len(words))))
      keys.append(found)
      items.append(np.full(len(found), number, np.int32))
    number += 1
  every = np.concatenate([np.zeros(0, np.uint64), *keys])
  unique, gram_of = np.unique(every, return_inverse=True)
  order = np.argsort(gram_of, kind='stable')
  return NgramIndex(
    n,
    number,
    too_short,
    unique,
    np.array(sorted(lengths), np.int64),
    gram_of[order].astype(np.int32),
    np.concatenate([np.zeros(0, np.int32), *items])[order],
  )


def overlap(index: NgramIndex, texts: Iterable[str]) -> Overlap:
  """Compares training texts with an evaluation set.

  Args:
    index: of the set.
    texts: a training document each.
  """
  seen_G = np.zeros(len(index.grams), bool)
  documents = touched = 0
  for text in texts:
    found = index.find(text)
    seen_G[found] = True
    documents += 1
    touched += len(found) > 0
  has = np.bincount(index.item_of, minlength=index.items)
  seen = np.bincount(index.item_of[seen_G[index.gram_of]], minlength=index.items)
  shares = np.divide(seen, has, out=np.full(index.items, np.nan), where=has > 0)
  return Overlap(documents, touched, shares)


def remove_contamination(
  *,
  evaluation: Iterable[str | os.PathLike] = (),
  texts: Sequence[str] = (),
  n: int = 13,
  least: int = 8,
  remove: bool = True,
  text_key: str = 'text',
) -> 'Contamination':
  """Removes documents that share an n-gram of words with evaluation text.

  Args:
    evaluation: 'task:split' names, or files (JSONL, text, Parquet; compressed or not) with a field
      'text'. A split of the list is never cleaned itself.
    texts: more items, as they are.
    n: words in an n-gram, NFC and casefolded, without punctuation and digits.
    least: items of fewer words are not compared; those of fewer than n words as a whole.
    remove: False only counts.
    text_key: the feature that holds the training text, and that of the tasks in `evaluation`.

  Counts:
    removed (or, with remove=False, noted) 'contaminated'. A cache's manifest has, for each set, its items,
    those too short, and the numbers of those found, from 0.

  Raises:
    ValueError: nothing to compare with, a file that is not there, two sets of one name, n or `least` below 1.

  Source: GPT-3, arXiv 2005.14165, appendix C, which cuts 200 characters around an n-gram; here the whole
  document goes.
  """
  ngram_index((), n, least=least)
  names = tuple(os.fspath(name) for name in evaluation)
  for name in names:
    if not os.path.isfile(name) and (os.sep in name or not all(name.rpartition(':'))):
      beside = (
        os.listdir(os.path.dirname(name) or '.')
        if os.path.isdir(os.path.dirname(name) or '.')
        else []
      )
      raise ValueError(
        f"remove_contamination(evaluation=…): {name!r} is no file and no 'task:split'."
        f'{nearest(os.path.basename(name), beside)}'
      )
  if isinstance(texts, str):
    raise ValueError('remove_contamination(texts=…): a list of texts.')
  if not names and not texts:
    raise ValueError('remove_contamination: give evaluation=… or texts=….')
  files = tuple(name for name in names if os.path.isfile(name))
  called = [os.path.basename(file) for file in files] + (['texts'] if texts else [])
  if twice := [name for name in called if called.count(name) > 1]:
    raise ValueError(
      f'remove_contamination: two evaluation sets are called {twice[0]!r}, and are counted by name. Rename one.'
    )
  return Contamination(
    text_key=text_key,
    names=tuple(name for name in names if name not in files),
    files=files,
    texts=tuple(texts),
    n=n,
    least=least,
    remove=remove,
  )


@dataclasses.dataclass(frozen=True)
class Contamination(Comparing):
  """The step of `remove_contamination`; see there."""

  files: tuple[str, ...] = ()
  texts: tuple[str, ...] = ()
  n: int = 13
  least: int = 8
  remove: bool = True

  def __call__(self, dataset: Any) -> Any:
    @functools.cache
    def sets() -> EvaluationSets:
      return EvaluationSets.load(self.table) if self.table else self._make(dataset)

    def judge(text: str) -> Verdict:
      found = sets().find(text)
      if not found:
        return Verdict(text)
      noted = tuple(f'{OVERLAP}:{name}:{item}' for name, item in found)
      if self.remove:
        return Verdict(removed='contaminated', noted=noted)
      return Verdict(text, noted=('contaminated', *noted))

    return steps.run(dataset, judge, self.text_key)

  def competitors(self, own: str) -> tuple[str, ...]:
    """Returns the splits to compare with while one is read."""
    return tuple(name for name in self.names if name != own)

  def without(self, files: Iterable[str]) -> 'Contamination':
    """The step without files that are the very text which is read."""
    own = {os.path.realpath(file) for file in files}
    return dataclasses.replace(
      self, files=tuple(file for file in self.files if os.path.realpath(file) not in own)
    )

  def make_sets(self, names: Sequence[str]) -> 'EvaluationSets':
    """Reads and indexes the files, the texts and some of the splits."""
    given = [(name, list(texts_of(name, self))) for name in names]
    return self._index(given)

  def _make(self, dataset: Any) -> 'EvaluationSets':
    """Where no builder has made it."""
    given = []
    for name in self.names:
      texts = list(texts_of(name, self))
      if not is_itself(dataset, texts, self.text_key):
        given.append((name, texts))
    own = [f for f in self.files if is_itself(dataset, _texts_in(f), self.text_key)]
    return self.without(own)._index(given)

  def _index(self, given: list[tuple[str, list[str]]]) -> 'EvaluationSets':
    for path in self.files:
      given.append((os.path.basename(path), _texts_in(path)))
    if self.texts:
      given.append(('texts', list(self.texts)))
    starts = np.cumsum([0, *(len(texts) for _, texts in given)])
    every = ngram_index((t for _, texts in given for t in texts), self.n, least=self.least)
    short = [ngram_index(texts, self.n, least=self.least).too_short for _, texts in given]
    return EvaluationSets(
      every, np.array([name for name, _ in given], str), starts, np.array(short, np.int64)
    )


def _texts_in(path: str) -> list[str]:
  documents = sources.read_documents(path, text_key='text')
  return [d.text for d in documents if d.text is not None]


@dataclasses.dataclass(frozen=True)
class EvaluationSets:
  """Several sets in one index.

  Attributes:
    index: of the items of all sets, one set after the other.
    names: str [E], of the sets.
    starts: int64 [E + 1], the first item of each set, and the number of all.
    too_short: int64 [E], items that are not compared.
  """

  index: NgramIndex
  names: np.ndarray
  starts: np.ndarray
  too_short: np.ndarray

  def find(self, text: str) -> list[tuple[str, int]]:
    """Returns the items that share an n-gram with a text: name of the set, number in it."""
    found = self.index.find(text)
    if not len(found):
      return []
    items = self.index.items_with(found)
    sets = np.searchsorted(self.starts, items, side='right') - 1
    return [(str(self.names[s]), int(i - self.starts[s])) for s, i in zip(sets, items, strict=True)]

  def sizes(self) -> list[tuple[str, int, int]]:
    """Returns each set's name, its number of items, and how many are too short."""
    items, short = np.diff(self.starts).tolist(), self.too_short.tolist()
    return list(zip(self.names.tolist(), items, short, strict=True))

  def save(self, path: str) -> None:
    """Writes it as an .npz file."""
    arrays = {f.name: getattr(self.index, f.name) for f in dataclasses.fields(self.index)}
    np.savez(path, names=self.names, starts=self.starts, short=self.too_short, **arrays)

  @classmethod
  def load(cls, path: str) -> 'EvaluationSets':
    """Reads what `save` wrote, from a path or URL."""
    with fsspec.open(path, 'rb') as file, np.load(file) as found:
      values = {f.name: found[f.name] for f in dataclasses.fields(NgramIndex)}
      for name in ('n', 'items', 'too_short'):
        values[name] = int(values[name])
      return cls(NgramIndex(**values), found['names'], found['starts'], found['short'])
