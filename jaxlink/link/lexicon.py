"""Bilingual lexicons: from a dictionary of any usual format to the targets of each source word.

In: lists of pairs (MUSE, GATITOS, WECHSEL, PanLex; TSV with weights), FreeDict TEI, StarDict, dictd,
DSL, Wiktextract dumps, Apertium .dix, Ding lists, tables of HTML, line-aligned files; plain or packed.
Out: a `Lexicon`, which maps casefold(NFC(source)) to its NFC targets in file order, and which counts
every pair that it left out, by reason.

Easy to get wrong: many pairs of a MUSE-type list map a word to itself (10 to 90 % of its words).
They are no translations: they are dropped here, so that a dose counted later is what it says.

Lists of pairs are taken as they stand, but for remarks in brackets and invisible characters. Texts of
dictionaries are cut into senses (`jaxlink.link.glosses`), and a dictionary that runs from the target
to the source is turned round: each of its senses becomes a key.

A source of several words is kept if single spaces separate them ('set on fire'): it matches such a
run in a text. Hyphens ('well-known'), digits and other signs ('C++', 'St. Paul') are outside words,
so such a source matches nothing; it is dropped and counted.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import regex

from jaxlink.link import formats, glosses, words
from jaxlink.link.formats import direction as directions
from jaxlink.link.formats import languages
from jaxlink.link.formats.reading import read_text, text_lines

# What `Lexicon.counts` counts, in the order in which a pair can be left out.
COUNTS = {
  'blank_lines': 'lines without text',
  'comment_lines': 'lines of comment in a Ding list',
  'header_lines': 'lines of column names over weights',
  'extra_columns': 'lines with more columns than are read: source, target and, if a number, weight',
  'unread_entries': 'errors that PyGlossary logged and went past',
  'patterns': 'entries of a .dix that are regular expressions or paradigms, no words',
  'redirects': 'records of a dump that only name another page',
  'other_languages': 'records and translations of a dump into or of other languages',
  'other_direction': 'entries of a dump that run against the direction that was taken',
  'unpaired_variants': 'variants of a Ding line whose other side has another number of them',
  'other_forms': 'further forms (inflected, accented, romanised) of headwords that became targets',
  'notes': 'labels, notes, examples and cross-references in dictionary entries',
  'remarks': 'remarks in brackets taken out of texts',
  'transliterations': 'transliterations between slashes taken out of texts',
  'pairs': 'pairs read: the sum of the reasons below and of kept_pairs',
  'empty_side': 'pairs whose source or target is empty, or nothing but a remark',
  'pointers': 'glosses that name another entry ("plural of dog", "see dog"); never followed',
  'definitions': 'glosses that explain instead of translating',
  'markup': 'pairs whose target holds markup or a web address',
  'hyphenated_source': 'pairs whose source has words joined by hyphens',
  'unmatchable_source': 'pairs whose source holds a sign outside words, or two spaces in a row',
  'source_script': 'pairs whose source has no letter of a script of the source language',
  'no_letters': 'pairs whose target has no letter',
  'bound_forms': 'pairs whose target is an affix ("ki-", "-ngi")',
  'placeholders': 'pairs with a gap in the target ("hanga … tti")',
  'target_script': 'pairs whose target has no letter of a script of the target language',
  'zero_weights': 'pairs of weight 0',
  'identity_pairs': 'pairs whose target is the source but for case',
  'duplicate_pairs': 'pairs that were there before; the first weight stands',
  'shadowed_pairs': 'pairs of a merged lexicon whose source an earlier one has',
  'kept_pairs': 'pairs that can replace something',
  'sources': 'different sources of the kept pairs',
  'multi_word_sources': 'those of several words',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Lexicon:
  """Targets of source words; equal and hashed by identity, so that a table can be kept for it.

  Attributes:
    entries: casefold(NFC(source)) -> NFC targets, in file order, each once, none equal to its key.
    weights: key -> weight above 0 of each of its targets, for keys whose file gave weights; the
      targets of a key that is absent are equally likely.
    identity_only: keys all of whose targets were the word itself; not in `entries`.
    sha256: of the file's bytes as they lie on disk, of all files in turn if there are several (for
      pairs: of them as lines `source TAB target` or `source TAB target TAB weight`; for a merged
      lexicon: of the hashes of its parts, one a line).
    counts: how many of what was read; the names are the keys of `COUNTS`.
    max_words: words of the longest source.
    direction: 'forward', or 'inverted' when the file ran from target to source; 'mixed' if lexicons
      of both directions were merged.
  """

  entries: Mapping[str, tuple[str, ...]]
  weights: Mapping[str, tuple[float, ...]]
  identity_only: frozenset[str]
  sha256: str
  counts: Mapping[str, int]
  max_words: int
  direction: str = directions.FORWARD

  @classmethod
  def load(cls, path: str | pathlib.Path, *, source: str = 'en', target: str = '') -> 'Lexicon':
    """Reads a dictionary; the format is known by its name, of text files by the first line.

    Which side is the source is decided by what the file declares, else by script, else by English
    function words, else by the file name, else the left side is (`formats.direction.decide`).

    Args:
      path: the file; UTF-8 (DSL also UTF-16), with or without a byte order mark. Of a dictd database
        the .index or .dict, of StarDict the .ifo or a tar, of line-aligned files one of both.
      source: language of the keys, a code of ISO 639-1 or 639-3.
      target: language of the targets; '' if any. It lets a wrong file be refused and targets in other
        scripts be dropped, and is needed for a dump of many languages.

    Raises:
      FileNotFoundError: there is no such file, or one that belongs to it is missing.
      ImportError: the format needs a package that is not installed.
      ValueError: the file is empty, binary, broken or not UTF-8; a line is not what its format asks
        (it is named); the file is of other languages; or it has no usable pair.
    """
    path = pathlib.Path(path)
    for name, language in (('source', source), ('target', target)):
      if not regex.fullmatch('[a-z]{2,3}', language) and (language or name == 'source'):
        raise ValueError(
          f'{name} is {language!r}: a language is a code of two or three small letters (ISO 639), '
          f"such as 'sw' or 'swh'.{_nearest_code(language)}"
        )
    reading = formats.read(path, source, target)
    direction = directions.decide(reading, source, target, path)
    sha256 = hashlib.sha256()
    for file in reading.files:
      with file.open('rb') as opened:
        while block := opened.read(1 << 20):
          sha256.update(block)
    declared = reading.right if direction == directions.FORWARD else reading.left
    return _build(
      _pairs(reading, direction, languages.code(source), languages.code(target or declared)),
      reading.counts,
      sha256.hexdigest(),
      str(path),
      direction,
      _scripts(source),
      _scripts(target or declared),
    )

  @classmethod
  def from_pairs(cls, pairs: Iterable[tuple[str, str] | tuple[str, str, float]]) -> 'Lexicon':
    """Builds a lexicon of (source, target) or (source, target, weight), treated as a list's lines.

    Raises:
      ValueError: none of the pairs is usable; a weight is negative or not finite; or a source has
        pairs with and without weights.
    """
    pairs = [tuple(pair) for pair in pairs]
    lines = ''.join('\t'.join(map(str, pair)) + '\n' for pair in pairs)
    digest = hashlib.sha256(lines.encode('utf-8', 'surrogatepass')).hexdigest()
    counts = collections.Counter()
    listed = (Pair(*_tidy(pair, counts), *pair[2:]) for pair in pairs)
    return _build(listed, counts, digest, f'{len(pairs)} pairs', directions.FORWARD, None, None)

  @classmethod
  def merge(cls, lexicons: Sequence['Lexicon']) -> 'Lexicon':
    """Merges lexicons; the first has priority: a key has the targets of the first that has it.

    Targets of several lexicons are not joined under a key: the order of senses and the weights of
    one file mean nothing beside those of another, and a draw among all would let a large noisy list
    outvote a small curated one, which is worth more.

    Raises:
      ValueError: there is no lexicon.
    """
    if not lexicons:
      raise ValueError('Lexicon.merge: no lexicons to merge.')
    entries: dict[str, tuple[str, ...]] = {}
    weights: dict[str, tuple[float, ...]] = {}
    counts = collections.Counter()
    for lexicon in lexicons:
      counts.update(lexicon.counts)
      for key, targets in lexicon.entries.items():
        if key in entries:
          counts['shadowed_pairs'] += len(targets)
          counts['kept_pairs'] -= len(targets)
        else:
          entries[key] = targets
          if key in lexicon.weights:
            weights[key] = lexicon.weights[key]
    found = {lexicon.direction for lexicon in lexicons}
    identity = frozenset().union(*(lexicon.identity_only for lexicon in lexicons))
    hashes = ''.join(f'{lexicon.sha256}\n' for lexicon in lexicons)
    return _lexicon(
      entries,
      weights,
      identity - entries.keys(),
      hashlib.sha256(hashes.encode()).hexdigest(),
      counts,
      found.pop() if len(found) == 1 else 'mixed',
    )


def load_words(path: str | pathlib.Path) -> frozenset[str]:
  """Reads a list of words or phrases, one a line, such as stop words; returns their keys.

  A phrase is several words separated by single spaces; from a '#' on, a line is a comment.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is empty, binary or not UTF-8, or a line is neither a word nor a phrase.
  """
  path = pathlib.Path(path)
  keys = set()
  for number, line in text_lines(read_text(path)):
    entry = line.split('#', 1)[0].strip()
    if entry:
      if not all(words.is_word(word) for word in entry.split(' ')):
        raise ValueError(
          f'{path}:{number}: {entry!r} is not one word of letters, nor several separated by '
          'single spaces.'
        )
      keys.add(words.key(entry))
  return frozenset(keys)


def _nearest_code(language: str) -> str:
  code = languages.code(language)
  return (
    f' Nearest: {code!r}.' if language and code != language and languages.is_known(code) else ''
  )


# ── readings to pairs ───────────────────────────────────────────────────────────


class Pair(NamedTuple):
  """A source and a target in NFC, without remarks; `reason` says why the reader's pair is none."""

  source: str
  target: str
  weight: float | None = None
  reason: str = ''


