"""What a cache is to be made from: a task, LINK where asked, and a fingerprint of all it depends on.

Also how the task is run: the same examples, in the same order, whoever asks.

Easy to get wrong: leaving an ingredient out. A cache's folder is named by its fingerprint, so what is
not in it cannot make a cache stale.
"""

import dataclasses
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import cleaning, existing, linking, register, sources
from jaxlink.data import fingerprint as fingerprint_lib
from jaxlink.data import preprocessors as prep
from jaxlink.data import vocabulary as vocabulary_lib
from jaxlink.link.policy import LinkPolicy

_SEED = 0  # of random SeqIO preprocessors
_RANDOM_OPS = (
  'RandomDataset', 'RandomUniform', 'RandomStandardNormal', 'RandomShuffle', 'RandomGamma',
  'RandomPoisson', 'TruncatedNormal', 'ParameterizedTruncatedNormal', 'Multinomial',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CacheSettings:
  """Layout of a cache; part of its fingerprint, since it decides the order of documents."""

  shards: int = 8
  block: int = 4096

  def __post_init__(self):
    for name in ('shards', 'block'):
      if getattr(self, name) < 1:
        raise ValueError(f'CacheSettings.{name} is {getattr(self, name)}: it is 1 or more.')


@dataclasses.dataclass(frozen=True)
class Link:
  """What `link_substitute` needs beside the text."""

  policy: LinkPolicy
  seed: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """A cache to be: what it is made from, and where it goes. It can be sent to another process.

  Attributes:
    task: name of the SeqIO task.
    modules: imported by a worker, so that the task is registered there.
    tokenizer: file of the task's vocabulary.
    ingredients: all that the fingerprint is a hash of.
  """

  task: str
  split: str
  link: Link | None
  settings: CacheSettings
  modules: tuple[str, ...]
  tokenizer: str
  fingerprint: str
  ingredients: dict[str, Any]
  folder: str

  @property
  def name(self) -> str:
    """The task and split, for people."""
    return f'{self.task}:{self.split}'

  @property
  def exists(self) -> bool:
    """Whether the cache is there, whole."""
    return os.path.exists(os.path.join(self.folder, blocks_lib.MANIFEST))

  @property
  def work(self) -> str:
    """The folder in which the cache is built."""
    return self.folder + '.building'

  def get_task(self) -> seqio.Task:
    """Returns the task as a cache reads it, importing the modules that register it."""
    for module in self.modules:
      importlib.import_module(module)
    return existing.prepare(seqio.TaskRegistry.get(self.task), self.tokenizer)

  def get_vocabulary(self) -> vocabulary_lib.ChunkedVocabulary:
    """Returns the ids of 'targets' as the trainer reads them."""
    return vocabulary_lib.ChunkedVocabulary(self.tokenizer)


def make_plan(
  task: str,
  split: str,
  *,
  cache_dir: str,
  inputs: fingerprint_lib.Inputs,
  modules: Sequence[str] = (),
  link: Link | None = None,
  settings: CacheSettings = CacheSettings(),
) -> Plan:
  """Works out a cache's fingerprint and folder.

  Args:
    task: name of a SeqIO task with an integer feature 'targets'.
    split: of the task.
    cache_dir: folder of all caches.
    inputs: gathers the files that the cache depends on.
    modules: to be imported by worker processes.
    link: substitution, by the reference, of the task's text.
    settings: of the layout.

  Raises:
    ValueError: the split does not exist, the task has no token ids of a known vocabulary, or LINK is
      asked of a task without word marks.
  """
  found = seqio.TaskRegistry.get(task)
  if split not in found.source.splits:
    raise ValueError(
      f'Task {task!r} has no split {split!r}. Splits: {", ".join(map(str, found.source.splits))}.'
    )
  existing.check(found)
  if link and not existing.is_marked(found):
    raise ValueError(linking.no_marks(task))
  vocabulary = found.output_features['targets'].vocabulary
  try:
    tokenizer = vocabulary_lib.tokenizer_file(vocabulary, os.path.join(cache_dir, 'tokenizers'))
  except ValueError as error:
    raise ValueError(f'Task {task!r}: {error}') from None
  found = existing.prepare(found, tokenizer)
  ingredients = {
    'format': blocks_lib.FORMAT,
    'settings': dataclasses.asdict(settings),
    'split': split,
    'seed': _SEED,
    'source': _describe_source(found.source, split, inputs),
    'vocabulary': _describe_vocabulary(vocabulary, tokenizer, inputs),
    'preprocessors': [fingerprint_lib.describe(p, inputs) for p in found.preprocessors],
    'link': _describe_link(link, task, inputs) if link else None,
    'compared': {name: _describe_text(name, inputs) for name in cleaning.compared_with(found)},
    'encode': fingerprint_lib.describe(encode, inputs),
  }
  digest = fingerprint_lib.digest(ingredients)
  linked = '-link' if link else ''
  folder = os.path.join(cache_dir, task, f'{split}{linked}-{digest[:16]}')
  return Plan(task, split, link, settings, tuple(modules), tokenizer, digest, ingredients, folder)


def tokenization_step(task: seqio.Task) -> int:
  """Returns the index of the step that tokenises and marks words; LINK goes before it.

  Raises:
    ValueError: there is none.
  """
  at = existing.marking_step(task)
  if at is None:
    raise ValueError(linking.no_marks(task.name))
  return at


def text_key(task: seqio.Task) -> str:
  """Returns the feature that the task tokenises."""
  step = task.preprocessors[tokenization_step(task)]
  return getattr(step, 'keywords', {}).get('text_key', 'text')


def examples_of(
  task: seqio.Task, plan: Plan, parts: int, part: int
) -> Iterator[dict[str, np.ndarray]]:
  info = seqio.ShardInfo(index=part, num_shards=parts) if parts > 1 else None
  dataset = _dataset(task, plan.split, info)
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = 1
  try:
    yield from dataset.with_options(options).as_numpy_iterator()
  except tf.errors.OpError as error:
    # TensorFlow wraps what Python raised: '{{function}} BadDocument: …\nTraceback …'.
    message = error.message.partition('\nTraceback ')[0]
    message = message.partition('}} ')[2] or message
    raise ValueError(f'{plan.name}: {message}') from error


def _dataset(task: seqio.Task, split: str, part: seqio.ShardInfo | None = None) -> tf.data.Dataset:
  """Sets a task's steps up, on whole texts in the source's order."""
  try:
    return task.get_dataset(
      sequence_length=None, split=split, shuffle=False, seed=_SEED, shard_info=part, num_epochs=1
    )
  except Exception as error:  # the steps are anyone's
    names = ', '.join(existing.steps_with_length(task))
    hint = ''
    if names:
      hint = (
        f' A cache is made of whole texts, so sequence_length is None: {names} may need one. Texts are cut '
        'into sequences when they are read; leave such a step out.'
      )
    raise ValueError(
      f'{task.name}:{split}: its steps cannot be set up ({type(error).__name__}: {error}).{hint}'
    ) from error


def draws_by_place(task: seqio.Task, split: str) -> bool:
  """Tells whether a preprocessor draws by an example's place in the source (`num_seeds` of SeqIO).

  Raises:
    ValueError: one draws without a seed, so that its cache would differ each time.
  """
  dataset = _dataset(task, split)
  graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
  nodes = [graph.node, *(function.node_def for function in graph.library.function)]
  drawing = {node.op for group in nodes for node in group if node.op.startswith(_RANDOM_OPS)}
  if unseeded := [op for op in sorted(drawing) if not op.startswith('RandomDataset')]:
    raise ValueError(
      f'Task {task.name!r}: a preprocessor draws at random without a seed ({", ".join(unseeded)}). '
      'Take `tf.random.stateless_*` with the seed that `seqio.map_over_dataset(num_seeds=1)` gives.'
    )
  return bool(drawing)


def encode(example: dict[str, np.ndarray]) -> tuple[blocks_lib.Encoded | None, dict[str, int]]:
  """Turns an example into a document for the blocks, and its counts; None if it is empty or removed."""
  tokens = example['targets']
  if example.get('removed'):  # by a cleaning step, which emptied the text
    fields = ('documents', 'tokens', 'bytes', 'empty', 'tokens_before', 'decoded')
    return None, {**dict.fromkeys(fields, 0), **cleaning.count(example)}
  counts = {
    'documents': int(len(tokens) > 0),
    'tokens': len(tokens),
    'bytes': int(example['bytes']),
    'empty': int(len(tokens) == 0),
    'tokens_before': int(example['tokens_before']),
    'decoded': int(len(tokens) > 0 and example.get('decoded', 0)),
    **cleaning.count(example),
  }
  if not len(tokens):
    return None, counts
  key = int(np.int64(example['document']).astype(np.uint64))
  types = example['word_types'].decode().split('\n') if len(example['words']) else []
  return blocks_lib.Encoded(key, tokens, example['words'], types), counts


def describe_tokenizer(plan: Plan) -> dict[str, Any]:
  """Returns a cache's tokenizer as its manifest has it."""
  tokenizer = plan.get_vocabulary().tokenizer
  return {
    'path': os.path.abspath(tokenizer.path),
    'sha256': tokenizer.sha256,
    'size': tokenizer.size,
    'bos': tokenizer.bos_id,
    'eos': tokenizer.eos_id,
    'native': tokenizer.native,
    'lossless': tokenizer.lossless,
  }


def _describe_source(source: seqio.DataSource, split: str, inputs: fingerprint_lib.Inputs) -> Any:
  """Describes a split by its files' bytes; patterns are watched, so that a new file is noticed."""
  if isinstance(source, seqio.TfdsDataSource):
    loader = source.tfds_dataset
    names = [instruction.filename for instruction in loader.files(split)]
    versions = os.path.dirname(os.path.dirname(names[0]))  # {data_dir}/{name}/{version}/{file}
    inputs.watch(os.path.join(versions, '*', 'dataset_info.json'))
    files = [inputs.sha256(f) for f in names if is_file(f)]
    return ['tfds', loader.resolved_tfds_name(split), split, loader.size(split), files]
  patterns = getattr(source, '_split_to_filepattern', {}).get(split, [])  # of SeqIO's file sources
  if isinstance(source, register.TextSource):
    patterns = source.patterns(split)
  for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
    inputs.watch(os.fspath(pattern))
  names = [f for f in source.list_shards(split) if is_file(f)]
  files = [inputs.sha256(f) for f in names]
  if isinstance(source, register.TextSource):
    files = [[sha, sources.file_format(f)] for sha, f in zip(files, names, strict=True)]
    return ['text', files, source.settings(), fingerprint_lib.describe(type(source), inputs)]
  return [type(source).__qualname__, files, fingerprint_lib.describe(source, inputs)]


def _describe_text(name: str, inputs: fingerprint_lib.Inputs) -> Any:
  """Describes a 'task:split' whose text decides which documents of another stay."""
  task, split = cleaning.find(name)
  steps = [fingerprint_lib.describe(step, inputs) for step in cleaning.cleaning_steps(task)]
  return [_describe_source(task.source, split, inputs), steps]


def is_file(name: str) -> bool:
  """Tells files from what else SeqIO calls a shard, such as the name of a split."""
  return fingerprint_lib.is_remote(name) or os.path.isfile(name)


def _describe_vocabulary(
  vocabulary: seqio.Vocabulary, tokenizer: str, inputs: fingerprint_lib.Inputs
) -> Any:
  # Of SeqIO's own, the file that it was given too, to notice a change; of ours it is the same file.
  ours = isinstance(vocabulary, vocabulary_lib.ChunkedVocabulary)
  described = fingerprint_lib.describe(type(vocabulary) if ours else vocabulary, inputs)
  return [inputs.sha256(tokenizer), described]


def _describe_link(link: Link, source: str, inputs: fingerprint_lib.Inputs) -> Any:
  linking.check_text_route(link.policy)
  policy = dataclasses.asdict(link.policy)  # whose files count by their bytes, not their names
  for name in ('lexicon', 'stop_words', 'word_list'):
    del policy[name]
  return {
    'policy': policy,
    'source': source,
    **linking.describe_files(link.policy, inputs),
    'seed': link.seed,
    'code': [fingerprint_lib.describe(prep.link_substitute, inputs), linking.describe_code(inputs)],
  }
