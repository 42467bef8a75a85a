"""What determines a cache, as a hash: data, tokenizer, preprocessors with their code and settings.

`describe` turns any object into plain JSON that changes when its meaning does:

  functions    normalised source (no comments, no layout, no docstrings), defaults, closure, and,
               recursively, what they use of other project code and of module constants, imported
               at the top of a module or in the function's body
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
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
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

import fsspec
import numpy as np

from jaxlink.data import sources

_LIBRARIES = tuple(
  os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ('stdlib', 'purelib', 'platlib')
)
_PROJECTS = ('jaxlink', 'tasks')  # never libraries, wherever they are installed
_ENVIRONMENT = ('JAXLINK_DATA', 'TFDS_DATA_DIR')  # that say where data lies

_PLAIN = (str, bytes, int, float, tuple, list, dict, set, frozenset, re.Pattern, np.ndarray)


class Inputs:
  """What something was made from: files, patterns that named them, versions of libraries.

  Hashes are remembered in `memory` (a JSON file) as long as size and time stay the same, so that a
  large corpus is read once. Remote files ('gs://…') are read through fsspec; whether one is the
  same file is what its file system's `checksum` says (of S3 the ETag, of others all of `info`).
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
    self.files: dict[str, list] = {}  # path: [size, mtime_ns or checksum, sha256]
    self._patterns: dict[str, list[str]] = {}
    self._packages: dict[str, str] = {}
    self._relative = False  # whether a path was given that depends on the working directory

  def sha256(self, path: str) -> str:
    """Returns the hash of a file's bytes."""
    path = self._absolute(path)
    status = file_status(path)
    known = self._known.get(path)
    if known is None or known[:2] != status:
      with fsspec.open(path, 'rb') if is_remote(path) else open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
      known = self._known[path] = [*status, digest]
    self.files[path] = known
    return known[2]

  def watch(self, pattern: str) -> None:
    """Notes a path or glob pattern with the files that it names now."""
    pattern = self._absolute(pattern)
    self._patterns[pattern] = _expand(pattern)

  def version(self, module: str) -> str:
    """Returns the distributions of a library's module with their versions, 'name==version'."""
    top = module.split('.')[0]
    if top in sys.stdlib_module_names:
      return 'python'
    found = {name: importlib.metadata.version(name) for name in _distributions().get(top, ())}
    self._packages.update(found)
    return ' '.join(f'{name}=={version}' for name, version in sorted(found.items()))

  def kept(self) -> dict[str, Any]:
    """Returns all of it as plain JSON, for `difference`."""
    return {
      'files': self.files,
      'patterns': self._patterns,
      'packages': self._packages,
      'environment': {name: os.environ.get(name) for name in _ENVIRONMENT},
      'folder': os.getcwd() if self._relative else None,
    }

  def save(self) -> None:
    """Writes the memory."""
    if self._memory:
      partial = f'{self._memory}.{os.getpid()}'
      with open(partial, 'w', encoding='utf-8') as file:
        json.dump(self._known, file)
      os.replace(partial, self._memory)

  def _absolute(self, path: str) -> str:
    if is_remote(path):
      return path
    self._relative |= not os.path.isabs(path)
    return os.path.abspath(path)


def difference(kept: dict[str, Any]) -> str | None:
  """Returns what is not as it was when `Inputs.kept` was called, in words, or None."""
  for name, version in kept['packages'].items():
    try:
      found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      return f'{name} is not installed'
    if found != version:
      return f'{name} has another version, {found}, not {version}'
  for name, value in kept['environment'].items():
    if os.environ.get(name) != value:
      return f'${name} is {os.environ.get(name)!r}, not {value!r}'
  if kept['folder'] not in (None, os.getcwd()):
    return f'paths were relative to {kept["folder"]}'
  for pattern, files in kept['patterns'].items():
    if _expand(pattern) != files:
      return f'{pattern} names other files'
  gone = changed(kept['files'])
  return f'{gone[0]} has changed' if gone else None


def changed(files: dict[str, list]) -> list[str]:
  """Returns the files, as `Inputs.files` has them, that are gone or hold other bytes now."""
  inputs = Inputs()
  inputs._known = {path: list(entry) for path, entry in files.items()}

  def same(path: str, sha256: str) -> bool:
    try:
      return inputs.sha256(path) == sha256
    except FileNotFoundError:
      return False

  return [path for path, entry in files.items() if not same(path, entry[2])]