def _pairs(reading: formats.Reading, direction: str, source: str, target: str) -> Iterator[Pair]:
  """The pairs of a reading; a headword that becomes a target gives its first form alone."""
  inverted = direction == directions.INVERTED
  counts = reading.counts
  if reading.is_list:
    for left, right, weight, _ in reading.entries:
      texts = _tidy((left[0], right[0]), counts)
      yield Pair(*(reversed(texts) if inverted else texts), weight)
    return
  left_english, right_english = (
    language == 'en' for language in ((target, source) if inverted else (source, target))
  )
  for lefts, rights, weight, reason in reading.entries:
    if reason:
      yield from (Pair(lefts[0], right, reason=reason) for right in rights)
      continue
    if inverted and len(lefts) > 1:
      counts['other_forms'] += len(lefts) - 1
      lefts = lefts[:1]
    heads = _senses(lefts, reading.split_left, left_english, False, counts)
    tails = _senses(rights, reading.split_right, right_english, True, counts)
    for head, head_reason in heads:
      for tail, tail_reason in tails:
        texts = (tail, head) if inverted else (head, tail)
        yield Pair(*texts, weight, head_reason or tail_reason)


def _senses(
  texts: tuple[str, ...], separators: str, english: bool, gloss: bool, counts: collections.Counter
) -> list[tuple[str, str]]:
  found = []
  for text in texts or ('',):
    found += glosses.senses(text, separators, english=english, gloss=gloss, counts=counts)
  return found


