"""LINK, text to text: words of a document become their translations from a lexicon.

In: a text, a `Lexicon`, a `LinkPolicy` and `Draws`. Out: the new text, what was replaced where, and
the dose: words, covered, eligible and replaced words. This is the reference; a load-time engine that
splices tokens has to agree with it.

Easy to get wrong:
- A ratio has two readings. `ratio_of='covered'` replaces a share of the words that the lexicon has,
  `'all'` a share of all words, which needs counts of the whole source (`count`, `probability`).
- A draw belongs to a word's index in its document, whether or not the words before it were drawn:
  raising a ratio adds replacements and never moves or undoes one.
- Word counters are zero for a document that was not drawn; only `words_seen` counts it.

Source: LINK, arXiv 2605.23885, which fixes the portion, the ratio, random words and word-level
translation; everything finer is a choice made here.
"""

import dataclasses
import functools
import threading
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import regex

from jaxlink.config import configurable
from jaxlink.link import words
from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon

# ISO 639-1 and 639-3 codes. Of languages written without spaces between words:
_UNSPACED = frozenset(
  {'zh', 'zho', 'cmn', 'yue', 'ja', 'jpn', 'th', 'tha', 'lo', 'lao'}
  | {'km', 'khm', 'my', 'mya', 'bo', 'bod'}
)
# Of languages whose capital of i is İ:
_DOTTED_I = frozenset({'tr', 'tur', 'az', 'aze', 'azj'})
_LANGUAGE = regex.compile(r'[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*')
_LETTER = regex.compile(r'\p{L}')
_SURFACES = 1 << 20  # words that a table remembers before it starts anew; about 300 MB


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkPolicy:
  """Which words of a source may be replaced, how often, and by what.

  Attributes:
    lexicon: path of the list of word pairs.
    language: code of the language of the lexicon's targets ('tr', 'deu', 'zh-Hant'): decides what
      the capital of i is, and whether words are joined.
    doc_fraction: probability that a document is rewritten.
    word_ratio: the ratio inside a rewritten document; of what, says `ratio_of`.
    ratio_of: 'covered', each eligible word is replaced with probability `word_ratio`; 'all',
      `word_ratio` is a share of all words, reached by raising that probability.
    senses: of a word with several targets: 'per_document' one for each document and word, 'uniform'
      one for each occurrence, 'first' the first of the file.
    regime: 'uniform', all covered words are eligible; 'content', those that are no stop words.
    stop_words: path of a list of stop words, one a line; needed by 'content'.
    mode: 'replace' ("Hund" for "dog") or 'annotate' ("dog (Hund)").
    match_case: put the capitals of the word on its replacement.
    join: 'auto', no space before a replacement in a language written without spaces; 'space', keep
      it. An annotation keeps its spaces in both.
    multi_word: match sources of several words too, longest first.
    redraw: draw anew in each epoch; else the rewriting is fixed for the run.
  """

  lexicon: str
  language: str
  doc_fraction: float = 0.5
  word_ratio: float = 0.3
  ratio_of: Literal['covered', 'all'] = 'covered'
  senses: Literal['per_document', 'uniform', 'first'] = 'per_document'
  regime: Literal['uniform', 'content'] = 'uniform'
  stop_words: str = ''
  mode: Literal['replace', 'annotate'] = 'replace'
  match_case: bool = True
  join: Literal['auto', 'space'] = 'auto'
  multi_word: bool = True
  redraw: bool = False

  def __post_init__(self):
    if not self.lexicon:
      raise ValueError("LinkPolicy.lexicon is '': it is the path of a list of word pairs.")
    if not _LANGUAGE.fullmatch(self.language):
      raise ValueError(
        f"LinkPolicy.language is {self.language!r}: it is a code such as 'tr', 'deu' or 'zh-Hant'."
      )
    for name in ('doc_fraction', 'word_ratio'):
      value = getattr(self, name)
      if not 0 <= value <= 1:
        raise ValueError(f'LinkPolicy.{name} is {value}: it is a probability, 0 to 1.')
    if self.regime == 'content' and not self.stop_words:
      raise ValueError(
        "LinkPolicy.stop_words is '': regime 'content' needs the path of a list of stop words."
      )

  @property
  def base_language(self) -> str:
    """The language code without script and region, in lower case."""
    return regex.split('[-_]', self.language)[0].lower()

  def draws(self, seed: int, source: str, epoch: int) -> Draws:
    """The draws of a source in an epoch; the same in every epoch unless `redraw`."""
    return Draws(seed, source, epoch if self.redraw else 0)


