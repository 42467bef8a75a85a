"""A study: runs that differ in one thing, for several seeds each, from one gin file.

  python tools/study.py gin/study_link.gin --dry_run          the grid, and what is done of it
  python tools/study.py gin/study_link.gin --jobs 2           trains it, two runs at a time
  python tools/study.py gin/study_link.gin --table            what came out so far; trains nothing

The same command goes on: what is finished is not run again, and what was stopped or killed continues from its last
checkpoint. Ctrl-C and SIGTERM stop all runs, which save first; a second Ctrl-C ends them at once. All settings
of the first seed are run before the second seed, so that a study that is cut short is balanced.

In: a recipe with a `Study` (tools/study_grid.py) beside its `Run`. Out, in Study.directory: a run's directory for
each setting and seed (SETTING/seed-K, with its output in log.txt), runs.csv with a row for each, study.jsonl with a
line for each start, compare.html and compare.json.

Runs side by side: on GPUs each has its own, as many as there are (or --jobs); on a CPU --jobs shares the cores
out; without it, and on TPUs, one run at a time has all.

Easy to get wrong: seed k is that of parameters, of order and of substitution, in every setting. So the settings
are paired: compare them seed by seed, not one's mean with the other's spread.
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
    help="for all runs, such as 'Stage.tokens = 3_000_000'; a setting's own win over it; repeatable",
  )  # fmt: skip
  parser.add_argument('--jobs', type=int, default=0, help='runs at a time (one to a GPU, or one)')
  parser.add_argument(
    '--only', nargs='+', metavar='SETTING', default=[], help='train these settings (Study.chosen)'
  )
  parser.add_argument(
    '--seeds', type=int, nargs='+', default=[], help='train these seeds (Study.seeds)'
  )
  parser.add_argument('--dry_run', action='store_true', help='print the grid, write nothing')
  parser.add_argument('--table', action='store_true', help='print the tables, train nothing')
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
  # This checkout, in place of its tools/, for what is imported here and by children.
  sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import functools
import signal
import subprocess
from collections.abc import Callable, Sequence

from jaxlink.stop import Terminated, terminable
from tools import study_runner, study_tables
from tools.study_grid import Arm, Study, add_recorded, load, make_arm, make_grid


def finish(study: Study, arms: Sequence[Arm]) -> int:
  """Judges and compares what is finished; returns the exit code of a command that failed, or 0."""
  finished: dict[str, list[Arm]] = {}
  for arm in arms:
    if arm.complete:
      finished.setdefault(arm.setting, []).append(arm)
  code = 0
  if study.evaluations and finished:
    folders = [arm.run.directory for group in finished.values() for arm in group]
    how = ['--limit', str(study.evaluation_items), '--cache_dir', study.run.data.cache_dir]
    how += ['--all_steps'] if study.evaluate_all_steps else []
    code = _call('evaluate', *folders, '--sets', *study.evaluations, *how)
  if study.baseline in finished and len(finished) > 1:
    named = [f'{s}={",".join(a.run.directory for a in group)}' for s, group in finished.items()]
    pages = [
      f'--{kind}={os.path.join(study.directory, f"compare.{kind}")}' for kind in ('html', 'json')
    ]
    differs = ['--differs', ','.join(study.differs)] if study.differs else []
    code = _call('compare', *named, '--baseline', study.baseline, *differs, *pages) or code
  return code


def _call(module: str, *arguments: str) -> int:
  command = [sys.executable, '-m', f'jaxlink.{module}', *arguments]
  path = os.pathsep.join(filter(None, [sys.path[0], os.environ.get('PYTHONPATH')]))
  done = subprocess.run(command, env={**os.environ, 'PYTHONPATH': path}, check=False)
  if done.returncode:
    print(f'error: python -m jaxlink.{module}: exit code {done.returncode}', file=sys.stderr)
  return done.returncode


def run_study(args: argparse.Namespace) -> int:
  """Does what the command asks.

  Raises:
    ValueError, SyntaxError, FileNotFoundError, ModuleNotFoundError: a person's mistake.
  """
  study = load(args.gin_file, args.gin_bindings)
  if args.one is not None:
    arm = make_arm(study, args.gin_file, args.gin_bindings, args.one, args.seed)
    return study_runner.train_one(arm, args.parent)
  arms = make_grid(study, args.gin_file, args.gin_bindings, args.only, args.seeds)
  if args.dry_run:
    print(study_tables.plan(study, arms))
    return 0
  # --only and --seeds say what is trained; what is told and compared is all that there is.
  every = functools.partial(add_recorded, study, args.gin_file, args.gin_bindings, arms)
  if args.table:
    print(study_tables.report(study, every()))
    return 0
  with study_runner.claim(study.directory):
    return _train(args, study, arms, every)


def _train(
  args: argparse.Namespace, study: Study, arms: Sequence[Arm], every: Callable[[], list[Arm]]
) -> int:
  where = study_runner.places(args.jobs)
  print(f'{len(arms)} runs, {len(where)} at a time, in {study.directory}', flush=True)
  study_runner.prepare(arms)
  command = [sys.executable, os.path.abspath(__file__), args.gin_file]
  command += [part for binding in args.gin_bindings for part in ('--gin_bindings', binding)]
  runner = study_runner.Runner(study.directory, arms, command, where)
  runner.run()
  print(study_tables.report(study, every()), flush=True)
  if runner.signal:
    left = sum(not arm.complete for arm in arms)
    print(f'{runner.signal}: {left} of {len(arms)} runs are left; the same command goes on.')
    return 128 + getattr(signal, runner.signal)
  if runner.failed:
    names = '; '.join(arm.name for arm in runner.failed)
    print(f'error: {len(runner.failed)} runs failed: {names}', file=sys.stderr)
  return finish(study, every()) or int(bool(runner.failed))


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code; a person's mistakes are printed without traceback."""
  try:
    with terminable():
      return run_study(args)
  except (KeyboardInterrupt, Terminated) as ended:
    name, code = ('SIGTERM', 143) if isinstance(ended, Terminated) else ('SIGINT', 130)
    print(f'{name}: ended at once; the same command goes on', file=sys.stderr)
    return code
  except (ValueError, SyntaxError, FileNotFoundError, ModuleNotFoundError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
