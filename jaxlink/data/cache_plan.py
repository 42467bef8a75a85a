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
from jaxlink.data import fingerprint as fingerprint_lib
from jaxlink.data import linking, register
from jaxlink.data import preprocessors as prep
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
    ingredients: all that the fingerprint is a hash of.
  """

  task: str
  split: str
  link: Link | None
  settings: CacheSettings
  modules: tuple[str, ...]
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
    """Returns the task, importing the modules that register it."""
    for module in self.modules:
      importlib.import_module(module)
    return seqio.TaskRegistry.get(self.task)


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
    ValueError: the split does not exist, or the task does not tokenise by `tokenize_marked`.
  """
  found = seqio.TaskRegistry.get(task)
  if split not in found.source.splits:
    raise ValueError(
      f'Task {task!r} has no split {split!r}. Splits: {", ".join(map(str, found.source.splits))}.'
    )
  if 'targets' not in found.output_features:
    raise ValueError(
      f"Task {task!r} has no feature 'targets'. Features: {', '.join(found.output_features)}."
    )
  tokenization_step(found)
  ingredients = {
    'format': blocks_lib.FORMAT,
    'settings': dataclasses.asdict(settings),
    'split': split,
    'seed': _SEED,
    'source': _describe_source(found.source, split, inputs),
    'vocabulary': _describe_vocabulary(found.output_features['targets'].vocabulary, inputs),
    'preprocessors': [fingerprint_lib.describe(p, inputs) for p in found.preprocessors],
    'link': _describe_link(link, task, inputs) if link else None,
    'encode': fingerprint_lib.describe(encode, inputs),
  }
  digest = fingerprint_lib.digest(ingredients)
  linked = '-link' if link else ''
  folder = os.path.join(cache_dir, task, f'{split}{linked}-{digest[:16]}')
  return Plan(task, split, link, settings, tuple(modules), digest, ingredients, folder)


def tokenization_step(task: seqio.Task) -> int:
  """Returns the index of the step that tokenises."""
  for at, step in enumerate(task.preprocessors):
    if getattr(step, 'func', step) is prep.tokenize_marked:
      return at
  raise ValueError(
    f'Task {task.name!r} has no step `tokenize_marked`, which a cache needs for its word marks and '
    'LINK goes before. Tasks made by `register_corpus` have it; one of your own can take it in '
    "place of `seqio.preprocessors.tokenize`, with a `ChunkedVocabulary` as vocabulary of 'targets'."
  )


def text_key(task: seqio.Task) -> str:
  """Returns the feature that the task tokenises."""
  step = task.preprocessors[tokenization_step(task)]
  return getattr(step, 'keywords', {}).get('text_key', 'text')


def examples_of(
  task: seqio.Task, plan: Plan, parts: int, part: int
) -> Iterator[dict[str, np.ndarray]]:
  info = seqio.ShardInfo(index=part, num_shards=parts) if parts > 1 else None
  dataset = task.get_dataset(
    sequence_length=None, split=plan.split, shuffle=False, seed=_SEED, shard_info=info,
    num_epochs=1,
  )  # fmt: skip
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = 1
  try:
    yield from dataset.with_options(options).as_numpy_iterator()
  except tf.errors.OpError as error:
    # TensorFlow wraps what Python raised: '{{function}} BadDocument: …\nTraceback …'.
    message = error.message.partition('\nTraceback ')[0].rpartition('}} ')[2]
    raise ValueError(f'{plan.name}: {message}') from error


def draws_by_place(task: seqio.Task, split: str) -> bool:
  """Tells whether a preprocessor draws by an example's place in the source (`num_seeds` of SeqIO).

  Raises:
    ValueError: one draws without a seed, so that its cache would differ each time.
  """
  dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, seed=_SEED)
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
  """Turns an example into a document for the blocks, and its counts."""
  tokens = example['targets']
  counts = {
    'documents': int(len(tokens) > 0),
    'tokens': len(tokens),
    'bytes': int(example['bytes']),
    'empty': int(len(tokens) == 0),
    'tokens_before': int(example['tokens_before']),
  }
  if not len(tokens):
    return None, counts
  key = int(np.int64(example['document']).astype(np.uint64))
  types = example['word_types'].decode().split('\n') if len(example['words']) else []
  return blocks_lib.Encoded(key, tokens, example['words'], types), counts


def describe_tokenizer(vocabulary: seqio.Vocabulary) -> dict[str, Any]:
  path = getattr(vocabulary, 'path', '')
  return {
    'path': os.path.abspath(path) if path else '',
    'sha256': vocabulary.tokenizer.sha256 if path else '',
    'size': vocabulary.vocab_size,
    'bos': vocabulary.bos_id,
    'eos': vocabulary.eos_id,
    'native': vocabulary.tokenizer.native if path else True,
    'lossless': vocabulary.tokenizer.lossless if path else True,
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
  files = [inputs.sha256(f) for f in source.list_shards(split) if is_file(f)]
  if isinstance(source, register.TextSource):
    return ['text', files, source.settings(), fingerprint_lib.describe(type(source), inputs)]
  return [type(source).__qualname__, files, fingerprint_lib.describe(source, inputs)]


def is_file(name: str) -> bool:
  """Tells files from what else SeqIO calls a shard, such as the name of a split."""
  return fingerprint_lib.is_remote(name) or os.path.isfile(name)


def _describe_vocabulary(vocabulary: seqio.Vocabulary, inputs: fingerprint_lib.Inputs) -> Any:
  if isinstance(vocabulary, register.ChunkedVocabulary):
    return [inputs.sha256(vocabulary.path), fingerprint_lib.describe(type(vocabulary), inputs)]
  return fingerprint_lib.describe(vocabulary, inputs)


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
