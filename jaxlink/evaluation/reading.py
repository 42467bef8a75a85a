"""Reading evaluation data: files as their publishers have them, and any JSONL.

  json_lines('my.jsonl', question='context', options='choices', answer='label')

gives a function that yields the fields of items, for `register.register_evaluation`. No TensorFlow.

Easy to get wrong: reading by other means than `open` of Python or this module. A set is prepared again when
a file has changed that was opened while it was read, which is noticed of these alone.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

import fsspec

from jaxlink.data import sources
from jaxlink.data.fingerprint import is_remote
from jaxlink.evaluation import items as items_lib
from jaxlink.names import nearest

# Audit events, beside Python's own for files that are opened: a remote file that is, and a place where a
# file is looked for.
OPENED, SOUGHT = 'jaxlink.evaluation.opened', 'jaxlink.evaluation.sought'
FOLDER = 'JAXLINK_EVALUATION'  # in the environment: where evaluation data lies
_FIELDS = {field.name for kind in items_lib.KINDS.values() for field in dataclasses.fields(kind)}
_FIELDS |= {'context'}


def folder(default: str | os.PathLike) -> pathlib.Path:
  """The folder of evaluation data: $JAXLINK_EVALUATION, or the default."""
  return pathlib.Path(os.environ.get(FOLDER) or default)


def find(directory: pathlib.Path, name: str, source: str) -> pathlib.Path:
  """Finds a file, as it is or packed by gzip.

  Args:
    directory: of evaluation data.
    name: its path in there.
    source: the public repository that has it.

  Raises:
    FileNotFoundError: it is not there; file, folder and repository are named.
  """
  path = directory / name
  for there in (path, path.with_name(path.name + '.gz')):
    sys.audit(SOUGHT, str(there))
    if there.is_file():
      return there
  beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
  raise FileNotFoundError(
    f'No file {name!r} in {str(directory)!r}.{nearest(path.name, beside)} It is published at {source}; '
    f'${FOLDER} names the folder that evaluation data lies in.'
  )


def lines(path: str | os.PathLike) -> list[str]:
  """Returns the lines of a text file, packed or not, without their ends.

  A byte order mark is no part of the text; only '\\n' ends a line, for text may hold other such signs.
  """
  with _opened(os.fspath(path)) as file:
    found = file.read().removeprefix('\ufeff').split('\n')
  return found[:-1] if found[-1] == '' else found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
  """Opens a text file, local or remote, packed or not."""
  if is_remote(path):
    sys.audit(OPENED, path)
  else:
    sources.expand(path)  # an error that names the nearest file
  with fsspec.open(path, 'rb', compression='infer') as raw:
    yield io.TextIOWrapper(raw, encoding='utf-8', newline='')


def json_lines(path: str | os.PathLike, **columns: str) -> Callable[[], Iterator[dict[str, Any]]]:
  """Makes items of a JSONL file, whatever its columns are called.

  Args:
    path: the file, local or remote, packed or not.
    **columns: column of the file → field of the item; other columns are passed over but 'id' and
      'group'. Without any, the file's columns are the fields.

  Of a 'choice' item, options may be a list of texts, or {'text': […], 'label': […]}; the label may be the
  number of the right one from 0, its letter ('B'), its entry of 'label', or its text.

  Raises:
    ValueError: a field is unknown. When read: BadItem for a line that makes no item.
  """
  for column, field in columns.items():
    if field not in _FIELDS:
      raise ValueError(
        f'json_lines({column}={field!r}): items have no such field.{nearest(field, _FIELDS)}'
      )
  return functools.partial(_read_json_lines, os.fspath(path), columns)


def _read_json_lines(path: str, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
  for number, line in enumerate(lines(path), 1):
    if not line.strip():
      continue
    where = f'{path}, line {number}'
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise items_lib.BadItem(f'{where}: not JSON ({error}).') from None
    if not isinstance(row, dict):
      raise items_lib.BadItem(f'{where}: {row!r} is not an object.')
    for column, field in columns.items():
      if column not in row:
        raise items_lib.BadItem(
          f'{where}: no column {column!r}, which is to be {field!r}.{nearest(column, row)}'
        )
    fields = {'id': number} | {c: row[c] for c in row if not columns or c in ('id', 'group')}
    fields |= {field: row[column] for column, field in columns.items()}
    if isinstance(fields['id'], int):
      fields['id'] = str(fields['id'])
    yield _with_label(where, fields)


def _with_label(where: str, fields: dict[str, Any]) -> dict[str, Any]:
  """Takes options and label as they are usually written."""
  choices, label = fields.get('choices'), fields.get('label')
  names: list[str] = []
  if isinstance(choices, dict):
    names, choices = list(choices.get('label', ())), list(choices.get('text', ()))
    fields['choices'] = choices
  if not isinstance(label, str) or not isinstance(choices, list):
    return fields
  letters = [chr(ord('A') + k) for k in range(len(choices))]
  for known in (names, choices, letters):
    if known.count(label) == 1:
      return {**fields, 'label': known.index(label)}
  raise items_lib.BadItem(
    f'{where}: label is {label!r}: it is the number of a choice from 0, its letter or its text.'
  )


def table(
  path: str | os.PathLike, delimiter: str = '\t', header: Iterable[str] = ()
) -> Iterator[dict[str, str]]:
  """Yields the rows of a table without quoting, as publishers of evaluation data write them.

  Args:
    path: the file, packed or not.
    delimiter: between columns.
    header: names of the columns, where the first line is not.

  Raises:
    BadItem: a line has another number of columns.
  """
  found = ((number, line.removesuffix('\r')) for number, line in enumerate(lines(path), 1))
  names = list(header) or next(found)[1].split(delimiter)
  for number, line in found:
    values = line.split(delimiter)
    if len(values) != len(names):
      raise items_lib.BadItem(
        f'{path}, line {number}: {len(values)} columns, and it has {len(names)}: {names}.'
      )
    yield dict(zip(names, values, strict=True))
