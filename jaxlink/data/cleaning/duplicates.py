"""Exact and near duplicates: of each text, and of each group of nearly equal texts, one document stays.

Two passes over the whole source, whoever reads which part of it:

  index    each text's key (8 bytes) and 14 band keys (112 bytes) of its MinHash signature
  decide   documents that share a key or a band are a group; the smallest key of a group stays, and
           all of a group go that has a text of a held-out split. A table keeps what is not alone.
  apply    a text is looked up by its key: what stays does not depend on where it is read

Easy to get wrong: "the first one stays". Which comes first depends on files, parts and processes. The winner
is chosen by content; of texts that are equal to the letter, whose copies are the same document,
one in the first part that has any.
"""

import array
import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fsspec
import numpy as np

from jaxlink.data.cleaning import grams, steps
from jaxlink.data.cleaning.compared import Comparing, is_itself, split_names, texts_of
from jaxlink.data.cleaning.steps import Verdict
from jaxlink.link import draws

_SEED = 1  # of the permutations
_REASONS = ('', 'near_duplicate', 'held_out_copy')
_KEPT, _NEAR, _HELD_OUT = range(3)


def remove_duplicates(
  *,
  against: Iterable[str] = (),
  near: bool = True,
  ngram: int = 5,
  bands: int = 14,
  rows: int = 8,
  text_key: str = 'text',
) -> 'Duplicates':
  """Removes all but one of equal and of nearly equal texts of the split that is read.

  Args:
    against: 'task:split' names of held-out text, in order of priority; a document that is a copy
      of theirs goes. A split of the list is compared with those before it only, so that the same
      list serves training and held-out text: ('tr:test', 'tr:validation') removes copies of test text
      from validation text, and copies of both from training text.
    near: whether nearly equal texts go too, by MinHash.
    ngram: words in a shingle; a shorter text is one shingle.
    bands: groups of hashes; texts that agree in all of one are near duplicates.
    rows: hashes in a band. With 14 x 8, texts whose shingles overlap by a Jaccard index of .7, .75, .8,
      .9 are found with probability .56, .77, .92, .9996.
    text_key: the feature that holds the text.

  Counts:
    removed 'exact_duplicate': further copies of a text; 'near_duplicate': texts whose group has another
    that stays; 'held_out_copy': texts in a group with held-out text.

  A SeqIO pipeline of one's own that repeats (num_epochs) needs seqio.CacheDatasetPlaceholder() after this
  step: without it SeqIO repeats the source, and the second time every text is a duplicate.

  Memory: 200 bytes for each document of a part while it is indexed, and 120 on disk; about 85 for each of the
  whole source in the process that decides; 13 for each text that is not alone in those that read.

  Raises:
    ValueError: numbers below 1, or a name that is not 'task:split'.

  Source: FineWeb2, arXiv 2506.20920, and its pipeline: 112 hashes in 14 buckets of 8, word 5-grams, one
  document of each connected group stays. Signatures by datasketch.
  """
  for name, value in (('ngram', ngram), ('bands', bands), ('rows', rows)):
    if value < 1:
      raise ValueError(f'remove_duplicates({name}={value}): 1 or more.')
  return Duplicates(
    text_key=text_key,
    names=split_names('remove_duplicates(against=…)', against),
    signature=(ngram, bands, rows) if near else None,
  )


@dataclasses.dataclass(frozen=True)
class Duplicates(Comparing):
  """The step of `remove_duplicates`; see there.

  Attributes:
    signature: shingle, bands and rows; None where only equal texts count.
  """

  signature: tuple[int, int, int] | None = None

  def __call__(self, dataset: Any) -> Any:
    seen: set[int] = set()

    @functools.cache
    def table() -> Table:
      return Table.load(self.table) if self.table else self._make_table(dataset)

    def judge(text: str) -> Verdict:
      reason = table().judge(draws.key_of(text), self.part, seen)
      return Verdict(text, removed=reason)

    return steps.run(dataset, judge, self.text_key, begin=seen.clear)

  def competitors(self, own: str) -> tuple[str, ...]:
    """Returns the splits that have priority over one."""
    return self.names[: self.names.index(own)] if own in self.names else self.names

  def index(self, texts: Iterable[str]) -> 'Index':
    """Returns the keys of texts."""
    keys, bands = array.array('Q'), bytearray()  # a list of arrays takes four times the memory
    for text in texts:
      key = draws.key_of(text)
      keys.append(key)
      if self.signature:
        bands += _band_keys(text, key, *self.signature).tobytes()
    number = self.signature[1] if self.signature else 0
    found = np.frombuffer(bands, np.uint64).reshape(len(keys), number)
    return Index(np.array(keys, np.uint64), {_band(b): found[:, b] for b in range(number)})

  def decide(self, parts: list['Index'], held_out: list['Index']) -> 'Table':
    """Returns what is to be done with the texts of a source, given the indexes of its parts."""
    return make_table(parts, held_out, self.signature[1] if self.signature else 0)

  def _make_table(self, dataset: Any) -> 'Table':
    """Where no builder has made one: from the dataset itself, read once more."""
    import tensorflow as tf

    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
      raise ValueError(
        'remove_duplicates: the dataset is repeated endlessly. Put seqio.CacheDatasetPlaceholder() after '
        'the cleaning steps: SeqIO repeats what comes before it only afterwards.'
      )
    held_out = []
    for name in self.names:
      texts = list(texts_of(name, self))
      if is_itself(dataset, texts, self.text_key):
        break
      held_out.append(self.index(texts))
    return self.decide([self.index(steps.texts(dataset, self.text_key))], held_out)


def _band(number: int) -> str:
  return f'band_{number}'


