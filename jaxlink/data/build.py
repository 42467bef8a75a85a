"""Builds a cache: a SeqIO task's documents, tokenised, marked, shuffled and cut into blocks.

  plan      the task (with LINK where asked) and everything its content depends on → a fingerprint
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
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import functools
import importlib
import json
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
import tqdm

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import fingerprint as fingerprint_lib
from jaxlink.data import preprocessors as prep
from jaxlink.data import register
from jaxlink.link import draws, lexicon, substitute

_REPORT_EVERY = 64  # documents between two reports of a reader
_EXAMPLES = 3  # rewritten sentences kept in the manifest, to be shown
# A small source is read in this process: starting workers takes longer (a TensorFlow import each).
_SMALL = 32 << 20  # bytes on disk
_PART = 64 << 20  # bytes on disk read into memory at a time by one reader
_MOST_PARTS = 64  # for one file is read by all of its parts
_TEMPORARY = 'tmp-'
_SEED = 0  # of random SeqIO preprocessors
_RANDOM_OPS = (
  'RandomDataset', 'RandomUniform', 'RandomStandardNormal', 'RandomShuffle', 'RandomGamma',
  'RandomPoisson', 'TruncatedNormal', 'ParameterizedTruncatedNormal', 'Multinomial',
)  # fmt: skip
_SAY_EVERY = 10  # seconds, where there is no terminal for a bar


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

  policy: substitute.LinkPolicy
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


def plan(
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
  _tokenization(found)
  ingredients = {
    'format': blocks_lib.FORMAT,
    'settings': dataclasses.asdict(settings),
    'split': split,
    'seed': _SEED,
    'source': _describe_source(found.source, split, inputs),
    'vocabulary': _describe_vocabulary(found.output_features['targets'].vocabulary, inputs),
    'preprocessors': [fingerprint_lib.describe(p, inputs) for p in found.preprocessors],
    'link': _describe_link(link, task, inputs) if link else None,
    'encode': fingerprint_lib.describe(_encode, inputs),
  }
  digest = fingerprint_lib.digest(ingredients)
  linked = '-link' if link else ''
  folder = os.path.join(cache_dir, task, f'{split}{linked}-{digest[:16]}')
  return Plan(task, split, link, settings, tuple(modules), digest, ingredients, folder)


def build(plan: Plan, *, processes: int = 0, progress: bool = True) -> blocks_lib.Blocks:
  """Opens a cache, building it first if it is not there.

  Args:
    plan: from `plan`.
    processes: readers and writers at a time; 0 chooses by the source's size and the cores.
    progress: whether to draw a bar.

  Raises:
    ValueError: the source holds no text.
  """
  os.makedirs(os.path.dirname(plan.folder), exist_ok=True)
  with _lock(plan.folder + '.lock'):
    if not plan.exists:
      if not os.path.exists(os.path.join(plan.work, blocks_lib.MANIFEST)):
        _build(plan, processes, progress)
      _commit(plan)
  return blocks_lib.Blocks(plan.folder)


def read_tokenizer(plan: Plan) -> dict[str, Any]:
  """Returns the tokenizer's entry of a built cache, with the path of the copy that lies in it."""
  tokenizer = blocks_lib.Blocks(plan.folder).manifest['tokenizer']
  return {**tokenizer, 'path': os.path.join(plan.folder, tokenizer['path'])}