def _tidy(pair: tuple, counts: collections.Counter) -> tuple[str, str]:
  source, from_source = glosses.tidy(pair[0])
  target, from_target = glosses.tidy(pair[1])
  if from_source or from_target:
    counts['remarks'] += from_source + from_target
  return source, target


def _scripts(language: str) -> regex.Pattern | None:
  return languages.letters(languages.code(language)) if language else None


# ── pairs to entries ────────────────────────────────────────────────────────────


def _build(
  pairs: Iterable[Pair],
  counts: collections.Counter,
  sha256: str,
  name: str,
  direction: str,
  source_letters: regex.Pattern | None,
  target_letters: regex.Pattern | None,
) -> Lexicon:
  """Sorts pairs into entries and reasons; `name` says in errors where they come from."""
  targets: dict[str, dict[str, float | None]] = {}
  identity = set()
  flaws: dict[str, str] = {}  # source -> why it can match no text, or ''
  for source, target, weight, reason in pairs:
    counts['pairs'] += 1
    key = words.key(source)
    if source not in flaws:
      flaws[source] = _source_flaw(source, source_letters)
    reason = (
      reason
      or ('' if source and target else 'empty_side')
      or flaws[source]
      or _target_flaw(target, target_letters)
      or _weight_flaw(source, weight, name)
    )
    if reason:
      counts[reason] += 1
    elif target.casefold() == key:
      counts['identity_pairs'] += 1
      identity.add(key)
    elif target in targets.setdefault(key, {}):
      counts['duplicate_pairs'] += 1
    else:
      counts['kept_pairs'] += 1
      targets[key][target] = weight
  if not targets:
    found = ', '.join(f'{reason} {n}' for reason, n in counts.items() if n and reason in COUNTS)
    raise ValueError(f'{name}: no pair can replace a word ({found or "no pairs"}).')
  weights = {}
  for key, found in targets.items():
    given = tuple(weight for weight in found.values() if weight is not None)
    if given:
      if len(given) < len(found):
        raise ValueError(f'{name}: {key!r} has targets with and without weights: {found}.')
      weights[key] = given
  entries = {key: tuple(found) for key, found in targets.items()}
  return _lexicon(entries, weights, frozenset(identity - targets.keys()), sha256, counts, direction)


