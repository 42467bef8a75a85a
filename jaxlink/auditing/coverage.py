"""What a lexicon has of a source: read out of the cache's word marks with the engine's own look-up.

In: a cache and a link table. Out: `Coverage`, of the whole source: words and their tokens by what can be
done with them, by frequency, by number of senses, and the words that are missed most.

Easy to get wrong: a word is no type. The same word can be replaced in one place and not in another: as part
of a source of several words, or where its tokens depend on what stands beside it. So all is counted in
running words, and `eligible` here is what a run replaces when it replaces all it can.
"""

import collections
import dataclasses
import itertools
from collections.abc import Collection

import numpy as np
import tqdm

from jaxlink.data import linking
from jaxlink.data.blocks import Blocks
from jaxlink.link import lemmas, sites, words
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.table import COVERED, COVERED_ANY, ELIGIBLE, STOP, LinkTable

# Ranks by frequency at which a band ends; one more has the rest.
BANDS = (100, 1_000, 10_000, 100_000)
LENGTHS = 6  # words of so many tokens and more are counted together
SENSES = 8  # as many senses and more are counted together
LISTED = 40  # words of each list


@dataclasses.dataclass(frozen=True)
class Counts:
  """Running words and the tokens that they take, the space before a word included."""

  words: int = 0
  tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Band:
  """The words of ranks `first` to `last` by frequency; running words but for `types`."""

  first: int
  last: int
  types: int
  words: int
  covered: int
  identity: int


@dataclasses.dataclass(frozen=True)
class Missing:
  """A word without a translation, how often it is, and its lemma if the lexicon has that."""

  word: str
  count: int
  stop_word: bool = False
  lemma: str = ''


@dataclasses.dataclass(frozen=True)
class Coverage:
  """What a lexicon has of a source.

  Attributes:
    language: of the targets.
    all: the source's words.
    covered: those with a translation.
    eligible: those of them that the regime allows.
    identity: those that the lexicon maps to nothing but themselves.
    unspliceable: those whose tokens depend on what stands beside them.
    stop_words: those that are stop words; None without a list.
    covered_stop_words: those that are covered and stop words.
    eligible_stop_words: those of them that the regime allows.
    stop_sites: covered words that a regime takes for stop words: a phrase is one if all its words are.
    phrases: covered words that are part of a source of several words.
    bands: by frequency.
    senses: covered words by the number of their translations, from 1; the last has all that have more.
    missing: the most frequent words without a translation.
    identities: the most frequent words mapped to themselves.
    unspliceables: the most frequent unspliceable ones.
    lemma_language: code under which simplemma knows the source's language; '' if it does not, or if
      the policy uses lemmas already.
    lemma_words: words without a translation whose lemma has one.
  """

  language: str
  all: Counts
  covered: Counts
  eligible: Counts
  identity: Counts
  unspliceable: Counts
  stop_words: Counts | None
  covered_stop_words: Counts | None
  eligible_stop_words: Counts | None
  stop_sites: Counts | None
  phrases: Counts
  bands: list[Band]
  senses: list[int]
  missing: list[Missing]
  identities: list[Missing]
  unspliceables: list[Missing]
  lemma_language: str
  lemma_words: int


def measure(
  blocks: Blocks,
  table: LinkTable,
  lexicon: Lexicon,
  g: int,
  *,
  stop_words: Collection[str] = (),
  lemma_language: str = '',
  progress: bool = True,
) -> Coverage:
  """Reads a whole cache, as if each of its documents were rewritten.

  Args:
    blocks: the cache of the auxiliary text.
    table: the link table made for it.
    lexicon: of the language, for what lemmas would add.
    g: index of the language among those of the table.
    stop_words: their keys.
    lemma_language: code of the source's language to look missing words up by lemma; '' does not.
    progress: whether to draw bars.
  """
  types = _Types(blocks, stop_words)
  totals: collections.Counter[str] = collections.Counter()
  senses_K = np.zeros(SENSES + 1)
  bar = tqdm.tqdm(total=blocks.tokens, desc=f'reading {blocks.name}', unit=' tokens', delay=2,
                  unit_scale=True, disable=None if progress else True, leave=False)  # fmt: skip
  with bar:
    for windows in linking.read_source(blocks):
      _count(windows, table, g, types, totals, senses_K)
      bar.update(len(windows.tokens_N))
  missed = types.missed(lexicon, lemma_language, progress)
  counts = lambda name: Counts(totals[name], totals[f'{name} tokens'])  # noqa: E731
  listed = len(stop_words) > 0
  return Coverage(
    language=table.languages[g],
    **{name: counts(name) for name in ('all', 'covered', 'eligible', 'identity', 'unspliceable', 'phrases')},
    **{name: counts(name) if listed else None
       for name in ('stop_words', 'covered_stop_words', 'eligible_stop_words', 'stop_sites')},
    bands=types.bands(),
    senses=senses_K[1:].astype(int).tolist(),
    missing=missed[0],
    identities=types.most(types.identity_T),
    unspliceables=types.most(types.unspliceable_T),
    lemma_language=lemma_language,
    lemma_words=missed[1],
  )  # fmt: skip


def token_lengths(blocks: Blocks) -> tuple[int, list[int]]:
  """Returns the tokens of a cache's words, and how many words have 1, 2, …, `LENGTHS` tokens or more."""
  count_L = np.zeros(LENGTHS + 1, np.int64)
  total = 0
  for shard in blocks.manifest['shards']:
    for block in range(shard['blocks']):
      length_W = blocks.read_block_words(shard['shard'], block).length
      total += int(length_W.sum())
      count_L += np.bincount(np.clip(length_W, 1, LENGTHS), minlength=LENGTHS + 1)
  return total, count_L[1:].tolist()


