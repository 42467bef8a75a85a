"""Documents of files made of lines: JSON Lines and plain text.

Reading and decoding are two steps: `json_lines` and `paragraphs` cut a file into items, which is
quick, and `decode_json` and `decode_paragraph` turn an item into text or say what is bad about it.
Of several readers of a file each decodes its own items only.

Easy to get wrong: memory. A line may be as long as the file, or as what a small compressed file
unpacks to: what goes beyond `Reading.max_document_bytes` is counted, not kept.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxlink.data.sources.opening import Bad, Broken, chunks

if TYPE_CHECKING:
  from jaxlink.data.sources import Reading

Line = tuple[int, bytes]  # its number, from 1, and its bytes without the line feed

_BOM = b'\xef\xbb\xbf'
# What is unpacked may have no end: a file is given up
_LONGEST = 16  # times max_document_bytes into a line
_MOST_BLANK = 1 << 24  # bytes after the last line that is not blank


def json_lines(path: str, reading: 'Reading') -> Iterator[tuple[int, bytes | Bad]]:
  """Yields the lines of a file that are not blank."""
  limit = reading.max_document_bytes
  for number, line in _lines(path, limit):
    if line is None:
      yield number, too_long(number, 'line', limit)
    elif not _is_blank(line):
      yield number, line


def decode_json(number: int, line: bytes, reading: 'Reading') -> tuple[str | None, list[Bad]]:
  """Returns the text of a line that holds a JSON object; of equal keys the last counts."""
  if bad := _not_utf8(number, line):
    return None, [bad]
  try:
    row = json.loads(line.decode())
  except (ValueError, RecursionError) as error:  # also a number of too many digits
    return None, [Bad('not JSON', number, f'not JSON ({error})')]
  text = text_of(row, reading.text_key, number)
  return (None, [text]) if isinstance(text, Bad) else (text, [])


def text_of(row: object, key: str, number: int) -> str | Bad:
  """Returns the text in a field of a JSON value."""
  if not isinstance(row, dict):
    return Bad('not an object', number, f'a JSON {type(row).__name__}, not an object')
  if key not in row:
    fields = ', '.join(map(repr, row)) or 'none'
    return Bad('no field', number, f'no field {key!r}. Fields: {fields[:200]}')
  text = row[key]
  if not isinstance(text, str):
    return Bad('not text', number, f'field {key!r} is a {type(text).__name__}, not text')
  try:
    text.encode()
  except UnicodeEncodeError:  # JSON can spell a lone surrogate, which is no character
    return Bad('lone surrogate', number, f'field {key!r} holds a lone surrogate')
  return text


def paragraphs(path: str, reading: 'Reading') -> Iterator[tuple[int, list[Line] | Bad]]:
  """Yields the lines of each document of a plain text file.

  A document that the file breaks off in is not yielded: no one knows how it goes on.
  """
  limit = reading.max_document_bytes
  lines: list[Line] = []
  first = size = 0  # its first line, 0 for none, and bytes

  for number, line in _lines(path, limit):
    blank = line is not None and _is_blank(line)
    if blank and (reading.documents != 'file' or not first):
      if first:
        yield first, too_long(first, 'document', limit) if size > limit else lines
      lines, first, size = [], 0, 0
      continue
    if first and reading.documents == 'line':
      yield first, too_long(first, 'document', limit) if size > limit else lines
      lines, first, size = [], 0, 0
    size += limit + 1 if line is None else len(line) + bool(first)
    first = first or number
    lines = [] if size > limit else lines
    if line is not None and size <= limit:
      lines.append((number, line))
  if first:
    yield first, too_long(first, 'document', limit) if size > limit else lines


def decode_paragraph(
  number: int, lines: list[Line], reading: 'Reading'
) -> tuple[str | None, list[Bad]]:
  """Returns a document's text without its bad lines, which are returned too."""
  del number, reading
  good, bad = [line for _, line in lines], []
  whole = b'\n'.join(good)
  if b'\0' not in whole:
    with contextlib.suppress(UnicodeDecodeError):
      return whole.decode().rstrip('\r\n'), []
  good = []
  for at, line in lines:
    if wrong := _not_utf8(at, line):
      bad.append(wrong)
    elif b'\0' in line:  # UTF-16, or a file that is no text
      bad.append(Bad('NUL byte', at, 'holds a NUL byte'))
    else:
      good.append(line)
  text = b'\n'.join(good).decode().rstrip('\r\n')
  return (text if text.strip() else None), bad


def decode_line(number: int, text: bytes, reading: 'Reading') -> tuple[str | None, list[Bad]]:
  """Returns bytes that are a text by themselves as text."""
  if len(text) > reading.max_document_bytes:
    return None, [too_long(number, 'document', reading.max_document_bytes)]
  bad = _not_utf8(number, text)
  return (None, [bad]) if bad else (text.decode(), [])


def _not_utf8(number: int, line: bytes) -> Bad | None:
  try:
    line.decode()
  except UnicodeDecodeError as error:
    value = line[error.start]
    return Bad('not UTF-8', number, f'not UTF-8 (byte {error.start} is 0x{value:02x})')
  return None


def too_long(number: int, what: str, limit: int) -> Bad:
  return Bad('too long', number, f'a {what} of more than max_document_bytes={limit}')


def _is_blank(line: bytes) -> bool:
  """Tells whether a line holds nothing but white space, of any script."""
  if line and 0x20 < line[0] < 0x7F:
    return False
  line = line.strip()
  if not line:
    return True
  first = line[:4].decode('utf-8', 'ignore')[:1]
  return first.isspace() and not line.decode('utf-8', 'replace').strip()


def _lines(path: str, limit: int) -> Iterator[tuple[int, bytes | None]]:
  """Yields the lines of a file with their numbers; None for one of more than `limit` bytes.

  Raises:
    Broken: so is the file, or no line comes for very long.
  """
  number, begun, size = 1, [], 0  # of the line that is being read
  blank = 0
  for chunk in chunks(path):
    blank = blank + len(chunk) if chunk.isspace() else 0
    if blank > _MOST_BLANK:
      raise Broken(f'{blank:,} bytes of blank lines')
    *ends, rest = chunk.split(b'\n')
    for end in ends:
      size += len(end)
      yield number, None if size > limit else _join(number, begun, end)
      number, begun, size = number + 1, [], 0
    size += len(rest)
    if size > _LONGEST * limit:
      raise Broken(f'a line of {size:,} bytes that goes on')
    if size > limit:
      begun = []
    elif rest:
      begun.append(rest)
  if size:
    yield number, None if size > limit else _join(number, begun, b'')


def _join(number: int, begun: list[bytes], end: bytes) -> bytes:
  line = b''.join([*begun, end]) if begun else end
  return line.removeprefix(_BOM) if number == 1 else line
