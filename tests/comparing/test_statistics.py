import math
import random

import pytest
import scipy.stats

from jaxlink.comparing import statistics


@pytest.mark.parametrize('freedom', [1, 2, 3, 4, 5, 8, 17, 60])
def test_student_s_t_is_that_of_the_tables(freedom):
  for level in (0.5, 0.8, 0.95, 0.99):
    expected = scipy.stats.t.ppf((1 + level) / 2, freedom)
    assert statistics.t_quantile(level, freedom) == pytest.approx(expected, rel=1e-9)
    assert statistics.t_between(expected, freedom) == pytest.approx(level, rel=1e-9)
  assert statistics.t_between(0, freedom) == 0


def test_a_paired_interval_is_that_of_a_t_test():
  a, b = [2.31, 2.28, 2.35, 2.30], [2.27, 2.26, 2.30, 2.29]
  found = statistics.of_mean([y - x for x, y in zip(a, b, strict=True)], 0.9, 'paired')
  theirs = scipy.stats.ttest_rel(b, a)
  low, high = theirs.confidence_interval(0.9)
  assert (found.low, found.high, found.p) == pytest.approx((low, high, theirs.pvalue))
  assert (found.n, found.method) == (4, 'paired')


def test_an_interval_of_unpaired_runs_is_that_of_a_t_test_with_one_variance():
  a, b = [2.31, 2.28], [2.27, 2.26, 2.30]
  found = statistics.of_difference(a, b, 0.95)
  theirs = scipy.stats.ttest_ind(b, a)
  low, high = theirs.confidence_interval(0.95)
  assert (found.low, found.high, found.p) == pytest.approx((low, high, theirs.pvalue))


def test_too_few_runs_give_no_interval():
  assert statistics.of_mean([1.0], 0.95) is None
  assert statistics.of_difference([1.0], [2.0], 0.95) is None
  assert statistics.of_difference([1.0, 1.1], [], 0.95) is None


def test_a_few_runs_that_agree_to_the_last_bit_tell_nothing_of_seeds():
  same = statistics.of_mean([0.0, 0.0], 0.95)
  assert (same.low, same.high, same.p) == (0, 0, 1)
  assert statistics.of_mean([0.5] * 4, 0.95) is None
  assert (
    statistics.of_mean([0.512 - 0.51, 0.522 - 0.52], 0.95) is None
  )  # equal but for the last bit
  assert statistics.of_difference([0.1, 0.1], [0.2, 0.2], 0.95) is None
  assert statistics.of_mean([0.5] * 5, 0.95).p == 0


def test_counts_of_items_differ_as_often_as_the_level_allows():
  rng, items, trials, wrong = random.Random(5), 64, 1_000, {0.05: 0, 1e-4: 0}
  least = 2 * statistics.rounding(1 / items)
  for _ in range(trials):
    shares = [sum(rng.random() < 0.04 for _ in range(2 * items)) / items - 0.08 for _ in range(2)]
    rounded = [round(share * items) / items for share in shares]
    found = statistics.of_mean(rounded, 0.95, least=least)
    for p in wrong:
      wrong[p] += found.p < p
  assert wrong[0.05] < 0.05 * trials + 3 * math.sqrt(0.0475 * trials)
  assert wrong[1e-4] == 0


def test_intervals_cover_the_truth_as_often_as_they_say():
  rng, hits, trials = random.Random(3), 0, 2_000
  for _ in range(trials):
    found = statistics.of_mean([rng.gauss(0.3, 0.1) for _ in range(3)], 0.9)
    hits += found.low <= 0.3 <= found.high
  assert abs(hits / trials - 0.9) < 3.5 * math.sqrt(0.09 / trials)


def test_holm_adjusts_and_keeps_the_order():
  assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]
  assert statistics.holm([]) == []
