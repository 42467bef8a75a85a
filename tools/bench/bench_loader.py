"""The loader's speed and scale: a sequence's price, opening, resuming, and Grain and SeqIO beside it.

  python tools/bench/bench_loader.py                          # the sample that jaxlink ships
  python tools/bench/bench_loader.py en.jsonl tr.txt --json loader.json

Goes in: two texts, read 0.3 / 0.7 (JSONL or plain text). Comes out: a table, and with --json its figures. All
pipelines read the same documents, tokenised beforehand by the same tokenizer, from local files that the
system holds in memory, and give packed, shuffled batches of 16 x 2,048 tokens. Resuming is opening, and reading
the batch of step 10**6 (jaxlink), or one after the speed was measured (Grain, from its iterator's state).

Easy to get wrong: which seconds. Speeds are by CPU second of all of this process's threads, the best of
several rounds, so that a busy machine does not count; opening and resuming are by the clock, the best of three.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator

import bench_link
import numpy as np

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import seqio_side, sources
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.mixture import Mixture
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.windows import Windows
from jaxlink.link import table
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists

BATCH, LENGTH = bench_link.BATCH, bench_link.LENGTH
SAMPLE = bench_link.SAMPLE
RATES = {'en': 0.3, 'tr': 0.7}
FAR = 10**6  # the step at which a run is resumed
ROUNDS = 3


class Figures:
  """Collects what is measured, and prints each as it comes."""

  def __init__(self):
    self.rows: list[dict[str, object]] = []

  def add(self, what: str, value: float, unit: str, **more: float) -> None:
    """One line: what, how much, and other figures by name."""
    self.rows.append({'what': what, 'value': value, 'unit': unit, **more})
    shown = f'{value / 1e6:9.2f}M' if value >= 1e5 else f'{value:10.4g}'
    others = '  '.join(f'{name} {number:.3g}' for name, number in more.items())
    print(f'{what:<62} {shown} {unit:<10} {others}', flush=True)


class Endless:
  """A source of any size whose tokens are computed when they are read."""

  def __init__(self, name: str, tokens: int):
    self.name, self.tokens, self.fingerprint = name, tokens, f'{name} {tokens}'

  def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    at = (start + np.arange(length)) % self.tokens
    return (at % 7993).astype(np.int32), at % 512 == 0


def best(work: Callable[[], object]) -> float:
  """Seconds by the clock, the least of a few."""
  seconds = []
  for _ in range(ROUNDS):
    began = time.perf_counter()
    work()
    seconds.append(time.perf_counter() - began)
  return min(seconds)


def resident() -> float:
  """MiB that this process holds now."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 2**20


def batches_of(opened: list[blocks_lib.Blocks] | list[Endless]) -> Batches:
  """Read in proportion to their tokens, which have no short period."""
  windows = [Windows(blocks, LENGTH, 0) for blocks in opened]
  mixture = Mixture([b.name for b in opened], [b.tokens + i for i, b in enumerate(opened)])
  return Batches(mixture, windows, BATCH)


def open_and_resume(make: Callable[[], Batches]) -> tuple[float, float]:
  """Seconds to open, and to open and read the batch of a step that no memo knows."""
  steps = itertools.count(FAR, 10**4)
  return best(make), best(lambda: make().read(next(steps), np.arange(BATCH)))


def speed(next_batch: Callable[[], int], seconds: float) -> dict[str, float]:
  """Units by CPU second and by the clock's, the best of rounds of eight batches."""
  for _ in range(8):
    next_batch()
  by_cpu = by_clock = 0.0
  until = time.perf_counter() + seconds
  while time.perf_counter() < until:
    cpu, clock = time.process_time(), time.perf_counter()
    units = sum(next_batch() for _ in range(8))
    by_cpu = max(by_cpu, units / (time.process_time() - cpu))
    by_clock = max(by_clock, units / (time.perf_counter() - clock))
  return {'cpu': by_cpu, 'clock': by_clock}


def steps_of(batches: Batches, start: int = 0) -> Callable[[], int]:
  """Reads the next batch at each call; returns its tokens."""
  steps, rows = itertools.count(start), np.arange(batches.batch)
  return lambda: batches.read(next(steps), rows)['tokens'].size


# ── scale ───────────────────────────────────────────────────────────────────────