def _build(plan: Plan, processes: int, progress: bool) -> None:
  """Does what is not done yet of the work, and writes the manifest."""
  started = time.time()
  os.makedirs(plan.work, exist_ok=True)
  task = plan.get_task()
  files = task.source.list_shards(plan.split)
  size = sum(fingerprint_lib.size(f) for f in files if _is_file(f))
  parts = len(files)
  if task.source.supports_arbitrary_sharding:
    # As many as the source's size asks for, not as there are cores: a restart may have others.
    parts = 1 if size < _SMALL else max(parts, min(_MOST_PARTS, -(-size // _PART)))
  if _draws_by_place(task, plan.split):
    parts = 1
  processes = processes or (1 if size < _SMALL else os.cpu_count() or 1)
  counts: collections.Counter[str] = collections.Counter()
  dose: np.ndarray | int = 0
  shards = []
  with _pool(min(processes, max(parts, plan.settings.shards))) as run:
    with _bar(plan, task, parts, progress) as report:
      probability, shortfall = _probability(plan)
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
  totals = {k: sum(s[k] for s in shards) for k in ('documents', 'tokens', 'words', 'blocks')}
  manifest = {
    'format': blocks_lib.FORMAT,
    'name': plan.name,
    'task': plan.task,
    'split': plan.split,
    'language': register.LANGUAGES.get(plan.task, plan.task),
    'fingerprint': plan.fingerprint,
    'block': plan.settings.block,
    'tokenizer': _describe_tokenizer(task.output_features['targets'].vocabulary),
    **totals,
    'bytes': counts['bytes'],
    'empty_documents': counts['empty'],
    'rejected_lines': counts['rejected'],
    'dose': _dose(plan, dose, counts, probability, shortfall) if plan.link else None,
    'examples': _examples(plan, probability) if plan.link else [],
    'ingredients': plan.ingredients,
    'seconds': round(time.time() - started, 1),
    'shards': shards,
  }
  tokenizer = manifest['tokenizer']
  if tokenizer['path']:
    shutil.copyfile(tokenizer['path'], os.path.join(plan.work, os.path.basename(tokenizer['path'])))
    tokenizer['path'] = os.path.basename(tokenizer['path'])
  _write_json(os.path.join(plan.work, blocks_lib.MANIFEST), manifest)


def _commit(plan: Plan) -> None:
  """Drops what only the building needed, and renames the folder."""
  for name in os.listdir(plan.work):
    if name.startswith(_TEMPORARY):
      path = os.path.join(plan.work, name)
      shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
  os.rename(plan.work, plan.folder)


# ── reading: documents of one part of the source, sorted by output shard ──────────────────────────

_DOCUMENTS = 'documents.pickle'  # of a part: where each shard's documents begin, then the documents


def _read_part(plan: Plan, probability: float | None, parts: int, part: int) -> Iterator[dict]:
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
    dose = np.zeros(len(prep.DOSE_FIELDS), np.int64)
    since = {'documents': 0, 'tokens': 0}
    for number, example in enumerate(_examples_of(_linked(plan, probability), plan, parts, part)):
      document, one = _encode(example)
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
    _write_json(os.path.join(partial, 'counts.json'), {'part': counts, 'dose': dose.tolist()})
    os.rename(partial, folder)
  with open(done, encoding='utf-8') as file:
    yield json.load(file)


def _examples_of(
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


def _draws_by_place(task: seqio.Task, split: str) -> bool:
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


def _encode(example: dict[str, np.ndarray]) -> tuple[blocks_lib.Encoded | None, dict[str, int]]:
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
  types = [t.decode() for t in example['word_types']]
  return blocks_lib.Encoded(key, tokens, example['words'], types), counts


# ── writing: one output shard ─────────────────────────────────────────────────────────────────────


def _write_shard(plan: Plan, parts: int, shard: int) -> Iterator[dict[str, Any]]:
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
    tokenizer = _describe_tokenizer(plan.get_task().output_features['targets'].vocabulary)
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
    _write_json(done, {'shard': {'shard': shard, **writer.close()}})
  with open(done, encoding='utf-8') as file:
    yield json.load(file)


# ── LINK ──────────────────────────────────────────────────────────────────────────────────────────


def _linked(plan: Plan, probability: float | None) -> seqio.Task:
  """Returns the task with `link_substitute` before its tokenisation, or the task as it is."""
  task = plan.get_task()
  if not plan.link:
    return task
  at = _tokenization(task)
  step = functools.partial(
    prep.link_substitute,
    policy=plan.link.policy,
    source=plan.task,
    seed=plan.link.seed,
    probability=probability,
    text_key=_text_key(task),
  )
  return seqio.Task(
    plan.task,
    source=task.source,
    output_features=task.output_features,
    preprocessors=[*task.preprocessors[:at], step, *task.preprocessors[at:]],
  )


def _tokenization(task: seqio.Task) -> int:
  """Returns the index of the step that tokenises."""
  for at, step in enumerate(task.preprocessors):
    if getattr(step, 'func', step) is prep.tokenize_marked:
      return at
  raise ValueError(
    f'Task {task.name!r} has no step `tokenize_marked`, which a cache needs for its word marks and '
    'LINK goes before. Tasks made by `register_corpus` have it; one of your own can take it in '
    "place of `seqio.preprocessors.tokenize`, with a `ChunkedVocabulary` as vocabulary of 'targets'."
  )


def _text_key(task: seqio.Task) -> str:
  """Returns the feature that the task tokenises."""
  step = task.preprocessors[_tokenization(task)]
  return getattr(step, 'keywords', {}).get('text_key', 'text')


def _texts(plan: Plan) -> Iterator[str]:
  """Yields the source's texts as LINK gets them: cleaned, not yet tokenised."""
  task = plan.get_task()
  at = _tokenization(task)
  key = _text_key(task)
  untokenized = seqio.Task(
    plan.task,
    source=task.source,
    output_features={key: seqio.Feature(seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0)},
    preprocessors=task.preprocessors[:at],
  )
  for example in _examples_of(untokenized, plan, 1, 0):
    yield example[key].decode()


def _probability(plan: Plan) -> tuple[float | None, float]:
  """Returns the probability that reaches a ratio of *all* words, and by how much it falls short.

  It needs a count of the source; None and 0 for the ratios that do not.
  """
  if not plan.link or plan.link.policy.ratio_of != 'all':
    return None, 0.0
  policy = plan.link.policy
  words, stop = lexicon.Lexicon.load(policy.lexicon), prep.stop_words(policy)
  doses = (substitute.count(t, words, policy, stop_words=stop) for t in _texts(plan))
  dose = sum(doses, substitute.Dose())
  return substitute.probability(policy, dose.words, dose.eligible)


def _dose(
  plan: Plan,
  dose: np.ndarray,
  counts: dict[str, int],
  probability: float | None,
  shortfall: float,
) -> dict[str, Any]:
  words = lexicon.Lexicon.load(plan.link.policy.lexicon)
  return {
    **dict(zip(prep.DOSE_FIELDS, dose.tolist(), strict=True)),
    'tokens_before': counts['tokens_before'],
    'tokens_after': counts['tokens'],
    'probability': plan.link.policy.word_ratio if probability is None else probability,
    'shortfall': shortfall,
    'policy': dataclasses.asdict(plan.link.policy),
    'seed': plan.link.seed,
    'lexicon': {
      'sha256': words.sha256,
      'entries': len(words.entries),
      'counts': dict(words.counts),
    },
  }


def _examples(plan: Plan, probability: float | None) -> list[dict[str, str]]:
  """Returns a few rewritten sentences, as they were and as they are."""
  policy = plan.link.policy
  words, stop = lexicon.Lexicon.load(policy.lexicon), prep.stop_words(policy)
  keyed = policy.draws(plan.link.seed, plan.task, 0)
  found: list[dict[str, str]] = []
  for text in _texts(plan):
    result = substitute.substitute(
      text, words, policy, keyed, document=draws.key_of(text), probability=probability,
      stop_words=stop,
    )  # fmt: skip
    if result.sites:
      found.append(_sentence(text, result.sites))
    if len(found) == _EXAMPLES:
      break
  return found


def _sentence(text: str, sites: Sequence[tuple[int, int, str, str]]) -> dict[str, str]:
  """Cuts the sentence of the first site out of a text, before and after, replacements in brackets."""
  begin, end = sites[0][:2]
  full_stop = text.rfind('. ', 0, begin)
  start = max(text.rfind('\n', 0, begin) + 1, full_stop + 2 if full_stop >= 0 else 0)
  stop = text.find('. ', end) + 1 or len(text)
  pieces, at = [], start
  for begin, end, original, replacement in sites:
    if start <= begin and end <= stop:
      space = ' ' if original.startswith(' ') and replacement.startswith(' ') else ''
      pieces += [text[at:begin], space, f'[{replacement.strip()}]']
      at = end
  return {'original': text[start:stop], 'substituted': ''.join([*pieces, text[at:stop]])}


# ── descriptions ──────────────────────────────────────────────────────────────────────────────────


def _describe_source(source: seqio.DataSource, split: str, inputs: fingerprint_lib.Inputs) -> Any:
  """Describes a split by its files' bytes; patterns are watched, so that a new file is noticed."""
  if isinstance(source, seqio.TfdsDataSource):
    loader = source.tfds_dataset
    names = [instruction.filename for instruction in loader.files(split)]
    versions = os.path.dirname(os.path.dirname(names[0]))  # {data_dir}/{name}/{version}/{file}
    inputs.watch(os.path.join(versions, '*', 'dataset_info.json'))
    files = [inputs.sha256(f) for f in names if _is_file(f)]
    return ['tfds', loader.resolved_tfds_name(split), split, loader.size(split), files]
  patterns = getattr(source, '_split_to_filepattern', {}).get(split, [])  # of SeqIO's file sources
  if isinstance(source, register.TextSource):
    patterns = source.patterns(split)
  for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
    inputs.watch(os.fspath(pattern))
  files = [inputs.sha256(f) for f in source.list_shards(split) if _is_file(f)]
  if isinstance(source, register.TextSource):
    return ['text', files, source.settings(), fingerprint_lib.describe(type(source), inputs)]
  return [type(source).__qualname__, files, fingerprint_lib.describe(source, inputs)]


def _is_file(name: str) -> bool:
  """Tells files from what else SeqIO calls a shard, such as the name of a split."""
  return fingerprint_lib.is_remote(name) or os.path.isfile(name)


def _describe_vocabulary(vocabulary: seqio.Vocabulary, inputs: fingerprint_lib.Inputs) -> Any:
  if isinstance(vocabulary, register.ChunkedVocabulary):
    return [inputs.sha256(vocabulary.path), fingerprint_lib.describe(type(vocabulary), inputs)]
  return fingerprint_lib.describe(vocabulary, inputs)


def _describe_tokenizer(vocabulary: seqio.Vocabulary) -> dict[str, Any]:
  path = getattr(vocabulary, 'path', '')
  return {
    'path': os.path.abspath(path) if path else '',
    'sha256': vocabulary.tokenizer.sha256 if path else '',
    'size': vocabulary.vocab_size,
    'bos': vocabulary.bos_id,
    'eos': vocabulary.eos_id,
  }


def _describe_link(link: Link, source: str, inputs: fingerprint_lib.Inputs) -> Any:
  policy = dataclasses.asdict(link.policy)  # whose files count by their bytes, not their names
  words, stop = policy.pop('lexicon'), policy.pop('stop_words')
  return {
    'policy': policy,
    'lexicon': inputs.sha256(words),
    'stop_words': inputs.sha256(stop) if stop else '',
    'source': source,
    'seed': link.seed,
    'code': fingerprint_lib.describe(prep.link_substitute, inputs),
  }


# ── processes, files ──────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _lock(path: str) -> Iterator[None]:
  """Holds a lock that ends with its process, so that two runs do not build one cache together."""
  with open(path, 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'data: waiting for another run that builds {path.removesuffix(".lock")}', flush=True)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _bar(plan: Plan, task: seqio.Task, parts: int, progress: bool) -> Iterator[Any]:
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


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[Any]:
  """Yields run(function, calls): the events of function(*call) for all calls, as they come."""
  if processes == 1:
    yield lambda function, calls: (event for call in calls for event in function(*call))
    return
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tensorflow', 'seqio'])
  events = context.SimpleQueue()
  with concurrent.futures.ProcessPoolExecutor(
    processes, mp_context=context, initializer=_start_worker, initargs=(events,)
  ) as pool:

    def run(function, calls):
      pending = {pool.submit(_collect, function, call) for call in calls}
      while pending or not events.empty():
        done, pending = concurrent.futures.wait(pending, 0.1, concurrent.futures.FIRST_COMPLETED)
        for future in done:
          future.result()  # raises what the worker raised, or that it was killed
        while not events.empty():
          yield events.get()

    try:
      yield run
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise


_events: Any = None  # of a worker


def _start_worker(events: Any) -> None:
  """Lets a worker report, and end with the process that builds, even if that one is killed."""
  global _events
  _events = events
  tf.config.set_visible_devices([], 'GPU')

  def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


def _collect(function, call) -> None:
  for event in function(*call):
    _events.put(event)


def _write_json(path: str, value: Any) -> None:
  partial = path + '.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    json.dump(value, file, ensure_ascii=False, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)
