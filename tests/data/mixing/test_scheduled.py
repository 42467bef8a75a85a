import bisect
import itertools
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jaxlink.data.mixing.scheduled import ScheduledMixture
from jaxlink.data.mixing.split_tree import _passes
from jaxlink.data.mixture import Mixture


def of(*knots):
  return ScheduledMixture([f'source {i}' for i in range(len(knots[0][1]))], knots)


def shares_at(mixture, at):
  """The shares just after a place, from the definition."""
  places = [place for place, _ in mixture.knots]
  after = bisect.bisect_right(places, at)
  if after in (0, len(places)):
    return mixture.knots[max(0, after - 1)][1]
  (begin, low), (end, high) = mixture.knots[after - 1 : after + 1]
  return [a + (b - a) * (at - begin) / (end - begin) for a, b in zip(low, high, strict=True)]


def slot_integrals(mixture, first, last):
  """For each slot, the integral of each share over it: trapezoids between knots, exactly."""
  for g in range(first, last):
    edges = [g, *sorted({at for at, _ in mixture.knots if g < at < g + 1}), g + 1]
    total = [Fraction(0)] * len(mixture.names)
    for begin, end in itertools.pairwise(map(Fraction, edges)):
      middle = shares_at(mixture, (begin + end) / 2)  # of a straight line: its mean
      total = [t + m * (end - begin) for t, m in zip(total, middle, strict=True)]
    yield total


def deviation(mixture, first, last):
  """The largest |count - integral| over prefixes in (first, last], with every index checked."""
  count, ideal, worst = mixture.counts(first).tolist(), mixture.ideal(first), Fraction(0)
  g = np.arange(first, last)
  source, within = mixture.source_of(g).tolist(), mixture.index_within(g).tolist()
  for slot, rise in enumerate(slot_integrals(mixture, first, last)):
    assert within[slot] == count[source[slot]]
    count[source[slot]] += 1
    ideal = [a + b for a, b in zip(ideal, rise, strict=True)]
    worst = max(worst, *(abs(c - i) for c, i in zip(count, ideal, strict=True)))
  assert count == mixture.counts(last).tolist()
  assert tuple(ideal) == mixture.ideal(last)
  return worst


@st.composite
def schedules(draw, most_sources=16, span=150):
  K = draw(st.integers(1, most_sources))
  weights = st.lists(
    st.one_of(st.just(0), st.integers(1, 50)), min_size=K, max_size=K
  ).filter(any)  # fmt: skip
  place = st.fractions(0, span, max_denominator=7)
  places = sorted(draw(st.lists(place, min_size=1, max_size=5, unique=True)))
  knots = []
  for at in places:
    for _ in range(draw(st.integers(1, 2))):  # two: a jump
      rates = draw(weights)
      knots.append((at, tuple(Fraction(rate, sum(rates)) for rate in rates)))
  return knots


# Sixteen sources take hypothesis minutes to shrink, and the message names the first failure anyway.
quickly = settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
F = Fraction

# Turkish takes over from English, with a source between that comes and goes.
RISING = (
  (0, ('1', '0', '0')),
  (100, ('1', '0', '0')),
  ('301/2', ('1/2', '1/2', '0')),
  ('301/2', ('1/5', '1/5', '3/5')),
  (400, ('1/5', '4/5', '0')),
)


@quickly
@given(schedules())
def test_no_source_is_further_off_its_integral_than_the_bound_and_it_is_at_most_two(knots):
  mixture = of(*knots)
  assert deviation(mixture, 0, 250) <= mixture.bound <= 2


@quickly
@given(schedules(most_sources=8, span=60))
def test_up_to_eight_sources_are_at_most_one_and_a_half_off(knots):
  mixture = of(*knots)
  assert deviation(mixture, 0, 120) <= mixture.bound <= Fraction(3, 2)


@quickly
@given(schedules(), st.integers(0, 10**6))
def test_any_order_of_questions_gives_what_reading_in_order_gives(knots, seed):
  g = np.arange(3000)
  in_order = of(*knots)
  source, within = in_order.source_of(g), in_order.index_within(g)
  asked = np.random.default_rng(seed).permutation(3000)[:40]
  again = of(*knots)
  assert np.array_equal(again.source_of(asked), source[asked])
  assert np.array_equal(again.index_within(asked), within[asked])
  assert int(again.source_of(int(asked[0]))) == source[asked[0]]
  for t in (0, 1, 149, 1024, 1025, 3000):
    assert again.counts(t).tolist() == np.bincount(source[:t], minlength=len(again.names)).tolist()


