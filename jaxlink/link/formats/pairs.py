"""Lists of pairs: two columns (MUSE, GATITOS, PanLex, WECHSEL), with weights, or aligned files.

In: lines of `source target`, plain or packed. Out: a `Reading` whose entries are what stands there.

A file with a tab anywhere is tab-separated throughout: source, target and, if it is a number in
every line, a weight. Other third columns (parts of speech) are not read. Any other file is separated
by spaces and has one word a side, since nothing could tell where the source of three words ends.

Easy to get wrong: a line without a target is an error in a list, and a gap in aligned files (line n
of `dict.bn-en.bn` belongs to line n of `dict.bn-en.en`), where it is counted.
"""

import collections
import math
import pathlib

import regex

from jaxlink.link.formats import languages
from jaxlink.link.formats.reading import Entry, Reading, read_text, text_lines

# dict.bn-en.bn, corpus.hi-en.en.gz
_ALIGNED = regex.compile(r'(.*\.)([a-z]{2,3})-([a-z]{2,3})\.([a-z]{2,3})(\.gz|\.xz)?')


def has_html(text: str) -> bool:
  """Tells whether the second column of the first line is a definition in HTML."""
  first = text[:100_000].split('\n', 1)[0]
  return regex.search(r'\t<(?:i|b|p|div|ol|ul|span)\b[^>]*>', first) is not None


def read_columns(path: pathlib.Path, text: str) -> Reading:
  """Reads two columns, or three whose last is a weight.

  Raises:
    ValueError: a line has no target, has more than two words and no tab, or no weight above 0 in a
      file with weights. The line is named.
  """
  tabs = '\t' in text
  counts = collections.Counter()
  rows = []
  for number, line in text_lines(text):
    if not line.strip():
      counts['blank_lines'] += 1
      continue
    columns = line.split('\t') if tabs else line.split()
    if len(columns) < 2:
      raise ValueError(
        f'{path}:{number}: {_shown(line)} has no target: '
        f'a line is a source and a target, separated by {"a tab" if tabs else "a space or a tab"}.'
      )
    if len(columns) > 2 and not tabs:
      raise ValueError(
        f'{path}:{number}: {_shown(line)} has {len(columns)} words and no tab: '
        'with several words a side, source and target are separated by a tab.'
      )
    rows.append((number, columns))
  weighted = _is_weighted(rows, counts)
  entries = []
  for number, columns in rows:
    weight = _weight(path, number, columns) if weighted else None
    counts['extra_columns'] += len(columns) > 2 + weighted
    entries.append(Entry((columns[0],), (columns[1],), weight))
  return Reading(entries, [path], counts=counts)


def _is_weighted(rows: list[tuple[int, list[str]]], counts: collections.Counter) -> bool:
  """Tells whether third columns are weights; takes a line of column names off the rows."""
  numbers = [len(columns) > 2 and _number(columns[2]) is not None for _, columns in rows]
  if len(rows) > 1 and numbers[1] and not numbers[0] and len(rows[0][1]) > 2:
    counts['header_lines'] += 1
    del rows[0], numbers[0]
  return 2 * sum(numbers) > len(numbers)


def _weight(path: pathlib.Path, number: int, columns: list[str]) -> float:
  weight = _number(columns[2]) if len(columns) > 2 else None
  if weight is None or not 0 <= weight < math.inf:
    found = repr(columns[2]) if len(columns) > 2 else 'missing'
    raise ValueError(
      f'{path}:{number}: the weight is {found}: the third column of this file holds weights, '
      'finite numbers of at least 0 (the logarithm of a probability must be exponentiated).'
    )
  return weight


def _number(text: str) -> float | None:
  try:
    return float(text)
  except ValueError:
    return None


def _shown(line: str) -> str:
  line = line.strip()
  return repr(line if len(line) <= 80 else line[:77] + '...')


def is_aligned(path: pathlib.Path) -> bool:
  """Tells whether a name is that of one of two aligned files: 'dict.bn-en.bn'."""
  match = _ALIGNED.fullmatch(path.name)
  return match is not None and match[4] in (match[2], match[3])


def read_aligned(path: pathlib.Path) -> Reading:
  """Reads two files whose lines belong together, given the path of either; the name orders them.

  Raises:
    FileNotFoundError: one of the files is missing.
    ValueError: the files have different numbers of lines.
  """
  stem, left, right, own, _ = _ALIGNED.fullmatch(path.name).groups()
  files = []
  for language in (left, right):
    named = path.with_name(f'{stem}{left}-{right}.{language}')
    packed = (named.with_name(named.name + ending) for ending in ('.gz', '.xz'))
    files.append(path if language == own else next((p for p in packed if p.is_file()), named))
  columns = [[line for _, line in text_lines(read_text(file))] for file in files]
  if len(columns[0]) != len(columns[1]):
    raise ValueError(
      f'{files[0]} has {len(columns[0])} lines and {files[1].name} {len(columns[1])}: '
      'line n of one belongs to line n of the other.'
    )
  entries = [Entry((a,), (b,)) for a, b in zip(*columns, strict=True)]
  left, right = languages.code(left), languages.code(right)
  return Reading(entries, files, left, right, False, ';,/', ';,/')
