"""Cleaning in a cache that is built: tables made before the parts are read, and what was counted.

  prepare(job, processes)      makes the table of each step that compares texts, in the order of the steps
  prepared(task, job, part)    the task with these tables, for the reader of one part
  summary(counts, job)         the manifest's entries: removed, noted, contamination

Indexes and tables lie in the job's work folder, under names that begin with `tmp-cleaning-`: all readers find them
there, a build that was killed goes on with those it had, and none is left in the cache.

Easy to get wrong: a step sees what the steps before it leave, so its table is made from that, and not
from the source.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlink.data.cleaning.compared import Comparing, texts_of
from jaxlink.data.cleaning.contamination import OVERLAP, Contamination, EvaluationSets
from jaxlink.data.cleaning.duplicates import Index, Table
from jaxlink.data.cleaning.steps import NOTED, REMOVED


def prepare(job: Any, processes: int = 1) -> None:
  """Makes the tables that a job's cleaning steps need; returns at once where none does.

  Args:
    job: `jaxlink.data.caching.shards.Job`.
    processes: that index parts of the source at a time.
  """
  task = job.plan.get_task()
  steps = _comparing_steps(task)
  if not steps:
    return
  from jaxlink.data.caching import machine

  store = machine.Store(job.work)
  for at, step in steps:
    if store.exists(_table(at)):
      continue
    names = step.competitors(job.plan.name)
    if isinstance(step, Contamination):
      own = task.source.list_shards(job.plan.split)
      _keep(store, _table(at), step.without(own).make_sets(names))
      continue
    with machine.pool(min(processes, job.parts)) as run:
      collections.deque(run(_index_part, [(job, at, part) for part in range(job.parts)]), maxlen=0)
    with contextlib.ExitStack() as stack:
      scratch = stack.enter_context(store.scratch())
      parts = []
      for part in range(job.parts):
        name = _part(at, job.parts, part)
        store.fetch(name, os.path.join(scratch, name))
        parts.append(stack.enter_context(Index.open(os.path.join(scratch, name))))
      _keep(store, _table(at), step.decide(parts, [step.index(texts_of(n, step)) for n in names]))


def prepared(task: Any, job: Any, part: int) -> Any:
  """Returns a task whose comparing steps have the tables of `prepare`; another task as it is.

  Args:
    task: of the job, perhaps with steps added.
    job: the job.
    part: that is read.
  """
  import seqio

  tables = [f'{job.work}/{_table(at)}' for at, _ in _comparing_steps(job.plan.get_task())]
  if not tables:
    return task
  steps = list(task.preprocessors)
  # Steps that were added, such as LINK, shift the places and not the order.
  for (at, step), table in zip(_comparing_steps(task), tables, strict=False):
    steps[at] = dataclasses.replace(step, table=table, part=part)
  return seqio.Task(
    task.name,
    source=task.source,
    output_features=task.output_features,
    preprocessors=steps,
  )


def compared_with(task: Any) -> list[str]:
  """Returns the 'task:split' names whose text decides about a task's documents, for its fingerprint."""
  return sorted({name for _, step in _comparing_steps(task) for name in step.names})


def summary(counts: Mapping[str, int], job: Any) -> dict[str, Any]:
  """Returns what a manifest has of the cleaning, from the counts of all parts.

  'removed' and 'noted' are documents by reason. 'contamination' has for each evaluation set its
  'items', those 'too_short' to be compared, and 'found': the items that training documents share an
  n-gram with, by number.
  """
  kinds: dict[str, dict[str, int]] = {REMOVED: {}, NOTED: {}}
  hit: dict[str, list[int]] = {}
  for key, number in sorted(counts.items()):
    kind, _, reason = key.partition(':')
    if reason.startswith(f'{OVERLAP}:'):
      name, _, item = reason.removeprefix(f'{OVERLAP}:').rpartition(':')
      hit.setdefault(name, []).append(int(item))
    elif kind in kinds:
      kinds[kind][reason] = number
  sets: dict[str, Any] = {}
  for at, step in _comparing_steps(job.plan.get_task()):
    if isinstance(step, Contamination):
      found = EvaluationSets.load(f'{job.work}/{_table(at)}')
      for name, items, short in found.sizes():
        sets[name] = {'items': items, 'too_short': short, 'found': sorted(hit.get(name, ()))}
  return {**kinds, 'contamination': sets}


def _comparing_steps(task: Any) -> list[tuple[int, Comparing]]:
  return [(at, step) for at, step in enumerate(task.preprocessors) if isinstance(step, Comparing)]


def _table(at: int) -> str:
  return f'tmp-cleaning-{at:03d}.npz'


def _part(at: int, parts: int, part: int) -> str:
  return f'tmp-cleaning-{at:03d}-part-{part:05d}-of-{parts:05d}.npz'


def _keep(store: Any, name: str, value: Index | Table | EvaluationSets) -> None:
  with store.scratch() as scratch:
    path = os.path.join(scratch, name)
    value.save(path)
    store.keep(path, name)


def _index_part(job: Any, at: int, part: int) -> Iterator[dict]:
  """Indexes what reaches a step of one part of the source."""
  import seqio

  from jaxlink.data.caching import cache_plan, machine

  store, name = machine.Store(job.work), _part(at, job.parts, part)
  if not store.exists(name):
    task = job.plan.get_task()
    step = task.preprocessors[at]
    before = seqio.Task(
      task.name, source=task.source, output_features={}, preprocessors=task.preprocessors[:at]
    )
    examples = cache_plan.examples_of(prepared(before, job, part), job.plan, job.parts, part)
    texts = (e[step.text_key] for e in examples if e[step.text_key] and not e.get(REMOVED))
    _keep(store, name, step.index(text.decode() for text in texts))
  yield {}
