"""Configuration: frozen dataclasses with checked types, bound by gin, nothing bound in vain.

In: classes marked `@configurable`, gin files and bindings. Out: one frozen tree of configs
(`parse`), its plain form for the run directory (`resolved`) and what differs between two of those
(`differences`).

Easy to get wrong: gin binds only what it constructs. `Optimizer()` written in Python (also as a
field's default) is the plain class and sees no binding; `Run.optimizer = @Optimizer()` in a recipe
is the one that does. A binding that reaches nothing is therefore an error here: gin itself lets it
pass.

A recipe:

  include 'model/100m.gin'
  Run.stages = [@pretrain/Stage(), @anneal/Stage()]
  Stage.sequence_length = 2048          # all stages
  pretrain/Stage.tokens = 2_000_000     # one of them
"""

import dataclasses
import functools
import importlib
import inspect
import itertools
import json
import os
import pathlib
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import gin
from gin import config_parser
from jaxlink import fields
from jaxlink.names import nearest

T = TypeVar('T')


def configurable(cls: type[T]) -> type[T]:
  """Makes `cls` a frozen, keyword-only dataclass with checked fields, known to gin by its name.

  Every field is checked against its annotation whenever an instance is made, before the class's own
  `__post_init__`. An int is accepted for a float and stored as a float; a bool is not an int; a
  list is stored as a tuple where a tuple is declared, and the reverse. The class stays an ordinary
  one: it can be constructed in Python, replaced, compared, pickled and subclassed.

  Args:
    cls: a class with annotated fields, or a frozen dataclass.

  Returns:
    The class itself, not a wrapper.

  Raises:
    TypeError: `cls` is a dataclass that is not frozen.
  """
  if '__dataclass_fields__' not in vars(cls):
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
  elif not cls.__dataclass_params__.frozen:
    raise TypeError(f'{cls.__name__} is a dataclass that is not frozen: a config cannot change.')

  construct = cls.__init__

  @functools.wraps(construct)
  def checked(self, **given):
    construct(self, **fields.checked(cls, given))

  cls.__init__ = checked
  _makers[cls] = gin.external_configurable(_Maker(cls), name=cls.__name__, module=cls.__module__)
  return cls


def parse(root: type[T], gin_files: Sequence[str] = (), gin_bindings: Sequence[str] = ()) -> T:
  """Reads gin files and bindings and constructs `root` with everything that it refers to.

  Bindings come after the files and win over them. `include` takes a path relative to the folder of
  the including file, to one of that folder's parents, or to the working directory, in this order.
  A macro (`WIDTH = 512`, `%WIDTH`) holds within one file. Each call starts with nothing bound.

  Args:
    root: the configurable at the top, such as a run.
    gin_files: paths, read in order.
    gin_bindings: single bindings, such as 'pretrain/Stage.tokens = 2_000_000'.

  Returns:
    The `root` instance.

  Raises:
    FileNotFoundError: a file is not there; the nearest .gin files are named.
    SyntaxError: from gin, with file and line.
    ModuleNotFoundError: a recipe imports a module that is not there.
    TypeError: a value has the wrong type, or a required field has none.
    ValueError: an unknown configurable or field, a value out of range, or a binding that reaches
      nothing.
  """
  if isinstance(gin_files, str) or isinstance(gin_bindings, str):
    raise TypeError('parse: gin_files and gin_bindings are lists of strings, not one string.')
  if root not in _makers:
    raise TypeError(f'parse: {root!r} is not marked @configurable.')
  gin.clear_config()
  _binder.clear()
  try:
    for path in gin_files:
      _read_file(_find_file(path, [pathlib.Path()]))
    _read_statements('\n'.join(gin_bindings), None)
    made = _makers[root]()
    _check_all_used()
    return made
  finally:
    gin.clear_config()
    _binder.clear()


def resolved(config: Any) -> dict[str, Any]:
  """A config as nested plain dicts and lists, defaults filled in, fields in declared order.

  The key '@' holds a config's class name. JSON keeps it exactly: json.loads(json.dumps(r)) == r.

  Raises:
    TypeError: a field holds something that JSON cannot, named by its path.
  """
  if not dataclasses.is_dataclass(config) or isinstance(config, type):
    raise TypeError(f'resolved: {config!r} is not a config.')
  return _plain(config, type(config).__name__)


def differences(old: Any, new: Any) -> list[str]:
  """What differs between two resolved configs: 'stages[1].tokens: 2000000 → 3000000', …"""
  return list(_changes(old, new, ''))


# ── gin ─────────────────────────────────────────────────────────────────────────


class _Key(NamedTuple):
  """What a binding binds; `selector` is the whole one (module and class)."""

  scope: str
  selector: str
  field: str

  def __str__(self) -> str:
    return f'{self.scope}/'.lstrip('/') + f'{self.selector.rsplit(".", 1)[-1]}.{self.field}'


