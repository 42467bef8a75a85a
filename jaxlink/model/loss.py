"""Cross-entropy straight from hidden states, so that the B·T·V logits are never kept.

Hidden states and the head's weights go in; sums and counts come out, per row. The caller divides by
the global count of loss tokens: this file never averages.

The row is cut into chunks of C positions. Because the loss is one sum, its gradient with respect to
a chunk's logits is known as soon as the logits are: it is taken there and then, and the logits are
dropped. That is three products with the head instead of the four of a rematerialised scan.

Where a mesh splits the rows, a chunk takes as many positions of each part, so that all devices work
on every chunk.

Easy to get wrong: only `total` may be differentiated. The other sums are for reporting and carry no
gradient (they are stopped, not wrong).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxlink.config import configurable
from jaxlink.model.axes import named, ways

# Most bytes that the float32 logits of one chunk take on one device; see `positions_per_chunk`.
_CHUNK_BYTES = 2**30

# Far below any logit, and finite: exp gives exactly 0.
_NEVER = -1e30


@configurable
class LossConfig:
  """How the training loss is computed.

  Attributes:
    z_loss: coefficient of the mean of log²(sum of exp(logits)), which keeps logits from drifting;
      PaLM (arXiv 2204.02311, section 5) uses 1e-4. Reported apart from the loss.
    chunk: positions of each row, or of the part of it that a device holds, whose logits exist at once;
      0 chooses by `positions_per_chunk`.

  Raises:
    ValueError: either is negative.
  """

  z_loss: float = 0.0
  chunk: int = 0

  def __post_init__(self):
    if self.z_loss < 0:
      raise ValueError(f'LossConfig.z_loss is {self.z_loss}: it is a penalty, 0 or more.')
    if self.chunk < 0:
      raise ValueError(f'LossConfig.chunk is {self.chunk}: positions of a row, or 0 to choose.')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSums:
  """Sums over loss tokens, in nats.

  Attributes:
    total: float32, what is minimised: the sum of nll + z_loss · log² Z. The one to differentiate.
    nll_B: float32, the negative log-likelihood of each row.
    z_B: float32, the sum of log² Z of each row, without its coefficient.
    tokens_B: int32, loss tokens of each row.
  """

  total: jax.Array
  nll_B: jax.Array
  z_B: jax.Array
  tokens_B: jax.Array


def loss_sums(
  hidden_BTD: jax.Array,
  head_VD: jax.Array,
  labels_BT: jax.Array,
  mask_BT: jax.Array,
  *,
  z_loss: float = 0.0,
  chunk: int | None = None,
  tokenizer_size: int = 0,
) -> LossSums:
  """The loss of each row, summed over the tokens that count.

  The product with the head is taken in the dtype of `hidden_BTD`, everything after it in float32;
  the gradient of the head is accumulated in float32.

  Args:
    hidden_BTD: normalised output of the last layer.
    head_VD: float32 output embedding.
    labels_BT: int32; where the mask is False any value will do. A counted label outside 0 to V - 1
      makes the row's nll NaN, which the training step notices.
    mask_BT: bool, the loss tokens.
    z_loss: coefficient of log² Z.
    chunk: positions of each row whose logits exist at once; None for all T. It need not divide T.
    tokenizer_size: entries of V that are tokens, the rest being padding; 0 for all. A counted label beyond
      is none, as above.
  """
  length = labels_BT.shape[1]
  settings = float(z_loss), min(chunk or length, length), tokenizer_size or head_VD.shape[0]
  sums = _sums(hidden_BTD, head_VD, labels_BT, mask_BT, *settings)
  stop = jax.lax.stop_gradient
  return LossSums(
    total=sums.total, nll_B=stop(sums.nll_B), z_B=stop(sums.z_B), tokens_B=sums.tokens_B
  )


def without_padding(logits: jax.Array, size: int) -> jax.Array:
  """Logits over the last axis, those of entries from `size` on so low that their probability is 0."""
  V = logits.shape[-1]
  return logits if size in (0, V) else jnp.where(jnp.arange(V) < size, logits, _NEVER)


def by_source(values_B: jax.Array, source_B: jax.Array, n_sources: int) -> jax.Array:
  """Sums the rows of each source: (n_sources, …) from (B, …), in the dtype of the values."""
  member_BN = source_B[:, None] == jnp.arange(n_sources)
  member_BN = member_BN.reshape(member_BN.shape + (1,) * (values_B.ndim - 1))
  return jnp.where(member_BN, values_B[:, None], 0).sum(0, dtype=values_B.dtype)


def positions_per_chunk(
  config: LossConfig, rows: int, length: int, width: int, vocabulary: int
) -> int:
  """How many positions of each row to take at once.

  Unless the config says, a chunk has about 2·D tokens a device, whatever V: each chunk reads and
  writes the head's gradient (V·D), which then costs less than the chunk's own logits. On a CPU with
  D 256 and V 8,192 that is also the fastest, for its logits stay near the cores. For wide models
  with large vocabularies the logits are held to 1 GiB.

  Args:
    config: its `chunk`, unless that is 0.
    rows: rows of the batch on one device.
    length: T, or what of it one device holds.
    width: D.
    vocabulary: entries of V on one device.
  """
  if config.chunk:
    return min(config.chunk, length)
  tokens = min(2 * width, _CHUNK_BYTES // (4 * vocabulary))
  chunks = -(-rows * length // tokens)
  return -(-length // min(chunks, length))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _sums(hidden_BTD, head_VD, labels_BT, mask_BT, *settings):
  return _scan(hidden_BTD, head_VD, labels_BT, mask_BT, *settings, gradient=False)[0]


def _forward(hidden_BTD, head_VD, labels_BT, mask_BT, *settings):
  return _scan(hidden_BTD, head_VD, labels_BT, mask_BT, *settings, gradient=True)


def _backward(z_loss, chunk, size, gradients, cotangent):
  del z_loss, chunk, size
  dhidden_BTD, dhead_VD = gradients
  scale = cotangent.total
  return (dhidden_BTD * scale).astype(dhidden_BTD.dtype), dhead_VD * scale, None, None


_sums.defvjp(_forward, _backward)


def _scan(hidden_BTD, head_VD, labels_BT, mask_BT, z_loss, chunk, size, *, gradient):
  """LossSums and, if asked for, d total / d (hidden_BTD, head_VD)."""
  B, T, D = hidden_BTD.shape
  work_VD = head_VD.astype(hidden_BTD.dtype)
  zero_DV = jnp.zeros(head_VD.shape[::-1], jnp.float32) if gradient else None

  def body(dhead_DV, xs):
    hidden_BCD, labels_BC, mask_BC = xs
    sums, dlogits_BCV = _chunk(hidden_BCD, work_VD, labels_BC, mask_BC, z_loss, size)
    dhidden_BCD = None
    if gradient:
      dhidden_BCD = jnp.einsum('bcv,vd->bcd', dlogits_BCV, work_VD)
      # As DV: on a CPU this product takes two thirds of the time of its transpose.
      more_DV = jnp.einsum(
        'bcd,bcv->dv', hidden_BCD, dlogits_BCV, preferred_element_type=jnp.float32
      )
      # A gradient is laid out as its parameter, else the scan would carry it whole on each device.
      dhead_DV = named(dhead_DV + more_DV, 'embed', 'vocab')
    return dhead_DV, (sums, dhidden_BCD)

  if chunk == T:
    dhead_DV, (sums, dhidden_BTD) = body(zero_DV, (hidden_BTD, labels_BT, mask_BT))
    return sums, (dhidden_BTD, dhead_DV.T) if gradient else None

  S = ways('sequence')  # parts of a row, each on a device of its own
  C = -(-chunk // S)  # positions of a part in one chunk
  n = -(-T // (S * C))

  def cut(x_BT):
    x_BST = x_BT.reshape(B, S, T // S, *x_BT.shape[2:])
    widths = [(0, 0), (0, 0), (0, n * C - T // S)] + [(0, 0)] * (x_BT.ndim - 2)
    x_BSnC = jnp.pad(x_BST, widths).reshape(B, S, n, C, *x_BT.shape[2:])
    return jnp.moveaxis(x_BSnC, 2, 0).reshape(n, B, S * C, *x_BT.shape[2:])

  dhead_DV, (sums, dhidden_nBCD) = jax.lax.scan(
    body, zero_DV, (cut(hidden_BTD), cut(labels_BT), cut(mask_BT))
  )
  sums = jax.tree.map(lambda x: x.sum(0), sums)
  if not gradient:
    return sums, None
  dhidden_BSnCD = jnp.moveaxis(dhidden_nBCD.reshape(n, B, S, C, D), 0, 2)
  dhidden_BTD = dhidden_BSnCD.reshape(B, S, n * C, D)[:, :, : T // S].reshape(B, T, D)
  return sums, (dhidden_BTD, dhead_DV.T)


def _chunk(hidden_BCD, head_VD, labels_BC, mask_BC, z_loss, size):
  """LossSums of one chunk, and d total / d logits in the dtype of the hidden states."""
  V = head_VD.shape[0]
  logits_BCV = jnp.einsum('bcd,vd->bcv', hidden_BCD, head_VD, preferred_element_type=jnp.float32)
  logits_BCV = without_padding(named(logits_BCV, 'batch', 'sequence', 'vocab'), size)
  log_z_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
  label_logit_BC = jnp.take_along_axis(logits_BCV, labels_BC[..., None], axis=-1)[..., 0]
  known_BC = (labels_BC >= 0) & (labels_BC < size)
  nll_BC = jnp.where(known_BC, log_z_BC - label_logit_BC, jnp.nan)
  nll_B = jnp.where(mask_BC, nll_BC, 0).sum(-1)
  z_B = jnp.where(mask_BC, jnp.square(log_z_BC), 0).sum(-1)
  sums = LossSums(
    total=nll_B.sum() + z_loss * z_B.sum(),
    nll_B=nll_B,
    z_B=z_B,
    tokens_B=mask_BC.sum(-1, dtype=jnp.int32),
  )
  hit_BCV = labels_BC[..., None] == jnp.arange(V)
  slope_BC = 1 + 2 * z_loss * log_z_BC
  dlogits_BCV = jnp.exp(logits_BCV - log_z_BC[..., None]) * slope_BC[..., None] - hit_BCV
  dlogits_BCV = jnp.where(mask_BC[..., None], dlogits_BCV, 0)
  return sums, dlogits_BCV.astype(hidden_BCD.dtype)
