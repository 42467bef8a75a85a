"""What every reader gives, and how it reads a file: `Reading`, `Entry`, text with honest errors.

A reader knows its format and nothing of what is done with the words: it gives the two sides as they
stand in the file, says in which languages the file itself declares them, and what may be cut from
them. Cleaning and turning round come later and are the same for all formats.

Easy to get wrong: text files are read whole, dumps of gigabytes (`read_lines`) line by line. Both
check the encoding, so that a broken file is an error with a line, never a quiet '?'.
"""

import bz2
import collections
import dataclasses
import gzip
import lzma
import pathlib
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from jaxlink.names import nearest

MAX_LINE_BYTES = 1 << 20  # of a list; no line of the real ones seen has more than 30 kB
MAX_RECORD_BYTES = 1 << 26  # of a JSON dump, whose records are whole pages

_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Entry(NamedTuple):
  """One entry: every form of the left side means every text of the right side.

  A `reason`, a name of the lexicon's `COUNTS`, says that the texts of the right side are none; an
  entry that only names another one has 'pointers'.
  """

  left: tuple[str, ...]
  right: tuple[str, ...]
  weight: float | None = None
  reason: str = ''


@dataclasses.dataclass
class Reading:
  """What stands in a file.

  Attributes:
    entries: in file order.
    files: all files that were read; their bytes, in this order, are the hash of the lexicon.
    left, right: codes of the languages that the file declares; '' where it declares none.
    is_list: an entry is what stands there; else the texts are of a dictionary, cleaned as glosses.
    split_left, split_right: separators at which a side of a dictionary is cut into senses.
    counts: what the reader left out, by the names of `jaxlink.link.lexicon.COUNTS`.
  """

  entries: list[Entry]
  files: list[pathlib.Path]
  left: str = ''
  right: str = ''
  is_list: bool = True
  split_left: str = ''
  split_right: str = ''
  counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def read_bytes(path: pathlib.Path) -> bytes:
  """Returns the bytes of a file, uncompressed if it is gzip (dictzip is gzip), xz or bzip2.

  Raises:
    FileNotFoundError: there is no such file; the nearest name is given.
    ValueError: the file is empty or its compression is broken.
  """
  require(path)
  raw = path.read_bytes()
  try:
    if raw.startswith(b'\x1f\x8b'):
      raw = gzip.decompress(raw)
    elif raw.startswith(b'\xfd7zXZ\0'):
      raw = lzma.decompress(raw)
    elif raw.startswith(b'BZh'):
      raw = bz2.decompress(raw)
  except (*_BROKEN, ValueError) as error:
    kind = {b'\x1f': 'gzip', b'\xfd': 'xz'}.get(raw[:1], 'bzip2')
    raise ValueError(f'{path}: broken {kind} file ({error}).') from None
  if not raw.strip():
    raise ValueError(f'{path}: the file is empty.')
  return raw


def read_text(path: pathlib.Path) -> str:
  """Returns the text of a UTF-8 file, without a byte order mark.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is empty, binary, not UTF-8 throughout, or has a line of over 1 MiB.
  """
  raw = read_bytes(path)
  bad, reason = raw.find(b'\0'), 'holds a NUL byte: the file is binary, or not UTF-8 but UTF-16'
  try:
    text = raw.decode('utf-8').removeprefix('\ufeff')
  except UnicodeDecodeError as error:
    if bad < 0 or error.start < bad:
      bad, reason = error.start, f'is not UTF-8 ({error.reason})'
  if bad >= 0:
    line = raw.count(b'\n', 0, bad) + 1
    raise ValueError(f'{path}:{line}: byte {bad} (0x{raw[bad]:02x}) {reason}.')
  if len(raw) > MAX_LINE_BYTES:
    start = 0
    for number, line in enumerate(raw.split(b'\n'), 1):
      if len(line) > MAX_LINE_BYTES:
        raise ValueError(
          f'{path}:{number}: a line of {len(line):,} bytes (from byte {start:,}); '
          f'a list has lines of at most {MAX_LINE_BYTES:,} bytes.'
        )
      start += len(line) + 1
  return text


def text_lines(text: str) -> Iterator[tuple[int, str]]:
  """Yields (number from 1, line) of a text that ends its lines by a line feed alone."""
  # Not splitlines(): it also cuts at U+0085, U+2028 and other characters that are no line ends here.
  yield from enumerate(text.removesuffix('\n').split('\n'), 1)


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
  """Yields (number from 1, bytes) of every line of a file that may be larger than memory."""
  require(path)
  with path.open('rb') as head:
    packed = head.read(2) == b'\x1f\x8b'
  try:
    with gzip.open(path) if packed else path.open('rb') as file:
      number = 0
      while line := file.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_RECORD_BYTES:
          raise ValueError(f'{path}:{number}: a line of more than {MAX_RECORD_BYTES:,} bytes.')
        yield number, line
  except _BROKEN as error:
    raise ValueError(f'{path}: broken gzip file ({error}).') from None


def require(path: pathlib.Path) -> None:
  """Raises FileNotFoundError, with the nearest name in the folder, if there is no such file."""
  if not path.is_file():
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise FileNotFoundError(f'{path}: no such file.{nearest(path.name, siblings)}')
