"""A thousand sources, a source of 10**11 tokens, step 10**6: what is read and what is held stays the same.

Counted in blocks that are read, bytes that are held and files that are open; seconds are for
`tools/bench/bench_loader.py`.
"""

import gc
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

from jaxlink.data import blocks as blocks_lib
from jaxlink.data import mixture as mixture_lib
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.mixture import Mixture
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.windows import Windows
from jaxlink.link import table
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists
from tests.data.conftest import SAMPLE
from tests.data.fake_index import FakeIndex

LENGTH, BATCH = 2048, 16
TRANSLATIONS = Lexicon.from_pairs(
  [('dog', 'köpek'), ('house', 'ev'), ('of', 'uluslararası ilişkiler'), ('city', 'şehir'), ('free', 'özgür')]
)  # fmt: skip


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
  return Tokenizer(str(SAMPLE / 'tokenizer.model'))


@pytest.fixture(scope='module')
def link(tokenizer, tmp_path_factory):
  """Makes `LinkedWindows` of a source."""
  asked = LinkPolicy(lexicon='x', language='tr')
  built = table.build(
    str(tmp_path_factory.mktemp('link') / 't'), {'tr': TRANSLATIONS}, asked.rendering, WordLists(),
    tokenizer, record={'digest': 'x'},
  )  # fmt: skip
  return lambda blocks: LinkedWindows(
    blocks, LENGTH, 0, table=built, policy=asked, seed_link=0, stage_tokens=10**12,
    tokenizer=tokenizer,
  )  # fmt: skip


def thousand(folder) -> list[FakeIndex]:
  """Sources of 10**6 to 10**11 tokens."""
  sizes = np.geomspace(10**3, 10**8, 1000).astype(int).tolist()
  return [
    FakeIndex(str(folder / str(i)), f's{i}', 1000 * size, shards=8 if i else 1000)
    for i, size in enumerate(sizes)
  ]


@pytest.mark.parametrize('rates', ['equal', 'proportional'])
def test_a_thousand_sources_are_opened_with_one_block_each_and_resumed_with_a_batch(
  rates, tmp_path
):
  sources = thousand(tmp_path)
  mixture_lib._descend.cache_clear()
  mixture_lib._tabulate.cache_clear()
  weights = [1 if rates == 'equal' else blocks.tokens for blocks in sources]
  windows = [Windows(blocks, LENGTH, 0) for blocks in sources]
  batches = Batches(Mixture([b.name for b in sources], weights), windows, BATCH)
  assert [blocks.records for blocks in sources] == [1] * 1000
  for step in (10**6, 10**12, 0):
    before = sum(blocks.records for blocks in sources)
    batches.read(step, range(BATCH))
    # A row of 2,049 tokens lies in one block of 4,096 or two, or three where a shard ends.
    assert sum(blocks.records for blocks in sources) - before <= 3 * BATCH
  # What was worked out of the mixture's order: a block of it for each of these steps.
  made = mixture_lib._descend.cache_info().misses + mixture_lib._tabulate.cache_info().misses
  assert made <= 6


@pytest.mark.parametrize('kind', ['plain', 'linked'])
def test_how_much_is_read_at_opening_and_at_any_step_does_not_depend_on_the_tokens(
  kind, link, tmp_path
):
  work = {}
  for tokens in (10**8, 10**11):
    blocks = FakeIndex(str(tmp_path / str(tokens)), 'en', tokens)
    windows = link(blocks) if kind == 'linked' else Windows(blocks, LENGTH, 0)
    opened, most = blocks.records, 0
    batches = Batches(Mixture(['en'], [1]), [windows], BATCH)
    for step in (0, 10**6, 10**9, 123_456_789_012):
      before = blocks.records
      batches.read(step, range(BATCH))
      most = max(most, blocks.records - before)
    work[tokens] = opened
    # Of tokens and of words, where a row with LINK is about 2,100 old tokens, from 48 before its start.
    assert most <= (3 if kind == 'plain' else 2 * 3) * BATCH
  assert work[10**8] == work[10**11] <= (1 if kind == 'plain' else 2 * 2 * 64)


def peak(work) -> int:
  """Bytes held at most while `work` runs, beside those before."""
  gc.collect()
  tracemalloc.start()
  try:
    work()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('kind', ['plain', 'linked'])
