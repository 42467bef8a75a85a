"""LINK, text to text: words of a document become their translations from a lexicon.

In: a text, a `Lexicon` (or one for each of several languages), a `LinkPolicy` and `Draws`. Out: the new
text, what was replaced where, and the dose. This is the reference; the load-time engine (`splice`)
agrees with it token for token.

Easy to get wrong:
- A draw belongs to a word's index in its document, whether or not the words before it were drawn:
  raising a ratio adds replacements and never moves or undoes one.
- Word counters are zero for a document that was not drawn; only `words_seen` counts it.
- The tokens of a substituted text are those of its parts, cut at `Substituted.cuts`: a replacement in a
  script without spaces has no other edges.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxlink.link import casing, lemmas, senses, words
from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import NO_LISTS, Dose, LinkPolicy, Rendering, WordLists

_SURFACES = 1 << 20  # words that a table remembers before it starts anew; about 300 MB


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
    language_S: index of the language of each.
    annotated: whether what stands there is the original and a translation in brackets.
  """

  text: str
  dose: Dose
  original: str
  start_S: np.ndarray
  end_S: np.ndarray
  replacements: list[str]
  language_S: np.ndarray
  annotated: bool

  @property
  def sites(self) -> list[tuple[int, int, str, str]]:
    """(start, end, original, replacement) of each span, for a reader."""
    starts, ends = self.start_S.tolist(), self.end_S.tolist()
    originals = [self.original[start:end] for start, end in zip(starts, ends, strict=True)]
    return list(zip(starts, ends, originals, self.replacements, strict=True))

  @property
  def cuts(self) -> list[int]:
    """Where the new text is cut to be tokenised: both edges of what was inserted, ascending.

    Inserted is a replacement with the space before it, or ` (translation` without the closing bracket,
    which joins the punctuation that follows.
    """
    size_S = np.array([len(r) for r in self.replacements], np.int64)
    grown_S = np.cumsum(size_S - (self.end_S - self.start_S))
    end_S = self.end_S + grown_S
    start_S = end_S - size_S
    if self.annotated:
      start_S, end_S = start_S + (self.end_S - self.start_S), end_S - 1
    else:
      original = self.original
      start_S = start_S - [at > 0 and original[at - 1] == ' ' for at in self.start_S.tolist()]
      glued_S = [original[at] == ' ' for at in self.start_S.tolist()]
      start_S = np.where(glued_S, end_S - size_S, start_S)
    return sorted({0, *start_S.tolist(), *end_S.tolist()} - {0})


