"""Run directories as compare reads them, and which of them are seeds of one setting.

In: directories that `jaxlink.train` wrote, a folder of runs of one setting, or a study's folder
(STUDY/SETTING/RUN). Out: `Setting`s of `Run`s, each with its configuration, data and score curves. Nothing is
opened but JSON: no checkpoint, no cache but the manifest of held-out text, no JAX.

Easy to get wrong: what is one setting. Runs whose configurations are equal but for seeds, and for what may
change when a run goes on elsewhere (mesh, workers, checkpoints), are; a name given to them by the user
does not make them so.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxlink.comparing import records
from jaxlink.comparing.curves import Curve
from jaxlink.comparing.records import Score
from jaxlink.names import nearest


class Seeds(NamedTuple):
  """Of a run; arms of a study share the first two."""

  init: int
  order: int
  link: int


@dataclasses.dataclass(frozen=True)
class Source:
  """What a run read of a source.

  Attributes:
    task: its name.
    language: its code.
    fingerprint: of its tokenised text.
    table: name of the table by which LINK rewrites it at the time of loading; '' for none.
    linked: whether LINK rewrites it, by a table or before it was cached.
    unique: tokens that it has; None where the run did not record it.
    tokens: read of it so far.
    repetitions: the same in passes over it.
    dose: of LINK so far, by name: words, replaced, realised_all, realised_covered, inflation; {} without.
  """

  task: str
  language: str
  fingerprint: str
  table: str
  linked: bool
  unique: int | None
  tokens: float | None
  repetitions: float | None
  dose: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
  """One run directory.

  Attributes:
    directory: as given.
    config: the resolved configuration.
    seeds: three.
    tokenizer: SHA-256 of its tokenizer; '' where the run did not record it.
    sources: of training text, of all stages.
    curves: of each score.
    identities: set → what must be equal for its scores to be comparable.
    languages: set → its language; '' where it is not recorded.
    remarks: of sets, in words: items that were cut, or that the training text holds.
    starts: versions, git revision, mesh and device of each start.
    trained: tokens at the last evaluation or logged step.
    planned: tokens of all stages.
    notes: what is to be told of it.
  """

  directory: str
  config: Mapping[str, Any]
  seeds: Seeds
  tokenizer: str
  sources: tuple[Source, ...]
  curves: Mapping[Score, Curve]
  identities: Mapping[str, str]
  languages: Mapping[str, str]
  remarks: Mapping[str, str]
  starts: tuple[Mapping[str, Any], ...]
  trained: int
  planned: int
  notes: tuple[str, ...]

  @property
  def key(self) -> str:
    """Equal in runs that differ in seeds only: the configuration, and the text that it found."""
    text = [(s.task, s.fingerprint, s.table) for s in self.sources]
    return json.dumps([setting_of(self.config), text], sort_keys=True)

  @property
  def revisions(self) -> list[str]:
    """Of the code, in the order of the run's starts."""
    return list(dict.fromkeys(start['git'] for start in self.starts if start.get('git')))

  @property
  def devices(self) -> list[str]:
    """That it was trained on, in the order of its starts."""
    return list(dict.fromkeys(start['device'] for start in self.starts if start.get('device')))

  @property
  def versions(self) -> Mapping[str, str]:
    """Of libraries: name → versions, in the order of its starts."""
    found: dict[str, dict[str, None]] = {}
    for start in self.starts:
      for name, version in start.get('versions', {}).items():
        found.setdefault(name, {})[version] = None
    return {name: ', '.join(versions) for name, versions in found.items()}

  @property
  def seed(self) -> str:
    """Its seeds as they are told: one number where all are the same."""
    return str(self.seeds.init) if len(set(self.seeds)) == 1 else '/'.join(map(str, self.seeds))

  @property
  def name(self) -> str:
    """The last two parts of its path."""
    return '/'.join(pathlib.Path(os.path.abspath(self.directory)).parts[-2:])


