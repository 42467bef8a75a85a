import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jaxlink.data.mixture import Mixture, parse_rate, plant


def deviation(mixture, first, last):
  """The largest |count - share * t| over prefixes t in (first, last], exactly."""
  count = mixture.counts(first).tolist()
  worst = Fraction(0)
  denominator = math.lcm(*(share.denominator for share in mixture.shares))
  shares = [int(share * denominator) for share in mixture.shares]
  for t, source in enumerate(mixture.source_of(np.arange(first, last)).tolist(), first + 1):
    count[source] += 1
    off = max(abs(c * denominator - s * t) for c, s in zip(count, shares, strict=True))
    worst = max(worst, Fraction(off, denominator))
  return worst


def of(*rates):
  return Mixture([f'source {i}' for i in range(len(rates))], rates)


SMALL = {
  'three tenths': (0.3, 0.7),
  'thirds': ('1/3', '1/3', '1/3'),
  'ninety-nine small': ('0.9', *['1/990'] * 99),
  'ninety-nine small decimals': ('0.9', *[str(Fraction(1, 10) / 99)] * 99),
  'integers': (3, 1, 1),
  'one': (0.25,),
  'a long period': (1, 65_535),
  'two to one': (0.2, 0.1),
}
LARGE = {
  'irrational-looking': (0.1234567890123, 0.7182818284590452, 0.3141592653589793),
  'just too long a period': (1, 65_536),
  'tiny beside huge': (1e-9, 1.0),
  'ninety-nine and irrational': (0.9, *[0.0010101010101010101] * 99),
  'halving': [2.0**-i for i in range(40)],
  'a hundred rare ones': (1.0, *[1e-5 + i * 1e-12 for i in range(100)]),
}


@pytest.mark.parametrize('rates', SMALL.values(), ids=SMALL)
def test_less_than_one_sequence_off_at_every_prefix_of_a_tabulated_mixture(rates):
  mixture = of(*rates)
  assert deviation(mixture, 0, 4000) < 1
  assert deviation(mixture, 10**12 + 7, 10**12 + 3000) < 1


@pytest.mark.parametrize('rates', LARGE.values(), ids=LARGE)
def test_less_than_two_sequences_off_at_every_prefix_of_any_mixture(rates):
  mixture = of(*rates)
  assert deviation(mixture, 0, 4000) < 2
  assert deviation(mixture, 10**12 + 7, 10**12 + 3000) < 2


# A hundred rates take hypothesis minutes to shrink, and the message names the first failure anyway.
many_sources = settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])


@many_sources
@given(st.lists(st.integers(1, 600), min_size=1, max_size=100))
def test_less_than_one_off_for_any_integer_rates_with_a_period_in_the_table(rates):
  assert deviation(of(*rates), 0, 2500) < 1


@many_sources
@given(st.lists(st.floats(1e-6, 1), min_size=100, max_size=100), st.integers(0, 10**10))
def test_less_than_two_off_for_a_hundred_random_sources_anywhere(rates, first):
  assert deviation(of(*rates), first, first + 2500) < 2


def test_a_hundred_random_sources_stay_well_inside_the_bound():
  # 1.06 measured; handing on floor(p*n) in place of round(p*n) gives 2.1.
  for seed in range(3):
    assert deviation(of(*np.random.default_rng(seed).random(100)), 10**12, 10**12 + 3000) < 1.25


@given(st.lists(st.integers(1, 10**18), min_size=2, max_size=60))
def test_every_inner_node_has_at_most_two_thirds_of_its_parent(weights):
  # The bound of 2 rests on this.
  seen = []

  def weigh(node):
    if isinstance(node, int):
      seen.append(node)
      return weights[node]
    to_left, total, left, right = node
    shares = weigh(left), weigh(right)
    assert (to_left, total) == (shares[0], sum(shares))
    for child, share in zip((left, right), shares, strict=True):
      assert isinstance(child, int) or 3 * share <= 2 * total
    return total

  weigh(plant(sorted(((w, i) for i, w in enumerate(weights)), reverse=True)))
  assert sorted(seen) == list(range(len(weights)))


