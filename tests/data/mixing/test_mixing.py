import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from jaxlink.config import parse
from jaxlink.data.mixing import MixingConfig, ResolvedMixing, resolve, warnings_of
from jaxlink.data.mixing.scheduled import ScheduledMixture
from jaxlink.data.mixture import Mixture

F = Fraction
RATES = {'sample_en': '3/4', 'sample_tr': '1/4', 'sample_sw': 0.5}
AVAILABLE = {'sample_en': F(900_000), 'sample_tr': F(40_000), 'sample_sw': F(10_001, 2)}
BUDGET = 1_000_000


def resolved(rates=RATES, budget=BUDGET, before=None, **settings):
  return resolve(MixingConfig(**settings), rates, AVAILABLE, budget, before)


def shares(mixing):
  ((at, values),) = mixing.knots
  assert at == 0
  return dict(zip(mixing.names, values, strict=True))


def times_read(mixing, before=None):
  return {
    name: (before or {}).get(name, 0) + tokens / AVAILABLE[name]
    for name, tokens in mixing.tokens(BUDGET).items()
  }


CURVES = {
  'sample_en': ((0, 1), (600_000, '1/4')),
  'sample_tr': 0.5,
  'sample_sw': ((0, 0), (9e5, 1)),
}
POLICIES = {
  'given': resolved(),
  'given curves': resolved(CURVES),
  'given curves, capped': resolved(CURVES, max_repetitions={'sample_tr': 8, 'sample_sw': '21/2'}),
  'proportional': resolved(policy='proportional'),
  'proportional, capped': resolved(policy='proportional', max_repetitions={'sample_en': 1}),
  'temperature': resolved(policy='temperature'),
  'temperature, capped': resolved(policy='temperature', temperature=5, max_repetitions=9),
  'unimax': resolved(policy='unimax', max_repetitions=4),
  'repetitions': resolved(policy='repetitions', repetitions={'sample_tr': 15}),
}
each_policy = pytest.mark.parametrize('mixing', POLICIES.values(), ids=POLICIES)


