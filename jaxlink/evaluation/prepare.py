"""Evaluation sets as folders of plain files, without TensorFlow in the process that has the model.

  folders = prepared(['xcopa_*', 'blimp'], modules=['tasks.xcopa', 'tasks.blimp'], cache_dir='cache')
  found = items.read(folders['blimp'])

What is missing is read from its SeqIO task by a short-lived child (`jaxlink.evaluation.preparing`) and
written to CACHE/evaluation/NAME-IDENTITY. Beside the folders, CACHE/evaluation/kept has for each list of
modules what they register, and what each set was made of (`fingerprint.Inputs`): the files that were opened
while it was read, and the Python files of the project. While none of it changes, no child is needed.

Easy to get wrong: trusting what lies there. Modules of the same names in another project are other modules.
Where SeqIO is not installed (a training machine with a copied cache) that cannot be checked, and it is said.
"""

import fnmatch
import glob
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlink.data import fingerprint, resolve
from jaxlink.data.resolve import DataError
from jaxlink.names import nearest

FORMAT = 1  # of what is kept
_SHOWN = 20  # names in an error


def prepared(names: Sequence[str], modules: Sequence[str], cache_dir: str) -> dict[str, str]:
  """Returns the folders of evaluation sets; those that are missing are written.

  Args:
    names: of sets, or patterns such as 'xcopa_*' and '*_tr'.
    modules: Python modules that register them, such as 'tasks.xcopa'.
    cache_dir: folder of all caches.

  Returns:
    Name → folder, which `items.read` reads, in the order of `names`; those of a pattern sorted, without
    those whose files are not there.

  Raises:
    DataError: a name or module is unknown, a file is missing, or an item is not what its kind asks for; or
      SeqIO is not installed and there is no such folder.
  """
  if not names:
    return {}
  reason = stale(names, modules, cache_dir)
  if reason is None:
    return _folders(names, _read(modules, cache_dir), cache_dir)
  if importlib.util.find_spec('seqio') is None:
    found = _as_they_are(names, modules, cache_dir)
    _say(f'taken as prepared; not verified, since SeqIO is not installed ({reason})')
    return found
  _say(f'preparing {", ".join(names)} ({reason})')
  return _folders(names, _ask_child(names, modules, cache_dir), cache_dir)


def listed(modules: Sequence[str], cache_dir: str) -> list[tuple[str, str, str, str]]:
  """Returns name, kind, language and source of the sets that modules register, by name.

  Raises:
    DataError: a module is unknown, or SeqIO is not installed and nothing is known of them.
  """
  kept = _read(modules, cache_dir)
  if stale([], modules, cache_dir) and importlib.util.find_spec('seqio') is not None:
    kept = _ask_child([], modules, cache_dir)
  if not kept:
    raise DataError(
      f'{", ".join(modules)}: what they register is not known in {cache_dir!r}, and SeqIO, which they need, '
      'is not installed here.'
    )
  return [
    (name, about['kind'], about['language'], about['source'])
    for name, about in sorted(kept['registered'].items())
  ]


def modules_here() -> list[str]:
  """Returns the modules of tasks/, in the working directory, that register evaluation sets.

  Raises:
    ValueError: there are none.
  """
  found = [
    f'tasks.{path.stem}'
    for path in sorted(pathlib.Path('tasks').glob('*.py'))
    if 'register_evaluation' in path.read_text(encoding='utf-8')
  ]
  if not found:
    raise ValueError(
      'no module in tasks/ registers an evaluation set: run the command in the folder that has tasks/, or '
      'name modules by --modules.'
    )
  return found


def _ask_child(names: Sequence[str], modules: Sequence[str], cache_dir: str) -> dict[str, Any]:
  """Has sets written, and returns what is kept from then on."""
  request = {'names': list(names), 'modules': list(modules), 'cache_dir': cache_dir}
  environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''}
  child = subprocess.run(
    [sys.executable, '-m', 'jaxlink.evaluation.preparing', str(os.getpid())],
    input=json.dumps(request), env=environment, text=True, capture_output=True, check=False,
  )  # fmt: skip
  if child.returncode:
    said = [line for line in child.stderr.splitlines() if line.startswith('error: ')]
    raise DataError(
      said[-1].removeprefix('error: ')
      if said
      else f'preparing evaluation sets failed (exit code {child.returncode}):\n{child.stderr}'
    )
  return json.loads(child.stdout.splitlines()[-1])


def stale(names: Sequence[str], modules: Sequence[str], cache_dir: str) -> str | None:
  """Returns why a child is needed, or None where all is there and as it was.

  Raises:
    DataError: a name is not among what the modules are known to register.
  """
  kept = _read(modules, cache_dir)
  if not kept:
    return 'first time for these modules'
  for module in modules:
    if resolve.origin(module) not in kept['code']['files']:
      return f'module {module} is not the file that was read'
  if reason := fingerprint.difference(kept['code']):
    return reason
  for name in expand(names, kept['registered']):
    entry = kept['sets'].get(name)
    if not entry or (entry['missing'] and name in names):
      return f'first time for {name}'
    if not entry['missing'] and not os.path.isdir(
      os.path.join(cache_dir, 'evaluation', entry['folder'])
    ):
      return f'{entry["folder"]} is gone'
    if reason := fingerprint.difference(entry['data']):
      return reason
  return None


