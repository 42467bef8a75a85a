"""The step on one device, on eight in many layouts, in parts, and on devices that are not there."""

import functools

import jax
import numpy as np
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.mesh import MeshConfig
from jaxlink.model.loss import LossConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer, make_schedule

CONFIG = DecoderConfig(
  layers=2,
  width=32,
  heads=8,
  kv_heads=4,
  feedforward=64,
  vocabulary=128,
  dtype='float32',
  attention='xla',
)
STEPS, B, T, SOURCES = 20, 8, 16, 3
OPTIMIZER = OptimizerConfig(learning_rate=3e-3)
LOSS = LossConfig(z_loss=1e-3, chunk=6)
MESHES = {
  'data 8': MeshConfig(data=8),
  'fsdp 8': MeshConfig(data=1, fsdp=8),
  '2, 2, 2': MeshConfig(data=2, fsdp=2, tensor=2),
  'tensor 4': MeshConfig(data=1, fsdp=2, tensor=4),
  'sequence 4': MeshConfig(data=2, sequence=4),
  'sequence 2, tensor 2': MeshConfig(data=1, fsdp=2, sequence=2, tensor=2),
}
# Parts of a batch: (mesh, accumulate). Of 8 rows a device has 8, 2 or 4.
PARTS = {
  'one in 2 parts': ('one', 2),
  'one in 4 parts': ('one', 4),
  '2, 2, 2 in 2 parts': ('2, 2, 2', 2),
  'sequence 4 in 4 parts': ('sequence 4', 4),
}


