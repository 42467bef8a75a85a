"""Flash attention on GPU: JAX's Pallas (Triton) kernel, which takes segments.

It has neither window nor soft cap nor a way to say where a part of the queries lies in its row, and
refuses them. Key-value heads are repeated for their query heads; their gradient is the sum.

cuDNN is not offered. `jax.nn.dot_product_attention` gives it no segments. Its packed layout, one layer
below, takes where each segment begins, but in JAX 0.10.2 it scales where keys begin by the number of
query heads, so that shared heads read other segments' keys without an error; and it needs a bound on
the segments of a row, which the data does not have.

Easy to get wrong: rows are padded to a multiple of a block, and the padding is segment 0 behind all
else: no position of the row sees it, and it sees itself, so its numbers are finite.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.gpu import attention

from jaxlink.model.attention import options

# Queries and keys of a block, forward and backward: the size at which JAX tests both passes on GPUs, with
# segments, for heads of 32 to 128. Triton multiplies no fewer than 16.
_BLOCK = 64
_HEAD_SIZES = (16, 128)


def refusal(wanted: options.Options) -> str:
  """Why this kernel cannot do it, naming the setting; '' where it can."""
  low, high = _HEAD_SIZES
  if wanted.window:
    return f'DecoderConfig.window is {wanted.window}, and it has none'
  if wanted.soft_cap:
    return f'DecoderConfig.soft_cap is {wanted.soft_cap:g}, and it has none'
  if wanted.sequence > 1:
    return f'MeshConfig.sequence is {wanted.sequence}, and it takes whole rows'
  if not low <= wanted.head_size <= high:
    return f'DecoderConfig.head_size is {wanted.head_size}, and it takes {low} to {high}'
  return ''


def attend(
  q_BTHK: jax.Array,
  k_BSGK: jax.Array,
  v_BSGK: jax.Array,
  segments_BT: jax.Array,
  wanted: options.Options,
) -> jax.Array:
  """Causal attention within segments."""
  T = q_BTHK.shape[1]

  def local(q_BTHK, k_BSGK, v_BSGK, segments_BT, _):
    pad = lambda x: jnp.pad(x, [(0, 0), (0, -T % _BLOCK)] + [(0, 0)] * (x.ndim - 2))  # noqa: E731
    shared = q_BTHK.shape[2] // k_BSGK.shape[2]
    k_BSHK, v_BSHK = (jnp.repeat(pad(x), shared, axis=2) for x in (k_BSGK, v_BSGK))
    static = _static(wanted.scale, wanted.interpret)
    return _kernel(pad(q_BTHK), k_BSHK, v_BSHK, pad(segments_BT), static)[:, :T]

  return options.per_shard(local, (), ())(q_BTHK, k_BSGK, v_BSGK, segments_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _kernel(q, k, v, segments, static):
  return attention.mha(q, k, v, segments, *static)


def _forward(q, k, v, segments, static):
  out, (*inputs, _, sums) = attention.mha.fwd(q, k, v, segments, *static)
  out, sums = (checkpoint_name(x, options.RESIDUALS) for x in (out, sums))
  return out, (*inputs, out, sums)


def _backward(static, kept, gradient):
  return attention.mha.bwd(*static, kept, gradient)


# The kernel's own rule, with a name on what it keeps.
_kernel.defvjp(_forward, _backward)


def _static(scale, interpret):
  """All arguments of `mha` behind the arrays, in their order."""
  blocks = attention.BlockSizes(
    block_q=_BLOCK, block_k=_BLOCK,
    block_q_dkv=_BLOCK, block_kv_dkv=_BLOCK, block_q_dq=_BLOCK, block_kv_dq=_BLOCK,
  )  # fmt: skip
  return (
    scale,
    True,  # causal
    blocks,
    'triton',  # the backward pass
    None,  # warps: by the size of a head
    2,  # stages
    None,  # grid: by the shapes
    interpret,
    False,  # debug
    False,  # return_residuals
  )
