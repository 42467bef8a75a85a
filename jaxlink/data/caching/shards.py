"""The two functions that build a cache, wherever they run: read a part of a source, write a shard.

  read_part     runs the task on its part of the source. Documents are gathered up to a bound,
                sorted by output shard and by a hash of their key, and written as a *run*; a part's
                runs make one file.
  cache_shard   merges the runs of all parts for its shard, and writes the shard's blocks.

A process pool (`jaxlink.data.caching.build`) and Beam (`jaxlink.data.caching.beam`) call the same two, which meet in
a work folder: a disk, or a bucket (`machine.Store`). Beam has an exchange of its own, GroupByKey,
which is not used: its groups come unsorted, so that each would have to be held or sorted again, and
what a killed pipeline had read would be lost. Here memory does not grow with the source (a run's
documents in a reader, one frame of each run in a writer), and what is done is found by who restarts.

Each part and each shard is done once its .json is there, which is written last. Both functions
may run twice, even at once, as Beam allows itself: the bytes are the same, and files appear whole.

Easy to get wrong: the order. It is a function of the documents alone (equal hashes are equal
documents, of which any may come first), so readers, runs and restarts do not change a byte.
"""

import collections
import dataclasses
import heapq
import itertools
import operator
import os
import pickle
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import cleaning, register
from jaxlink.data.caching import cache_plan, machine, rewriting
from jaxlink.link import draws
from jaxlink.link.policy import DOSE_FIELDS

TEMPORARY = 'tmp-'  # begins the name of what only the building needs
_REPORT_EVERY = 64  # documents between two reports of a reader
_RUN = 512 << 20  # bytes of documents that a reader holds
_FRAME = 1 << 20  # bytes of documents that are read at a time, of each run

_Ordered = tuple[int, blocks_lib.Encoded]


@dataclasses.dataclass(frozen=True)
class Job:
  """A cache to be built, and how the work is divided; it can be sent to another machine.

  Attributes:
    work: folder, or URL that fsspec knows, in which readers and writers meet.
    parts: of the source, each read in one go.
    probability: from `rewriting.probability`.
  """

  plan: cache_plan.Plan
  work: str
  parts: int
  probability: float | None

  @property
  def tokenizer(self) -> str:
    """The name of the tokenizer's file in the work folder."""
    return f'{TEMPORARY}tokenizer{os.path.splitext(self.plan.tokenizer)[1]}'

  def part(self, part: int) -> str:
    """The name of a part's files, without its suffix."""
    return f'{TEMPORARY}part-{part:05d}-of-{self.parts:05d}'

  def shard(self, shard: int) -> str:
    """The name of the file that says that a shard is done, without its suffix."""
    return f'{TEMPORARY}shard-{shard:05d}'


def give_tokenizer(job: Job) -> None:
  """Puts the tokenizer into the work folder, for workers that have no file of its name."""
  store = machine.Store(job.work)
  if not store.exists(job.tokenizer):
    with store.scratch() as scratch:
      path = shutil.copy(job.plan.tokenizer, os.path.join(scratch, 'tokenizer'))
      store.keep(path, job.tokenizer)


def read_part(job: Job, part: int) -> Iterator[dict[str, Any]]:
  """Reads one part of the source, if that is not done.

  Yields:
    'documents' and 'tokens' since the last time, while it reads; in the end 'part', the part's
    counts, and its 'dose'.
  """
  store, name = machine.Store(job.work), job.part(part)
  if not store.exists(f'{name}.json'):
    counts: collections.Counter[str] = collections.Counter()
    dose = np.zeros(len(DOSE_FIELDS), np.int64)
    since = {'documents': 0, 'tokens': 0}
    with store.scratch() as scratch:
      plan = _plan_here(job, store, scratch)
      task = cleaning.prepared(rewriting.linked_task(plan, job.probability), job, part)
      path = os.path.join(scratch, 'documents')
      with open(path, 'wb') as file:
        runs = _RunWriter(file, plan.settings.shards)
        examples = cache_plan.examples_of(task, plan, job.parts, part)
        for number, example in enumerate(examples):
          document, one = cache_plan.encode(example)
          counts.update(one)
          if not example.get('removed'):
            dose += example.get('dose', 0)
          if document is not None:
            runs.add(document)
          since = {k: since[k] + one[k] for k in since}
          if number % _REPORT_EVERY == 0:
            yield since
            since = dict.fromkeys(since, 0)
        runs.flush()
      yield since
      store.keep(path, f'{name}.runs')
    rejected = None
    if isinstance(task.source, register.TextSource):
      rejected = task.source.rejected(job.plan.split, part, job.parts)
    store.write_json(
      f'{name}.json',
      {'part': counts, 'dose': dose.tolist(), 'rejected': rejected, 'runs': runs.index},
    )
  done = store.read_json(f'{name}.json')
  del done['runs']
  yield done


