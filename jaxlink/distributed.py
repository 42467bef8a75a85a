"""Several processes of one run: they meet, watch one another, and all end when one is gone.

In: the addresses of the training command. Out: a `Watch`, whose thread tells the others each second that
this process lives, and ends it, in plain words and with a non-zero code, when another one has ended or is
not heard of. All of it goes through the key-value store of JAX's coordination service, on process 0.

Easy to get wrong: the main thread cannot do this. When a process is gone, the others wait in a collective,
where neither an exception nor a signal handler of Python reaches them. So the thread ends the process
itself, without clean-up: a checkpoint that is being written is lost, as by a kill. JAX would abort the
process, too, but later, and with the stack of its C++ code.
"""

import contextlib
import ctypes
import json
import os
import platform
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
from jax._src import (
  distributed,
)  # the key-value store has no public name; Orbax reaches for it, too

SILENT_SECONDS = 30.0  # a process that is not heard of for so long counts as gone
FAILED_SECONDS = 5.0  # the same, once a computation has failed somewhere
# JAX's own limit. It comes into play where process 0 hangs, which keeps the key-value store.
HEARTBEAT_SECONDS = 40
_BEAT_SECONDS = 1.0
_FOLDER = 'jaxlink/'
_LEFT = 'left'


def client() -> Any:
  """The coordination service's client; of a run on several hosts, after `join`."""
  return distributed.global_state.client


def join(address: str | None, count: int | None, index: int | None, timeout: int) -> 'Watch | None':
  """Meets the other processes of the run.

  SIGTERM stays with Python; JAX's preemption service, which would take it, is off.

  Args:
    address: host:port of process 0; None where JAX knows the cluster, then also the next two.
    count: how many processes.
    index: which one this is.
    timeout: the longest that it waits for the others, in seconds.

  Returns:
    The watch over the others; None where this is the only process.

  The process ends with code 1 where they do not come.

  Raises:
    ValueError: JAX does not know this cluster, or address and numbers do not fit.
  """
  if address and not re.fullmatch(r'.+:\d+', address):
    raise ValueError(f'--coordinator_address is {address!r}: it is host:port, of process 0.')
  jax.config.update('jax_enable_preemption_service', False)
  timer = threading.Timer(timeout, _give_up, [timeout])  # JAX would abort
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(
      address, count, index, initialization_timeout=timeout + 60,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )  # fmt: skip
  except ValueError as error:
    raise ValueError(
      f'{error} JAX finds the others by itself on TPU pods and under Slurm or Open MPI: elsewhere give '
      '--coordinator_address, --num_processes and --process_id.'
    ) from error
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(f'{address or "the others"}: {_first_line(error)}') from error
  finally:
    timer.cancel()
  state = distributed.global_state
  if state.num_processes == 1:
    return None
  return Watch(state.client, state.process_id, state.num_processes)


def _give_up(seconds: int) -> None:
  state = distributed.global_state
  print(
    f'error: process {state.process_id} has not met the others of {state.num_processes} at '
    f'{state.coordinator_address} in {seconds} s. Is each process started, with a --process_id of its own '
    'and the same --num_processes and --coordinator_address, a host and free port of process 0 that the '
    'others can reach? --initialization_timeout gives them longer.',
    file=sys.stderr,
  )
  _exit(1)


class Silence:
  """Which processes have not been heard of, by the clock of the one that listens.

  Args:
    count: of processes; none has been heard of before `now`.
  """

  def __init__(self, count: int, now: float):
    self._heard = dict.fromkeys(range(count), ('', now))

  def hear(self, beats: Mapping[int, str], now: float) -> None:
    """Takes what each process wrote last."""
    for index, beat in beats.items():
      if beat != self._heard[index][0]:
        self._heard[index] = beat, now

  def gone(self, now: float, seconds: float) -> dict[int, float]:
    """Process → seconds of its silence, where it is longer than `seconds` and it has not left."""
    return {
      index: now - when
      for index, (beat, when) in self._heard.items()
      if beat != _LEFT and now - when > seconds
    }


