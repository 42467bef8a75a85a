"""A killed run goes on bit for bit: the real command, real signals."""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

STEPS = 240
BINDINGS = (f'Stage.tokens = {STEPS * 8 * 64}', 'CheckpointConfig.every_steps = 8',
            'EvaluationConfig.every_tokens = 61_440')  # fmt: skip
# What the clock decides; everything else in a line of metrics is a function of the step.
CLOCK = ('tokens_per_second', 'mfu', 'data_wait_seconds')


@pytest.fixture(scope='module')
def undisturbed(project) -> pathlib.Path:
  run = project.folder / 'undisturbed'
  project.train(run, *BINDINGS)
  return run


def test_twenty_kills_at_random_moments_five_of_them_inside_a_save_change_no_bit(
  project, undisturbed
):
  run = project.folder / 'killed'
  kills = inside_save = 0
  for seed in range(60):
    process = project.start(run, *BINDINGS)
    if kills >= 20 and inside_save >= 5:
      break
    # Half wait for a save's temporary directory, a quarter for a random moment of the loop, and a
    # quarter take any moment from the start of the process: imports, restore, compiling.
    wait = (_wait_for_any_moment, _wait_for_save, _wait_for_random_step, _wait_for_save)[seed % 4]
    in_save = wait(process, run, random.Random(seed))
    if process.poll() is not None:  # it was faster than the dice: complete, so begin anew
      assert process.returncode == 0, process.stdout.read()
      _assert_same(run, undisturbed)
      run = project.folder / f'killed{seed}'
      continue
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    kills += 1
    inside_save += in_save and _has_temporary(run)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  assert kills >= 20
  assert inside_save >= 5
  _assert_same(run, undisturbed)


@pytest.mark.parametrize(('number', 'times'), [(signal.SIGTERM, 6), (signal.SIGINT, 2)])
def test_a_signal_saves_says_how_to_go_on_and_changes_no_bit(project, undisturbed, number, times):
  run = project.folder / f'stopped{number}'
  for seed in range(times):
    process = project.start(run, *BINDINGS)
    _wait_for_random_step(process, run, random.Random(seed), most=10)
    before = _last_step(run)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, output
    assert 'The same command goes on' in output
    saved = max(int(p.name) for p in (run / 'checkpoints').iterdir() if p.name.isdigit())
    assert saved >= before
    assert _last_step(run) == saved  # metrics and checkpoint end at the same step
  project.train(run, *BINDINGS)
  _assert_same(run, undisturbed)


def test_a_second_start_of_a_complete_run_says_so_and_changes_nothing(project, undisturbed):
  before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob('*') if p.is_file()}
  output = project.train(undisturbed, *BINDINGS)
  assert f'complete: {STEPS} steps' in output
  assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob('*') if p.is_file()}


def _wait_for_random_step(
  process: subprocess.Popen, run: pathlib.Path, dice: random.Random, most: int = 24
) -> bool:
  start = _last_step(run)
  target = start + dice.randint(1, most)
  _wait(process, lambda: _last_step(run) >= target or _last_step(run) < start)
  time.sleep(dice.random() * 0.05)
  return False


def _wait_for_any_moment(process: subprocess.Popen, run: pathlib.Path, dice: random.Random) -> bool:
  del process, run
  time.sleep(dice.uniform(0.5, 4))
  return False


def _wait_for_save(process: subprocess.Popen, run: pathlib.Path, dice: random.Random) -> bool:
  # What a kill left behind is removed at the start; a temporary directory that is new is a save.
  old = _temporaries(run)
  _wait(process, lambda: _temporaries(run) - old)
  time.sleep(dice.random() * 0.02)
  return True


def _wait(process: subprocess.Popen, done) -> None:
  limit = time.monotonic() + 120
  while process.poll() is None and not done():
    assert time.monotonic() < limit, 'the run makes no progress'
    time.sleep(0.001)


def _temporaries(run: pathlib.Path) -> set[str]:
  try:
    return {p.name for p in (run / 'checkpoints').iterdir() if not p.name.isdigit()}
  except FileNotFoundError:
    return set()


def _has_temporary(run: pathlib.Path) -> bool:
  return bool(_temporaries(run))


def _last_step(run: pathlib.Path) -> int:
  try:
    lines = (run / 'metrics.jsonl').read_bytes().splitlines()
  except FileNotFoundError:
    return 0
  for line in reversed(lines):
    try:
      return json.loads(line)['step']
    except json.JSONDecodeError:
      continue
  return 0


def _lines(path: pathlib.Path) -> list[dict]:
  lines = [json.loads(line) for line in path.read_bytes().split(b'\n')[:-1]]
  return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


def _assert_same(run: pathlib.Path, other: pathlib.Path) -> None:
  assert _lines(run / 'metrics.jsonl') == _lines(other / 'metrics.jsonl')
  assert _lines(run / 'evaluations.jsonl') == _lines(other / 'evaluations.jsonl')
  left, right = (
    ocp.PyTreeCheckpointer().restore(r / 'checkpoints' / str(STEPS) / 'state') for r in (run, other)
  )
  _assert_equal(left, right)


def _assert_equal(left, right) -> None:
  if isinstance(left, dict):
    assert left.keys() == right.keys()
    for key in left:
      _assert_equal(left[key], right[key])
  elif isinstance(left, list | tuple):
    assert len(left) == len(right)
    for pair in zip(left, right, strict=True):
      _assert_equal(*pair)
  elif left is not None:
    np.testing.assert_array_equal(left, right)
