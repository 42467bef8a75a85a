"""Tokens come with the probabilities that temperature, top-k and top-p leave."""

import jax
import numpy as np
import pytest

from jaxlink.generation.draw import Sampling, draw, keep

LOGITS = np.log(np.array([0.4, 0.05, 0.3, 0.2, 0.05], np.float32))


def frequencies(sampling, logits, count=20_000):
  keys = jax.random.split(jax.random.key(0), count)
  tokens = jax.jit(draw, static_argnums=2)(np.tile(logits, (count, 1)), keys, sampling)
  return np.bincount(tokens, minlength=len(logits)) / count


def left(**settings):
  values = {'top_p': 1.0, 'top_k': 0, **settings}
  return np.flatnonzero(np.isfinite(keep(LOGITS[None], **values)[0])).tolist()


def test_draws_have_the_probabilities_of_the_model_at_temperature_1():
  # Four standard deviations of a share of 20,000 draws.
  np.testing.assert_allclose(frequencies(Sampling(), LOGITS), np.exp(LOGITS), atol=0.014)


def test_temperature_sharpens_and_flattens():
  for temperature in (0.5, 2.0):
    wanted = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    found = frequencies(Sampling(temperature), LOGITS)
    np.testing.assert_allclose(found, wanted, atol=0.014)


def test_top_p_draws_from_the_smallest_set_that_reaches_it():
  found = frequencies(Sampling(top_p=0.6), LOGITS)
  np.testing.assert_allclose(found, [0.4 / 0.7, 0, 0.3 / 0.7, 0, 0], atol=0.014)
  assert left(top_p=0.39) == [0]
  assert left(top_p=0.41) == [0, 2]
  assert left(top_p=0.89) == [0, 2, 3]
  assert left(top_p=1e-6) == [0]
  assert left(top_p=1.0) == [0, 1, 2, 3, 4]


def test_top_k_keeps_the_likeliest_and_top_p_takes_from_them():
  assert left(top_k=1) == [0]
  assert left(top_k=3) == [0, 2, 3]
  assert left(top_k=99) == [0, 1, 2, 3, 4]
  # Of the three, the first two have 0.7 / 0.9 of the probability.
  assert left(top_k=3, top_p=0.77) == [0, 2]
  assert left(top_k=3, top_p=0.79) == [0, 2, 3]


def test_temperature_comes_before_top_p():
  # At 0.25 the likeliest has 0.72 of the probability, at 1 it has 0.4.
  assert frequencies(Sampling(0.25, top_p=0.7), LOGITS, 500).tolist() == [1, 0, 0, 0, 0]


def test_greedy_takes_the_likeliest_whatever_the_key():
  assert frequencies(Sampling(0.0), LOGITS, 50).tolist() == [1, 0, 0, 0, 0]


def test_what_may_not_be_drawn_is_not():
  barred = np.where(np.arange(5) == 0, -np.inf, LOGITS).astype(np.float32)
  for sampling in (Sampling(), Sampling(0.0), Sampling(top_p=0.9), Sampling(top_k=4)):
    assert frequencies(sampling, barred, 500)[0] == 0


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'temperature': -0.1}, 'temperature is -0.1: it is 0.0001 or more, or 0'),
    ({'temperature': 1e-38}, 'temperature is 1e-38: it is'),
    ({'temperature': float('nan')}, 'temperature is nan'),
    ({'top_p': 0.0}, 'top_p is 0.0: it is above 0'),
    ({'top_p': 1.1}, 'top_p is 1.1'),
    ({'top_k': -1}, 'top_k is -1'),
    ({'temperature': 0.0, 'top_p': 0.9}, 'no use at temperature 0'),
  ],
)
def test_settings_out_of_range_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    Sampling(**settings)


def test_cuts_are_those_of_a_sort():
  logits = np.random.default_rng(0).normal(size=(64, 997)).astype(np.float32) * 3
  logits[:, ::7] = -np.inf
  falling = -np.sort(-logits, axis=-1)
  shares = np.exp(falling - falling[:, :1])
  shares /= shares.sum(-1, keepdims=True)
  before = np.cumsum(shares, axis=-1) - shares
  for top_p in (0.05, 0.5, 0.95):
    kept = np.asarray(keep(logits, top_p, 0))
    np.testing.assert_array_equal(np.isfinite(kept).sum(-1), (before < top_p).sum(-1))
  for top_k in (1, 50, 900):
    kept = np.asarray(keep(logits, 1.0, top_k))
    np.testing.assert_array_equal(
      -np.sort(-kept, axis=-1)[:, :top_k], falling[:, :top_k], strict=True
    )
    assert (np.isfinite(kept).sum(-1) == np.minimum(top_k, np.isfinite(logits).sum(-1))).all()
