"""One token drawn from logits: the likeliest, or by temperature, top-k and top-p.

Easy to get wrong: the order. Temperature first, then top-k, then top-p of what top-k left, as elsewhere;
and top-p keeps the token that crosses the line, so that at least one is left.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How tokens are drawn.

  Attributes:
    temperature: logits are divided by it, so it is 0.0001 or more; 0 takes the likeliest token.
    top_p: only the likeliest tokens whose probabilities sum to it (nucleus sampling, arXiv 1904.09751);
      1 keeps all.
    top_k: only so many of the likeliest tokens; 0 keeps all.

  Raises:
    ValueError: a value out of range, or top_p and top_k with temperature 0, which has no use for them.
  """

  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0

  def __post_init__(self):
    if self.temperature != 0 and not 1e-4 <= self.temperature < float('inf'):
      raise ValueError(
        f'temperature is {self.temperature}: it is 0.0001 or more, or 0, which takes the likeliest token.'
      )
    if not 0 < self.top_p <= 1:
      raise ValueError(
        f'top_p is {self.top_p}: it is above 0 and at most 1, which keeps all tokens.'
      )
    if self.top_k < 0:
      raise ValueError(f'top_k is {self.top_k}: it is 1 or more; 0 keeps all tokens.')
    if self.greedy and (self.top_p < 1 or self.top_k):
      raise ValueError(
        f'top_p is {self.top_p} and top_k is {self.top_k}, which have no use at temperature 0: '
        'leave them out, or give a temperature.'
      )

  @property
  def greedy(self) -> bool:
    """Whether the likeliest token is taken, so that nothing is drawn."""
    return self.temperature == 0


def draw(logits_BV: jax.Array, keys_B: jax.Array, sampling: Sampling) -> jax.Array:
  """A token for each row, each with its own key.

  Args:
    logits_BV: float32; -inf for what may not be drawn.
    keys_B: typed PRNG keys.
    sampling: how.

  Returns:
    int32 B.
  """
  if sampling.greedy:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  logits_BV = keep(logits_BV / sampling.temperature, sampling.top_p, sampling.top_k)
  return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def keep(logits_BV: jax.Array, top_p: float, top_k: int) -> jax.Array:
  """The logits with -inf for what top-k and top-p leave out; ties at their edge stay."""
  if 0 < top_k < logits_BV.shape[-1]:
    logits_BV = _cut(logits_BV, lambda seen_BV: seen_BV.sum(-1) >= top_k)
  if top_p < 1:
    shares_BV = jax.nn.softmax(logits_BV, axis=-1)
    logits_BV = _cut(logits_BV, lambda seen_BV: jnp.where(seen_BV, shares_BV, 0).sum(-1) >= top_p)
  return logits_BV


def _cut(logits_BV, enough):
  """Leaves the fewest of the likeliest tokens that are `enough`.

  The least logit to keep is found bit by bit, in 32 passes over V: on a CPU, a sort of 8,192 logits makes
  sampling from a small model five times slower.
  """
  bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.int32)
  order_BV = jnp.where(
    bits_BV < 0, bits_BV ^ 0x7FFFFFFF, bits_BV
  )  # integers in the order of the floats

  def halve(_, bounds):
    low_B, high_B = bounds
    middle_B = (low_B | high_B) - ((low_B ^ high_B) >> 1)  # rounded up, without overflow
    enough_B = enough(order_BV >= middle_B[:, None])
    return jnp.where(enough_B, middle_B, low_B), jnp.where(enough_B, high_B, middle_B - 1)

  limits = jnp.iinfo(jnp.int32)
  rows = logits_BV.shape[:1]
  bounds = jnp.full(rows, limits.min, jnp.int32), jnp.full(rows, limits.max, jnp.int32)
  least_B, _ = jax.lax.fori_loop(0, 32, halve, bounds)
  return jnp.where(order_BV >= least_B[:, None], logits_BV, -jnp.inf)
