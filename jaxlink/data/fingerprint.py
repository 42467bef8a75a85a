"""What determines a cache, as a hash: data, tokenizer, preprocessors with their code and settings.

`describe` turns any object into plain JSON that changes when its meaning does:

  functions    normalised source (no comments, no layout, no docstrings), defaults, closure, and,
               recursively, what they use of other project code and of module constants
  classes      the same for their methods and bases; instances: class and attributes
  libraries    module, name and the distribution's version, not their source
  files        a string that names an existing file counts as that file's bytes, so that a lexicon's
               content matters and its path does not

Easy to get wrong: hashing a function's own source only. An edit two calls down changes the batches
just as well.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import io
import json
import os
import re
import sys
import sysconfig
import textwrap
import tokenize
import types
from typing import Any

import numpy as np

_LIBRARIES = tuple(
  os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ('stdlib', 'purelib', 'platlib')
)


_PLAIN = (str, bytes, int, float, tuple, list, dict, set, frozenset, re.Pattern, np.ndarray)


class Inputs:
  """Files that something was made from, each with its size, time of change and sha256.

  Hashes are remembered in `memory` (a JSON file) as long as size and time stay the same, so that a
  large corpus is read once.
  """

  def __init__(self, memory: str | None = None):
    self._memory = memory
    self._known: dict[str, list] = {}
    if memory and os.path.exists(memory):
      try:
        with open(memory, encoding='utf-8') as file:
          self._known = json.load(file)
      except json.JSONDecodeError:
        pass  # only a memory: what it held is computed again
    self.files: dict[str, list] = {}  # path: [size, mtime_ns, sha256]

  def sha256(self, path: str) -> str:
    """Returns the hash of a file's bytes."""
    path = os.path.abspath(path)
    status = os.stat(path)
    known = self._known.get(path)
    if known is None or known[:2] != [status.st_size, status.st_mtime_ns]:
      with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
      known = self._known[path] = [status.st_size, status.st_mtime_ns, digest]
    self.files[path] = known
    return known[2]

  def save(self) -> None:
    """Writes the memory."""
    if self._memory:
      partial = f'{self._memory}.{os.getpid()}'
      with open(partial, 'w', encoding='utf-8') as file:
        json.dump(self._known, file)
      os.replace(partial, self._memory)


def changed(files: dict[str, list]) -> list[str]:
  """Returns the files, as `Inputs.files` has them, that are gone or hold other bytes now."""
  inputs = Inputs()
  inputs._known = {path: list(entry) for path, entry in files.items()}
  return [
    path for path, entry in files.items()
    if not os.path.exists(path) or inputs.sha256(path) != entry[2]
  ]  # fmt: skip


def digest(description: Any) -> str:
  """Returns the sha256 of a plain JSON value."""
  return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def describe(value: Any, inputs: Inputs) -> Any:
  """Returns a plain JSON description of an object; see the module's docstring."""
  return _Describer(inputs).describe(value)


