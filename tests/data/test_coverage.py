"""Every token of a source, as often as every other: counted token by token, on files, in mixtures, with LINK.

The caches hold no text: the id of every token is its place in the source, so that what a row was made of can
be read off the row alone.
"""

import collections
import json

import numpy as np
import pytest

from jaxlink.data import blocks as blocks_lib
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

BLOCK = 64


def write(folder, name, documents, *, first=0, words=None) -> blocks_lib.Blocks:
  """A cache of two shards whose tokens are `first`, `first` + 1, ... over documents of given lengths.

  `words`: for each document its words, (start, tokens, text).
  """
  folder.mkdir(parents=True)
  words = words or [[] for _ in documents]
  half = len(documents) // 2
  size = first + sum(documents)
  at, counts = first, []
  for shard, here in enumerate((slice(0, half), slice(half, None))):
    writer = blocks_lib.ShardWriter(
      str(folder), shard, block=BLOCK, size=max(size, 1 << 17), bos=None, eos=None
    )
    for length, marks in zip(documents[here], words[here], strict=True):
      types = list(dict.fromkeys(text for *_, text in marks))
      marked = [(start, tokens, 1, types.index(text)) for start, tokens, text in marks]
      ids = np.arange(at, at + length, dtype=np.int32)
      marked = np.array(marked, np.int32).reshape(-1, 4)
      writer.add(blocks_lib.Encoded(key_of(f'{name} {at}'), ids, marked, types))
      at += length
    counts.append({'shard': shard, **writer.close()})
  manifest = {
    'format': blocks_lib.FORMAT, 'task': name, 'block': BLOCK, 'shards': counts,
    'fingerprint': f'{name} {documents}', 'tokenizer': {'size': max(size, 1 << 17)},
  }  # fmt: skip
  (folder / blocks_lib.MANIFEST).write_text(json.dumps(manifest), encoding='utf-8')
  return blocks_lib.Blocks(str(folder))


def cut(tokens, seed=0):
  """Lengths of documents that make up so many tokens."""
  rng, lengths = np.random.default_rng(seed), []
  while (left := tokens - sum(lengths)) > 0:
    lengths.append(min(left, int(rng.integers(1, 40))))
  return lengths