def cache_shard(job: Job, shard: int) -> Iterator[dict[str, Any]]:
  """Writes one shard from the runs of all parts, if that is not done; yields its counts."""
  store, name = machine.Store(job.work), f'{job.shard(shard)}.json'
  if not store.exists(name):
    runs = []
    for part in range(job.parts):
      file = job.part(part)
      for offsets in store.read_json(f'{file}.json')['runs']:
        runs.append(_read_run(store, f'{file}.runs', offsets[shard]))
    with store.scratch() as scratch:
      tokenizer = cache_plan.describe_tokenizer(_plan_here(job, store, scratch))
      writer = blocks_lib.ShardWriter(
        scratch,
        shard,
        block=job.plan.settings.block,
        size=tokenizer['size'],
        bos=tokenizer['bos'],
        eos=tokenizer['eos'],
      )
      for _, document in heapq.merge(*runs, key=operator.itemgetter(0)):
        writer.add(document)
      counts = writer.close()
      for file in blocks_lib.shard_files(shard).values():
        store.keep(os.path.join(scratch, file), file)
    store.write_json(name, {'shard': {'shard': shard, **counts}})
  yield store.read_json(name)


def _plan_here(job: Job, store: machine.Store, scratch: str) -> cache_plan.Plan:
  """Returns the plan with a tokenizer that is on this machine."""
  if os.path.exists(job.plan.tokenizer):
    return job.plan
  path = os.path.join(scratch, job.tokenizer)
  store.fetch(job.tokenizer, path)
  return dataclasses.replace(job.plan, tokenizer=path)


class _RunWriter:
  """Writes documents as runs: by shard, in order, in frames.

  Attributes:
    index: for each run and shard, where its frames begin in the file, and where the last one ends.
  """

  def __init__(self, file: BinaryIO, shards: int):
    self._file = file
    self._shards: list[list[_Ordered]] = [[] for _ in range(shards)]
    self._size = 0
    self.index: list[list[list[int]]] = []

  def add(self, document: blocks_lib.Encoded) -> None:
    order = draws.key_of(f'order of document {document.key}')
    self._shards[order % len(self._shards)].append((order, document))
    self._size += _size(document)
    if self._size >= _RUN:
      self.flush()

  def flush(self) -> None:
    """Writes what is held as a run."""
    if not self._size:
      return
    self.index.append([self._write(documents) for documents in self._shards])
    self._shards, self._size = [[] for _ in self._shards], 0

  def _write(self, documents: list[_Ordered]) -> list[int]:
    documents.sort(key=operator.itemgetter(0))
    offsets, frame, size = [self._file.tell()], [], 0
    for number, ordered in enumerate(documents, 1):
      frame.append(ordered)
      size += _size(ordered[1])
      if size >= _FRAME or number == len(documents):
        pickle.dump(frame, self._file, pickle.HIGHEST_PROTOCOL)
        offsets.append(self._file.tell())
        frame, size = [], 0
    return offsets


def _read_run(store: machine.Store, name: str, offsets: list[int]) -> Iterator[_Ordered]:
  for begin, end in itertools.pairwise(offsets):
    yield from pickle.loads(store.read(name, begin, end))


def _size(document: blocks_lib.Encoded) -> int:
  """Roughly the bytes of memory that a document takes."""
  return 500 + document.tokens.nbytes + document.words.nbytes + 80 * len(document.types)
