"""Schedules at their corners; AdamW, Muon, Adafactor and the average against their equations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.model.decoder import abstract_decoder, init_params
from jaxlink.model.mup import MupConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import (
  ALGORITHMS,
  OptimizerConfig,
  ema_params,
  make_optimizer,
  make_schedule,
  place_state,
)

MODEL = DecoderConfig(
  layers=3, width=16, heads=4, kv_heads=2, head_size=8, feedforward=24, vocabulary=40,
  qk_norm=True, tied_embeddings=False, dtype='float32', attention='xla',
)  # fmt: skip


@functools.cache
def model_params():
  return jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))


STEADY = {'learning_rate': 0.1, 'schedule': 'constant', 'warmup_share': 0.0}


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


def test_embeddings_do_not_decay_if_so_asked():
  config = OptimizerConfig(**STEADY, weight_decay=0.5, decay_embeddings=False)
  params = {'embed': jnp.ones((3, 2)), 'head': jnp.ones((3, 2)), 'norm': jnp.ones(2)}
  updates, _ = one_update(config, params, jax.tree.map(jnp.zeros_like, params))
  assert jax.tree.map(lambda x: float(x.min()), updates) == {
    'embed': 0.0,
    'head': pytest.approx(-0.05),
    'norm': 0.0,
  }


def one_update(config, params, gradients, step=0):
  optimizer = make_optimizer(config, 10)
  update = jax.jit(optimizer.update)
  return update(gradients, optimizer.init(params), params, step=step)


def noise(params, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)


def heads_as_one(name, matrix):
  """A layer's matrix as inputs by outputs."""
  return matrix.reshape({'o': (-1, matrix.shape[-1])}.get(name, (matrix.shape[0], -1)))


def test_muon_brings_each_layers_matrices_near_an_orthogonal_one_of_the_size_of_adamws_updates():
  params = model_params()
  config = OptimizerConfig(**STEADY, algorithm='muon', weight_decay=0.0, clip_norm=0.0)
  updates, _ = one_update(config, params, noise(params))
  layers = updates['layers']
  for name, stacked in {**layers['attention'], **layers['mlp']}.items():
    if not name.endswith('norm'):
      for matrix in np.asarray(stacked):
        matrix = heads_as_one(name, matrix)
        singular = np.linalg.svd(matrix, compute_uv=False) / (0.1 * 0.2 * max(matrix.shape) ** 0.5)
        assert ((singular > 0.4) & (singular < 1.4)).all(), (name, singular)


def test_muon_leaves_embeddings_head_and_norms_to_adamw_with_its_own_rate():
  # OptimizerConfig.adamw_rate
  params = model_params()
  muon = OptimizerConfig(**STEADY, algorithm='muon', adamw_rate=0.5)
  ours, _ = one_update(muon, params, noise(params))
  theirs, _ = one_update(OptimizerConfig(**STEADY), params, noise(params))
  for name in ('embed', 'head', 'norm'):
    np.testing.assert_allclose(ours[name], 0.5 * theirs[name], rtol=1e-6)
  np.testing.assert_allclose(
    ours['layers']['attention']['q_norm'], 0.5 * theirs['layers']['attention']['q_norm'], rtol=1e-6
  )
  assert not np.allclose(ours['layers']['mlp']['up'], theirs['layers']['mlp']['up'])


def test_muons_momentum_is_nesterovs_of_the_gradients():
  params = {'up': jnp.zeros((4, 4))}
  gradients = [noise(params, seed) for seed in (1, 2)]
  updates = {}
  for momentum in (0.95, 0.5):  # OptimizerConfig.momentum
    config = OptimizerConfig(**STEADY, algorithm='muon', momentum=momentum, clip_norm=0.0)
    optimizer = make_optimizer(config, 10)
    state = optimizer.init(params)
    for step, gradient in enumerate(gradients):
      updates[momentum], state = optimizer.update(gradient, state, params, step=step)
  first, second = (np.asarray(g['up'], np.float64) for g in gradients)
  for momentum, update in updates.items():
    mean = (1 - momentum) * (momentum * first + second)
    ahead = momentum * mean / (1 - momentum**3) + (1 - momentum) * second / (1 - momentum**2)
    left, _, right = np.linalg.svd(ahead)
    aligned = (
      left.T @ np.asarray(update['up'], np.float64) @ right.T
    )  # diagonal if it is of `ahead`
    off = aligned - np.diag(np.diag(aligned))
    assert np.abs(off).max() < 1e-4 * np.abs(np.diag(aligned)).max()