def kept_path(modules: Sequence[str], cache_dir: str) -> pathlib.Path:
  """Returns where it is kept what a list of modules registers, and what their sets were made of."""
  name = fingerprint.digest(sorted(modules))[:16]
  return pathlib.Path(cache_dir, 'evaluation', 'kept', f'{name}.json')


def expand(names: Sequence[str], registered: Mapping[str, Mapping[str, str]]) -> list[str]:
  """Returns the sets that names and patterns name.

  Args:
    names: of sets, or patterns.
    registered: set → 'module' that registers it, and more.

  Raises:
    DataError: a name is not registered, or a pattern matches nothing.
  """
  found: list[str] = []
  for name in names:
    matching = [name] if name in registered else fnmatch.filter(sorted(registered), name)
    if not matching:
      close = nearest(name, registered)
      if close:
        close = close.removesuffix('.') + f' ({registered[close.split(chr(39))[1]]["module"]}).'
      known, modules = sorted(registered), [about['module'] for about in registered.values()]
      more = f', … ({len(known)} in all)' if len(known) > _SHOWN else ''
      raise DataError(
        f'no evaluation set {name!r} is registered.{close or _module_of(name)} Registered by '
        f'{", ".join(dict.fromkeys(modules)) or "the modules"}: '
        f'{", ".join(known[:_SHOWN]) or "none"}{more}.'
      )
    found += matching
  return list(dict.fromkeys(found))


def _module_of(name: str) -> str:
  """Says which module of tasks/ may register a set, by its name."""
  here = [path.stem for path in pathlib.Path('tasks').glob('[!_]*.py')]
  module = next((stem for stem in here if name.startswith(stem)), None)
  return f' Is tasks.{module} among the modules?' if module else ''


def _read(modules: Sequence[str], cache_dir: str) -> dict[str, Any]:
  """What is kept for a list of modules; empty if there is nothing of use."""
  try:
    kept = json.loads(kept_path(modules, cache_dir).read_text(encoding='utf-8'))
  except (FileNotFoundError, json.JSONDecodeError):
    return {}
  return kept if kept.get('format') == FORMAT else {}


def _folders(names: Sequence[str], kept: Mapping[str, Any], cache_dir: str) -> dict[str, str]:
  """The folders of sets; without those of a pattern whose files are not there, which is said."""
  sets = {name: kept['sets'][name] for name in expand(names, kept['registered'])}
  missing = {name: entry['missing'] for name, entry in sets.items() if entry['missing']}
  if missing and len(missing) == len(sets):
    raise DataError(next(iter(missing.values())))
  if missing:
    _say(f'without {", ".join(missing)}, whose files are not there')
  return {
    name: os.path.join(cache_dir, 'evaluation', entry['folder'])
    for name, entry in sets.items()
    if not entry['missing']
  }


def _as_they_are(names: Sequence[str], modules: Sequence[str], cache_dir: str) -> dict[str, str]:
  """The folders that are there: those that are kept for the modules, else the only one of a name."""
  kept = _read(modules, cache_dir)
  folders = {
    name: os.path.join(cache_dir, 'evaluation', entry['folder'])
    for name, entry in kept.get('sets', {}).items()
    if entry['folder']
  }
  there: dict[str, list[str]] = {}
  for folder in sorted(
    glob.glob(os.path.join(glob.escape(cache_dir), 'evaluation', '*', 'set.json'))
  ):
    folder = os.path.dirname(folder)
    about = json.loads(pathlib.Path(folder, 'set.json').read_text(encoding='utf-8'))
    there.setdefault(about['name'], []).append(folder)
  for name, found in there.items():
    if len(found) == 1 or not os.path.isdir(folders.get(name, '')):
      folders[name] = found[0] if len(found) == 1 else ''
  try:
    wanted = expand(names, {name: {'module': cache_dir} for name in folders})
  except DataError as error:
    raise DataError(
      f'{error} SeqIO, which would read it, is not installed here: prepare it where it is, and copy '
      f'{os.path.join(cache_dir, "evaluation")!r}.'
    ) from None
  if several := [name for name in wanted if not folders[name]]:
    raise DataError(
      f'{", ".join(there[several[0]])}: two folders of one set, and SeqIO, which would tell which one is '
      'meant, is not installed here. Remove one.'
    )
  return {name: folders[name] for name in wanted}


def _say(text: str) -> None:
  print(f'evaluation: {text}', file=sys.stderr, flush=True)  # stdout may be a command's JSON