def test_memory_does_not_grow_with_the_tokens(kind, link, tmp_path):
  def work(tokens):
    blocks = FakeIndex(str(tmp_path / str(tokens)), 'en', tokens)
    windows = link(blocks) if kind == 'linked' else Windows(blocks, LENGTH, 0)
    batches = Batches(Mixture(['en'], [1]), [windows], BATCH)
    for step in (0, 10**6):
      batches.read(step, range(BATCH))

  work(10**8)  # what is made once: imports, tables of the mixture
  small, large = peak(lambda: work(10**8)), peak(lambda: work(10**11))
  assert large < 1.1 * small  # a bit to a token would be 12 GB


@pytest.mark.parametrize('kind', ['plain', 'linked'])
def test_memory_does_not_grow_with_the_steps(kind, link, tmp_path):
  sources = [FakeIndex(str(tmp_path / name), name, 10**11) for name in ('en', 'tr', 'sw')]
  windows = [Windows(blocks, LENGTH, 0) for blocks in sources]
  if kind == 'linked':
    windows[0] = link(sources[0])
  # Shares without a short period, whose order is worked out block by block.
  batches = Batches(Mixture(['en', 'tr', 'sw'], [np.e, np.pi, 1]), windows, BATCH)
  steps = iter(np.random.default_rng(0).integers(0, 10**9, 150).tolist())

  def held_after(reads) -> int:
    for _ in range(reads):
      batches.read(next(steps), range(4))
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

  tracemalloc.start()
  try:
    before = held_after(66)  # fills what is bounded: 64 blocks of the mixture's order
    after = held_after(34)
  finally:
    tracemalloc.stop()
  block = 1024 * (4 + 8)  # of the mixture's order: one for each step would be 0.4 MB
  assert after - before < 5 * block
  info = mixture_lib._descend.cache_info()
  assert info.currsize <= info.maxsize == 64


_READ_ALL = """
  import os, resource, sys, threading
  resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
  import numpy as np
  from jaxlink.data.blocks import Blocks
  from jaxlink.data.windows import Windows
  folder, caches = sys.argv[1], int(sys.argv[2])
  windows = [Windows(Blocks(f'{folder}/{c}'), 64, 0) for c in range(caches)]
  ends = windows[0].blocks.tokens // 64
  expected = [windows[0].row(i)['tokens'].tolist() for i in range(ends)]
  wrong = []
  def read(seed):
    rng = np.random.default_rng(seed)
    try:
      for _ in range(1500):
        window, i = windows[rng.integers(caches)], int(rng.integers(ends))
        start = int(window.start(i))
        tokens, _ = window.blocks.read(start, 64)
        words = window.blocks.read_words(start, 64)
        known, _ = windows[0].blocks.read(start, 64)
        if tokens.tolist() != known.tolist() or not (np.diff(words.start) > 0).all():
          wrong.append((seed, i))
    except Exception as error:
      wrong.append(repr(error))
  threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
  [t.start() for t in threads]
  [t.join() for t in threads]
  assert not wrong, wrong[:3]
  print(len(os.listdir('/proc/self/fd')))
"""


def test_more_caches_than_files_that_may_be_open(tokenizer, tmp_path):
  caches, shards = 60, 4
  texts = (SAMPLE / 'README.md').read_text(encoding='utf-8').split('\n\n')
  first = tmp_path / '0'
  first.mkdir()
  counts = []
  for shard in range(shards):
    writer = blocks_lib.ShardWriter(
      str(first), shard, block=64, size=tokenizer.size, bos=tokenizer.bos_id, eos=tokenizer.eos_id
    )
    for text in texts[shard::shards]:
      m = tokenizer.encode_marked(text)
      writer.add(blocks_lib.Encoded(key_of(text), m.ids, m.words, m.types))
    counts.append({'shard': shard, **writer.close()})
  manifest = {
    'format': blocks_lib.FORMAT, 'task': 'en', 'block': 64, 'shards': counts, 'fingerprint': 'x',
    'tokenizer': {'size': tokenizer.size},
  }  # fmt: skip
  (first / blocks_lib.MANIFEST).write_text(json.dumps(manifest), encoding='utf-8')
  for cache in range(1, caches):
    folder = tmp_path / str(cache)
    folder.mkdir()
    for file in first.iterdir():
      os.link(file, folder / file.name)
  assert caches * shards * 2 > 3 * 128
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(_READ_ALL), str(tmp_path), str(caches)],
    env={**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parents[2])},
    capture_output=True, text=True, check=False, timeout=120,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) < 100
