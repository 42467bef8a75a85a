"""What LINK may do to a source of text: which words, how often, by what; and the count of what it did.

`LinkPolicy` is what a recipe sets. Everything that depends on words alone (lexicons, lists, case, mode)
decides a link table, see `Rendering`; everything that depends on draws (fractions, ratios, senses,
languages) is free to change from run to run without building anything.

Easy to get wrong: a ratio has two readings. `ratio_of='covered'` replaces a share of the words that the
lexicon has, `'all'` a share of all words, which needs counts of the whole source (`probability`).

Source: LINK, arXiv 2605.23885, which fixes the portion, the ratio, random words and word-level
translation; everything finer is a choice made here.
"""

import bisect
import dataclasses
import functools
import pathlib
from typing import Literal, NamedTuple

import regex

from jaxlink.config import configurable
from jaxlink.link.draws import Draws
from jaxlink.names import nearest

_LANGUAGE = regex.compile(r'[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*')
_STOP_WORDS = pathlib.Path(__file__).parent / 'stop_words'

# A number, or points (tokens of the stage, value): straight lines between them, level outside. Two
# points at one token make a jump.
Curve = float | tuple[tuple[int, float], ...]
Files = str | tuple[str, ...]


class Rendering(NamedTuple):
  """The part of a policy that decides a link table: what can be replaced, and what it looks like."""

  mode: str
  regime: str
  match_case: bool
  join: str
  multi_word: bool
  lemmas: str


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkPolicy:
  """Which words of a source may be replaced, how often, and by what.

  Attributes:
    lexicon: a registered lexicon or the path of a file; several of one language are merged, the first
      has priority. Several target languages at once: {'tr': 'list.txt', 'sw': ('a.tei', 'b.tsv')}.
    language: code of the language of the lexicon's targets ('tr', 'deu', 'zh-Hant'): decides what
      the capital of i is, and whether words are joined. '' where `lexicon` is registered, and so has a
      language, or names the languages itself.
    language_by: of several languages: 'per_document' one for each document, 'per_word' one for each
      word, among those that have it.
    doc_fraction: probability that a document is rewritten; a number, or points of (tokens of the
      stage, number) with straight lines between them.
    word_ratio: the ratio inside a rewritten document; of what, says `ratio_of`. As `doc_fraction`.
    ratio_of: 'covered', each eligible word is replaced with probability `word_ratio`; 'all',
      `word_ratio` is a share of all words, reached by raising that probability.
    senses: of a word with several targets: 'per_document' one for each document and word, 'uniform'
      one for each occurrence, 'weighted' the same by the lexicon's weights, 'first' the first.
    regime: which covered words are eligible: 'uniform' all; 'content' all but stop words; 'stop' stop
      words only; 'domain' those of `word_list`; 'non_domain' all but those; 'entities' the names in
      `word_list`, of one word or several.
    stop_words: 'en' for the list that comes with jaxlink, or the path of one, a word a line; '' none.
    word_list: path of the list of words (domain) or names (entities), one a line.
    mode: 'replace' ("Hund" for "dog"); 'annotate' ("dog (Hund)"); 'restore', which replaces, and asks
      for the original: in a rewritten document only swapped places are trained on, and the label
      there is the first token of the word that stood there.
    match_case: put the capitals of the word on its replacement.
    join: 'auto', no space before a replacement in a language written without spaces; 'space', keep
      it. An annotation keeps its spaces in both.
    multi_word: match sources of several words too, longest first.
    lemmas: code of the source's language ('en') to look an uncovered word up by its lemma ("houses" as
      "house"), by simplemma; '' does not.
    redraw: draw anew in each epoch; else the rewriting is fixed for the run.
  """

  lexicon: Files | dict[str, Files]
  language: str = ''
  language_by: Literal['per_document', 'per_word'] = 'per_document'
  doc_fraction: Curve = 0.5
  word_ratio: Curve = 0.3
  ratio_of: Literal['covered', 'all'] = 'covered'
  senses: Literal['per_document', 'uniform', 'weighted', 'first'] = 'per_document'
  regime: Literal['uniform', 'content', 'stop', 'domain', 'non_domain', 'entities'] = 'uniform'
  stop_words: str = 'en'
  word_list: str = ''
  mode: Literal['replace', 'annotate', 'restore'] = 'replace'
  match_case: bool = True
  join: Literal['auto', 'space'] = 'auto'
  multi_word: bool = True
  lemmas: str = ''
  redraw: bool = False

  def __post_init__(self):
    if not self.lexicon or not all(files and all(files) for files in self.lexicons.values()):
      raise ValueError(
        f'LinkPolicy.lexicon is {self.lexicon!r}: it is a registered lexicon or the path of a file.'
      )
    if isinstance(self.lexicon, dict) and self.language:
      raise ValueError(
        f'LinkPolicy.language is {self.language!r}: LinkPolicy.lexicon names its languages already.'
      )
    for language in self.lexicons:
      if language and not _LANGUAGE.fullmatch(language):
        raise ValueError(
          f"LinkPolicy.language is {language!r}: it is a code such as 'tr', 'deu' or 'zh-Hant'."
        )
    for name in ('doc_fraction', 'word_ratio'):
      _check_curve(f'LinkPolicy.{name}', getattr(self, name))
    if self.regime in ('content', 'stop') and not self.stop_words:
      raise ValueError(
        f"LinkPolicy.stop_words is '': regime {self.regime!r} needs a list of stop words."
      )
    needs_list = self.regime in ('domain', 'non_domain', 'entities')
    if needs_list != bool(self.word_list):
      raise ValueError(
        f'LinkPolicy.word_list is {self.word_list!r}: regime {self.regime!r} '
        + ('needs the path of a list.' if needs_list else 'reads none.')
      )
    if self.regime == 'entities' and self.ratio_of == 'all':
      raise ValueError(
        "LinkPolicy.ratio_of is 'all': with regime 'entities' the ratio is a share of the names, "
        "'covered'."
      )

  @functools.cached_property
  def lexicons(self) -> dict[str, tuple[str, ...]]:
    """Language → its lexicons, the first with priority."""
    named = self.lexicon if isinstance(self.lexicon, dict) else {self.language: self.lexicon}
    return {
      language: (files,) if isinstance(files, str) else files for language, files in named.items()
    }

  @property
  def rendering(self) -> Rendering:
    """What a link table depends on beside lexicons and lists."""
    return Rendering(*(getattr(self, name) for name in Rendering._fields))

  @property
  def scheduled(self) -> bool:
    """Whether a fraction or ratio changes with the tokens of the stage."""
    return isinstance(self.doc_fraction, tuple) or isinstance(self.word_ratio, tuple)

  def at(self, tokens: int) -> tuple[float, float]:
    """Returns `doc_fraction` and `word_ratio` after so many tokens of the stage."""
    return curve_at(self.doc_fraction, tokens), curve_at(self.word_ratio, tokens)

  def draws(self, seed: int, source: str, epoch: int) -> Draws:
    """The draws of a source in an epoch; the same in every epoch unless `redraw`."""
    return Draws(seed, source, epoch if self.redraw else 0)