def test_adafactor_on_a_matrix_is_optaxs():
  config = OptimizerConfig(**STEADY, algorithm='adafactor', weight_decay=0.0, clip_norm=0.0)
  ours = make_optimizer(config, 10)
  theirs = optax.chain(
    optax.scale_by_factored_rms(min_dim_size_to_factor=1), optax.clip_by_block_rms(1.0)
  )
  params = {'up': jnp.zeros((5, 8)), 'down': jnp.zeros((8, 5)), 'norm': jnp.zeros(8)}
  a, b = ours.init(params), theirs.init(params)
  update, update_theirs = jax.jit(ours.update), jax.jit(theirs.update)
  for step in range(4):
    gradients = noise(params, step)
    updates, a = update(gradients, a, params, step=step)
    expected, b = update_theirs(gradients, b, params)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, -0.1 * y, rtol=2e-5, atol=1e-7), updates, expected
    )


def test_adafactor_takes_each_layer_of_a_stack_as_if_it_were_alone():
  params = model_params()['layers']
  config = OptimizerConfig(**STEADY, algorithm='adafactor', clip_norm=0.0)
  stacked, _ = one_update(config, params, noise(params))
  for layer in range(MODEL.layers):
    one, gradients = (
      jax.tree.map(lambda x, layer=layer: x[layer], tree) for tree in (params, noise(params))
    )
    for name in ('q', 'o'):  # heads are columns of one matrix, rows of the other
      one['attention'][name], gradients['attention'][name] = (
        heads_as_one(name, tree['attention'][name]) for tree in (one, gradients)
      )
    flat = {'up': one['attention']['q'], 'down': one['attention']['o'], 'gate': one['mlp']['gate']}
    flat_gradients = {
      'up': gradients['attention']['q'], 'down': gradients['attention']['o'],
      'gate': gradients['mlp']['gate'],
    }  # fmt: skip
    alone, _ = one_update(config, flat, flat_gradients)
    for name, key in (('q', 'up'), ('o', 'down')):
      together = heads_as_one(name, stacked['attention'][name][layer])
      np.testing.assert_allclose(together, alone[key], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(stacked['mlp']['gate'][layer], alone['gate'], rtol=1e-5, atol=1e-8)


def test_adafactors_state_is_a_row_and_a_column_of_each_matrix():
  params = model_params()
  state = make_optimizer(OptimizerConfig(algorithm='adafactor'), 10).init(params)
  factored = state[1]
  shapes = jax.tree.map(
    np.shape, (factored.row, factored.column), is_leaf=lambda x: hasattr(x, 'shape')
  )
  row, column = shapes
  assert (row['layers']['attention']['q'], column['layers']['attention']['q']) == (
    (3, 16, 1, 1), (3, 1, 4, 8))  # fmt: skip
  assert (row['layers']['attention']['o'], column['layers']['attention']['o']) == (
    (3, 4, 8, 1), (3, 1, 1, 16))  # fmt: skip
  assert (row['embed'], column['embed']) == ((40, 1), (1, 16))
  assert (row['norm'], column['norm']) == ((16,), (1,))


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_the_rate_is_that_of_the_given_step_whatever_was_updated_before(algorithm):
  params = model_params()
  config = OptimizerConfig(algorithm=algorithm, weight_decay=0.0, schedule='wsd')
  optimizer, schedule = make_optimizer(config, 50), make_schedule(config, 50)
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  early, _ = update(noise(params), state, params, step=0)
  late, _ = update(noise(params), state, params, step=45)
  ratio = float(schedule(45)) / float(schedule(0))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, ratio * a, rtol=1e-5), early, late)


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_each_algorithm_lowers_the_loss_of_a_regression(algorithm):
  rng = np.random.default_rng(0)
  inputs, wanted = (jnp.asarray(rng.normal(size=(64, 8)), jnp.float32) for _ in range(2))
  params = {'up': jnp.zeros((8, 8))}
  config = OptimizerConfig(algorithm=algorithm, learning_rate=0.1, weight_decay=0.0)
  optimizer = make_optimizer(config, 100)

  def loss(params):
    return jnp.mean((inputs @ params['up'] - wanted) ** 2)

  @jax.jit
  def step(params, state, n):
    updates, state = optimizer.update(jax.grad(loss)(params), state, params, step=n)
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  for n in range(100):
    params, state = step(params, state, n)
  least = np.mean((inputs @ np.linalg.lstsq(inputs, wanted, rcond=None)[0] - wanted) ** 2)
  assert loss(params) < 1.05 * least


