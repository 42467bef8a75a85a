"""Documents out of files: JSONL, plain text and Parquet, compressed or not, local or remote.

`read_documents` is plain Python: it yields a `Document` for each document of a file, in the file's
order. Paths go through fsspec, so `gs://` and `s3://` work where its drivers are installed, and
compression follows the file's name (.gz, .bz2, .xz; .zst where `zstandard` is installed).

Easy to get wrong: a bad line must not vanish. With `on_bad='raise'` it is an error that names file
and line; with `'skip'` the number of lines passed over travels with the next document
(`Document.rejected`), so that it is counted in whatever process reads the file.
"""

import dataclasses
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

import fsspec

from jaxlink.config import nearest

OnBad = Literal['raise', 'skip']
_COMPRESSIONS = ('.gz', '.bz2', '.xz', '.zst')


@dataclasses.dataclass(frozen=True)
class Document:
  """A document's text, and how many bad lines were passed over just before it.

  The bad lines at a file's end come last, with None for the text.
  """

  text: str | None
  rejected: int = 0


class BadDocument(ValueError):
  """A line or row that holds no text: not UTF-8, not JSON, or without the field asked for."""


def expand(patterns: str | Sequence[str]) -> list[str]:
  """Returns the files that paths or glob patterns name, sorted for each pattern.

  Raises:
    FileNotFoundError: a pattern matches nothing; the nearest names of its folder are given.
  """
  files = []
  for pattern in [patterns] if isinstance(patterns, str) else patterns:
    filesystem, path = fsspec.core.url_to_fs(pattern)
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
  return files


def file_format(path: str) -> str:
  """Returns 'jsonl', 'text' or 'parquet' by the file's name, compression aside."""
  name = path
  for suffix in _COMPRESSIONS:
    name = name.removesuffix(suffix)
  for suffix, kind in (
    ('.jsonl', 'jsonl'), ('.json', 'jsonl'), ('.ndjson', 'jsonl'),
    ('.txt', 'text'), ('.parquet', 'parquet'),
  ):  # fmt: skip
    if name.endswith(suffix):
      return kind
  raise ValueError(
    f'{path}: cannot tell the format by its name. Known: .jsonl, .json, .ndjson, .txt, .parquet, '
    f'each also with {", ".join(_COMPRESSIONS)}.'
  )


def read_documents(
  path: str, *, text_key: str = 'text', on_bad: OnBad = 'raise'
) -> Iterator[Document]:
  """Yields the documents of one file in order.

  Args:
    path: a .jsonl file (one object a line), a .txt file (documents parted by blank lines) or a
      .parquet file.
    text_key: the field or column that holds the text; unused for .txt.
    on_bad: what to do with a line or row without valid text.

  Raises:
    BadDocument: with `on_bad='raise'`, naming file and line.
  """
  if on_bad not in ('raise', 'skip'):
    raise ValueError(f"on_bad is {on_bad!r}: 'raise' or 'skip'.")
  readers = {'jsonl': _read_jsonl, 'text': _read_text, 'parquet': _read_parquet}
  reader = readers[file_format(path)](path, text_key)
  rejected = 0
  while True:
    try:
      item = next(reader, None)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
      raise BadDocument(f'{path}: broken file ({error}).') from error
    if item is None:
      break
    if isinstance(item, BadDocument):
      if on_bad == 'raise':
        raise item
      rejected += 1
    else:
      yield Document(item, rejected)
      rejected = 0
  if rejected:
    yield Document(None, rejected)


def _lines(path: str) -> Iterator[tuple[int, str | BadDocument]]:
  with fsspec.open(path, 'rb', compression='infer') as file:
    for number, line in enumerate(file, 1):
      try:
        yield number, line.decode('utf-8-sig' if number == 1 else 'utf-8')
      except UnicodeDecodeError as error:
        yield (
          number,
          BadDocument(
            f'{path}, line {number}: not UTF-8 '
            f'(byte {error.start} is 0x{error.object[error.start]:02x}).'
          ),
        )


def _read_jsonl(path: str, text_key: str) -> Iterator[str | BadDocument]:
  for number, line in _lines(path):
    if isinstance(line, BadDocument):
      yield line
    elif line.strip():
      try:
        yield _text_of(json.loads(line), text_key, f'{path}, line {number}')
      except (ValueError, RecursionError) as error:  # also a number of too many digits
        yield BadDocument(f'{path}, line {number}: not JSON ({error}).')


def _text_of(row: object, key: str, where: str) -> str | BadDocument:
  if not isinstance(row, dict):
    return BadDocument(f'{where}: a JSON {type(row).__name__}, not an object.')
  if key not in row:
    return BadDocument(f'{where}: no field {key!r}. Fields: {", ".join(map(repr, row)) or "none"}.')
  text = row[key]
  if not isinstance(text, str):
    return BadDocument(f'{where}: field {key!r} is a {type(text).__name__}, not text.')
  try:
    text.encode()
  except UnicodeEncodeError:  # JSON can spell a lone surrogate, which is no character
    return BadDocument(f'{where}: field {key!r} holds a lone surrogate.')
  return text


def _read_text(path: str, text_key: str) -> Iterator[str | BadDocument]:
  del text_key
  paragraph: list[str] = []
  for _, line in _lines(path):
    if isinstance(line, BadDocument):
      yield line
    elif line.strip():
      paragraph.append(line)
    elif paragraph:
      yield ''.join(paragraph).rstrip('\r\n')
      paragraph = []
  if paragraph:
    yield ''.join(paragraph).rstrip('\r\n')


def _read_parquet(path: str, text_key: str) -> Iterator[str | BadDocument]:
  import pyarrow.parquet  # slow to import, and seldom needed

  with fsspec.open(path, 'rb') as file:
    try:
      table = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
      raise BadDocument(f'{path}: no Parquet file ({error}).') from error
    if text_key not in table.schema_arrow.names:
      raise BadDocument(
        f'{path}: no column {text_key!r}. Columns: {", ".join(table.schema_arrow.names)}.'
      )
    number = 0
    for batch in table.iter_batches(columns=[text_key]):
      for row in batch.to_pylist():
        number += 1
        yield _text_of(row, text_key, f'{path}, row {number}')