@dataclasses.dataclass(frozen=True)
class Setting:
  """Runs that are meant to differ in seeds only, by their seeds."""

  name: str
  runs: tuple[Run, ...]

  @property
  def sources(self) -> tuple[Source, ...]:
    """Of its first run."""
    return self.runs[0].sources


def read_settings(arguments: Sequence[str]) -> list[Setting]:
  """Reads what the command names: `NAME=DIR,DIR` or `DIR`, where DIR is a run or a folder of runs.

  Raises:
    ValueError: there is no run, a run is named twice, or a name is given to two settings.
  """
  named: list[tuple[str, list[str]]] = []
  loose: list[tuple[str, str]] = []  # (setting's folder, directory)
  for argument in arguments:
    name, sign, rest = argument.partition('=')
    if sign and not os.path.isdir(argument):
      named.append((name, [d for part in rest.split(',') for _, d in _find(part)]))
    else:
      loose += _find(argument)
  settings = [(name, [read_run(d) for d in directories]) for name, directories in named]
  settings += _grouped([(folder, read_run(directory)) for folder, directory in loose])
  _check(settings)
  return [Setting(name, tuple(sorted(runs, key=lambda run: run.seeds))) for name, runs in settings]


def read_run(directory: str) -> Run:
  """Reads one run.

  Raises:
    ValueError: a record is broken, other than by a torn last line, or config.json is not that of a run.
  """
  folder = pathlib.Path(directory)
  config = records.read_json(folder / 'config.json')
  if not (isinstance(config, dict) and config.get('stages') and 'model' in config):
    raise ValueError(
      f'{folder / "config.json"} is no configuration of a run: it has no stages, or no model.'
    )
  kept = records.read_json(folder / 'stages.json') if (folder / 'stages.json').exists() else {}
  starts = records.read_lines(folder / 'starts.jsonl')
  last = records.last_step(folder / 'metrics.jsonl')
  found = records.read_scores(folder, config, kept)
  planned = sum(
    -(-s['tokens'] // (s['batch'] * s['sequence_length'])) * s['batch'] * s['sequence_length']
    for s in config['stages']
  )
  evaluated = [curve.tokens[-1] for curve in found.curves.values()]
  trained = int(max([last.get('trained_tokens', 0), *evaluated]))
  notes = list(found.notes)
  if trained < planned:
    notes.append(f'is not at its end: {trained:,} of {planned:,} tokens')
  if not kept:
    notes.append('has no stages.json: its tokenizer and text cannot be checked')
  return Run(
    directory, config, Seeds(*(config.get(f'seed_{n}', 0) for n in Seeds._fields)),
    kept.get('tokenizer', {}).get('sha256', ''), _sources(kept, last), found.curves, found.identities,
    found.languages, found.remarks, tuple(starts), trained, planned, tuple(notes),
  )  # fmt: skip


# ── configuration ───────────────────────────────────────────────────────────────

# What may change when a run goes on, or has no part in its scores. Held-out text, its split and the length
# of windows are compared as identities of sets.
_NO_PART = {
  'directory', 'mesh', 'data', 'checkpoint', 'evaluation', 'compile_cache', 'max_skipped',
  'wandb_project', 'modules',
}  # fmt: skip


def setting_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """A configuration without seeds and without what has no part in the result."""
  return {
    key: value for key, value in config.items()
    if key not in _NO_PART and not key.startswith('seed_')
  }  # fmt: skip


# ── which runs ──────────────────────────────────────────────────────────────────


_SEED = re.compile(r'seed[-_]?\d+')  # the name of a run in its setting's folder


def _find(path: str) -> list[tuple[str, str]]:
  """(folder of the setting, run directory) of all runs at a path; '' where the folder tells no setting."""
  folder = pathlib.Path(path)
  if (folder / 'config.json').is_file():
    beside = _SEED.fullmatch(pathlib.Path(os.path.abspath(path)).name)
    return [(os.path.dirname(os.path.abspath(path)) if beside else '', path)]
  if found := sorted(folder.glob('*/config.json'), key=_natural):
    return [pair for file in found for pair in _find(str(file.parent))]
  if found := sorted(folder.glob('*/*/config.json'), key=_natural):
    return [(os.path.abspath(file.parent.parent), str(file.parent)) for file in found]
  if folder.is_dir():
    raise ValueError(f'{path} holds no run: there is no config.json in it, nor in folders below.')
  near = nearest(folder.name, _beside(folder))
  raise ValueError(f'{path} is no directory.{near}')


def _beside(folder: pathlib.Path) -> list[str]:
  return [f.name for f in folder.parent.iterdir()] if folder.parent.is_dir() else []


def _natural(path: pathlib.Path) -> list[Any]:
  return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', str(path))]


def _grouped(loose: Sequence[tuple[str, Run]]) -> list[tuple[str, list[Run]]]:
  """Puts runs without a name into settings: by their folder in a study, else by what they are."""
  groups: dict[str, list[Run]] = {}
  for folder, run in loose:
    groups.setdefault(folder or run.key, []).append(run)
  names: dict[str, list[Run]] = {}
  for key, runs in groups.items():
    base = pathlib.Path(os.path.abspath(key)).name if not key.startswith('[') else _name(runs)  # fmt: skip
    name, count = base, 2
    while name in names:
      name, count = f'{base}-{count}', count + 1
    names[name] = runs
  return list(names.items())


def _name(runs: Sequence[Run]) -> str:
  """Of runs of one setting: their names without the seed, or the folder's."""
  path = pathlib.Path(os.path.abspath(runs[0].directory))
  stem = re.sub(r'[-_.]*(seed|s)?[-_.]*\d+$', '', path.name)
  return (path.name if len(runs) == 1 and stem else stem) or path.parent.name


def _check(settings: Sequence[tuple[str, Sequence[Run]]]) -> None:
  names = [name for name, _ in settings]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f'{name!r} is the name of two settings: give each its own, NAME=DIR,DIR.')
  seen: dict[str, str] = {}
  for name, runs in settings:
    if not name or not runs:
      raise ValueError(f'{name or "a setting without name"!r}: write NAME=DIR, or NAME=DIR,DIR.')
    for run in runs:
      path = os.path.realpath(run.directory)
      if path in seen:
        raise ValueError(f'{run.directory} is named twice, in {seen[path]!r} and {name!r}.')
      seen[path] = name
    by_seed: dict[Seeds, str] = {}
    for run in runs:
      if run.seeds in by_seed:
        raise ValueError(
          f'{by_seed[run.seeds]} and {run.directory} of {name!r} have the same seeds {tuple(run.seeds)}: one '
          'run done twice is no second seed. Leave one out, or give them two names.'
        )
      by_seed[run.seeds] = run.directory


# ── data ────────────────────────────────────────────────────────────────────────


def _sources(kept: Mapping[str, Any], last: Mapping[str, Any]) -> tuple[Source, ...]:
  """The training sources of all stages, with what the last logged step says of them."""
  found: dict[str, Source] = {}
  for stage in kept.get('stages', []):
    for entry in stage['sources']:
      task = entry['task']
      account = stage.get('account', {}).get(task, {})  # planned: holds for stages that have ended
      dose = {
        name: last[f'link/{task}/{name}']
        for name in ('words', 'replaced', 'realised_all', 'realised_covered', 'inflation')
        if f'link/{task}/{name}' in last
      }
      found[task] = Source(
        task,
        entry['language'],
        pathlib.PurePath(entry['folder']).name,
        entry['link'],
        bool(entry['link']) or task in stage['config'].get('link', {}),
        stage.get('tokens', {}).get(task),
        last.get(f'tokens/{task}', account.get('all_tokens')),
        last.get(f'repetitions/{task}', account.get('all_repetitions')),
        dose or (found[task].dose if task in found else {}),
      )
  return tuple(found.values())