@pytest.mark.parametrize('settings', [*ALGORITHMS, 'average'])
def test_state_lies_as_its_parameters_and_means_lie_as_the_axes_that_they_keep(settings):
  settings = {'ema_decay': 0.9} if settings == 'average' else {'algorithm': settings}
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1, fsdp=4, tensor=2))
  optimizer = make_optimizer(OptimizerConfig(**settings), 10)
  _, shapes, names = abstract_decoder(MODEL)
  shardings = mesh_lib.param_shardings(mesh, shapes, names)
  abstract = place_state(optimizer, shapes, shardings, mesh_lib.replicated(mesh))
  state = jax.jit(optimizer.init, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))(
    model_params()
  )
  jax.tree.map(lambda a, b: (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding) or 1 / 0,
               state, abstract)  # fmt: skip
  by_path = {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf.sharding.spec
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
  }
  q = [(path, tuple(spec)) for path, spec in by_path.items() if path.endswith('attention.q')]
  assert len(q) == {'muon': 1, 'adafactor': 2, 'adamw': 2}.get(settings.get('algorithm'), 3)
  for path, spec in q:
    assert spec == {
      'row': (None, 'fsdp', None, None), 'column': (None, None, 'tensor', None)
    }  .get(path.split('.')[1], (None, 'fsdp', 'tensor', None))  # fmt: skip
  counts = [spec for path, spec in by_path.items() if path.endswith('count')]
  assert counts
  assert not any(counts)


def test_the_average_follows_its_recurrence():
  config = OptimizerConfig(**STEADY, ema_decay=0.5, weight_decay=0.5)
  optimizer = make_optimizer(config, 20)
  params = {'up': jnp.asarray([[1.0, -2.0], [0.5, 3.0]])}
  state = optimizer.init(params)
  average = np.asarray(params['up'])
  np.testing.assert_array_equal(ema_params(state, params)['up'], average)
  for t in range(1, 15):
    updates, state = optimizer.update(noise(params, t), state, params, step=t)
    params = optax.apply_updates(params, updates)
    keep = np.minimum(np.float32(0.5), np.float32(1 + t) / np.float32(10 + t))
    average = keep * average + (1 - keep) * np.asarray(params['up'])
    np.testing.assert_array_equal(ema_params(state, params)['up'], average)
  assert keep == 0.5  # the warm-up was over, and is in the test
  assert float(np.abs(average - np.asarray(params['up'])).max()) > 1e-3


def test_without_an_average_the_parameters_stand_in():
  params = {'up': jnp.ones((2, 2))}
  state = make_optimizer(OptimizerConfig(), 10).init(params)
  assert ema_params(state, params) is params


def test_what_an_optimizer_keeps_is_said():
  kept = [
    OptimizerConfig(**settings).keeps
    for settings in (
      {},
      {'learning_rate': 1.0, 'b1': 0.8},
      {'algorithm': 'muon'},
      {'ema_decay': 0.9},
    )
  ]
  assert kept[0] == kept[1]
  assert len(set(kept)) == 3


@pytest.mark.parametrize('algorithm', ['muon', 'adafactor'])
def test_mup_is_refused_with_an_algorithm_that_its_rules_are_not_for(algorithm):
  model = dataclasses.replace(MODEL, mup=MupConfig(base_width=8))
  with pytest.raises(ValueError, match=f"algorithm is '{algorithm}' with DecoderConfig.mup"):
    make_optimizer(OptimizerConfig(algorithm=algorithm), 10, model=model)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'algorithm': 'adam'}, "algorithm is 'adam'. Nearest: 'adamw'"),
    (
      {'algorithm': 'adafactor', 'b1': 0.8},
      "b1 is 0.8, and algorithm 'adafactor' has no use .*'muon'",
    ),
    ({'momentum': 0.9}, "momentum is 0.9, and algorithm 'adamw' has no use for it: .*'muon'"),
    ({'adamw_rate': 0.5}, "adamw_rate is 0.5, and algorithm 'adamw' has no use for it"),
    ({'algorithm': 'muon', 'adamw_rate': 0.0}, 'adamw_rate is 0.0: it is above 0'),
    ({'ema_decay': 1.0}, 'ema_decay is 1.0: 0 or more, below 1'),
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
