"""From names to caches, without TensorFlow in the process that trains.

A *request* is plain JSON: task modules, stages with mixtures and LINK policies, the held-out split, the
cache's layout. A *resolution* answers it: for each stage its sources with the mixture's exact rates and
cache folders, the tasks to evaluate on, the tokenizer. SeqIO is needed to answer, so `resolve` asks a
short-lived child process (`python -m jaxlink.cache --request`), which also builds what is missing.

The answer is kept in the cache folder with all that it depends on (`fingerprint.Inputs`): the bytes
of text, tokenizer, lexicons and of the Python files of every project module that the child had
loaded, the files that glob patterns named, library versions, environment and working directory.
While none of it changes, the next start needs no child.

Easy to get wrong: trusting a kept answer. It is used only if all that is found again, and the
modules of the request are the very files that were imported: another project beside the same cache
folder may have modules of the same names. Where SeqIO is not installed (a training machine with a
copied cache) that cannot be checked, and it is said.
"""

import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from jaxlink.data import fingerprint

FORMAT = 4  # of a kept answer
# Modules of libraries that every answer depends on.
LIBRARIES = ('seqio', 'tensorflow', 'tensorflow_text', 'sentencepiece', 'tokenizers', 'regex')


class DataError(ValueError):
  """The data that a run asks for cannot be had; the child has said why."""


@dataclasses.dataclass(frozen=True)
class Source:
  """One source of a stage.

  Attributes:
    task: its name.
    language: of its text.
    rate: of the mixture, exactly; '' where it was not asked for.
    folder: of its cache.
    link: folder of its link table; '' without LINK, or where the cache itself is of rewritten text.
    counts: words of the whole source and what LINK can replace, if the policy needs them.
  """

  task: str
  language: str
  rate: str
  folder: str
  link: str = ''
  counts: dict[str, int] = dataclasses.field(default_factory=dict)

  def to_json(self, cache_dir: str) -> dict[str, Any]:
    """Plain JSON, with paths relative to the cache folder."""
    paths = {k: os.path.relpath(v, cache_dir) for k in _PATHS if (v := getattr(self, k))}
    return {**dataclasses.asdict(self), **paths}

  @classmethod
  def from_json(cls, entry: dict[str, Any], cache_dir: str) -> 'Source':
    """The reverse of `to_json`."""
    paths = {k: os.path.join(cache_dir, entry[k]) for k in _PATHS if entry.get(k)}
    return cls(**{**entry, **paths})


_PATHS = ('folder', 'link')


@dataclasses.dataclass(frozen=True)
class Resolution:
  """What a request came to."""

  stages: tuple[tuple[Source, ...], ...]
  evaluations: tuple[Source, ...]
  tokenizer: dict[str, Any]  # path, sha256, size, bos, eos


def make_request(run: Any) -> dict[str, Any]:
  """Returns the part of a `jaxlink.stage.Run` that its data depends on, as plain JSON.

  Rates that a recipe gives are not in it: the same caches serve all of them.
  """
  return {
    'modules': list(run.modules),
    'stages': [
      {
        'mixture': stage.mixture,
        'rates_needed': not stage.rates and stage.mixing.uses_rates,
        'link_route': stage.link_route,
        'link': {task: _ask_link(policy, stage.link_route) for task, policy in stage.link.items()},
      }
      for stage in run.stages
    ],
    'seed_link': run.seed_link if any(s.link_route == 'cache' for s in run.stages) else 0,
    'evaluation_split': run.evaluation.split,
    'shards': run.data.shards,
    'block': run.data.block,
  }


def _ask_link(policy: Any, route: str) -> dict[str, Any]:
  """What a source's data depends on of its policy.

  At load time that is the table: fractions, ratios and senses change nothing that has to be prepared.
  """
  fields = dataclasses.asdict(policy)
  if route == 'load':
    drawn = {'language_by', 'doc_fraction', 'word_ratio', 'senses', 'redraw', 'ratio_of'}
    counted = {'language_by', 'ratio_of'} if policy.ratio_of == 'all' else set()
    for name in drawn - counted:
      del fields[name]
  return fields


def kept_path(request: dict[str, Any], cache_dir: str) -> str:
  """Returns where the answer to a request is kept."""
  ordered = json.dumps(request)  # a digest forgets the order of keys, and that of languages counts
  return os.path.join(cache_dir, 'resolved', f'{fingerprint.digest(ordered)[:16]}.json')


