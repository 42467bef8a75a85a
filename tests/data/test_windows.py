from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlink.data.windows import Windows
from tests.data.memory_blocks import BOS, EOS, FIRST_BYTE, MemoryBlocks, corpus


def of_size(tokens):
  """One document of so many tokens."""
  assert tokens >= 2
  return MemoryBlocks('swahili', ['a' * (tokens - 2)])


sizes = st.integers(2, 60)
lengths = st.integers(1, 80)


@given(sizes, lengths, st.integers(0, 200), st.integers(1, 6))
def test_after_each_epoch_every_position_was_read_that_often_and_fewer_than_T_once_more(
  tokens, length, origin, epochs
):
  windows = Windows(of_size(tokens), length, 0, origin)
  for epoch in range(1, epochs + 1):
    sequences = -(-epoch * tokens // length)
    starts = windows.start(np.arange(sequences))
    read = (starts[:, None] + np.arange(length)).ravel() % tokens
    counts = np.bincount(read, minlength=tokens)
    # T > U: a window passes over the source more than once, and so do the extra reads.
    most = epoch + -(-(length - 1) // tokens)
    assert counts.min() >= epoch
    assert counts.max() <= most
    assert (counts - epoch).sum() == sequences * length - epoch * tokens < length


@given(sizes, lengths, st.integers(0, 200), st.integers(0, 5))
def test_the_windows_of_an_epoch_are_those_that_start_in_it(tokens, length, origin, epoch):
  windows = Windows(of_size(tokens), length, 0, origin)
  first, last = -(-epoch * tokens // length), -(-(epoch + 1) * tokens // length)
  starts = windows.start(np.arange(first, last))
  assert np.array_equal(np.sort(starts), origin + length * np.arange(first, last))
  assert ((starts - origin) // tokens == epoch).all()


def test_windows_are_shuffled_in_every_epoch_anew_and_by_seed():
  windows = Windows(of_size(1000), 10, 0)
  one, two = windows.start(np.arange(100)), windows.start(np.arange(100, 200)) - 1000
  assert set(one) == set(two) == set(range(0, 1000, 10))
  other = Windows(of_size(1000), 10, 1).start(np.arange(100))
  for a, b in ((one, two), (one, other), (one, np.arange(0, 1000, 10))):
    assert (a == b).sum() < 8


@given(sizes, lengths, st.lists(st.integers(0, 500), min_size=1, max_size=9))
def test_any_sequence_alone_is_the_same_as_among_others(tokens, length, asked):
  windows = Windows(of_size(tokens), length, 5)
  assert windows.start(asked).tolist() == [int(windows.start(i)) for i in asked]


def test_a_row_is_tokens_and_labels_cut_at_document_starts():
  blocks = MemoryBlocks('swahili', ['haba', 'na'])  # 6 + 4 tokens
  row = Windows(blocks, 10, 0).row(0)
  h, a, b, n = (FIRST_BYTE + ord(c) for c in 'habn')
  assert row['tokens'].tolist() == [BOS, h, a, b, a, EOS, BOS, n, a, EOS]
  assert row['labels'].tolist() == [h, a, b, a, EOS, BOS, n, a, EOS, BOS]
  assert row['loss_mask'].tolist() == [True] * 5 + [False] + [True] * 3 + [False]
  assert row['segments'].tolist() == [1] * 6 + [2] * 4
  assert row['positions'].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]


def test_a_window_inside_a_document_starts_with_segment_1_and_position_0():
  row = Windows(MemoryBlocks('swahili', ['haba', 'na']), 10, 0, origin=3).row(0)
  assert row['segments'].tolist() == [1] * 3 + [2] * 4 + [3] * 3
  assert row['positions'].tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2]
  # The window's last label is 'a' of the second pass over 'haba': the same document, not masked.
  assert row['loss_mask'].tolist() == [True, True, False, True, True, True, False, True, True, True]


@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 1000))
def test_rows_agree_with_a_reading_token_by_token(length, i, seed):
  blocks = corpus('turkish', 5, seed)
  windows = Windows(blocks, length, seed)
  row, start = windows.row(i), int(windows.start(i))
  segment, position = 1, 0
  for t in range(length):
    at, after = (start + t) % blocks.tokens, (start + t + 1) % blocks.tokens
    if blocks.all_starts[at] and t:
      segment, position = segment + 1, 0
    assert row['tokens'][t] == blocks.all_tokens[at]
    assert row['labels'][t] == blocks.all_tokens[after]
    assert row['loss_mask'][t] == (not blocks.all_starts[after])
    assert (row['segments'][t], row['positions'][t]) == (segment, position)
    position += 1


def test_dtypes_and_shapes_of_rows():
  rows = Windows(corpus('turkish', 3, 0), 16, 0).rows(np.arange(5))
  assert {name: (array.shape, array.dtype) for name, array in rows.items()} == {
    'tokens': ((5, 16), np.int32),
    'labels': ((5, 16), np.int32),
    'loss_mask': ((5, 16), bool),
    'segments': ((5, 16), np.int32),
    'positions': ((5, 16), np.int32),
  }


def test_the_last_label_is_the_first_input_of_the_window_that_follows():
  windows = Windows(corpus('swahili', 20, 1), 32, 0)
  n = -(-windows.blocks.tokens // 32)
  by_start = dict(zip(windows.start(np.arange(n)).tolist(), range(n), strict=True))
  for start in range(0, 32 * (n - 1), 32):
    here, after = windows.row(by_start[start]), windows.row(by_start[start + 32])
    assert here['labels'][-1] == after['tokens'][0]


def test_repetitions_are_exact():
  windows = Windows(of_size(30), 7, 0)
  assert windows.repetitions(0) == 0
  assert windows.repetitions(10**15) == Fraction(7 * 10**15, 30)


def test_fingerprint_follows_all_that_the_sequences_depend_on():
  def fingerprint(text='Haba na haba', name='swahili', length=8, seed=0, origin=0):
    return Windows(MemoryBlocks(name, [text]), length, seed, origin).fingerprint

  changes = [{'text': 'hujaza kibaba'}, {'name': 'sw'}, {'length': 9}, {'seed': 1}, {'origin': 1}]
  assert len({fingerprint(), *(fingerprint(**change) for change in changes)}) == 6
  assert fingerprint() == fingerprint()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'length': 0}, r"Windows.length of source 'swahili' is 0: .* at least 1"),
    ({'length': 2.0}, r"Windows.length of source 'swahili' is 2.0"),
    ({'origin': -1}, r"Windows.origin of source 'swahili' is -1: .* at least 0"),
    ({'seed': '1'}, r"Windows.seed of source 'swahili' is '1'"),
  ],
)
def test_wrong_numbers_are_errors_that_name_them(change, message):
  with pytest.raises(ValueError, match=message):
    Windows(**{'blocks': of_size(30), 'length': 8, 'seed': 0, **change})


def test_a_source_without_tokens_or_document_start_is_an_error():
  with pytest.raises(ValueError, match="source 'empty' has 0 tokens"):
    Windows(MemoryBlocks('empty', []), 8, 0)
  cut = of_size(30)
  cut.all_starts = np.zeros(30, bool)
  with pytest.raises(ValueError, match="'swahili' does not start with the first token"):
    Windows(cut, 8, 0)


def test_a_negative_sequence_is_an_error():
  with pytest.raises(ValueError, match='sequence -1'):
    Windows(of_size(30), 8, 0).start([0, -1])
