"""From sources to the device: batch `step` of a run as global arrays on the mesh.

`Batches` is the definition: pure NumPy, row b of batch `step` is sequence phase + step*B + b of the
mixture, of a stage whose steps are counted from 0. It needs no device, no history and no other host. `Loader` is the delivery: Grain reads
whole steps ahead in threads or processes, each host reads the rows that its devices hold, and the
rows become global jax.Arrays. What is checkpointed is the step and `Batches.fingerprint`; to resume
is to start a loader at that step.

A batch is a dict of arrays, all with leading axis B:
  tokens, labels (B, T) int32; loss_mask (B, T) bool; segments (B, T) int32, 1, 2, ... in a row;
  positions (B, T) int32; source (B,) int32, an index into the mixture's names; and where a source has
  LINK, counts (B, C) int32, see `Batches.count_names`.

Easy to get wrong: which rows a host reads. It is a property of the sharding, not of process_index:
with a tensor or sequence axis across hosts, several of them need the same rows.
"""

import functools
import hashlib
import math
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from jaxlink.data.linked import LinkedWindows, counts_of
from jaxlink.data.mixing.scheduled import ScheduledMixture
from jaxlink.data.mixture import Mixture
from jaxlink.data.windows import Windows

_BY_ROW = ('source', 'counts')  # have no axis of length T


