import math
import random

import numpy as np
import pytest

from jaxlink.comparing import curves, speedup
from jaxlink.comparing.curves import Curve

GRID = (0, 100_000, 200_000, 400_000, 800_000, 1_600_000)


def falling(tokens=GRID, speed=1.0, offset=0.0, better='lower'):
  """A score that is linear in the logarithm of tokens, so that interpolation is exact."""
  values = [4.0 if t == 0 else 3.0 - 0.2 * math.log2(t * speed / 100_000) + offset for t in tokens]
  return Curve(tuple(tokens), tuple(v if better == 'lower' else -v for v in values), better)


@pytest.mark.parametrize('better', ['lower', 'higher'])
@pytest.mark.parametrize('speed', [2.0, 1.37, 1.0, 0.6])
def test_a_known_speed_up_is_found_exactly_whichever_is_ahead(speed, better):
  a, b = falling(better=better), falling(speed=speed, better=better)
  assert speedup.of_pairs([(a, b)], 0.95).value == pytest.approx(speed, rel=1e-12)
  assert speedup.of_pairs([(b, a)], 0.95).value == pytest.approx(1 / speed, rel=1e-12)


def test_grids_may_differ():
  other = (0, 130_000, 330_000, 700_000, 1_300_000)
  found = speedup.of_pairs([(falling(), falling(other, 1.5))], 0.95)
  assert found.value == pytest.approx(1.5, rel=1e-12)


def test_more_evaluations_of_one_run_are_no_speed_up():
  rng, logs = random.Random(2), []
  fine = tuple(range(0, 1_600_001, 25_000))
  flat = lambda t: 4.0 if t == 0 else 2.0 - 0.02 * math.log2(t / 100_000)  # noqa: E731
  for _ in range(100):
    often, rare = (Curve(grid, tuple(flat(t) + rng.gauss(0, 0.05) for t in grid), 'lower') for grid in (fine, fine[::8]))  # fmt: skip
    found = speedup.of_pairs([(rare, often)], 0.95)
    logs.append(math.log(found.value))
    assert not found.caveat
  mean, error = np.mean(logs), np.std(logs) / math.sqrt(len(logs))
  assert abs(mean) < 3 * error


def test_runs_that_were_never_evaluated_at_the_same_tokens_have_a_caveat():
  other = tuple(range(0, 1_600_001, 33_000))
  for found in (
    speedup.of_pairs([(falling(), falling(other, 1.5))], 0.95),
    speedup.of_groups([falling()], [falling(other, 1.5)], 0.95),
  ):
    assert found.caveat.startswith('runs were evaluated at other tokens, 5 to 48 times')


def test_a_score_that_is_not_reached_is_bounded_and_never_extrapolated():
  found = speedup.of_pairs([(falling(), falling(speed=0.5))], 0.95)
  assert (found.reached, found.runs) == (0, 1)
  assert found.limit == 1  # it had as many tokens, and they were not enough
  assert found.value == pytest.approx(0.5)  # to the other's best score, which both reach
  shorter = speedup.of_pairs([(falling(), falling(GRID[:-1]))], 0.95)
  assert (shorter.reached, shorter.limit) == (0, 2)


def test_a_best_score_in_the_middle_counts_as_reached_there():
  bumpy = Curve((0, 100, 200, 400), (4.0, 3.0, 2.5, 2.7), 'lower')
  assert bumpy.best == 2.5
  assert bumpy.tokens_to(2.5) == 200
  assert bumpy.tokens_to(2.75) == pytest.approx(100 * math.sqrt(2))
  assert bumpy.tokens_to(3.5) == pytest.approx(50)  # before the first update there is no logarithm
  assert bumpy.tokens_to(2.4) is None