class _Binder:
  """What gin does not keep: where each binding stands, and which of them reached a config."""

  def clear(self) -> None:
    self.where: dict[_Key, str] = {}
    self.used: set[_Key] = set()
    self.scopes: dict[str, set[str]] = {}  # selector → scopes in which it was made
    self.macros: dict[str, str] = {}  # name → where it is bound
    self.macros_used: set[str] = set()
    self.open: list[pathlib.Path] = []  # files being read, outermost first


class _Maker:
  """What gin calls for `@Stage()`: the class, and a note of which bindings its values came from."""

  def __init__(self, cls: type):
    self.cls = cls
    self.__name__, self.__qualname__, self.__doc__ = cls.__name__, cls.__qualname__, cls.__doc__
    self.selector = f'{cls.__module__}.{cls.__name__}'
    # gin looks at it for its error messages, where `self` would count as an argument left out.
    self.__signature__ = inspect.signature(lambda **values: None)

  def __repr__(self) -> str:
    return self.selector

  def __call__(self, **values):
    parts = gin.current_scope()
    scopes = ['/'.join(parts[:n]) for n in range(len(parts), -1, -1)]  # innermost first
    _binder.scopes.setdefault(self.selector, set()).add(scopes[0])
    chosen = {}
    for name in values:
      keys = (_Key(scope, self.selector, name) for scope in scopes)
      chosen[name] = next(key for key in keys if key in _binder.where)
    _binder.used.update(chosen.values())
    try:
      return self.cls(**values)
    except (TypeError, ValueError) as error:
      named = re.match(rf'{self.cls.__name__}\.(\w+)', str(error))
      if named and named[1] in chosen:
        error.args = (f'{error}\n  Bound by {_binder.where[chosen[named[1]]]}.',)
      raise


class _Delegate(gin.config.ParserDelegate):
  """gin's own, with a note of the macros that a file uses, and nearest names for references."""

  def __init__(self):
    super().__init__()
    self.macros: set[str] = set()

  def configurable_reference(self, scoped_selector, evaluate):
    _known(scoped_selector.rsplit('/', 1)[-1])
    return super().configurable_reference(scoped_selector, evaluate)

  def macro(self, name):
    self.macros.add(name)
    return super().macro(name)


_makers: dict[type, Callable[[], Any]] = {}
_binder = _Binder()
_binder.clear()


def _find_file(name: str, folders: Sequence[pathlib.Path]) -> pathlib.Path:
  for folder in folders:
    if (folder / name).is_file():
      return folder / name
  near = {
    str(path.relative_to(folder))
    for folder in {(folder / name).parent for folder in folders}
    for path in folder.glob('*.gin')
  }
  looked = ', '.join(dict.fromkeys(str((folder / name).parent) for folder in folders))
  raise FileNotFoundError(
    f'no gin file {name!r} in {looked}.{nearest(pathlib.Path(name).name, near)}'
    + (f' There: {", ".join(sorted(near))}.' if near else ' No .gin file is there.')
  )


def _read_file(path: pathlib.Path) -> None:
  absolute = path.resolve()
  if absolute in _binder.open:
    raise ValueError(f'{path} includes itself: {" → ".join(map(str, [*_binder.open, absolute]))}.')
  _binder.open.append(absolute)
  with open(path, encoding='utf-8') as file:
    _read_statements(file, absolute)
  _binder.open.pop()


def _read_statements(source: Any, path: pathlib.Path | None) -> None:
  """Applies the statements of one file, or of the command line (`path` None)."""
  delegate = _Delegate()
  defined: set[str] = set(_binder.macros) if path is None else set()
  statements = config_parser.ConfigParser(source, delegate)
  while True:
    try:
      statement = statements.parse_statement()
    except tokenize.TokenError as error:
      place = f'{path}' if path else f'the bindings {source!r}'
      raise SyntaxError(
        f'{error.args[0]}: a bracket or a string is not closed.\n  In {place}.'
      ) from None
    except ValueError as error:  # an unknown name in a value: gin knows no place for it
      token = statements.current_token
      place = f'{path}:{token.start[0]}' if path else f'the binding {token.line.strip()!r}'
      raise ValueError(f'{error}\n  In {place}.') from None
    if statement is None:
      break
    with gin.config.utils.try_with_location(statement.location):
      _apply(statement, path, defined)
  for name in sorted(delegate.macros - defined):
    at = f'{path}' if path else 'the bindings'
    raise ValueError(
      f'%{name} is not bound in {at}: a macro holds within its file.{nearest(name, defined)}'
    )
  _binder.macros_used |= delegate.macros


