"""The linear probe: against equations that its minimum solves, on classes that can and cannot be told apart."""

import math
import re

import numpy as np
import pytest

from jaxlink.evaluation.probe import STRENGTHS, probe


def groups(count, classes=3, width=12, noise=0.3, seed=0):
  """Examples around a point for each class."""
  draw = np.random.Generator(np.random.PCG64(seed))
  points = np.random.Generator(np.random.PCG64(99)).normal(size=(classes, width))
  labels = draw.integers(0, classes, count)
  return points[labels] + noise * draw.normal(size=(count, width)), labels


def gradient(features, labels, found, classes):
  """Largest entry of the objective's gradient, from the probe's predictions on its training examples.

  The weights are those that give these logits and sum to zero over classes, as they do at the minimum.
  """
  x = (features - features.mean(0)) / features.std(0)
  x = np.concatenate([x, np.ones((len(x), 1))], 1)
  log_p = found.log_p.astype(np.float64)
  weights = np.linalg.lstsq(x, log_p - log_p.mean(1, keepdims=True), rcond=None)[0].T
  wrong = np.exp(log_p) - np.eye(classes)[labels]
  return np.abs(wrong.T @ x / len(x) + found.strength * weights).max()


def test_classes_apart_are_told_apart():
  found = probe(*groups(200), *groups(50, seed=1), groups(100, seed=2)[0], 3)
  np.testing.assert_array_equal(found.predictions, groups(100, seed=2)[1])
  assert found.slope < 1e-5
  assert len(found.validation) == len(STRENGTHS)
  assert found.strength == STRENGTHS[int(np.argmin(found.validation))]


def test_shuffled_labels_give_chance():
  shuffle = np.random.Generator(np.random.PCG64(5)).permutation
  train, held_out, test = (groups(n, classes=4, seed=n) for n in (500, 100, 400))
  labels = [shuffle(y) for _, y in (train, held_out, test)]
  found = probe(train[0], labels[0], held_out[0], labels[1], test[0], 4)
  right = int((found.predictions == labels[2]).sum())
  assert abs(right - 100) < 3.3 * math.sqrt(400 * 0.25 * 0.75)  # 99.9 % of the binomial
  assert min(found.validation) > math.log(4) - 0.05


def test_the_minimum_of_one_feature_solves_its_equation():
  # Two classes, x = ±1, a quarter on the wrong side: with W = ±w the objective is
  # 3/4 log(1 + e^(-2w)) + 1/4 log(1 + e^(2w)) + s w², whose slope is zero at one w.
  x = np.array([[1.0], [1], [1], [-1], [-1], [-1], [1], [-1]])
  y = np.array([1, 1, 1, 0, 0, 0, 0, 1])
  found = probe(x, y, x, y, np.array([[1.0], [-1], [3]]), 2)

  def slope(w):
    return -1.5 / (1 + math.exp(2 * w)) + 0.5 / (1 + math.exp(-2 * w)) + 2 * found.strength * w

  low, high = 0.0, 5.0
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if slope(middle) < 0 else (low, middle)
  for row, size in ((0, 1), (2, 3)):
    odds = found.log_p[row, 1] - found.log_p[row, 0]
    assert odds == pytest.approx(2 * low * size, rel=1e-4)
  np.testing.assert_array_equal(found.predictions, [1, 0, 1])


def test_at_the_minimum_the_gradient_is_zero():
  x, y = groups(120, noise=1.5)
  found = probe(x, y, *groups(60, noise=1.5, seed=3), x, 3)
  assert gradient(x, y, found, 3) < 1e-5
  assert found.slope < 1e-5


def test_order_and_scale_of_examples_change_no_prediction():
  x, y = groups(90, noise=1.0)
  held_out, test = groups(40, noise=1.0, seed=3), groups(200, noise=1.0, seed=4)[0]
  found = probe(x, y, *held_out, test, 3)
  turned = np.random.Generator(np.random.PCG64(1)).permutation(90)
  other = probe(x[turned], y[turned], *held_out, test, 3)
  scaled = probe(x * 1e3 + 7, y, held_out[0] * 1e3 + 7, held_out[1], test * 1e3 + 7, 3)
  for one in (other, scaled):
    assert one.strength == found.strength
    np.testing.assert_allclose(one.log_p, found.log_p, atol=2e-3)
    np.testing.assert_array_equal(one.predictions, found.predictions)
  again = probe(x, y, *held_out, test, 3)
  np.testing.assert_array_equal(again.log_p, found.log_p)


def test_few_examples_a_missing_class_and_a_feature_that_never_varies_do_no_harm():
  x = np.array([[0.0, 5, 1], [1, 5, 0], [0.1, 5, 1.1]])
  found = probe(x, [0, 1, 0], x, [0, 1, 0], np.array([[0.0, 9, 1], [1, 5, 0]]), 4)
  np.testing.assert_array_equal(found.predictions, [0, 1])
  assert np.isfinite(found.log_p).all()


def test_the_test_split_decides_nothing():
  x, y = groups(90, noise=1.0)
  held_out, test = groups(40, noise=1.0, seed=3), groups(50, noise=1.0, seed=4)[0]
  alone = probe(x, y, *held_out, test[:10], 3)
  company = probe(x, y, *held_out, np.concatenate([test[:10], 1e4 * test[10:]]), 3)
  np.testing.assert_array_equal(company.log_p[:10], alone.log_p)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'labels_train': [0, 3]}, r'labels_train are 0 to 3: they are 0 to 2'),
    ({'labels_train': [0]}, r'labels_train are of shape (1,), for 2 examples'),
    ({'features_validation': np.zeros((0, 2))}, 'features_validation has no examples'),
    ({'features_test': np.array([[0, np.nan]])}, 'features_test are not finite'),
    ({'features_test': np.zeros((1, 3))}, 'features_test are of width 3'),
    ({'classes': 1}, 'classes is 1'),
  ],
)
def test_errors_name_the_split(change, message):
  given = {
    'features_train': np.eye(2), 'labels_train': [0, 1], 'features_validation': np.eye(2),
    'labels_validation': [0, 1], 'features_test': np.eye(2), 'classes': 3,
  }  # fmt: skip
  with pytest.raises(ValueError, match=re.escape(message)):
    probe(**(given | change))
