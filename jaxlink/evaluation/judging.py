"""A set's verdict on a model: each kind of item with all its scores.

`Judge` tokenises and packs a set once and then measures any number of checkpoints. What is written (answers
to questions) is left out in the training loop, which has the likelihood of the right answer instead.

Easy to get wrong: over-long items. What the model has no room for loses the beginning of its context and is
counted, never dropped, so that the number of items is the same for all models.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxlink.evaluation import measures
from jaxlink.evaluation.items import EvaluationSet, Label
from jaxlink.evaluation.measures import Measured
from jaxlink.evaluation.scoring import Likelihood, Progress, Scorer


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a set says of a model.

  Attributes:
    measured: its scores.
    cut: items that the model had no room for in whole.
    written: answers that the model wrote, by item; {} where it was not asked to.
  """

  measured: Measured
  cut: int
  written: dict[str, str] = dataclasses.field(default_factory=dict)


class Judge:
  """Measures checkpoints of one shape by a set.

  Args:
    scorer: of the model.
    found: the set.
    write: whether questions are answered in writing, too.

  Raises:
    ValueError: a set for a probe lacks a split.
  """

  def __init__(self, scorer: Scorer, found: EvaluationSet, *, write: bool = True):
    self.set, self._scorer, self._write = found, scorer, write
    self._sampler: Any = None
    if found.kind in ('choice', 'question'):
      self._requests = [measures.requests_of(item) for item in found.items]
      self.plan = scorer.plan(list(itertools.chain.from_iterable(self._requests)))
    elif found.kind == 'text':
      self.plan = scorer.plan_rolling([item.text for item in found.items])
    else:
      there = {item.split for item in found.items}
      if missing := [s for s in ('train', 'validation', 'test') if s not in there]:
        raise ValueError(
          f"{found.name} has no items of split {', '.join(missing)}: a probe needs 'train', 'validation' and 'test'."
        )
      self.plan = scorer.plan_hidden([item.text for item in found.items])

  def prepare(self, params: Any) -> None:
    """Compiles what is needed, but for writing; parameters may be abstract."""
    self._scorer.prepare(self.plan, params, hidden=self.set.kind == 'label')

  def __call__(
    self, params: Any = None, progress: Progress = iter, stopped: Callable[[], bool] = lambda: False
  ) -> Verdict | None:
    """Measures.

    Args:
      params: in place of the scorer's model's.
      progress: wraps the batches.
      stopped: asked before each batch; once it is true, None is returned.
    """
    items: Sequence[Any] = self.set.items
    if self.set.kind == 'label':
      states_ND = self._scorer.run_hidden(self.plan, params, progress, stopped)
      return None if states_ND is None else self._probe(states_ND)
    found = self._scorer.run(self.plan, params, progress, stopped)
    if found is None:
      return None
    if self.set.kind == 'text':
      return Verdict(measures.measure_texts(items, found), sum(one.cut for one in found))
    of_items = list(_by_item(found, [len(requests) for requests in self._requests]))
    cut = sum(any(one.cut for one in mine) for mine in of_items)
    if self.set.kind == 'choice':
      return Verdict(measures.measure_choices(items, of_items), cut)
    measured = measures.measure_texts(items, [one for (one,) in of_items])
    if not self._write:
      return Verdict(measured, cut)
    return self._answered(measured, cut, params, progress)

  def _answered(self, measured: Measured, cut: int, params: Any, progress: Progress) -> Verdict:
    from jaxlink.evaluation import answers  # generation is not part of training

    model = self._scorer.model if params is None else self._scorer.model._replace(params=params)
    self._sampler = self._sampler or answers.greedy_sampler(model)
    written, shortened = answers.generate_answers(
      model, self.set, sampler=self._sampler, progress=progress
    )
    marks = answers.mark(self.set, written)
    rated = measures.measure_means(self.set.items, marks, dict.fromkeys(marks, 0.0))
    groups = {
      name: measured.groups.get(name, {}) | rated.groups.get(name, {})
      for name in measured.groups | rated.groups
    }
    both = Measured(measured.scores | rated.scores, measured.items | rated.items, groups)
    by_id = {item.id: text for item, text in zip(self.set.items, written, strict=True)}
    return Verdict(both, max(cut, shortened), by_id)

  def _probe(self, states_ND: np.ndarray) -> Verdict:
    from jaxlink.evaluation import probe

    items: Sequence[Label] = self.set.items
    labels_N = np.array([item.label for item in items])
    splits_N = np.array([item.split for item in items])
    parts = {
      split: (states_ND[splits_N == split], labels_N[splits_N == split])
      for split in ('train', 'validation', 'test')
    }
    tested = [item for item in items if item.split == 'test']
    cut = sum(c for item, c in zip(items, self.plan.cut, strict=True) if item.split == 'test')
    if np.isfinite(states_ND).all():
      found = probe.probe(
        *parts['train'], *parts['validation'], parts['test'][0], classes=len(self.set.labels)
      )
      right = (found.predictions == parts['test'][1]).astype(float)
    else:
      right = np.full(len(tested), np.nan)
    most = np.bincount(parts['test'][1]).max() / len(tested)
    measured = measures.measure_means(tested, {'accuracy': right}, {'accuracy': float(most)})
    return Verdict(measured, cut)


def _by_item(found: Sequence[Likelihood], counts: Sequence[int]) -> Iterator[list[Likelihood]]:
  rest = iter(found)
  for count in counts:
    yield list(itertools.islice(rest, count))


def limited(found: EvaluationSet, limit: int) -> EvaluationSet:
  """The set with `limit` of its (test) items, spread evenly over it; in whole where it has no more.

  Its identity is another one: scores of a part and of the whole are not of the same set.
  """
  tested = [i for i, item in enumerate(found.items) if getattr(item, 'split', 'test') == 'test']
  if not 0 < limit < len(tested):
    return found
  kept = {tested[i * len(tested) // limit] for i in range(limit)}
  left_out = set(tested) - kept
  items = tuple(item for i, item in enumerate(found.items) if i not in left_out)
  return dataclasses.replace(found, items=items)
