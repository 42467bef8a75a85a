"""Splash attention on TPU: JAX's Pallas kernel, with segments, window, soft cap and shared heads.

Blocks of the row that nobody may see (the future, or before the window) are skipped; what the
segments forbid inside the others is masked. With a sequence axis each device gets the blocks of its
own queries, cut from one description of the whole row.

Easy to get wrong: rows are padded to a multiple of 128, and the padding is segment 0 behind all
else: no position of the row sees it, and it sees itself, so its numbers are finite. A row that is
split over devices is not padded, since that would move positions from one device to another.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel,
  splash_attention_mask,
)

from jaxlink.model.attention import options

# The unit of the kernel: the lanes of a TPU's vector unit.
_LANES = 128

# Scores of 512 · 512 in float32 are 1 MiB of the 16 MiB of fast memory that a kernel gets unless asked,
# which leaves room for two buffers of each input, also for heads of 256. Smaller blocks read keys
# more often; larger ones skip less of the causal triangle.
_BLOCK = 512


def attend(
  q_BTHK: jax.Array,
  k_BSGK: jax.Array,
  v_BSGK: jax.Array,
  segments_BT: jax.Array,
  wanted: options.Options,
) -> jax.Array:
  """Causal attention within segments.

  Raises:
    ValueError: rows that are split over devices into parts that are no multiple of 128.
  """
  T, H = q_BTHK.shape[1:3]
  if wanted.sequence > 1 and T % (wanted.sequence * _LANES):
    raise ValueError(
      f'Rows of {T} tokens, and MeshConfig.sequence is {wanted.sequence}: with DecoderConfig.attention '
      f"'splash' each part is a multiple of {_LANES} tokens."
    )
  padding = -T % _LANES
  kernel = _kernel(
    T + padding, H, wanted.sequence, wanted.window, wanted.soft_cap, wanted.interpret
  )
  leaves, form = jax.tree.flatten(kernel)

  def local(q_BTHK, k_BSGK, v_BSGK, segments_BT, segments_BS, *leaves):
    kernel = jax.tree.unflatten(form, leaves)
    pad = lambda x: jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))  # noqa: E731
    heads_first = lambda x: pad(x).swapaxes(1, 2)  # noqa: E731
    segments = splash_attention_kernel.SegmentIds(pad(segments_BT), pad(segments_BS))
    out_BHTK = jax.vmap(kernel)(
      heads_first(q_BTHK * wanted.scale), heads_first(k_BSGK), heads_first(v_BSGK), segments
    )
    return out_BHTK.swapaxes(1, 2)[:, : q_BTHK.shape[1]]

  # Blocks (head, query, key) are cut along the queries, and so are the positions of the queries.
  names = [(None, 'sequence', None) if leaf.ndim == 3 else ('sequence',) for leaf in leaves]
  return options.per_shard(local, leaves, names)(q_BTHK, k_BSGK, v_BSGK, segments_BT)


@functools.lru_cache(maxsize=16)
def _kernel(length, heads, shards, window, soft_cap, interpret):
  """The kernel of rows of this length, its arrays in NumPy, so that any trace can take them."""
  shape = (length, length)
  if window:
    mask = splash_attention_mask.LocalMask(shape, window_size=(window - 1, 0), offset=0)
  else:
    mask = splash_attention_mask.CausalMask(shape)
  queries, keys = _block(length // shards), _block(length)
  with jax.ensure_compile_time_eval():
    kernel = splash_attention_kernel.make_splash_mha(
      splash_attention_mask.MultiHeadMask([mask] * heads),
      head_shards=1,
      q_seq_shards=shards,
      block_sizes=splash_attention_kernel.BlockSizes(
        block_q=queries, block_kv=keys, block_kv_compute=keys,
        block_q_dkv=queries, block_kv_dkv=keys, block_kv_dkv_compute=keys,
        block_q_dq=queries, block_kv_dq=keys,
      ),
      attn_logits_soft_cap=soft_cap or None,
      residual_checkpoint_name=options.RESIDUALS,
      interpret=interpret,
    )  # fmt: skip
    return jax.tree.map(np.asarray, kernel)


def _block(length):
  """The largest multiple of the unit that divides the length and is no larger than `_BLOCK`."""
  return max(size for size in range(_LANES, _BLOCK + 1, _LANES) if length % size == 0)
