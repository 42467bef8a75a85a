"""The check of a config's fields against their annotations.

In: a dataclass and the values given. Out: a value for each field, as its annotation stores it: an int for a
float becomes one, a list for a tuple too. A misfit is an error that names class, field and value.

Easy to get wrong: a bool is an int to Python, and must not pass for one.
"""

import collections.abc
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union

import typeguard

from jaxlink.names import nearest


def checked(cls: type, given: dict[str, Any]) -> dict[str, Any]:
  """All init fields of `cls` with defaults filled in, each as its annotation stores it."""
  annotations = hints(cls)
  fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
  for name in given:
    if name not in fields:
      raise TypeError(f'{cls.__name__}.{name} is no field.{nearest(name, fields)}')
  values = {}
  for name, field in fields.items():
    if name in given:
      value = given[name]
    elif field.default is not dataclasses.MISSING:
      value = field.default
    elif field.default_factory is not dataclasses.MISSING:
      value = field.default_factory()
    else:
      raise TypeError(
        f'{cls.__name__}.{name} has no value and no default: it is {describe(annotations[name])}.'
      )
    values[name] = _fit(value, annotations[name], f'{cls.__name__}.{name}')
  return values


@functools.cache
def hints(cls: type) -> dict[str, Any]:
  """The annotations of a class's fields, resolved."""
  return typing.get_type_hints(cls)


def _fit(value: Any, hint: Any, path: str) -> Any:
  """`value` as `hint` stores it; raises TypeError, or ValueError for a choice that is none."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (Union, types.UnionType):
    if any(type(value) is arm for arm in args):
      return value
    for arm in args:
      try:
        return _fit(value, arm, path)
      except (TypeError, ValueError):
        continue
    # A choice is the likely aim of a string: its error names the nearest one.
    choices = [
      choice for arm in args if typing.get_origin(arm) is Literal for choice in typing.get_args(arm)
    ]
    raise _misfit(value, hint, path, choices)
  if origin is Literal:
    if not any(type(value) is type(choice) and value == choice for choice in args):
      raise _misfit(value, hint, path, args)
    return value
  if hint is float and type(value) is int:
    return float(value)
  if hint in (int, float) and isinstance(value, bool):
    raise _misfit(value, hint, path)
  if origin in (tuple, list) and isinstance(value, (tuple, list)):
    if origin is list or args[1:] == (...,):
      arms = args[:1] * len(value)
    elif len(args) == len(value):
      arms = args
    else:
      raise _misfit(value, hint, path)
    return origin(
      _fit(item, arm, f'{path}[{i}]') for i, (item, arm) in enumerate(zip(value, arms, strict=True))
    )
  if origin in (dict, collections.abc.Mapping) and isinstance(value, dict):
    return {
      _fit(key, args[0], f'{path}, the key {key!r},'): _fit(item, args[1], f'{path}[{key!r}]')
      for key, item in value.items()
    }
  try:
    typeguard.check_type(
      value, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS
    )
  except typeguard.TypeCheckError:
    raise _misfit(value, hint, path) from None
  return value


def _misfit(value: Any, hint: Any, path: str, choices: Sequence[Any] = ()) -> Exception:
  if callable(value) and hasattr(value, '__wrapped__'):
    name = getattr(value.__wrapped__, '__name__', '')
    return TypeError(f'{path} is @{name}, not called: write @{name}() for {describe(hint)}.')
  if any(type(value) is type(choice) for choice in choices):
    hit = nearest(value, choices) if isinstance(value, str) else ''
    return ValueError(f'{path} is {value!r}: it is {describe(hint)}.{hit}')
  return TypeError(f'{path} is {value!r} ({type(value).__name__}): it is {describe(hint)}.')


def describe(hint: Any) -> str:
  """An annotation in words: 'an int', 'a float or None', "one of 'cosine', 'constant'"."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is type(None):
    return 'None'
  if origin in (Union, types.UnionType):
    return ' or '.join(describe(arm) for arm in args)
  if origin is Literal:
    return f'one of {", ".join(map(repr, args))}'
  name = hint.__name__ if isinstance(hint, type) and not args else str(hint)
  name = re.sub(r'\b(?:\w+\.|<locals>\.)+(?=\w)', '', name)
  return f'{"an" if name[0].lower() in "aeiou" else "a"} {name}'