def substitute(
  text: str,
  lexicon: Lexicon | Mapping[str, Lexicon],
  policy: LinkPolicy,
  draws: Draws,
  *,
  document: int,
  probability: float | None = None,
  lists: WordLists = NO_LISTS,
  spliceable_N: np.ndarray | None = None,
) -> Substituted:
  """Replaces drawn words of a document by their translations.

  Args:
    text: the document, after the tokenizer's normaliser if it has one.
    lexicon: translations, or those of each language of the policy; `policy.lexicon` is not read here.
    policy: which words may be drawn, how often, and how they are rendered; no schedule.
    draws: `uniform(stream, document, k)` in [0, 1) and `key_of(text)`, as `Draws` has them.
      Streams: 'doc' with k = 0, 'word' with k = index of the word, 'sense' with k = index of the
      word or `key_of` its key, 'language' with k = 0 or index of the word.
    document: 64-bit key of the document.
    probability: of replacing an eligible word, from `policy.probability`; needed by `ratio_of='all'`.
    lists: the words that the regime asks for.
    spliceable_N: bool for each word; False where a tokenizer has no tokens for the word alone, so that
      nothing may replace it.

  Returns:
    The new text, the dose and the sites.

  Raises:
    ValueError: `ratio_of='all'` without a probability, a probability outside 0 to 1, a regime without
      its list, languages that are not the policy's, or a schedule.

  Source: LINK, arXiv 2605.23885.
  """
  ratio = _checked_ratio(policy, probability)
  lexicons = _checked_lexicons(policy, lexicon)
  lists.check(policy)
  pieces = words.split_words(text)
  if draws.uniform('doc', document, 0) >= policy.doc_fraction:
    none_S = np.zeros(0, np.int64)
    dose = Dose(documents=1, words_seen=len(pieces) // 2)
    return Substituted(text, dose, text, none_S, none_S, [], none_S, policy.mode == 'annotate')

  only = 0
  if len(lexicons) > 1 and policy.language_by == 'per_document':
    only = int(draws.uniform('language', document, 0) * len(lexicons))
    lexicons = lexicons[only : only + 1]
  table = _table(lexicons, policy.rendering, lists, draws.key_of)
  found_N, dose = _look_up(pieces, table, spliceable_N)
  site_S = np.flatnonzero(found_N['eligible'])
  site_S = site_S[draws.uniform('word', document, site_S) < ratio]
  found_S = found_N[site_S]
  dose = dataclasses.replace(
    dose,
    documents_rewritten=1,
    replaced=int(found_S['words'].sum()),
    stop_replaced=int(found_S['words'][found_S['stop']].sum()),
  )
  if len(lexicons) > 1:
    language_S = senses.pick_language(
      found_S['targets'] > 0, draws.uniform('language', document, site_S)
    )
  else:
    language_S = np.zeros(len(site_S), np.int64)
  rows_S = np.arange(len(site_S))
  target_S, count_S = (
    found_S['rendered'][rows_S, language_S],
    found_S['targets'][rows_S, language_S],
  )
  if policy.senses != 'first':
    k_S = found_S['sense_key'][rows_S, language_S] if policy.senses == 'per_document' else site_S
    u_S = draws.uniform('sense', document, k_S)
    if policy.senses == 'weighted':
      target_S = target_S + senses.pick_weighted(np.array(table.cumulative), target_S, count_S, u_S)
    else:
      target_S = target_S + (u_S * count_S).astype(np.int64)
  replacements = list(map(table.rendered.__getitem__, target_S.tolist()))
  glue_G = [casing.glues(language, policy.mode, policy.join) for language, _ in lexicons]
  glue_S = np.array(glue_G)[language_S]
  start_S, end_S = _splice(pieces, site_S, found_S['words'], replacements, glue_S)
  return Substituted(
    ''.join(pieces), dose, text, start_S, end_S, replacements, language_S + only,
    policy.mode == 'annotate',
  )  # fmt: skip


def count(
  text: str,
  lexicon: Lexicon | Mapping[str, Lexicon],
  policy: LinkPolicy,
  lists: WordLists = NO_LISTS,
) -> Dose:
  """Counts what `substitute` would find in a document if it were drawn; nothing is replaced.

  Summed over a source, its `words` and `eligible` are what `probability` needs. Of several languages,
  a word counts if one of them has it.

  Raises:
    ValueError: a regime without its list.
  """
  lists.check(policy)
  table = _table(_checked_lexicons(policy, lexicon), policy.rendering, lists, key_of)
  return _look_up(words.split_words(text), table, None)[1]


# ── the table of words ──────────────────────────────────────────────────────────


def _columns(languages: int) -> np.dtype:
  return np.dtype(
    [
      ('words', np.int64),  # of the site
      ('targets', np.int32, (languages,)),  # how many; 0 if not covered
      ('rendered', np.int64, (languages,)),  # index of the first one
      ('sense_key', np.uint64, (languages,)),
      (
        'first',
        np.uint32,
      ),  # number of the word among those that begin a source of several; 0: none
      ('second', np.uint32),  # the same for second words
      ('covered', bool),
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
    rendered: targets as they go into the text, those of a row and language in a run.
    cumulative: of each of them, the sum of weights up to it, of 1.
    lengths: (first word, second word) -> in how many words the sources end that begin so, the
      longest first.
    begins: whether a pair of this `_pair_hash` may be in `lengths`; false for most that are not.
    sources: those of several words.
  """

  def __init__(
    self,
    lexicons: tuple[tuple[str, Lexicon], ...],
    rendering: Rendering,
    lists: WordLists,
    key_of: Callable[[str], int],
  ):
    super().__init__()
    self._lexicons, self._rendering, self._lists, self._key_of = lexicons, rendering, lists, key_of
    self._lock = threading.Lock()
    self.columns = np.zeros(1024, _columns(len(lexicons)))
    self.keys: list[str] = ['']  # of _INSIDE
    self.rendered: list[str] = []
    self.cumulative: list[float] = []
    self.sources: set[tuple[str, ...]] = set()
    self.lengths: dict[tuple[str, str], list[int]] = {}
    if rendering.multi_word:
      self.sources = {
        tuple(key.split(' ')) for _, lexicon in lexicons for key in lexicon.entries if ' ' in key
      }
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
    key = ' '.join(map(words.key, surfaces))
    found = [
      lemmas.targets_of(lexicon, key, self._rendering.lemmas) for _, lexicon in self._lexicons
    ]
    counts = np.array([len(targets) for _, targets in found])
    covered = bool(counts.any())
    rendered, weights = [], []
    for (language, lexicon), (under, targets) in zip(self._lexicons, found, strict=True):
      rendered += self._render(surfaces, language, targets)
      weights += senses.cumulative(lexicon, under)
    with self._lock:
      row = len(self.keys)
      if row == len(self.columns):
        self.columns = np.concatenate([self.columns, np.zeros_like(self.columns)])
      self.columns[row] = (
        len(surfaces),
        counts,
        len(self.rendered) + np.cumsum(counts) - counts,
        [self._key_of(under) if under else 0 for under, _ in found],
        self._firsts.get(key, 0),
        self._seconds.get(key, 0),
        covered,
        covered and self._lists.allows(self._rendering.regime, key),
        self._lists.is_stop(key),
        not covered and any(key in lexicon.identity_only for _, lexicon in self._lexicons),
      )
      self.keys.append(key)
      self.cumulative.extend(weights)
      self.rendered.extend(rendered)
      self[span] = row
    return row

  def _render(
    self, surfaces: Sequence[str], language: str, targets: tuple[str, ...]
  ) -> Sequence[str]:
    if self._rendering.match_case and targets:
      case = casing.case_of(surfaces)
      targets = [casing.cased(target, case, language) for target in targets]
    if self._rendering.mode == 'annotate':
      return [f'{" ".join(surfaces)} ({target})' for target in targets]
    return targets


def _pair_hash(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """16 bits of a pair of numbers, elementwise; uint32 in, wraps around."""
  return (first * np.uint32(0x9E3779B1) + second * np.uint32(0x85EBCA77)) >> np.uint32(16)


_tables = functools.lru_cache(maxsize=8)(_Table)


def _table(
  lexicons: tuple[tuple[str, Lexicon], ...],
  rendering: Rendering,
  lists: WordLists,
  key_of: Callable[[str], int],
) -> _Table:
  table = _tables(lexicons, rendering, lists, key_of)
  if len(table) > _SURFACES:
    _tables.cache_clear()
  return table


# ── finding and splicing ─────────────────────────────────────────────────


def _checked_ratio(policy: LinkPolicy, probability: float | None) -> float:
  if policy.scheduled:
    raise ValueError(
      'LinkPolicy.doc_fraction or word_ratio is a schedule: text is rewritten once, so it is a number.'
    )
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


def _checked_lexicons(
  policy: LinkPolicy, lexicon: Lexicon | Mapping[str, Lexicon]
) -> tuple[tuple[str, Lexicon], ...]:
  languages = tuple(policy.lexicons)
  if isinstance(lexicon, Lexicon) and len(languages) == 1:
    return ((languages[0], lexicon),)
  if isinstance(lexicon, Lexicon) or tuple(lexicon) != languages:
    given = 'one lexicon' if isinstance(lexicon, Lexicon) else f'lexicons of {list(lexicon)}'
    raise ValueError(f'{given} for a LinkPolicy of {list(languages)}: one for each, in this order.')
  return tuple(lexicon.items())


def _look_up(
  pieces: list[str], table: _Table, spliceable_N: np.ndarray | None
) -> tuple[np.ndarray, Dose]:
  """What is known of each word of a text, sources of several words found, and their counts."""
  rows, keys, end = list(map(table.__getitem__, pieces[1::2])), table.keys, 0
  found_N = table.columns[np.array(rows, np.int64)]
  if spliceable_N is None:
    spliceable_N = np.ones(len(rows), bool)
  first_N, second_N = found_N['first'][:-1], found_N['second'][1:]
  begins_N = table.begins[_pair_hash(first_N, second_N)] & (first_N > 0) & (second_N > 0)
  for i in np.flatnonzero(begins_N).tolist():
    lengths = table.lengths.get((keys[rows[i]], keys[rows[i + 1]]))
    for length in lengths if lengths and i >= end else ():
      stop = i + length
      # Only single spaces between the words: a source does not reach over a comma or a line end.
      spaced = set(pieces[2 * i + 2 : 2 * stop - 1 : 2]) == {' '}
      if (
        spaced
        and tuple([keys[row] for row in rows[i:stop]]) in table.sources
        and spliceable_N[i:stop].all()
      ):
        row = table[tuple(pieces[2 * i + 1 : 2 * stop : 2])]
        found_N[i] = table.columns[row]
        found_N[i + 1 : stop] = table.columns[_INSIDE]
        end = stop
        break
  found_N['covered'] &= spliceable_N
  found_N['eligible'] &= spliceable_N
  covered = int(found_N['words'][found_N['covered']].sum())
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
  glue_S: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Puts replacements into `pieces`, in place.

  Args:
    pieces: a text cut by `words.split_words`.
    site_S: index of the first word of each site.
    words_S: number of its words.
    replacements: of each site.
    glue_S: whether it takes away the space before it.

  Returns:
    Start and end of what each of them replaces, in characters of the text.
  """
  ends = np.fromiter(map(len, pieces), np.int64, len(pieces)).cumsum()
  first_S = 2 * site_S + 1  # index of the piece that is the site's first word
  last_S = first_S + 2 * (words_S - 1)
  start_S, end_S = ends[first_S - 1], ends[last_S]
  for s in np.flatnonzero(words_S > 1).tolist():
    pieces[first_S[s] + 1 : last_S[s] + 1] = [''] * (last_S[s] - first_S[s])
  for s in np.flatnonzero(glue_S).tolist():
    rest = first_S[s] - 1
    if pieces[rest].endswith(' '):
      pieces[rest] = pieces[rest][:-1]
      start_S[s] -= 1
  for first, replacement in zip(first_S.tolist(), replacements, strict=True):
    pieces[first] = replacement
  return start_S, end_S