@dataclasses.dataclass(frozen=True)
class Index:
  """Keys of N texts: uint64 [N], and a mapping of B band numbers to their keys: uint64 [N] each."""

  keys: np.ndarray
  bands: Mapping[str, np.ndarray]

  def save(self, path: str) -> None:
    """Writes it as an .npz file, of which a band can be read alone."""
    np.savez(path, keys=self.keys, **self.bands)

  @classmethod
  @contextlib.contextmanager
  def open(cls, path: str) -> Iterator['Index']:
    """Opens what `save` wrote; a band is read when it is asked for."""
    with np.load(path) as file:
      yield cls(file['keys'], file)


@dataclasses.dataclass(frozen=True)
class Table:
  """What is to be done with texts that are not alone; the others stay.

  Attributes:
    keys: uint64 [K], sorted.
    verdicts: uint8 [K], for the first copy of the text.
    parts: int32 [K], the first part that has one.
  """

  keys: np.ndarray
  verdicts: np.ndarray
  parts: np.ndarray

  def judge(self, key: int, part: int | None, seen: set[int]) -> str:
    """Returns why a text goes, or ''.

    Args:
      key: of the text.
      part: that is read; None where one reader reads all.
      seen: keys met before in this part; the text's is added.
    """
    at = int(np.searchsorted(self.keys, np.uint64(key)))
    if at == len(self.keys) or int(self.keys[at]) != key:
      return ''
    verdict = int(self.verdicts[at])
    if verdict != _HELD_OUT and (key in seen or part not in (None, int(self.parts[at]))):
      return 'exact_duplicate'
    seen.add(key)
    return _REASONS[verdict]

  def save(self, path: str) -> None:
    """Writes it as an .npz file."""
    np.savez(path, keys=self.keys, verdicts=self.verdicts, parts=self.parts)

  @classmethod
  def load(cls, path: str) -> 'Table':
    """Reads what `save` wrote, from a path or URL."""
    with fsspec.open(path, 'rb') as file, np.load(file) as found:
      return cls(found['keys'], found['verdicts'], found['parts'])


def make_table(parts: list[Index], held_out: list[Index], bands: int) -> Table:
  """Decides about all texts of a source.

  Args:
    parts: of the source, all of them.
    held_out: texts that stay whatever they are, and whose copies go.
    bands: B; 0 where only equal texts count.
  """
  every = [*parts, *held_out]
  keys_N = np.concatenate([index.keys for index in every])
  own = sum(len(index.keys) for index in parts)
  groups_N = _join(np.arange(len(keys_N), dtype=np.int32), keys_N)
  for band in map(_band, range(bands)):
    groups_N = _join(groups_N, np.concatenate([index.bands[band] for index in every]))
  number = int(groups_N.max(initial=-1)) + 1
  is_held_out = np.zeros(number, bool)
  is_held_out[groups_N[own:]] = True
  winners = np.full(number, np.iinfo(np.uint64).max, np.uint64)
  np.minimum.at(winners, groups_N, keys_N)

  part_of = np.repeat(np.arange(len(parts), dtype=np.int32), [len(p.keys) for p in parts])
  # Of copies the first: they stand in the order of their parts.
  keys_K, first, copies = np.unique(keys_N[:own], return_index=True, return_counts=True)
  group = groups_N[first]
  verdicts = np.where(keys_K == winners[group], _KEPT, _NEAR)
  verdicts[is_held_out[group]] = _HELD_OUT
  rare = (verdicts != _KEPT) | (copies > 1)
  return Table(keys_K[rare], verdicts[rare].astype(np.uint8), part_of[first][rare])


def _join(groups_N: np.ndarray, values_N: np.ndarray) -> np.ndarray:
  """Unites the groups of documents with an equal value; groups are numbered from 0."""
  import scipy.sparse

  order = np.argsort(values_N, kind='stable')
  same = values_N[order[1:]] == values_N[order[:-1]]
  left, right = groups_N[order[:-1][same]], groups_N[order[1:][same]]
  if not len(left):
    return groups_N
  number = int(groups_N.max()) + 1
  graph = scipy.sparse.coo_array((np.ones(len(left), bool), (left, right)), (number, number))
  return scipy.sparse.csgraph.connected_components(graph, directed=False)[1][groups_N]


def _band_keys(text: str, key: int, ngram: int, bands: int, rows: int) -> np.ndarray:
  """Returns the band keys of a text, uint64 [B]; without words they are its own."""
  words = grams.word_keys(grams.find_words(text))
  if not len(words):
    return grams.mix(np.uint64(key) + np.arange(bands, dtype=np.uint64))
  sketch = _sketch(bands * rows)
  sketch.update_batch(grams.gram_keys(words, min(ngram, len(words))))
  hashes = sketch.hashvalues.reshape(bands, rows)
  # A band is keyed by its hashes and its number, as an n-gram is by its words and n.
  found = np.arange(bands, dtype=np.uint64)
  for row in range(rows):
    found = grams.mix(found ^ hashes[:, row])
  return found


def _sketch(hashes: int) -> Any:
  try:
    import datasketch
  except ModuleNotFoundError as error:
    raise ValueError(
      "remove_duplicates(near=True) needs datasketch: pip install -e '.[cleaning]'."
    ) from error
  permutations = _permutations(hashes)
  return datasketch.MinHash(
    hashes, seed=_SEED, hashfunc=int, scheme='affine64', permutations=permutations
  )


@functools.cache
def _permutations(hashes: int) -> np.ndarray:
  import datasketch

  return datasketch.MinHash(hashes, seed=_SEED, hashfunc=int, scheme='affine64').permutations