@dataclasses.dataclass(frozen=True)
class Dose:
  """Counts of documents and words; doses add up. A site of n words counts n in every counter.

  Attributes:
    documents: all documents.
    documents_rewritten: those that were drawn. The counters from `words` on are about them alone.
    words_seen: words of all documents.
    words: words of the documents that were drawn.
    covered_any: covered words and words that the lexicon maps to nothing but themselves.
    covered: words with a translation.
    eligible: covered words that the regime allows.
    replaced: words that were replaced or annotated.
    stop_replaced: those of them that are stop words (0 if no list was given).
  """

  documents: int = 0
  documents_rewritten: int = 0
  words_seen: int = 0
  words: int = 0
  covered_any: int = 0
  covered: int = 0
  eligible: int = 0
  replaced: int = 0
  stop_replaced: int = 0

  def __add__(self, other: 'Dose') -> 'Dose':
    if not isinstance(other, Dose):
      return NotImplemented
    return Dose(*(getattr(self, name) + getattr(other, name) for name in _DOSE_FIELDS))

  @property
  def identity_dropped(self) -> int:
    """Words whose only entries were identity pairs."""
    return self.covered_any - self.covered

  @property
  def realised_all(self) -> float:
    """Replaced words per word of the rewritten documents; 0 without words."""
    return self.replaced / self.words if self.words else 0.0

  @property
  def realised_covered(self) -> float:
    """Replaced words per eligible word; 0 without eligible words."""
    return self.replaced / self.eligible if self.eligible else 0.0

  def shortfall(self, ratio: float) -> float:
    """By how much a share of all words exceeds what is eligible; 0 if it can be reached."""
    return max(0.0, ratio - self.eligible / self.words) if self.words else 0.0


_DOSE_FIELDS = tuple(field.name for field in dataclasses.fields(Dose))


@dataclasses.dataclass(frozen=True, eq=False)
class Substituted:
  """A rewritten document, with S replaced spans in order, not overlapping.

  Where a space went, its span begins with it: replacing the spans in the original gives the text.

  Attributes:
    text: the new text.
    dose: what was counted.
    original: the old text.
    start_S: where each span starts in the old text, in characters.
    end_S: where it ends.
    replacements: what stands there now.
  """

  text: str
  dose: Dose
  original: str
  start_S: np.ndarray
  end_S: np.ndarray
  replacements: list[str]

  @property
  def sites(self) -> list[tuple[int, int, str, str]]:
    """(start, end, original, replacement) of each span, for a reader."""
    starts, ends = self.start_S.tolist(), self.end_S.tolist()
    originals = [self.original[start:end] for start, end in zip(starts, ends, strict=True)]
    return list(zip(starts, ends, originals, self.replacements, strict=True))


