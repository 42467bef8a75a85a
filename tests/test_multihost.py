"""Several processes of one run, with real signals: equal training, agreed stops, plain ends, other numbers of hosts."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from jaxlink import distributed, run_directory
from tests.ports import free_port

STEPS = 96
QUIET = ("EvaluationConfig.split = ''", 'EvaluationConfig.prompts = ()')
LONG = (f'Stage.tokens = {STEPS * 8 * 64}', 'CheckpointConfig.every_steps = 8', *QUIET)
GOES_ON = 'and the same command goes on there'

# The training command, where a silence counts sooner than for a user.
COMMAND = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
from jaxlink import distributed
distributed.SILENT_SECONDS = 15.0
sys.argv[0] = 'train'
runpy.run_module('jaxlink.train', run_name='__main__', alter_sys=True)
"""


@dataclasses.dataclass
class Hosts:
  """Processes of one run on this machine."""

  processes: list[subprocess.Popen]
  outputs: list[pathlib.Path]

  def said(self, index: int) -> str:
    return self.outputs[index].read_text()

  def wait_until(self, done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 300
    while not done():
      assert time.monotonic() < limit, self.everything()
      assert all(p.poll() is None for p in self.processes), self.everything()
      time.sleep(0.005)

  def codes(self, *but: int, seconds: float = 300) -> list[int]:
    """The exit codes of all but some, which end within these seconds."""
    limit = time.monotonic() + seconds
    try:
      return [
        p.wait(max(0.1, limit - time.monotonic()))
        for index, p in enumerate(self.processes)
        if index not in but
      ]
    except subprocess.TimeoutExpired:
      raise AssertionError(self.everything()) from None

  def everything(self) -> str:
    return '\n'.join(f'── {i}: {p.poll()}\n{self.said(i)}' for i, p in enumerate(self.processes))


@pytest.fixture
def start(project, tmp_path):
  """Starts processes of a run; whatever becomes of the test, none of them stays."""
  started: list[Hosts] = []

  def start(
    run: pathlib.Path, count: int, *bindings: str, of_one: Sequence[Sequence[str]] = (),
    folders: Sequence[pathlib.Path] = (), devices: int = 1,
  ) -> Hosts:  # fmt: skip
    port = free_port()
    hosts = Hosts([], [])
    started.append(hosts)
    for index in range(count):
      _, _, _, *rest = project.command(
        run, *bindings, *(of_one[index] if of_one else ()),
        arguments=[f'--coordinator_address=localhost:{port}', f'--num_processes={count}',
                   f'--process_id={index}'],
      )  # fmt: skip
      hosts.outputs.append(tmp_path / f'output{len(started)}.{index}')
      with open(hosts.outputs[-1], 'w') as file:
        hosts.processes.append(
          subprocess.Popen(
            [sys.executable, '-c', COMMAND, *rest], env=project.environment(devices),
            cwd=folders[index] if folders else project.folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
          )
        )  # fmt: skip
    return hosts

  yield start
  for process in itertools.chain.from_iterable(hosts.processes for hosts in started):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)  # stopped or not, with its children
    process.wait(30)


def _lines(run: pathlib.Path) -> list[dict]:
  if not (run / 'metrics.jsonl').exists():
    return []
  whole = (run / 'metrics.jsonl').read_text().split('\n')[:-1]
  return [line for line in map(json.loads, whole) if 'loss' in line]


def _step(run: pathlib.Path) -> int:
  lines = _lines(run)
  return lines[-1]['step'] if lines else 0


def _saves(run: pathlib.Path) -> bool:
  """Whether a save, of a step from 8 on, is under way."""
  folder = run / 'checkpoints'
  return folder.is_dir() and any(not path.name.isdigit() for path in folder.iterdir())


def _assert_same_training(run: pathlib.Path, other: pathlib.Path, first: int, last: int) -> None:
  """Batches equal, losses up to rounding, of steps first to last."""
  left, right = ([x for x in _lines(r) if first <= x['step'] <= last] for r in (run, other))
  assert [x['step'] for x in left] == [x['step'] for x in right] == list(range(first, last + 1))
  for name in ('loss', 'grad_norm'):
    assert left[0][name] == pytest.approx(right[0][name], rel=1e-5)
  assert [x['loss'] for x in left] == pytest.approx([x['loss'] for x in right], rel=1e-3)
  same = [name for name in left[0] if name.startswith(('tokens/', 'stage_', 'link/', 'trained_'))]
  assert any('link/' in name for name in same)  # counted on the rows that were read
  for x, y in zip(left, right, strict=True):
    assert [x[name] for name in same] == [y[name] for name in same]