class Watch:
  """Keeps a process and the others informed of one another; started when it is made.

  Args:
    client: of the coordination service.
    index: of this process.
    count: of all processes.

  Attributes:
    where_it_goes_on: a sentence for the person who starts the run again.
  """

  def __init__(self, client: Any, index: int, count: int):
    self._client, self._index, self._count = client, index, count
    self._left, self._ending, self._failed = threading.Event(), threading.Lock(), False
    self._abort = _ABORT(self._on_abort)  # C code holds no reference to it
    self.where_it_goes_on: Callable[[], str] = lambda: ''
    self._set('name', f'process {index} ({os.getpid()} on {platform.node()})')
    ctypes.CDLL(None).signal(int(signal.SIGABRT), self._abort)
    self._thread = threading.Thread(target=self._look, daemon=True, name='watch')
    self._thread.start()

  def require_same(self, values: Mapping[str, Any], differences: Callable[[Any, Any], list[str]]):
    """Raises ValueError where `values`, plain JSON, are others than those of process 0."""
    if self._index == 0:
      self._set('values', json.dumps(values))
      return
    first = json.loads(wait_for(self._client, f'{_FOLDER}values/0'))
    if changes := differences(first, json.loads(json.dumps(values))):
      raise ValueError(
        f'process {self._index} was started with another recipe than process 0: {"; ".join(changes)}.'
      )

  def require_shared(self, folder: str, setting: str) -> None:
    """Raises ValueError where `folder` is not the one that process 0 has under this name."""
    name = os.path.join(folder, '.shared')
    if self._index == 0:
      os.makedirs(folder, exist_ok=True)
      token = f'{os.getpid()} on {platform.node()} at {time.time()}'
      with open(name, 'w', encoding='utf-8') as file:
        file.write(token)
      self._set(f'shared {setting}', token)
      return
    token = wait_for(self._client, f'{_FOLDER}shared {setting}/0')
    for _ in range(20):  # network file systems show a new file late
      with contextlib.suppress(OSError), open(name, encoding='utf-8') as file:
        if file.read() == token:
          return
      time.sleep(0.5)
    raise ValueError(
      f'{setting} is {folder!r}, which on process {self._index} ({platform.node()}) is another folder than '
      'on process 0: give one that all hosts share.'
    )

  def wait_for_blame(self) -> None:
    """Called where a computation or a save has failed: ends the process if another one is to blame.

    Returns where none is found.
    """
    self._failed = True  # the thread tells it: here the client may block
    time.sleep(FAILED_SECONDS + 4 * _BEAT_SECONDS)

  def end(self, code: int, line: str, how: str = '') -> NoReturn:
    """Ends this process with `code`, after saying `line` and `how` it goes on here, and `line` to all.

    They end for it, too. Where another process was first, this one says and does what follows from that.
    """
    with self._ending:
      print(line + how, file=sys.stderr)
      self._tell_end(code, self._index, line)
      if self._index == 0:
        time.sleep(3 * _BEAT_SECONDS)  # the others still ask here
      _exit(code)

  def leave(self) -> None:
    """Called at the end of the run, after which this process need not be heard of."""
    self._left.set()
    self._thread.join()
    ctypes.CDLL(None).signal(int(signal.SIGABRT), None)  # SIG_DFL: Python may be gone by then

  # ── the thread ────────────────────────────────────────────────────────────────

  def _look(self) -> None:
    silence, beat = Silence(self._count, time.monotonic()), 0
    while True:
      try:
        beat += 1
        self._set('beat', _LEFT if self._left.is_set() else str(beat))
        if self._left.is_set():
          return
        if self._failed:
          self._set('failed', '')
        ended = self._client.key_value_dir_get(f'{_FOLDER}end/')
        for _, end in ended:
          self._follow(**json.loads(end))
        if self._index == 0 and not ended:
          self._judge(silence)
      except jax.errors.JaxRuntimeError as error:
        if self._left.is_set():
          return
        self._say_and_exit(1, f'process 0, at which the others meet, is gone: {_first_line(error)}')
      self._left.wait(_BEAT_SECONDS)

  def _judge(self, silence: Silence) -> None:
    """On process 0: tells all that a process is gone."""
    now = time.monotonic()
    silence.hear(self._read('beat'), now)
    gone = silence.gone(now, FAILED_SECONDS if self._read('failed') else SILENT_SECONDS)
    if not gone:
      return
    names = self._read('name')
    line = '; '.join(
      f'{names.get(index, f"process {index}")} has not been heard of for {seconds:.0f} s'
      for index, seconds in gone.items()
    )
    line += ': it was killed or hangs, or its machine is gone'
    self._tell_end(1, None, line)

  def _tell_end(self, code: int, process: int | None, line: str) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first, or process 0 is gone
      end = json.dumps({'code': code, 'process': process, 'line': line})
      self._client.key_value_set(f'{_FOLDER}end/first', end)

  def _follow(self, code: int, process: int | None, line: str) -> None:
    """Ends this process because another one has ended or is gone."""
    if process == self._index:
      return
    if process is not None:
      name = self._read('name').get(process, f'process {process}')
      line = f'{name} has ended: {line}'
    self._say_and_exit(code, line)

  def _say_and_exit(self, code: int, line: str) -> None:
    with self._ending:
      print(f'\nerror: {line}\nThis process ends, too; {self.where_it_goes_on()}', file=sys.stderr)
      if self._index == 0:
        time.sleep(3 * _BEAT_SECONDS)
      _exit(code)

  def _on_abort(self, number: int) -> None:
    """JAX's C++ code is about to abort: it has said why, but not in plain words."""
    del number
    if self._first_is_there():
      self.wait_for_blame()
      line = (
        f'the runtime gives up, mostly because process 0 has not answered for {HEARTBEAT_SECONDS} s'
      )
    else:
      line = 'process 0, at which the others meet, is gone: it was killed, or its machine is gone'
    self._say_and_exit(1, f'{line} (the message of the runtime is above)')

  def _first_is_there(self) -> bool:
    """Whether something listens where process 0 does; its socket outlives it for a moment."""
    host, port = distributed.global_state.coordinator_address.rsplit(':', 1)
    for _ in range(3):
      try:
        socket.create_connection((host.strip('[]'), int(port)), _BEAT_SECONDS).close()
      except OSError:
        return False
      time.sleep(_BEAT_SECONDS / 2)
    return True

  def _set(self, key: str, value: str) -> None:
    self._client.key_value_set(f'{_FOLDER}{key}/{self._index}', value, allow_overwrite=True)

  def _read(self, key: str) -> dict[int, str]:
    found = self._client.key_value_dir_get(f'{_FOLDER}{key}/')
    return {int(name.rsplit('/', 1)[1]): value for name, value in found}


_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)


def wait_for(client: Any, key: str) -> str:
  """Returns what a process writes under a key, whenever it does; signals are handled meanwhile."""
  while True:
    try:
      return client.blocking_key_value_get(key, 500)
    except jax.errors.JaxRuntimeError as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise


def _first_line(error: BaseException) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _exit(code: int) -> NoReturn:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