def document_keys(blocks: Blocks) -> set[int]:
  """Returns the keys of a cache's documents that hold words."""
  return {
    key
    for shard in blocks.manifest['shards']
    for block in range(shard['blocks'])
    for key in np.unique(blocks.read_block_words(shard['shard'], block).document).tolist()
  }


def _count(
  w: sites.Windows,
  table: LinkTable,
  g: int,
  types: '_Types',
  totals: collections.Counter[str],
  senses_K: np.ndarray,
) -> None:
  """Adds the words of some windows."""
  entry_W, extent_W, kind_W = sites.find(w, table, g)
  covered_W = kind_W & COVERED > 0
  type_W = types.of(w.hash_W)
  site_S = np.flatnonzero(covered_W & (extent_W > 0))
  extent_S = extent_W[site_S]
  np.add.at(senses_K, np.minimum(table.count_EG[entry_W[site_S], g], SENSES), extent_S)
  phrase_W, stop_site_W = np.zeros(len(kind_W), bool), np.zeros(len(kind_W), bool)
  inside_W = np.repeat(site_S, extent_S) + _steps(extent_S)
  phrase_W[inside_W] = np.repeat(extent_S > 1, extent_S)
  stop_site_W[inside_W] = np.repeat(table.flags_E[entry_W[site_S]] & STOP > 0, extent_S)
  stop_W = types.stop_T[type_W]
  masks = {
    'all': np.ones(len(kind_W), bool),
    'covered': covered_W,
    'eligible': kind_W & ELIGIBLE > 0,
    'identity': ~covered_W & (kind_W & COVERED_ANY > 0),
    'unspliceable': w.flags_W & words.UNSPLICEABLE > 0,
    'phrases': phrase_W,
    'stop_words': stop_W,
    'covered_stop_words': stop_W & covered_W,
    'eligible_stop_words': stop_W & (kind_W & ELIGIBLE > 0),
    'stop_sites': stop_site_W,
  }
  for name, mask_W in masks.items():
    totals[name] += int(np.count_nonzero(mask_W))
    totals[f'{name} tokens'] += int(w.length_W[mask_W].sum())
  for into_T, name in (
    (types.covered_T, 'covered'), (types.identity_T, 'identity'),
    (types.unspliceable_T, 'unspliceable'),
  ):  # fmt: skip
    np.add.at(into_T, type_W[masks[name]], 1)


def _steps(size_S: np.ndarray) -> np.ndarray:
  """0, 1, …, size - 1 of each site, one after another."""
  return np.arange(size_S.sum()) - np.repeat(np.cumsum(size_S) - size_S, size_S)


class _Types:
  """The different words of a source, the most frequent first, and what was counted of each."""

  def __init__(self, blocks: Blocks, stop_words: Collection[str]):
    counts: collections.Counter[str] = collections.Counter()
    for shard in blocks.manifest['shards']:
      counts.update(blocks.read_types(shard['shard']))
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    self.keys = [key for key, _ in pairs]
    self.count_T = np.array([count for _, count in pairs], np.int64)
    self.stop_T = np.array([key in stop_words for key in self.keys], bool)
    self.covered_T, self.identity_T, self.unspliceable_T = np.zeros((3, len(pairs)), np.int64)
    hash_T = np.fromiter(map(key_of, self.keys), np.uint64, len(pairs))
    self._order = np.argsort(hash_T)
    self._sorted = hash_T[self._order]

  def of(self, hash_W: np.ndarray) -> np.ndarray:
    """Which of them each word is."""
    return self._order[np.searchsorted(self._sorted, hash_W)]

  def bands(self) -> list[Band]:
    """What is covered, by rank."""
    edges = [0, *(e for e in BANDS if e < len(self.keys)), len(self.keys)]
    return [
      Band(first + 1, last, last - first, *(
        int(a[first:last].sum()) for a in (self.count_T, self.covered_T, self.identity_T)
      ))
      for first, last in itertools.pairwise(edges)
    ]  # fmt: skip

  def most(self, times_T: np.ndarray) -> list[Missing]:
    """The most frequent ones by some count."""
    first = np.argsort(-times_T, kind='stable')[:LISTED]
    return [
      Missing(self.keys[t], int(times_T[t]), bool(self.stop_T[t])) for t in first if times_T[t]
    ]

  def missed(self, lexicon: Lexicon, language: str, progress: bool) -> tuple[list[Missing], int]:
    """The most frequent without a translation, and how many words of all of them a lemma would find."""
    times_T = self.count_T - self.covered_T - self.identity_T - self.unspliceable_T
    listed = self.most(times_T)
    if not language:
      return listed, 0
    gained, lemma_of = 0, {}
    bar = tqdm.tqdm(np.flatnonzero(times_T).tolist(), desc='lemmas', unit=' words', delay=2,
                    disable=None if progress else True, leave=False)  # fmt: skip
    for t in bar:
      under, _ = lemmas.targets_of(lexicon, self.keys[t], language)
      if under:
        gained += int(times_T[t])
        lemma_of[self.keys[t]] = under
    return [dataclasses.replace(m, lemma=lemma_of.get(m.word, '')) for m in listed], gained
