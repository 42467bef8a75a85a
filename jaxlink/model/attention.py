"""Causal self-attention within segments, behind one function for every back end.

Queries of B rows of T positions go in with keys and values of G ≤ H heads, and segment numbers that
say which positions of a row belong together. Position t sees s where s ≤ t and both carry the same
number. Each back end is held to two promises: a packed row equals its fragments run alone, and no
document's output changes by one bit when another document of the row does.

Easy to get wrong: padding is segment 0 and attends to the padding before it. No row of the scores
is ever empty, so padding gives finite numbers (and finite gradients) that the loss mask then drops.
"""

import jax
import jax.numpy as jnp

from jaxlink.names import nearest

# Far below any score, and finite: exp gives exactly 0, and no inf - inf in the gradient.
_MASKED = -1e30


def attend(
  q_BTHK: jax.Array,
  k_BTGK: jax.Array,
  v_BTGK: jax.Array,
  segments_BT: jax.Array,
  *,
  implementation: str = 'xla',
) -> jax.Array:
  """Softmax(q·k / √K)·v over the earlier positions of the same segment.

  Args:
    q_BTHK: queries; head h reads key-value head h // (H / G), as in Hugging Face's `repeat_kv`.
    k_BTGK: keys, one head for H / G query heads.
    v_BTGK: values.
    segments_BT: int32 segment of each position, 0 for padding.
    implementation: a name out of `IMPLEMENTATIONS`; 'auto' is resolved before, by `choose`.

  Returns:
    BTHK in the dtype of q. The softmax is taken in float32.

  Raises:
    ValueError: an unknown implementation, or heads that the key-value heads do not divide.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(_unknown(implementation, list(IMPLEMENTATIONS)))
  heads, groups = q_BTHK.shape[2], k_BTGK.shape[2]
  if heads % groups:
    raise ValueError(f'{heads} query heads do not share {groups} key-value heads evenly.')
  return IMPLEMENTATIONS[implementation](q_BTHK, k_BTGK, v_BTGK, segments_BT)


def choose(implementation: str, platform: str) -> tuple[str, str]:
  """Resolves 'auto' for a platform.

  Args:
    implementation: 'auto' or a name out of `IMPLEMENTATIONS`.
    platform: 'cpu', 'gpu' or 'tpu', of the devices that will run it.

  Returns:
    The name of the implementation and, to be printed, why it is that one.

  Raises:
    ValueError: an unknown name.
  """
  if implementation == 'auto':
    return 'xla', f'auto on {platform}: xla is the one implementation that respects segments here'
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(_unknown(implementation, ['auto', *IMPLEMENTATIONS]))
  return implementation, 'asked for'


def _xla(q_BTHK, k_BTGK, v_BTGK, segments_BT):
  """The reference: B·H·T·T scores in float32, on any platform.

  The R = H / G queries of a key-value head are laid along the position axis, which makes the scores
  one batched product, and rows are divided by their sum after the product with v, over K numbers
  instead of T: a third less time on a CPU than einsums over five axes and a softmax.
  """
  B, T, H, K = q_BTHK.shape
  G = k_BTGK.shape[2]
  R = H // G
  q_BGMK = (
    (q_BTHK * K**-0.5).reshape(B, T, G, R, K).transpose(0, 2, 3, 1, 4).reshape(B, G, R * T, K)
  )
  k_BGTK, v_BGTK = k_BTGK.swapaxes(1, 2), v_BTGK.swapaxes(1, 2)
  scores_BGMT = jnp.einsum('bgmk,bgsk->bgms', q_BGMK, k_BGTK, preferred_element_type=jnp.float32)
  positions_T = jnp.arange(T)
  seen_BTT = (positions_T[:, None] >= positions_T) & (
    segments_BT[:, :, None] == segments_BT[:, None, :]
  )
  scores_BGRTT = scores_BGMT.reshape(B, G, R, T, T)
  scores_BGRTT = jnp.where(seen_BTT[:, None, None], scores_BGRTT, _MASKED)
  highest_BGRT1 = jax.lax.stop_gradient(scores_BGRTT.max(-1, keepdims=True))
  weights_BGMT = jnp.exp(scores_BGRTT - highest_BGRT1).reshape(B, G, R * T, T)
  out_BGMK = jnp.einsum(
    'bgms,bgsk->bgmk',
    weights_BGMT.astype(v_BTGK.dtype),
    v_BGTK,
    preferred_element_type=jnp.float32,
  )
  out_BGMK = (out_BGMK / weights_BGMT.sum(-1, keepdims=True)).astype(q_BTHK.dtype)
  return out_BGMK.reshape(B, G, R, T, K).transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)


def _unknown(name, names):
  return f'DecoderConfig.attention is {name!r}.{nearest(name, names)} Allowed: {", ".join(names)}.'


IMPLEMENTATIONS = {'xla': _xla}