# ── who is gone, by the clock of process 0 ──────────────────────────────────────


def test_a_process_is_gone_when_its_beat_has_not_changed_for_too_long():
  silence = distributed.Silence(3, now=100.0)
  silence.hear({0: '1', 1: '1'}, now=101.0)
  silence.hear({0: '2', 1: '1'}, now=106.0)
  assert silence.gone(106.0, seconds=5.5) == {2: 6.0}  # which never came
  assert silence.gone(107.0, seconds=5.5) == {1: 6.0, 2: 7.0}
  silence.hear({1: '2', 2: 'left'}, now=107.0)  # late, and at the end of the run
  assert silence.gone(200.0, seconds=95.0) == {}
  assert silence.gone(200.0, seconds=90.0) == {0: 94.0, 1: 93.0}


# ── equal to one process ────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(('count', 'devices'), [(2, 2), (4, 1)])
def test_several_processes_train_the_run_of_one(trained, start, tmp_path, count, devices):
  project, _ = trained
  run = tmp_path / 'run'
  hosts = start(run, count, 'Run.mesh = @MeshConfig()', 'MeshConfig.fsdp = 2', devices=devices)
  assert hosts.codes() == [0] * count, hosts.everything()
  _assert_same_training(run, project.folder / 'run', 1, 20)
  assert [len(hosts.said(i).split('complete: 20 steps')) for i in range(count)] == [2] + [1] * (count - 1)  # fmt: skip


# ── one is gone ─────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
  ('count', 'sent', 'gone', 'when', 'then'),
  [
    (2, signal.SIGKILL, 1, _saves, 4),
    (4, signal.SIGKILL, 0, lambda run: _step(run) > 12, 2),
    (2, signal.SIGSTOP, 1, lambda run: _step(run) > 12, 1),
  ],
)  # fmt: skip
def test_when_one_is_gone_the_others_say_so_end_and_the_run_goes_on_with_other_hosts(
  project, start, tmp_path, count, sent, gone, when, then
):
  run, alone = tmp_path / 'run', tmp_path / 'alone'
  hosts = start(run, count, *LONG)
  hosts.wait_until(lambda: run_directory.last_checkpoint(run) is not None and when(run))
  hosts.processes[gone].send_signal(sent)
  assert set(hosts.codes(gone, seconds=120)) == {1}, hosts.everything()
  for index in set(range(count)) - {gone}:
    assert f'process {gone}' in hosts.said(index).split('error: ')[-1], hosts.everything()
    assert GOES_ON in hosts.said(index)
  hosts.processes[gone].kill()
  hosts.processes[gone].wait(30)

  saved = run_directory.last_checkpoint(run)
  assert saved + 20 <= STEPS
  shutil.copytree(run, alone)
  hosts = start(run, then, *LONG) if then > 1 else None
  output = project.train(alone, *LONG)
  assert f'resumed at step {saved}' in output
  if hosts:
    assert hosts.codes() == [0] * then, hosts.everything()
    assert f'resumed at step {saved}' in hosts.said(0)
    _assert_same_training(run, alone, saved + 1, saved + 20)
    assert [line['step'] for line in _lines(run)] == list(range(1, STEPS + 1))
  assert [line['step'] for line in _lines(alone)] == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('sent', 'to', 'code', 'says'),
  [
    (signal.SIGTERM, 0, 143, 'process 0 .* has ended: SIGTERM'),
    (signal.SIGINT, 1, 130, 'process 1 .* has ended: SIGINT'),
    (signal.SIGKILL, 0, 1, 'process 0.* is gone'),
    (signal.SIGKILL, 1, 1, r'process 1 \(.*\) has not been heard of'),
  ],
)  # fmt: skip
def test_whoever_ends_while_the_data_is_prepared_the_other_ends_too(
  project, start, tmp_path, sent, to, code, says
):
  cache = tmp_path / 'cache'
  hosts = start(tmp_path / 'run', 2, f"DataConfig.cache_dir = '{cache}'")
  hosts.wait_until(lambda: 'data: preparing' in hosts.said(0))
  hosts.processes[to].send_signal(sent)
  assert hosts.codes(to, seconds=120) == [code], hosts.everything()
  assert hosts.codes(seconds=60)[to] == (-9 if sent == signal.SIGKILL else code)
  assert re.search(says, hosts.said(1 - to)), hosts.everything()
  assert 'nothing has been saved' in hosts.said(1 - to)


