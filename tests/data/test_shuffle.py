import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlink.data.shuffle import order_key, permute


def order(size, seed=0, stream='swahili', epoch=0):
  return permute(np.arange(size), size, order_key(seed, stream, epoch))


@pytest.mark.parametrize(
  'size', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 63, 64, 65, 97, 1000, 1021, 4096, 65537, 10**6]
)
def test_is_a_bijection(size):
  assert np.array_equal(np.sort(order(size)), np.arange(size))


@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 100))
def test_is_a_bijection_for_any_size_seed_and_epoch(size, seed, epoch):
  assert np.array_equal(np.sort(order(size, seed, epoch=epoch)), np.arange(size))


@pytest.mark.parametrize('size', [2**40, 2**53 + 1, 10**18, 2**62])
def test_large_sizes_stay_in_range_and_do_not_collide(size):
  index = np.arange(size - 20_000, size)
  moved = permute(index, size, order_key(0, 'english', 0))
  assert moved.min() >= 0
  assert moved.max() < size
  assert len(np.unique(moved)) == len(index)


def test_one_element_is_the_same_as_in_the_whole_order():
  key = order_key(3, 'turkish', 2)
  assert [int(permute(i, 101, key)) for i in range(101)] == order(101, 3, 'turkish', 2).tolist()


def test_sizes_and_keys_may_differ_along_the_array():
  keys = order_key(0, 'swahili', [0, 0, 1, 1])
  moved = permute([3, 4, 3, 4], [10, 11, 10, 11], keys)
  alone = [permute(i, n, k) for i, n, k in zip([3, 4, 3, 4], [10, 11, 10, 11], keys, strict=True)]
  assert moved.tolist() == [int(x) for x in alone]


def test_golden_orders_do_not_change():
  # These orders are part of a run's identity: a run that resumes must find them as they were.
  assert hex(order_key(0, 'swahili', 0)) == '0xef5e577be764f967'
  assert order(10).tolist() == [7, 8, 1, 5, 2, 4, 9, 3, 0, 6]
  assert order(10, seed=1).tolist() == [2, 5, 4, 8, 3, 0, 9, 7, 1, 6]
  assert order(10, epoch=1).tolist() == [3, 9, 0, 2, 1, 4, 6, 5, 7, 8]
  large = permute(np.arange(5), 10**9, order_key(7, 'english', 3))
  assert large.tolist() == [137604381, 563159480, 87204864, 481066047, 289718997]


@pytest.mark.parametrize('size', [30, 1000, 10_007, 10**6])
def test_neighbours_are_unrelated_at_every_small_distance(size):
  moved = order(size)
  for lag in range(1, 9):
    r = np.corrcoef(moved[:-lag], moved[lag:])[0, 1]
    assert abs(r) < 4.5 / math.sqrt(size), lag
  # An affine order has one difference between neighbours (modulo size); this has as many as chance.
  if size >= 1000:
    differences = len(np.unique((moved[1:] - moved[:-1]) % size))
    assert differences == pytest.approx(size * (1 - math.exp(-1)), rel=0.05)


def chi_square(observed, expected):
  """Standard deviations above the mean, where it is about normal."""
  statistic = ((observed - expected) ** 2 / expected).sum()
  freedom = observed.size - 1
  return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize('size', [2, 3, 5, 8, 12, 37])
def test_every_index_goes_to_every_place_equally_often_over_seeds(size):
  keys = np.array([order_key(seed, 'swahili', 0) for seed in range(20_000)])
  for index in {0, size // 2, size - 1}:
    counts = np.bincount(permute(index, size, keys), minlength=size)
    assert abs(chi_square(counts, len(keys) / size)) < 5


@pytest.mark.parametrize('size', [4, 6, 7, 10])
def test_two_indices_go_to_every_pair_of_places_equally_often_over_epochs(size):
  keys = order_key(0, 'swahili', np.arange(50_000))
  first, second = permute(0, size, keys), permute(1, size, keys)
  counts = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
  assert np.diagonal(counts).sum() == 0
  off = counts[~np.eye(size, dtype=bool)]
  assert abs(chi_square(off, len(keys) / off.size)) < 5


def test_positions_of_any_stretch_of_the_source_spread_evenly():
  size, parts = 10**6, 100
  moved = order(size)
  counts = np.histogram2d(np.arange(size), moved, bins=parts)[0]
  assert abs(chi_square(counts, size / parts**2)) < 5


@pytest.mark.parametrize('change', [{'seed': 1}, {'epoch': 1}, {'stream': 'swahili2'}])
def test_adjacent_seeds_epochs_and_names_give_unrelated_orders(change):
  size = 100_000
  one, other = order(size), order(size, **change)
  assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / math.sqrt(size)
  assert (one == other).sum() < 12  # one in the mean
  for shift in (1, 2, 3):  # seed + epoch, the usual mistake, shows as a shifted order
    assert (one[shift:] == other[:-shift]).sum() < 12


def test_seed_1_epoch_0_is_not_seed_0_epoch_1():
  assert order_key(1, 'swahili', 0) != order_key(0, 'swahili', 1)


@pytest.mark.parametrize('index', [-1, 10])
def test_an_index_outside_is_an_error_with_both_numbers(index):
  with pytest.raises(ValueError, match=rf'index {index} is outside \[0, 10\)'):
    permute([0, index], 10, order_key(0, 'swahili', 0))