def curve_at(curve: Curve, tokens: int) -> float:
  """The value of a curve after so many tokens; at a jump the one after it."""
  if not isinstance(curve, tuple):
    return curve
  after = bisect.bisect_right([at for at, _ in curve], tokens)
  if after == 0:
    return curve[0][1]
  if after == len(curve):
    return curve[-1][1]
  (begin, low), (end, high) = curve[after - 1], curve[after]
  return low + (high - low) * (tokens - begin) / (end - begin)


def _check_curve(name: str, curve: Curve) -> None:
  points = curve if isinstance(curve, tuple) else ((0, curve),)
  if not points:
    raise ValueError(f'{name} is (): it is a number, or points of (tokens, number).')
  for _, value in points:
    if not 0 <= value <= 1:
      raise ValueError(f'{name} is {value}: it is a probability, 0 to 1.')
  tokens = [at for at, _ in points]
  if tokens[0] < 0 or tokens != sorted(tokens) or any(tokens.count(at) > 2 for at in tokens):
    raise ValueError(
      f'{name} has points at {tokens} tokens: they ascend from 0 or more, and two at one place are a '
      'jump.'
    )


# ── lists of words ──────────────────────────────────────────────────────────────


def shipped_stop_words() -> dict[str, str]:
  """Returns the lists of stop words that come with jaxlink: language → path."""
  return {path.stem: str(path) for path in sorted(_STOP_WORDS.glob('*.txt'))}


