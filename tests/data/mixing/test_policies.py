import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlink.data.mixing.policies import (
  by_temperature,
  cap_shares,
  given_shares,
  proportional,
  repeated_shares,
  unimax,
)
from jaxlink.data.mixing.split_tree import Curves
from jaxlink.data.mixture import Mixture

F = Fraction
sizes_of_sources = st.lists(st.integers(1, 10**12), min_size=1, max_size=12)


def named(sizes):
  return {f'source {i}': F(size) for i, size in enumerate(sizes)}


def reordered(sources):
  return dict(reversed(sources.items()))


def test_given_rates_are_divided_by_their_sum():
  assert given_shares({'en': 0.3, 'tr': '1/10'}) == [(0, (F(3, 4), F(1, 4)))]
  assert given_shares({'en': 3, 'tr': ((100, 2), (100, 2))}) == [(100, (F(3, 5), F(2, 5)))]


def test_a_curve_has_a_knot_at_every_place_that_a_source_names():
  rates = {'en': ((0, 3), (1000, 1)), 'tr': 1, 'sw': ((250, 0), (500, '1/2'), (500, 2.5))}
  assert given_shares(rates) == [
    (0, (F(3, 4), F(1, 4), 0)),
    (250, (F(5, 7), F(2, 7), 0)),  # 5/2 : 1 : 0
    (500, (F(4, 7), F(2, 7), F(1, 7))),  # 2 : 1 : 1/2
    (500, (F(4, 11), F(2, 11), F(5, 11))),  # 2 : 1 : 5/2
    (1000, (F(2, 9), F(2, 9), F(5, 9))),
  ]


def test_a_jump_at_token_0_leaves_what_comes_after_it():
  assert given_shares({'en': 1, 'tr': ((0, 5), (0, 3), (9, 1))}) == [
    (0, (F(1, 4), F(3, 4))),
    (9, (F(1, 2), F(1, 2))),
  ]


@pytest.mark.parametrize(
  ('rates', 'message'),
  [
    ({'en': 1, 'tr': 0}, r"rate of source 'tr' is 0: it is a positive number"),
    ({'en': 1, 'tr': None}, r"rate of source 'tr' is missing"),
    ({'en': 1, 'tr': ()}, r"rate of source 'tr' is \(\): a curve has points"),
    ({'en': 1, 'tr': ((5, 1), (4, 1))}, r"rate of source 'tr' is .* that ascend from 0"),
    ({'en': 1, 'tr': ((-1, 1),)}, r"rate of source 'tr' is .* that ascend from 0"),
    ({'en': 1, 'tr': ((5, 1), (5, 2), (5, 3))}, r"source 'tr' is .* two at one place are a jump"),
    ({'en': 1, 'tr': ((0, -1), (5, 1))}, r"rate of source 'tr' is .* rates of 0 or more"),
    ({'en': 1, 'tr': ((0, 0), (5, 0))}, r"rate of source 'tr' is .* not all 0"),
    ({'en': 1, 'tr': (0, 1)}, r"rate of source 'tr' is \(0, 1\): a curve has points"),
    ({'en': 1, 'tr': ((0, 'x'),)}, r"rate of source 'tr' is .* points of \(tokens, rate\)"),
    ({'en': ((0, 1), (9, 0)), 'tr': ((0, 1), (9, 0))}, 'all rates are 0 at token 9'),
  ],
)
def test_rates_that_are_wrong_are_errors_that_name_the_source(rates, message):
  with pytest.raises(ValueError, match=message):
    given_shares(rates)


def test_proportional_shares_by_hand():
  assert proportional({'en': F(3_000), 'tr': F(1_001, 2), 'sw': F(1, 2)}) == {
    'en': F(3000, 3501),
    'tr': F(1001, 7002),
    'sw': F(1, 7002),
  }


def test_temperature_by_hand():
  sizes = {'en': F(10_000), 'tr': F(100), 'sw': F(1)}
  assert by_temperature(sizes, F(2)) == {
    'en': F(59_042, 65_536),  # 100/111 is 59,041.44 parts, the largest remainder
    'tr': F(5_904, 65_536),  # 10/111 is 5,904.14
    'sw': F(590, 65_536),  # 1/111 is 590.41
  }
  assert set(by_temperature(sizes, F(10**9)).values()) <= {F(21_845, 65_536), F(21_846, 65_536)}
  # A ten-millionth of the tokens still has one part of 65,536.
  tiny = by_temperature({'en': F(10**9), 'tr': F(10**9 - 100), 'sw': F(100)}, F(1))
  assert tiny == {'en': F(32_768, 65_536), 'tr': F(32_767, 65_536), 'sw': F(1, 65_536)}


