"""The reference: B·H·T·S scores in float32, on any platform, with every option.

What each kernel is held to. `attend` takes a row's queries, keys and values; `attend_where` takes
which of S keys each of T queries sees, for whoever keeps keys from before.

Easy to get wrong: a window is counted in positions of the row, which within a segment is the same
as positions of the document.
"""

import jax
import jax.numpy as jnp

from jaxlink.model.attention import options

# Far below any score, and finite: exp gives exactly 0, and no inf - inf in the gradient.
_MASKED = -1e30


def attend(
  q_BTHK: jax.Array,
  k_BSGK: jax.Array,
  v_BSGK: jax.Array,
  segments_BT: jax.Array,
  wanted: options.Options,
) -> jax.Array:
  """Causal attention within segments; each device has its part of the queries and all keys."""

  def local(q_BTHK, k_BSGK, v_BSGK, segments_BT, segments_BS, positions_T):
    positions_S = jnp.arange(k_BSGK.shape[1])
    seen_TS = positions_T[:, None] >= positions_S
    if wanted.window:
      seen_TS &= positions_S > positions_T[:, None] - wanted.window
    seen_BTS = seen_TS & (segments_BT[:, :, None] == segments_BS[:, None, :])
    return attend_where(
      q_BTHK, k_BSGK, v_BSGK, seen_BTS, scale=wanted.scale, soft_cap=wanted.soft_cap
    )

  positions_T = jnp.arange(q_BTHK.shape[1], dtype=jnp.int32)
  return options.per_shard(local, (positions_T,), (('sequence',),))(
    q_BTHK, k_BSGK, v_BSGK, segments_BT
  )


def attend_where(
  q_BTHK: jax.Array,
  k_BSGK: jax.Array,
  v_BSGK: jax.Array,
  seen_BTS: jax.Array,
  *,
  scale: float,
  soft_cap: float = 0.0,
) -> jax.Array:
  """Softmax(scale·q·k)·v over the keys that each query sees, at least one.

  The R = H / G queries of a key-value head are laid along the position axis, which makes the scores
  one batched product, and rows are divided by their sum after the product with v, over K numbers
  instead of S: a third less time on a CPU than einsums over five axes and a softmax.

  Args:
    q_BTHK: queries; head h reads key-value head h // (H / G).
    k_BSGK: keys.
    v_BSGK: values.
    seen_BTS: booleans.
    scale: multiplies the queries.
    soft_cap: c of c·tanh(score / c); 0 for none.

  Returns:
    BTHK in the dtype of q. Scores and softmax are float32.
  """
  B, T, H, K = q_BTHK.shape
  S, G = k_BSGK.shape[1:3]
  R = H // G
  q_BGMK = (q_BTHK * scale).reshape(B, T, G, R, K).transpose(0, 2, 3, 1, 4).reshape(B, G, R * T, K)
  k_BGSK, v_BGSK = k_BSGK.swapaxes(1, 2), v_BSGK.swapaxes(1, 2)
  scores_BGMS = jnp.einsum('bgmk,bgsk->bgms', q_BGMK, k_BGSK, preferred_element_type=jnp.float32)
  if soft_cap:
    scores_BGMS = soft_cap * jnp.tanh(scores_BGMS / soft_cap)
  scores_BGRTS = scores_BGMS.reshape(B, G, R, T, S)
  scores_BGRTS = jnp.where(seen_BTS[:, None, None], scores_BGRTS, _MASKED)
  highest_BGRT1 = jax.lax.stop_gradient(scores_BGRTS.max(-1, keepdims=True))
  weights_BGMS = jnp.exp(scores_BGRTS - highest_BGRT1).reshape(B, G, R * T, S)
  out_BGMK = jnp.einsum(
    'bgms,bgsk->bgmk',
    weights_BGMS.astype(v_BGSK.dtype),
    v_BGSK,
    preferred_element_type=jnp.float32,
  )
  out_BGMK = (out_BGMK / weights_BGMS.sum(-1, keepdims=True)).astype(q_BTHK.dtype)
  return out_BGMK.reshape(B, G, R, T, K).transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)