def _apply(statement: Any, path: pathlib.Path | None, macros: set[str]) -> None:
  if isinstance(statement, config_parser.IncludeStatement):
    folders = [*(path.parents if path else ()), pathlib.Path()]
    _read_file(_find_file(statement.filename, folders))
    return
  if isinstance(statement, config_parser.ImportStatement):
    if statement.module.startswith('__'):
      raise ValueError(
        f'{statement.format()!r} is not allowed in a recipe: import a module by its name.'
      )
    importlib.import_module(statement.module)
    return
  if isinstance(statement, config_parser.BlockDeclaration):
    _known(statement.selector)
    return
  where = (
    f'{path}:{statement.location.line_num}'
    if path
    else f'the binding {statement.location.line_content.strip()!r}'
  )
  if not statement.arg_name:
    name = '/'.join(filter(None, (statement.scope, statement.selector)))
    gin.bind_parameter((name, 'gin.macro', 'value'), statement.value)
    _binder.macros[name] = where
    macros.add(name)
    return
  cls = _known(statement.selector)
  fields = [field.name for field in dataclasses.fields(cls) if field.init]
  if statement.arg_name not in fields:
    raise ValueError(
      f'{cls.__name__}.{statement.arg_name} is no field.{nearest(statement.arg_name, fields)}'
      f' Fields: {", ".join(fields)}.'
    )
  gin.bind_parameter((statement.scope, statement.selector, statement.arg_name), statement.value)
  key = _Key(statement.scope, f'{cls.__module__}.{cls.__name__}', statement.arg_name)
  _binder.where[key] = where


def _known(selector: str) -> type:
  """The class that a recipe's name means."""
  whole = {f'{cls.__module__}.{cls.__name__}': cls for cls in _makers}
  matches = [cls for name, cls in whole.items() if f'.{name}'.endswith(f'.{selector}')]
  if not matches:
    raise ValueError(
      f'no configurable {selector!r}.{nearest(selector, [cls.__name__ for cls in _makers])}'
    )
  if len(matches) > 1:
    names = ', '.join(name for name, cls in whole.items() if cls in matches)
    raise ValueError(f'{selector!r} means several configurables: {names}. Write one of them whole.')
  return matches[0]


def _check_all_used() -> None:
  """Raises one ValueError for all bindings that reached no config."""
  lines = []
  for key, where in _binder.where.items():
    if key in _binder.used:
      continue
    name = key.selector.rsplit('.', 1)[-1]
    scopes = _binder.scopes.get(key.selector, set())
    if not scopes:
      takers = [
        f', as in {cls.__name__}.{field} = @{name}()'
        for cls in _makers
        if f'{cls.__module__}.{cls.__name__}' in _binder.scopes
        for field, hint in fields.hints(cls).items()
        if name in re.findall(r'\w+', str(hint))
      ]
      why = f'nothing refers to @{name}(){"".join(takers[:1])}.'
    elif any(f'{scope}/'.startswith(f'{key.scope}/') or not key.scope for scope in scopes):
      why = f'every {name} takes {key.field} from a binding with a longer scope.'
    else:
      have = sorted(f'{scope}/{name}'.lstrip('/') for scope in scopes)
      why = (
        f'no @{key.scope}/{name}().{nearest(f"{key.scope}/{name}", have)} Made: {", ".join(have)}.'
      )
    lines.append(f'{key} ({where}) is bound in vain: {why}')
  for name, where in _binder.macros.items():
    if name not in _binder.macros_used:
      lines.append(
        f'{name} ({where}) is bound in vain: no value uses %{name}.{nearest(name, _binder.macros_used)}'
      )
  if lines:
    raise ValueError('\n'.join(lines))


# ── plain forms ─────────────────────────────────────────────────────────────────

_ABSENT = object()


def _plain(value: Any, path: str) -> Any:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = {
      f.name: _plain(getattr(value, f.name), f'{path}.{f.name}') for f in dataclasses.fields(value)
    }
    return {'@': type(value).__name__, **fields}
  if isinstance(value, (list, tuple)):
    return [_plain(item, f'{path}[{i}]') for i, item in enumerate(value)]
  if isinstance(value, dict) and all(isinstance(key, str) for key in value):
    return {key: _plain(item, f'{path}[{key!r}]') for key, item in value.items()}
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  raise TypeError(f'{path} is {value!r} ({type(value).__name__}): JSON cannot hold it.')


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    for key in [*old, *(key for key in new if key not in old)]:
      below = f'{path}.{key}' if path else key
      yield from _changes(old.get(key, _ABSENT), new.get(key, _ABSENT), below)
  elif isinstance(old, list) and isinstance(new, list):
    for i, (a, b) in enumerate(itertools.zip_longest(old, new, fillvalue=_ABSENT)):
      yield from _changes(a, b, f'{path}[{i}]')
  elif _text(old) != _text(new):
    yield f'{path}: {_text(old)} → {_text(new)}'


def _text(value: Any) -> str:
  return 'absent' if value is _ABSENT else json.dumps(value, ensure_ascii=False)