class Run:
  """A compiled step with what it takes."""

  def __init__(self, mesh, accumulate=1):
    self.mesh = mesh
    self.optimizer = make_optimizer(OPTIMIZER, STEPS)
    self.abstract = step_lib.abstract_state(CONFIG, self.optimizer, mesh)
    self.abstract_batch = step_lib.abstract_batch(B, T, mesh)
    self.function = step_lib.make_train_step(
      CONFIG,
      self.optimizer,
      make_schedule(OPTIMIZER, STEPS),
      mesh,
      loss_config=LOSS,
      n_sources=SOURCES,
      accumulate=accumulate,
    )

  @functools.cached_property
  def step(self):
    return step_lib.compile_step(self.function, self.abstract, self.abstract_batch)

  def state(self, seed=0):
    return step_lib.init_state(CONFIG, self.optimizer, self.mesh, seed)

  def batch(self, number, **changes):
    """Packed rows of random tokens, the second half of them another segment."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(0, CONFIG.vocabulary, (B, T + 1)).astype(np.int32)
    half = np.arange(T, dtype=np.int32) // (T // 2)
    batch = {
      'tokens': tokens[:, :-1],
      'labels': tokens[:, 1:],
      'loss_mask': rng.random((B, T)) < 0.9,
      'segments': np.tile(1 + half, (B, 1)),
      'positions': np.tile(np.arange(T, dtype=np.int32) % (T // 2), (B, 1)),
      'source': rng.integers(0, SOURCES, B).astype(np.int32),
    } | changes
    return {
      name: jax.device_put(x, mesh_lib.batch_sharding(self.mesh)) for name, x in batch.items()
    }


@pytest.fixture(scope='module')
def runs():
  one = mesh_lib.make_mesh(MeshConfig(), jax.devices()[:1])
  meshes = {name: mesh_lib.make_mesh(config) for name, config in MESHES.items()}
  made = {name: Run(mesh) for name, mesh in {'one': one, **meshes}.items()}
  return made | {name: Run(made[on].mesh, parts) for name, (on, parts) in PARTS.items()}


@pytest.fixture(scope='module')
def histories(runs):
  """Loss and gradient norm of 20 steps on each mesh."""

  @functools.cache
  def history(name):
    run, state, seen = runs[name], runs[name].state(), []
    for number in range(STEPS):
      state, metrics = run.step(state, run.batch(number))
      seen.append((float(metrics['loss']), float(metrics['grad_norm'])))
    return np.asarray(seen)

  return history


def host(tree):
  return jax.tree.map(np.asarray, tree)


def assert_same(one, other):
  jax.tree.map(np.testing.assert_array_equal, host(one), host(other))


@pytest.mark.parametrize('name', [*MESHES, *PARTS])
def test_meshes_and_parts_of_a_batch_agree_with_one_device(histories, name):
  one, other = histories('one'), histories(name)
  np.testing.assert_allclose(other[0], one[0], rtol=1e-5)
  np.testing.assert_allclose(other[:, 0], one[:, 0], rtol=1e-3)


@pytest.mark.parametrize('name', PARTS)
def test_metrics_of_a_batch_in_parts_are_those_of_the_whole(runs, name):
  _, whole = runs['one'].step(runs['one'].state(), runs['one'].batch(5))
  _, parts = runs[name].step(runs[name].state(), runs[name].batch(5))
  assert int(whole['tokens']) == int(parts['tokens'])
  for metric in ('tokens_by_source', 'skipped'):
    assert np.array_equal(whole[metric], parts[metric])
  for metric in ('loss', 'z_loss', 'loss_sum_by_source', 'grad_norm'):
    np.testing.assert_allclose(parts[metric], whole[metric], rtol=1e-5)


def test_parts_that_the_rows_of_a_device_do_not_divide_into_raise(runs):
  run = Run(runs['2, 2, 2'].mesh, accumulate=3)
  with pytest.raises(
    ValueError, match=r'Stage\.accumulate is 3: a batch of 8 sequences on 4 devices'
  ):
    run.step  # noqa: B018


def test_rows_that_the_sequence_axis_does_not_divide_raise(runs):
  with pytest.raises(ValueError, match='rows of 18 tokens do not split over the 4 devices'):
    step_lib.abstract_batch(B, 18, runs['sequence 4'].mesh)


def test_the_loss_falls_on_a_batch_seen_again(runs):
  run = runs['one']
  state, losses = run.state(), []
  for _ in range(STEPS):
    state, metrics = run.step(state, run.batch(0))
    losses.append(float(metrics['loss']))
  assert losses[0] == pytest.approx(np.log(CONFIG.vocabulary), abs=0.4)
  assert losses[-1] < losses[0] - 0.5


def test_initial_values_depend_on_the_seed_and_not_on_the_mesh(runs):
  one = runs['one'].state()
  assert_same(one, runs['2, 2, 2'].state())
  assert not np.array_equal(one.params['embed'], runs['one'].state(seed=1).params['embed'])


def test_state_lies_in_shards_of_the_expected_shape(runs):
  def shards(name, pick):
    return {shard.data.shape for shard in pick(runs[name].state()).addressable_shards}

  def up(state):
    return state.params['layers']['mlp']['up']

  def moment(state):
    (adam,) = [part for part in state.opt_state if hasattr(part, 'mu')]
    return adam.mu['layers']['mlp']['up']

  for pick in (up, moment):
    assert shards('data 8', pick) == {(2, 32, 64)}
    assert shards('fsdp 8', pick) == {(2, 4, 64)}
    assert shards('2, 2, 2', pick) == {(2, 16, 32)}


@pytest.mark.parametrize('name', ['one', *MESHES])
def test_a_step_donates_its_state_and_returns_it_in_the_same_shardings(runs, name):
  run = runs[name]
  state = run.state()
  new, _ = run.step(state, run.batch(0))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
  equal = jax.tree.map(lambda leaf, abstract: leaf.sharding == abstract.sharding, new, run.abstract)
  assert all(jax.tree.leaves(equal))


def test_metrics_are_sums_by_source_of_the_reported_loss(runs):
  run = runs['2, 2, 2']
  batch = run.batch(3)
  _, metrics = run.step(run.state(), batch)
  sums, counts = host((metrics['loss_sum_by_source'], metrics['tokens_by_source']))
  assert sums.shape == counts.shape == (SOURCES,)
  mask, source = np.asarray(batch['loss_mask']), np.asarray(batch['source'])
  assert counts.tolist() == [int(mask[source == i].sum()) for i in range(SOURCES)]
  assert int(metrics['tokens']) == mask.sum()
  np.testing.assert_allclose(metrics['loss'], sums.sum() / counts.sum(), rtol=1e-6)
  rate = make_schedule(OPTIMIZER, STEPS)(0)
  np.testing.assert_allclose(metrics['learning_rate'], rate, rtol=1e-6)


def test_the_loss_divides_by_the_global_count_not_row_by_row(runs):
  run = runs['data 8']
  mask = np.zeros((B, T), bool)
  mask[0], mask[1:, 0] = True, True
  _, metrics = run.step(run.state(), run.batch(0, loss_mask=mask))
  params = runs['one'].state().params
  evaluate = step_lib.make_eval_step(CONFIG, runs['one'].mesh, loss_config=LOSS)
  rows = host(evaluate(params, runs['one'].batch(0, loss_mask=mask)))
  np.testing.assert_allclose(metrics['loss'], rows['nll'].sum() / rows['tokens'].sum(), rtol=1e-5)


@pytest.mark.parametrize('name', ['one', '2, 2, 2'])
@pytest.mark.parametrize('fault', ['label', 'token', 'empty', 'parameter'])
def test_a_non_finite_step_leaves_parameters_and_optimizer_bit_equal_and_is_counted(
  runs, name, fault
):
  run = runs[name]
  state, _ = run.step(run.state(), run.batch(0))
  bad = run.batch(1)
  if fault == 'parameter':
    state.params['norm'] = state.params['norm'] * np.float32('nan')
  elif fault == 'empty':
    bad = run.batch(1, loss_mask=np.zeros((B, T), bool))
  else:
    array = np.asarray(bad[fault + 's']).copy()
    array[2] = -1
    bad = run.batch(1, **{fault + 's': array})
  before = host(state)
  for n in (1, 2):
    state, metrics = run.step(state, bad)
    assert (int(metrics['skipped']), int(metrics['skipped_in_a_row'])) == (n, n)
  assert_same(before.params, state.params)
  assert_same(before.opt_state, state.opt_state)
  assert int(state.step) == 3
  if fault != 'parameter':
    state, metrics = run.step(state, run.batch(2))
    assert (int(metrics['skipped']), int(metrics['skipped_in_a_row'])) == (2, 0)
    assert not np.array_equal(before.params['embed'], state.params['embed'])


def test_a_finite_loss_with_a_non_finite_gradient_is_skipped(runs):
  run = runs['one']
  state = run.state()
  # Logits are the product of a huge scale and a tiny embedding, whose gradient is the huge scale.
  state.params['embed'] = state.params['embed'] * np.float32(1e-28)
  scale = state.params['layers']['attention_norm']
  state.params['layers']['attention_norm'] = jax.device_put(
    np.asarray(scale) * np.float32([[1e28], [1]]), scale.sharding
  )
  state.params['norm'] = state.params['norm'] * np.float32(1e25)
  before = host(state)
  state, metrics = run.step(state, run.batch(0))
  assert np.isfinite(metrics['loss'])
  assert not np.isfinite(metrics['grad_norm'])
  assert int(metrics['skipped']) == 1
  assert_same(before.params, state.params)


def test_the_rate_follows_the_step_through_skipped_updates(runs):
  run, schedule = runs['one'], make_schedule(OPTIMIZER, STEPS)
  state = run.state()
  for number in range(2):
    state, _ = run.step(state, run.batch(number, loss_mask=np.zeros((B, T), bool)))
  before = np.asarray(state.params['norm'])
  state, metrics = run.step(state, run.batch(2))
  np.testing.assert_allclose(metrics['learning_rate'], schedule(2), rtol=1e-6)
  # Adam's first update moves what does not decay by the rate itself, up to epsilon.
  moved = np.abs(np.asarray(state.params['norm']) - before).max()
  np.testing.assert_allclose(moved, schedule(2), rtol=1e-3)
  _, metrics = run.step(state, run.batch(3))
  np.testing.assert_allclose(metrics['learning_rate'], schedule(3), rtol=1e-6)


def test_the_executable_refuses_another_shape_dtype_or_layout(runs):
  run = runs['fsdp 8']
  short = {name: x[:, :8] if x.ndim == 2 else x for name, x in run.batch(0).items()}
  wide = run.batch(0) | {'source': run.batch(0)['source'].astype(np.float32)}
  whole = jax.device_put(run.state(), mesh_lib.replicated(run.mesh))
  for state, batch in ((run.state(), short), (run.state(), wide), (whole, run.batch(0))):
    with pytest.raises((TypeError, ValueError), match=r'shape|type|sharding'):
      run.step(state, batch)


@pytest.mark.parametrize('name', ['one', '2, 2, 2'])
def test_a_loop_of_compiled_steps_makes_no_implicit_transfer(runs, name):
  run = runs[name]
  state, batches = run.state(), [run.batch(i) for i in range(3)]
  run.step  # noqa: B018  compiled before the guard
  with jax.transfer_guard('disallow'):
    for batch in batches:
      state, _ = run.step(state, batch)
  assert int(state.step) == 3


@pytest.mark.parametrize('name', ['one', '2, 2, 2'])
def test_evaluation_sums_the_nll_of_each_row_over_its_loss_tokens(runs, name):
  run = runs[name]
  step = step_lib.make_eval_step(CONFIG, run.mesh, loss_config=LossConfig())
  compiled = step_lib.compile_eval_step(step, run.abstract.params, run.abstract_batch)
  batch = run.batch(5)
  rows = host(compiled(run.state().params, batch))
  np.testing.assert_array_equal(rows['tokens'], np.asarray(batch['loss_mask']).sum(1))
  _, metrics = run.step(run.state(), batch)
  np.testing.assert_allclose(rows['nll'].sum() / rows['tokens'].sum(), metrics['loss'], rtol=1e-5)


def test_a_step_for_16_absent_tpus_is_lowered_here():
  run = Run(mesh_lib.abstract_mesh(MeshConfig(data=2, fsdp=4, tensor=2), 16))
  lowered = step_lib.lower_step(run.function, run.abstract, run.abstract_batch, platform='tpu')
  assert 'num_partitions = 16' in lowered.as_text()
  with pytest.raises(ValueError, match='batch of 8 sequences does not split over the 32'):
    step_lib.abstract_batch(B, T, mesh_lib.abstract_mesh(MeshConfig(), 32))


def test_init_refuses_keys_whose_bits_depend_on_the_layout(runs):
  with jax.threefry_partitionable(False), pytest.raises(ValueError, match='threefry_partitionable'):
    runs['one'].state()
