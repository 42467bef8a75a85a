"""Builds a cache: a SeqIO task's documents, tokenised, marked, shuffled and cut into blocks.

  plan      the task and everything its content depends on → a fingerprint (`cache_plan`)
  read      each reader runs the task on its part of the source (`shards.read_part`)
  write     each output shard gathers its documents and writes its blocks (`shards.cache_shard`)
  commit    the manifest is written and the folder renamed to its final name

Reading and writing are done by processes of this machine, or by a Beam pipeline (`beam`); the files are the
same. SeqIO draws the seeds of a random preprocessor by an example's place in its part, so a task with
such a step is read in one part. The work lies in `<folder>.building`; parts already read or
written are kept by a restart.

Easy to get wrong: a cache that looks whole and is not. Nothing exists under the final name before
the rename, and its name is its fingerprint, so another task's or an older cache is never opened.
"""

import collections
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tqdm

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import cleaning, existing, register, registry
from jaxlink.data import fingerprint as fingerprint_lib
from jaxlink.data.caching import beam as beam_lib
from jaxlink.data.caching import cache_plan, machine, rewriting
from jaxlink.data.caching import shards as shards_lib

# A small source is read in this process: starting workers takes longer (a TensorFlow import each).
_SMALL = 32 << 20  # bytes on disk
_PART = 8 << 20  # bytes on disk: a restart does at most this much again for each reader
_MOST_PARTS = 64  # for one file is read by all of its parts
_SAY_EVERY = 10  # seconds, where there is no terminal for a bar


def build(
  plan: cache_plan.Plan,
  *,
  processes: int = 0,
  progress: bool = True,
  beam: beam_lib.Beam | None = None,
) -> blocks_lib.Blocks:
  """Opens a cache, building it first if it is not there.

  Args:
    plan: from `plan`.
    processes: readers and writers at a time; 0 chooses by the source's size and the cores.
    progress: whether to draw a bar.
    beam: the pipeline that builds it instead of processes of this machine.

  Raises:
    ValueError: the source holds no text.
  """
  os.makedirs(os.path.dirname(plan.folder), exist_ok=True)
  with machine.lock(plan.folder + '.lock'):
    if not plan.exists:
      if not os.path.exists(os.path.join(plan.work, blocks_lib.MANIFEST)):
        _build(plan, processes, progress, beam)
      _commit(plan)
  return blocks_lib.Blocks(plan.folder)


def read_tokenizer(plan: cache_plan.Plan) -> dict[str, Any]:
  """Returns the tokenizer's entry of a built cache, with the path of the copy that lies in it."""
  tokenizer = blocks_lib.Blocks(plan.folder).manifest['tokenizer']
  return {**tokenizer, 'path': os.path.join(plan.folder, tokenizer['path'])}