class Batches:
  """The batches of a run, each a function of its number alone.

  Attributes:
    mixture: which source gives which sequence.
    windows: the sources' sequences, in the mixture's order.
    batch: B, sequences to a global batch.
    length: T, tokens to a sequence.
    firsts: each source's first sequence here: those before it were read earlier.
    phase: the mixture's sequence that is row 0 of batch 0.
    count_names: what is counted of each row's substitution; () if no source has LINK.
    fingerprint: changes with everything that the batches depend on: the sources' content, their
      names and shares, seeds, origins, where they begin, T and B.
  """

  def __init__(
    self,
    mixture: Mixture | ScheduledMixture,
    windows: Sequence[Windows | LinkedWindows],
    batch: int,
    *,
    firsts: Sequence[int] = (),
    phase: int = 0,
  ):
    """Joins a mixture and its sources.

    Args:
      mixture: of the sources named as `windows` are.
      windows: one for each source, in the mixture's order, all of one length.
      batch: B, ≥ 1.
      firsts: one for each source, ≥ 0; () begins all at 0.
      phase: ≥ 0.

    Raises:
      ValueError: the sources' names are not the mixture's, their lengths differ, or B is no count.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
      raise ValueError(f'batch is {batch!r}: it is a whole number of sequences, at least 1.')
    names = tuple(w.blocks.name for w in windows)
    if names != mixture.names:
      raise ValueError(
        f'windows of {list(names)} for a mixture of {list(mixture.names)}: one for each source, '
        'in the same order.'
      )
    lengths = {w.length for w in windows}
    if len(lengths) > 1:
      raise ValueError(
        f'windows of {sorted(lengths)} tokens in one mixture: its shares are shares of tokens only '
        'if all sequences have one length.'
      )
    self.mixture, self.windows, self.batch = mixture, tuple(windows), batch
    self.firsts, self.phase = tuple(firsts) or (0,) * len(names), phase
    self._passed = mixture.counts(phase)
    self.length = lengths.pop()
    linked = [w for w in windows if isinstance(w, LinkedWindows)]
    languages = dict.fromkeys(language for w in linked for language in w.table.languages)
    self.count_names = counts_of(tuple(languages)) if linked else ()
    what = [
      f'batches 2/{batch}/{phase}/{mixture.key}',
      *(f'{first}/{w.fingerprint}' for first, w in zip(self.firsts, windows, strict=True)),
    ]
    self.fingerprint = hashlib.sha256('\n'.join(what).encode()).hexdigest()

  def counts(self, step: int) -> np.ndarray:
    """How many sequences of each source the first `step` batches hold, int64."""
    return self.mixture.counts(self.phase + step * self.batch) - self._passed

  def read(self, step: int, rows: ArrayLike) -> dict[str, np.ndarray]:
    """Reads rows of one batch.

    Args:
      step: which batch, ≥ 0.
      rows: N rows of it, each in [0, B), in any order.

    Returns:
      The batch's arrays (see the module) with N in place of B, row by row as asked.

    Raises:
      ValueError: the step is negative, or a row is not in the batch.
    """
    rows = np.asarray(rows, np.int64)
    if step < 0 or (rows.size and not (rows.min() >= 0 and rows.max() < self.batch)):
      raise ValueError(
        f'rows {rows.tolist()} of batch {step}: batches are counted from 0 and have {self.batch} '
        'rows.'
      )
    sequence_N = self.phase + step * self.batch + rows
    source_N = self.mixture.source_of(sequence_N)
    within_N = self.mixture.index_within(sequence_N)
    within_N = within_N + (np.array(self.firsts, np.int64) - self._passed)[source_N]
    out: dict[str, np.ndarray] = {}
    if self.count_names:
      out['counts'] = np.zeros((len(rows), len(self.count_names)), np.int32)
    tokens = step * self.batch * self.length
    for source in np.unique(source_N).tolist():
      here = np.flatnonzero(source_N == source)
      window = self.windows[source]
      for name, array in window.rows(within_N[here], tokens).items():
        if name == 'counts':
          names = window.names
          if len(window.table.languages) == 1 and len(self.count_names) > len(names):
            names = (*names, f'replaced_{window.table.languages[0]}')
            array = np.append(array, array[:, names.index('replaced'), None], axis=1)
          out[name][np.ix_(here, [self.count_names.index(n) for n in names])] = array
          continue
        if name not in out:
          out[name] = np.empty((len(rows), *array.shape[1:]), array.dtype)
        out[name][here] = array
    out['source'] = source_N
    return out


def abstract_batch(batches: Batches, sharding: NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
  """What a loader's batches look like, for compiling a step before there are any.

  Args:
    batches: the run's batches.
    sharding: of the (B, T) arrays; the (B,) array is cut as their rows are.

  Returns:
    Global shapes, dtypes and shardings by name.

  Raises:
    ValueError: the mesh does not divide B or T evenly.
  """
  spec = (*sharding.spec, None, None)[:2]
  cuts = (
    ('the batch', batches.batch, 'sequences', spec[0]),
    ('a sequence', batches.length, 'tokens', spec[1]),
  )
  for what, size, unit, axes in cuts:
    axes = (axes,) if isinstance(axes, str) else (axes or ())
    parts = math.prod(sharding.mesh.shape[axis] for axis in axes)
    if size % parts:
      cut = ' x '.join(f'{axis} {sharding.mesh.shape[axis]}' for axis in axes)
      raise ValueError(
        f'{what} is {size} {unit} and the mesh cuts it into {parts} parts ({cut}): {size} is not '
        f'a multiple of {parts}.'
      )
  example = batches.read(0, [0])
  return {
    name: jax.ShapeDtypeStruct(
      (batches.batch, *array.shape[1:]),
      array.dtype,
      sharding=NamedSharding(sharding.mesh, PartitionSpec(*spec[: 1 if name in _BY_ROW else 2])),
    )
    for name, array in example.items()
  }


class Loader:
  """The batches start, start + 1, ... stop - 1 of a run, in order, read ahead, on the mesh.

      with Loader(batches, sharding, start=step, stop=steps) as loader:
        for step in range(step, steps):
          state, metrics = train_step(state, loader[step])

  Attributes:
    abstract: shapes, dtypes and shardings of a batch, see `abstract_batch`.
    rows: the rows of each global batch that this process reads, each once, ascending.
    wait_seconds: time that the caller has spent waiting for rows that were not there yet.
  """

  def __init__(
    self,
    batches: Batches,
    sharding: NamedSharding,
    *,
    start: int,
    stop: int,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
  ):
    """Starts reading ahead; worker processes start when the first step is asked.

    Args:
      batches: what to read.
      sharding: of the (B, T) arrays, on the mesh of all processes. T may be cut too.
      start: the first step.
      stop: the step after the last, ≥ start.
      workers: processes that read ahead; 0 reads ahead in this process, where Python's lock is
        shared with the training loop. The batches do not depend on it.
      threads: that read whole steps, in each reading process; at least 1.
      prefetch: steps read ahead in each reading process; at least 1.

    Raises:
      ValueError: a number is out of range, or the mesh does not divide B or T evenly.
    """
    for name, value, least in (
      ('start', start, 0),
      ('stop', stop, start),
      ('workers', workers, 0),
      ('threads', threads, 1),
      ('prefetch', prefetch, 1),
    ):
      if value < least:
        raise ValueError(f'Loader.{name} is {value}: it is at least {least}.')
    self.abstract = abstract_batch(batches, sharding)
    self.rows = _addressable_rows(sharding, (batches.batch, batches.length))
    self.wait_seconds = 0.0
    self._next, self._stop = start, stop
    if workers and not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain reads its absl flags when it starts processes
    steps = (
      grain.MapDataset.range(start, stop)
      .map(functools.partial(_read, batches, self.rows))
      .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
      .mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch),
        worker_init_fn=_begin_worker,
      )
    )
    iterator = iter(steps)
    iterator.start_prefetch()
    # In a list, so that closing drops the iterator too: what is left for the interpreter's exit to
    # collect finds Grain's modules gone.
    self._steps = [iterator]
    del iterator
    self._close = weakref.finalize(self, _close, self._steps)

  def __getitem__(self, step: int) -> dict[str, jax.Array]:
    """Batch `step` as global arrays; steps are asked in order, each once.

    Raises:
      ValueError: another step is due, or the loader is closed.
      Exception: whatever reading raised, in whichever thread or process; the step is noted and the
        loader is closed.
    """
    if not self._close.alive:
      raise ValueError(f'step {step} was asked of a closed loader.')
    if step != self._next or step >= self._stop:
      due = f'step {self._next} is due' if self._next < self._stop else 'it is at its end'
      raise ValueError(
        f'step {step} was asked of a loader that gives its steps in order up to {self._stop}: '
        f'{due}. A loader that starts elsewhere costs nothing: Loader(..., start={step}).'
      )
    began = time.perf_counter()
    try:
      local = next(self._steps[0])
    except Exception as error:
      error.add_note(f'while batch {step} was read')
      self.close()  # Grain would go on with the step after the one that failed
      raise
    self.wait_seconds += time.perf_counter() - began
    self._next = step + 1
    # What a worker read lies in shared memory: copied, for jax may keep it where it is (on CPU).
    return {name: self._put(self.abstract[name], np.array(array)) for name, array in local.items()}

  def __iter__(self) -> Iterator[dict[str, jax.Array]]:
    """The batches from the one that is due."""
    while self._next < self._stop:
      yield self[self._next]

  def __len__(self) -> int:
    """How many batches are still to come."""
    return self._stop - self._next

  def close(self) -> None:
    """Stops reading ahead and ends the worker processes; may be called twice."""
    self._close()

  def __enter__(self) -> 'Loader':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self.close()

  def _put(self, abstract: jax.ShapeDtypeStruct, local: np.ndarray) -> jax.Array:
    """A global array of which this process holds `self.rows`."""
    indices = abstract.sharding.addressable_devices_indices_map(abstract.shape)
    shards = []
    for first, *rest in indices.values():
      start, end, _ = first.indices(abstract.shape[0])
      row = np.searchsorted(self.rows, start)  # a shard's rows are neighbours here too
      shards.append(local[(slice(row, row + end - start), *rest)])
    # make_array_from_callback would do, but counts as an implicit transfer (jax 0.10.2).
    shards = jax.device_put(shards, list(indices))
    return jax.make_array_from_single_device_arrays(abstract.shape, abstract.sharding, shards)


def digest(batch: Mapping[str, ArrayLike]) -> str:
  """SHA-256 of a whole batch: names, dtypes, shapes and content.

  Args:
    batch: NumPy arrays, or jax.Arrays of which this process holds every shard.

  Returns:
    64 hexadecimal digits; equal for equal batches wherever they are held.
  """
  total = hashlib.sha256()
  for name in sorted(batch):
    array = np.ascontiguousarray(batch[name])
    total.update(f'{name} {array.dtype.str} {array.shape}\n'.encode())
    total.update(array.tobytes())
  return total.hexdigest()


def _read(batches: Batches, rows: np.ndarray, step: int) -> dict[str, np.ndarray]:
  return batches.read(int(step), rows)


def _close(steps: list) -> None:
  steps.pop().close()


def _begin_worker(index: int, count: int) -> None:
  """Lives exactly as long as the parent wants: past a signal to the group, not past its death.

  Ctrl-C and a scheduler's SIGTERM reach the whole process group; the parent then still has batches
  to read before it saves. A parent that is killed leaves nobody to end its workers.
  """
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)

  def follow() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _addressable_rows(sharding: NamedSharding, shape: tuple[int, int]) -> np.ndarray:
  """The rows that this process's devices hold, each once, ascending."""
  held = np.zeros(shape[0], bool)
  for index in sharding.addressable_devices_indices_map(shape).values():
    held[index[0]] = True
  return np.flatnonzero(held)
