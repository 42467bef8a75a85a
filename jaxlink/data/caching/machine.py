"""Locks, worker processes and files that appear whole: what building a cache needs of the machine.

Easy to get wrong: a worker that dies or outlives its parent. One that is killed makes the build fail, and
one whose parent is gone ends. And a file seen half written: see `Store`.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import fsspec
import tensorflow as tf
from fsspec.implementations.local import LocalFileSystem


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
  context.set_forkserver_preload(['tensorflow', 'seqio', 'jaxlink.data.caching.shards'])
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


def absolute(folder: str) -> str:
  """Returns a folder as another process finds it; a URL as it is."""
  return folder if '://' in folder else os.path.abspath(folder)


class Store:
  """The files of a folder that lies on a disk or in a bucket; each is there whole or not at all.

  Args:
    folder: path, or URL that fsspec knows (gs://, s3://); it is made if need be.
  """

  def __init__(self, folder: str):
    self._files, self._path = fsspec.core.url_to_fs(folder)
    self.is_local = isinstance(self._files, LocalFileSystem)
    self._files.makedirs(self._path, exist_ok=True)

  def exists(self, name: str) -> bool:
    """Tells whether a file is there."""
    return self._files.exists(self._at(name))

  def names(self) -> list[str]:
    """Returns the names of all that is there now."""
    self._files.invalidate_cache()
    return sorted(p.rpartition('/')[2] for p in self._files.ls(self._path, detail=False))

  def read(self, name: str, begin: int, end: int) -> bytes:
    """Returns the bytes of a range of a file."""
    return self._files.cat_file(self._at(name), start=begin, end=end)

  def read_json(self, name: str) -> Any:
    """Returns the value that `write_json` wrote."""
    return json.loads(self._files.cat_file(self._at(name)))

  def write_json(self, name: str, value: Any) -> None:
    """Writes a value as a file."""
    with self.scratch() as scratch:
      path = os.path.join(scratch, 'value.json')
      write_json(path, value)
      self.keep(path, name)

  @contextlib.contextmanager
  def scratch(self) -> Iterator[str]:
    """Yields a folder of this machine, to write files in that are to be kept."""
    folder = tempfile.mkdtemp(prefix='tmp-scratch-', dir=self._path if self.is_local else None)
    try:
      yield folder
    finally:
      shutil.rmtree(folder, ignore_errors=True)

  def keep(self, path: str, name: str) -> None:
    """Moves a file from a scratch folder into this one."""
    if self.is_local:
      with open(path, 'rb+') as file:
        os.fsync(file.fileno())
      os.replace(path, self._at(name))
    else:
      self._files.put_file(path, self._at(name))

  def fetch(self, name: str, path: str) -> None:
    """Copies a file to a path of this machine."""
    self._files.get_file(self._at(name), path)

  def delete(self) -> None:
    """Removes the folder and all that is in it."""
    self._files.rm(self._path, recursive=True)

  def _at(self, name: str) -> str:
    return f'{self._path}/{name}'


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
