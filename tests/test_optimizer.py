"""Schedules at their corners, and AdamW against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink.optimizer import OptimizerConfig, make_optimizer, make_schedule


def rates(steps=100, **settings):
  config = OptimizerConfig(learning_rate=1.0, **settings)
  return np.asarray([make_schedule(config, steps)(step) for step in range(steps)])


def test_cosine_rises_to_its_peak_and_falls_to_its_final_share_at_the_last_step():
  values = rates(schedule='cosine', warmup_share=0.1, final_share=0.1)
  np.testing.assert_allclose(values[:11], np.arange(1, 12) / 11, rtol=1e-6)
  np.testing.assert_allclose(values[-1], 0.1, rtol=1e-5)
  t = np.arange(90) / 89
  np.testing.assert_allclose(values[10:], 0.1 + 0.9 * (1 + np.cos(np.pi * t)) / 2, rtol=1e-4)


def test_wsd_is_flat_until_a_linear_decay():
  values = rates(schedule='wsd', warmup_share=0.1, decay_share=0.2, final_share=0.0)
  np.testing.assert_array_equal(values[10:80], 1.0)
  np.testing.assert_allclose(values[79:], np.linspace(1, 0, 21), atol=1e-6)


def test_constant_stays_at_the_peak_after_warm_up():
  values = rates(schedule='constant', warmup_share=0.05)
  np.testing.assert_allclose(values[:5], np.arange(1, 6) / 6, rtol=1e-6)
  np.testing.assert_array_equal(values[5:], 1.0)


@pytest.mark.parametrize('schedule', ['cosine', 'wsd', 'constant'])
@pytest.mark.parametrize('steps', [1, 2, 3])
def test_the_shortest_runs_have_finite_rates_above_zero_up_to_the_peak(schedule, steps):
  values = rates(steps, schedule=schedule)
  assert ((values > 0) & (values <= 1)).all()


def test_updates_are_adamw_with_clipping_and_the_rate_of_the_given_step():
  config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, clip_norm=1.0, epsilon=1e-6)
  optimizer, schedule = make_optimizer(config, 50), make_schedule(config, 50)
  params = {'up': jnp.asarray([[1.0, -2.0], [0.5, 3.0]])}
  state = optimizer.init(params)
  w, m, v = np.asarray(params['up'], np.float64), 0, 0
  rng = np.random.default_rng(0)
  for t, step in enumerate([0, 1, 7, 30], start=1):
    gradient = rng.normal(size=(2, 2)) * 3
    updates, state = optimizer.update(
      {'up': jnp.asarray(gradient, jnp.float32)}, state, params, step=step
    )
    params = {'up': params['up'] + updates['up']}
    gradient = gradient / max(1.0, np.linalg.norm(gradient))
    m = config.b1 * m + (1 - config.b1) * gradient
    v = config.b2 * v + (1 - config.b2) * gradient**2
    adam = m / (1 - config.b1**t) / (np.sqrt(v / (1 - config.b2**t)) + config.epsilon)
    w = w - float(schedule(step)) * (adam + config.weight_decay * w)
    np.testing.assert_allclose(params['up'], w, rtol=2e-5)


def test_norms_do_not_decay_and_embeddings_do():
  config = OptimizerConfig(learning_rate=1.0, weight_decay=0.5, schedule='constant', warmup_share=0)
  optimizer = make_optimizer(config, 10)
  params = {
    'embed': jnp.ones((3, 2)),
    'layers': {
      'attention_norm': jnp.ones((4, 2)),
      'attention': {'q': jnp.ones((4, 2, 1, 2)), 'q_norm': jnp.ones((4, 2))},
    },
    'norm': jnp.ones(2),
  }
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params, step=0)
  shrunk = jax.tree.map(lambda x: float(x.min()), updates)
  assert shrunk == {
    'embed': -0.5,
    'layers': {'attention_norm': 0.0, 'attention': {'q': -0.5, 'q_norm': 0.0}},
    'norm': 0.0,
  }


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'schedule': 'cosin'}, "schedule is 'cosin'. Nearest: 'cosine'"),
    ({'learning_rate': 0.0}, 'learning_rate is 0.0: it is above 0'),
    ({'clip_norm': -1.0}, 'clip_norm is -1.0: it is 0 or more'),
    ({'warmup_share': 1.5}, 'warmup_share is 1.5: a share, 0 to 1'),
    ({'b2': 1.0}, 'b2 is 1.0: 0 or more, below 1'),
    ({'schedule': 'wsd', 'warmup_share': 0.5, 'decay_share': 0.6}, 'no room for both'),
    ({'decay_share': 0.3}, "decay_share is 0.3, and schedule 'cosine' has no use for it: .*'wsd'"),
    ({'schedule': 'constant', 'decay_share': 0.3}, "decay_share is 0.3, and schedule 'constant'"),
    ({'schedule': 'constant', 'final_share': 0.0}, "final_share is 0.0, and schedule 'constant'"),
  ],
)
def test_a_setting_out_of_range_raises(settings, message):
  with pytest.raises(ValueError, match=message):
    OptimizerConfig(**settings)


def test_a_schedule_over_no_steps_raises():
  with pytest.raises(ValueError, match='over 0 steps'):
    make_schedule(OptimizerConfig(), 0)