@given(sizes_of_sources, st.fractions('1/10', 10, max_denominator=10))
def test_temperature_is_the_power_of_the_size_up_to_one_part(sizes, temperature):
  shares = by_temperature(named(sizes), temperature)
  assert sum(shares.values()) == 1
  assert all(share > 0 and 65_536 % share.denominator == 0 for share in shares.values())
  powers = (np.array(sizes, float) / max(sizes)) ** float(1 / temperature)
  for share, ideal in zip(shares.values(), powers / powers.sum(), strict=True):
    assert abs(float(share) - ideal) < (1 + len(sizes)) / 65_536
  assert by_temperature(reordered(named(sizes)), temperature) == shares


def test_unimax_by_hand():
  # Each of 4 would get 25 of 100. sw has room for 10, tr for 20; en and de share the other 70.
  room = {'en': F(1000), 'sw': F(10), 'tr': F(20), 'de': F(400)}
  assert unimax(room, 100) == {'en': F(35, 100), 'sw': F(1, 10), 'tr': F(2, 10), 'de': F(35, 100)}
  assert unimax(room, 1430) == {
    'en': F(1000, 1430),
    'sw': F(10, 1430),
    'tr': F(20, 1430),
    'de': F(400, 1430),
  }
  assert set(unimax(room, 40).values()) == {F(1, 4)}
  with pytest.raises(ValueError, match=r'allows 1,430 tokens .* the stage asks 1,431'):
    unimax(room, 1431)


@given(sizes_of_sources, st.fractions('1/100', 1))
def test_unimax_fills_the_budget_as_equally_as_the_room_allows(room, part):
  budget = max(1, int(sum(room) * part))
  shares = unimax(named(room), budget)
  assert sum(shares.values()) == 1
  tokens = {name: share * budget for name, share in shares.items()}
  most = max(tokens.values())
  for name, size in named(room).items():
    assert tokens[name] == min(size, most)
  assert unimax(reordered(named(room)), budget) == shares


def test_repetitions_by_hand():
  sizes = {'en': F(10**6), 'tr': F(1000), 'sw': F(500), 'de': F(10**6)}
  rates = {'en': 3, 'tr': 9, 'sw': None, 'de': 1}
  nothing = dict.fromkeys(rates, F(0))
  # 15 · 1,000 and 4 · 500 of 100,000 tokens; the rest, 83 %, as 3 : 1.
  assert repeated_shares({'tr': F(15), 'sw': F(4)}, rates, sizes, 100_000, nothing) == [
    (0, (F(249, 400), F(15, 100), F(2, 100), F(83, 400)))
  ]
  # 5 of the 15 were read before; English makes room for German.
  rates = {'en': ((0, 1), (500, 0)), 'tr': 1, 'de': ((0, 0), (500, 1))}
  before = nothing | {'tr': F(5)}
  assert repeated_shares({'tr': F(15)}, rates, sizes, 100_000, before) == [
    (0, (F(9, 10), F(1, 10), 0)),
    (500, (0, F(1, 10), F(9, 10))),
  ]
  assert repeated_shares({'tr': F(15)}, {'tr': 1}, sizes, 10_000, before) == [(0, (1,))]


def test_repetitions_that_cannot_be_are_errors_that_say_what_can():
  sizes = {'en': F(10**6), 'tr': F(1000), 'sw': F(500)}
  rates = {'en': 1, 'tr': 1, 'sw': 1}
  before = {'en': F(0), 'tr': F(7, 2), 'sw': F(0)}
  with pytest.raises(ValueError, match=r"\['tr'\] is 3, and earlier stages read it 3.5 times"):
    repeated_shares({'tr': F(3)}, rates, sizes, 10_000, before)
  with pytest.raises(ValueError, match=r"asks 16,500 tokens of a stage of 10,000.* 'tr' 13.5\."):
    repeated_shares({'tr': F(20)}, rates, sizes, 10_000, before)
  with pytest.raises(ValueError, match=r"At most, .* 'tr' 11.5, 'sw' 0\."):
    repeated_shares({'tr': F(20), 'sw': F(4)}, rates, sizes, 10_000, before | {'sw': F(0)})
  with pytest.raises(ValueError, match=r'asks 6,500 tokens .* no other source for the rest'):
    repeated_shares({'tr': F(10)}, {'tr': 1}, sizes, 10_000, before)
  with pytest.raises(ValueError, match="the rate of source 'tr' is a curve"):
    repeated_shares({'tr': F(10)}, rates | {'tr': ((0, 1), (5, 2))}, sizes, 10_000, before)