def substitute(
  text: str,
  lexicon: Lexicon,
  policy: LinkPolicy,
  draws: Draws,
  *,
  document: int,
  probability: float | None = None,
  stop_words: frozenset[str] = frozenset(),
) -> Substituted:
  """Replaces drawn words of a document by their translations.

  Args:
    text: the document, after the tokenizer's normaliser if it has one.
    lexicon: translations; `policy.lexicon` is not read here.
    policy: which words may be drawn, how often, and how they are rendered.
    draws: `uniform(stream, document, k)` in [0, 1) and `key_of(text)`, as `Draws` has them.
      Streams: 'doc' with k = 0, 'word' with k = index of the word, 'sense' with k = index of the
      word or `key_of` its key.
    document: 64-bit key of the document.
    probability: of replacing an eligible word, from `probability()`; needed by `ratio_of='all'`.
    stop_words: keys of stop words (`load_words`); needed by regime 'content'.

  Returns:
    The new text, the dose and the sites.

  Raises:
    ValueError: `ratio_of='all'` without a probability, a probability outside 0 to 1, or regime
      'content' without stop words.

  Source: LINK, arXiv 2605.23885.
  """
  ratio = _checked_ratio(policy, probability)
  table = _table(lexicon, policy, stop_words, draws.key_of)
  pieces = words.split_words(text)
  if draws.uniform('doc', document, 0) >= policy.doc_fraction:
    none_S = np.zeros(0, np.int64)
    dose = Dose(documents=1, words_seen=len(pieces) // 2)
    return Substituted(text, dose, text, none_S, none_S, [])

  found_N, dose = _look_up(pieces, table)
  site_S = np.flatnonzero(found_N['eligible'])
  site_S = site_S[draws.uniform('word', document, site_S) < ratio]
  found_S = found_N[site_S]
  dose = dataclasses.replace(
    dose,
    documents_rewritten=1,
    replaced=int(found_S['words'].sum()),
    stop_replaced=int(found_S['words'][found_S['stop']].sum()),
  )
  if policy.senses == 'first':
    sense_S = np.zeros(len(site_S), np.int64)
  else:
    k_S = site_S if policy.senses == 'uniform' else found_S['sense_key']
    sense_S = (draws.uniform('sense', document, k_S) * found_S['targets']).astype(np.int64)
  rendered_S = found_S['rendered'] + sense_S
  replacements = list(map(table.rendered.__getitem__, rendered_S.tolist()))
  glue = policy.join == 'auto' and policy.mode == 'replace' and policy.base_language in _UNSPACED
  start_S, end_S = _splice(pieces, site_S, found_S['words'], replacements, glue)
  return Substituted(''.join(pieces), dose, text, start_S, end_S, replacements)


def count(
  text: str, lexicon: Lexicon, policy: LinkPolicy, stop_words: frozenset[str] = frozenset()
) -> Dose:
  """Counts what `substitute` would find in a document if it were drawn; nothing is replaced.

  Summed over a source, its `words` and `eligible` are what `probability` needs.

  Raises:
    ValueError: regime 'content' without stop words.
  """
  table = _table(lexicon, policy, stop_words, key_of)
  return _look_up(words.split_words(text), table)[1]


def probability(policy: LinkPolicy, words: int, eligible: int) -> tuple[float, float]:
  """Returns with what probability to replace an eligible word, and by how much that falls short.

  With `ratio_of='all'`: p = min(1, word_ratio · words / eligible), and the shortfall is
  word_ratio − eligible / words where p would exceed 1. With 'covered': `word_ratio` and 0.

  Args:
    policy: says what its ratio is of.
    words: words of the whole source.
    eligible: those of them that are eligible.

  Raises:
    ValueError: not 0 ≤ eligible ≤ words.
  """
  if not 0 <= eligible <= words:
    raise ValueError(f'{eligible} eligible of {words} words: it is 0 or more, and at most all.')
  if policy.ratio_of == 'covered' or policy.word_ratio == 0 or words == 0:
    return policy.word_ratio, 0.0
  if policy.word_ratio * words <= eligible:
    return policy.word_ratio * words / eligible, 0.0
  return 1.0, policy.word_ratio - eligible / words


# ── the table of words ──────────────────────────────────────────────────────────


_COLUMNS = np.dtype(
  [
    ('words', np.int64),  # of the site
    ('targets', np.int32),  # how many; 0 if not covered
    ('rendered', np.int64),  # index of the first one
    ('sense_key', np.uint64),
    ('first', np.uint32),  # number of the word among those that begin a source of several; 0: none
    ('second', np.uint32),  # the same for second words
    ('eligible', bool),
    ('stop', bool),
    ('identity', bool),
  ]
)
_INSIDE = 0  # the row of the later words of a site: no words, no targets


class _Table(dict[str | tuple[str, ...], int]):
  """Row of what stands in the text: a word, or the words of a source of several as a tuple.

  The words of a language repeat: each is looked up, cased and rendered once, and then is a row
  number. Rows are added under a lock and never change, so that threads can share a table.

  Attributes:
    columns: what is known of each row; its end is unused.
    keys: of each row.
    rendered: targets as they go into the text, those of a row in a run.
    lengths: (first word, second word) -> in how many words the sources end that begin so, the
      longest first.
    begins: whether a pair of this `_pair_hash` may be in `lengths`; false for most that are not.
    sources: those of several words.
  """

  def __init__(
    self,
    lexicon: Lexicon,
    policy: LinkPolicy,
    stop_words: frozenset[str],
    key_of: Callable[[str], int],
  ):
    super().__init__()
    self._lexicon, self._policy = lexicon, policy
    self._stop_words, self._key_of = stop_words, key_of
    self._language = policy.base_language
    self._lock = threading.Lock()
    self.columns = np.zeros(1024, _COLUMNS)
    self.keys: list[str] = ['']  # of _INSIDE
    self.rendered: list[str] = []
    self.sources: set[tuple[str, ...]] = set()
    self.lengths: dict[tuple[str, str], list[int]] = {}
    if policy.multi_word:
      self.sources = {tuple(key.split(' ')) for key in lexicon.entries if ' ' in key}
    for first, second, length in sorted({(*source[:2], len(source)) for source in self.sources}):
      self.lengths.setdefault((first, second), []).insert(0, length)
    firsts, seconds = zip(*self.lengths, strict=True) if self.lengths else ((), ())
    self._firsts = {word: i for i, word in enumerate(dict.fromkeys(firsts), 1)}
    self._seconds = {word: i for i, word in enumerate(dict.fromkeys(seconds), 1)}
    self.begins = np.zeros(1 << 16, bool)
    first_P = np.array([self._firsts[word] for word in firsts], np.uint32)
    second_P = np.array([self._seconds[word] for word in seconds], np.uint32)
    self.begins[_pair_hash(first_P, second_P)] = True

  def __missing__(self, span: str | tuple[str, ...]) -> int:
    surfaces = (span,) if isinstance(span, str) else span
    keys = [words.key(surface) for surface in surfaces]
    key = ' '.join(keys)
    targets = self._lexicon.entries.get(key, ())
    if targets:
      targets = self._render(surfaces, targets)
    stop = all(key in self._stop_words for key in keys)
    with self._lock:
      row = len(self.keys)
      if row == len(self.columns):
        self.columns = np.concatenate([self.columns, np.zeros_like(self.columns)])
      self.columns[row] = (
        len(surfaces),
        len(targets),
        len(self.rendered),
        self._key_of(key) if targets else 0,
        self._firsts.get(key, 0),
        self._seconds.get(key, 0),
        bool(targets) and not (stop and self._policy.regime == 'content'),
        stop,
        key in self._lexicon.identity_only,
      )
      self.keys.append(key)
      self.rendered.extend(targets)
      self[span] = row
    return row

  def _render(self, surfaces: Sequence[str], targets: tuple[str, ...]) -> list[str]:
    if self._policy.match_case:
      case = _case(surfaces)
      targets = [_cased(target, case, self._language) for target in targets]
    if self._policy.mode == 'annotate':
      return [f'{" ".join(surfaces)} ({target})' for target in targets]
    return list(targets)


def _pair_hash(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """16 bits of a pair of numbers, elementwise; uint32 in, wraps around."""
  return (first * np.uint32(0x9E3779B1) + second * np.uint32(0x85EBCA77)) >> np.uint32(16)


_tables = functools.lru_cache(maxsize=4)(_Table)


def _table(
  lexicon: Lexicon,
  policy: LinkPolicy,
  stop_words: frozenset[str],
  key_of: Callable[[str], int],
) -> _Table:
  if policy.regime == 'content' and not stop_words:
    raise ValueError("stop_words is empty: regime 'content' needs those of LinkPolicy.stop_words.")
  table = _tables(lexicon, policy, stop_words, key_of)
  if len(table) > _SURFACES:
    _tables.cache_clear()
  return table


def _case(surfaces: Sequence[str]) -> int:
  """The case class of a site: UPPER if all words are, else whether the first one has a capital."""
  classes = [words.case_class(surface) for surface in surfaces]
  if all(case == words.UPPER for case in classes):
    return words.UPPER
  return words.TITLE if classes[0] else 0


def _cased(target: str, case: int, language: str) -> str:
  """A target in the case of its source; NFC, which capitals can break."""
  if case == words.UPPER:
    target = _capital(target, str.upper, language)
  elif case == words.TITLE and (first := _LETTER.search(target)):
    # str.title: the capital of ǆ at the head of a word is ǅ, and Georgian has none there.
    at = first.start()
    target = target[:at] + _capital(target[at], str.title, language) + target[at + 1 :]
  return unicodedata.normalize('NFC', target)


def _capital(text: str, raise_case: Callable[[str], str], language: str) -> str:
  return raise_case(text.replace('i', 'İ') if language in _DOTTED_I else text)


# ── finding and splicing ─────────────────────────────────────────────────


def _checked_ratio(policy: LinkPolicy, probability: float | None) -> float:
  if probability is None:
    if policy.ratio_of == 'all':
      raise ValueError(
        "LinkPolicy.ratio_of is 'all': pass the probability that probability() makes of the counts "
        'of the whole source.'
      )
    return policy.word_ratio
  if not 0 <= probability <= 1:
    raise ValueError(f'probability is {probability}: it is 0 to 1.')
  return probability


def _look_up(pieces: list[str], table: _Table) -> tuple[np.ndarray, Dose]:
  """What is known of each word of a text, sources of several words found, and their counts."""
  rows, keys, end = list(map(table.__getitem__, pieces[1::2])), table.keys, 0
  found_N = table.columns[np.array(rows, np.int64)]
  first_N, second_N = found_N['first'][:-1], found_N['second'][1:]
  begins_N = table.begins[_pair_hash(first_N, second_N)] & (first_N > 0) & (second_N > 0)
  for i in np.flatnonzero(begins_N).tolist():
    lengths = table.lengths.get((keys[rows[i]], keys[rows[i + 1]]))
    for length in lengths if lengths and i >= end else ():
      stop = i + length
      # Only single spaces between the words: a source does not reach over a comma or a line end.
      spaced = set(pieces[2 * i + 2 : 2 * stop - 1 : 2]) == {' '}
      if spaced and tuple([keys[row] for row in rows[i:stop]]) in table.sources:
        row = table[tuple(pieces[2 * i + 1 : 2 * stop : 2])]
        found_N[i] = table.columns[row]
        found_N[i + 1 : stop] = table.columns[_INSIDE]
        end = stop
        break
  covered = int(found_N['words'][found_N['targets'] > 0].sum())
  dose = Dose(
    documents=1,
    words_seen=len(rows),
    words=len(rows),
    covered_any=covered + int(found_N['identity'].sum()),
    covered=covered,
    eligible=int(found_N['words'][found_N['eligible']].sum()),
  )
  return found_N, dose


def _splice(
  pieces: list[str],
  site_S: np.ndarray,
  words_S: np.ndarray,
  replacements: list[str],
  glue: bool,
) -> tuple[np.ndarray, np.ndarray]:
  """Puts replacements into `pieces`, in place.

  Args:
    pieces: a text cut by `words.split_words`.
    site_S: index of the first word of each site.
    words_S: number of its words.
    replacements: of each site.
    glue: whether a replacement takes away the space before it.

  Returns:
    Start and end of what each of them replaces, in characters of the text.
  """
  ends = np.fromiter(map(len, pieces), np.int64, len(pieces)).cumsum()
  first_S = 2 * site_S + 1  # index of the piece that is the site's first word
  last_S = first_S + 2 * (words_S - 1)
  start_S, end_S = ends[first_S - 1], ends[last_S]
  for s in np.flatnonzero(words_S > 1).tolist():
    pieces[first_S[s] + 1 : last_S[s] + 1] = [''] * (last_S[s] - first_S[s])
  if glue:
    for s, rest in enumerate((first_S - 1).tolist()):
      if pieces[rest].endswith(' '):
        pieces[rest] = pieces[rest][:-1]
        start_S[s] -= 1
  for first, replacement in zip(first_S.tolist(), replacements, strict=True):
    pieces[first] = replacement
  return start_S, end_S
