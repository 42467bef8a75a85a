"""The order of a source is one that a random order could be, and no affine map.

Seeds are fixed, so every run sees the same numbers. A statistic that is about normal may lie 5.5 standard
deviations off, others have the same false-alarm rate: 4e-8 for each, less than 1e-4 for all of this module.
"""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
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


# ── what a random order must pass, and orders with structure do not ──

FAR, RARE = 5.5, 4e-8


def z(value, mean, variance):
  return (value - mean) / math.sqrt(variance)


def spectrum(values, size, harmonic):
  """The probability that white noise has a line as strong as the strongest one here.

  An affine order, index * a + b modulo size, is one line, of the strength of all other noise together; an
  order that is affine over stretches is a few.
  """
  power = np.abs(np.fft.fft(np.exp(2j * np.pi * harmonic * (values / size)))) ** 2 / len(values)
  return -math.expm1(-len(values) * math.exp(-power.max()))


def cells(columns, parts, size):
  """Whether all combinations of parts of the source come equally often, in standard deviations."""
  at = np.ravel_multi_index([column * parts // size for column in columns], (parts,) * len(columns))
  counts = np.bincount(at, minlength=parts ** len(columns))
  return chi_square(counts, len(at) / counts.size)


def faults(moved):
  """The names of what tells this order of range(len(moved)) from a random one."""
  size = len(moved)
  index = np.arange(size)
  found = {f'serial {lag}': np.corrcoef(moved[:-lag], moved[lag:])[0, 1] * math.sqrt(size)
           for lag in (1, 2, 3, 5, 8, 16, 100)}  # fmt: skip
  # Spearman's footrule and rho: how far things move (mean and variance: Diaconis and Graham 1977).
  found['displacement'] = z(np.abs(moved - index).sum(), (size**2 - 1) / 3, 2 * size**3 / 45)
  found['trend'] = np.corrcoef(moved, index)[0, 1] * math.sqrt(size - 1)
  found['descents'] = z((np.diff(moved) < 0).sum(), (size - 1) / 2, (size + 1) / 12)
  # Of size draws from size values, 1 - 1/e are had.
  for order in (1, 2):
    seen = len(np.unique(np.diff(moved, order) % size))
    found[f'differences {order}'] = z(
      seen, size * (1 - math.exp(-1)), size * (math.exp(-1) - 2 * math.exp(-2))
    )
  parts = min(32, math.isqrt(size // 5))
  found['stretches'] = cells([index, moved], parts, size)
  found['pairs'] = cells([moved[:-1:2], moved[1::2]], min(16, math.isqrt(size // 10)), size)
  triples = moved[: size // 3 * 3].reshape(-1, 3).T
  found['triples'] = cells(triples, min(8, round((size // 15) ** (1 / 3))), size)
  rare = {f'line {h}': spectrum(moved, size, h) for h in (1, 2, 3)}
  return {name for name, value in found.items() if abs(value) > FAR} | {
    name for name, value in rare.items() if value < RARE
  }


@pytest.mark.parametrize('size', [500, 1000, 1021, 4096, 10_007, 65_536, 65_537, 10**5, 10**6])
def test_an_order_has_nothing_that_tells_it_from_a_random_one(size):
  orders = ((0, 'swahili', 0), (0, 'swahili', 1), (1, 'turkish', 7))
  for seed, stream, epoch in orders[: 1 if size == 10**6 else 3]:
    assert faults(order(size, seed, stream, epoch)) == set()


def blockwise(size, block):
  """What a shuffle buffer, or a shuffle of whole blocks, leaves in order."""
  rng = np.random.default_rng(0)
  blocks = [first + rng.permutation(min(block, size - first)) for first in range(0, size, block)]
  return np.concatenate(blocks)


@pytest.mark.parametrize(
  ('moved', 'by'),
  [
    (np.arange(10_007), {'trend', 'serial 1', 'line 1', 'differences 1', 'displacement'}),
    ((np.arange(10_007) * 6180 + 77) % 10_007, {'line 1', 'line 2', 'differences 1', 'pairs'}),
    ((np.arange(10_007) ** 2 % 10_007 + np.arange(10_007) * 5000) % 10_007, {'differences 2'}),
    (blockwise(10_000, 1000), {'trend', 'serial 1', 'stretches'}),
    (np.random.default_rng(0).permutation(1000).repeat(10) * 10 + np.tile(np.arange(10), 1000),
     {'differences 1', 'serial 1'}),
    (np.random.default_rng(0).permutation(10_000), set()),
  ],
  ids=['identity', 'affine', 'quadratic', 'buffer', 'whole blocks', 'random'],
)  # fmt: skip
def test_orders_with_structure_are_told_and_a_random_one_is_not(moved, by):
  assert by <= faults(moved)
  assert by or not faults(moved)


def uniform(values, size):
  return scipy.stats.kstest((values + 0.5) / size, 'uniform').pvalue


@pytest.mark.parametrize('size', [10**11, 10**11 + 3, 2**40])
@pytest.mark.parametrize(
  'which', ['first', 'middle', 'last', 'far apart', 'one digit', 'thousands']
)
def test_samples_of_a_large_order_are_spread_and_unrelated(size, which):
  count = 100_000
  digit = -(-size // (math.isqrt(size - 1) + 1))  # the right one of the two is 0
  index = {
    'first': np.arange(count),
    'middle': size // 2 + np.arange(count),
    'last': size - count + np.arange(count),
    'far apart': np.arange(count) * (size // count),
    'one digit': np.arange(count) * digit,
    'thousands': np.arange(count) * 1024,
  }[which]
  moved = permute(index, size, order_key(0, 'english', 3))
  assert uniform(moved, size) > RARE
  for order in (1, 2):
    assert uniform(np.diff(moved, order) % size, size) > RARE
  for lag in (1, 2, 3, 8, 64, 1000):
    assert abs(np.corrcoef(moved[:-lag], moved[lag:])[0, 1]) * math.sqrt(count) < FAR
  for harmonic in (1, 2, 3):
    assert spectrum(moved, size, harmonic) > RARE
  assert abs(cells([moved[:-1:2], moved[1::2]], 32, size)) < FAR
  assert abs(cells(moved[: count // 3 * 3].reshape(-1, 3).T, 10, size)) < FAR


@pytest.mark.parametrize('size', [1000, 10**11])
@pytest.mark.parametrize('changed', ['epoch', 'seed', 'stream'])
def test_one_index_goes_anywhere_as_epochs_seeds_and_sources_go_on(size, changed):
  count = 20_000
  if changed == 'epoch':
    keys = order_key(0, 'swahili', np.arange(count))
  elif changed == 'seed':
    keys = np.array([order_key(seed, 'swahili', 0) for seed in range(count)])
  else:
    keys = np.array([order_key(0, f'source {k}', 0) for k in range(count)])
  for index in (0, 1, size // 2, size - 1):
    moved = permute(index, size, keys)
    assert abs(cells([moved], 50, size)) < FAR
    for lag in (1, 2, 3, 8):
      assert abs(np.corrcoef(moved[:-lag], moved[lag:])[0, 1]) * math.sqrt(count) < FAR
    assert spectrum(moved, size, 1) > RARE


@pytest.mark.parametrize(('size', 'uneven'), [(3, 0), (4, 0), (5, 0.03), (6, 0.15)])
def test_every_order_of_a_few_comes_about_equally_often(size, uneven):
  """Of six things, an order comes 0.34 times (one standard deviation) more or less often than chance has it.

  Eight rounds over digits of two and three values do no better; places and pairs of places are even.
  """
  keys = order_key(0, 'swahili', np.arange(100_000))
  moved_KN = permute(np.arange(size), size, keys[:, None])
  number = {moved: n for n, moved in enumerate(itertools.permutations(range(size)))}
  counts = np.bincount([number[tuple(m)] for m in moved_KN.tolist()], minlength=len(number))
  assert counts.min() > 0
  expected = len(keys) / len(number)
  variance = (((counts - expected) ** 2).sum() / expected - len(counts) + 1) / len(keys)
  chance = math.sqrt(2 * len(counts)) / len(keys)  # how far it is off where all orders are equal
  assert variance < uneven + FAR * chance


@pytest.mark.parametrize('size', [13, 64, 100])
def test_fixed_points_and_cycles_are_as_many_as_of_random_orders(size):
  keys = order_key(0, 'swahili', np.arange(8_000))
  moved_KN = permute(np.arange(size), size, keys[:, None])
  fixed = np.bincount((moved_KN == np.arange(size)).sum(axis=1), minlength=6)
  counts = np.append(fixed[:5], fixed[5:].sum())
  chance = np.array([math.exp(-1) / math.factorial(k) for k in range(5)])
  expected = len(keys) * np.append(chance, 1 - chance.sum())
  assert abs(chi_square(counts, expected)) < FAR

  least = np.broadcast_to(np.arange(size), moved_KN.shape)  # the least index on each one's cycle
  jump = moved_KN
  for _ in range(size.bit_length()):
    least = np.minimum(least, np.take_along_axis(least, jump, axis=1))
    jump = np.take_along_axis(jump, jump, axis=1)
  cycles = (least == np.arange(size)).sum()
  k = np.arange(1, size + 1)
  assert abs(z(cycles, len(keys) * (1 / k).sum(), len(keys) * (1 / k - 1 / k**2).sum())) < FAR
