"""Builds a cache: a SeqIO task's documents, tokenised, marked, shuffled and cut into blocks.

  plan      the task and everything its content depends on → a fingerprint (`cache_plan`)
  read      each reader runs the task on its part of the source, and writes its documents to one
            file, sorted by output shard: a hash of their key decides
  write     each output shard gathers its documents, orders them by that hash, and writes its blocks
  commit    the manifest is written and the folder renamed to its final name

The order is a function of the documents alone: readers, processes and restarts do not change a
byte. SeqIO draws the seeds of a random preprocessor by an example's place in its part, so a task
with such a step is read in one part. The work lies in `<folder>.building`; parts already read or
written are kept by a restart.

Easy to get wrong: a cache that looks whole and is not. Nothing exists under the final name before
the rename, and its name is its fingerprint, so another task's or an older cache is never opened.
"""

import collections
import contextlib
import json
import os
import pickle
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import seqio
import tqdm

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import cache_plan, machine, register, registry, rewriting
from jaxlink.data import fingerprint as fingerprint_lib
from jaxlink.link import draws
from jaxlink.link.policy import DOSE_FIELDS

_REPORT_EVERY = 64  # documents between two reports of a reader
# A small source is read in this process: starting workers takes longer (a TensorFlow import each).
_SMALL = 32 << 20  # bytes on disk
_PART = 64 << 20  # bytes on disk read into memory at a time by one reader
_MOST_PARTS = 64  # for one file is read by all of its parts
_TEMPORARY = 'tmp-'
_SAY_EVERY = 10  # seconds, where there is no terminal for a bar


def build(plan: cache_plan.Plan, *, processes: int = 0, progress: bool = True) -> blocks_lib.Blocks:
  """Opens a cache, building it first if it is not there.

  Args:
    plan: from `plan`.
    processes: readers and writers at a time; 0 chooses by the source's size and the cores.
    progress: whether to draw a bar.

  Raises:
    ValueError: the source holds no text.
  """
  os.makedirs(os.path.dirname(plan.folder), exist_ok=True)
  with machine.lock(plan.folder + '.lock'):
    if not plan.exists:
      if not os.path.exists(os.path.join(plan.work, blocks_lib.MANIFEST)):
        _build(plan, processes, progress)
      _commit(plan)
  return blocks_lib.Blocks(plan.folder)


def read_tokenizer(plan: cache_plan.Plan) -> dict[str, Any]:
  """Returns the tokenizer's entry of a built cache, with the path of the copy that lies in it."""
  tokenizer = blocks_lib.Blocks(plan.folder).manifest['tokenizer']
  return {**tokenizer, 'path': os.path.join(plan.folder, tokenizer['path'])}