def _build(
  plan: cache_plan.Plan, processes: int, progress: bool, beam: beam_lib.Beam | None
) -> None:
  """Does what is not done yet of the work, and writes the manifest."""
  os.makedirs(plan.work, exist_ok=True)
  task = plan.get_task()
  files = task.source.list_shards(plan.split)
  before = _statuses(files)
  size = sum(fingerprint_lib.size(f) for f in files if cache_plan.is_file(f))
  parts = len(files)
  if task.source.supports_arbitrary_sharding:
    # As many as the source's size asks for, not as there are cores: a restart may have others.
    parts = max(1, min(max(parts, _MOST_PARTS), -(-size // _PART)))
  if cache_plan.draws_by_place(task, plan.split):
    parts = 1
  probability, shortfall = rewriting.probability(plan)
  here = machine.absolute(plan.work)
  job = shards_lib.Job(plan, beam.work(plan) if beam else here, parts, probability)
  store = machine.Store(job.work)
  shards_lib.give_tokenizer(job)
  shards = range(plan.settings.shards)
  processes = processes or (1 if size < _SMALL else os.cpu_count() or 1)
  cleaning.prepare(job, processes)
  if beam:
    beam_lib.run(job, beam, progress=progress)
    counts, dose, rejected = _gather(job, store, task)
  else:
    with machine.pool(min(processes, max(parts, plan.settings.shards))) as run:
      with _bar(plan, task, parts, progress) as report:
        for event in run(shards_lib.read_part, [(job, part) for part in range(parts)]):
          report(event)
      counts, dose, rejected = _gather(job, store, task)
      collections.deque(run(shards_lib.cache_shard, [(job, s) for s in shards]), maxlen=0)
  if _statuses(task.source.list_shards(plan.split)) != before:
    store.delete()
    shutil.rmtree(plan.work, ignore_errors=True)
    raise ValueError(
      f'{plan.name}: its files changed while the cache was built, which is therefore of no text. Start again.'
    )
  written = [store.read_json(f'{job.shard(s)}.json')['shard'] for s in shards]
  totals = {
    k: sum(s[k] for s in written)
    for k in ('documents', 'tokens', 'words', 'unspliceable_words', 'blocks')
  }
  manifest = {
    'format': blocks_lib.FORMAT,
    'name': plan.name,
    'task': plan.task,
    'split': plan.split,
    'language': registry.LANGUAGES.get(plan.task, plan.task),
    'fingerprint': plan.fingerprint,
    'block': plan.settings.block,
    'tokenizer': cache_plan.describe_tokenizer(plan),
    'marked': existing.marking_step(task) is not None,
    **totals,
    'bytes': counts['bytes'],
    'decoded_documents': counts['decoded'],
    'empty_documents': counts['empty'],
    'rejected_lines': counts['rejected'],
    'rejected': rejected,
    **cleaning.summary(counts, job),
    'dose': rewriting.count_dose(plan, dose, counts, probability, shortfall) if plan.link else None,
    'examples': rewriting.show_sentences(plan, probability) if plan.link else [],
    'ingredients': plan.ingredients,
    'shards': written,
  }
  tokenizer = manifest['tokenizer']
  shutil.copyfile(tokenizer['path'], os.path.join(plan.work, os.path.basename(tokenizer['path'])))
  tokenizer['path'] = os.path.basename(tokenizer['path'])
  if job.work != here:
    for name in (name for s in shards for name in blocks_lib.shard_files(s).values()):
      store.fetch(name, os.path.join(plan.work, name))
  machine.write_json(os.path.join(plan.work, blocks_lib.MANIFEST), manifest)
  if job.work != here:
    store.delete()


def _statuses(files: Sequence[str]) -> list[Any]:
  """What tells a file from another of its name, without reading it."""
  return [(f, fingerprint_lib.file_status(f)) for f in files if cache_plan.is_file(f)]


def _gather(
  job: shards_lib.Job, store: machine.Store, task: seqio.Task
) -> tuple[collections.Counter[str], np.ndarray, dict[str, Any] | None]:
  """Adds up what the readers counted: counts, dose, and what was rejected where the source tells.

  Raises:
    ValueError: there is no text, or too much of it is bad.
  """
  plan = job.plan
  found = [store.read_json(f'{job.part(part)}.json') for part in range(job.parts)]
  counts: collections.Counter[str] = collections.Counter()
  for part in found:
    counts.update(part['part'])
  rejected = None  # what other sources pass over is theirs to say
  if isinstance(task.source, register.TextSource):
    rejected = task.source.gather(plan.split, [part['rejected'] for part in found])
    counts['rejected'] = rejected['total']
  if not counts['documents']:
    store.delete()
    shutil.rmtree(plan.work, ignore_errors=True)
    files = task.source.list_shards(plan.split)
    raise ValueError(
      f'{plan.name} holds no text: {len(files)} files, {counts["empty"]} empty documents, '
      f'{counts["rejected"]} bad lines, '
      f'{sum(n for key, n in counts.items() if key.startswith("removed:"))} removed by cleaning.'
    )
  return counts, np.sum([part['dose'] for part in found], axis=0), rejected


def _commit(plan: cache_plan.Plan) -> None:
  """Drops what only the building needed, and renames the folder."""
  for name in os.listdir(plan.work):
    if name.startswith(shards_lib.TEMPORARY):
      path = os.path.join(plan.work, name)
      shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
  os.rename(plan.work, plan.folder)


# ── the bar ───────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _bar(plan: cache_plan.Plan, task: seqio.Task, parts: int, progress: bool) -> Iterator[Any]:
  """Yields a function that takes events; the total is estimated from the documents or parts done.

  Without a terminal it is a line now and then instead of a bar.
  """
  documents = _count_documents(task, plan.split) if progress and parts == 1 else None
  done = {'documents': 0, 'tokens': 0, 'parts': 0}
  lines = progress and not sys.stderr.isatty()
  bar = tqdm.tqdm(
    desc=f'caching {plan.name}', unit=' tokens', unit_scale=True, disable=lines or not progress
  )
  started = said = time.monotonic()
  with bar:

    def report(event: dict[str, Any]) -> None:
      nonlocal said
      if 'part' in event:
        done['parts'] += 1
      else:
        done['documents'] += event['documents']
        done['tokens'] += event['tokens']
        bar.update(event['tokens'])
      share = done['documents'] / documents if documents else done['parts'] / parts
      if share:
        bar.total = max(bar.n, int(done['tokens'] / share))
      now = time.monotonic()
      if lines and now - said >= _SAY_EVERY:
        said, passed = now, now - started
        left = f', {max(0.0, passed / share - passed):,.0f} s left' if share else ''
        print(
          f'caching {plan.name}: {done["tokens"]:,} tokens, {done["tokens"] / passed:,.0f} a second'
          f'{left}',
          file=sys.stderr, flush=True,
        )  # fmt: skip

    yield report


def _count_documents(task: seqio.Task, split: str) -> int | None:
  known = task.source.num_input_examples(split)
  if known is None and isinstance(task.source, register.TextSource):
    known = sum(d.text is not None for d in task.source.documents(split))
  return known
