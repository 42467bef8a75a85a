"""Bilingual lexicons: from a file of word pairs to the targets of each source word.

In: lines of `source target`, as MUSE, GATITOS, WECHSEL and PanLex lists have them, plain or gzip.
Out: a `Lexicon`, which maps casefold(NFC(source)) to its NFC targets in file order, and which counts
every pair that it left out, by reason.

Easy to get wrong: many pairs of a MUSE-type list map a word to itself (10 to 90 % of its words).
They are no translations: they are dropped here, so that a dose counted later is what it says.

A file with a tab anywhere is tab-separated throughout: source, target, and further columns that are
not read. Any other file is separated by spaces and has one word a side, since nothing could tell
where the source of three words ends.

A source of several words is kept if single spaces separate them ('set on fire'): it matches such a
run in a text. Hyphens ('well-known'), digits and other signs ('C++', 'St. Paul') are outside words,
so such a source matches nothing; it is dropped and counted.
"""

import collections
import dataclasses
import gzip
import hashlib
import pathlib
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping

from jaxlink.config import nearest
from jaxlink.link import words

# What `Lexicon.counts` counts, in the order in which a pair can be left out.
COUNTS = {
  'blank_lines': 'lines without text',
  'extra_columns': 'lines with more than two columns; the others are not read',
  'pairs': 'pairs read: the sum of the reasons below and of kept_pairs',
  'empty_side': 'pairs whose source or target is empty',
  'hyphenated_source': 'pairs whose source has words joined by hyphens',
  'unmatchable_source': 'pairs whose source holds a sign outside words, or two spaces in a row',
  'identity_pairs': 'pairs whose target is the source but for case',
  'duplicate_pairs': 'pairs that were there before',
  'kept_pairs': 'pairs that can replace something',
  'sources': 'different sources of the kept pairs',
  'multi_word_sources': 'those of several words',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Lexicon:
  """Targets of source words; equal and hashed by identity, so that a table can be kept for it.

  Attributes:
    entries: casefold(NFC(source)) -> NFC targets, in file order, each once, none equal to its key.
    identity_only: keys all of whose targets were the word itself; not in `entries`.
    sha256: of the file's bytes as they lie on disk (for pairs: of them as lines `source TAB target`).
    counts: how many of what was read; the names are the keys of `COUNTS`.
    max_words: words of the longest source.
  """

  entries: Mapping[str, tuple[str, ...]]
  identity_only: frozenset[str]
  sha256: str
  counts: Mapping[str, int]
  max_words: int

  @classmethod
  def load(cls, path: str | pathlib.Path) -> 'Lexicon':
    """Reads a list of word pairs.

    Args:
      path: two columns separated by spaces, or TSV; UTF-8, with or without a byte order mark; gzip
        is known by its first bytes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty, binary, not UTF-8, broken gzip, has a line without a target or
        (separated by spaces) with more than two words, or no usable pair. The line is named.
    """
    path = pathlib.Path(path)
    data, text = _read(path)
    counts = collections.Counter()
    return _build(_pairs(text, path, counts), counts, hashlib.sha256(data).hexdigest(), str(path))

  @classmethod
  def from_pairs(cls, pairs: Iterable[tuple[str, str]]) -> 'Lexicon':
    """Builds a lexicon of (source, target) pairs. Raises ValueError if none of them is usable."""
    pairs = list(pairs)
    lines = ''.join(f'{source}\t{target}\n' for source, target in pairs)
    digest = hashlib.sha256(lines.encode('utf-8', 'surrogatepass')).hexdigest()
    return _build(pairs, collections.Counter(), digest, f'{len(pairs)} pairs')


def load_words(path: str | pathlib.Path) -> frozenset[str]:
  """Reads a list of words, one a line, such as stop words; returns their keys.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is empty, binary or not UTF-8, or a line is not one word.
  """
  path = pathlib.Path(path)
  _, text = _read(path)
  keys = set()
  for number, line in enumerate(text.removesuffix('\n').split('\n'), 1):
    word = line.strip()
    if word:
      if not words.is_word(word):
        raise ValueError(f'{path}:{number}: {word!r} is not one word of letters.')
      keys.add(words.key(word))
  return frozenset(keys)


# ── pairs to entries ────────────────────────────────────────────────────────────


def _build(
  pairs: Iterable[tuple[str, str]], counts: collections.Counter, sha256: str, name: str
) -> Lexicon:
  """Sorts pairs into entries and reasons; `name` says in errors where they come from."""
  targets: dict[str, dict[str, None]] = {}  # dicts without values: sets that keep the order
  identity = set()
  length = {}
  for source, target in pairs:
    counts['pairs'] += 1
    source = unicodedata.normalize('NFC', source).strip()
    target = unicodedata.normalize('NFC', target).strip()
    key = words.key(source)
    if key not in length:
      length[key] = _count_words(source)
    if not source or not target:
      counts['empty_side'] += 1
    elif isinstance(length[key], str):
      counts[length[key]] += 1
    elif target.casefold() == key:
      counts['identity_pairs'] += 1
      identity.add(key)
    elif target in targets.setdefault(key, {}):
      counts['duplicate_pairs'] += 1
    else:
      counts['kept_pairs'] += 1
      targets[key][target] = None
  if not targets:
    found = ', '.join(f'{reason} {n}' for reason, n in counts.items() if reason in COUNTS)
    raise ValueError(f'{name}: no pair can replace a word ({found or "no pairs"}).')
  lengths = [length[key] for key in targets]
  counts['sources'] = len(targets)
  counts['multi_word_sources'] = sum(n > 1 for n in lengths)
  return Lexicon(
    entries={key: tuple(found) for key, found in targets.items()},
    identity_only=frozenset(identity - targets.keys()),
    sha256=sha256,
    counts={name: counts[name] for name in COUNTS},
    max_words=max(lengths),
  )


def _count_words(source: str) -> int | str:
  """The number of words of a source, or the reason why it can match no text."""
  pieces = words.split_words(source)
  separators = set(pieces[2:-1:2])
  if pieces[0] == pieces[-1] == '':
    if separators <= {' '}:
      return len(pieces) // 2
    if separators <= {' ', '-'}:
      return 'hyphenated_source'
  return 'unmatchable_source'


# ── files to pairs ──────────────────────────────────────────────────────────────


def _read(path: pathlib.Path) -> tuple[bytes, str]:
  """The bytes of a file as they lie on disk, and its text."""
  if not path.is_file():
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise FileNotFoundError(f'{path}: no such file.{nearest(path.name, siblings)}')
  data = raw = path.read_bytes()
  if data.startswith(b'\x1f\x8b'):
    try:
      raw = gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
      raise ValueError(f'{path}: broken gzip file ({error}).') from None
  if not raw.strip():
    raise ValueError(f'{path}: the file is empty.')
  bad, reason = raw.find(b'\0'), 'holds a NUL byte: the file is binary, or not UTF-8 but UTF-16'
  try:
    text = raw.decode('utf-8').removeprefix('\ufeff')
  except UnicodeDecodeError as error:
    if bad < 0 or error.start < bad:
      bad, reason = error.start, f'is not UTF-8 ({error.reason})'
  if bad >= 0:
    line = raw.count(b'\n', 0, bad) + 1
    raise ValueError(f'{path}:{line}: byte {bad} (0x{raw[bad]:02x}) {reason}.')
  return data, text


def _pairs(text: str, path: pathlib.Path, counts: collections.Counter) -> Iterator[tuple[str, str]]:
  tabs = '\t' in text
  # Not splitlines(): it also cuts at U+0085, U+2028 and other characters that are no line ends here.
  for number, line in enumerate(text.removesuffix('\n').split('\n'), 1):
    if not line.strip():
      counts['blank_lines'] += 1
      continue
    if tabs:
      columns = line.split('\t')
    else:
      columns = [column for column in line.rstrip('\r').split(' ') if column]
    if len(columns) < 2:
      raise ValueError(
        f'{path}:{number}: {line.strip()!r} has no target: '
        f'a line is a source and a target, separated by {"a tab" if tabs else "a space or a tab"}.'
      )
    if len(columns) > 2:
      if not tabs:
        raise ValueError(
          f'{path}:{number}: {line.strip()!r} has {len(columns)} words and no tab: '
          'with several words a side, source and target are separated by a tab.'
        )
      counts['extra_columns'] += 1
    yield columns[0], columns[1]