def test_a_score_that_was_there_at_the_first_evaluation_gives_a_bound_without_interval():
  late = Curve((400_000, 1_600_000), (2.4, 2.0), 'lower')
  slow = Curve((400_000, 1_600_000), (2.9, 2.5), 'lower')
  found = speedup.of_pairs([(slow, late)] * 2, 0.95)
  assert (found.bound, found.low) == ('≥', None)
  assert found.value == pytest.approx(4.0)
  assert speedup.of_pairs([(late, slow)] * 2, 0.95).bound == '≤'


@pytest.mark.parametrize(
  ('curve', 'why'),
  [
    (Curve((100,), (2.0,), 'lower'), 'once'),
    (Curve((0, 100), (2.0, 2.1), 'lower'), 'never scored better'),
    (Curve((0, 100), (0.5, 0.51), 'higher', 0.47, 0.55, 0.5), 'chance'),
  ],
)
def test_where_there_is_no_speed_up_it_says_why(curve, why):
  found = speedup.of_pairs([(curve, falling(better=curve.better))], 0.95)
  assert found.value is None
  assert why in found.why


def test_the_interval_over_seeds_covers_the_true_speed_up_as_often_as_it_says():
  rng, hits, trials, truth = random.Random(11), 0, 300, 1.4
  for _ in range(trials):
    pairs = []
    for _ in range(3):
      seed = rng.gauss(0, 0.02)  # what a pair shares
      pairs.append((
        falling(offset=seed + rng.gauss(0, 0.006)), falling(speed=truth, offset=seed + rng.gauss(0, 0.006)),
      ))  # fmt: skip
    found = speedup.of_pairs(pairs, 0.9)
    hits += found.low <= truth <= found.high
  assert abs(hits / trials - 0.9) < 3 * math.sqrt(0.09 / trials)


def test_unpaired_runs_are_held_to_the_score_that_all_reach():
  a = [falling(offset=o) for o in (0.0, 0.01)]
  b = [falling(speed=2, offset=o) for o in (0.0, 0.01)]
  found = speedup.of_groups(a, b, 0.95)
  assert found.value == pytest.approx(2, rel=1e-12)
  assert found.low < 2 < found.high


def test_the_curve_of_the_speed_up_has_one_number_for_each_level():
  found = speedup.of_pairs(
    [(falling(offset=o), falling(speed=2 + o, offset=o)) for o in (0, 0.01)], 0.9
  )
  assert found.curve == pytest.approx([math.sqrt(2 * 2.01)] * len(found.levels))
  assert found.curve_low == pytest.approx([found.low] * len(found.levels))
  assert found.curve_high == pytest.approx([found.high] * len(found.levels))
  same = speedup.of_pairs([(falling(), falling(speed=2))] * 2, 0.9)
  assert np.isnan(same.curve_low).any()  # a few that agree have no interval
  assert len(same.curve_low) == len(same.levels)
  assert found.levels[0] > found.levels[-1]


def test_a_band_is_the_mean_and_the_range_of_seeds_where_all_have_been():
  a = Curve((0, 100, 200, 400), (4.0, 3.0, 2.5, 2.0), 'lower')
  b = Curve((0, 100, 400, 800), (4.0, 3.2, 2.2, 1.8), 'lower')
  found = curves.band([a, b])
  assert found.tokens == [0, 100, 200, 400]  # b ends later, a does not
  assert found.mean == pytest.approx([4.0, 3.1, (2.5 + 2.7) / 2, 2.1])
  assert np.all(np.asarray(found.low) <= found.mean)
  assert found.high[-1] == 2.2


def test_levels_that_were_there_before_the_first_update_are_left_out_of_the_curve():
  a = Curve((0, 100, 200, 300), (3.0, 3.5, 2.5, 2.0), 'lower')  # worse at first
  b = Curve((0, 100, 200, 300), (3.2, 3.1, 2.4, 1.9), 'lower')
  found = speedup.of_pairs([(a, b), (a, b)], 0.95)
  assert found.value > 1
  assert found.levels
  assert max(found.levels) < 3.0
  assert len(found.levels) == len(found.curve) == len(found.curve_low)