def measure_scale(folder: str, texts: list[str], tokenizer: Tokenizer, out: Figures,
                  seconds: float) -> None:  # fmt: skip
  """Opening, resuming and the price of a sequence, by the number of sources and of tokens."""
  first = f'{folder}/many/0'
  bench_link.write_cache(first, 's0', texts, tokenizer, 8)
  manifest = json.loads(pathlib.Path(first, blocks_lib.MANIFEST).read_text(encoding='utf-8'))
  for i in range(1, 1000):  # the same files under other names
    here = f'{folder}/many/{i}'
    os.makedirs(here)
    for file in pathlib.Path(first).iterdir():
      if file.name != blocks_lib.MANIFEST:
        os.link(file, f'{here}/{file.name}')
    described = {**manifest, 'task': f's{i}', 'fingerprint': f's{i}'}
    pathlib.Path(here, blocks_lib.MANIFEST).write_text(json.dumps(described), encoding='utf-8')

  def caches(count: int) -> Batches:
    return batches_of([blocks_lib.Blocks(f'{folder}/many/{i}') for i in range(count)])

  for count in (1, 10, 100, 1000):
    opened, resumed = open_and_resume(lambda count=count: caches(count))
    batches = caches(count)
    price = speed(steps_of(batches, FAR), seconds)
    out.add(f'{count:,} caches of 8 shards: a sequence', 1e6 * LENGTH / price['cpu'], 'us',
            open_seconds=opened, resume_seconds=resumed)  # fmt: skip
  rng, held = np.random.default_rng(0), []
  for reads in (200, 800):
    for step in rng.integers(0, 10**9, reads).tolist():
      batches.read(step, np.arange(BATCH))
    held.append(resident())
  files = len(os.listdir('/proc/self/fd'))
  out.add('1,000 caches: held after 200 batches at random steps', held[0], 'MiB',
          after_800_more=held[1], open_files=files)  # fmt: skip

  sizes = np.geomspace(10**6, 10**11, 1000).astype(np.int64).tolist()
  for what, make in (
    ('a source of 10**11 tokens', lambda: [Endless('s', 10**11)]),
    ('1,000 sources of 10**6 to 10**11 tokens',
     lambda: [Endless(f's{i}', size) for i, size in enumerate(sizes)]),
  ):  # fmt: skip
    opened, resumed = open_and_resume(lambda make=make: batches_of(make()))
    price = speed(steps_of(batches_of(make()), FAR), seconds)
    out.add(f'{what}: a sequence', 1e6 * LENGTH / price['cpu'], 'us', open_seconds=opened,
            resume_seconds=resumed)  # fmt: skip


# ── ours ────────────────────────────────────────────────────────────────────────


def measure_ours(
  folder: str, texts: dict[str, list[str]], tokenizer: Tokenizer, out: Figures, seconds: float
) -> float:
  """Returns tokens by CPU second without LINK."""
  for name, documents in texts.items():
    bench_link.write_cache(f'{folder}/{name}', name, documents, tokenizer, 8)
  opened = {name: blocks_lib.Blocks(f'{folder}/{name}') for name in texts}
  policy = LinkPolicy(lexicon='x', language='tr')
  lexicon = Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')
  built = table.build(f'{folder}/table', {'tr': lexicon}, policy.rendering, WordLists(), tokenizer,
                      record={'digest': 'bench'}, progress=False)  # fmt: skip

  def make(link: bool) -> Batches:
    windows = [Windows(opened[name], LENGTH, 0) for name in texts]
    if link:
      windows[0] = LinkedWindows(opened['en'], LENGTH, 0, table=built, policy=policy, seed_link=0,
                                 stage_tokens=1 << 30, tokenizer=tokenizer)  # fmt: skip
    return Batches(Mixture(list(texts), [str(RATES[name]) for name in texts]), windows, BATCH)

  plain = 0.0
  for link in (False, True):
    batches = make(link)
    found = speed(steps_of(batches), seconds)
    plain = plain or found['cpu']
    opening, resumed = open_and_resume(lambda link=link: make(link))
    out.add(f'jaxlink, {"with" if link else "without"} LINK', found['cpu'], 'tokens/s',
            ratio=found['cpu'] / plain, clock=found['clock'] / 1e6, fill=1.0, open_seconds=opening,
            resume_seconds=resumed)  # fmt: skip
  return plain


# ── Grain's usual pipeline ──────────────────────────────────────────────────────


def measure_grain(
  folder: str, ids: dict[str, list[np.ndarray]], out: Figures, seconds: float, ours: float
) -> None:
  """ArrayRecord documents, shuffled, repeated, mixed, concatenated and split."""
  import grain
  from array_record.python import array_record_module

  for name, documents in ids.items():
    writer = array_record_module.ArrayRecordWriter(f'{folder}/{name}.array_record', 'group_size:1')
    for document in documents:
      writer.write(document.astype(np.int32).tobytes())
    writer.close()

  def make(threads: int) -> Iterator[dict[str, np.ndarray]]:
    parts = [
      grain.MapDataset.source(grain.sources.ArrayRecordDataSource(f'{folder}/{name}.array_record'))
      .seed(i)
      .shuffle()
      .repeat()
      .map(lambda record: {'tokens': np.frombuffer(record, np.int32)})
      for i, name in enumerate(ids)
    ]
    mixed = grain.MapDataset.mix(parts, weights=[RATES[name] for name in ids])
    rows = grain.experimental.ConcatThenSplitIterDataset(
      mixed.to_iter_dataset(grain.ReadOptions(num_threads=threads)),
      length_struct={'tokens': LENGTH},
    )
    return iter(rows.batch(BATCH))

  for threads in (0, 16):
    iterator = make(threads)
    found = speed(lambda iterator=iterator: next(iterator)['tokens'].size, seconds)
    state = iterator.get_state()

    def resume(threads: int = threads, state: dict = state) -> None:
      again = make(threads)
      again.set_state(state)
      next(again)

    opened = best(lambda threads=threads: make(threads))
    out.add(f'Grain, {threads} read threads', found['cpu'], 'tokens/s', ratio=found['cpu'] / ours,
            clock=found['clock'] / 1e6, fill=1.0, open_seconds=opened,
            resume_seconds=best(resume))  # fmt: skip


