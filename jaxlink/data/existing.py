"""SeqIO tasks as people have them from T5X, mT5 or ByT5 work, as sources of a cache.

Such a task ends in 'targets', token ids of a SeqIO vocabulary, and knows nothing of words. It is read in one
of two ways:

  plain     its own steps run as they stand, and what they leave in 'targets' is the document. There are
            no word marks, so LINK has nothing to work on.
  marked    after `mark_words(task, language=...)`: `tokenize_marked` stands where the task had
            `seqio.preprocessors.tokenize`; every other step runs as before.

Both end in the examples that `tokenize_marked` gives (`jaxlink.data.preprocessors`), without the EOS or BOS
that the task put around a text: the cache has its own. A decoder reads 'targets' alone, so an example that
holds anything in another output feature ('inputs' of a translation, of span corruption) is an error: half of
it would be lost unseen. An 'inputs' that is always empty, as language models of T5 have it, is no harm.

Easy to get wrong: whose ids they are. A plain task's are SeqIO's own, also where a tokenizer of ours would
cut the text by chunks.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable

import numpy as np
import seqio
import tensorflow as tf

from jaxlink.data import preprocessors as prep
from jaxlink.data import registry
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.vocabulary import ChunkedVocabulary
from jaxlink.link import draws
from jaxlink.names import nearest

_TOKENIZERS = (seqio.preprocessors.tokenize, seqio.preprocessors.tokenize_and_append_eos)
_FIELDS = ('words', 'word_types', 'document', 'bytes', 'tokens_before')  # of `tokenize_marked`
_ACCOUNTS = ('dose', 'removed', 'noted')  # of LINK and of cleaning steps, where a task has them


def mark_words(task: str, *, language: str) -> None:
  """Gives LINK to a task that tokenises with SeqIO: its words are marked as they are tokenised.

  Args:
    task: name of a registered task, whose own steps and mixtures stay as they are.
    language: code of the text's language, such as 'en'.

  Raises:
    ValueError: there is no such task, or none of its steps tokenises text.
  """
  if task not in seqio.TaskRegistry.names():
    known = list(seqio.TaskRegistry.names())
    raise ValueError(f'mark_words: no task {task!r} is registered.{nearest(task, known)}')
  found = seqio.TaskRegistry.get(task)
  if marking_step(found) is None:
    _tokenizing_step(found)
  registry.LANGUAGES[task] = language


def is_marked(task: seqio.Task) -> bool:
  """Tells whether a cache of a registered task has word marks."""
  return marking_step(task) is not None or task.name in registry.LANGUAGES


def marking_step(task: seqio.Task) -> int | None:
  """Returns the index of the step `tokenize_marked`; None where a task has none."""
  for at, step in enumerate(task.preprocessors):
    if getattr(step, 'func', step) is prep.tokenize_marked:
      return at
  return None


def check(task: seqio.Task) -> None:
  """Checks that a cache can be made of a task, as far as its registration tells.

  Raises:
    ValueError: it has no row of token ids 'targets', or runs its steps in a way of its own.
  """
  features = task.output_features
  if 'targets' not in features:
    raise ValueError(
      f"Task {task.name!r} has no feature 'targets'. Features: {', '.join(features)}."
    )
  targets = features['targets']
  if targets.rank != 1 or not tf.as_dtype(targets.dtype).is_integer:
    raise ValueError(
      f"Task {task.name!r}: its feature 'targets' has rank {targets.rank} and type "
      f'{tf.as_dtype(targets.dtype).name}: it is a row of token ids, of rank 1 and type int32.'
    )
  if type(task).get_dataset is not seqio.Task.get_dataset:
    raise ValueError(
      f'Task {task.name!r} is a {type(task).__name__} with a get_dataset of its own, which a cache '
      'would pass by: it is a seqio.Task.'
    )


def prepare(task: seqio.Task, tokenizer: str) -> seqio.Task:
  """Returns a task whose examples are documents for a cache, marked or plain.

  Args:
    task: as registered.
    tokenizer: the file of its vocabulary, from `jaxlink.data.vocabulary.tokenizer_file`.

  Raises:
    ValueError: it is to be marked, and none of its steps tokenises text.
  """
  steps = [_without_duty(step) for step in task.preprocessors]
  features = {n: dataclasses.replace(f, required=False) for n, f in task.output_features.items()}
  targets = features['targets']
  if marking_step(task) is not None:
    features = task.output_features
  elif is_marked(task):
    at = _tokenizing_step(task)
    bound = inspect.signature(steps[at]).bind_partial()
    bound.apply_defaults()
    settings = {'with_eos': True, **bound.arguments}  # tokenize_and_append_eos has no choice
    steps[at : at + 1] = [
      functools.partial(
        _before_marks,
        copy_pretokenized=settings['copy_pretokenized'], with_eos=settings['with_eos'],
      ),
      functools.partial(prep.tokenize_marked, text_key='targets'),
      functools.partial(_after_marks, with_eos=settings['with_eos']),
    ]  # fmt: skip
    steps.append(functools.partial(marked_documents, task=task.name))
    features['targets'] = dataclasses.replace(targets, vocabulary=ChunkedVocabulary(tokenizer))
  else:
    steps.append(functools.partial(plain_documents, task=task.name, tokenizer=tokenizer))
  return seqio.Task(
    task.name, source=_with_seed(task.source), output_features=features, preprocessors=steps
  )


def _tokenizing_step(task: seqio.Task) -> int:
  for at, step in enumerate(task.preprocessors):
    if getattr(step, 'func', step) in _TOKENIZERS:
      return at
  raise ValueError(
    f'Task {task.name!r}: none of its steps is seqio.preprocessors.tokenize or tokenize_and_append_eos, '
    'in whose place words are marked. A task that reads token ids has no words to mark.'
  )


def _without_duty(step: Callable) -> Callable:
  """Lets a task run that asks for SeqIO's own cache: this one stands in for it."""
  if isinstance(step, seqio.CacheDatasetPlaceholder) and step.required:
    return seqio.CacheDatasetPlaceholder(required=False)
  return step


