"""The child of `prepare`: reads SeqIO evaluation tasks and writes their items.

In, on stdin: {"names": […], "modules": […], "cache_dir": …}. Out, as the last line of stdout: what is kept.
Errors are one line on stderr, 'error: …', with exit code 1.

Easy to get wrong: what a set depends on. Its reader may open any file, so those that are opened while it is
read are noted by Python's audit events, and folders that it lists with them.
"""

import contextlib
import functools
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from typing import Any

from jaxlink import cache
from jaxlink.data import fingerprint, seqio_side
from jaxlink.evaluation import items as items_lib
from jaxlink.evaluation import prepare, reading

_NO_DATA = (
  *(os.path.realpath(sysconfig.get_path(k)) + os.sep for k in ('stdlib', 'purelib', 'platlib')),
  *('/proc/', '/sys/', '/dev/'),
)
_EVENTS = {
  'open': 'opened', reading.OPENED: 'opened', reading.SOUGHT: 'sought', 'os.listdir': 'listed',
  'os.scandir': 'listed',
}  # fmt: skip
_watching: list[bool] = []
_noted: set[tuple[str, str]] = set()


def prepare_sets(names: Sequence[str], modules: Sequence[str], cache_dir: str) -> dict[str, Any]:
  """Writes the sets that are not there yet as they would be read now, and keeps what they were made of.

  Returns:
    What is kept.

  Raises:
    ValueError: a name or module is unknown, or an item is not what its kind asks for.
    OSError: a file of a set is not there.
  """
  seqio_side.import_tensorflow()
  from jaxlink.evaluation import register, registry

  registered: dict[str, Any] = {}
  for module in modules:
    seqio_side.import_module(module)
    for name, one in registry.SETS.items():
      about = {'module': module, 'kind': one.kind, 'language': one.language, 'source': one.source}
      registered.setdefault(name, about)
  memory = os.path.join(cache_dir, 'hashes.json')
  os.makedirs(os.path.join(cache_dir, 'evaluation', 'kept'), exist_ok=True)
  sets: dict[str, Any] = {}
  for name in prepare.expand(names, registered):
    data, folder, missing = fingerprint.Inputs(memory), '', ''
    with _watched(data):
      try:
        found = register.read_task(name)
      except FileNotFoundError as error:
        if name in names:
          raise
        missing = str(error)  # of a pattern's sets those count whose files are there
      else:
        folder = f'{name}-{found.identity}'
        _write(found, os.path.join(cache_dir, 'evaluation', folder))
    sets[name] = {'folder': folder, 'missing': missing, 'data': _kept(data)}
    data.save()
  code = fingerprint.Inputs(memory)
  for file in cache.project_files(list(modules)):
    code.sha256(file)
  code.version('seqio')
  code.save()
  now = code.kept()
  path = prepare.kept_path(modules, cache_dir)
  with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
    before = json.loads(path.read_text(encoding='utf-8'))
    if before['format'] == prepare.FORMAT and fingerprint.difference(before['code']) is None:
      sets = {**before['sets'], **sets}
  kept = {'format': prepare.FORMAT, 'registered': registered, 'code': now, 'sets': sets}
  partial = path.with_suffix(f'.{os.getpid()}')
  partial.write_text(json.dumps(kept, indent=1), encoding='utf-8')
  partial.replace(path)
  return kept


def _kept(data: fingerprint.Inputs) -> dict[str, Any]:
  kept = data.kept()
  kept['environment'][reading.FOLDER] = os.environ.get(reading.FOLDER)
  return kept


def _write(found: items_lib.EvaluationSet, folder: str) -> None:
  """Writes a set in one rename; a folder of its identity is the set."""
  if os.path.isdir(folder):
    return
  partial = f'{folder}.{os.getpid()}.partial'
  items_lib.write(found, partial)
  try:
    os.rename(partial, folder)
  except OSError:  # another process was first
    shutil.rmtree(partial)
    if not os.path.isdir(folder):
      raise


@contextlib.contextmanager
def _watched(inputs: fingerprint.Inputs) -> Iterator[None]:
  """Gives `inputs` the files that are opened, and the folders that are listed, while the block runs."""
  _install_hook()
  _noted.clear()
  _watching.append(True)
  try:
    yield
  finally:
    _watching.clear()
  for event, path in sorted(_noted):
    if fingerprint.is_remote(path):
      inputs.sha256(path)
    elif not os.path.realpath(path).startswith(_NO_DATA):
      if event == 'sought':
        inputs.watch(path)
      elif event == 'listed':
        inputs.watch(os.path.join(path, '*'))
      elif os.path.isfile(path) and not path.endswith(('.py', '.pyc')):
        inputs.sha256(path)


@functools.cache
def _install_hook() -> None:
  sys.addaudithook(_note)  # for good: Python has no way to take one away


def _note(event: str, args: tuple[Any, ...]) -> None:
  if not _watching or event not in _EVENTS or not isinstance(args[0], str | os.PathLike):
    return
  writes = event == 'open' and isinstance(args[1], str) and not set('wax+').isdisjoint(args[1])
  if not writes:
    _noted.add((_EVENTS[event], os.fspath(args[0])))


def main() -> None:
  cache.end_with(int(sys.argv[1]))
  try:
    kept = prepare_sets(**json.load(sys.stdin))
  except (ValueError, TypeError, OSError) as error:
    sys.exit(f'error: {error}')
  print(json.dumps(kept))


if __name__ == '__main__':
  main()
