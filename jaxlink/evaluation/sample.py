"""A few generated lines in the loop, to see with one's own eyes what the model has learned.

Every new token is drawn after a forward pass over the whole row: right and simple, and enough for a
handful of short lines.

Easy to get wrong: shapes. Prompts of any length share one compiled function, because rows have a fixed
length and their prompts' lengths are data.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlink import metrics
from jaxlink.data.tokenizer import Tokenizer

Logits = Callable[[object, jax.Array, jax.Array, jax.Array], jax.Array]


def make_sampler(logits: Logits, *, eos: int, temperature: float) -> Callable:
  """Returns a jitted sampler.

  Args:
    logits: (params, tokens_BT, segments_BT, positions_BT) → float32 logits_BTV.
    eos: after it, a row stays as it is.
    temperature: 0 takes the likeliest token.

  Returns:
    A function (params, tokens_BT, lengths_B, seed, step) → tokens_BT with the rows filled up to T.
  """

  @jax.jit
  def sample(params, tokens_BT, lengths_B, seed, step):
    length = tokens_BT.shape[1]
    segments_BT = jnp.ones_like(tokens_BT)
    positions_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), tokens_BT.shape)
    key = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), step)

    def extend(at, tokens_BT):
      logits_BV = logits(params, tokens_BT, segments_BT, positions_BT)[:, at - 1]
      if temperature:
        drawn_B = jax.random.categorical(jax.random.fold_in(key, at), logits_BV / temperature)
      else:
        drawn_B = jnp.argmax(logits_BV, axis=-1)
      # Not the prompt's first token: without a BOS of its own, a vocabulary opens a text with EOS.
      ended_B = (tokens_BT[:, at - 1] == eos) & (at > lengths_B)
      drawn_B = jnp.where(ended_B, eos, drawn_B).astype(jnp.int32)
      return tokens_BT.at[:, at].set(jnp.where(at < lengths_B, tokens_BT[:, at], drawn_B))

    return jax.lax.fori_loop(1, length, extend, tokens_BT)

  return sample


def prompt_rows(
  tokenizer: Tokenizer, prompts: Sequence[str], *, bos: int, new_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns tokens_BT, prompts with room for the longest one's continuation, and lengths_B."""
  rows = [[bos, *tokenizer.encode(prompt)] for prompt in prompts]
  lengths_B = np.array([len(row) for row in rows], np.int32)
  tokens_BT = np.zeros((len(rows), int(lengths_B.max()) + new_tokens), np.int32)
  for row, ids in zip(tokens_BT, rows, strict=True):
    row[: len(ids)] = ids
  return tokens_BT, lengths_B


def generate(
  sampler: Callable, params: object, tokenizer: Tokenizer, prompts: Sequence[str], *,
  bos: int, new_tokens: int, seed: int, step: int,
) -> list[str]:  # fmt: skip
  """Continues prompts.

  Args:
    sampler: from `make_sampler`.
    params: of the model.
    tokenizer: of the model.
    prompts: texts to continue; '' starts a document.
    bos: id that opens a document.
    new_tokens: added to the longest prompt.
    seed: of the draws, 0 or more, below 2³².
    step: another one draws anew.

  Returns:
    Prompts with their continuations.
  """
  rows = prompt_rows(tokenizer, prompts, bos=bos, new_tokens=new_tokens)
  filled_BT = metrics.fetch(sampler(params, *rows, np.uint32(seed), np.uint32(step)))
  # Decoding leaves specials out, so a row that ended is cut where its EOS is by itself.
  return [tokenizer.decode(row) for row in filled_BT]
