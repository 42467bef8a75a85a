"""Continues rows of token ids: batched, with a cache, compiled once for each shape, on a mesh.

Prompts of any length go in, their continuations come out. Prompts are sorted by length, cut into batches,
and each batch is rounded up to a shape of few: rows, prompt length and new tokens to powers of two. Two
programs belong to a shape: one runs the prompts and draws the first token, one draws up to so many more
in a single loop on the device, which ends early when all rows have ended.

Easy to get wrong: what a row's draws depend on. On the seed, on the row's stream and on the position of
the token, and on nothing else: not on the batch it happens to be in, its place there, the padding, or the
mesh (but for rounding of the logits, which no seed can undo).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink import metrics
from jaxlink.generation.draw import Sampling, draw
from jaxlink.model import cache as cache_lib
from jaxlink.model import decoder
from jaxlink.model.axes import named, placed_by
from jaxlink.model.shape import DecoderConfig

CHUNK = 32  # tokens between two looks of the host at what was drawn
_LEAST = 16  # smallest room for prompts and for new tokens
_NOTHING = -1  # in place of a token after a row has ended

# A token is one position: nothing to split along a row.
_RULES = {**mesh_lib.RULES, 'sequence': ()}

# (index of each row among the prompts, what it has so far) → which rows shall end.
Watch = Callable[[Sequence[int], Sequence[list[int]]], Sequence[bool]]


@dataclasses.dataclass(frozen=True)
class Continuation:
  """What follows a prompt.

  Attributes:
    ids: new tokens, without the EOS.
    ended: 'eos', 'length', or 'stop' where the watch ended it.
  """

  ids: list[int]
  ended: str


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
  """What the device keeps between two chunks; `out_BN` has `count` tokens, the last not yet in the cache."""

  cache: cache_lib.Cache
  keys_B: jax.Array
  lengths_B: jax.Array
  done_B: jax.Array
  out_BN: jax.Array
  count: jax.Array


class Sampler:
  """Continues rows with a model; called alike on all hosts.

  Args:
    model: resolved.
    mesh: rows are split over `data` and `fsdp`, heads over `tensor`. The parameters lie on it.
    eos: the token that ends a row.
    vocabulary: ids that may be drawn, from 0; the rest of the model's is padding.
    sampling: how tokens are drawn.
    batch: most rows at a time, rounded up to what the mesh splits.

  Raises:
    ValueError: a batch below 1, or a vocabulary beyond the model's.
  """

  def __init__(
    self, model: DecoderConfig, mesh: jax.sharding.Mesh, *, eos: int, vocabulary: int,
    sampling: Sampling, batch: int = 32,
  ):  # fmt: skip
    if batch < 1:
      raise ValueError(f'batch is {batch}: it is 1 or more.')
    if not eos < vocabulary <= model.vocabulary:
      raise ValueError(
        f"vocabulary is {vocabulary}: it is above the EOS, {eos}, and at most the model's, "
        f'{model.vocabulary}.'
      )
    self.model, self.mesh, self.sampling = model, mesh, sampling
    self._eos, self._vocabulary = eos, vocabulary
    self._batch = self._rows(batch)
    self._graph = decoder.abstract_decoder(model)[0]
    self._placement = mesh_lib.Placement(mesh, _RULES)
    self._compiled: dict[tuple[int, int, int], tuple[Any, Any]] = {}

  def shapes(self, lengths: Sequence[int], tokens: int) -> list[tuple[int, int, int]]:
    """Rows, prompt tokens and new tokens of each shape that prompts of these lengths need."""
    batches = self._batches(lengths)
    return list(dict.fromkeys(self._shape(lengths, batch, tokens) for batch in batches))

  def check(self, longest: int, tokens: int) -> None:
    """Raises ValueError where prompts of so many tokens cannot be continued by so many."""
    most = self.model.max_length
    if tokens < 1:
      raise ValueError(f'{tokens} tokens are asked for: it is 1 or more.')
    if longest > most:
      raise ValueError(
        f'a prompt has {longest:,} tokens, with what opens a text, and DecoderConfig.max_length of this '
        f'model is {most:,}.'
      )
    if longest + tokens > most:
      raise ValueError(
        f'a prompt has {longest:,} tokens, with what opens a text, and {tokens:,} more are asked for: '
        f'DecoderConfig.max_length of this model is {most:,}, which leaves room for {most - longest:,}.'
      )

  def prepare(self, params: Any, lengths: Sequence[int], tokens: int) -> None:
    """Compiles what `__call__` will need for prompts of these lengths.

    Args:
      params: of the model, or `jax.ShapeDtypeStruct`s with their shardings.
      lengths: tokens of each prompt.
      tokens: new ones.
    """
    for shape in self.shapes(lengths, tokens):
      self._programs(params, *shape)

  def __call__(
    self, params: Any, prompts: Sequence[Sequence[int]], *, tokens: int, seed: int,
    streams: Sequence[tuple[int, int, int]] | None = None, watch: Watch | None = None, chunk: int = CHUNK,
  ) -> list[Continuation]:  # fmt: skip
    """Continues prompts.

    Args:
      params: of the model, on the mesh.
      prompts: ids of each, with what opens a text; one or more.
      tokens: most new ones of each row.
      seed: of the draws, 0 or more, below 2³².
      streams: three numbers of each row, 0 or more, below 2³², by which its draws differ from other rows';
        by default its index and zeros.
      watch: sees what the rows have every `chunk` tokens, and may end them.
      chunk: tokens between two calls of the watch.

    Returns:
      A continuation of each prompt, in their order.

    Raises:
      ValueError: an empty prompt, an id outside the model's vocabulary, a prompt too long, a seed out of
        range.
    """
    if not 0 <= seed < 2**32:
      raise ValueError(f'seed is {seed}: it is 0 or more, below 2**32.')
    for index, ids in enumerate(prompts):
      if not len(ids):
        raise ValueError(
          f'prompt {index} has no tokens: it begins at least with what opens a text.'
        )
      if not 0 <= min(ids) <= max(ids) < self.model.vocabulary:
        raise ValueError(f"prompt {index} has ids outside the model's {self.model.vocabulary:,}.")
    lengths = [len(ids) for ids in prompts]
    self.check(max(lengths, default=0), tokens)
    streams = [(index, 0, 0) for index in range(len(prompts))] if streams is None else streams
    found: dict[int, Continuation] = {}
    for batch in self._batches(lengths):
      rows, room, new = self._shape(lengths, batch, tokens)
      programs = self._programs(params, rows, room, new)
      arrays = _arrays([prompts[i] for i in batch], [streams[i] for i in batch], rows, room)
      found |= zip(
        batch,
        self._run(programs, params, arrays, tokens, seed, batch, watch, chunk),
        strict=True,
      )
    return [found[index] for index in range(len(prompts))]

  def _run(self, programs, params, arrays, tokens, seed, batch, watch, chunk):
    prefill, extend = programs
    put = self._put
    tokens_BP, lengths_B, streams_B3, done_B = (put(a, split=True) for a in arrays)
    state, report = prefill(
      params, tokens_BP, lengths_B, streams_B3, done_B, put(np.uint32(seed), split=False)
    )
    stopped = np.zeros(len(arrays[0]), bool)

    def extended(limit):
      return extend(params, state, put(stopped, split=True), put(np.int32(limit), split=False))

    if watch is None:
      state, report = extended(tokens)
    while True:
      out_BN, done_B, count = metrics.fetch(report)
      so_far = [_taken(row, self._eos) for row in out_BN[: len(batch)]]
      if watch is not None:
        asked = watch(batch, [ids for ids, _ in so_far])
        stopped[: len(batch)] |= np.array(asked, bool) & ~np.array([e for _, e in so_far])
      if count >= tokens or np.all(done_B | stopped):
        break
      state, report = extended(min(tokens, int(count) + chunk))
    for (ids, ended), stop in zip(so_far, stopped, strict=False):
      yield Continuation(ids, 'eos' if ended else 'stop' if stop else 'length')

  def _programs(self, params, rows, room, new):
    """The two executables of a shape."""
    if (rows, room, new) not in self._compiled:
      abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
      )
      whole, split = mesh_lib.replicated(self.mesh), mesh_lib.batch_sharding(self.mesh)
      row = lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=split)  # noqa: E731
      one = lambda dtype: jax.ShapeDtypeStruct((), dtype, sharding=whole)  # noqa: E731
      given = (
        row(jnp.int32, room), row(jnp.int32), row(jnp.uint32, 3), row(jnp.bool_), one(jnp.uint32),
      )  # fmt: skip

      def prefill(*arguments):
        return self._prefill(*arguments, new=new)

      memory = jax.sharding.NamedSharding(self.mesh, mesh_lib.spec(cache_lib.NAMES, _RULES))
      placed = _State(cache_lib.Cache(memory, memory, split), split, split, split, split, whole)
      out = placed, (whole, whole, whole)
      first = jax.jit(prefill, out_shardings=out).lower(abstract, *given)
      state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        first.out_info[0],
        placed,
      )
      more = jax.jit(self._extend, out_shardings=out, donate_argnums=1).lower(
        abstract, state, row(jnp.bool_), one(jnp.int32)
      )
      self._compiled[rows, room, new] = first.compile(), more.compile()
    return self._compiled[rows, room, new]

  def _prefill(self, params, tokens_BP, lengths_B, streams_B3, done_B, seed, *, new):
    B, P = tokens_BP.shape
    with placed_by(self._placement):
      model = self._bind(params)
      slots_P = jnp.arange(P, dtype=jnp.int32)
      positions_BP = jnp.where(slots_P < lengths_B[:, None], slots_P, -1)
      hidden_BPD, cache = cache_lib.prefill(model, tokens_BP, positions_BP, P + new)
      last_B1D = jnp.take_along_axis(hidden_BPD, (lengths_B - 1)[:, None, None], axis=1)
      key = jax.random.key(seed, impl='threefry2x32')
      keys_B = jax.vmap(lambda three: functools.reduce(jax.random.fold_in, three, key))(streams_B3)
      token_B = self._draw(model, last_B1D, keys_B, lengths_B)
      out_BN = jnp.full((B, new), _NOTHING, jnp.int32).at[:, 0].set(token_B)
      done_B = done_B | (token_B == self._eos)
    state = _State(cache, keys_B, lengths_B, done_B, out_BN, jnp.int32(1))
    return state, (state.out_BN, state.done_B, state.count)

  def _extend(self, params, state, stopped_B, limit):
    room = state.cache.keys_LBGSK.shape[3] - state.out_BN.shape[1]

    def unfinished(state):
      return (state.count < limit) & ~jnp.all(state.done_B)

    with placed_by(self._placement):
      model = self._bind(params)

      def one(state):
        last = state.count - 1
        token_B1 = jax.lax.dynamic_slice_in_dim(state.out_BN, last, 1, axis=1)
        going_B1 = ~state.done_B[:, None]
        positions_B1 = jnp.where(going_B1, (state.lengths_B + last)[:, None], -1)
        hidden_B1D, cache = cache_lib.extend(
          model, state.cache, jnp.maximum(token_B1, 0), positions_B1, room + last
        )
        token_B = self._draw(model, hidden_B1D, state.keys_B, state.lengths_B + state.count)
        token_B = jnp.where(state.done_B, _NOTHING, token_B)
        out_BN = jax.lax.dynamic_update_slice(state.out_BN, token_B[:, None], (0, state.count))
        done_B = state.done_B | (token_B == self._eos)
        return dataclasses.replace(
          state, cache=cache, done_B=done_B, out_BN=out_BN, count=state.count + 1
        )

      state = dataclasses.replace(state, done_B=state.done_B | stopped_B)
      state = jax.lax.while_loop(unfinished, one, state)
    return state, (state.out_BN, state.done_B, state.count)

  def _draw(self, model, hidden_B1D, keys_B, positions_B):
    logits_BV = named(model.logits(hidden_B1D)[:, 0], 'batch', None)  # draws need all of V
    known_V = jnp.arange(logits_BV.shape[1]) < self._vocabulary
    logits_BV = jnp.where(known_V, logits_BV, -jnp.inf)
    return draw(logits_BV, jax.vmap(jax.random.fold_in)(keys_B, positions_B), self.sampling)

  def _bind(self, params):
    # Every product is taken in this dtype: cast once, not once a token.
    cast = lambda x: x.astype(self.model.dtype)  # noqa: E731
    return decoder.bind(self._graph, jax.tree.map(cast, params))

  def _batches(self, lengths):
    """Indices of the prompts of each batch: near lengths together."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + self._batch] for i in range(0, len(order), self._batch)]

  def _shape(self, lengths, batch, tokens):
    longest = max(lengths[i] for i in batch)
    most = self.model.max_length
    return self._rows(len(batch)), min(_room(longest), most), min(_room(tokens), most)

  def _rows(self, count):
    ways = mesh_lib.batch_ways(self.mesh)
    return ways * _power_of_two(-(-count // ways))

  def _put(self, array, *, split):
    array = np.asarray(array)
    at = mesh_lib.batch_sharding(self.mesh) if split else mesh_lib.replicated(self.mesh)
    return jax.make_array_from_callback(array.shape, at, lambda index: array[index])


def _arrays(prompts, streams, rows, room):
  """Tokens, lengths, streams, and which rows are there to fill the batch only."""
  tokens_BP = np.zeros((rows, room), np.int32)
  for row, ids in zip(tokens_BP, prompts, strict=False):
    row[: len(ids)] = ids
  lengths_B = np.ones(rows, np.int32)
  lengths_B[: len(prompts)] = [len(ids) for ids in prompts]
  streams_B3 = np.zeros((rows, 3), np.uint32)
  streams_B3[: len(prompts)] = streams
  return tokens_BP, lengths_B, streams_B3, np.arange(rows) >= len(prompts)


def _taken(row, eos):
  """The tokens of a row up to its EOS, and whether it has one."""
  ids = row[row != _NOTHING].tolist()
  return (ids[:-1], True) if ids and ids[-1] == eos else (ids, False)


def _room(count):
  return max(_LEAST, _power_of_two(count))


def _power_of_two(count):
  return 1 << (count - 1).bit_length()
