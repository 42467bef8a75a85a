"""Draws: fixed values, one function for ints and arrays, uniform and independent numbers."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxlink.link.draws import Draws, key_of

UINT64 = st.integers(0, 2**64 - 1)


def chi_square(counts):
  expected = counts.sum() / counts.size
  return float(((counts - expected) ** 2 / expected).sum())


def test_golden_values():
  # A change here changes every published rewriting: it needs a new name, not new values.
  assert key_of('dog') == 0x3984C7C1D25E9C9F
  assert key_of('') == 0xE4A6A0577479B2B4
  draws = Draws(0, 'enwiki')
  assert draws.uniform('doc', 7, 0) == 0.5631564704938528
  np.testing.assert_array_equal(
    draws.uniform('word', 2**64 - 1, np.arange(3)),
    [0.3559653698596831, 0.7317527864145426, 0.7931850875877325],
  )


@hypothesis.given(UINT64, UINT64)
def test_ints_arrays_and_their_mixtures_draw_the_same(document, k):
  draws = Draws(5, 'en', 2)
  one = draws.uniform('word', document, k)
  assert type(one) is float
  assert 0 <= one < 1
  documents, ks = np.array([document, 1], np.uint64), np.array([k, 0], np.uint64)
  for array in (
    draws.uniform('word', documents, ks),
    draws.uniform('word', documents, k),
    draws.uniform('word', document, ks),
    draws.uniform('word', documents.view(np.int64), ks.view(np.int64)),
  ):
    assert array.dtype == np.float64
    assert array[0] == one
  assert draws.uniform('word', np.uint64(document), np.int64(ks.view(np.int64)[0])) == one


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_integer_types_draw_the_same(dtype):
  draws = Draws(0, 'en')
  expected = [draws.uniform('word', 3, k) for k in range(100)]
  np.testing.assert_array_equal(draws.uniform('word', 3, np.arange(100, dtype=dtype)), expected)


def test_documents_and_words_broadcast():
  draws = Draws(0, 'en')
  documents, k = np.arange(4)[:, None], np.arange(5)
  grid = draws.uniform('word', documents, k)
  assert grid.shape == (4, 5)
  assert grid[2, 3] == draws.uniform('word', 2, 3)
  assert draws.uniform('word', 2, np.arange(0)).shape == (0,)


def test_arguments_stay_as_they_are():
  documents, k = np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint64)
  Draws(0, 'en').uniform('word', documents, k)
  np.testing.assert_array_equal(documents, np.arange(4))
  np.testing.assert_array_equal(k, np.arange(4))


@pytest.mark.filterwarnings('error')
def test_no_overflow_warnings():
  draws = Draws(2**70, 'en', 3)
  draws.uniform('word', 2**64 - 1, np.array([2**64 - 1], np.uint64))
  draws.uniform('word', np.array([2**64 - 1], np.uint64), 2**64 - 1)
  draws.uniform('word', np.array(2**64 - 1, np.uint64), np.uint64(2**64 - 1))


def neighbours():
  """Draws that share all but one part of their name; each should look independent of the first."""
  k = np.arange(100_000)
  return {
    'first': Draws(0, 'en').uniform('word', 1, k),
    'seed': Draws(1, 'en').uniform('word', 1, k),
    'source': Draws(0, 'em').uniform('word', 1, k),
    'epoch': Draws(0, 'en', 1).uniform('word', 1, k),
    'stream': Draws(0, 'en').uniform('sense', 1, k),
    'document': Draws(0, 'en').uniform('word', 2, k),
    'next k': Draws(0, 'en').uniform('word', 1, k + 1),
    'documents as k': Draws(0, 'en').uniform('word', k, 1),
  }


@pytest.mark.parametrize('name', list(neighbours()))
def test_numbers_are_uniform(name):
  counts, _ = np.histogram(neighbours()[name], bins=256, range=(0, 1))
  assert 175 < chi_square(counts) < 345  # 255 degrees of freedom: 1e-4 on either side


@pytest.mark.parametrize('name', [name for name in neighbours() if name != 'first'])
def test_neighbours_are_independent(name):
  found = neighbours()
  counts, _, _ = np.histogram2d(found['first'], found[name], bins=16, range=[(0, 1)] * 2)
  assert 175 < chi_square(counts) < 345


def test_parts_of_the_name_do_not_run_together():
  assert Draws(1, '1', 0).uniform('word', 0, 0) != Draws(11, '', 0).uniform('word', 0, 0)
  assert Draws(0, 'a').uniform('bc', 0, 0) != Draws(0, 'ab').uniform('c', 0, 0)
  assert Draws(0, 'a').uniform('x', 0, 1) != Draws(0, 'a').uniform('x', 1, 0)


def test_keys_take_any_string_and_differ():
  texts = ['', 'a', 'A', 'é', 'e\u0301', '\ud800', '猫', 'a b']
  assert len({key_of(text) for text in texts}) == len(texts)
  assert all(0 <= key_of(text) < 2**64 for text in texts)
  assert Draws(0, 'en').key_of('dog') == key_of('dog')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((0.5, 'en'), 'Draws.seed is 0.5: it is of type int'),
    ((True, 'en'), 'Draws.seed is True'),
    ((0, b'en'), "Draws.source is b'en': it is of type str"),
    ((0, 'en', 1.0), 'Draws.epoch is 1.0'),
  ],
)
def test_wrong_types_are_named(arguments, message):
  with pytest.raises(TypeError, match=message):
    Draws(*arguments)


def test_a_negative_epoch_is_an_error():
  with pytest.raises(ValueError, match=r'Draws\.epoch is -1: it is 0 or more'):
    Draws(0, 'en', -1)


@pytest.mark.parametrize('bad', [0.0, 'dog', np.zeros(2), np.array(['dog'])])
def test_only_integers_are_drawn_for(bad):
  with pytest.raises(TypeError, match=r'Draws\.uniform: k '):
    Draws(0, 'en').uniform('word', 0, bad)
  with pytest.raises(TypeError, match=r'Draws\.uniform: document '):
    Draws(0, 'en').uniform('word', bad, 0)
