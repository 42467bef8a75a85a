import collections
import concurrent.futures
import itertools
import json
import os
import pickle
import sys
import tempfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxlink.data import tokenizer
from jaxlink.data.blocks import FORMAT, MANIFEST, Blocks, Encoded, ShardWriter
from jaxlink.link.draws import key_of
from jaxlink.link.words import UNSPLICEABLE

BOS, EOS = 2, 1
DTYPES = [np.int64, np.int64, np.uint64, np.int64, np.uint8, np.int64, np.uint64]
TYPES = ['göl', 'damla', 'দশের', 'haba', 'kibaba', 'naïve']


@st.composite
def documents(draw, size=50_000):
  """A document: key, tokens and non-overlapping words with their flags, and the types that occur."""
  tokens = draw(st.lists(st.integers(4, size - 1), max_size=30))
  edges = sorted(draw(st.sets(st.integers(0, len(tokens)), max_size=12)))
  drawn = [draw(st.sampled_from(TYPES)) for _ in edges[1::2]]
  types = list(dict.fromkeys(drawn))
  words = [
    (start, end - start, draw(st.integers(0, 15)), types.index(type_))
    for start, end, type_ in zip(edges[::2], edges[1::2], drawn, strict=False)
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
  """(position in the shard, length, hash, index, key, flags) of all words of a shard."""
  found, at = [], 0
  for document in shard:
    for index, (start, length, flags, type_) in enumerate(document.words.tolist()):
      hash_ = key_of(document.types[type_])
      found.append((at + 1 + start, length, hash_, index, document.key, flags))
    at += len(document.tokens) + 2
  return found


def listed(words):
  """The same of words that were read."""
  key = words.document[np.searchsorted(words.fragment, words.start, side='right') - 1]
  columns = (words.start, words.length, words.hash, words.index, key, words.flags)
  return list(zip(*(column.tolist() for column in columns), strict=True))


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
      times = collections.Counter(d.types[t] for d in shard for t in d.words[:, 3].tolist())
      assert blocks.read_types(number) == times
      assert counts[number]['types'] == len(times)
      found = []
      for block_number in range(counts[number]['blocks']):
        words = blocks.read_block_words(number, block_number)
        ids, _ = blocks.read_block(number, block_number)
        assert len(ids) == block or block_number == counts[number]['blocks'] - 1
        assert all(words.start < len(ids))
        at = block_number * block
        found += listed(words._replace(start=words.start + at, fragment=words.fragment + at))
      assert found == words_of(shard)
      assert counts[number]['words'] == len(found)
      assert counts[number]['documents'] == len(shard)
      unspliceable = [word for word in found if word[-1] & UNSPLICEABLE]
      assert counts[number]['unspliceable_words'] == len(unspliceable)


@settings(max_examples=60, deadline=None)
@given(
  shards=st.lists(st.lists(documents(), max_size=6), min_size=1, max_size=3),
  block=st.integers(1, 40),
  ranges=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300)), min_size=3, max_size=3),
)
def test_words_of_any_range_of_the_endless_repetition_are_those_that_start_in_it(
  shards, block, ranges
):
  hypothesis.assume(any(shards))
  with tempfile.TemporaryDirectory() as folder:
    counts = write(folder, shards, block)
    blocks = Blocks(folder)
    firsts = np.cumsum([0, *(c['tokens'] for c in counts)]).tolist()
    once = [(first + at, *rest) for first, shard in zip(firsts, shards, strict=False)
            for at, *rest in words_of(shard)]  # fmt: skip
    for start, length in [(0, blocks.tokens), *ranges]:
      epochs = range(start // blocks.tokens, (start + length) // blocks.tokens + 1)
      expected = [(e * blocks.tokens + at - start, *rest) for e in epochs for at, *rest in once
                  if start <= e * blocks.tokens + at < start + length]  # fmt: skip
      if length:
        words = blocks.read_words(start, length)
        assert listed(words) == expected
        assert [column.dtype for column in words] == DTYPES
        starts = np.flatnonzero(blocks.read(start, length)[1])
        assert words.fragment.tolist() == sorted({0, *starts.tolist()})


def test_a_part_of_a_block_has_the_words_that_start_in_it(tmp_path):
  write(tmp_path, [[proverb(3, 9, [(i, 1, i, 0) for i in range(9)])]], block=16)
  blocks = Blocks(tmp_path)
  whole = blocks.read_block_words(0, 0)
  for begin in range(11):
    for end in range(begin + 1, 12):
      part = blocks.read_words(begin, end - begin)
      moved = part._replace(start=part.start + begin, fragment=part.fragment + begin)
      assert listed(moved) == [word for word in listed(whole) if begin <= word[0] < end]


def proverb(key, length, words=((0, 1, 1, 0),), types=('göl',), first=10):
  tokens = np.arange(first, first + length, dtype=np.int32)
  return Encoded(key, tokens, np.array(words, np.int32).reshape(-1, 4), list(types))


def test_a_word_over_a_blocks_edge_is_listed_where_it_starts(tmp_path):
  write(tmp_path, [[proverb(7, 10, [(2, 5, 1, 0), (7, 3, 2, 0)])]], block=4)
  blocks = Blocks(tmp_path)
  first, second, third = (blocks.read_block_words(0, b) for b in range(3))
  assert (first.start.tolist(), first.length.tolist(), first.index.tolist()) == ([3], [5], [0])
  assert second.start.tolist() == []
  assert (third.start.tolist(), third.index.tolist(), third.document.tolist()) == ([0], [1], [7])
  # The last word of a range may run over its end; one that began before it is not there.
  assert blocks.read_words(0, 4).length.tolist() == [5]
  assert blocks.read_words(4, 4).start.tolist() == []


def test_a_document_that_runs_on_keeps_its_key_over_blocks(tmp_path):
  words = [(i, 1, 0, 0) for i in range(20)]
  write(tmp_path, [[proverb(2**63 + 5, 20, words), proverb(9, 20, words)]], block=3)
  blocks = Blocks(tmp_path)
  keys = [word[4] for b in range(15) for word in listed(blocks.read_block_words(0, b))]
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
  assert [a.tolist() for a in copy.read(3, 200)] == [a.tolist() for a in expected]
  assert (copy.name, copy.fingerprint, copy.tokens) == ('proverbs', 'f' * 64, 63)


def test_threads_that_read_one_file_each_get_their_own_blocks(tmp_path):
  write(tmp_path, [[proverb(seed, 5000) for seed in range(4)]], block=16)
  blocks = Blocks(tmp_path)
  count = blocks.tokens // 16
  expected = [blocks.read_block(0, block)[0].tolist() for block in range(count)]
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)
  try:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      asked = np.random.default_rng(0).integers(0, count, 8000).tolist()
      found = list(pool.map(lambda block: blocks.read_block(0, block)[0].tolist(), asked))
  finally:
    sys.setswitchinterval(interval)
  assert found == [expected[block] for block in asked]


