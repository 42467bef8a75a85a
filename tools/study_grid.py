"""The grid of a study: what its gin file says, and the run of each setting and seed.

In: a recipe with a `Study` beside its `Run`. Out: `Arm`s in the order in which they are run.

Easy to get wrong: the file is read anew for each arm, with the setting's bindings after its own and those of the
command, so that the setting wins. What differs between two arms is in `Study.settings` and nowhere else.
"""

import dataclasses
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence

from jaxlink import config, run_directory
from jaxlink.config import configurable
from jaxlink.names import nearest
from jaxlink.stage import Run


@configurable
class Study:
  """A grid of runs: settings × seeds.

  Attributes:
    run: what all runs have in common; by itself a whole recipe.
    directory: of the study; runs are below it.
    settings: name → the bindings that make it differ from `run`.
    seeds: k is Run.seed_init, seed_order and seed_link.
    baseline: the setting that others are compared with.
    chosen: settings that are run where the command names none; () for all.
    differs: what is meant to differ, for `python -m jaxlink.compare --differs`; () warns of nothing.
    evaluations: sets, or patterns, by which `python -m jaxlink.evaluate` judges finished runs at the end.
    evaluation_items: so many items of each of them; 0 for all.
    evaluate_all_steps: judge each checkpoint that was kept, not the last one alone.
    purpose: the question, in a line.
  """

  run: Run
  directory: str
  settings: dict[str, tuple[str, ...]]
  seeds: tuple[int, ...]
  baseline: str
  chosen: tuple[str, ...] = ()
  differs: tuple[str, ...] = ()
  evaluations: tuple[str, ...] = ()
  evaluation_items: int = 0
  evaluate_all_steps: bool = False
  purpose: str = ''

  def __post_init__(self):
    if not self.settings or not self.seeds:
      field = 'seeds' if self.settings else 'settings'
      raise ValueError(f'Study.{field} is empty: a study has one or more.')
    if len(set(self.seeds)) < len(self.seeds):
      raise ValueError(f'Study.seeds is {self.seeds}: each is there once.')
    if self.evaluation_items < 0:
      raise ValueError(f'Study.evaluation_items is {self.evaluation_items}: it is 0 or more.')
    check_names('Study.baseline', [self.baseline], self.settings)
    check_names('Study.chosen', self.chosen, self.settings)
    folders: dict[str, str] = {}
    for name in self.settings:
      if not slug(name) or '=' in name:
        raise ValueError(
          f"Study.settings: {name!r} is no name: it has a letter or a digit, and no '='."
        )
      if slug(name) in folders:
        raise ValueError(
          f'Study.settings: {name!r} and {folders[slug(name)]!r} would share the folder {slug(name)!r}.'
        )
      folders[slug(name)] = name


@dataclasses.dataclass(frozen=True)
class Arm:
  """One run of a study."""

  setting: str
  seed: int
  run: Run

  @property
  def directory(self) -> pathlib.Path:
    return pathlib.Path(self.run.directory)

  @property
  def name(self) -> str:
    return f'{self.setting}, seed {self.seed}'

  @property
  def complete(self) -> bool:
    """Whether it is trained, evaluated and saved to its last step."""
    return run_directory.complete(self.run, self.directory)

  @property
  def step(self) -> int:
    """Of the last checkpoint; 0 without one."""
    return run_directory.last_checkpoint(self.directory) or 0

  @property
  def tokens(self) -> int:
    """That it will have been trained on."""
    return self.run.tokens_at(self.run.steps)


def slug(name: str) -> str:
  """A setting's name as that of a folder: 'LINK 0.3' is 'link-0.3'."""
  return re.sub(r'[^\w.]+', '-', name).strip('-.').lower()


def check_names(what: str, names: Iterable[str], settings: Iterable[str]) -> None:
  """Raises ValueError for a name that is none of the settings'."""
  for name in names:
    if name not in settings:
      known = ', '.join(map(repr, settings))
      raise ValueError(f'{what}: no setting {name!r}.{nearest(name, settings)} Settings: {known}.')


