"""Keys and values of earlier tokens, kept: the next token costs one position's work, not a row's.

`prefill` runs prompts of different lengths as one batch and keeps what their layers' attention read;
`extend` runs the tokens that follow. Both give the hidden states that the whole row would have without a
cache, up to float rounding. Layers are scanned, as in training.

Easy to get wrong: a slot is no position. Prompts lie in the first P slots, with padding before or after
them, and all rows write what follows to the same slot; the position of each slot's token is kept beside
it, -1 where there is none, and it alone decides who sees whom.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxlink.model.attention.reference import attend_where
from jaxlink.model.axes import named
from jaxlink.model.decoder import Decoder

NAMES = ('layers', 'batch', 'kv', None, 'head_size')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """What B rows remember, in S slots.

  Attributes:
    keys_LBGSK: in the compute dtype, after RoPE. Slots lie inside the heads: both products of a decoding
      step then read the memory as it lies.
    values_LBGSK: likewise.
    positions_BS: int32, of the token in each slot; -1 for padding and for slots not yet written.
  """

  keys_LBGSK: jax.Array
  values_LBGSK: jax.Array
  positions_BS: jax.Array


def prefill(
  model: Decoder, tokens_BT: jax.Array, positions_BT: jax.Array, slots: int
) -> tuple[jax.Array, Cache]:
  """Runs prompts, each one segment, and keeps their keys and values.

  Args:
    model: the decoder.
    tokens_BT: int32; of padding any id of the vocabulary.
    positions_BT: int32, 0, 1, … in each prompt, -1 for padding on either side of it.
    slots: S, room for the prompts and all tokens that will follow: T or more.

  Returns:
    Hidden states BTD, those of padding without meaning, and the cache.

  Raises:
    ValueError: there are fewer slots than T.
  """
  B, T = tokens_BT.shape
  if slots < T:
    raise ValueError(f'a cache of {slots} slots has no room for prompts of {T} tokens.')
  config = model.config
  empty = jnp.zeros((config.layers, B, config.G, slots, config.K), config.dtype)
  segments_BT = (positions_BT >= 0).astype(jnp.int32)

  def attend(q_BTHK, k_BTGK, v_BTGK, memory, index):
    out_BTHK = model.attend(q_BTHK, k_BTGK, v_BTGK, segments_BT)
    return out_BTHK, _write(memory, index, k_BTGK, v_BTGK, 0)

  memory = named(empty, *NAMES), named(empty, *NAMES)
  hidden_BTD, memory = model.run(tokens_BT, jnp.maximum(positions_BT, 0), attend, memory)
  free_BS = jnp.full((B, slots - T), -1, jnp.int32)
  return hidden_BTD, Cache(*memory, jnp.concatenate([positions_BT, free_BS], axis=1))


def extend(
  model: Decoder, cache: Cache, tokens_BT: jax.Array, positions_BT: jax.Array, slot: jax.Array
) -> tuple[jax.Array, Cache]:
  """Runs the tokens that follow: usually one of each row.

  Args:
    model: the decoder.
    cache: of the tokens before. Of tokens written, none has a position above those before it in its row.
    tokens_BT: int32.
    positions_BT: int32; -1 for a row that goes on no more.
    slot: int32 scalar, the first of the T slots to be written, not yet used.

  Returns:
    Hidden states BTD, and the cache with these tokens.
  """
  config = model.config
  kept_BS = jax.lax.dynamic_update_slice(cache.positions_BS, positions_BT, (0, slot))
  at_BT1, kept_B1S = positions_BT[:, :, None], kept_BS[:, None]
  seen_BTS = (kept_B1S >= 0) & (kept_B1S <= at_BT1)
  if config.window:
    seen_BTS &= kept_B1S > at_BT1 - config.window

  def attend(q_BTHK, k_BTGK, v_BTGK, memory, index):
    memory = _write(memory, index, k_BTGK, v_BTGK, slot)
    at, one = (index, 0, 0, 0, 0), (1, *memory[0].shape[1:])
    k_BGSK, v_BGSK = (jax.lax.dynamic_slice(kept, at, one)[0] for kept in memory)
    out_BTHK = attend_where(
      q_BTHK, k_BGSK.swapaxes(1, 2), v_BGSK.swapaxes(1, 2), seen_BTS,
      scale=config.K**-0.5, soft_cap=config.soft_cap,
    )  # fmt: skip
    return out_BTHK, memory

  memory = cache.keys_LBGSK, cache.values_LBGSK
  hidden_BTD, memory = model.run(tokens_BT, jnp.maximum(positions_BT, 0), attend, memory)
  return hidden_BTD, Cache(*memory, kept_BS)


def _write(memory, index, k_BTGK, v_BTGK, slot):
  def put(kept_LBGSK, new_BTGK):
    new_1BGTK = new_BTGK.swapaxes(1, 2)[None].astype(kept_LBGSK.dtype)
    at = (index, 0, 0, slot, 0)
    return named(jax.lax.dynamic_update_slice(kept_LBGSK, new_1BGTK, at), *NAMES)

  keys_LBGSK, values_LBGSK = memory
  return put(keys_LBGSK, k_BTGK), put(values_LBGSK, v_BTGK)