def is_remote(path: str) -> bool:
  """Tells whether a path is a URL, for fsspec."""
  return '://' in path


def size(path: str) -> int:
  """Returns a file's bytes."""
  return file_status(path)[0]


def file_status(path: str) -> list:
  """Returns a file's size, and what tells that it is the same file: time of change or checksum."""
  if is_remote(path):
    filesystem, name = fsspec.core.url_to_fs(path)
    filesystem.invalidate_cache()
    return [filesystem.info(name)['size'], str(filesystem.checksum(name))]
  status = os.stat(path)
  return [status.st_size, status.st_mtime_ns]


def _expand(pattern: str) -> list[str]:
  try:
    return sources.expand(pattern)
  except FileNotFoundError:
    return []


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
      return ['module', value.__name__, self._inputs.version(value.__name__)]
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
      return ['library', *self._library_name(function), [self.describe(p) for p in parts]]
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
      self._imports(function, used),
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

  def _imports(self, function: types.FunctionType, used: set[str]) -> Any:
    """Describes what a function's body imports."""
    found = {}
    for target, names in sorted(_imported(function).items()):
      module = _load(target)
      if module is None or is_library(target):
        found[target] = self._inputs.version(target)
        continue
      for name in sorted(names):
        if not hasattr(module, name):
          _load(f'{target}.{name}')
      found[target] = self._globals(vars(module), used | names)
    return found

  def _library_name(self, value: Any) -> tuple[str, str, str]:
    module = value.__module__ or ''
    return module, getattr(value, '__qualname__', repr(value)), self._inputs.version(module)

  def _class(self, cls: type) -> Any:
    if is_library(cls.__module__):
      return ['library', *self._library_name(cls)]
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


def _imported(function: types.FunctionType) -> dict[str, set[str]]:
  """Returns the modules that a function's body imports, with the names taken from them."""
  scope = function.__globals__
  package = scope.get('__package__') or scope.get('__name__', '').rpartition('.')[0]
  found: dict[str, set[str]] = {}
  for code in _codes(function.__code__):
    before: list[Any] = [None, None]
    for step in dis.get_instructions(code):
      if step.opname == 'IMPORT_NAME':
        level, names = before
        target = importlib.util.resolve_name('.' * level + step.argval, package)
        found.setdefault(target, set()).update(names or ())
        if not names:  # `import package.module` binds the package
          found.setdefault(target.partition('.')[0], set())
      before = [before[1], step.argval]
  return found


def _load(module: str) -> types.ModuleType | None:
  """Returns a module, imported if it is a project's; None for a library's that is not loaded."""
  if module in sys.modules:
    return sys.modules[module]
  try:
    spec = importlib.util.find_spec(module.partition('.')[0])
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else [None]
    if any(
      p is None or os.path.realpath(p).startswith(_LIBRARIES) for p in places if p != 'frozen'
    ):
      return None
    return importlib.import_module(module)
  except ImportError:
    return None


def _is_filled(cell: types.CellType) -> bool:
  try:
    cell.cell_contents  # noqa: B018
  except ValueError:
    return False
  return True


def _source(value: Any) -> str:
  """Returns the source without comments, layout and docstrings, as far as it parses by itself."""
  try:
    text = textwrap.dedent(_text(value))
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
    tree = _parse(text)
  except SyntaxError:  # a lambda in the middle of a call
    return _bare(text)
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
      ast.get_docstring(node, clean=False) is not None
    ):
      node.body = node.body[1:] or [ast.Pass()]
  return ast.unparse(tree)


def _text(value: Any) -> str:
  try:
    return inspect.getsource(value)
  except SystemError:  # as in `_parse`: of a class, inspect parses the module
    return inspect.getsource(value)


def _parse(text: str) -> ast.Module:
  try:
    return ast.parse(text)
  except SystemError:  # CPython gh-106905: another thread, or a finalizer, parsed in between
    return ast.parse(text)


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
  top = module.split('.')[0]
  if top in _PROJECTS:
    return False
  file = getattr(sys.modules.get(module), '__file__', None)
  if file is None:
    return module != '__main__'
  # What lies among the libraries without belonging to one has no version to be known by.
  known = top in sys.stdlib_module_names or top in _distributions()
  return os.path.realpath(file).startswith(_LIBRARIES) and known


@functools.cache
def _distributions() -> dict[str, list[str]]:
  """Returns the distributions of each installed top-level module."""
  found = importlib.metadata.packages_distributions()
  return {top: sorted(set(names)) for top, names in found.items()}