def test_a_capped_share_goes_to_the_others_in_proportion():
  names = ('en', 'tr', 'sw', 'de')
  knots = [(F(0), (F(4, 10), F(3, 10), F(1, 10), F(2, 10)))]
  # tr may have 120 of 1,000: what 180 of it frees, en, sw and de take as 4 : 1 : 2.
  assert cap_shares(names, knots, {'tr': F(120)}, 1000) == [
    (0, (F(4, 10) * F(88, 70), F(12, 100), F(88, 700), F(176, 700)))
  ]
  # sw may have 120 too, which it exceeds only through what it takes: then en and de share as 2 : 1.
  assert cap_shares(names, knots, {'tr': F(120), 'sw': F(120)}, 1000) == [
    (0, (F(76, 150), F(12, 100), F(12, 100), F(38, 150)))
  ]
  # Nothing is left to read of tr; de is not to change.
  assert cap_shares(names, knots, {'tr': F(0)}, 1000, fixed=('de',)) == [
    (0, (F(64, 100), 0, F(16, 100), F(2, 10)))
  ]
  assert cap_shares(names, knots, {'tr': F(300)}, 1000) == knots


def test_a_capped_curve_keeps_its_form():
  knots = [(F(0), (F(1, 2), F(1, 2), F(0))), (F(1000), (F(1, 4), F(1, 4), F(1, 2)))]
  # tr would get 375 of 1,000 tokens and may have 75: a fifth of its curve.
  capped = cap_shares(('en', 'tr', 'sw'), knots, {'tr': F(75)}, 1000)
  assert capped == [
    (0, (F(9, 10), F(1, 10), 0)),
    (1000, (F(1, 4) + F(1, 15), F(1, 20), F(1, 2) + F(2, 15))),
  ]
  assert Curves(capped).integral(1000)[1] == 75


def test_caps_that_leave_tokens_over_are_errors_that_count_them():
  knots = [(F(0), (F(1, 2), F(1, 2)))]
  with pytest.raises(ValueError, match=r'allows 700 tokens of all .* the stage asks 1,000'):
    cap_shares(('en', 'tr'), knots, {'tr': F(200), 'en': F(500)}, 1000)
  with pytest.raises(ValueError, match=r'allows 500 tokens'):
    cap_shares(('en', 'tr'), knots, {'tr': F(0)}, 1000, fixed=('en',))
  alone = [(F(0), (F(0), F(1))), (F(1000), (F(1), F(0)))]
  with pytest.raises(ValueError, match=r'frees 0.8 of the tokens at token 0, and no source .*: tr'):
    cap_shares(('en', 'tr'), alone, {'tr': F(100)}, 1000)


@settings(deadline=None)
@given(st.data())
def test_no_cap_is_exceeded_and_those_below_keep_their_ratio(data):
  K = data.draw(st.integers(2, 6))
  names = tuple(f'source {i}' for i in range(K))
  vector = st.lists(st.integers(1, 30), min_size=K, max_size=K)
  knots = []
  for at in sorted(data.draw(st.lists(st.integers(0, 1500), min_size=1, max_size=3))):
    rates = data.draw(vector)
    knots.append((F(at), tuple(F(rate, sum(rates)) for rate in rates)))
  read = Curves(knots).integral(1000)
  limits = {
    name: tokens * data.draw(st.fractions('1/2', '3/2', max_denominator=8))
    for name, tokens in zip(names[1:], read[1:], strict=True)
  }
  capped = cap_shares(names, knots, limits, 1000)
  got = dict(zip(names, Curves(capped).integral(1000), strict=True))
  assert all(got[name] <= limit for name, limit in limits.items())
  below = [i for i, name in enumerate(names) if got[name] != limits.get(name)]
  for (_, old), (_, new) in zip(knots, capped, strict=True):
    assert sum(new) == 1
    for i, j in itertools.pairwise(below):
      assert new[i] * old[j] == new[j] * old[i]
  turned = cap_shares(names[::-1], [(at, x[::-1]) for at, x in knots], reordered(limits), 1000)
  assert turned == [(at, x[::-1]) for at, x in capped]


def test_a_mixture_of_a_temperature_is_one_sequence_off_at_most():
  sizes = named([10**9, 7 * 10**6, 3 * 10**5, 999, 4])
  shares = by_temperature(sizes, F(10, 3))
  mixture = Mixture(tuple(shares), tuple(shares.values()))
  count = np.zeros(len(shares), object)
  for t, source in enumerate(mixture.source_of(np.arange(5000)).tolist(), 1):
    count[source] += 1
    assert max(abs(c - t * share) for c, share in zip(count, mixture.shares, strict=True)) < 1
