"""What jaxlink knows of registered evaluation sets and SeqIO has no place for.

Filled by `register`; plain Python, so that it is read without TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxlink.evaluation import items as items_lib
from jaxlink.evaluation.items import EvaluationSet, Kind

Reader = Callable[[], Iterable[Mapping[str, Any]]]  # yields the fields of each item


@dataclasses.dataclass(frozen=True)
class RegisteredSet:
  """A set before its files are read: the attributes of `EvaluationSet`, and who yields its items."""

  items: Reader
  kind: Kind
  language: str
  version: int
  labels: tuple[str, ...]
  answer: str
  stop: tuple[str, ...]
  tokens: int
  licence: str
  source: str
  note: str


SETS: dict[str, RegisteredSet] = {}


def read(name: str) -> EvaluationSet:
  """Reads and checks the items of a registered set.

  Raises:
    BadItem: an item is not what its kind asks for.
    FileNotFoundError: its files are not there.
  """
  found = SETS[name]
  numbered = ({'id': str(number), **fields} for number, fields in enumerate(found.items()))
  return make(name, (items_lib.parse(name, found.kind, fields) for fields in numbered))


def make(name: str, items: Iterable[items_lib.Item]) -> EvaluationSet:
  """Makes a registered set of its items."""
  found = SETS[name]
  settings = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
  return EvaluationSet(**{**settings, 'name': name, 'items': tuple(items)})
