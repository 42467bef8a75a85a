"""LINK's speed, beside what would stand in its place: splice, loader, reference, caching, memory.

  python tools/bench/bench_link.py                  # the sample that jaxlink ships
  python tools/bench/bench_link.py --seconds 3      # a longer look at each

One process, CPU seconds of this process (so that a busy machine does not count), the best of several
rounds. Tokens are new tokens (what a model reads) unless said otherwise; words are those of the text.
"""

import argparse
import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable

import numpy as np

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import sources
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.mixture import Mixture
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.windows import Windows
from jaxlink.link import splice, table, words
from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists
from jaxlink.link.substitute import substitute

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'
BATCH, LENGTH = 16, 2048


def rate(work: Callable[[], int], seconds: float) -> float:
  """Units a CPU second of `work`, which returns how many it did; the best of the rounds."""
  work()
  best, until = 0.0, time.perf_counter() + seconds
  while time.perf_counter() < until:
    began = time.process_time()
    units = work()
    best = max(best, units / (time.process_time() - began))
  return best


def once(work: Callable[[], int]) -> float:
  """Units a CPU second of the first pass."""
  began = time.process_time()
  return work() / (time.process_time() - began)


def show(what: str, value: float, unit: str, beside: float | None = None, of: str = '') -> None:
  ratio = '' if beside is None else f'{value / beside:8.2f} x {of}'
  print(f'{what:<58} {value / 1e6:8.2f}M {unit}{ratio}', flush=True)


def write_cache(
  folder: str, name: str, texts: list[str], tokenizer: Tokenizer, shards: int
) -> None:
  """A cache of texts, as `jaxlink.cache` lays it out."""
  os.makedirs(folder)
  counts = []
  for shard in range(shards):
    writer = blocks_lib.ShardWriter(
      folder, shard, block=4096, size=tokenizer.size, bos=tokenizer.bos_id, eos=tokenizer.eos_id
    )
    for text in texts[shard::shards]:
      marked = tokenizer.encode_marked(text)
      writer.add(blocks_lib.Encoded(key_of(text), marked.ids, marked.words, marked.types))
    counts.append({'shard': shard, **writer.close()})
  manifest = {
    'format': blocks_lib.FORMAT, 'task': name, 'fingerprint': name, 'block': 4096, 'shards': counts,
    'tokenizer': {'size': tokenizer.size},
  }  # fmt: skip
  with open(os.path.join(folder, blocks_lib.MANIFEST), 'w', encoding='utf-8') as file:
    json.dump(manifest, file)


def read(name: str) -> list[str]:
  return [d.text for d in sources.read_documents(str(SAMPLE / name)) if d.text]