def _lexicon(
  entries: dict[str, tuple[str, ...]],
  weights: dict[str, tuple[float, ...]],
  identity_only: frozenset[str],
  sha256: str,
  counts: collections.Counter,
  direction: str,
) -> Lexicon:
  """A lexicon whose counts of sources are those of its entries."""
  lengths = [1 + key.count(' ') for key in entries]
  counts['sources'] = len(entries)
  counts['multi_word_sources'] = sum(length > 1 for length in lengths)
  return Lexicon(
    entries=entries,
    weights=weights,
    identity_only=identity_only,
    sha256=sha256,
    counts={name: counts[name] for name in COUNTS},
    max_words=max(lengths),
    direction=direction,
  )


def _source_flaw(source: str, letters: regex.Pattern | None) -> str:
  """Why a source can match no text; '' if it can."""
  pieces = words.split_words(source)
  separators = set(pieces[2:-1:2])
  if pieces[0] or pieces[-1] or not separators <= {' ', '-'}:
    return 'unmatchable_source'
  if '-' in separators:
    return 'hyphenated_source'
  return '' if letters is None or letters.search(source) else 'source_script'


_BOUND = ('-', '‐', '‑', '–', '—', '־')  # hyphens, dashes, maqaf


def _target_flaw(target: str, letters: regex.Pattern | None) -> str:
  """Why a target should not stand in a text; '' if it can."""
  if glosses.MARKUP.search(target):
    return 'markup'
  if not any(character.isalpha() for character in target):
    return 'no_letters'
  if target.startswith(_BOUND) or target.endswith(_BOUND):
    return 'bound_forms'
  if glosses.GAP.search(target):
    return 'placeholders'
  return '' if letters is None or letters.search(target) else 'target_script'


def _weight_flaw(source: str, weight: float | None, name: str) -> str:
  if weight is None or 0 < weight < float('inf'):
    return ''
  if weight == 0:
    return 'zero_weights'
  raise ValueError(f'{name}: the weight of {source!r} is {weight}: a finite number of at least 0.')