# ── a stop, agreed ──────────────────────────────────────────────────────────────

# Almost all of the time goes to evaluations.
EVALUATING = ('Stage.tokens = 20_480', 'EvaluationConfig.every_tokens = 512', 'EvaluationConfig.batch = 2')  # fmt: skip
TRUNK = 24
TWO_STAGES = (
  'Run.stages = [@Stage(), @second/Stage()]', f'Stage.tokens = {TRUNK * 8 * 64}', "Stage.name = 'trunk'",
  "second/Stage.name = 'second'", 'second/Stage.tokens = 2_048_000', *QUIET,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
  ('bindings', 'steps', 'sent', 'to', 'after'),
  [
    (EVALUATING, 40, signal.SIGTERM, 1, 1),
    (EVALUATING, 40, signal.SIGINT, 0, 3),
    # It takes a second until all know: by then, as a rule, the second stage is being compiled, or has begun.
    (TWO_STAGES, 0, signal.SIGTERM, 1, TRUNK - 8),
  ],
)
def test_a_signal_on_one_host_makes_all_save_at_the_same_step(
  project, start, tmp_path, bindings, steps, sent, to, after
):
  run = tmp_path / 'run'
  hosts = start(run, 2, *bindings)
  hosts.wait_until(lambda: _step(run) >= after)
  hosts.processes[to].send_signal(sent)
  assert hosts.codes() == [128 + sent] * 2, hosts.everything()
  saved = run_directory.last_checkpoint(run)
  assert saved == _step(run) >= after
  assert [line['step'] for line in _lines(run)] == list(range(1, saved + 1))
  assert f'{sent.name}: stopped after step {saved:,} of' in hosts.said(0)
  if steps:
    assert f'resumed at step {saved}' in project.train(run, *bindings)
    assert [line['step'] for line in _lines(run)] == list(range(1, steps + 1))
    evaluated = (run / 'evaluations.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in evaluated] == list(range(steps + 1))


# ── what does not fit together ──────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
  ('binding', 'says'),
  [
    ('OptimizerConfig.learning_rate = 0.5', r'process 1 was started with another recipe .*learning_rate: 0.01 → 0.5'),
    ('Stage.token = 3', r"token.*Nearest: 'tokens'"),
    ('', r"Run.directory is 'run', which on process 1 .* is another folder than on process 0"),
  ],
)  # fmt: skip
def test_hosts_that_do_not_fit_together_all_say_why(start, tmp_path, binding, says):
  folders = [tmp_path / '0', tmp_path / '1']
  for folder in folders:
    folder.mkdir()
  directory = tmp_path / 'run' if binding else 'run'  # in the working directory of each
  hosts = start(directory, 2, of_one=[(), (binding,) if binding else ()], folders=folders)
  assert hosts.codes(seconds=120) == [1, 1], hosts.everything()
  for index in range(2):
    assert re.search(says, hosts.said(index)), hosts.everything()
    assert 'Traceback' not in hosts.said(index)


@pytest.mark.slow
def test_a_process_whose_others_never_come_says_so_and_ends(project, tmp_path):
  address = f'localhost:{free_port()}'
  for index in range(2):
    arguments = [f'--coordinator_address={address}', '--num_processes=2', f'--process_id={index}',
                 '--initialization_timeout=2']  # fmt: skip
    output = project.train(tmp_path / 'run', code=1, arguments=arguments)
    assert f'process {index} has not met the others of 2 at {address} in 2 s' in output


def test_an_address_that_is_none_is_refused():
  with pytest.raises(ValueError, match="--coordinator_address is 'host': it is host:port"):
    distributed.join('host', 2, 0, timeout=1)