@each_policy
def test_realised_shares_are_one_sequence_off_or_two_at_every_prefix(mixing):
  mixture = mixing.make(512)
  names, count = mixture.names, np.zeros(len(mixture.names), object)
  short = (
    isinstance(mixture, Mixture) and math.lcm(*(x.denominator for x in mixture.shares)) <= 65_536
  )
  for g, source in enumerate(mixture.source_of(np.arange(BUDGET // 512)).tolist()):
    ideal = mixture.ideal(g)
    assert max(abs(c - i) for c, i in zip(count, ideal, strict=True)) < (1 if short else 2)
    count[source] += 1
  tokens = mixing.tokens(BUDGET)
  for name, n, ideal in zip(names, count, mixture.ideal(BUDGET // 512), strict=True):
    assert abs(n - ideal) < 2
    assert abs(ideal * 512 - tokens[name]) <= 512


@each_policy
def test_shares_are_exact_and_come_back_from_json(mixing):
  plain = json.loads(json.dumps(mixing.to_json()))
  assert ResolvedMixing.from_json(plain) == mixing
  assert ResolvedMixing.from_json(plain).make(512).key == mixing.make(512).key
  for _, values in mixing.knots:
    assert sum(values) == 1
    assert all(isinstance(value, F) for value in values)


@pytest.mark.parametrize('case', ['given', 'proportional', 'temperature', 'unimax', 'repetitions'])
def test_the_order_in_which_sources_are_named_does_not_matter(case):
  settings = {'policy': case}
  settings |= (
    {'repetitions': {'sample_tr': 15}} if case == 'repetitions' else {'max_repetitions': 17}
  )
  expected = shares(resolved(**settings))
  for order in itertools.permutations(RATES):
    mixing = resolved({name: RATES[name] for name in order}, **settings)
    assert mixing.names == order
    assert shares(mixing) == expected


def test_given_rates_and_proportions_by_hand():
  assert shares(resolved()) == dict(zip(RATES, (F(1, 2), F(1, 6), F(1, 3)), strict=True))
  assert shares(resolved(policy='proportional'))['sample_sw'] == F(10_001, 2) / F(1_890_001, 2)


def test_curves_are_in_tokens_and_become_sequences():
  mixing = resolved({'sample_en': ((0, 1), (600_000, '1/4')), 'sample_tr': 0.5})
  assert mixing.knots == ((0, (F(2, 3), F(1, 3))), (600_000, (F(1, 3), F(2, 3))))
  mixture = mixing.make(512)
  assert isinstance(mixture, ScheduledMixture)
  assert mixture.knots[1] == (F(600_000, 512), (F(1, 3), F(2, 3)))
  assert mixing.tokens(600_000) == {'sample_en': 300_000, 'sample_tr': 300_000}
  level = resolved({'sample_en': ((0, 1), (600_000, 3)), 'sample_tr': ((0, '1/2'), (600_000, 1.5))})
  assert shares(level) == {'sample_en': F(2, 3), 'sample_tr': F(1, 3)}
  assert isinstance(level.make(512), Mixture)


def test_caps_count_what_earlier_stages_read():
  # 500,000 tokens, 166,667 and 333,333: tr would be read 4.2 times and sw 66.7.
  mixing = resolved(max_repetitions={'sample_sw': 20})
  assert times_read(mixing)['sample_sw'] == 20
  assert shares(mixing)['sample_en'] == 3 * shares(mixing)['sample_tr']
  assert mixing.notes == (
    'sample_en: takes 0.174992 of the stage from capped sources: share 0.5 → 0.674992.',
    'sample_tr: takes 0.0583308 of the stage from capped sources: share 0.166667 → 0.224997.',
    'sample_sw: 66.66 repetitions by the end without its cap of 20: share 0.333333 → 0.10001.',
  )
  before = {'sample_sw': F(15), 'sample_tr': F(1, 3)}
  mixing = resolved(max_repetitions={'sample_sw': 20}, before=before)
  assert times_read(mixing, before)['sample_sw'] == 20
  assert shares(mixing)['sample_sw'] == F(5 * 10_001, 2 * BUDGET)


def test_a_source_that_is_at_its_cap_already_is_left_out():
  mixing = resolved(max_repetitions={'sample_sw': 20}, before={'sample_sw': F(41, 2)})
  assert shares(mixing) == {'sample_en': F(3, 4), 'sample_tr': F(1, 4)}
  assert (
    mixing.notes[-1] == 'sample_sw: left out with a share of 0; earlier stages read it 20.5 times.'
  )
  assert resolved(CURVES, max_repetitions={'sample_sw': 20}, before={'sample_sw': F(20)}).knots[
    -1
  ] == (
    900_000,
    (F(1, 3), F(2, 3), 0),
  )


def test_a_capped_schedule_reaches_its_caps_exactly():
  mixing = POLICIES['given curves, capped']
  assert times_read(resolved(CURVES))['sample_sw'] > 21
  assert times_read(mixing)['sample_sw'] == F(21, 2)
  assert times_read(mixing)['sample_tr'] == 8


def test_unimax_counts_earlier_stages_and_ignores_rates():
  # sw has room for 4 · 5,000.5, tr for 160,000, and English takes the rest, 0.9 of its size.
  expected = {
    'sample_en': F(819_998, 10**6),
    'sample_tr': F(16, 100),
    'sample_sw': F(20_002, 10**6),
  }
  assert shares(POLICIES['unimax']) == expected
  assert shares(resolved(dict.fromkeys(RATES), policy='unimax', max_repetitions='4')) == expected
  mixing = resolved(
    policy='unimax', max_repetitions=4, before={'sample_tr': F(3), 'sample_sw': F(9, 2)}
  )
  assert shares(mixing) == {'sample_en': F(96, 100), 'sample_tr': F(4, 100)}
  assert mixing.notes == (
    'sample_tr: at its cap of 4 repetitions: share 0.04.',
    'sample_sw: left out with a share of 0; earlier stages read it 4.5 times.',
  )
  with pytest.raises(ValueError, match=r'allows 945,000 tokens .* asks 1,000,000'):
    resolved(policy='unimax')


def test_a_target_is_read_as_often_as_asked_by_the_end():
  before = {'sample_tr': F(7, 2)}
  mixing = resolved(policy='repetitions', repetitions={'sample_tr': '15'}, before=before)
  assert times_read(mixing, before)['sample_tr'] == 15
  assert shares(mixing) == {
    'sample_en': F(54, 100) * F(3, 5),
    'sample_tr': F(46, 100),
    'sample_sw': F(54, 100) * F(2, 5),
  }
  capped = resolved(
    policy='repetitions', repetitions={'sample_tr': 15}, max_repetitions={'sample_sw': 20}
  )
  assert times_read(capped)['sample_tr'] == 15
  assert times_read(capped)['sample_sw'] == 20


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'policy': 'unimaxx'}, r"MixingConfig.policy is 'unimaxx'.* Nearest: 'unimax'"),
    ({'temperature': 0}, 'MixingConfig.temperature is 0.0: it is above 0'),
    ({'temperature': math.inf}, 'MixingConfig.temperature is inf'),
    ({'temperature': 2}, "temperature is 2.0, and policy 'given' has no use for it"),
    ({'repetitions': {'sample_tr': 2}}, "repetitions is .*, and policy 'given' has no use for it"),
    ({'policy': 'repetitions'}, "policy 'repetitions' needs a source and a number"),
    (
      {'policy': 'repetitions', 'repetitions': {'sample_tr': 0}},
      r"repetitions\['sample_tr'\] is 0",
    ),
    (
      {'max_repetitions': -1},
      r'MixingConfig.max_repetitions is -1: it is a number above 0.*; 0 for',
    ),
    ({'max_repetitions': {'sample_tr': 0}}, r"max_repetitions\['sample_tr'\] is 0: it is a number"),
    ({'max_repetitions': 'often'}, "max_repetitions is 'often': it is a number"),
    ({'policy': 'unimax', 'max_repetitions': {'sample_tr': 2}}, "policy 'unimax' has one number"),
  ],
)
def test_settings_that_are_wrong_are_errors_that_name_them(settings, message):
  with pytest.raises(ValueError, match=message):
    MixingConfig(**settings)


def test_settings_that_do_not_fit_the_sources_are_errors_that_name_both():
  for setting in ('max_repetitions', 'repetitions'):
    policy = 'repetitions' if setting == 'repetitions' else 'given'
    with pytest.raises(ValueError, match=f"{setting}: 'sample_trr' is not .* Nearest: 'sample_tr'"):
      resolved(policy=policy, **{setting: {'sample_trr': 3}})
  with pytest.raises(
    ValueError, match=r"\['sample_tr'\] is 15, and its .* 9: it is not above that"
  ):
    resolved(policy='repetitions', repetitions={'sample_tr': 15}, max_repetitions=9)
  with pytest.raises(ValueError, match=r"'sample_tr' is a curve, and MixingConfig.policy 'unimax'"):
    resolved(RATES | {'sample_tr': ((0, 1), (5, 2))}, policy='unimax')
  with pytest.raises(ValueError, match="source 'sample_de' has 0 tokens to train on"):
    resolved(RATES | {'sample_de': 1})
  with pytest.raises(ValueError, match="source 'sample_tr' has 1/2 tokens to train on"):
    resolve(MixingConfig(), {'sample_tr': 1}, {'sample_tr': F(1, 2)}, 100)
  with pytest.raises(ValueError, match='a stage of 0 tokens'):
    resolved(budget=0)
  with pytest.raises(ValueError, match=r'allows 945,000 tokens of all sources .* asks 1,000,000'):
    resolved(max_repetitions=1)


def test_a_recipe_binds_the_config():
  config = parse(
    MixingConfig,
    gin_bindings=[
      "MixingConfig.policy = 'repetitions'",
      "MixingConfig.repetitions = {'sample_tr': '31/2', 'sample_sw': 4}",
      'MixingConfig.max_repetitions = 20',
    ],
  )
  assert config.repetitions == {'sample_tr': '31/2', 'sample_sw': 4}
  assert config.caps(RATES) == dict.fromkeys(RATES, 20)
  assert MixingConfig().caps(RATES) == {}


def test_a_source_that_is_read_more_than_twenty_times_is_warned_of():
  assert warnings_of({'sample_en': F(1, 2), 'sample_sw': F(20)}) == []
  (line,) = warnings_of({'sample_en': 0.5, 'sample_tr': F(31)})
  assert line.startswith('sample_tr will be read 31.0 times: beyond about 20 repetitions ')
  assert 'arXiv 2605.12715' in line
  assert '31.0 readings are worth 14.2 of fresh text' in line
  (line,) = warnings_of({'sample_tr': 40})
  assert '40.0 readings are worth 15.2 of fresh text' in line