# ── SeqIO's usual pipeline ──────────────────────────────────────────────────────


def measure_seqio(
  folder: str, ids: dict[str, list[np.ndarray]], out: Figures, seconds: float, ours: float
) -> None:
  """Tokenised TFRecord documents, a mixture, `get_dataset` with a converter that trims and packs."""
  seqio_side.import_tensorflow()
  import seqio
  import tensorflow as tf

  def as_int32(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(
      lambda example: {'targets': tf.cast(example['targets'], tf.int32)},
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  vocabulary = seqio.PassThroughVocabulary(size=1 << 20, eos_id=1)
  for name, documents in ids.items():
    with tf.io.TFRecordWriter(f'{folder}/{name}.tfrecord') as writer:
      for document in documents:
        feature = tf.train.Feature(int64_list=tf.train.Int64List(value=document))
        example = tf.train.Example(features=tf.train.Features(feature={'targets': feature}))
        writer.write(example.SerializeToString())
    seqio.TaskRegistry.add(
      f'bench_{name}',
      source=seqio.TFExampleDataSource(
        {'train': f'{folder}/{name}.tfrecord'},
        {'targets': tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)},
      ),
      preprocessors=[as_int32],
      output_features={'targets': seqio.Feature(vocabulary, add_eos=False)},
      metric_fns=[],
    )
  seqio.MixtureRegistry.add('bench', [(f'bench_{name}', RATES[name]) for name in ids])

  def make() -> tf.data.Dataset:
    return seqio.get_dataset(
      'bench', {'targets': LENGTH}, dataset_split='train', shuffle=True, seed=0, num_epochs=None,
      feature_converter=seqio.LMFeatureConverter(pack=True), batch_size=BATCH,
    )  # fmt: skip

  iterator, filled = make().as_numpy_iterator(), []

  def next_batch() -> int:
    real = int((next(iterator)['decoder_segment_ids'] > 0).sum())
    filled.append(real / (BATCH * LENGTH))
    return real

  found = speed(next_batch, 2 * seconds)
  kept = sum(min(len(d), LENGTH) for documents in ids.values() for d in documents)
  total = sum(len(d) for documents in ids.values() for d in documents)
  opened = best(lambda: next(make().as_numpy_iterator()))
  at = 500
  skipped = best(lambda: next(make().skip(at).as_numpy_iterator())) - opened
  out.add('SeqIO, tokens that are no padding', found['cpu'], 'tokens/s', ratio=found['cpu'] / ours,
          clock=found['clock'] / 1e6, fill=float(np.mean(filled)), trimmed=1 - kept / total,
          open_seconds=opened)  # fmt: skip
  out.add(f'SeqIO, skipping to batch {at} (linear)', skipped, 's',
          hours_to_step_1e6=skipped / at * FAR / 3600)  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('text', nargs='*', help='English and Turkish text; the sample if not given')
  parser.add_argument('--tokenizer', default=str(SAMPLE / 'tokenizer.model'))
  parser.add_argument('--seconds', type=float, default=3.0, help='for each speed')
  parser.add_argument('--json', help='file to write the figures to')
  args = parser.parse_args()
  if len(args.text) not in (0, 2):
    parser.error(f'{len(args.text)} texts: give two, English and Turkish, or none.')
  paths = args.text or [str(SAMPLE / 'en.train.jsonl.gz'), str(SAMPLE / 'tr.train.txt.gz')]
  texts = {
    name: [d.text for d in sources.read_documents(path) if d.text]
    for name, path in zip(RATES, paths, strict=True)
  }
  tokenizer = Tokenizer(args.tokenizer)
  versions = {
    name: importlib.metadata.version(name)
    for name in ('numpy', 'grain', 'array_record', 'seqio', 'tensorflow')
  }
  machine = f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}'
  print(machine, *(f'{name} {version}' for name, version in versions.items()), sep=', ')
  ids = {
    name: [np.array([tokenizer.bos_id, *tokenizer.encode_marked(d).ids, tokenizer.eos_id])
           for d in documents]
    for name, documents in texts.items()
  }  # fmt: skip
  out = Figures()
  with tempfile.TemporaryDirectory() as folder:
    measure_scale(folder, texts['tr'][:64], tokenizer, out, args.seconds)
    ours = measure_ours(folder, texts, tokenizer, out, args.seconds)
    measure_grain(folder, ids, out, args.seconds, ours)
    measure_seqio(folder, ids, out, args.seconds, ours)
  if args.json:
    found = {'machine': machine, 'versions': versions, 'figures': out.rows}
    pathlib.Path(args.json).write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
  main()
