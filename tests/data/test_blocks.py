import itertools
import json
import os
import pickle
import tempfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxlink.data.blocks import FORMAT, MANIFEST, Blocks, Encoded, ShardWriter

BOS, EOS = 2, 1
TYPES = ['göl', 'damla', 'দশের', 'haba', 'kibaba', 'naïve']


@st.composite
def documents(draw, size=50_000):
  """A document: key, tokens and non-overlapping words with their flags and types."""
  tokens = draw(st.lists(st.integers(4, size - 1), max_size=30))
  edges = sorted(draw(st.sets(st.integers(0, len(tokens)), max_size=12)))
  types = draw(st.lists(st.sampled_from(TYPES), unique=True, min_size=1))
  words = [
    (start, end - start, draw(st.integers(0, 7)), draw(st.integers(0, len(types) - 1)))
    for start, end in zip(edges[::2], edges[1::2], strict=False)
  ]
  return Encoded(
    draw(st.integers(0, 2**64 - 1)), np.array(tokens, np.int32),
    np.array(words, np.int32).reshape(-1, 4), types,
  )  # fmt: skip


def write(folder, shards, block, size=50_000):
  counts = []
  for number, shard in enumerate(shards):
    writer = ShardWriter(folder, number, block=block, size=size, bos=BOS, eos=EOS)
    for document in shard:
      writer.add(document)
    counts.append({'shard': number, **writer.close()})
  manifest = {
    'format': FORMAT, 'task': 'proverbs', 'fingerprint': 'f' * 64, 'block': block,
    'tokenizer': {'size': size}, 'shards': counts,
  }  # fmt: skip
  with open(os.path.join(folder, MANIFEST), 'w') as file:
    json.dump(manifest, file)
  return counts


def stream(shards):
  """The tokens of all shards, one after the other, and where documents start."""
  tokens = [[BOS, *d.tokens.tolist(), EOS] for shard in shards for d in shard]
  starts = [[True, *[False] * (len(t) - 1)] for t in tokens]
  chain = itertools.chain.from_iterable
  return np.fromiter(chain(tokens), np.int32), np.fromiter(chain(starts), bool)


def words_of(shard):
  """(position in the shard, type, index, key, length, flags) of all words of a shard."""
  found, at = [], 0
  for document in shard:
    for index, (start, length, flags, type_) in enumerate(document.words.tolist()):
      found.append((at + 1 + start, document.types[type_], index, document.key, length, flags))
    at += len(document.tokens) + 2
  return found


@settings(max_examples=60, deadline=None)
@given(
  shards=st.lists(st.lists(documents(), max_size=6), min_size=1, max_size=3),
  block=st.integers(1, 40),
  ranges=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300)), min_size=3, max_size=3),
)
def test_what_is_written_is_read_from_any_start_at_any_length(shards, block, ranges):
  with tempfile.TemporaryDirectory() as folder:
    counts = write(folder, shards, block)
    tokens, starts = stream(shards)
    if not len(tokens):
      with pytest.raises(ValueError, match='holds no tokens'):
        Blocks(folder)
      return
    blocks = Blocks(folder)
    assert blocks.tokens == len(tokens) == sum(c['tokens'] for c in counts)
    for start, length in [(0, len(tokens)), *ranges]:
      at = (start + np.arange(length)) % len(tokens)
      found_tokens, found_starts = blocks.read(start, length)
      assert found_tokens.dtype == np.int32
      assert found_tokens.tolist() == tokens[at].tolist()
      assert found_starts.tolist() == starts[at].tolist()

    for number, shard in enumerate(shards):
      types = blocks.read_types(number)
      assert len(set(types)) == len(types) == counts[number]['types']
      found = []
      for block_number in range(counts[number]['blocks']):
        words = blocks.read_words(number, block_number)
        ids, _ = blocks.read_block(number, block_number)
        assert len(ids) == block or block_number == counts[number]['blocks'] - 1
        assert all(words.offset < len(ids))
        found += [
          (block_number * block + offset, types[type_], index, key, length, flags)
          for offset, type_, index, key, length, flags in zip(
            *(column.tolist() for column in words), strict=True
          )
        ]
      assert found == words_of(shard)
      assert counts[number]['words'] == len(found)
      assert counts[number]['documents'] == len(shard)


def proverb(key, length, words=((0, 1, 1, 0),), types=('göl',), first=10):
  tokens = np.arange(first, first + length, dtype=np.int32)
  return Encoded(key, tokens, np.array(words, np.int32).reshape(-1, 4), list(types))


def test_a_word_over_a_blocks_edge_is_listed_where_it_starts(tmp_path):
  write(tmp_path, [[proverb(7, 10, [(2, 5, 1, 0), (7, 3, 2, 0)])]], block=4)
  blocks = Blocks(tmp_path)
  first, second, third = (blocks.read_words(0, b) for b in range(3))
  assert (first.offset.tolist(), first.length.tolist(), first.index.tolist()) == ([3], [5], [0])
  assert second.offset.tolist() == []
  assert (third.offset.tolist(), third.index.tolist(), third.document.tolist()) == ([0], [1], [7])


def test_a_document_that_runs_on_keeps_its_key_over_blocks(tmp_path):
  words = [(i, 1, 0, 0) for i in range(20)]
  write(tmp_path, [[proverb(2**63 + 5, 20, words), proverb(9, 20, words)]], block=3)
  blocks = Blocks(tmp_path)
  keys = [k for b in range(15) for k in blocks.read_words(0, b).document.tolist()]
  assert keys == [2**63 + 5] * 20 + [9] * 20


@pytest.mark.parametrize(('size', 'width'), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_ids_take_16_bits_where_that_is_enough_and_32_else(tmp_path, size, width):
  document = Encoded(1, np.array([4, size - 1, 5], np.int32), np.zeros((0, 4), np.int32), [])
  write(tmp_path, [[document]], block=8, size=size)
  blocks = Blocks(tmp_path)
  assert blocks.read(0, 5)[0].tolist() == [BOS, 4, size - 1, 5, EOS]
  assert blocks.read_block(0, 0)[0].itemsize == width


def test_blocks_are_pickled_and_open_their_own_files(tmp_path):
  write(tmp_path, [[proverb(1, 50)], [], [proverb(2, 9)]], block=16)
  blocks = Blocks(tmp_path)
  expected = blocks.read(3, 200)
  copy = pickle.loads(pickle.dumps(blocks))
  assert copy._readers == {}
  assert [a.tolist() for a in copy.read(3, 200)] == [a.tolist() for a in expected]
  assert (copy.name, copy.fingerprint, copy.tokens) == ('proverbs', 'f' * 64, 63)


def test_a_word_of_more_tokens_than_fit_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='A word of 65,536 tokens: at most 65,535'):
    write(tmp_path, [[proverb(1, 70_000, [(0, 1 << 16, 0, 0)])]], block=1 << 17)
  write(tmp_path, [[proverb(1, 70_000, [(0, (1 << 16) - 1, 0, 0)])]], block=1 << 17, size=100_000)
  assert Blocks(tmp_path).read_words(0, 0).length.tolist() == [(1 << 16) - 1]


def test_a_folder_without_a_manifest_is_no_cache(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'is no cache: it has no manifest\.json'):
    Blocks(tmp_path)


def test_another_format_is_refused(tmp_path):
  write(tmp_path, [[proverb(1, 5)]], block=16)
  path = tmp_path / MANIFEST
  path.write_text(path.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
  with pytest.raises(ValueError, match=f'has cache format 99, this version reads {FORMAT}'):
    Blocks(tmp_path)
