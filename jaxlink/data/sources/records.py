"""Documents of files made of records: the rows of Parquet, the records of ArrayRecord.

As for files made of lines, one function yields items and another decodes them.

Easy to get wrong: what a broken part of a file takes along. Row groups and records stand by
themselves, so those behind a broken one are read, and the lost ones are counted one by one.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import fsspec.implementations.local

from jaxlink.data.sources.lines import decode_json, decode_line, text_of, too_long
from jaxlink.data.sources.opening import Bad, Broken, opened, place

if TYPE_CHECKING:
  from jaxlink.data.sources import Reading

_BATCH = 1024  # rows decoded at a time


def parquet_rows(path: str, reading: 'Reading') -> Iterator[tuple[int, Any]]:
  """Yields the values of the text's column, and a `Bad` for what is lost of a row group."""
  import pyarrow as pa  # slow to import, and seldom needed
  import pyarrow.parquet as pq

  errors = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
  key = reading.text_key
  with opened(path) as file:
    try:
      table = pq.ParquetFile(file, page_checksum_verification=True)
      names = table.schema_arrow.names
      rows = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    except errors as error:
      raise Broken(f'no Parquet file: {_first_line(error)}') from error
    if key not in names:
      detail = f'no column {key!r}. Columns: {", ".join(names)}'
      yield 0, Bad('no field', 0, detail, max(1, sum(rows)))
      return
    number = 0
    for group, expected in enumerate(rows):
      last = number + max(0, expected)
      problem = f'it holds fewer than {expected:,} rows'
      try:
        for batch in table.iter_batches(_BATCH, row_groups=[group], columns=[key]):
          for value in batch.column(0):
            number += 1
            yield number, value
      except errors as error:
        if file.failure is not None:
          raise
        problem = _first_line(error)
      if number != last:
        detail = f'row group {group + 1} of {len(rows)} is broken ({problem})'
        yield number + 1, Bad('broken row group', number + 1, detail, max(1, last - number))
      number = max(number, last)


def decode_value(number: int, value: Any, reading: 'Reading') -> tuple[str | None, list[Bad]]:
  """Returns the text of a Parquet value, which is UTF-8, with a type that says so or not."""
  size = reading.max_document_bytes
  try:
    text = value.as_py()
  except UnicodeDecodeError:
    text = value.as_buffer().to_pybytes()
  if isinstance(text, bytes):
    return decode_line(number, text, reading)
  text = text_of({reading.text_key: text}, reading.text_key, number)
  if not isinstance(text, Bad) and len(text) * 4 > size and len(text.encode()) > size:
    text = too_long(number, 'document', size)
  return (None, [text]) if isinstance(text, Bad) else (text, [])


def array_records(path: str, reading: 'Reading') -> Iterator[tuple[int, bytes | Bad]]:
  """Yields the records of an ArrayRecord file, and a `Bad` for those of a broken chunk.

  A remote file is copied to this machine's folder for temporary files while it is read.

  Raises:
    ValueError: nobody said what the records are.
  """
  from array_record.python import array_record_module

  if reading.records is None:
    raise ValueError(
      f"{path}: say what its records are: records='text' (UTF-8), 'json' (objects) or 'example' "
      '(tf.train.Example, as TFDS writes).'
    )
  with _local(path) as name:
    at, total = 0, 1
    while at < total:  # once, and again after each broken chunk
      try:
        reader = array_record_module.ArrayRecordReader(name)
        if not reader.ok():
          reader.close()  # says what is wrong
        total = reader.num_records()
        reader.seek(at)
      except RuntimeError as error:
        raise Broken(f'no ArrayRecord file: {_first_line(error)}') from error
      try:
        while at < total:
          record = reader.read()
          at += 1
          yield at, record
      except RuntimeError as error:
        options = re.search(r'group_size:(\d+)', reader.writer_options_string())
        chunk = int(options[1]) if options else 1  # records; one checksum guards them together
        end = min(total, (at // chunk + 1) * chunk)
        detail = f'{end - at} records from here on are broken ({_first_line(error)})'
        yield at + 1, Bad('broken record', at + 1, detail, end - at)
        at = end
      else:
        reader.close()


def decode_record(number: int, record: bytes, reading: 'Reading') -> tuple[str | None, list[Bad]]:
  """Returns the text of an ArrayRecord record."""
  if len(record) > reading.max_document_bytes:
    return None, [too_long(number, 'record', reading.max_document_bytes)]
  if reading.records == 'json':
    return decode_json(number, record, reading)
  if reading.records == 'text':
    return decode_line(number, record, reading)
  import tensorflow as tf  # only where such records are read
  from google.protobuf.message import DecodeError

  try:
    features = tf.train.Example.FromString(record).features.feature
  except DecodeError as error:
    return None, [Bad('not an Example', number, f'not a tf.train.Example ({error})')]
  key = reading.text_key
  if key not in features:
    fields = ', '.join(map(repr, sorted(features))) or 'none'
    return None, [Bad('no field', number, f'no field {key!r}. Fields: {fields[:200]}')]
  values = features[key].bytes_list.value
  if len(values) != 1:
    return None, [Bad('not text', number, f'field {key!r} is not one string')]
  return decode_line(number, values[0], reading)


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
  """Yields the name of a file on this machine with a file's bytes."""
  filesystem, name = place(path)
  with opened(path) as file:
    if isinstance(filesystem, fsspec.implementations.local.LocalFileSystem):
      yield name
      return
    with tempfile.NamedTemporaryFile(suffix='.array_record') as copy:
      shutil.copyfileobj(file, copy)
      copy.flush()
      yield copy.name


def _first_line(error: BaseException) -> str:
  return (str(error) or type(error).__name__).split('\n')[0][:200].rstrip('.')
