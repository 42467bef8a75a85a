"""How an implementation is named and chosen, and what each one refuses."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from jaxlink.model import attention, axes
from jaxlink.model.decoder import abstract_decoder, bind
from jaxlink.model.shape import DecoderConfig, flops_per_token
from tests.model.attention.naive import arrays, packed

CONFIG = DecoderConfig(layers=2, width=64, heads=4, kv_heads=2, feedforward=64, vocabulary=32)


def attend(name, heads=4, groups=2, size=16, dtype=np.float32, **options):
  q, k, v, _ = (jnp.asarray(x, dtype) for x in arrays(0, heads, groups, size))
  return attention.attend(q, k, v, packed(0), implementation=name, **options)


class Ways:
  """A placement that splits axes and places nothing."""

  def __init__(self, **ways):
    self.sizes = ways

  def ways(self, name):
    return self.sizes.get(name, 1)

  def place(self, x, names):
    return x

  def per_shard(self, function, inputs, outputs):
    return function


def test_the_softmax_of_bfloat16_is_taken_in_float32():
  q, k, v, _ = (jnp.asarray(x, jnp.bfloat16) for x in arrays(0))
  text = str(jax.make_jaxpr(lambda *x: attention.attend(*x, packed(0)))(q, k, v))
  (exp,) = [line for line in text.splitlines() if '= exp' in line]
  assert ':f32[' in exp


@pytest.mark.parametrize(
  ('platform', 'options', 'name', 'reason'),
  [
    ('cpu', {}, 'xla', 'auto on cpu: the reference'),
    ('tpu', {}, 'splash', 'auto on tpu: its kernel respects segments'),
    ('tpu', {'window': 8, 'soft_cap': 30.0, 'sequence': 4}, 'splash', 'auto on tpu'),
    ('gpu', {}, 'pallas', 'auto on gpu: its kernel respects segments'),
    ('gpu', {'window': 8}, 'xla', 'not pallas, since DecoderConfig.window is 8'),
    ('gpu', {'soft_cap': 30.0}, 'xla', 'not pallas, since DecoderConfig.soft_cap is 30'),
    ('gpu', {'sequence': 2}, 'xla', 'not pallas, since MeshConfig.sequence is 2'),
    ('gpu', {'head_size': 8}, 'xla', 'not pallas, since DecoderConfig.head_size is 8'),
  ],
)
def test_auto_takes_the_kernel_that_can_do_all_that_is_asked(platform, options, name, reason):
  chosen, why = attention.choose('auto', platform, **options)
  assert chosen == name
  assert reason in why


def test_a_name_that_is_asked_for_is_taken():
  assert attention.choose('xla', 'tpu') == ('xla', 'asked for')
  assert attention.choose('splash', 'tpu', window=8) == ('splash', 'asked for')


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
@pytest.mark.parametrize(('name', 'home'), [('splash', 'tpu'), ('pallas', 'gpu')])
def test_a_kernel_for_another_platform_is_refused(name, home, platform):
  if platform == home:
    assert attention.choose(name, platform)[0] == name
  else:
    with pytest.raises(ValueError, match=f"attention is '{name}', a kernel for {home.upper()}"):
      attention.choose(name, platform)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'window': 8}, r"'pallas' cannot do this: DecoderConfig\.window is 8"),
    ({'soft_cap': 30.0}, r"'pallas' cannot do this: DecoderConfig\.soft_cap is 30"),
    ({'size': 8}, r"'pallas' cannot do this: DecoderConfig\.head_size is 8"),
    ({'size': 256}, r"'pallas' cannot do this: DecoderConfig\.head_size is 256"),
  ],
)
def test_what_a_kernel_cannot_do_is_refused_and_not_ignored(options, message):
  with pytest.raises(ValueError, match=message):
    attend('pallas', interpret=True, **options)
  renamed = {'head_size' if name == 'size' else name: value for name, value in options.items()}
  with pytest.raises(ValueError, match=message):
    attention.choose('pallas', 'gpu', **renamed)


def test_a_row_over_several_devices_is_refused_by_a_kernel_that_takes_whole_rows():
  with axes.placed_by(Ways(sequence=2)):
    with pytest.raises(ValueError, match=r"'pallas' cannot do this: MeshConfig\.sequence is 2"):
      attend('pallas', interpret=True)
    with pytest.raises(ValueError, match=r'Rows of 200 tokens, and MeshConfig\.sequence is 2'):
      attend('splash', interpret=True)


@pytest.mark.parametrize('name', attention.IMPLEMENTATIONS)
def test_fewer_key_value_heads_than_devices_is_refused(name):
  with (
    axes.placed_by(Ways(kv=4, heads=4)),
    pytest.raises(ValueError, match=r'MeshConfig\.tensor is 4, and DecoderConfig\.kv_heads is 2'),
  ):
    attend(name, interpret=True)


def test_an_unknown_implementation_raises_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"attention is 'splahs'\. Nearest: 'splash'"):
    attention.choose('splahs', 'tpu')
  with pytest.raises(ValueError, match="attention is 'auto'"):
    attend('auto')


def test_heads_that_do_not_share_raise():
  with pytest.raises(ValueError, match='4 query heads do not share 3'):
    attend('xla', groups=3)


@pytest.mark.parametrize(
  ('setting', 'value'), [('window', -1), ('soft_cap', -1.0), ('soft_cap', np.nan)]
)
def test_a_window_or_soft_cap_below_0_is_refused(setting, value):
  with pytest.raises(ValueError, match=rf'DecoderConfig\.{setting} is {value}'):
    attend('xla', **{setting: value})
  with pytest.raises(ValueError, match=rf'DecoderConfig\.{setting} is {value}'):
    dataclasses.replace(CONFIG, **{setting: value})


def test_the_decoder_passes_window_and_soft_cap_on():
  config = dataclasses.replace(CONFIG, layers=1, attention='xla', dtype='float32')
  _, shapes, _ = abstract_decoder(config)
  params = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), shapes)
  at = jnp.arange(16)[None]

  def hidden(**settings):
    graph, _, _ = abstract_decoder(dataclasses.replace(config, **settings))
    return jax.jit(lambda params: bind(graph, params)(at, jnp.ones_like(at), at))(params)

  plain, capped, near = hidden(), hidden(soft_cap=0.01), hidden(window=3)
  assert not np.allclose(plain[0, 1:], capped[0, 1:])
  np.testing.assert_allclose(plain[0, :3], near[0, :3], rtol=1e-5)
  assert not np.allclose(plain[0, 3:], near[0, 3:])


@pytest.mark.parametrize('window', [0, 1, 5, 16, 40])
def test_flops_count_the_positions_that_a_window_leaves(window):
  seen = sum(min(t + 1, window or 16) for t in range(16)) / 16
  none = dataclasses.replace(CONFIG, window=1)
  cost = lambda config: flops_per_token(config, 16)  # noqa: E731
  each = 12 * CONFIG.layers * CONFIG.heads * CONFIG.K
  extra = cost(dataclasses.replace(CONFIG, window=window)) - cost(none)
  assert extra == pytest.approx(each * (seen - 1))


def test_a_config_resolves_to_what_its_options_and_devices_allow():
  assert CONFIG.resolve(platform='gpu').attention == 'pallas'
  assert dataclasses.replace(CONFIG, window=8).resolve(platform='gpu').attention == 'xla'
  assert CONFIG.resolve(platform='gpu', sequence=2).attention == 'xla'
  assert CONFIG.choose_attention('gpu', sequence=2)[1].startswith('auto on gpu: not pallas')
  with pytest.raises(ValueError, match='a kernel for TPU'):
    dataclasses.replace(CONFIG, attention='splash').resolve(platform='cpu')


@pytest.mark.parametrize('name', ['splash', 'pallas'])
@pytest.mark.parametrize(('remat', 'times'), [('full', 2), ('attention', 1), ('dots', 1)])
def test_remat_by_name_runs_the_forward_kernel_again_or_keeps_its_output(name, remat, times):
  config = dataclasses.replace(CONFIG, attention=name, dtype='bfloat16', remat=remat)
  graph, shapes, _ = abstract_decoder(config)
  row = jax.ShapeDtypeStruct((1, 128), jnp.int32)

  def loss(params, row):
    return bind(graph, params)(row, row, row).astype(jnp.float32).sum()

  program = jax.make_jaxpr(jax.grad(loss))(shapes, row).jaxpr
  kernel = {'splash': 'splash_mha_fwd_segmented_residuals', 'pallas': 'mha_forward'}[name]
  assert list(kernels(program)).count(kernel) == times


@pytest.mark.parametrize(
  ('name', 'platform', 'call', 'options'),
  [
    ('pallas', 'cuda', 'xla.gpu.triton', {}),
    ('splash', 'tpu', 'tpu_custom_call', {'window': 64, 'soft_cap': 30.0}),
  ],
)
def test_a_kernel_lowers_for_its_chip(name, platform, call, options):
  def total(q, k, v):
    out = attention.attend(q, k, v, packed(0), implementation=name, **options)
    return out.astype(jnp.float32).sum()

  inputs = [jnp.asarray(x, jnp.bfloat16) for x in arrays(0, size=64)[:3]]
  step = jax.jit(jax.grad(total, (0, 1, 2)))
  with a_gpu_that_is_not_here() if platform == 'cuda' else contextlib.nullcontext():
    lowered = step.trace(*inputs).lower(lowering_platforms=(platform,))
  assert lowered.as_text().count(call) == 3  # forward, and two of the backward pass


def a_gpu_that_is_not_here():
  """Newer versions of jax lower a GPU kernel for one GPU, and ask which."""
  device = AbstractDevice('NVIDIA H100 80GB HBM3', None, platform='gpu')
  return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ('data',), abstract_device=device))


def kernels(program):
  """Names of the Pallas kernels in a program and those that it calls for a result."""
  for equation in program.eqns:
    if equation.primitive.name == 'pallas_call':
      yield equation.params['name']
    elif equation.outvars:
      for part in jax.tree.leaves(tuple(equation.params.values())):
        if hasattr(part, 'eqns') or hasattr(part, 'jaxpr'):
          yield from kernels(getattr(part, 'jaxpr', part))