def test_a_block_that_is_damaged_is_an_error_and_the_others_are_read(tmp_path):
  write(tmp_path, [[proverb(1, 5000)]], block=16)
  blocks = Blocks(tmp_path)
  path = tmp_path / 'tokens-00000.array_record'
  content = bytearray(path.read_bytes())
  damaged = content.index(blocks.read_block(0, 150)[0].tobytes())
  content[damaged] ^= 1
  path.write_bytes(content)
  blocks = Blocks(tmp_path)
  with pytest.raises(RuntimeError, match='hash mismatch') as raised:
    blocks.read_block(0, 150)
  assert any(f'block 150 of {path}' in note for note in raised.value.__notes__)
  assert len(blocks.read_block(0, 151)[0]) == len(blocks.read_block(0, 149)[0]) == 16


def test_the_longest_word_that_fits_is_read_as_it_is(tmp_path):
  longest = (1 << 16) - 1
  write(tmp_path, [[proverb(1, 70_000, [(0, longest, UNSPLICEABLE, 0)])]], block=1 << 17,
        size=100_000)  # fmt: skip
  words = Blocks(tmp_path).read_block_words(0, 0)
  assert (words.length.tolist(), words.flags.tolist()) == ([longest], [UNSPLICEABLE])


def test_a_word_of_more_tokens_than_fit_comes_from_the_tokenizer_as_unspliceable(
  tmp_path, tiny_tokenizers
):
  marked = tokenizer.Tokenizer(tiny_tokenizers['byte_level']).encode_marked('x ' + 'ꙮ' * 40_000)
  assert len(marked.ids) > 1 << 16
  write(tmp_path, [[Encoded(1, *marked)]], block=1 << 14)
  blocks = Blocks(tmp_path)
  words = blocks.read_words(0, blocks.tokens)
  assert words.hash.tolist() == [key_of('x'), key_of('ꙮ' * 40_000)]
  assert words.length.tolist() == [1, (1 << 16) - 1]
  assert (words.flags & UNSPLICEABLE).tolist() == [0, UNSPLICEABLE]
  assert blocks.manifest['shards'][0]['unspliceable_words'] == 1


def test_types_are_lines_of_occurrences_and_key(tmp_path):
  write(tmp_path, [[proverb(1, 5)]], block=16)
  assert sorted(os.listdir(tmp_path)) == [
    'manifest.json', 'tokens-00000.array_record', 'types-00000.tsv', 'words-00000.array_record',
  ]  # fmt: skip
  assert (tmp_path / 'types-00000.tsv').read_text(encoding='utf-8') == '1\tgöl\n'


def test_a_folder_without_a_manifest_is_no_cache(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'is no cache: it has no manifest\.json'):
    Blocks(tmp_path)


def test_another_format_is_refused(tmp_path):
  write(tmp_path, [[proverb(1, 5)]], block=16)
  path = tmp_path / MANIFEST
  path.write_text(path.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
  with pytest.raises(ValueError, match=f'has cache format 99, this version reads {FORMAT}'):
    Blocks(tmp_path)
