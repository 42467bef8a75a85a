"""What a cache keeps is what the whole row would have seen: the same numbers, token by token."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink.model import cache, decoder
from jaxlink.model.mup import MupConfig
from tests.model.test_decoder import SMALL, make

LENGTHS = (3, 11, 1, 6)  # of the prompts
ROOM, MORE = 11, 6  # of the longest, and tokens that follow
ROWS = np.random.default_rng(5).integers(0, SMALL.vocabulary, (4, ROOM + MORE)).astype(np.int32)

VARIANTS = {
  'llama': SMALL,
  'qwen3 with window and soft cap': dataclasses.replace(
    SMALL, qk_norm=True, head_size=16, kv_heads=1, window=4, soft_cap=1.5
  ),
  'muP with a head of its own': dataclasses.replace(
    SMALL, head_size=32, kv_heads=0, tied_embeddings=False, rope_theta=500.0,
    mup=MupConfig(base_width=16, base_layers=2),
  ),
}  # fmt: skip


def params(config):
  """Milder than `make`'s, whose scores are so sharp that two whole passes of muP's differ by 3e-5."""
  return jax.tree.map(lambda x: 0.6 * x, make(config))


@functools.cache
def whole(config):
  """Logits of every row in one pass, nothing kept."""
  graph, _, _ = decoder.abstract_decoder(config)

  @jax.jit
  def run(weights, tokens_BT):
    model = decoder.bind(graph, weights)
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    return model.logits(model(tokens_BT, jnp.ones_like(tokens_BT), positions_BT))

  return np.asarray(run(params(config), ROWS))


@functools.cache
def kept(config, at_once=1):
  """A function of (tokens, positions, last) of prompts: logits of the last, and of what follows."""
  graph, _, _ = decoder.abstract_decoder(config)

  @jax.jit
  def run(weights, tokens_BT, positions_BT, last_B, following_BN):
    model = decoder.bind(graph, weights)
    hidden_BTD, memory = cache.prefill(model, tokens_BT, positions_BT, ROOM + MORE)
    rows = jnp.arange(len(last_B))
    first = model.logits(hidden_BTD[rows, last_B][:, None])
    at_B1 = positions_BT[rows, last_B][:, None]

    def one(memory, n):
      tokens = jax.lax.dynamic_slice_in_dim(following_BN, n, at_once, axis=1)
      positions = at_B1 + 1 + n + jnp.arange(at_once)
      hidden, memory = cache.extend(model, memory, tokens, positions, ROOM + n)
      return memory, model.logits(hidden)

    _, more = jax.lax.scan(one, memory, jnp.arange(0, MORE, at_once))
    more = more.swapaxes(0, 1).reshape(len(last_B), MORE, -1)
    return jnp.concatenate([first, more], axis=1)

  return functools.partial(run, params(config))


def prompts(side, padding=0):
  tokens = np.full((4, ROOM), padding, np.int32)
  positions = np.full((4, ROOM), -1, np.int32)
  last = []
  for row, length in enumerate(LENGTHS):
    where = slice(0, length) if side == 'right' else slice(ROOM - length, ROOM)
    tokens[row, where] = ROWS[row, :length]
    positions[row, where] = np.arange(length)
    last.append(where.stop - 1)
  following = np.stack([ROWS[row, n : n + MORE] for row, n in enumerate(LENGTHS)])
  return tokens, positions, np.array(last, np.int32), following


@pytest.mark.parametrize('name', VARIANTS)
def test_cached_logits_are_those_of_the_whole_row_whichever_side_is_padded(name):
  wanted = np.stack([whole(VARIANTS[name])[row, n - 1 : n + MORE] for row, n in enumerate(LENGTHS)])
  for side in ('right', 'left'):
    found = np.asarray(kept(VARIANTS[name])(*prompts(side)))
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), side


def test_several_tokens_at_a_time_are_causal_among_themselves():
  one, three = (np.asarray(kept(SMALL, n)(*prompts('right'))) for n in (1, 3))
  assert np.abs(one - three).max() <= 1e-5 * np.abs(one).max()


def test_padding_changes_no_bit():
  for side in ('right', 'left'):
    zeros, others = (np.asarray(kept(SMALL)(*prompts(side, padding))) for padding in (0, 96))
    np.testing.assert_array_equal(zeros, others)


def test_a_cache_without_room_for_its_prompts_is_refused():
  graph, _, _ = decoder.abstract_decoder(SMALL)
  tokens, positions, _, _ = prompts('right')
  with pytest.raises(ValueError, match='a cache of 10 slots has no room for prompts of 11 tokens'):
    cache.prefill(decoder.bind(graph, params(SMALL)), tokens, positions, 10)
