"""Documents out of files: JSONL, plain text, Parquet and ArrayRecord, compressed or not, anywhere.

`read_documents` is plain Python: it yields a `Document` for each document of a file, in the file's
order. Paths go through fsspec, so `gs://` and `s3://` work where its drivers are installed, and
compression follows the file's name (.gz, .bz2, .xz, .zst).

Bad lines, rows, records and files are errors that name their place, unless the caller gives a
`Rejections` to count them in. Several readers may share a file: item i of it (a line, a row, a
record, a paragraph of plain text) is parsed by one of them alone, so that what is bad is counted once.

Easy to get wrong: taking a failure to read for a bad file. A network that breaks off, or a file that
may not be opened, is an error whatever is to be skipped; only bytes that are there and make no sense
are counted.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from jaxlink.data.sources import lines as source_lines
from jaxlink.data.sources import opening as source_bytes
from jaxlink.data.sources import records as source_records
from jaxlink.data.sources.opening import Bad, Broken
from jaxlink.names import nearest

OnBad = Literal['raise', 'skip']
PLACES = 20  # named of each reason
_FLOOR = 1000  # lines that a share of bad ones is taken of, at the least
_FORMATS = {
  '.jsonl': 'jsonl', '.json': 'jsonl', '.ndjson': 'jsonl', '.txt': 'text',
  '.parquet': 'parquet', '.array_record': 'array_record', '.arrayrecord': 'array_record',
}  # fmt: skip
_PACKED = ('parquet', 'array_record')  # compressed inside
UNITS = {'jsonl': 'line', 'text': 'line', 'parquet': 'row', 'array_record': 'record'}
_READERS = {
  'jsonl': (source_lines.json_lines, source_lines.decode_json),
  'text': (source_lines.paragraphs, source_lines.decode_paragraph),
  'parquet': (source_records.parquet_rows, source_records.decode_value),
  'array_record': (source_records.array_records, source_records.decode_record),
}
_CHOICES = {
  'documents': ('paragraphs', 'file', 'line'),
  'records': (None, 'text', 'json', 'example'),
}


@dataclasses.dataclass(frozen=True)
class Reading:
  """How files are read; all of it decides what the documents are.

  Attributes:
    text_key: the field or column that holds the text; unused for plain text.
    documents: what a document of a plain text file is: 'paragraphs' are parted by blank lines.
    records: what the records of an ArrayRecord file are: 'text' in UTF-8, a 'json' object, or a
      serialised tf.train.Example ('example'). No file says so, so there is no default.
    max_document_bytes: a document, or its line of JSON, of more bytes is bad.
  """

  text_key: str = 'text'
  documents: Literal['paragraphs', 'file', 'line'] = 'paragraphs'
  records: Literal['text', 'json', 'example'] | None = None
  max_document_bytes: int = 100_000_000

  def __post_init__(self):
    for name, choices in _CHOICES.items():
      if (value := getattr(self, name)) not in choices:
        raise ValueError(
          f'{name} is {value!r}: {", ".join(map(repr, choices))}.'
          f'{nearest(str(value), list(filter(None, choices)))}'
        )
    size = self.max_document_bytes
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
      raise ValueError(f'max_document_bytes is {size!r}: it is an integer, 1 or more.')


@dataclasses.dataclass(frozen=True)
class Document:
  """A document's text, and the line, row or record, from 1, with which it begins."""

  text: str
  number: int


class BadDocument(ValueError):
  """A line, row, record or file that holds no text, or more bad ones than are allowed."""


class Rejections:
  """What was passed over: counted by reason, the first places of each reason named.

  Attributes:
    read: lines, rows or records met, blank lines aside; bad ones count.
    by_reason: how many of them were bad; a broken file counts once, broken row groups by rows.
    places: dicts of 'file', 'unit', 'number', 'reason' and 'detail'.
  """

  def __init__(self) -> None:
    self.read = 0
    self.by_reason: collections.Counter[str] = collections.Counter()
    self.places: list[dict[str, Any]] = []
    self._named: collections.Counter[str] = collections.Counter()

  def add(self, path: str, bad: Bad) -> None:
    """Counts what was bad."""
    self.by_reason[bad.reason] += bad.count
    self._name({
      'file': path, 'unit': UNITS[file_format(path)], 'number': bad.number,
      'reason': bad.reason, 'detail': bad.detail,
    })  # fmt: skip

  def as_dict(self) -> dict[str, Any]:
    """Returns the counts as JSON has them, with their 'total'."""
    return {
      'read': self.read,
      'total': self.by_reason.total(),
      'by_reason': dict(sorted(self.by_reason.items())),
      'places': self.places,
    }

  @classmethod
  def merge(cls, parts: Sequence[dict[str, Any]], files: Sequence[str]) -> 'Rejections':
    """Adds up what the readers of a split passed over; places come in the order of the files."""
    merged, order = cls(), {file: number for number, file in enumerate(files)}
    for part in parts:
      merged.read += part['read']
      merged.by_reason.update(part['by_reason'])
    places = [place for part in parts for place in part['places']]
    for place in sorted(places, key=lambda p: (order[p['file']], p['number'] or math.inf)):
      merged._name(place)
    return merged

  def check(self, most: float) -> None:
    """Raises BadDocument if more is bad than `most`, which `check_max_bad` explains."""
    bad = self.by_reason.total()
    allowed = most if most >= 1 else most * max(self.read, _FLOOR)
    if bad > allowed:
      raise BadDocument(
        f'{bad:,} of {self.read:,} lines, rows or records are bad, more than max_bad={most} allows '
        f'({math.floor(allowed):,}). {describe(self.as_dict())}'
      )

  def _name(self, place: dict[str, Any]) -> None:
    if self._named[place['reason']] < PLACES:
      self._named[place['reason']] += 1
      self.places.append(place)