def test_one_whole_period_holds_exactly_the_shares():
  mixture = of('0.3', '0.7')
  assert mixture.counts(10).tolist() == [3, 7]
  assert mixture.counts(10**15).tolist() == [3 * 10**14, 7 * 10**14]


def test_golden_order_does_not_change():
  assert ''.join(map(str, of(0.3, 0.7).source_of(np.arange(20)))) == '11011011011101101101'
  assert ''.join(map(str, of('1/2', '1/3', '1/6').source_of(np.arange(12)))) == '010102010102'
  assert of(*LARGE['irrational-looking']).source_of(10**9 + np.arange(12)).tolist() == [
    2, 1, 0, 1, 1, 2, 1, 1, 2, 1, 2, 1,
  ]  # fmt: skip


@pytest.mark.parametrize('rates', [*SMALL.values(), *LARGE.values()], ids=[*SMALL, *LARGE])
def test_source_index_and_counts_agree_and_need_no_history(rates):
  mixture = of(*rates)
  for first in (0, 777, 10**9 + 1):
    g = np.arange(first, first + 3000)
    source, within = mixture.source_of(g), mixture.index_within(g)
    count = mixture.counts(first)
    for s, w in zip(source.tolist(), within.tolist(), strict=True):
      assert w == count[s]
      count[s] += 1
    assert np.array_equal(count, mixture.counts(first + 3000))
    asked = np.random.default_rng(0).permutation(3000)[:50]
    assert np.array_equal(mixture.source_of(g[asked]), source[asked])
    assert np.array_equal(mixture.index_within(g[asked]), within[asked])
    assert int(mixture.source_of(first + 5)) == source[5]


def test_counts_add_up_to_the_sequences_asked_for():
  for rates, t in itertools.product(LARGE.values(), (0, 1, 1023, 1024, 1025, 10**14)):
    assert of(*rates).counts(t).sum() == t


def test_shares_are_the_rates_divided_by_their_sum():
  assert of(3, '1', 1.0).shares == (Fraction(3, 5), Fraction(1, 5), Fraction(1, 5))
  assert of(0.1, 0.2).shares == (Fraction(1, 3), Fraction(2, 3))


@pytest.mark.parametrize(
  ('rate', 'value'),
  [
    (0.3, Fraction(3, 10)),
    (np.float64(0.3), Fraction(3, 10)),
    (np.float32(0.3), Fraction(3, 10)),
    (1e-7, Fraction(1, 10**7)),
    ('1/3', Fraction(1, 3)),
    (' 0.25 ', Fraction(1, 4)),
    (2, Fraction(2)),
    (np.int64(2), Fraction(2)),
    (Fraction(2, 7), Fraction(2, 7)),
  ],
)
def test_rates_are_read_exactly(rate, value):
  assert parse_rate(rate, 'swahili') == value


@pytest.mark.parametrize(
  'rate',
  [0, 0.0, '0', -1, '-1/3', float('nan'), float('inf'), 'nan', 'third', '1/0', True, [1], ''],
)
def test_what_is_no_positive_number_is_an_error_that_names_the_source(rate):
  with pytest.raises(ValueError, match=r"the rate of source 'swahili' is .* a positive number"):
    parse_rate(rate, 'swahili')


def test_missing_rates_and_sources_are_errors_that_name_them():
  with pytest.raises(ValueError, match="the rate of source 'swahili' is missing"):
    Mixture(['english', 'swahili'], [1])
  with pytest.raises(ValueError, match=r"3 rates for 2 sources: \['english', 'swahili'\]"):
    Mixture(['english', 'swahili'], [1, 2, 3])
  with pytest.raises(ValueError, match="source 'english' is named 2 times"):
    Mixture(['english', 'english'], [1, 2])
  with pytest.raises(ValueError, match='a mixture of no sources'):
    Mixture([], [])


def test_a_negative_sequence_is_an_error():
  with pytest.raises(ValueError, match='sequence -3 of a run'):
    of(1, 2).source_of([5, -3])
