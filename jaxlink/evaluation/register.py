"""Registering evaluation sets: one call makes a SeqIO task of a function that yields items.

  register_evaluation('my_set', json_lines('my.jsonl', question='context', options='choices',
                      answer='label'), kind='choice', language='sw')

The task works in any SeqIO pipeline. It has an example for each (context, continuation) that is scored: an
item of K options is K examples, as T5's rank classification has them, with

  inputs, targets                  ids of context and continuation; bytes, until a model's own vocabulary is
                                   put in by `seqio.helpers.mixture_or_task_with_new_vocab`
  inputs_pretokenized, targets_…   their text
  idx, is_correct                  [item, option], and whether the option is the right one
  item                             the item's fields, as JSON

What SeqIO has no place for (language, labels, licence) is kept in `registry`.

Easy to get wrong: registering must cost nothing. Files are read when the items are asked for.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import regex
import seqio
import tensorflow as tf

from jaxlink.evaluation import items as items_lib
from jaxlink.evaluation import registry
from jaxlink.evaluation.items import Choice, EvaluationSet, Item, Kind, Label, Question, Text
from jaxlink.link import casing
from jaxlink.link.formats import languages
from jaxlink.names import nearest

TEST = 'test'
_SPLITS = {'label': ('train', 'validation', TEST)}  # of other kinds: TEST alone
_ANSWERS = ('text', 'number')


def register_evaluation(
  name: str,
  items: registry.Reader,
  *,
  kind: Kind,
  language: str,
  version: int = 1,
  labels: Sequence[str] = (),
  answer: Literal['text', 'number'] = 'text',
  stop: Sequence[str] = ('\n',),
  tokens: int = 32,
  licence: str = '',
  source: str = '',
  note: str = '',
) -> seqio.Task:
  """Registers an evaluation set as a SeqIO task.

  Args:
    name: of the task.
    items: called without arguments, it yields the fields of each item as `items.parse` takes them; such
      as `functools.partial(read, path)`, or what `reading.json_lines` gives. An 'id' may be left out:
      the item's number stands for it.
    kind: 'choice', 'text', 'label' or 'question'; see `jaxlink.evaluation.items`.
    language: code of ISO 639 of what is scored, 'tr' or 'tur'; 'x-…' or 'qaa' to 'qtz' for one that has
      no code, or is made up.
    version: raised when what the items ask has changed.
    labels: of kind 'label', the names of the classes in the order of their numbers.
    answer: of kind 'question', how a written answer is compared: 'text' or 'number'.
    stop: of kind 'question', texts that end a written answer.
    tokens: of kind 'question', most of a written answer.
    licence: of the items.
    source: where they are from.
    note: what to know before a score is believed; it is printed with the scores.

  Returns:
    The task.

  Raises:
    ValueError: a setting is wrong, or a set or task of this name is registered already.
  """
  where = f'register_evaluation({name!r})'
  if name in registry.SETS or name in seqio.TaskRegistry.names():
    raise ValueError(f'{where}: a task of this name is registered already.')
  if not regex.fullmatch(r'[\w\d\.\:_]+', name):
    raise ValueError(f'{where}: a name has letters, digits, underscores, dots and colons.')
  if not callable(items):
    raise ValueError(
      f'{where}: items is {type(items).__name__}: give a function without arguments that yields them, such '
      'as json_lines(path) or functools.partial(read, path).'
    )
  if kind not in items_lib.KINDS:
    raise ValueError(
      f'{where}: kind is {kind!r}.{nearest(kind, items_lib.KINDS)} Kinds: {", ".join(items_lib.KINDS)}.'
    )
  _check_language(where, language)
  if (kind == 'label') != (len(labels) > 1) or isinstance(labels, str):
    raise ValueError(
      f'{where}: labels is {labels!r}: a set of kind {kind!r} names '
      + ('its classes, two or more.' if kind == 'label' else 'none.')
    )
  if answer not in _ANSWERS:
    raise ValueError(
      f'{where}: answer is {answer!r}.{nearest(answer, _ANSWERS)} It is one of {_ANSWERS}.'
    )
  if isinstance(stop, str) or tokens < 1:
    raise ValueError(
      f'{where}: stop is {stop!r} and tokens {tokens}: a list of texts, and 1 or more.'
    )
  registry.SETS[name] = registry.RegisteredSet(
    items, kind, language, version, tuple(labels), answer, tuple(stop), tokens, licence, source,
    note,
  )  # fmt: skip
  postprocess, metrics = _METRICS[kind]
  byte = seqio.Feature(seqio.ByteVocabulary(), add_eos=False, required=False)
  return seqio.TaskRegistry.add(
    name,
    source=ItemSource(name, _SPLITS.get(kind, (TEST,))),
    preprocessors=[one_request_each, seqio.preprocessors.tokenize],
    output_features={'inputs': byte, 'targets': byte},
    postprocess_fn=postprocess,
    metric_fns=metrics,
  )


def _check_language(where: str, language: str) -> None:
  """Raises ValueError for what is no code of a language that is known."""
  if regex.fullmatch('x-.+|q[a-t][a-z]', language):
    return
  base = casing.base_language(language)
  if regex.fullmatch('[a-z]{2,3}', base) and languages.is_known(base):
    return
  meant = languages.code(language)
  close = f' Nearest: {meant!r}.' if meant != language.lower() else nearest(base, languages.codes())
  raise ValueError(
    f'{where}: unknown language {language!r}.{close} It is a code of ISO 639 that '
    "jaxlink/link/formats/languages.py lists, such as 'sw' or 'swh'; for any other 'x-…'."
  )


class ItemSource(seqio.DataSource):
  """The items of a registered set as a SeqIO source: one example for each, in their order.

  Args:
    name: of the set.
    splits: of a set of kind 'label', as its items say; of others 'test'.

  An example has 'item' (its fields as JSON), 'inputs' and 'targets' (the texts of its requests, [K]),
  'idx' [K, 2] and 'is_correct' [K].
  """

  def __init__(self, name: str, splits: Sequence[str]):
    self._name = name
    super().__init__(splits=splits)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    return [self._name]

  def get_dataset(
    self,
    split: str = TEST,
    shuffle: bool = False,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    **unused,
  ) -> tf.data.Dataset:
    if shard_info and shard_info.num_shards > 1:
      raise ValueError(f'{self._name}: an evaluation set is read whole, not in shards.')

    found = registry.read(self._name)  # here, for TensorFlow makes errors of its own of all others

    def examples() -> Iterator[dict[str, Any]]:
      for number, item in enumerate(found.items):
        if not isinstance(item, Label) or item.split == split:
          yield _example(found, number, item)

    signature = {
      'item': tf.TensorSpec([], tf.string),
      'inputs': tf.TensorSpec([None], tf.string),
      'targets': tf.TensorSpec([None], tf.string),
      'idx': tf.TensorSpec([None, 2], tf.int32),
      'is_correct': tf.TensorSpec([None], tf.bool),
    }
    dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)
    return dataset.shuffle(seqio.SHUFFLE_BUFFER_SIZE, seed=seed) if shuffle else dataset


def _example(found: EvaluationSet, number: int, item: Item) -> dict[str, Any]:
  right = 0
  if isinstance(item, Choice):
    requests, right = item.requests, item.label
  elif isinstance(item, Question):
    requests = item.requests
  elif isinstance(item, Text):
    requests = [('', item.text)]
  else:
    requests = [(item.text, found.labels[item.label])]
  return {
    'item': json.dumps(dataclasses.asdict(item), ensure_ascii=False).encode(),
    'inputs': [context.encode() for context, _ in requests],
    'targets': [continuation.encode() for _, continuation in requests],
    'idx': [[number, option] for option in range(len(requests))],
    'is_correct': [option == right for option in range(len(requests))],
  }


def read_task(name: str) -> EvaluationSet:
  """Reads a registered set through its SeqIO task."""
  task, items = seqio.TaskRegistry.get(name), []
  for split in task.source.splits:
    for example in task.source.get_dataset(split).as_numpy_iterator():
      items.append(items_lib.parse(name, registry.SETS[name].kind, json.loads(example['item'])))
  return registry.make(name, items)


def one_request_each(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Makes one example of each request of an item; a SeqIO preprocessor."""

  def spread(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    count = tf.shape(example['inputs'])[0]
    return {**example, 'item': tf.repeat(example['item'], count)}

  return dataset.map(spread).unbatch()


# ── metrics, as SeqIO's evaluator calls them ────────────────────────────────────


def accuracy(targets: Sequence[tuple[int, bool]], scores: Sequence[float]) -> dict[str, float]:
  """The share of items whose right option has the highest score; a tie goes to the first option."""
  options: dict[int, list[tuple[float, bool]]] = {}
  for (item, right), score in zip(targets, scores, strict=True):
    options.setdefault(item, []).append((score, right))
  best = [max(found, key=lambda option: option[0])[1] for found in options.values()]
  return {'accuracy': float(np.mean(best))}


def bits_per_byte(targets: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
  """The log-likelihoods of texts (nats) over their bytes."""
  return {'bits_per_byte': -float(np.sum(scores)) / math.log(2) / sum(targets)}


def exact_match(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
  """The share of written answers that are a right one, but for space around them."""
  pairs = zip(targets, predictions, strict=True)
  return {'exact_match': float(np.mean([p.strip() in right for right, p in pairs]))}


def _option(text: str, *, example: Any = None, is_target: bool = False) -> Any:
  return (int(example['idx'][0]), bool(example['is_correct'])) if is_target else text


def _size(text: str, *, example: Any = None, is_target: bool = False) -> Any:
  return len(example['targets_pretokenized']) if is_target else text


def _answers(text: str, *, example: Any = None, is_target: bool = False) -> Any:
  return json.loads(example['item'])['answers'] if is_target else text


def _class(text: str, *, example: Any = None, is_target: bool = False) -> Any:
  return [example['targets_pretokenized'].decode()] if is_target else text


_METRICS: dict[str, tuple[Callable[..., Any], list[Callable[..., dict[str, float]]]]] = {
  'choice': (_option, [accuracy]),
  'text': (_size, [bits_per_byte]),
  'label': (_class, [exact_match]),
  'question': (_answers, [exact_match]),
}
