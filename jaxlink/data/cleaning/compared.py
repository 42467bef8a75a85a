"""Steps that compare a text with others: of the same source, of other splits, of evaluation sets.

In: 'task:split' names. Out: their texts. A builder gives such a step the table that it made beforehand
(`Comparing.table`); without one the step makes it when the first text comes.

Easy to get wrong: a held-out split compared with itself, of which nothing would be left. A builder knows
which split it reads; a plain SeqIO pipeline tells by the texts (`is_itself`).
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from jaxlink.data.cleaning import steps
from jaxlink.names import nearest


@dataclasses.dataclass(frozen=True)
class Comparing:
  """A preprocessor whose verdict depends on other texts.

  Attributes:
    text_key: the feature that holds the text.
    names: 'task:split' of what it compares with.
    table: file of what a builder worked out; '' where there is no builder.
    part: of the source that is read; None where one reader reads all.
  """

  text_key: str = 'text'
  names: tuple[str, ...] = ()
  table: str = ''
  part: int | None = None

  def __call__(self, dataset: Any) -> Any:
    raise NotImplementedError

  @property
  def registered(self) -> 'Comparing':
    """The step as it was registered."""
    return dataclasses.replace(self, table='', part=None)


def split_names(where: str, names: Iterable[str]) -> tuple[str, ...]:
  """Returns names as a tuple.

  Raises:
    ValueError: one is not 'task:split'.
  """
  found = (names,) if isinstance(names, str) else tuple(names)
  for name in found:
    if not all(name.rpartition(':')):
      raise ValueError(f"{where}: {name!r} is no 'task:split'.")
  return found


def find(name: str) -> tuple[Any, str]:
  """Returns the task and split of a 'task:split' name.

  Raises:
    ValueError: there is none.
  """
  import seqio

  task, _, split = name.rpartition(':')
  known = seqio.TaskRegistry.names()
  if task not in known:
    raise ValueError(f'{name!r}: no task {task!r} is registered.{nearest(task, known)}')
  found = seqio.TaskRegistry.get(task)
  if split not in found.source.splits:
    raise ValueError(f'{name!r}: the task has no split {split!r}.{nearest(split, found.splits)}')
  return found, split


def cleaning_steps(task: Any, until: Comparing | None = None) -> list[Any]:
  """Returns the steps that a task's text passes before it is tokenised, without those that compare.

  Args:
    task: a SeqIO task.
    until: a step at which to stop, where the task has it: its texts are compared as they come to it.
  """
  import seqio

  found = []
  for step in task.preprocessors:
    function = getattr(step, 'func', step)
    if isinstance(step, Comparing):
      if until is not None and step.registered == until.registered:
        break
    elif 'tokenize' in getattr(function, '__name__', ''):
      break
    elif not isinstance(step, seqio.CacheDatasetPlaceholder):
      found.append(step)
  return found


def texts_of(name: str, until: Comparing | None = None) -> Iterator[str]:
  """Yields the texts of a 'task:split', cleaned and not yet tokenised.

  Of examples without the feature 'text' (or that of `until`), each string is a text.
  """
  import seqio

  task, split = find(name)
  untokenized = seqio.Task(
    task.name,
    source=task.source,
    output_features={},
    preprocessors=cleaning_steps(task, until),
  )
  dataset = untokenized.get_dataset(None, split=split, shuffle=False, num_epochs=1)
  key = until.text_key if until else 'text'
  if key in dataset.element_spec:
    yield from steps.texts(dataset, key)
  else:
    for example in dataset.as_numpy_iterator():
      for feature, value in example.items():
        if feature not in (steps.REMOVED, steps.NOTED):
          yield from _strings(value)
  if hasattr(task.source, 'gather'):  # more bad lines than allowed are an error here, too
    task.source.gather(split, [task.source.rejected(split)])


def _strings(value: Any) -> Iterator[str]:
  if isinstance(value, bytes):
    yield value.decode()
  elif isinstance(value, dict):
    for one in value.values():
      yield from _strings(one)
  elif getattr(getattr(value, 'dtype', None), 'kind', '') == 'O':
    for one in value.ravel():
      yield one.decode()


def is_itself(dataset: Any, texts: Iterable[str], text_key: str) -> bool:
  """Tells whether a dataset is a part of the texts: all that it has is among them.

  It reads up to the first text that is not.
  """
  known = set(texts)
  return all(text in known for text in steps.texts(dataset, text_key))