def load(gin_file: str, bindings: Sequence[str] = ()) -> Study:
  """Reads a study. Its `run` is none of the grid's: it has no setting, and no directory of its own.

  Raises:
    ValueError, SyntaxError, FileNotFoundError, ModuleNotFoundError: as `config.parse`; a wrong type is a
      ValueError, too.
  """
  return _parse(gin_file, [*bindings, "Run.directory = 'study'"])


def make_arm(study: Study, gin_file: str, bindings: Sequence[str], setting: str, seed: int) -> Arm:
  """Returns the run of a setting and seed.

  Raises:
    ValueError, SyntaxError: there is no such setting, or its bindings are wrong.
  """
  check_names('--only', [setting], study.settings)
  folder = os.path.join(study.directory, slug(setting), f'seed-{seed}')
  seeds = [f'Run.{name} = {seed}' for name in ('seed_init', 'seed_order', 'seed_link')]
  own = [*study.settings[setting], *seeds, f'Run.directory = {folder!r}']
  try:
    return Arm(setting, seed, _parse(gin_file, [*bindings, *own]).run)
  except ValueError as error:
    raise ValueError(f'Study.settings, {setting!r}: {error}') from error


def _parse(gin_file: str, bindings: Sequence[str]) -> Study:
  try:
    return config.parse(Study, [gin_file], bindings)
  except TypeError as error:  # a setting of a wrong type
    raise ValueError(error) from error


def make_grid(
  study: Study, gin_file: str, bindings: Sequence[str] = (), only: Sequence[str] = (),
  seeds: Sequence[int] = (),
) -> list[Arm]:  # fmt: skip
  """Returns the runs in the order in which they are run: all settings of a seed, then the next seed.

  Args:
    study: from `load`.
    gin_file: of the study.
    bindings: of the command, the same that `load` was given.
    only: settings; () for those of the study.
    seeds: () for those of the study.

  Raises:
    ValueError: there is no such setting, two settings are the same run, or a directory holds another one.
  """
  check_names('--only', only, study.settings)
  names = list(dict.fromkeys(only or study.chosen or study.settings))
  arms = [
    make_arm(study, gin_file, bindings, name, seed)
    for seed in dict.fromkeys(seeds or study.seeds)
    for name in names
  ]
  known: dict[str, str] = {}
  for arm in arms[: len(names)]:
    plain = json.dumps(config.resolved(dataclasses.replace(arm.run, directory='study')))
    if (other := known.setdefault(plain, arm.setting)) != arm.setting:
      raise ValueError(f'Study.settings: {other!r} and {arm.setting!r} are one and the same run.')
  for arm in arms:
    run_directory.check_config(arm.run, arm.directory)
  return arms


def add_recorded(
  study: Study, gin_file: str, bindings: Sequence[str], arms: Sequence[Arm]
) -> list[Arm]:
  """Returns the arms, and all other runs of the study that its directory holds, in the order of the grid.

  A directory that holds another run than the study now says is named and left out.
  """
  found = {(arm.seed, arm.setting): arm for arm in arms}
  for setting in study.settings:
    for path in pathlib.Path(study.directory, slug(setting)).glob('seed-*/config.json'):
      number = path.parent.name.removeprefix('seed-')
      if not number.isdigit() or (int(number), setting) in found:
        continue
      arm = make_arm(study, gin_file, bindings, setting, int(number))
      try:
        run_directory.check_config(arm.run, arm.directory)
      except ValueError as error:
        print(f'{arm.name}, is left out: {error}', file=sys.stderr)
        continue
      found[arm.seed, setting] = arm
  settings = list(study.settings)
  return sorted(found.values(), key=lambda arm: (arm.seed, settings.index(arm.setting)))