class _Describer:
  def __init__(self, inputs: Inputs):
    self._inputs = inputs
    self._seen: set[int] = set()
    self._keep: list[Any] = []  # so that ids stay unique

  def describe(self, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
      return value
    if isinstance(value, str):
      return self._text(value)
    if isinstance(value, bytes):
      return ['bytes', hashlib.sha256(value).hexdigest()]
    if isinstance(value, os.PathLike):
      return self._text(os.fspath(value))
    if isinstance(value, list | tuple):
      return [self.describe(v) for v in value]
    if isinstance(value, set | frozenset):
      return ['set', sorted(json.dumps(self.describe(v), sort_keys=True) for v in value)]
    if isinstance(value, dict):
      return {'dict': [[self.describe(k), self.describe(v)] for k, v in value.items()]}
    if id(value) in self._seen:
      return ['again', type(value).__name__, getattr(value, '__qualname__', '')]
    self._seen.add(id(value))
    self._keep.append(value)
    if isinstance(value, functools.partial):
      return ['partial', *map(self.describe, (value.func, list(value.args), value.keywords))]
    if isinstance(value, types.ModuleType):
      return ['module', value.__name__, _version(value.__name__)]
    if isinstance(value, re.Pattern):  # its repr is cut short
      return ['regex', value.pattern, value.flags]
    if isinstance(value, np.ndarray):
      return ['array', str(value.dtype), list(value.shape), self.describe(value.tobytes())]
    if isinstance(value, types.MethodType):
      return ['method', self.describe(value.__func__), self.describe(value.__self__)]
    if isinstance(value, types.FunctionType):
      return self._function(value)
    if isinstance(value, type):
      return self._class(value)
    if hasattr(value, '__wrapped__'):  # functools.cache
      return self.describe(value.__wrapped__)
    return self._instance(value)

  def _text(self, text: str) -> Any:
    if len(text) < 4096 and '\0' not in text and os.path.isfile(text):
      return ['file', self._inputs.sha256(text)]
    return text

  def _function(self, function: types.FunctionType) -> Any:
    if is_library(function.__module__):
      inner = inspect.unwrap(function)
      cells = [c.cell_contents for c in function.__closure__ or () if _is_filled(c)]
      ours = [c for c in cells if callable(c) and not is_library(getattr(c, '__module__', ''))]
      # A library's decorator (seqio.map_over_dataset) around our function: both count.
      parts = [inner, *ours] if inner is not function else ours
      return ['library', *_library_name(function), [self.describe(p) for p in parts]]
    used = {name for code in _codes(function.__code__) for name in code.co_names}
    texts = [c for code in _codes(function.__code__) for c in code.co_consts if isinstance(c, str)]
    return [
      'function',
      function.__qualname__,
      _source(function),
      self.describe(list(function.__defaults__ or ())),
      self.describe(function.__kwdefaults__ or {}),
      [self.describe(c.cell_contents) for c in function.__closure__ or () if _is_filled(c)],
      self._globals(function.__globals__, used),
      [file for file in map(self._text, texts) if not isinstance(file, str)],
      self.describe(inspect.unwrap(function)) if hasattr(function, '__wrapped__') else None,
    ]

  def _globals(self, scope: dict[str, Any], used: set[str]) -> Any:
    found = {}
    for name in sorted(used & scope.keys()):
      value = scope[name]
      if isinstance(value, types.ModuleType) and not is_library(value.__name__):
        # As `package.module.helper` goes down from here; a name is met once on each way.
        found[name] = self._globals(vars(value), used - {name})
      else:
        found[name] = self.describe(value)
    return found

  def _class(self, cls: type) -> Any:
    if is_library(cls.__module__):
      return ['library', *_library_name(cls)]
    members = []
    for name, member in vars(cls).items():
      if isinstance(member, staticmethod | classmethod):
        member = member.__func__
      if isinstance(member, property):
        members += [[name, self.describe(f)] for f in (member.fget, member.fset) if f]
      elif isinstance(member, types.FunctionType) or (
        not name.startswith('__') and (isinstance(member, _PLAIN) or hasattr(member, '__wrapped__'))
      ):
        members.append([name, self.describe(member)])
    bases = [self.describe(b) for b in cls.__bases__ if b is not object]
    return ['class', cls.__qualname__, _source(cls), bases, members]

  def _instance(self, value: Any) -> Any:
    cls = type(value)
    if hasattr(value, 'sha256'):  # a Lexicon, a tokenizer: known by its bytes
      return ['instance', self.describe(cls), value.sha256]
    if hasattr(value, '__fingerprint__'):
      return ['instance', self.describe(cls), self.describe(value.__fingerprint__())]
    if dataclasses.is_dataclass(value):
      state: Any = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif is_library(cls.__module__):
      state = _library_state(value)
    else:
      state = vars(value) if hasattr(value, '__dict__') else repr(value)
    return ['instance', self.describe(cls), self.describe(state)]


def _library_state(value: Any) -> Any:
  """Returns what tells two instances of a library's class apart: text, plain attributes, functions."""
  text = repr(value)
  kinds = (*_PLAIN, types.FunctionType, types.MethodType, functools.partial, type(None))
  attributes = {k: v for k, v in getattr(value, '__dict__', {}).items() if isinstance(v, kinds)}
  return [type(value).__name__ if ' at 0x' in text else text, attributes]


def _codes(code: types.CodeType) -> list[types.CodeType]:
  """Returns a function's code and that of the functions inside it."""
  inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
  return [code, *(found for i in inner for found in _codes(i))]


def _is_filled(cell: types.CellType) -> bool:
  try:
    cell.cell_contents  # noqa: B018
  except ValueError:
    return False
  return True


def _source(value: Any) -> str:
  """Returns the source without comments, layout and docstrings, as far as it parses by itself."""
  try:
    text = textwrap.dedent(inspect.getsource(value))
  except (OSError, TypeError):  # defined in a prompt or by exec: the code itself remains
    code = getattr(value, '__code__', None)
    if code is None:
      return value.__qualname__
    # Not the constants that are code themselves, whose text has an address: they come one by one.
    return repr([
      (c.co_code, c.co_names, [k for k in c.co_consts if not isinstance(k, types.CodeType)])
      for c in _codes(code)
    ])  # fmt: skip
  try:
    tree = ast.parse(text)
  except SyntaxError:  # a lambda in the middle of a call
    return _bare(text)
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
      ast.get_docstring(node, clean=False) is not None
    ):
      node.body = node.body[1:] or [ast.Pass()]
  return ast.unparse(tree)


def _bare(text: str) -> str:
  """Returns source that does not parse by itself without comments and layout."""
  layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
  found = []
  with contextlib.suppress(tokenize.TokenError, IndentationError):  # at the end of the excerpt
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
      if token.type not in layout:
        found.append(token.string)
  return ' '.join(found)


@functools.cache
def is_library(module: str | None) -> bool:
  """Tells whether a module is a library's: known by its version, not by its source."""
  if not module or module == 'builtins':
    return True
  if module.split('.')[0] == 'jaxlink':
    return False
  file = getattr(sys.modules.get(module), '__file__', None)
  if file is None:
    return module != '__main__'
  return os.path.realpath(file).startswith(_LIBRARIES)


def _library_name(value: Any) -> tuple[str, str, str]:
  module = value.__module__ or ''
  return module, getattr(value, '__qualname__', repr(value)), _version(module)


@functools.cache
def _version(module: str) -> str:
  top = module.split('.')[0]
  if top in sys.stdlib_module_names:
    return 'python'
  names = {'tensorflow_datasets': 'tensorflow-datasets'}
  try:
    return importlib.metadata.version(names.get(top, top))
  except importlib.metadata.PackageNotFoundError:
    return ''