def by_word(texts: list[str], lexicon: Lexicon, ratio: float) -> int:
  """What one would write first: word by word, a generator, the first translation."""
  rng = np.random.default_rng(0)
  count = 0
  for text in texts:
    pieces = words.split_words(text)
    for i in range(1, len(pieces), 2):
      targets = lexicon.entries.get(words.key(pieces[i]))
      if targets and rng.random() < ratio:
        pieces[i] = targets[int(rng.integers(len(targets)))]
    ''.join(pieces)
    count += len(pieces) // 2
  return count


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--seconds', type=float, default=1.5, help='for each figure')
  seconds = parser.parse_args().seconds
  print(f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python '
        f'{platform.python_version()}, numpy {np.__version__}')  # fmt: skip

  english, turkish = read('en.train.jsonl.gz'), read('tr.train.txt.gz')
  tokenizer = Tokenizer(str(SAMPLE / 'tokenizer.model'))
  lexicon = Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')
  n_words = sum(len(words.split_words(text)) // 2 for text in english)

  # ── text to text ────────────────────────────────────────────────────────────
  draws = Draws(0, 'en')

  def reference() -> int:
    policy = LinkPolicy(lexicon='x', language='tr', doc_fraction=1.0)
    for number, text in enumerate(english):
      substitute(text, lexicon, policy, draws, document=number)
    return n_words

  # Cold: the first pass over a text, whose words are new to every memo; warm: a later one. A large corpus is
  # in between, and nearer to warm.
  cold = once(reference)
  loop = rate(lambda: by_word(english, lexicon, 0.3), seconds)
  show('reference, text to text, ratio 0.3, cold', cold, 'words/s', loop, 'a word-by-word loop')
  show('reference, text to text, ratio 0.3, warm', rate(reference, seconds), 'words/s', loop,
       'a word-by-word loop')  # fmt: skip

  # ── tokenising ──────────────────────────────────────────────────────────────
  def encode(one: Callable[[str], object]) -> Callable[[], int]:
    def work() -> int:
      for text in english:
        one(text)
      return n_words

    return work

  import sentencepiece

  bare = sentencepiece.SentencePieceProcessor(model_file=str(SAMPLE / 'tokenizer.model'))
  plain = rate(encode(bare.encode), seconds)
  marking = encode(tokenizer.encode_marked)
  show('tokenising with a mark on every word, cold', once(marking), 'words/s', plain,
       'bare SentencePiece')  # fmt: skip
  show('tokenising with a mark on every word, warm', rate(marking, seconds), 'words/s', plain,
       'bare SentencePiece')  # fmt: skip

  with tempfile.TemporaryDirectory() as folder:
    # ── splice ────────────────────────────────────────────────────────────────
    write_cache(f'{folder}/en', 'en', english, tokenizer, 8)
    write_cache(f'{folder}/tr', 'tr', turkish, tokenizer, 8)
    blocks = {name: blocks_lib.Blocks(f'{folder}/{name}') for name in ('en', 'tr')}

    def linked(asked: LinkPolicy) -> LinkedWindows:
      path = f'{folder}/{asked.mode}'
      built = table.build(path, {'tr': lexicon}, asked.rendering, WordLists(), tokenizer,
                          record={'digest': path}, progress=False)  # fmt: skip
      return LinkedWindows(
        blocks['en'], LENGTH, 0, table=built, policy=asked, seed_link=0, stage_tokens=1 << 20,
        tokenizer=tokenizer,
      )  # fmt: skip

    for mode in ('replace', 'annotate', 'restore'):
      for fraction, ratio in ((0.5, 0.3), (1.0, 0.3), (1.0, 1.0)):
        source = linked(LinkPolicy(
          lexicon='x', language='tr', doc_fraction=fraction, word_ratio=ratio, mode=mode
        ))  # fmt: skip
        span = (blocks['en'].tokens - LENGTH) // BATCH
        windows, _ = source.read([(i * span, LENGTH) for i in range(BATCH)])
        choice = source.choice(0)

        def work(windows=windows, source=source, choice=choice) -> int:
          return len(splice.splice(windows, source.table, choice, source.tail).tokens_M)

        show(
          f'splice, {mode}, documents {fraction}, ratio {ratio}', rate(work, seconds), 'tokens/s'
        )

    # ── the loader ────────────────────────────────────────────────────────────
    mixture = Mixture(['en', 'tr'], ['0.3', '0.7'])
    plain_windows = {name: Windows(blocks[name], LENGTH, 0) for name in blocks}
    rates = {}
    for name, english_windows in (
      ('without LINK', plain_windows['en']),
      ('with LINK', linked(LinkPolicy(lexicon='x', language='tr'))),
      ('with LINK, every word', linked(
        LinkPolicy(lexicon='x', language='tr', doc_fraction=1.0, word_ratio=1.0))),
      ('with LINK, annotate', linked(LinkPolicy(lexicon='x', language='tr', mode='annotate'))),
    ):  # fmt: skip
      batches = Batches(mixture, [english_windows, plain_windows['tr']], BATCH)
      steps = iter(range(1 << 30))

      def work(batches=batches, steps=steps) -> int:
        for _ in range(8):
          batches.read(next(steps), np.arange(BATCH))
        return 8 * BATCH * LENGTH

      rates[name] = rate(work, seconds)
      show(f'loader, two sources .3/.7, shuffled, packed, {name}', rates[name], 'tokens/s',
           rates['without LINK'], 'without')  # fmt: skip
    one = Batches(Mixture(['en'], [1]), [linked(LinkPolicy(lexicon='x', language='tr'))], BATCH)
    steps = iter(range(1 << 30))

    def work_one() -> int:
      one.read(next(steps), np.arange(BATCH))
      return BATCH * LENGTH

    show('loader, one source with LINK', rate(work_one, seconds), 'tokens/s')

    # ── memory and opening ────────────────────────────────────────────────────
    rng = np.random.default_rng(0)
    letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
    made = [''.join(rng.choice(letters, 9)) for _ in range(150_000)]
    large = Lexicon.from_pairs(
      (made[i % 100_000], target) for i, target in enumerate(reversed(made)) if i < 150_000
    )
    began = time.process_time()
    table.build(f'{folder}/large', {'tr': large}, LinkPolicy(lexicon='x', language='tr').rendering,
                WordLists(), tokenizer, progress=False)  # fmt: skip
    took = time.process_time() - began
    size = sum(f.stat().st_size for f in pathlib.Path(f'{folder}/large').iterdir())
    print(f'link table of {len(large.entries):,} entries, 150,000 targets: {size / 2**20:.1f} MiB mapped, '
          f'built in {took:.1f} s, once')  # fmt: skip
    write_cache(f'{folder}/many', 'many', english[:2000], tokenizer, 1000)
    began = time.perf_counter()
    blocks_lib.Blocks(f'{folder}/many').read(0, LENGTH)
    print(f'a cache of 1,000 shards opened and read from in {time.perf_counter() - began:.3f} s')


if __name__ == '__main__':
  main()
