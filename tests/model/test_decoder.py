"""The decoder against Llama's equations in NumPy, packed rows, configs and counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig, flops_per_token

SMALL = DecoderConfig(
  layers=3,
  width=32,
  heads=4,
  kv_heads=2,
  feedforward=48,
  vocabulary=97,
  max_length=64,
  dtype='float32',
  attention='xla',
)
VARIANTS = {
  'llama': SMALL,
  'qwen3': dataclasses.replace(SMALL, qk_norm=True, head_size=16, norm_epsilon=1e-3),
  'untied': dataclasses.replace(SMALL, tied_embeddings=False, kv_heads=0, rope_theta=500.0),
}

# The word counts of three short Turkish sentences and of padding make the fragments of a row.
LENGTHS = (7, 4, 9)
TOKENS = np.random.default_rng(0).integers(0, SMALL.vocabulary, sum(LENGTHS)).astype(np.int32)


def make(config, seed=0):
  """Parameters with norms that are not 1, so that a norm left out is noticed."""
  params = decoder.init_params(config, jax.random.key(seed))
  noise = np.random.default_rng(1)
  return jax.tree.map(lambda x: 3 * x + 0.1 * noise.normal(size=x.shape).astype(np.float32), params)


def logits(config, params, tokens, segments, positions):
  graph, _, _ = decoder.abstract_decoder(config)

  @jax.jit
  def run(params, *batch):
    model = decoder.bind(graph, params)
    return model.logits(model(*batch))

  return np.asarray(
    run(params, *(jnp.asarray(x, jnp.int32) for x in (tokens, segments, positions)))
  )


def packed(tokens=TOKENS, padding=3):
  segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(LENGTHS)])
  positions = np.concatenate([np.arange(n) for n in LENGTHS])
  rows = [np.concatenate([row, np.zeros(padding, int)]) for row in (tokens, segments, positions)]
  return [row[None] for row in rows]


def llama(config, params, tokens):
  """One document by the equations of Hugging Face's modeling_llama.py, in float64."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  H, G, K = config.heads, config.G, config.K

  def norm(x, scale):
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon)

  def rotate_half(x):
    return np.concatenate([-x[..., K // 2 :], x[..., : K // 2]], -1)

  angles = np.arange(len(tokens))[:, None] / config.rope_theta ** (np.arange(0, K, 2) / K)
  angles = np.concatenate([angles, angles], -1)[:, None]

  def rope(x):
    return x * np.cos(angles) + rotate_half(x) * np.sin(angles)

  x = p['embed'][tokens]
  for i in range(config.layers):
    one = jax.tree.map(lambda leaf, i=i: leaf[i], p['layers'])
    y, weights = norm(x, one['attention_norm']), one['attention']
    q, k, v = (np.einsum('td,dhk->thk', y, weights[name]) for name in 'qkv')
    if config.qk_norm:
      q, k = norm(q, weights['q_norm']), norm(k, weights['k_norm'])
    q, k = rope(q), rope(k)
    k, v = np.repeat(k, H // G, axis=1), np.repeat(v, H // G, axis=1)
    scores = np.einsum('thk,shk->hts', q, k) / np.sqrt(K)
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    x = x + np.einsum('hts,shk,hkd->td', shares, v, weights['o'])
    y, mlp = norm(x, one['mlp_norm']), one['mlp']
    gate = y @ mlp['gate']
    x = x + (gate / (1 + np.exp(-gate)) * (y @ mlp['up'])) @ mlp['down']
  return norm(x, p['norm']) @ p['embed' if config.tied_embeddings else 'head'].T


@pytest.mark.parametrize('name', VARIANTS)
def test_logits_follow_the_equations_of_llama(name):
  config = VARIANTS[name]
  params = make(config)
  n = len(TOKENS)
  ours = logits(config, params, TOKENS[None], np.ones((1, n)), np.arange(n)[None])[0]
  theirs = llama(config, params, TOKENS)
  np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize('name', VARIANTS)
def test_packed_equals_unpacked_per_fragment(name):
  config = VARIANTS[name]
  params = make(config)
  together = logits(config, params, *packed())[0]
  start = 0
  for length in LENGTHS:
    tokens = TOKENS[start : start + length]
    alone = logits(config, params, tokens[None], np.ones((1, length)), np.arange(length)[None])[0]
    error = np.linalg.norm(together[start : start + length] - alone) / np.linalg.norm(alone)
    assert error < 1e-5
    start += length


@pytest.mark.parametrize('name', VARIANTS)
def test_changing_one_document_leaves_every_other_documents_logits_bit_equal(name):
  config = VARIANTS[name]
  params = make(config)
  _, segments, positions = packed()
  before = logits(config, params, *packed())
  for document in (1, 2, 3):
    changed = np.where(segments == document, (packed()[0] + 31) % config.vocabulary, packed()[0])
    after = logits(config, params, changed, segments, positions)
    np.testing.assert_array_equal(before[segments != document], after[segments != document])
    assert not np.array_equal(before[segments == document], after[segments == document])


def test_padding_gives_finite_logits():
  assert np.isfinite(logits(SMALL, make(SMALL), *packed(padding=40))).all()


def test_a_token_outside_the_vocabulary_gives_nan_not_another_token():
  for token in (-1, SMALL.vocabulary):
    tokens, segments, positions = packed()
    tokens[0, -4] = token
    assert np.isnan(logits(SMALL, make(SMALL), tokens, segments, positions)).any()


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
  config = dataclasses.replace(SMALL, dtype='bfloat16')
  params = decoder.init_params(config, jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  model = decoder.bind(decoder.abstract_decoder(config)[0], params)
  assert model(*packed()).dtype == jnp.bfloat16
  np.testing.assert_allclose(
    logits(config, params, *packed()), logits(SMALL, params, *packed()), atol=0.1
  )


@pytest.mark.parametrize('remat', ['full', 'dots', 'dots_saveable', 'everything_saveable'])
def test_remat_changes_no_gradient(remat):
  params = make(SMALL)

  def gradient(config):
    graph, _, _ = decoder.abstract_decoder(config)

    def total(params):
      return jnp.sum(decoder.bind(graph, params)(*packed())[:, :-3] ** 2)

    return jax.jit(jax.grad(total))(params)

  rematted = gradient(dataclasses.replace(SMALL, remat=remat))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max())),
    rematted,
    gradient(SMALL),
  )


def test_full_remat_keeps_less_than_none():
  def saved(config):
    graph, shapes, _ = decoder.abstract_decoder(config)
    batch = jax.ShapeDtypeStruct((4, 64), jnp.int32)

    def total(params, *batch):
      return jnp.sum(decoder.bind(graph, params)(*batch))

    compiled = jax.jit(jax.grad(total)).lower(shapes, batch, batch, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  none, dots, full = (
    saved(dataclasses.replace(SMALL, layers=8, remat=remat)) for remat in ('none', 'dots', 'full')
  )
  assert full < dots < none


def test_the_tree_has_a_place_for_each_tensor_of_a_llama():
  shapes, names = decoder.abstract_decoder(VARIANTS['qwen3'])[1:]
  tree = {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
  }
  assert tree == {
    'embed': (97, 32),
    'layers.attention_norm': (3, 32),
    'layers.attention.q': (3, 32, 4, 16),
    'layers.attention.k': (3, 32, 2, 16),
    'layers.attention.v': (3, 32, 2, 16),
    'layers.attention.o': (3, 4, 16, 32),
    'layers.attention.q_norm': (3, 16),
    'layers.attention.k_norm': (3, 16),
    'layers.mlp_norm': (3, 32),
    'layers.mlp.gate': (3, 32, 48),
    'layers.mlp.up': (3, 32, 48),
    'layers.mlp.down': (3, 48, 32),
    'norm': (32,),
  }
  assert names['embed'] == ('vocab', 'embed')
  assert names['layers']['attention']['o'] == ('layers', 'heads', 'head_size', 'embed')
  assert 'head' in decoder.abstract_decoder(VARIANTS['untied'])[1]


def test_initial_values_have_the_stated_spread_and_no_two_layers_are_alike():
  config = dataclasses.replace(SMALL, width=256, heads=4, kv_heads=0, feedforward=512)
  params = decoder.init_params(config, jax.random.key(0))
  std = (2 / (5 * 256)) ** 0.5
  for matrix in (
    params['embed'],
    params['layers']['attention']['q'],
    params['layers']['mlp']['up'],
  ):
    np.testing.assert_allclose(matrix.std(), std, rtol=0.02)
  for matrix in (params['layers']['attention']['o'], params['layers']['mlp']['down']):
    np.testing.assert_allclose(matrix.std(), std / 6**0.5, rtol=0.02)
  q = params['layers']['attention']['q']
  assert not np.array_equal(q[0], q[1])
  assert not np.array_equal(q[0], params['layers']['attention']['k'][0])


def test_counts_are_those_of_the_formula_and_flops_leave_out_the_lookup():
  config = VARIANTS['untied']
  L, D, H, K, F, V = 3, 32, 4, 8, 48, 97
  layer = 4 * D * H * K + 3 * D * F
  count = decoder.parameter_count(config)
  assert count.embedding == 2 * V * D
  assert count.without_embedding == L * (layer + 2 * D) + D
  assert count.total == count.embedding + count.without_embedding
  assert decoder.parameter_count(SMALL).embedding == V * D
  assert flops_per_token(config, 64) == 6 * (L * layer + V * D) + 6 * L * H * K * 65


def test_resolve_fills_in_dtype_by_platform_and_the_vocabulary_once():
  opened = dataclasses.replace(SMALL, dtype='auto', attention='auto', vocabulary=0)
  assert opened.resolve(platform='cpu', vocabulary=11).dtype == 'float32'
  assert opened.resolve(platform='tpu', vocabulary=11).dtype == 'bfloat16'
  assert opened.resolve(platform='gpu', vocabulary=11).attention == 'xla'
  assert SMALL.resolve(platform='tpu') == SMALL
  with pytest.raises(ValueError, match='vocabulary is 0'):
    opened.resolve(platform='cpu')
  with pytest.raises(ValueError, match='vocabulary is 97, and the tokenizer asks for 98'):
    SMALL.resolve(platform='cpu', vocabulary=98)
  with pytest.raises(ValueError, match=r'call config\.resolve'):
    decoder.parameter_count(opened)


def test_a_row_longer_than_max_length_raises():
  with pytest.raises(ValueError, match=r'Rows of 24 tokens, but DecoderConfig.max_length is 23'):
    logits(dataclasses.replace(SMALL, max_length=23), make(SMALL), *packed(padding=4))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'layers': 0}, 'DecoderConfig.layers is 0: it is 1 or more'),
    ({'width': 34, 'head_size': 0}, 'width is 34 and heads is 4'),
    ({'kv_heads': 3}, 'kv_heads is 3: it divides the 4 heads'),
    ({'head_size': 7}, 'head_size is 7: RoPE turns pairs'),
    ({'vocabulary': -1}, 'vocabulary is -1: 0 leaves it open'),
    ({'rope_theta': 0.0}, 'rope_theta is 0.0: it is above 0'),
    ({'remat': 'dot'}, "remat is 'dot'. Nearest: 'dots'"),
    ({'dtype': 'float16'}, "dtype is 'float16'. Nearest: 'bfloat16'|Nearest: 'float32'"),
    ({'attention': 'xl'}, "attention is 'xl'. Nearest: 'xla'"),
  ],
)
def test_an_impossible_shape_or_name_raises(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **change)