@pytest.mark.parametrize('zeros', [0.0, 0.5])
def test_a_hundred_random_sources_are_less_than_two_off(zeros):
  rng = np.random.default_rng(5)
  knots = []
  for at in (0, 150, 300, 300, 450, 600):
    rates = rng.integers(1, 100, 100) * (rng.random(100) >= zeros)
    knots.append((at, [F(int(rate), int(rates.sum())) for rate in rates]))
  mixture = of(*knots)
  assert deviation(mixture, 0, 320) <= mixture.bound
  assert deviation(mixture, 320, 640) < 2  # 1.33 and 1.75 over 4,000; bounds of 2.04 and 2.63


def test_the_billionth_sequence_is_as_well_placed_as_the_first():
  mixture = of((0, (1, 0, 0)), (10**9, ('1/7', '2/7', '4/7')), (3 * 10**12, (0, '1/3', '2/3')))
  for first in (10**9 - 300, 10**9 + 12_345, 10**12 + 7, 3 * 10**12 - 300, 10**15):
    assert deviation(mixture, first, first + 600) <= mixture.bound


def test_a_source_without_a_share_gives_nothing():
  mixture = of(*RISING)
  counts = mixture.counts(100)
  assert counts.tolist() == [100, 0, 0]
  # Of the third source's falling share, what is left at its end is at most the bound.
  last = mixture.counts(10**6)[2]
  assert abs(last - mixture.ideal(400)[2]) <= mixture.bound
  assert mixture.counts(10**12)[2] == last
  assert not (mixture.source_of(np.arange(500, 9000)) == 2).any()
  never = of((0, ('1/3', 0, '2/3')), (50, ('2/3', 0, '1/3')))
  assert never.counts(10**9)[1] == 0


def test_sixteen_sources_one_after_the_other_meet_the_bound_of_two():
  # Every ratio in the tree is 1 somewhere, and jumps lie in the middle of a sequence.
  phases = [[int(i == j) for i in range(16)] for j in range(16)]
  knots = []
  for j, phase in enumerate(phases):
    knots += [(F(37 * j, 2), phase), (F(37 * j + 37, 2), phase)]
  mixture = of(*knots)
  assert deviation(mixture, 0, 320) == mixture.bound == 2
  whole = of(*((2 * at, phase) for at, phase in knots))
  assert deviation(whole, 0, 600) == 0


def test_sources_of_constant_ratio_do_not_make_the_tree_of_sixteen_deeper_than_four_levels():
  # Thirteen phases fill the four levels; a pair kept together would have its sources on the fifth.
  knots = []
  for j in range(13):
    pairs = [F(int(j == 10 + pair) * part, 1000) for pair in range(3) for part in (1, 999)]
    shares = [*(F(int(i == j)) for i in range(10)), *pairs]
    knots += [(100 * j, shares), (100 * j + 100, shares)]
  assert of(*knots).bound <= 2


def test_constant_shares_are_those_of_a_mixture_within_the_bound():
  rates = ('0.5', '0.3', '0.15', '0.05')
  plain, mixture = Mixture('abcd', rates), ScheduledMixture('abcd', [(7, rates)])
  assert mixture.ideal(12_345) == plain.ideal(12_345)
  assert mixture.shares_at(5) == plain.shares_at(5) == plain.shares
  assert deviation(mixture, 0, 3000) <= mixture.bound < 2


def test_sources_that_keep_their_ratio_are_split_as_a_mixture_splits_them():
  # 98 sources of a power law beside one that rises: a tree that did not know of it has a bound of 3.5.
  ratios = [F(10**6, i * i) for i in range(1, 99)]
  knots = []
  for at, rising in ((0, F(1, 100)), (1000, F(9, 10))):
    rest = [(1 - rising) * ratio / sum(ratios) for ratio in ratios]
    knots.append((at, (rising, *rest)))
  mixture = of(*knots)
  assert mixture.bound < 2
  assert deviation(mixture, 400, 600) <= mixture.bound


def test_shares_and_integral_by_hand():
  mixture = of((10, ('1', '0')), (20, ('1/2', '1/2')), (20, ('1/4', '3/4')))
  assert mixture.shares_at(3) == (1, 0)
  assert mixture.shares_at(15) == (F(3, 4), F(1, 4))
  assert mixture.shares_at(20) == (F(1, 4), F(3, 4))
  assert mixture.ideal(10) == (10, 0)
  assert mixture.ideal(15) == (F(115, 8), F(5, 8))  # 10 + 5 · 7/8
  assert mixture.ideal(20) == (F(35, 2), F(5, 2))
  assert mixture.ideal(24) == (F(37, 2), F(11, 2))