def _with_seed(source: seqio.DataSource) -> seqio.DataSource:
  """Lets a function source take a seed, which SeqIO hands to it even where nothing is shuffled."""
  function = getattr(source, '_dataset_fn', None)
  if not isinstance(source, seqio.FunctionDataSource) or (
    'seed' in inspect.signature(function).parameters
  ):
    return source
  source = copy.copy(source)
  source._dataset_fn = functools.partial(_call_without_seed, function)
  return source


def _call_without_seed(
  function: Callable, split: str, shuffle_files: bool, seed: int | None = None
) -> tf.data.Dataset:
  return function(split=split, shuffle_files=shuffle_files)


# ── plain ────────────────────────────────────────────────────────────────────────


def plain_documents(
  dataset: tf.data.Dataset, output_features: dict[str, seqio.Feature], *, task: str, tokenizer: str
) -> tf.data.Dataset:
  """The last step of a plain task: its token ids as documents without word marks.

  Args:
    dataset: examples with 'targets' int [T].
    output_features: of the task.
    task: its name, for errors.
    tokenizer: the file of its vocabulary.

  Returns:
    Examples as `tokenize_marked` gives them, with no words. 'document' is the key of the token ids. 'bytes'
    is the size of the text if it is known: the feature 'targets_pretokenized' or, where the vocabulary is
    lossless, the decoded ids, if the vocabulary makes these very ids of it. Else it is the size of the
    decoded ids, and 'decoded' is 1.
  """
  _check_fields(dataset, task, ('targets',))
  vocabulary = output_features['targets'].vocabulary
  reader = Tokenizer(tokenizer)
  spec = dataset.element_spec.get('targets_pretokenized')
  kept = spec is not None and spec.dtype == tf.string and spec.shape.rank == 0
  others = [n for n in output_features if n != 'targets' and n in dataset.element_spec]

  def measure(ids: np.ndarray, sizes: np.ndarray, text: bytes, spelled: np.ndarray) -> tuple:
    _check_others(task, dict(zip(others, sizes.tolist(), strict=True)))
    ids = _bare(task, ids, reader)
    if exact := kept and np.array_equal(ids, spelled):
      size = len(text)
    else:
      decoded = reader.decode(ids)
      size = len(decoded.encode())
      exact = reader.lossless and list(vocabulary.encode(decoded)) == ids.tolist()
    key = draws.key_of(ids.astype('<i4').tobytes().hex())
    return ids, np.uint64(key).astype(np.int64), np.int64(size), np.int64(not exact)

  def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    sizes = [_size(example[name], output_features[name]) for name in others]
    ids, document, size, decoded = tf.numpy_function(
      measure,
      [
        tf.cast(example['targets'], tf.int64),
        tf.stack(sizes) if sizes else tf.zeros([0], tf.int64),
        example['targets_pretokenized'] if kept else tf.constant(''),
        # In TensorFlow, as the task did: SentencePiece of another version may cut a word in another way.
        vocabulary.encode_tf(example['targets_pretokenized']) if kept else tf.zeros([0], tf.int32),
      ],
      [tf.int32, tf.int64, tf.int64, tf.int64],
      stateful=False,
    )
    ids.set_shape([None])
    for scalar in (document, size, decoded):
      scalar.set_shape([])
    length = tf.cast(tf.size(ids), tf.int64)
    return {
      'targets': tf.cast(ids, output_features['targets'].dtype),
      'words': tf.zeros([0, 4], tf.int32), 'word_types': tf.constant(''),
      'document': document, 'bytes': size, 'tokens_before': length, 'decoded': decoded,
      **_accounts(example),
    }  # fmt: skip

  return dataset.map(convert)