def resolve(request: dict[str, Any], cache_dir: str, *, processes: int = 0) -> Resolution:
  """Answers a request, in a child process where there is no valid answer yet.

  Args:
    request: from `make_request`.
    cache_dir: folder of all caches.
    processes: that tokenise; 0 chooses.

  Raises:
    DataError: the child failed; its message has been printed.
  """
  path = kept_path(request, cache_dir)
  reason = stale(request, cache_dir)
  if reason is None:
    return read(path, cache_dir)
  if importlib.util.find_spec('seqio') is None:
    if missing := _missing(path, cache_dir):
      raise DataError(
        f'No prepared data in {cache_dir!r} ({missing}), and SeqIO is not installed here. '
        'Run `python -m jaxlink.cache` with the same --gin_file where it is, and copy the folder.'
      )
    print(f'data: taken as prepared; not verified, since SeqIO is not installed here ({reason})')
    return read(path, cache_dir)
  print(f'data: preparing ({reason})', flush=True)
  environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''}
  command = [sys.executable, '-m', 'jaxlink.cache', '--request', '-', '--cache_dir', cache_dir,
             '--processes', str(processes), '--parent', str(os.getpid())]  # fmt: skip
  child = subprocess.run(
    command, input=json.dumps(request), text=True, env=environment, check=False
  )
  if child.returncode:
    raise DataError(f'preparing the data failed (exit code {child.returncode}); see above.')
  return read(path, cache_dir)


def is_prepared(request: dict[str, Any], cache_dir: str) -> bool:
  """Whether `resolve` would answer without a child: by a valid answer, or where none can be made."""
  return stale(request, cache_dir) is None or importlib.util.find_spec('seqio') is None


def read(path: str, cache_dir: str) -> Resolution:
  """Reads a kept answer; its folders are relative to the cache folder."""
  with open(path, encoding='utf-8') as file:
    answer = json.load(file)['answer']

  def sources(entries: list[dict[str, Any]]) -> tuple[Source, ...]:
    return tuple(Source.from_json(entry, cache_dir) for entry in entries)

  tokenizer = answer['tokenizer']
  return Resolution(
    tuple(map(sources, answer['stages'])),
    sources(answer['evaluations']),
    {**tokenizer, 'path': os.path.join(cache_dir, tokenizer['path'])},
  )


def stale(request: dict[str, Any], cache_dir: str) -> str | None:
  """Returns why there is no kept answer that can be trusted, or None if there is one."""
  path = kept_path(request, cache_dir)
  if missing := _missing(path, cache_dir):
    return missing
  with open(path, encoding='utf-8') as file:
    kept = json.load(file)
  if kept.get('format') != FORMAT:
    return f'{path} was kept by another version of jaxlink'
  for module in request['modules']:
    if origin(module) not in kept['files']:
      return f'module {module} is not the file that was prepared'
  return fingerprint.difference(kept)


def origin(module: str) -> str | None:
  """Returns the file that a module would be imported from by the child; nothing is imported."""
  top, *rest = module.split('.')
  find = importlib.machinery.PathFinder.find_spec
  spec = find(top, [os.getcwd(), *sys.path]) or importlib.util.find_spec(top)
  folders = list(spec.submodule_search_locations or ()) if spec else []
  for part in rest:
    spec = find(part, folders)
    folders = [os.path.join(folder, part) for folder in folders]
  return os.path.abspath(spec.origin) if spec and spec.origin else None


def _missing(path: str, cache_dir: str) -> str | None:
  """Returns what is missing of a kept answer and its caches, or None."""
  try:
    with open(path, encoding='utf-8') as file:
      answer = json.load(file)['answer']
  except FileNotFoundError:
    return 'first time for this recipe'
  except json.JSONDecodeError:
    return f'{path} is torn'
  for entry in [s for stage in answer['stages'] for s in stage] + answer['evaluations']:
    if not os.path.isdir(os.path.join(cache_dir, entry['folder'])):
      return f'the cache {entry["folder"]} is gone'
    if entry.get('link') and not os.path.isfile(
      os.path.join(cache_dir, entry['link'], 'table.json')
    ):
      return f'the link table {entry["link"]} is gone'
  return None
