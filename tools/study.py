"""A study: runs that differ in one thing, for several seeds each, from one gin file.

  python tools/study.py gin/study_link.gin --dry_run          the grid, and what is done of it
  python tools/study.py gin/study_link.gin --jobs 2           trains it, two runs at a time
  python tools/study.py gin/study_link.gin --table            what came out so far; trains nothing

The same command goes on: what is finished is not run again, and what was stopped or killed continues from its last
checkpoint. Ctrl-C and SIGTERM stop all runs, which save first; a second one ends them at once. The first
seed of all settings is run before the second, so that a study that is cut short is balanced.

In: a recipe with a `Study` beside its `Run`. Out, in Study.directory: a run's directory for each setting and
seed (SETTING/seed-K, its output in log.txt), runs.csv with a row for each, study.jsonl with a line for each
start, and compare.html.

Runs side by side: on GPUs each gets its own, as many as there are (or --jobs); on a CPU --jobs shares the cores
out; elsewhere one run at a time has all.

Easy to get wrong: seed k is that of parameters, of order and of substitution, in every setting. So the settings
are paired: compare them seed by seed, and not the mean of one with the spread of the other.
"""

# ruff: noqa: E402
import argparse
import os
import sys


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('gin_file', help='the study, such as gin/study_link.gin')
  parser.add_argument(
    '--gin_bindings', action='append', default=[], metavar='BINDING',
    help="for all runs, such as 'Stage.tokens = 3_000_000'; a setting's own bindings win; repeatable",
  )  # fmt: skip
  parser.add_argument('--jobs', type=int, default=0, help='runs at a time (all GPUs, or 1)')
  parser.add_argument(
    '--only', nargs='+', metavar='SETTING', default=[],
    help='these settings (those of Study.chosen)',
  )  # fmt: skip
  parser.add_argument('--seeds', type=int, nargs='+', help='these seeds (Study.seeds)')
  parser.add_argument('--dry_run', action='store_true', help='print the grid and train nothing')
  parser.add_argument(
    '--table', action='store_true', help='write and print the tables, train nothing'
  )
  parser.add_argument('--one', metavar='SETTING', help=argparse.SUPPRESS)  # what a child is told
  parser.add_argument('--seed', type=int, help=argparse.SUPPRESS)
  parser.add_argument('--cores', type=int, nargs='+', help=argparse.SUPPRESS)
  parser.add_argument('--parent', type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.jobs < 0:
    parser.error(f'--jobs is {args.jobs}: it is 1 or more')
  return args


if __name__ == '__main__':
  ARGUMENTS = parse_arguments()  # before the imports below, which take seconds
  if ARGUMENTS.cores:
    os.sched_setaffinity(0, ARGUMENTS.cores)  # before JAX counts them

import contextlib
import csv
import dataclasses
import importlib.util
import itertools
import json
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tqdm

from jaxlink import config, run_directory
from jaxlink.config import configurable
from jaxlink.data import resolve
from jaxlink.evaluation.records import read_evaluations
from jaxlink.names import nearest
from jaxlink.stage import Run

_POLL_SECONDS = 2.0


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
    evaluations: sets on which `python -m jaxlink.evaluate` scores all checkpoints at the end.
    purpose: the question, in a line.
  """

  run: Run
  directory: str
  settings: dict[str, tuple[str, ...]]
  seeds: tuple[int, ...]
  baseline: str
  chosen: tuple[str, ...] = ()
  evaluations: tuple[str, ...] = ()
  purpose: str = ''

  def __post_init__(self):
    if not self.settings or not self.seeds:
      raise ValueError('Study.settings and Study.seeds: a study has one of each, or more.')
    if len(set(self.seeds)) < len(self.seeds):
      raise ValueError(f'Study.seeds is {self.seeds}: each is there once.')
    for field, names in (('baseline', [self.baseline]), ('chosen', self.chosen)):
      for name in names:
        _check_name(f'Study.{field}', name, self.settings)
    slugs: dict[str, str] = {}
    for name in self.settings:
      if not slug(name):
        raise ValueError(f'Study.settings: {name!r} has neither a letter nor a digit.')
      if slug(name) in slugs:
        raise ValueError(
          f'Study.settings: {name!r} and {slugs[slug(name)]!r} would share the folder {slug(name)!r}.'
        )
      slugs[slug(name)] = name


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
    return run_directory.complete(self.run, self.directory)

  @property
  def step(self) -> int:
    """Of the last checkpoint; 0 without one."""
    return run_directory.last_checkpoint(self.directory) or 0


def slug(name: str) -> str:
  """A setting's name as that of a folder: 'LINK 0.3' is 'link-0.3'."""
  return re.sub(r'[^\w.]+', '-', name).strip('-.').lower()


def _check_name(what: str, name: str, settings: Iterable[str]) -> None:
  if name not in settings:
    known = ', '.join(map(repr, settings))
    raise ValueError(f'{what}: no setting {name!r}.{nearest(name, settings)} Settings: {known}.')


def load(gin_file: str, bindings: Sequence[str] = ()) -> Study:
  """Reads a study; `run` in it has the study's directory, which no run trains in.

  Raises:
    ValueError, TypeError, SyntaxError, FileNotFoundError, ModuleNotFoundError: as `config.parse`.
  """
  return config.parse(Study, [gin_file], [*bindings, "Run.directory = 'study'"])


def make_arm(study: Study, gin_file: str, bindings: Sequence[str], setting: str, seed: int) -> Arm:
  """Returns the run of a setting and seed."""
  folder = os.path.join(study.directory, slug(setting), f'seed-{seed}')
  seeds = [f'Run.{name} = {seed}' for name in ('seed_init', 'seed_order', 'seed_link')]
  own = [*study.settings[setting], *seeds, f'Run.directory = {folder!r}']
  return Arm(setting, seed, config.parse(Study, [gin_file], [*bindings, *own]).run)


def make_grid(
  study: Study, gin_file: str, bindings: Sequence[str], only: Sequence[str] = (),
  seeds: Sequence[int] | None = None,
) -> list[Arm]:  # fmt: skip
  """Returns the runs in the order in which they are run: all settings of a seed, then the next seed.

  Raises:
    ValueError: there is no such setting, or two of them are the same run.
  """
  for name in only:
    _check_name('--only', name, study.settings)
  names = list(dict.fromkeys(only or study.chosen or study.settings))
  arms = [
    make_arm(study, gin_file, bindings, name, seed)
    for seed in dict.fromkeys(seeds or study.seeds)
    for name in names
  ]
  same: dict[str, str] = {}
  for arm in arms[: len(names)]:
    plain = config.resolved(dataclasses.replace(arm.run, directory='study'))
    if other := same.setdefault(json.dumps(plain), arm.setting) != arm.setting:
      other = same[json.dumps(plain)]
      raise ValueError(f'Study.settings: {arm.setting!r} and {other!r} are one and the same run.')
  return arms


# ── a run, in its own process ───────────────────────────────────────────────────


def train_one(arm: Arm, parent: int | None) -> int:
  """Trains a run as `python -m jaxlink.train` does, and returns its exit code."""
  from jaxlink import compile_cache
  from jaxlink.checkpoint import CheckpointError
  from jaxlink.stop import Terminated, terminable
  from jaxlink.train import SkippedTooMuch, train

  if parent:
    _stop_with(parent)
  try:
    with terminable():
      if arm.run.compile_cache:
        compile_cache.enable()
      return train(arm.run)
  except (KeyboardInterrupt, Terminated) as ended:
    print(f'{type(ended).__name__}: ended at once', file=sys.stderr)
    return 143 if isinstance(ended, Terminated) else 130
  except (ValueError, SkippedTooMuch, CheckpointError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1


def _stop_with(parent: int) -> None:
  """Stops this run, which saves, when the study's own process is gone, even if that was killed."""

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=watch, daemon=True).start()


# ── all runs ────────────────────────────────────────────────────────────────────


def places(jobs: int) -> list[dict[str, Any]]:
  """Where runs go that are trained side by side: 'cores' of each, or the 'gpus' that it sees.

  Args:
    jobs: how many; 0 is one to a GPU, or one.

  Raises:
    ValueError: there are fewer cores or GPUs.
  """
  gpus, cores = _gpus(), sorted(os.sched_getaffinity(0))
  kind, units = ('gpus', gpus) if gpus else ('cores', cores)
  jobs = jobs or (len(gpus) if gpus else 1)
  if jobs > len(units):
    raise ValueError(
      f'--jobs is {jobs}, and there are {len(units)} {kind} here: at most one run to each.'
    )
  cuts = [len(units) * k // jobs for k in range(jobs + 1)]
  return [{kind: units[a:b]} for a, b in itertools.pairwise(cuts)]


def _gpus() -> list[str]:
  if os.environ.get('JAX_PLATFORMS', '') == 'cpu':
    return []
  if (given := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
    return [gpu for gpu in given.split(',') if gpu]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, check=False)
  return [str(k) for k in range(listed.stdout.count('GPU '))]


class Runner:
  """Trains what is not finished of a grid, several runs at a time.

  Args:
    study: what is run.
    arms: in this order.
    command: of a child, to which setting, seed and place are added.
    where: from `places`.
  """

  def __init__(
    self, study: Study, arms: Sequence[Arm], command: Sequence[str], where: list[dict[str, Any]]
  ):
    self._arms, self._command, self._free = arms, list(command), list(where)
    self._log = pathlib.Path(study.directory) / 'study.jsonl'
    self._running: dict[subprocess.Popen, tuple[Arm, dict[str, Any], float]] = {}
    self._together = len(where)
    self.failed: list[Arm] = []
    self.signal: str = ''

  def run(self) -> None:
    """Runs all, or until a signal: then `signal` names it. A failed run does not end the others."""
    waiting = [arm for arm in self._arms if not arm.complete]
    whole = sum(_tokens(arm) for arm in self._arms)
    done = {arm.name: _tokens(arm) if arm.complete else 0 for arm in self._arms}
    done |= {arm.name: arm.run.tokens_at(arm.step) for arm in waiting}
    with _on_signals(self._stop), tqdm.tqdm(
      total=whole, initial=sum(done.values()), unit=' tokens', unit_scale=True, mininterval=1,
      smoothing=0.02,
    ) as bar:  # fmt: skip
      while (waiting and not self.signal) or self._running:
        while waiting and self._free and not self.signal:
          self._start(waiting.pop(0))
        time.sleep(_POLL_SECONDS)
        for child in list(self._running):
          arm = self._running[child][0]
          now = _trained_tokens(arm)
          bar.update(now - done[arm.name] if now > done[arm.name] else 0)
          done[arm.name] = max(now, done[arm.name])
          if child.poll() is not None:
            self._end(child)
        finished = sum(arm.complete for arm in self._arms)
        bar.set_description(f'{finished} of {len(self._arms)} runs', refresh=False)

  def _start(self, arm: Arm) -> None:
    place = self._free.pop(0)
    own = ['--one', arm.setting, '--seed', str(arm.seed), '--parent', str(os.getpid())]
    environment = dict(os.environ)
    if 'cores' in place:
      own += ['--cores', *map(str, place['cores'])]
    else:
      environment['CUDA_VISIBLE_DEVICES'] = ','.join(place['gpus'])
    arm.directory.mkdir(parents=True, exist_ok=True)
    with open(arm.directory / 'log.txt', 'ab') as log:
      # A group of its own: a terminal's Ctrl-C is ours to pass on, once.
      child = subprocess.Popen(
        [*self._command, *own], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        env=environment, start_new_session=True,
      )  # fmt: skip
    self._running[child] = (arm, place, time.time())
    tqdm.tqdm.write(f'{arm.name}: started at step {arm.step:,} of {arm.run.steps:,}')

  def _end(self, child: subprocess.Popen) -> None:
    arm, place, began = self._running.pop(child)
    self._free.append(place)
    line = {
      'setting': arm.setting, 'seed': arm.seed, 'began': round(began), 'seconds': round(time.time() - began, 1),
      'exit_code': child.returncode, 'step': arm.step, 'side_by_side': self._together, **place,
    }  # fmt: skip
    with open(self._log, 'a', encoding='utf-8') as file:
      file.write(json.dumps(line, ensure_ascii=False) + '\n')
    if child.returncode == 0:
      what = 'finished'
    elif self.signal:
      what = f'stopped at step {arm.step:,}'
    else:
      self.failed.append(arm)
      last = (arm.directory / 'log.txt').read_text(errors='replace').strip().splitlines()[-1:]
      what = f'failed (exit code {child.returncode}): {"".join(last)}; all of it: {arm.directory / "log.txt"}'
    tqdm.tqdm.write(f'{arm.name}: {what}, {line["seconds"]:,.0f} s')

  def _stop(self, name: str) -> None:
    self.signal = name
    tqdm.tqdm.write(f'{name}: {len(self._running)} runs save and stop')
    for child in self._running:
      child.terminate()


@contextlib.contextmanager
def _on_signals(stop: Any) -> Iterator[None]:
  chosen = (signal.SIGINT, signal.SIGTERM)
  before = [
    signal.signal(s, lambda number, frame: stop(signal.Signals(number).name)) for s in chosen
  ]
  try:
    yield
  finally:
    for number, handler in zip(chosen, before, strict=True):
      signal.signal(number, handler)


def _tokens(arm: Arm) -> int:
  return arm.run.tokens_at(arm.run.steps)


def _trained_tokens(arm: Arm) -> int:
  """By the end of the run's metrics; those of a run that begins again are a little ahead."""
  path = arm.directory / 'metrics.jsonl'
  if not path.exists():
    return 0
  with open(path, 'rb') as file:
    file.seek(max(0, path.stat().st_size - 8192))
    found = re.findall(rb'"trained_tokens": (\d+)', file.read())
  return int(found[-1]) if found else 0


def prepare(arms: Sequence[Arm]) -> None:
  """Caches the text of all settings, once, before runs that would all want to.

  Raises:
    DataError: it cannot be had.
  """
  seen = set()
  for arm in arms:
    request, folder = resolve.make_request(arm.run), arm.run.data.cache_dir
    if (key := resolve.kept_path(request, folder)) not in seen:
      seen.add(key)
      resolve.resolve(request, folder, processes=arm.run.data.build_processes)


# ── what came out ───────────────────────────────────────────────────────────────


def rows(study: Study, arms: Sequence[Arm]) -> list[dict[str, Any]]:
  """A row for each run, finished or not: its state, and of its last checkpoint and score the numbers.

  'repetitions/SOURCE' is of the whole run so far, 'replaced' the share of the words of all text that was
  read from sources under LINK, 'bits_per_byte/TEXT' the last score, 'seconds' the time of all starts.
  """
  seconds: dict[tuple[str, int], float] = {}
  log = pathlib.Path(study.directory) / 'study.jsonl'
  for line in log.read_text(encoding='utf-8').splitlines() if log.exists() else []:
    start = json.loads(line)
    key = start['setting'], start['seed']
    seconds[key] = seconds.get(key, 0.0) + start['seconds']
  return [_row(arm, seconds.get((arm.setting, arm.seed))) for arm in arms]


def _row(arm: Arm, seconds: float | None) -> dict[str, Any]:
  step, tokens = arm.step, arm.run.tokens_at(arm.step)
  status = 'finished' if arm.complete else 'stopped' if step else 'not begun'
  row = {
    'setting': arm.setting,
    'seed': arm.seed,
    'status': status,
    'steps': step,
    'tokens': tokens,
  }
  if step:
    path = arm.directory / 'checkpoints' / str(step) / 'meta' / 'metadata'
    meta = json.loads(path.read_text(encoding='utf-8'))
    for source, account in meta['accounts'].items():
      row[f'repetitions/{source}'] = round(account['all_repetitions'], 3)
    doses = [dose for stage in meta['counts'] for dose in stage.values()]
    words = sum(dose['words_seen'] for dose in doses)
    row['replaced'] = round(sum(d['replaced'] for d in doses) / words, 4) if words else 0.0
    record = read_evaluations(arm.directory).get(step, {})
    for text, score in record.get('bits_per_byte', {}).items():
      row[f'bits_per_byte/{text}'] = round(score, 4)
  if seconds:
    row |= {'seconds': seconds, 'tokens_per_second': round(tokens / seconds)}
  return row


def write_csv(path: pathlib.Path, table: Sequence[dict[str, Any]]) -> None:
  """Writes rows whose columns may differ; what a run does not have is empty."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, columns(table))
    writer.writeheader()
    writer.writerows(table)


def columns(table: Sequence[dict[str, Any]]) -> list[str]:
  """All columns, related ones side by side."""
  found = list(dict.fromkeys(name for row in table for name in row))
  groups = list(dict.fromkeys(name.split('/')[0] for name in found))
  return sorted(found, key=lambda name: groups.index(name.split('/')[0]))


def markdown(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
  """A table as Markdown: numbers to the right."""
  cells = [['' if cell is None else str(cell) for cell in line] for line in lines]
  right = [
    all(re.fullmatch(r'[-+±.,\d% ]*', line[k]) for line in cells) for k in range(len(header))
  ]
  rule = ['--:' if r else '---' for r in right]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in [list(header), rule, *cells])


def final_scores(study: Study, table: Sequence[dict[str, Any]]) -> str:
  """Mean and standard deviation of each setting's last scores, and the differences to the baseline by seed."""
  texts = [name for name in columns(table) if name.startswith('bits_per_byte/')]
  finished = [row for row in table if row['status'] == 'finished']
  lines = []
  for text in texts:
    found: dict[str, dict[int, float]] = {}
    for row in finished:
      if text in row:
        found.setdefault(row['setting'], {})[row['seed']] = row[text]
    base = found.get(study.baseline, {})
    for setting, scores in found.items():
      values = list(scores.values())
      spread = f'{statistics.stdev(values):.4f}' if len(values) > 1 else None
      paired = (
        [scores[s] - base[s] for s in scores if s in base] if setting != study.baseline else []
      )
      lines.append([
        text.split('/', 1)[1], setting, len(values), f'{statistics.mean(values):.4f}', spread,
        f'{statistics.mean(paired):+.4f}' if paired else None,
        ', '.join(f'{d:+.4f}' for d in paired) or None,
      ])  # fmt: skip
  header = [
    'text', 'setting', 'seeds', 'bits per byte, mean', 'standard deviation',
    f'less {study.baseline!r}, mean', 'of each seed',
  ]  # fmt: skip
  return markdown(header, lines)


def curves(arms: Sequence[Arm]) -> str:
  """Bits per byte of each text over trained tokens, the mean over the seeds that have got so far."""
  scores: dict[tuple[str, int], dict[str, list[float]]] = {}
  for arm in arms:
    for record in read_evaluations(arm.directory).values():
      for text, score in record['bits_per_byte'].items():
        at = scores.setdefault((text, record['trained_tokens']), {})
        at.setdefault(arm.setting, []).append(score)
  names = list(dict.fromkeys(arm.setting for arm in arms))
  lines = []
  for (text, tokens), by_name in sorted(scores.items()):
    cells = [by_name.get(name, []) for name in names]
    means = [f'{statistics.mean(c):.4f}' if c and None not in c else None for c in cells]
    lines.append([text, f'{tokens:,}', *means, max(map(len, cells))])
  return markdown(['text', 'tokens', *names, 'seeds'], lines)


def report(study: Study, arms: Sequence[Arm]) -> str:
  """Writes runs.csv and returns all tables as Markdown."""
  table = rows(study, arms)
  write_csv(pathlib.Path(study.directory) / 'runs.csv', table)
  names = columns(table)
  parts = [study.purpose, markdown(names, [[row.get(name) for name in names] for row in table])]
  if any(row['status'] == 'finished' for row in table):
    parts += [final_scores(study, table), curves(arms)]
  return '\n\n'.join(filter(None, parts))


def finish(study: Study, arms: Sequence[Arm]) -> int:
  """Scores and compares finished runs, each by its own command; returns the exit code of the last that failed."""
  code = 0
  finished = [arm for arm in arms if arm.complete]
  if study.evaluations:
    for arm in finished:
      code = (
        _call('evaluate', arm.run.directory, '--all_steps', '--sets', *study.evaluations) or code
      )
  page = os.path.join(study.directory, 'compare.html')
  folders = [arm.run.directory for arm in finished]
  if importlib.util.find_spec('jaxlink.compare') and len({arm.setting for arm in finished}) > 1:
    base = os.path.join(study.directory, slug(study.baseline))
    code = _call('compare', *folders, '--baseline', base, '--html', page) or code
  return code


def _call(module: str, *arguments: str) -> int:
  command = [sys.executable, '-m', f'jaxlink.{module}', *arguments]
  code = subprocess.run(command, check=False).returncode
  if code:
    print(f'error: {" ".join(command[1:])}: exit code {code}', file=sys.stderr)
  return code


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code; a person's mistakes are printed without traceback."""
  try:
    study = load(args.gin_file, args.gin_bindings)
    if args.one is not None:
      arm = make_arm(study, args.gin_file, args.gin_bindings, args.one, args.seed)
      return train_one(arm, args.parent)
    arms = make_grid(study, args.gin_file, args.gin_bindings, args.only, args.seeds)
    for arm in arms:
      run_directory.check_config(arm.run, arm.directory)
    if args.dry_run or args.table:
      print(report(study, arms))
      return 0
    where = places(args.jobs)
    print(f'{len(arms)} runs, {len(where)} at a time, in {study.directory}', flush=True)
    prepare(arms)
  except (ValueError, TypeError, SyntaxError, FileNotFoundError, ModuleNotFoundError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  command = [sys.executable, os.path.abspath(__file__), args.gin_file]
  command += [part for binding in args.gin_bindings for part in ('--gin_bindings', binding)]
  runner = Runner(study, arms, command, where)
  runner.run()
  print(report(study, arms))
  if runner.signal:
    left = sum(not arm.complete for arm in arms)
    print(f'{runner.signal}: {left} of {len(arms)} runs are left; the same command goes on.')
    return 128 + getattr(signal, runner.signal)
  return max(int(bool(runner.failed)), finish(study, arms))


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
