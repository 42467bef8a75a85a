"""Scores of known likelihoods are known; intervals cover; chance is chance."""

import math

import numpy as np
import pytest

from jaxlink.evaluation import measures
from jaxlink.evaluation.items import Choice, Question, Text
from jaxlink.evaluation.scoring import Likelihood


def likelihood(nats: float, tokens: int = 1) -> Likelihood:
  return Likelihood(nats, tokens, False, False)


def choices(*rows, label=0, choices=('evet', 'hayır'), contexts=('soru',)):
  """Items with these likelihoods, and what `measure_choices` finds."""
  items = [Choice(str(n), contexts, choices, label) for n in range(len(rows))]
  return measures.measure_choices(
    items, [[likelihood(*np.atleast_1d(v)) for v in row] for row in rows]
  )


def test_each_normalisation_divides_by_what_it_says():
  # 'evet' has 4 characters and bytes, 'hayır' 5 characters and 6 bytes; tokens are 1 and 2.
  def right(nats, other, tokens):
    found = choices([(nats, 1), (other, tokens), -1.0, -1.0]).scores
    return {name: score.value for name, score in found.items() if name.startswith('accuracy')}

  assert right(-4.0, -4.5, 1) == {
    'accuracy': 1, 'accuracy_char': 0, 'accuracy_byte': 0, 'accuracy_token': 1, 'accuracy_pmi': 1,
  }  # fmt: skip
  assert right(-4.0, -5.5, 2) == {
    'accuracy': 1, 'accuracy_char': 1, 'accuracy_byte': 0, 'accuracy_token': 0, 'accuracy_pmi': 1,
  }  # fmt: skip


def test_pmi_takes_away_what_an_option_has_without_context():
  assert choices([-5.0, -4.0, -5.0, -1.0]).scores['accuracy_pmi'].value == 1
  assert choices([-5.0, -4.0, -3.0, -4.5]).scores['accuracy_pmi'].value == 0


def test_without_contexts_there_is_no_pmi():
  item = Choice('0', ('',), ('Bu doğru.', 'Bu yanlış.'), 0)
  assert measures.requests_of(item) == [('', 'Bu doğru.'), ('', 'Bu yanlış.')]
  found = measures.measure_choices([item], [[likelihood(-1.0), likelihood(-2.0)]])
  assert 'accuracy_pmi' not in found.scores


def test_the_gap_is_the_right_option_less_the_mean_of_the_others():
  found = choices([-1.0, -3.0, -4.0], [-5.0, -2.0, -2.0], choices=('a', 'b', 'c'), contexts=('',))
  assert found.items['gap'] == pytest.approx([2.5, -3.0])
  assert found.scores['gap'].value == pytest.approx(-0.25)
  assert found.scores['gap'].chance == 0
  bits = np.array([2.5, -3.0]) / math.log(2)  # options of one byte
  assert found.items['gap_byte'] == pytest.approx(bits)


def test_a_tie_counts_as_its_part_whatever_the_order():
  for label in (0, 1):
    assert choices([-1.0, -1.0, -2.0], choices=('a', 'b', 'c'), label=label, contexts=('',)).scores['accuracy'].value == 0.5  # fmt: skip


def test_the_order_of_options_changes_no_score():
  rng = np.random.default_rng(0)
  texts = ('kısa', 'biraz daha uzun', 'çok çok çok uzun')
  nats = rng.normal(-5, 2, (50, 3))
  labels = rng.integers(3, size=50)
  order = rng.permutation(3)

  def scores(order):
    items = [
      Choice(str(n), ('c',), tuple(texts[k] for k in order), list(order).index(label))
      for n, label in enumerate(labels)
    ]
    found = [[likelihood(row[k], 1 + k) for k in order] * 2 for row in nats]
    return measures.measure_choices(items, found).scores

  one, two = scores([0, 1, 2]), scores(order)
  for name in one:
    assert one[name].value == pytest.approx(two[name].value, abs=1e-12)


def test_chance_is_the_mean_over_items_with_different_numbers_of_options():
  items = [Choice('0', ('',), ('a', 'b'), 0), Choice('1', ('',), ('a', 'b', 'c', 'd'), 0)]
  found = measures.measure_choices(items, [[likelihood(-1.0)] * 2, [likelihood(-1.0)] * 4])
  assert found.scores['accuracy'].chance == 0.375
  assert found.scores['accuracy'].value == 0.375  # all tied


def test_chance_of_a_classification_is_to_name_the_largest_class():
  items = [Choice(str(n), (f'{n}',), ('spor', 'siyaset', 'bilim'), int(n > 5)) for n in range(10)]
  found = measures.measure_choices(items, [[likelihood(-1.0)] * 3] * 10)
  assert found.scores['accuracy'].chance == 0.6


def test_a_model_of_equally_likely_tokens_prefers_few():
  found = choices([(-9.0, 2), (-1.0, 3)], [(-9.0, 4), (-1.0, 3)], [(-1.0, 2), (-1.0, 2)], contexts=('',))  # fmt: skip
  assert found.scores['accuracy'].uniform == 0.5  # right, wrong, tied
  assert found.scores['accuracy_token'].uniform == 0.5
  assert found.scores['gap'].uniform == pytest.approx(0)
  longer = choices([(-1.0, 5), (-1.0, 3)], contexts=('',)).scores
  assert longer['accuracy'].uniform == 0
  assert longer['gap'].uniform == pytest.approx(-2 * math.log(measures.UNIFORM))


def test_a_likelihood_that_is_no_number_makes_no_score():
  found = choices([math.nan, -1.0]).scores['accuracy']
  assert found.to_json()['value'] is None


def test_groups_have_their_own_scores():
  items = [Choice(str(n), ('',), ('a', 'b'), 0, group='xy'[n % 2]) for n in range(4)]
  nats = [(-1.0, -2.0), (-2.0, -1.0), (-1.0, -2.0), (-1.0, -2.0)]
  found = measures.measure_choices(items, [[likelihood(v) for v in row] for row in nats])
  assert found.groups['x']['accuracy'] == 1
  assert found.groups['y']['accuracy'] == 0.5


def test_bits_per_byte_is_the_sum_of_bits_over_the_sum_of_bytes():
  items = [Text('0', 'aé'), Question('1', 'p', ('bcdef', 'other'))]
  found = measures.measure_texts(
    items, [likelihood(-3 * math.log(2)), likelihood(-13 * math.log(2))]
  )
  score = found.scores['bits_per_byte']
  assert score.value == pytest.approx(16 / 8)
  assert score.chance is None
  assert score.better == 'lower'


def test_the_interval_covers_at_its_level():
  rng = np.random.default_rng(3)
  covered = 0
  for _ in range(200):
    sample = (rng.random((150, 1)) < 0.3).astype(float)
    ((_, low, high),) = measures.means(sample)
    covered += low <= 0.3 <= high
  assert 0.90 <= covered / 200 <= 0.985  # 95 %, and the noise of 200 trials


def test_draws_do_not_depend_on_what_else_is_scored():
  values = np.random.default_rng(0).random((300, 2))
  assert measures.means(values)[0] == pytest.approx(measures.means(values[:, :1])[0], rel=1e-12)