# ── marked ───────────────────────────────────────────────────────────────────────


def _before_marks(
  dataset: tf.data.Dataset,
  output_features: dict[str, seqio.Feature],
  *,
  copy_pretokenized: bool,
  with_eos: bool,
) -> tf.data.Dataset:
  """Does what else `seqio.preprocessors.tokenize` does: other features, and the copy of the text."""
  others = {name: f for name, f in output_features.items() if name != 'targets'}
  dataset = seqio.preprocessors.tokenize(dataset, others, copy_pretokenized, with_eos)
  if copy_pretokenized:
    dataset = dataset.map(lambda example: {**example, 'targets_pretokenized': example['targets']})
  return dataset


def _after_marks(
  dataset: tf.data.Dataset, output_features: dict[str, seqio.Feature], *, with_eos: bool
) -> tf.data.Dataset:
  """Remembers the ids that the marks are of; then adds the EOS that the task's own step would add."""
  feature = output_features['targets']

  def remember(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    ids = example['targets']
    if with_eos and feature.add_eos:
      example = {**example, 'targets': tf.concat([ids, [feature.vocabulary.eos_id]], axis=0)}
    return {**example, 'marked_targets': ids}

  return dataset.map(remember)


def marked_documents(
  dataset: tf.data.Dataset, output_features: dict[str, seqio.Feature], *, task: str
) -> tf.data.Dataset:
  """The last step of a marked task: `tokenize_marked`'s examples, whatever else the task's steps added.

  An example whose ids were changed after they were marked is an error: the marks would be of others.
  """
  _check_fields(dataset, task, ('targets', 'marked_targets', *_FIELDS))
  reader = output_features['targets'].vocabulary.tokenizer
  others = [n for n in output_features if n != 'targets' and n in dataset.element_spec]

  def compare(ids: np.ndarray, marked: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    _check_others(task, dict(zip(others, sizes.tolist(), strict=True)))
    if not np.array_equal(_bare(task, ids, reader), marked):
      raise ValueError(
        f'task {task!r}: a step after its tokenize changes the token ids, and words are marked before it. '
        'Move the step before tokenize, where it works on text, or leave out mark_words.'
      )
    return marked

  def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    sizes = [_size(example[name], output_features[name]) for name in others]
    ids = tf.numpy_function(
      compare,
      [
        tf.cast(example['targets'], tf.int64), example['marked_targets'],
        tf.stack(sizes) if sizes else tf.zeros([0], tf.int64),
      ],
      tf.int32,
      stateful=False,
    )  # fmt: skip
    ids.set_shape([None])
    return {'targets': ids, **{name: example[name] for name in _FIELDS}, **_accounts(example)}

  return dataset.map(convert)


# ── both ─────────────────────────────────────────────────────────────────────────


def _bare(task: str, ids: np.ndarray, reader: Tokenizer) -> np.ndarray:
  """Returns a document's ids int32 without the BOS and EOS around it, after looking at each."""
  if len(ids) and ids[-1] == reader.eos_id:
    ids = ids[:-1]
  if len(ids) and ids[0] == reader.bos_id:
    ids = ids[1:]
  wrong = np.flatnonzero((ids < 0) | (ids >= reader.size))
  if len(wrong):
    raise ValueError(
      f"task {task!r}: id {ids[wrong[0]]} at place {wrong[0]} of 'targets': its vocabulary has ids 0 to "
      f'{reader.size - 1:,}.'
    )
  if reader.pads and (padding := np.flatnonzero(ids == reader.pad_id)).size:
    raise ValueError(
      f"task {task!r}: padding (id {reader.pad_id}) at place {padding[0]} of 'targets': leave texts as long "
      'as they are; they are cut into sequences when they are read.'
    )
  if (ends := np.flatnonzero(ids == reader.eos_id)).size:
    raise ValueError(
      f"task {task!r}: EOS (id {reader.eos_id}) at place {ends[0]} of 'targets', before its end: an "
      'example is one text with one EOS. Leave out the step that joins texts or adds another EOS.'
    )
  return ids.astype(np.int32)


def _accounts(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  return {name: example[name] for name in _ACCOUNTS if name in example}


def _size(value: tf.Tensor, feature: seqio.Feature) -> tf.Tensor:
  """Returns how much a feature holds: bytes of text, or numbers but for an EOS of its vocabulary."""
  flat = tf.nest.flatten(value, expand_composites=True)[0]
  if flat.dtype == tf.string:
    return tf.cast(tf.reduce_sum(tf.strings.length(flat)), tf.int64)
  size = tf.size(flat, out_type=tf.int64)
  if flat.dtype.is_integer and feature.add_eos:
    is_eos = tf.equal(flat, tf.cast(feature.vocabulary.eos_id, flat.dtype))
    size -= tf.reduce_sum(tf.cast(is_eos, tf.int64))
  return size


def _check_others(task: str, sizes: dict[str, int]) -> None:
  for name, size in sizes.items():
    if size:
      raise ValueError(
        f"task {task!r}: an example has {size} tokens in {name!r}, and a decoder reads 'targets' alone. "
        f"Register a task that puts all of its text into 'targets' and leaves {name!r} out or empty: a "
        'language model has no step that makes pairs, such as span corruption.'
      )


def _check_fields(dataset: tf.data.Dataset, task: str, names: tuple[str, ...]) -> None:
  missing = [name for name in names if name not in dataset.element_spec]
  if missing == ['targets']:
    raise ValueError(f"Task {task!r}: its steps leave no 'targets'.")
  if missing:
    raise ValueError(
      f'Task {task!r}: a step after its tokenize drops {", ".join(map(repr, missing))}, which word marks '
      'need. Let it keep the features that it does not know, or move it before tokenize.'
    )


def steps_with_length(task: seqio.Task) -> list[str]:
  """Returns the names of a task's steps that cannot do without a sequence length."""
  found = []
  for step in task.preprocessors:
    parameter = inspect.signature(step).parameters.get('sequence_length')
    if parameter is not None and parameter.default is inspect.Parameter.empty:
      found.append(getattr(getattr(step, 'func', step), '__name__', type(step).__name__))
  return found
