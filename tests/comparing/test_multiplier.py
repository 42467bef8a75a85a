import math

import numpy as np
import pytest

from jaxlink.comparing import multiplier
from jaxlink.comparing.multiplier import Law, Pools

LAW = Law(2, 60, 0.2)
SIZES = (25_000_000, 50_000_000, 100_000_000, 200_000_000, 400_000_000)


def test_the_published_check_values():
  assert LAW.loss(1e8) == pytest.approx(3.507132, abs=1e-6)
  assert LAW.unique_for(3.20) / 1e8 == pytest.approx(3.125, abs=1e-6)
  assert LAW.unique_for(3.30) / 1e8 == pytest.approx(2.094303, abs=1e-6)
  assert Law(2.05, 60, 0.2).unique_for(3.30) / 1e8 == pytest.approx(2.548040, abs=1e-6)


@pytest.mark.parametrize('law', [LAW, Law(1.1, 4.0, 0.45), Law(0.4, 300, 0.31)])
@pytest.mark.parametrize('sizes', [SIZES, SIZES[:3]])
def test_the_law_of_exact_runs_is_found_again(law, sizes):
  found = multiplier.fit(Pools(sizes, tuple(map(law.loss, sizes))))
  assert found.beta == pytest.approx(law.beta, rel=1e-3)
  assert found.e == pytest.approx(law.e, abs=2e-3)


def test_the_multiplier_of_exact_runs():
  found = multiplier.of_loss(Pools(SIZES, tuple(map(LAW.loss, SIZES))), 10**8, [3.30], level=0.95)
  assert found.value == pytest.approx(2.094303, rel=1e-3)
  assert found.within
  assert not multiplier.of_loss(
    Pools(SIZES, tuple(map(LAW.loss, SIZES))), 10**8, [3.0], level=0.95
  ).within


def test_the_unit_of_the_score_is_of_no_account():
  scale = 1 / (math.log(2) * 3.9)  # nats per token into bits per byte
  pools = Pools(SIZES, tuple(scale * LAW.loss(size) for size in SIZES))
  found = multiplier.of_loss(pools, 10**8, [scale * 3.30], level=0.95)
  assert found.value == pytest.approx(2.094303, rel=1e-3)


def test_a_score_at_the_end_of_the_law_has_no_bound():
  found = multiplier.of_loss(Pools(SIZES, tuple(map(LAW.loss, SIZES))), 10**8, [1.9], level=0.95)
  assert math.isinf(found.value)


def test_the_interval_over_seeds_holds_the_truth():
  rng, hits = np.random.default_rng(5), 0
  for _ in range(12):
    noisy = lambda loss: loss + rng.normal(0, 0.01)  # noqa: E731
    sizes = tuple(size for size in SIZES for _ in range(2))
    pools = Pools(sizes, tuple(noisy(LAW.loss(size)) for size in sizes))
    found = multiplier.of_loss(pools, 10**8, [noisy(3.30) for _ in range(3)], level=0.95)
    assert found.low <= found.value <= found.high
    hits += found.low <= 2.094303 <= found.high
  assert hits >= 10


def test_too_few_pools_are_told_with_what_is_missing():
  pools = Pools((10**8, 10**8, 2 * 10**8), (3.5, 3.51, 3.3))
  with pytest.raises(
    ValueError, match=r'there are runs at: 100,000,000, 200,000,000\. Missing: runs on 1'
  ):
    multiplier.fit(pools)
  assert 'none' in multiplier.missing(Pools((), ()))
  assert multiplier.missing(Pools(SIZES, SIZES)) == ''


def test_scores_that_do_not_fall_with_more_text_have_no_law():
  with pytest.raises(ValueError, match='no law to fit'):
    multiplier.fit(Pools(SIZES, (3.0, 3.1, 3.2, 3.3, 3.4)))


def test_accuracy_has_a_monotone_fit_and_is_not_extrapolated():
  pools = Pools((100, 200, 400, 800), (0.50, 0.58, 0.56, 0.66))
  found = multiplier.of_accuracy(pools, 100, [0.615])
  assert found.value == pytest.approx(4 * math.sqrt(2))  # half-way from 0.57 at 400 to 0.66
  assert multiplier.of_accuracy(pools, 100, [0.70]) is None
  level = multiplier.of_accuracy(Pools((100, 200, 400), (0.25, 0.25, 0.4)), 100, [0.25])
  assert level.value == 1  # the smallest pool has that score
  assert multiplier.monotone([1, 3, 2], [1, 1, 2]) == pytest.approx([1, 7 / 3, 7 / 3])