class Account:
  """What has been read of a source, and what must hold of it after every sequence."""

  def __init__(self, tokens, length, sequences=0):
    self.tokens, self.length, self.sequences = tokens, length, sequences
    self.counts_U = np.zeros(tokens, np.int64)
    self.epochs_seen = 0

  def add(self, row_T):
    self.counts_U += np.bincount(row_T, minlength=self.tokens)
    self.sequences += 1
    self.check()

  def check(self):
    tokens, length, counts_U = self.tokens, self.length, self.counts_U
    total = self.sequences * length
    assert counts_U.sum() == total
    epochs = total // tokens
    for epoch in {max(0, epochs), epochs + 1}:
      # Sequences that are left until the epoch ends each make up for T missing tokens at most: the order
      # inside an epoch leaves out none of its windows and takes none of a later one.
      left = max(0, -(-epoch * tokens // length) - self.sequences)
      assert np.maximum(0, epoch - counts_U).sum() <= left * length
    if -(-epochs * tokens // length) != self.sequences or not epochs:
      return
    self.epochs_seen += 1  # an epoch ends here
    assert counts_U.min() >= epochs
    assert (counts_U - epochs).sum() == total - epochs * tokens < length
    if length <= tokens:
      assert counts_U.max() <= epochs + 1
      assert (counts_U == epochs + 1).sum() < length


@pytest.mark.parametrize(
  ('tokens', 'length'),
  [(1, 1), (97, 1), (97, 7), (96, 8), (96, 96), (97, 96), (96, 97), (130, 50), (131, 131 * 2),
   (13, 50), (64, 500), (2, 3), (1, 7), (1000, 64), (1009, 333)],
)  # fmt: skip
@pytest.mark.parametrize('origin', [0, 41])
def test_every_position_is_read_as_often_as_epochs_have_passed(tokens, length, origin, tmp_path):
  windows = Windows(write(tmp_path / 'cache', 'sw', cut(tokens)), length, 3, origin)
  account = Account(tokens, length)
  rows = windows.rows(np.arange(max(9, -(-5 * tokens // length) + 3)))
  for row_T in rows['tokens']:
    account.add(row_T)
  assert account.epochs_seen >= 5
  # A label is the token that comes next, so labels are covered as inputs are.
  assert (rows['labels'] == (rows['tokens'] + 1) % tokens).all()


@pytest.fixture(scope='module')
def three(tmp_path_factory):
  folder = tmp_path_factory.mktemp('three')
  sizes = {'sw': 777, 'tr': 1500, 'en': 61}  # one is shorter than a sequence
  return [write(folder / name, name, cut(size, 7)) for name, size in sizes.items()]


@pytest.mark.parametrize('rates', [(0.3, '1/7', 0.05), (1, 1, 1), (np.e, np.pi, 0.01)], ids=str)
@pytest.mark.parametrize('start', [0, 37, 100])
def test_sources_of_a_mixture_are_covered_alike_and_over_a_restart(rates, start, three):
  length, batch, steps = 64, 6, 140

  def batches(**begin):
    names = [blocks.name for blocks in three]
    windows = [Windows(blocks, length, 11) for blocks in three]
    return Batches(Mixture(names, rates), windows, batch, **begin)

  accounts = [Account(blocks.tokens, length) for blocks in three]
  for step in range(start):  # one process reads these, and another one all that follow
    read = batches().read(step, range(batch))
    for source, row_T in zip(read['source'].tolist(), read['tokens'], strict=True):
      accounts[source].add(row_T)
  for step in range(start, steps):
    halves = [batches().read(step, rows) for rows in (range(3), range(3, batch))]
    for half in halves:
      for source, row_T in zip(half['source'].tolist(), half['tokens'], strict=True):
        accounts[source].add(row_T)
  sequences = [account.sequences for account in accounts]
  assert sequences == batches().mixture.counts(steps * batch).tolist()
  for account in accounts[:2]:
    assert account.epochs_seen == account.sequences * length // account.tokens > 2


def test_a_source_that_goes_on_in_another_mixture_is_covered_over_both(three):
  length, batch = 64, 5
  windows = [Windows(blocks, length, 11) for blocks in three]
  names = [blocks.name for blocks in three]
  one = Batches(Mixture(names, (5, 1, 2)), windows, batch)
  firsts = one.mixture.counts(23 * batch).tolist()
  two = Batches(Mixture(names[:2], (1, 4)), windows[:2], 7, firsts=firsts[:2])
  accounts = [Account(blocks.tokens, length) for blocks in three]
  for batches, steps in ((one, 23), (two, 60)):
    for step in range(steps):
      read = batches.read(step, range(batches.batch))
      for source, row_T in zip(read['source'].tolist(), read['tokens'], strict=True):
        accounts[source].add(row_T)
  assert [a.epochs_seen for a in accounts[:2]] == [
    a.sequences * length // a.tokens for a in accounts[:2]
  ]


# ── with LINK ──


LEXICON = Lexicon.from_pairs(
  [('dog', 'köpek'), ('house', 'ev'), ('of', 'uluslararası ilişkiler'), ('city', 'şehir'),
   ('free', 'özgürlük heykelinin gölgesinde')]
)  # fmt: skip
TEXTS = [*LEXICON.entries, 'unknown', 'words']


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
  return Tokenizer(str(SAMPLE / 'tokenizer.model'))


@pytest.fixture(scope='module')
def marked(tmp_path_factory, tokenizer) -> blocks_lib.Blocks:
  """Documents of words of one to four tokens each, one half of which have a translation.

  Ids of the source begin where those of the tokenizer end, so inserted ones are told from them.
  """
  rng = np.random.default_rng(0)
  documents, words = [], []
  for _ in range(60):
    at, marks = int(rng.integers(0, 3)), []
    for _ in range(int(rng.integers(1, 40))):
      size = int(rng.integers(1, 5))
      marks.append((at, size, TEXTS[rng.integers(len(TEXTS))]))
      at += size + int(rng.integers(1, 4))  # no two side by side: which tokens are whose is plain
    documents.append(at + int(rng.integers(0, 5)))
    words.append(marks)
  folder = tmp_path_factory.mktemp('marked') / 'cache'
  return write(folder, 'en', documents, first=tokenizer.size, words=words)


def make_source(marked, folder, tokenizer, length, **changes) -> LinkedWindows:
  asked = LinkPolicy(lexicon='x', language='tr', **changes)
  built = table.build(
    str(folder), {'tr': LEXICON}, asked.rendering, WordLists(), tokenizer, record={'digest': 'x'}
  )
  return LinkedWindows(
    marked, length, 1, table=built, policy=asked, seed_link=5, stage_tokens=10**5,
    tokenizer=tokenizer,
  )  # fmt: skip


def end_of(row_T, following, start, first, tokens) -> int:
  """The source token after those that a row was made of, told from its ids.

  Where a translation is cut by the row's end, or ends with it, the word's first token alone was read: what
  a window that begins at the second one gets is what comes after the word.

  Args:
    row_T: ids; those from `first` on are places in the source.
    following: the id that would come next.
    start: source token at which the row begins, in the endless repetition.
  """
  last = start - 1  # the last source token in the row
  for token in row_T[row_T >= first].tolist():
    last += 1 + (token - first - (last + 1)) % tokens
  if row_T[-1] < first:
    return last + 2
  return last + 1 + (0 if following < first else (following - first - last - 1) % tokens)


@pytest.mark.parametrize('length', [20, 64, 300])
@pytest.mark.parametrize(
  'changes',
  [
    {'doc_fraction': 0.5, 'word_ratio': 0.5},
    {'doc_fraction': 1.0, 'word_ratio': 1.0},
    {'doc_fraction': 0.7, 'word_ratio': 0.7, 'redraw': True},
    {'doc_fraction': 1.0, 'word_ratio': 0.0},
  ],
  ids=str,
)
def test_tokens_skipped_and_read_twice_are_those_of_the_rows(
  length, changes, marked, tokenizer, tmp_path
):
  source = make_source(marked, tmp_path / 't', tokenizer, length, **changes)
  first, tokens, epochs = tokenizer.size, marked.tokens, 5
  count = source.first(epochs)
  rows = source.rows(np.arange(count))
  starts = source.start(np.arange(count)).tolist()
  assert sorted(starts) == [source.window_start(n) for n in range(count)]
  at = source.names.index
  times = collections.Counter()
  for i, start in enumerate(starts):
    row_T, following = rows['tokens'][i], int(rows['labels'][i, -1])
    end = end_of(row_T, following, start, first, tokens)
    counts_C = rows['counts'][i]
    assert counts_C[at('tokens_read')] == end - start
    places = set(range(start, end))
    held = row_T[row_T >= first] - first
    assert set(held.tolist()) <= {place % tokens for place in places}
    times.update(places)
    ahead = min((s for s in starts if s > start), default=source.window_start(count))
    assert counts_C[at('tokens_skipped')] == len(set(range(start, ahead)) - places)
    assert counts_C[at('tokens_reread')] == len(places - set(range(start, ahead)))
  total = dict(zip(source.names, rows['counts'].sum(0).tolist(), strict=True))
  stop = source.window_start(count)
  # Over the whole stream: what no row holds was skipped, what more than one holds was read twice.
  over = max(0, max(times) + 1 - stop)  # of the last window, into one that is not read here
  assert total['tokens_skipped'] == sum(place not in times for place in range(stop))
  assert total['tokens_reread'] == sum(n - 1 for n in times.values()) + over
  assert total['tokens_read'] == sum(times.values())
  if source.policy.word_ratio:
    assert total['tokens_skipped'] > 0 < total['tokens_reread']
  else:
    assert total['tokens_skipped'] == 0
    assert total['tokens_reread'] == (-(-epochs * tokens // length) * length) - stop


def test_what_is_skipped_in_one_epoch_is_read_in_others(marked, tokenizer, tmp_path):
  source = make_source(marked, tmp_path / 't', tokenizer, 64, doc_fraction=1.0, word_ratio=0.5)
  count = source.first(8)
  rows, held = source.rows(np.arange(count)), np.zeros(marked.tokens, np.int64)
  for start, read in zip(
    source.start(np.arange(count)).tolist(),
    rows['counts'][:, source.names.index('tokens_read')].tolist(),
    strict=True,
  ):
    held += np.bincount(np.arange(start, start + read) % marked.tokens, minlength=marked.tokens)
  assert held.min() >= 4  # no token is skipped in more than one half of the epochs
  assert held.mean() == pytest.approx(8, abs=0.4)


def test_new_tokens_and_those_they_replace_are_those_of_the_rows(marked, tokenizer, tmp_path):
  length = 20
  source = make_source(marked, tmp_path / 't', tokenizer, length, doc_fraction=1.0, word_ratio=1.0)
  count = source.first(5)
  rows = source.rows(np.arange(count))
  at = source.names.index
  inserted = (rows['tokens'] < tokenizer.size).sum(axis=1)
  read = rows['counts'][:, at('tokens_read')]
  assert (rows['counts'][:, at('tokens_inserted')] == inserted).all()
  assert (rows['counts'][:, at('tokens_removed')] == read - (length - inserted)).all()
