"""muP's table at four widths, the unchanged numbers at the base width, and models folded into plain ones."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink.model import decoder, loss, mup
from jaxlink.model.mup import MupConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer

BASE = DecoderConfig(
  layers=2, width=256, heads=4, kv_heads=2, feedforward=512, vocabulary=64, max_length=32,
  tied_embeddings=False, dtype='float32', attention='xla', mup=MupConfig(base_width=256),
)  # fmt: skip
NARROW = dataclasses.replace(
  BASE, width=64, heads=4, head_size=16, feedforward=96, mup=MupConfig(base_width=32)
)
STEADY = {'schedule': 'constant', 'warmup_share': 0.0}


def without(config):
  return dataclasses.replace(config, mup=None)


def start(config):
  return jax.jit(decoder.init_params, static_argnums=0)(config, jax.random.key(0))


def batch(seed=0):
  rng = np.random.default_rng(seed)
  tokens = jnp.asarray(rng.integers(0, 64, (2, 20)), jnp.int32)
  segments = jnp.asarray(np.repeat([[1] * 8 + [2] * 12], 2, 0), jnp.int32)
  positions = jnp.asarray(np.repeat([[*range(8), *range(12)]], 2, 0), jnp.int32)
  return tokens, segments, positions


def random_params(config):
  """No zeros and no ones, so that each factor is noticed."""
  rng = np.random.default_rng(1)
  params = decoder.abstract_decoder(config)[1]
  return jax.tree.map(
    lambda x: jnp.asarray((x.ndim < 3) + 0.2 * rng.normal(size=x.shape), jnp.float32), params
  )


def update(config, optimizer_config, params, gradients, step=0):
  optimizer = make_optimizer(optimizer_config, 10, model=config)
  return jax.jit(optimizer.update)(gradients, optimizer.init(params), params, step=step)[0]


def logits(config, params):
  graph, _, _ = decoder.abstract_decoder(config)

  @jax.jit
  def run(params):
    model = decoder.bind(graph, params)
    return model.logits(model(*batch()))

  return np.asarray(run(params))


@pytest.mark.parametrize(
  ('width', 'rate', 'decay', 'logit_scale', 'std'),
  [
    (256, 4e-3, 0.1, 1.0, 0.06250),
    (512, 2e-3, 0.2, 0.5, 0.04419),
    (1024, 1e-3, 0.4, 0.25, 0.03125),
    (2048, 5e-4, 0.8, 0.125, 0.02210),
  ],
)
def test_the_table_of_widths(width, rate, decay, logit_scale, std):
  config = mup.widened(BASE, width)
  hidden = mup.groups(config)['hidden']
  assert (4e-3 * hidden.rate, 0.1 * hidden.decay) == (rate, decay)
  assert 4e-3 * hidden.rate * (0.1 * hidden.decay) == pytest.approx(4e-4, rel=1e-15)
  assert mup.scales(config).logits == logit_scale
  assert round(mup.start_std(config, 'q', width), 5) == std
  assert mup.groups(config)['embed'] == mup.groups(config)['readout'] == mup.Group(1.0, 1.0)
  assert mup.groups(config)['vector'] == mup.Group(1.0, 0.0)


@pytest.mark.parametrize(
  ('head_size', 'scale'), [(32, 0.25), (64, 0.125), (128, 0.0625), (256, 0.03125)]
)
def test_the_table_of_head_sizes(head_size, scale):
  config = dataclasses.replace(BASE, head_size=head_size)
  assert mup.scales(config).queries / math.sqrt(head_size) == pytest.approx(scale, rel=1e-15)


@pytest.mark.parametrize('width', [64, 128, 512])
def test_a_step_without_gradient_shrinks_matrices_alike_at_every_width(width):
  config = mup.widened(dataclasses.replace(NARROW, mup=MupConfig(base_width=64)), width)
  params = jax.tree.map(
    lambda x: jnp.ones(x.shape, jnp.float32), decoder.abstract_decoder(config)[1]
  )
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates = update(config, OptimizerConfig(learning_rate=4e-3, **STEADY), params, zeros)
  for path, change in jax.tree_util.tree_leaves_with_path(updates):
    norm = jax.tree_util.keystr(path, simple=True).endswith('norm')
    expected = np.float32(0.0) if norm else np.float32(0.9996) - np.float32(1)
    np.testing.assert_allclose(1 + change, 1 + expected, rtol=0, atol=1e-7)


def test_matrices_start_with_the_standard_deviations_of_the_table():
  config = dataclasses.replace(
    mup.widened(BASE, 512), mup=MupConfig(base_width=256, zero_queries=True), vocabulary=512
  )
  params = start(config)
  attention, mlp = params['layers']['attention'], params['layers']['mlp']
  expected = {'k': 512, 'v': 512, 'o': 512, 'gate': 512, 'up': 512, 'down': 1024}
  for name, fan_in in expected.items():
    values = {**attention, **mlp}[name]
    assert float(values.std()) == pytest.approx(fan_in**-0.5, rel=0.02), name
  assert float(params['embed'].std()) == pytest.approx(1, rel=0.02)
  assert not params['head'].any()
  assert not attention['q'].any()
  plain = start(without(config))
  ratio = np.asarray(params['embed'] / plain['embed'])  # the same draws
  np.testing.assert_allclose(ratio, math.sqrt(5 * 512 / 2), rtol=1e-6)
  for changes in ({'mup': MupConfig(base_width=256, zero_head=False)}, {'tied_embeddings': True}):
    other = dataclasses.replace(config, **changes)
    name = 'embed' if other.tied_embeddings else 'head'
    assert mup.start_std(other, name, 512) == math.sqrt(2 / (5 * 256))


def test_tied_embeddings_do_not_start_at_zero_and_keep_the_multiplier():
  config = dataclasses.replace(mup.widened(BASE, 512), tied_embeddings=True)
  params = start(config)
  assert 'head' not in params
  assert float(params['embed'].std()) > 0.03
  np.testing.assert_allclose(
    logits(config, params), 0.5 * logits(without(config), params), rtol=1e-6, atol=1e-7
  )


def test_at_the_base_width_logits_and_updates_are_those_of_the_usual_model():
  params = random_params(BASE)
  np.testing.assert_array_equal(logits(BASE, params), logits(without(BASE), params))
  gradients = random_params(BASE)
  updates = [
    update(config, OptimizerConfig(), params, gradients, step=3) for config in (BASE, without(BASE))
  ]
  jax.tree.map(np.testing.assert_array_equal, *updates)


def test_groups_learn_at_their_own_rates():
  config = dataclasses.replace(NARROW, mup=MupConfig(base_width=16))  # m = 4
  params = random_params(config)
  settings = OptimizerConfig(weight_decay=0.0, **STEADY)
  updates = [update(model, settings, params, params) for model in (config, without(config))]
  ratios = jax.tree.map(lambda a, b: float(np.median(a / b)), *updates)
  for path, ratio in jax.tree_util.tree_leaves_with_path(ratios):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    assert ratio == pytest.approx(0.25 if mup.PARAMETERS[name].group == 'hidden' else 1.0), name


def test_the_loss_sees_the_multiplier_of_logits_as_logits_do():
  config, params = NARROW, random_params(NARROW)
  model = decoder.bind(decoder.abstract_decoder(config)[0], params)
  tokens, segments, positions = batch()
  hidden = model(tokens, segments, positions)
  mask = jnp.ones(tokens.shape, bool)
  sums = loss.loss_sums(hidden, model.head_VD(), tokens, mask, z_loss=0.0, chunk=4)
  log_shares = jax.nn.log_softmax(model.logits(hidden))
  expected = -jnp.take_along_axis(log_shares, tokens[..., None], -1).sum()
  np.testing.assert_allclose(sums.nll_B.sum(), expected, rtol=1e-5)
  np.testing.assert_allclose(model.logits(hidden), logits(config, params), rtol=2e-5, atol=1e-5)


FOLDED = {
  'powers of two': (NARROW, True),  # m 2, heads of 16
  'tied': (dataclasses.replace(NARROW, tied_embeddings=True), True),
  'depth': (dataclasses.replace(NARROW, mup=MupConfig(base_width=32, base_layers=1)), True),
  'qk_norm': (dataclasses.replace(NARROW, qk_norm=True), True),
  'odd': (
    dataclasses.replace(NARROW, head_size=32, mup=MupConfig(base_width=48, base_layers=3)),
    False,
  ),
}


@pytest.mark.parametrize('name', FOLDED)
def test_a_folded_model_has_equal_logits_without_mup(name):
  config, exact = FOLDED[name]
  params = random_params(config)
  plain, folded = mup.fold(config, params)
  assert plain == without(config)
  ours, theirs = logits(config, params), logits(plain, folded)
  if exact:
    np.testing.assert_array_equal(ours, theirs)
  else:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
  unfolded = logits(plain, params)
  assert np.abs(unfolded - ours).max() > 0.05 * np.abs(ours).max()


def test_folding_a_model_without_mup_changes_nothing():
  params = random_params(NARROW)
  config, folded = mup.fold(without(NARROW), params)
  assert config == without(NARROW)
  assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, params, folded)))


def test_folding_keeps_numpy_arrays_and_their_dtype():
  params = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16), random_params(NARROW))
  _, folded = mup.fold(NARROW, params)
  assert {(type(x), x.dtype) for x in jax.tree.leaves(folded)} == {
    (np.ndarray, jnp.dtype('bfloat16'))
  }


def test_each_parameter_of_the_decoder_has_its_row():
  for config in (BASE, dataclasses.replace(BASE, qk_norm=True)):
    _, shapes, _ = decoder.abstract_decoder(config)
    for path, kind in jax.tree_util.tree_leaves_with_path(mup.parameters(shapes)):
      stacked = jax.tree_util.keystr(path[:1], simple=True) == 'layers'
      shape = shapes
      for key in path:
        shape = shape[key.key]
      axes = len(shape.shape) - stacked
      if kind.group != 'vector':
        assert sorted(kind.inputs + kind.outputs) == list(range(-axes, 0))
  with pytest.raises(ValueError, match=r'parameter layers\.gain has no row'):
    mup.parameters({'layers': {'gain': jnp.ones(3)}})


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: MupConfig(base_width=0), 'base_width is 0: it is 1 or more'),
    (lambda: MupConfig(base_width=1, base_layers=-1), 'base_layers is -1: 0 leaves depth alone'),
    (
      lambda: dataclasses.replace(
        BASE, qk_norm=True, mup=MupConfig(base_width=256, zero_queries=True)
      ),
      'zero_queries is True with DecoderConfig.qk_norm',
    ),
    (lambda: mup.widened(BASE, 160), 'width 160: DecoderConfig.heads, 4 at width 256'),
  ],
)
def test_a_setting_out_of_range_raises(make, message):
  with pytest.raises(ValueError, match=message):
    make()
