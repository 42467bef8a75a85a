"""What is in a damaged file, by counts that know nothing of the reader: `tools/fuzz_sources.py` compares.

Files made of lines are unpacked a byte at a time and split by plain Python, which gives the texts that
must come out, in order, and the number of lines that must be counted. Of rows and records the number
is known from the file, and what their texts can be from the sample.

Easy to get wrong: what a break hides. Where a packed file ends early all that was unpacked must have
been read; where it is damaged inside, the reader may notice a little sooner than a byte at a time does.
"""

import bz2
import contextlib
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from array_record.python import array_record_module


def check(
  path: Path,
  found: list[str],
  rejected: dict[str, Any],
  settings: dict[str, Any],
  known: set[str],
) -> None:
  """Compares what a reader found in a file, and counted, with what is there.

  Args:
    path: the file.
    found: the texts that were read.
    rejected: what was counted, as `Rejections.as_dict` has it.
    settings: of `Reading`; `max_document_bytes` is among them.
    known: the texts that the records of an ArrayRecord file were written from.

  Raises:
    AssertionError: they differ.
  """
  limit = settings['max_document_bytes']
  if path.suffix == '.array_record':
    _check_records(path, found, rejected, known)
  elif path.suffix == '.parquet':
    _check_rows(path, found, rejected, limit)
  else:
    data, whole, truncated = _unpack(path)
    broken = rejected['by_reason'].get('broken file', 0)
    assert broken == (not whole), 'a broken file is not said to be one, or a whole one is'
    if '.jsonl' in path.name:
      items = _json_items(data, whole, limit)
    else:
      items = _text_items(data, whole, settings.get('documents', 'paragraphs'), limit)
    texts = [text for text, _ in items if text is not None]
    assert found == texts[: len(found)], 'other texts'
    if whole or truncated:
      assert len(found) == len(texts), 'a text is missing'
      assert rejected['total'] - broken == sum(bad for _, bad in items), 'otherwise counted'


def _unpack(path: Path) -> tuple[bytes, bool, bool]:
  """Returns what a file unpacks to up to its break, whether it has none, and whether it is an end."""
  packed, out = path.read_bytes(), []
  make_stream = {
    '.gz': lambda: zlib.decompressobj(31), '.bz2': bz2.BZ2Decompressor,
    '.xz': lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    '.zst': lambda: zstandard.ZstdDecompressor().decompressobj(),
  }.get(path.suffix)  # fmt: skip
  if make_stream is None:
    return packed, True, False
  step = (256,) if path.suffix in ('.bz2', '.xz') else ()  # bytes: an error loses those of one call
  stream, started = None, False
  for at in range(len(packed)):
    if stream is None and started and not packed[at]:
      continue
    stream = stream or make_stream()
    started = True
    try:
      out.append(stream.decompress(packed[at : at + 1], *step))
      while step and not stream.eof and not stream.needs_input:
        out.append(stream.decompress(b'', *step))
    except Exception:
      return b''.join(out), False, False
    stream = None if stream.eof else stream
  whole = started and stream is None
  return b''.join(out), whole, not whole


def _numbered(data: bytes, whole: bool) -> Iterator[bytes]:
  lines = data.split(b'\n')
  last = lines.pop()
  for number, line in enumerate([*lines, last] if whole and last else lines):
    yield line[3:] if number == 0 and line.startswith(b'\xef\xbb\xbf') else line


def _blank(line: bytes) -> bool:
  return not line.decode(errors='replace').strip()


def _json_items(data: bytes, whole: bool, limit: int) -> list[tuple[str | None, int]]:
  items: list[tuple[str | None, int]] = []
  for line in _numbered(data, whole):
    if _blank(line):
      continue
    text = None
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
      text = json.loads(line.decode())['text']
      text.encode()
    good = isinstance(text, str) and len(line) <= limit and _is_text(text)
    items.append((text, 0) if good else (None, 1))
  return items


def _is_text(text: str) -> bool:
  return not any(0xD800 <= ord(c) < 0xE000 for c in text)


def _text_items(
  data: bytes, whole: bool, documents: str, limit: int
) -> list[tuple[str | None, int]]:
  lines = list(_numbered(data, whole))
  groups: list[list[bytes]] = [[]]
  for line in lines:
    if documents == 'file':
      if groups[0] or not _blank(line):
        groups[0].append(line)
    elif _blank(line):
      groups.append([])
    elif documents == 'line':
      groups.append([line])
    else:
      groups[-1].append(line)
  if not whole and (documents == 'file' or (lines and not _blank(lines[-1]))):
    groups = groups[:-1]  # the file breaks off in it
  items: list[tuple[str | None, int]] = []
  for group in filter(None, groups):
    if len(b'\n'.join(group)) > limit:
      items.append((None, 1))
      continue
    good = []
    for line in group:
      with contextlib.suppress(UnicodeDecodeError):
        good += [line.decode()] if b'\0' not in line else []
    text = '\n'.join(good).rstrip('\r\n')
    items.append((text if text.strip() else None, len(group) - len(good)))
  return items


def _check_rows(path: Path, found: list[str], rejected: dict[str, Any], limit: int) -> None:
  assert rejected['read'] == len(found) + rejected['total']
  try:
    meta = pq.read_metadata(path)
    names = pq.read_schema(path).names
  except (pa.ArrowException, OSError, ValueError):
    meta = None
  if meta is None:
    assert rejected['by_reason'] == {'broken file': 1}
    return
  groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
  if 'text' in names and min(groups, default=0) >= 0:
    assert rejected['read'] == sum(groups), 'a row is missing'
  if not any(reason.startswith('broken') for reason in rejected['by_reason']) and 'text' in names:
    values = pq.read_table(path, columns=['text'])['text'].cast(pa.binary()).to_pylist()
    kept = [v for v in values if v is not None and _decodes(v) and len(v) <= limit]
    assert [f.encode() for f in found] == kept, 'other rows'


def _decodes(value: bytes) -> bool:
  with contextlib.suppress(UnicodeDecodeError):
    return value.decode() is not None
  return False


def _check_records(path: Path, found: list[str], rejected: dict[str, Any], known: set[str]) -> None:
  assert all(text in known for text in found), 'a text that nobody wrote'
  assert rejected['read'] == len(found) + rejected['total']
  try:
    reader = array_record_module.ArrayRecordReader(str(path))
    total = reader.num_records() if reader.ok() else None
  except RuntimeError:
    total = None
  if total is None:
    assert rejected['by_reason'] == {'broken file': 1}
  else:
    assert rejected['read'] == total, 'a record is missing'
