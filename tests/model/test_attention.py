"""The reference attention against a loop over positions, and the names of implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink.model import attention

SEGMENTS = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1]], np.int32)


def make(heads=4, groups=2, dtype=np.float32):
  rng = np.random.default_rng(0)
  T = SEGMENTS.shape[1]
  q = rng.normal(size=(2, T, heads, 8)).astype(np.float32)
  k, v = rng.normal(size=(2, 2, T, groups, 8)).astype(np.float32)
  return [jnp.asarray(x, dtype) for x in (q, k, v)]


def by_hand(q, k, v, segments):
  out = np.zeros(q.shape)
  for b, t, h in np.ndindex(*q.shape[:3]):
    seen = [s for s in range(t + 1) if segments[b, s] == segments[b, t]]
    g = h // (q.shape[2] // k.shape[2])
    scores = np.array([q[b, t, h] @ k[b, s, g] for s in seen], np.float64) / np.sqrt(q.shape[3])
    weights = np.exp(scores - scores.max())
    out[b, t, h] = weights @ v[b, seen, g] / weights.sum()
  return out


@pytest.mark.parametrize('groups', [1, 2, 4])
@pytest.mark.parametrize('implementation', attention.IMPLEMENTATIONS)
def test_it_is_causal_softmax_within_segments_with_shared_key_value_heads(implementation, groups):
  q, k, v = make(groups=groups)
  out = attention.attend(q, k, v, SEGMENTS, implementation=implementation)
  np.testing.assert_allclose(out, by_hand(*map(np.asarray, (q, k, v)), SEGMENTS), atol=2e-6)


@pytest.mark.parametrize('implementation', attention.IMPLEMENTATIONS)
def test_changing_one_segment_leaves_every_other_bit_equal(implementation):
  q, k, v = make()
  attend = jax.jit(lambda *x: attention.attend(*x, SEGMENTS, implementation=implementation))
  before = np.asarray(attend(q, k, v))
  changed = jnp.asarray(SEGMENTS == 1)[..., None, None]
  after = np.asarray(attend(*(jnp.where(changed, 3 * x + 1, x) for x in (q, k, v))))
  assert not np.array_equal(before, after)
  np.testing.assert_array_equal(before[SEGMENTS != 1], after[SEGMENTS != 1])


@pytest.mark.parametrize('implementation', attention.IMPLEMENTATIONS)
def test_padding_is_finite_in_value_and_gradient(implementation):
  def total(qkv):
    return jnp.sum(
      attention.attend(*qkv, jnp.zeros((2, 7), jnp.int32), implementation=implementation)
    )

  value, gradient = jax.value_and_grad(total)(make())
  assert np.isfinite(value)
  assert all(np.isfinite(x).all() for x in gradient)


def test_bfloat16_goes_in_and_out_with_a_float32_softmax_between():
  out = attention.attend(*make(dtype=jnp.bfloat16), SEGMENTS)
  assert out.dtype == jnp.bfloat16
  text = str(jax.make_jaxpr(lambda *x: attention.attend(*x, SEGMENTS))(*make(dtype=jnp.bfloat16)))
  (exp,) = [line for line in text.splitlines() if '= exp' in line]
  assert ':f32[' in exp


def test_auto_resolves_to_a_named_implementation_with_a_reason():
  name, reason = attention.choose('auto', 'tpu')
  assert name in attention.IMPLEMENTATIONS
  assert 'tpu' in reason
  assert attention.choose('xla', 'cpu') == ('xla', 'asked for')


def test_an_unknown_implementation_raises_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"attention is 'xlaa'\. Nearest: 'xla'"):
    attention.choose('xlaa', 'cpu')
  with pytest.raises(ValueError, match="attention is 'auto'"):
    attention.attend(*make(), SEGMENTS, implementation='auto')


def test_heads_that_do_not_share_raise():
  with pytest.raises(ValueError, match='4 query heads do not share 3'):
    attention.attend(*make(groups=3), SEGMENTS)