def check_max_bad(most: float) -> None:
  """Checks a bound on what may be skipped.

  Below 1 it is a share of the lines, rows and records read, or of 1,000 if there are fewer, so that
  a small file may hold a few bad lines too; from 1 on it is a number of them.

  Raises:
    ValueError: it is no number, or below 0.
  """
  if isinstance(most, bool) or not isinstance(most, int | float) or not most >= 0:
    raise ValueError(f'max_bad is {most!r}: it is a share below 1, or a number of lines from 1 on.')


def describe(rejected: dict[str, Any], places: int = 3) -> str:
  """Says in a line what was passed over, with the first places of each reason."""
  reasons = []
  for reason, number in rejected['by_reason'].items():
    named = [p for p in rejected['places'] if p['reason'] == reason]
    first = '; '.join(
      _message(p['file'], p['unit'], p['number'], p['detail']) for p in named[:places]
    )
    more = '; …' if len(named) > places else ''
    reasons.append(f'{reason}: {number:,} ({first}{more})')
  return ', '.join(reasons) + '.'


def expand(patterns: str | Sequence[str]) -> list[str]:
  """Returns the files that paths or glob patterns name, sorted for each pattern.

  Raises:
    FileNotFoundError: a pattern matches nothing; the nearest names of its folder are given.
    ValueError: the path is of a place that no installed package reads, or a file is named twice.
  """
  files = []
  for pattern in [patterns] if isinstance(patterns, str) else patterns:
    filesystem, path = source_bytes.place(pattern)
    found = [path] if filesystem.isfile(path) else sorted(filesystem.glob(path))
    found = [f for f in found if filesystem.isfile(f)]
    if not found:
      folder, _, name = path.rpartition('/')
      if not filesystem.isdir(folder):
        raise FileNotFoundError(f'No file {pattern!r}: there is no folder {folder!r}.')
      beside = sorted(f.rpartition('/')[2] for f in filesystem.ls(folder, detail=False))
      raise FileNotFoundError(
        f'No file {pattern!r}.{nearest(name, beside)} '
        f'The folder holds: {", ".join(beside[:10]) or "nothing"}.'
      )
    files += [filesystem.unstrip_protocol(f) if '://' in pattern else f for f in found]
  if twice := [file for file, count in collections.Counter(files).items() if count > 1]:
    raise ValueError(
      f'{twice[0]} is named more than once by {patterns}: its text would count twice.'
    )
  return files


def file_format(path: str) -> str:
  """Returns 'jsonl', 'text', 'parquet' or 'array_record' by the file's name.

  Compression (.gz) and the number of a shard (-00000-of-00008) at the name's end play no part.
  """
  numberless = re.sub(r'-\d+-of-\d+$', '', path)
  name = numberless
  for suffix in source_bytes.COMPRESSIONS:
    name = name.removesuffix(suffix)
  name = re.sub(r'-\d+-of-\d+$', '', name)
  for suffix, kind in _FORMATS.items():
    if name.endswith(suffix):
      if kind in _PACKED and not numberless.endswith(suffix):
        raise ValueError(f'{path}: a {suffix} file is compressed inside. Unpack it.')
      return kind
  raise ValueError(
    f'{path}: cannot tell the format by its name. Known: {", ".join(_FORMATS)}, '
    f'the first four also with {", ".join(source_bytes.COMPRESSIONS)}.'
  )


def read_documents(
  path: str,
  *,
  rejected: Rejections | None = None,
  index: int = 0,
  count: int = 1,
  **reading,
) -> Iterator[Document]:
  """Yields the documents of one file in order.

  Args:
    path: a file, local or remote, whose name tells its format.
    rejected: counts what is bad. With None the first bad thing is an error.
    index: this reader's number among those that share the file.
    count: how many do. Item i, from 0, is parsed, yielded or counted by reader i % count.
    **reading: settings of `Reading`.

  Raises:
    BadDocument: with `rejected=None`, naming the file and the line.
    ValueError: the format is not known, or a setting is wrong or missing.
    OSError: the file cannot be read, which has nothing to do with what it holds.
  """
  settings, kind = Reading(**reading), file_format(path)
  read_items, decode = _READERS[kind]
  for ordinal, (number, item) in enumerate(_items(read_items(path, settings), UNITS[kind])):
    if ordinal % count != index:
      continue
    text, bad = (None, [item]) if isinstance(item, Bad) else decode(number, item, settings)
    if bad and rejected is None:
      raise BadDocument(_message(path, UNITS[kind], bad[0].number, bad[0].detail) + '.')
    if rejected is not None:
      for one in bad:
        rejected.add(path, one)
      # A paragraph is the list of its lines, of which some may be bad.
      rejected.read += len(item) if isinstance(item, list) else bad[0].count if bad else 1
    if text is not None:
      yield Document(text, number)


def _items(items: Iterator[tuple[int, Any]], unit: str) -> Iterator[tuple[int, Any]]:
  """Yields the items of a file with their numbers, and the place where it breaks as a last one."""
  number = 0
  try:
    for number, item in items:
      yield number, item
  except Broken as error:
    after = f' after {unit} {number}' if number else ''
    yield number, Bad('broken file', 0, f'broken file{after} ({error})')


def _message(path: str, unit: str, number: int, detail: str) -> str:
  return f'{path}, {unit} {number}: {detail}' if number else f'{path}: {detail}'