def stop_words_path(name: str) -> str:
  """Returns the path of a list of stop words: that of a code which jaxlink ships, or the name itself.

  Raises:
    FileNotFoundError: there is neither.
  """
  shipped = shipped_stop_words()
  if name in shipped:
    return shipped[name]
  if not pathlib.Path(name).is_file():
    raise FileNotFoundError(
      f'LinkPolicy.stop_words: no file {name!r}.{nearest(name, shipped)} Shipped: '
      f'{", ".join(sorted(shipped))}.'
    )
  return name


@dataclasses.dataclass(frozen=True)
class WordLists:
  """The lists that a regime asks, as keys; a list may hold entries of several words.

  Attributes:
    stop_words: of the source's language.
    listed: the words of the domain, or the names.
  """

  stop_words: frozenset[str] = frozenset()
  listed: frozenset[str] = frozenset()

  def is_stop(self, key: str) -> bool:
    """Whether the source with this key is a stop word, or all of its words are."""
    return _holds(self.stop_words, key)

  def allows(self, regime: str, key: str) -> bool:
    """Whether a regime may replace the source with this key."""
    match regime:
      case 'content':
        return not self.is_stop(key)
      case 'stop':
        return self.is_stop(key)
      case 'domain':
        return _holds(self.listed, key)
      case 'non_domain':
        return not _holds(self.listed, key)
      case 'entities':
        return key in self.listed
    return True

  def check(self, policy: LinkPolicy) -> None:
    """Raises ValueError if the regime's list is empty."""
    needed = {'content': 'stop_words', 'stop': 'stop_words', 'uniform': None}
    name = needed.get(policy.regime, 'listed')
    if name and not getattr(self, name):
      setting = {'listed': 'word_list'}.get(name, name)
      raise ValueError(
        f'{name} is empty: regime {policy.regime!r} needs those of LinkPolicy.{setting}.'
      )


NO_LISTS = WordLists()


def _holds(keys: frozenset[str], key: str) -> bool:
  return key in keys or (' ' in key and all(word in keys for word in key.split(' ')))


# ── the dose ────────────────────────────────────────────────────────────────────


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
    return Dose(*(getattr(self, name) + getattr(other, name) for name in DOSE_FIELDS))

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


DOSE_FIELDS = tuple(field.name for field in dataclasses.fields(Dose))


def probability(ratio_of: str, word_ratio: float, words: int, eligible: int) -> tuple[float, float]:
  """Returns with what probability to replace an eligible word, and by how much that falls short.

  With `ratio_of='all'`: p = min(1, word_ratio · words / eligible), and the shortfall is
  word_ratio − eligible / words where p would exceed 1. With 'covered': `word_ratio` and 0.

  Args:
    ratio_of: what the ratio is of.
    word_ratio: that was asked.
    words: words of the whole source.
    eligible: those of them that are eligible.

  Raises:
    ValueError: not 0 ≤ eligible ≤ words.
  """
  if not 0 <= eligible <= words:
    raise ValueError(f'{eligible} eligible of {words} words: it is 0 or more, and at most all.')
  if ratio_of == 'covered' or word_ratio == 0 or words == 0:
    return word_ratio, 0.0
  if word_ratio * words <= eligible:
    return word_ratio * words / eligible, 0.0
  return 1.0, word_ratio - eligible / words