def _build(plan: cache_plan.Plan, processes: int, progress: bool) -> None:
  """Does what is not done yet of the work, and writes the manifest."""
  started = time.time()
  os.makedirs(plan.work, exist_ok=True)
  task = plan.get_task()
  files = task.source.list_shards(plan.split)
  size = sum(fingerprint_lib.size(f) for f in files if cache_plan.is_file(f))
  parts = len(files)
  if task.source.supports_arbitrary_sharding:
    # As many as the source's size asks for, not as there are cores: a restart may have others.
    parts = 1 if size < _SMALL else max(parts, min(_MOST_PARTS, -(-size // _PART)))
  if cache_plan.draws_by_place(task, plan.split):
    parts = 1
  processes = processes or (1 if size < _SMALL else os.cpu_count() or 1)
  counts: collections.Counter[str] = collections.Counter()
  dose: np.ndarray | int = 0
  shards = []
  with machine.pool(min(processes, max(parts, plan.settings.shards))) as run:
    with _bar(plan, task, parts, progress) as report:
      probability, shortfall = rewriting.probability(plan)
      for event in run(_read_part, [(plan, probability, parts, part) for part in range(parts)]):
        report(event)
        if 'part' in event:
          counts.update(event['part'])
          dose = dose + np.array(event['dose'])
    if isinstance(task.source, register.TextSource):
      counts['rejected'] = task.source.rejected(plan.split)
    if not counts['documents']:
      shutil.rmtree(plan.work)
      raise ValueError(
        f'{plan.name} holds no text: {len(files)} files, {counts["empty"]} empty documents, '
        f'{counts["rejected"]} bad lines.'
      )
    for event in run(_write_shard, [(plan, parts, s) for s in range(plan.settings.shards)]):
      shards.append(event['shard'])
  shards.sort(key=lambda s: s['shard'])
  totals = {
    k: sum(s[k] for s in shards)
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
    'tokenizer': cache_plan.describe_tokenizer(task.output_features['targets'].vocabulary),
    **totals,
    'bytes': counts['bytes'],
    'empty_documents': counts['empty'],
    'rejected_lines': counts['rejected'],
    'dose': rewriting.count_dose(plan, dose, counts, probability, shortfall) if plan.link else None,
    'examples': rewriting.show_sentences(plan, probability) if plan.link else [],
    'ingredients': plan.ingredients,
    'seconds': round(time.time() - started, 1),
    'shards': shards,
  }
  tokenizer = manifest['tokenizer']
  if tokenizer['path']:
    shutil.copyfile(tokenizer['path'], os.path.join(plan.work, os.path.basename(tokenizer['path'])))
    tokenizer['path'] = os.path.basename(tokenizer['path'])
  machine.write_json(os.path.join(plan.work, blocks_lib.MANIFEST), manifest)


def _commit(plan: cache_plan.Plan) -> None:
  """Drops what only the building needed, and renames the folder."""
  for name in os.listdir(plan.work):
    if name.startswith(_TEMPORARY):
      path = os.path.join(plan.work, name)
      shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
  os.rename(plan.work, plan.folder)


# ── reading: documents of one part of the source, sorted by output shard ──────────────────────────

_DOCUMENTS = 'documents.pickle'  # of a part: where each shard's documents begin, then the documents


def _read_part(
  plan: cache_plan.Plan, probability: float | None, parts: int, part: int
) -> Iterator[dict]:
  """Reads one part into a folder of its own; yields events for the bar."""
  folder = os.path.join(plan.work, f'{_TEMPORARY}part-{part:05d}-of-{parts:05d}')
  done = os.path.join(folder, 'counts.json')
  if not os.path.exists(done):
    partial = folder + '.partial'
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(partial)
    shards: list[list[tuple[int, blocks_lib.Encoded]]] = [[] for _ in range(plan.settings.shards)]
    counts: collections.Counter[str] = collections.Counter()
    dose = np.zeros(len(DOSE_FIELDS), np.int64)
    since = {'documents': 0, 'tokens': 0}
    for number, example in enumerate(
      cache_plan.examples_of(rewriting.linked_task(plan, probability), plan, parts, part)
    ):
      document, one = cache_plan.encode(example)
      counts.update(one)
      dose += example.get('dose', 0)
      if document is not None:
        order = draws.key_of(f'order of document {document.key}')
        shards[order % plan.settings.shards].append((order, document))
      since = {k: since[k] + one[k] for k in since}
      if number % _REPORT_EVERY == 0:
        yield since
        since = dict.fromkeys(since, 0)
    yield since
    with open(os.path.join(partial, _DOCUMENTS), 'wb') as file:
      offsets = [0] * len(shards)
      file.write(np.array(offsets, '<u8').tobytes())
      for shard, documents in enumerate(shards):
        offsets[shard] = file.tell()
        pickle.dump(documents, file)
      file.seek(0)
      file.write(np.array(offsets, '<u8').tobytes())
    machine.write_json(
      os.path.join(partial, 'counts.json'), {'part': counts, 'dose': dose.tolist()}
    )
    os.rename(partial, folder)
  with open(done, encoding='utf-8') as file:
    yield json.load(file)


# ── writing: one output shard ─────────────────────────────────────────────────────────────────────


def _write_shard(plan: cache_plan.Plan, parts: int, shard: int) -> Iterator[dict[str, Any]]:
  done = os.path.join(plan.work, f'{_TEMPORARY}shard-{shard:05d}.json')
  if not os.path.exists(done):
    documents: list[tuple[int, blocks_lib.Encoded]] = []
    for part in range(parts):
      folder = os.path.join(plan.work, f'{_TEMPORARY}part-{part:05d}-of-{parts:05d}')
      with open(os.path.join(folder, _DOCUMENTS), 'rb') as file:
        file.seek(8 * shard)
        file.seek(int.from_bytes(file.read(8), 'little'))
        documents += pickle.load(file)
    # Equal hashes are equal documents, of which any may come first.
    documents.sort(key=lambda pair: pair[0])
    tokenizer = cache_plan.describe_tokenizer(plan.get_task().output_features['targets'].vocabulary)
    writer = blocks_lib.ShardWriter(
      plan.work,
      shard,
      block=plan.settings.block,
      size=tokenizer['size'],
      bos=tokenizer['bos'],
      eos=tokenizer['eos'],
    )
    for _, document in documents:
      writer.add(document)
    machine.write_json(done, {'shard': {'shard': shard, **writer.close()}})
  with open(done, encoding='utf-8') as file:
    yield json.load(file)


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