def test_the_bound_by_hand():
  assert of((0, (1,))).bound == 0
  assert of((0, ('1/4', '3/4')), (9, (1, 0))).bound == F(1, 2)
  # The last beside a pair: of that, which is 1/2 and then 1/4, the second is 1/2 and then all.
  knots = (0, ('1/4', '1/4', '1/2')), (9, (0, '1/4', '3/4'))
  assert of(*knots).bound == 1
  # Of the pair of the last two, the first is 2/3 and then 1/2.
  assert of((0, ('2/5', '2/5', '1/5')), (9, ('4/5', '1/10', '1/10'))).bound == F(5, 6)


def test_golden_order_does_not_change():
  order = ''.join(map(str, of(*RISING).source_of(np.arange(96, 216)).tolist()))
  assert order == (
    '000000000000001000000100001000100010010010100101001010122021'
    '220122201221022120221202121022120212201212021210221201212021'
  )


def test_a_thousand_sources_open_and_count():
  rng = np.random.default_rng(0)
  knots = []
  for at in (0, 10**6, 10**9):
    rates = rng.integers(1, 10**6, 1000).tolist()
    knots.append((at, [F(rate, sum(rates)) for rate in rates]))
  mixture = of(*knots)
  g = 10**8 + np.arange(2000)
  source, within, count = mixture.source_of(g), mixture.index_within(g), mixture.counts(10**8)
  for s, w in zip(source.tolist(), within.tolist(), strict=True):
    assert w == count[s]
    count[s] += 1
  off = max(abs(c - i) for c, i in zip(count.tolist(), mixture.ideal(10**8 + 2000), strict=True))
  assert off < 2


def test_a_pickled_schedule_gives_the_same():
  mixture = of(*RISING)
  mixture.source_of(5)
  again = pickle.loads(pickle.dumps(mixture))
  assert np.array_equal(again.source_of(np.arange(500)), mixture.source_of(np.arange(500)))


def test_the_key_holds_names_and_knots_and_nothing_else():
  key = of((0, ('0.5', '1/2')), ('3/2', (1, 0))).key
  assert json.loads(key) == {
    'names': ['source 0', 'source 1'],
    'knots': [['0', ['1/2', '1/2']], ['3/2', ['1', '0']]],
  }
  assert of(*RISING).key == of(*RISING).key != of(*RISING[:-1]).key
  assert json.loads(Mixture(['tr', 'en'], ['1/3', '2/3']).key) == {
    'shares': {'tr': '1/3', 'en': '2/3'}
  }
  assert Mixture(['tr', 'en'], [1, 2]).key == Mixture(['tr', 'en'], ['0.5', 1]).key
  assert Mixture(['tr', 'en'], [1, 2]).key != Mixture(['en', 'tr'], [2, 1]).key


@given(
  square=st.integers(-(10**30), 10**30),
  slack=st.integers(1, 10**30),
  t=st.integers(0, 10**12),
  part=st.fractions(0, 1),
)
def test_the_slot_in_which_a_quadratic_passes_a_value_is_exact(square, slack, t, part):
  linear = slack - min(0, 2 * square * (t + 1)) - max(0, 2 * square * t)  # rises from t to t + 1
  low, high = (square * x * x + linear * x for x in (t, t + 1))
  for value in (low, low + int(part * (high - low - 1)), high - 1):
    assert _passes(square, linear, -value) == t


@pytest.mark.parametrize(
  ('knots', 'message'),
  [
    ([], 'knots at no sequences'),
    ([(0, ['1/2', '1/3'])], r'shares at sequence 0 add up to 5/6'),
    ([(0, [2, -1])], r"share of source 'tr' is -1 at sequence 0"),
    ([(0, [1])], '1 shares at sequence 0 for 2 sources'),
    ([(-1, [1, 0])], 'knots at -1 sequences'),
    ([(5, [1, 0]), (4, [1, 0])], 'knots at 5, 4 sequences'),
    ([(5, [1, 0])] * 3, 'knots at 5, 5, 5 sequences'),
    ([(0, ['much', 0])], "'much' is no number"),
  ],
)
def test_knots_that_are_wrong_are_errors_that_name_them(knots, message):
  with pytest.raises(ValueError, match=message):
    ScheduledMixture(['en', 'tr'], knots)


def test_sources_that_are_wrong_and_negative_sequences_are_errors():
  with pytest.raises(ValueError, match="source 'tr' is named 2 times"):
    ScheduledMixture(['tr', 'tr'], [(0, ['1/2', '1/2'])])
  with pytest.raises(ValueError, match='a mixture of no sources'):
    ScheduledMixture([], [(0, [])])
  for ask in (of(*RISING).source_of, of(*RISING).counts, of(*RISING).ideal):
    with pytest.raises(ValueError, match='sequence -3 of a run'):
      ask(-3)
