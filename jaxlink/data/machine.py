"""Locks, worker processes and files that appear whole: what building a cache needs of the machine.

Easy to get wrong: a worker that dies or outlives its parent. One that is killed makes the build fail, and
one whose parent is gone ends.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def lock(path: str) -> Iterator[None]:
  """Holds a lock that ends with its process, so that two runs do not build one cache together."""
  with open(path, 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'data: waiting for another run that builds {path.removesuffix(".lock")}', flush=True)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def pool(processes: int) -> Iterator[Any]:
  """Yields run(function, calls): the events of function(*call) for all calls, as they come."""
  if processes == 1:
    yield lambda function, calls: (event for call in calls for event in function(*call))
    return
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tensorflow', 'seqio'])
  events = context.SimpleQueue()
  with concurrent.futures.ProcessPoolExecutor(
    processes, mp_context=context, initializer=_start_worker, initargs=(events,)
  ) as pool:

    def run(function, calls):
      pending = {pool.submit(_collect, function, call) for call in calls}
      while pending or not events.empty():
        done, pending = concurrent.futures.wait(pending, 0.1, concurrent.futures.FIRST_COMPLETED)
        for future in done:
          future.result()  # raises what the worker raised, or that it was killed
        while not events.empty():
          yield events.get()

    try:
      yield run
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise


def write_json(path: str, value: Any) -> None:
  """Writes a file that is there whole or not at all."""
  partial = path + '.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    json.dump(value, file, ensure_ascii=False, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


_events: Any = None  # of a worker


def _start_worker(events: Any) -> None:
  """Lets a worker report, and end with the process that builds, even if that one is killed."""
  global _events
  _events = events
  tf.config.set_visible_devices([], 'GPU')

  def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


def _collect(function, call) -> None:
  for event in function(*call):
    _events.put(event)
