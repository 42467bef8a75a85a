"""Stops a run at a point that all hosts agree on, when the machine or a person asks for it.

In: SIGTERM (a preemption, a scheduler) or SIGINT (Ctrl-C). Out: `requested()`, true on every
host at the same call, so that all save the same checkpoint. A second Ctrl-C ends the process at
once.

Easy to get wrong: a signal reaches hosts at different steps, and often only one of them. A host
that stops alone leaves the others waiting in a collective. With several hosts the request therefore
goes through JAX's preemption service, which picks a later step for all; nothing here blocks until
then.
"""

import contextlib
import signal
import sys
import threading
import types
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from jaxlink import distributed

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
  """SIGTERM came where there is nothing to save. Like KeyboardInterrupt it is no Exception."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
  """Within it SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt, outside of `Stop`.

  What waits for a child process, such as the one that prepares the data, ends the child then. JAX's
  preemption service, which the first `Stop` of several hosts starts, takes SIGTERM instead.
  """

  def end(number: int, frame: types.FrameType | None) -> None:
    del number, frame
    raise Terminated

  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


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
    self._calls = 0
    self._several = jax.process_count() > 1
    self._previous: dict[signal.Signals, object] = {}
    if self._several:
      distributed.start_preemption_service()

  def __enter__(self) -> 'Stop':
    if threading.current_thread() is not threading.main_thread():
      raise RuntimeError('Stop is entered in a thread: only the main thread can receive signals.')
    for number in _SIGNALS:
      # JAX's preemption service receives SIGTERM in C++; a Python handler would take it away.
      if not (self._several and number is signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._receive)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous.clear()

  def requested(self) -> bool:
    """Whether the run is to stop; the same answer on every host.

    To be called equally often on all hosts: after each step, and between the parts of whatever takes
    long, such as an evaluation.
    """
    if not self._several:
      return self.signal_name is not None
    self._calls += 1
    if not multihost_utils.reached_preemption_sync_point(self._calls):
      return False
    self.signal_name = distributed.told('signal') or 'SIGTERM'  # here or on another host
    return True

  def _receive(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    name = signal.Signals(number).name
    if number == signal.SIGINT:
      if self._interrupted:
        raise KeyboardInterrupt('second Ctrl-C: stopped at once, without a checkpoint')
      self._interrupted = True
    self.signal_name = name
    if self._several:
      distributed.tell('signal', name)
      # The service knows SIGTERM only; it tells the other hosts.
      signal.raise_signal(signal.SIGTERM)
    again = ' Ctrl-C again stops at once, without it.' if number == signal.SIGINT else ''
    print(f'{name}: stopping after a checkpoint.{again}', file=sys.stderr, flush=True)
