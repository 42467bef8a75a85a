"""Stops a run at a point that all hosts agree on, when the machine or a person asks for it.

In: SIGTERM (a preemption, a scheduler) or SIGINT (Ctrl-C). Out: `requested()`, true on every
host at the same call, so that all save the same checkpoint. A second Ctrl-C ends the process at
once.

Easy to get wrong: a signal reaches hosts at different steps, and often only one of them. A host
that stops alone leaves the others waiting in a collective. With several hosts a thread of each therefore
publishes how often `requested` has been called there, as soon as one host was told, and holds the next
call until all have: the call after the last of them is where all stop. JAX's preemption service works
alike, but takes SIGTERM away from Python, and has been seen to lose a notice. The thread is ended with the
run: one that is inside the service's C++ code when the interpreter goes takes the process down with it.
"""

import contextlib
import itertools
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import jax

from jaxlink import distributed

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_SECONDS = 0.5  # between two looks for another host's signal


class Terminated(BaseException):
  """SIGTERM came where there is nothing to save. Like KeyboardInterrupt it is no Exception."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
  """Within it SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt, outside of `Stop`.

  What waits for a child process, such as the one that prepares the data, ends the child then.
  """

  def end(number: int, frame: types.FrameType | None) -> None:
    del number, frame
    raise Terminated

  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


_numbers = itertools.count()  # of agreements, the same on all hosts


class Agreement:
  """At which call of `reached` all hosts stop, once one of them is asked to.

  Args:
    client: of the coordination service.
    index: of this host.
    count: of all hosts.

  Attributes:
    asked: set to a signal's name where this host is asked.
    signal_name: what the hosts agreed on, once they have.
  """

  def __init__(self, client: Any, index: int, count: int):
    self.asked: str | None = None
    self.signal_name: str | None = None
    self._client, self._index, self._count = client, index, count
    self._folder = f'jaxlink/stop/{next(_numbers)}/'
    self._lock, self._calls, self._last = threading.Lock(), 0, None
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._agree, daemon=True, name='agreement')
    self._thread.start()

  def reached(self) -> bool:
    """Counts a call, and whether it is the agreed one or comes after it."""
    with self._lock:
      self._calls += 1
      return self._last is not None and self._calls >= self._last

  def end(self) -> None:
    """Ends the thread, which asks the service of process 0 and must not be in its code at exit."""
    self._ended.set()
    self._thread.join()

  def _agree(self) -> None:
    # Where process 0, which keeps the store, is gone, the watch over it ends this process.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      while not (names := self._read('asked')):
        if self.asked:
          self._set('asked', self.asked)
        if self._ended.wait(_LOOK_SECONDS):
          return
      with self._lock:  # no call from here on, until it is known at which to stop
        self._set('calls', str(self._calls))
        while len(calls := self._read('calls')) < self._count:
          if self._ended.wait(_LOOK_SECONDS / 10):
            return
        self.signal_name = names[min(names)]
        self._last = max(map(int, calls.values())) + 1

  def _set(self, key: str, value: str) -> None:
    self._client.key_value_set(f'{self._folder}{key}/{self._index}', value)

  def _read(self, key: str) -> dict[int, str]:
    found = self._client.key_value_dir_get(f'{self._folder}{key}/')
    return {int(name.rsplit('/', 1)[1]): value for name, value in found}


class Stop:
  """A context manager that turns SIGTERM and SIGINT into a request; see the module's docstring.

    with Stop() as stop:
      for step in range(start, steps):
        …
        if stop.requested():
          keeper.save(step + 1, state, meta)
          break

  Must be entered in the main thread, and made after `jax.distributed.initialize` where there are several
  hosts. Handlers that were there before are back after it. One serves a whole run: it may be entered
  again, and its calls go on counting, which the hosts agree by.
  """

  def __init__(self) -> None:
    self.signal_name: str | None = (
      None  # 'SIGTERM' or 'SIGINT': what this host received, if anything
    )
    self._interrupted = False
    self._previous: dict[signal.Signals, object] = {}
    self._agreement = None
    if jax.process_count() > 1:
      self._agreement = Agreement(distributed.client(), jax.process_index(), jax.process_count())

  def __enter__(self) -> 'Stop':
    if threading.current_thread() is not threading.main_thread():
      raise RuntimeError('Stop is entered in a thread: only the main thread can receive signals.')
    for number in _SIGNALS:
      self._previous[number] = signal.signal(number, self._receive)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous.clear()

  def close(self) -> None:
    """Called at the end of the run, after which no host can be asked."""
    if self._agreement:
      self._agreement.end()

  def requested(self) -> bool:
    """Whether the run is to stop; the same answer on every host.

    To be called equally often on all hosts: after each step, and between the parts of whatever takes
    long, such as an evaluation.
    """
    if self._agreement is None:
      return self.signal_name is not None
    if not self._agreement.reached():
      return False
    self.signal_name = self._agreement.signal_name  # received here or on another host
    return True

  def _receive(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    name = signal.Signals(number).name
    if number == signal.SIGINT:
      if self._interrupted:
        raise KeyboardInterrupt('second Ctrl-C: stopped at once, without a checkpoint')
      self._interrupted = True
    self.signal_name = name
    if self._agreement:
      self._agreement.asked = name
    again = ' Ctrl-C again stops at once, without it.' if number == signal.SIGINT else ''
    print(f'{name}: stopping after a checkpoint.{again}', file=sys.stderr, flush=True)
