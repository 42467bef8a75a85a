"""Trains the runs of a study, each in a process of its own, several at a time.

In: arms, and the command of a child. Out: run directories, a log.txt in each, and study.jsonl with a line for each
time that a run was started.

Easy to get wrong: cores. JAX takes all that it may use when it is imported, so a child limits itself before
that (`--cores`), and two runs without a limit would each take all and be slower than one after the other.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from jaxlink import run_directory
from jaxlink.data import resolve
from tools.study_grid import Arm

LOG = 'study.jsonl'
_POLL_SECONDS = 1.0


def places(jobs: int) -> list[dict[str, Any]]:
  """Where runs go that are trained side by side: {'cores': […]} of each, or {'gpus': […]} that it sees.

  Args:
    jobs: how many; 0 is one to a GPU, or one that has all.

  Raises:
    ValueError: there are fewer cores or GPUs.
  """
  gpus = _gpus()
  kind, units = ('gpus', gpus) if gpus else ('cores', sorted(os.sched_getaffinity(0)))
  jobs = jobs or (len(gpus) if gpus else 1)
  if jobs > len(units):
    raise ValueError(
      f'--jobs is {jobs}, and there are {len(units)} {kind} here: one run to each, at most.'
    )
  cuts = [len(units) * k // jobs for k in range(jobs + 1)]
  return [{kind: units[begin:end]} for begin, end in itertools.pairwise(cuts)]


def _gpus() -> list[str]:
  if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    return []
  if (given := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
    return [gpu for gpu in given.split(',') if gpu]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, check=False)
  return [str(k) for k in range(listed.stdout.count('GPU '))]


@contextlib.contextmanager
def claim(directory: str) -> Iterator[None]:
  """Holds a study's directory against a second study in it; the lock ends with the process.

  Raises:
    ValueError: another process holds it.
  """
  with contextlib.ExitStack() as stack:
    try:
      # Not `claim`, which asks JAX for the number of hosts: this process leaves all devices to its children.
      stack.enter_context(run_directory.locked(pathlib.Path(directory)))
    except ValueError as error:
      message = str(error).replace('another run', 'another study')
      raise ValueError(message.replace('Run.directory', 'Study.directory')) from None
    yield


def prepare(arms: Sequence[Arm]) -> None:
  """Caches the text of all settings, before runs that would all want to.

  Raises:
    DataError: it cannot be had.
  """
  requests = {}
  for arm in arms:
    request, folder = resolve.make_request(arm.run), arm.run.data.cache_dir
    requests[resolve.kept_path(request, folder)] = request, folder, arm.run.data.build_processes
  for request, folder, processes in requests.values():
    resolve.resolve(request, folder, processes=processes)


class Runner:
  """Trains what is not finished of a grid. A run that fails does not end the others.

  Args:
    directory: of the study.
    arms: in this order.
    command: of a child, to which setting, seed and place are added.
    where: from `places`.

  Attributes:
    failed: runs whose process ended with an error.
    signal: the name of the signal that stopped the study; '' where none did.
  """

  def __init__(
    self, directory: str, arms: Sequence[Arm], command: Sequence[str], where: Sequence[dict[str, Any]]
  ):  # fmt: skip
    self._arms, self._command, self._free = list(arms), list(command), list(where)
    self._log, self._together = pathlib.Path(directory) / LOG, len(where)
    self._running: dict[subprocess.Popen, tuple[Arm, dict[str, Any], float, float]] = {}
    self._finished = {arm.name for arm in arms if arm.complete}
    self.failed: list[Arm] = []
    self.signal = ''

  def run(self) -> None:
    """Returns when all runs have ended: of themselves, or since a signal stopped them."""
    waiting = [arm for arm in self._arms if arm.name not in self._finished]
    done = {arm.name: arm.run.tokens_at(arm.step) for arm in self._arms}
    bar = tqdm.tqdm(
      total=sum(arm.tokens for arm in self._arms), initial=sum(done.values()), unit=' tokens',
      unit_scale=True, smoothing=0.02, mininterval=1 if sys.stderr.isatty() else 60,
    )  # fmt: skip
    with bar, _told(self._stop):
      while self._running or (waiting and not self.signal):
        while waiting and self._free and not self.signal:
          self._start(waiting.pop(0))
        time.sleep(_POLL_SECONDS)
        for child, (arm, *_) in list(self._running.items()):
          now = max(done[arm.name], trained_tokens(arm))
          bar.update(now - done[arm.name])
          done[arm.name] = now
          if child.poll() is not None:
            self._end(child)
        bar.set_description(f'{len(self._finished)} of {len(self._arms)} runs', refresh=False)

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
      # A group of its own: a terminal's Ctrl-C is this process's to pass on, once. No session, in which
      # Linux would schedule it beside the rest of the machine whatever its niceness.
      child = subprocess.Popen(
        [*self._command, *own], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        env=environment, process_group=0,
      )  # fmt: skip
    self._running[child] = arm, place, time.time(), time.monotonic()
    if self.signal:  # it came before the child was known
      child.terminate()
    tqdm.tqdm.write(f'{arm.name}: begins at step {arm.step:,} of {arm.run.steps:,}')

  def _end(self, child: subprocess.Popen) -> None:
    arm, place, began, start = self._running.pop(child)
    seconds = time.monotonic() - start
    self._free.append(place)
    line = {
      'setting': arm.setting, 'seed': arm.seed, 'began': round(began),
      'seconds': round(seconds, 3), 'exit_code': child.returncode, 'step': arm.step,
      'side_by_side': self._together, **place,
    }  # fmt: skip
    with open(self._log, 'a+b') as file:
      # What a power cut left of a line stays one of its own.
      if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b'\n':
        file.write(b'\n')
      file.write(json.dumps(line, ensure_ascii=False).encode() + b'\n')
    if child.returncode == 0:
      self._finished.add(arm.name)
      what = 'finished'
    elif self.signal:
      what = f'stopped, goes on at step {arm.step:,}'
    else:
      self.failed.append(arm)
      log = arm.directory / 'log.txt'
      last = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()[-1:]
      what = f'failed (exit code {child.returncode}): {"".join(last)} ({log})'
    tqdm.tqdm.write(f'{arm.name}: {what}, {seconds:,.0f} s')

  def _stop(self, name: str) -> None:
    again, self.signal = bool(self.signal), self.signal or name
    if again and name != 'SIGINT':  # schedulers repeat theirs
      return
    more = (
      'ended at once' if again else 'stopping after a checkpoint; Ctrl-C again ends them at once'
    )
    tqdm.tqdm.write(f'{name}: {len(self._running)} runs, {more}')
    for child in self._running:
      child.kill() if again else child.terminate()


@contextlib.contextmanager
def _told(tell: Callable[[str], None]) -> Iterator[None]:
  """Within it a signal's name is passed to `tell`, and nothing else comes of it."""
  chosen = (signal.SIGINT, signal.SIGTERM)

  def receive(number: int, frame: Any) -> None:
    del frame
    tell(signal.Signals(number).name)

  before = [signal.signal(number, receive) for number in chosen]
  try:
    yield
  finally:
    for number, handler in zip(chosen, before, strict=True):
      signal.signal(number, handler)


def trained_tokens(arm: Arm) -> int:
  """Of a run that goes on, by the end of its metrics; 0 before they begin."""
  path = arm.directory / 'metrics.jsonl'
  if not path.exists():
    return 0
  with open(path, 'rb') as file:
    file.seek(max(0, path.stat().st_size - 16384))
    found = re.findall(rb'"trained_tokens": (\d+)', file.read())
  return int(found[-1]) if found else 0


# ── in a run's own process ──────────────────────────────────────────────────────


def train_one(arm: Arm, parent: int | None) -> int:
  """Trains a run as `python -m jaxlink.train` does, and returns its exit code.

  Args:
    arm: the run.
    parent: process without which it stops, after a checkpoint.
  """
  from jaxlink import compile_cache
  from jaxlink.checkpoint import CheckpointError
  from jaxlink.train import SkippedTooMuch, train

  if parent:
    _stop_with(parent)
  if arm.run.compile_cache:
    compile_cache.enable()
  try:
    return train(arm.run)
  except (SkippedTooMuch, CheckpointError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1


def _stop_with(parent: int) -> None:
  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=watch, daemon=True).start()
