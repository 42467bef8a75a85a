"""Likelihoods of texts under a model: packed into rows by length, compiled once for each shape, on a mesh.

  scorer = Scorer(run_model.load('runs/mine'))
  scorer.log_likelihoods([('The cat', ' sat'), ('The cat', ' flew')])     log p(continuation | context)
  scorer.rolling(['A whole text.'])                                       log p(text)
  scorer.hidden(['A text.'])                                              its mean hidden state

Every text begins with what opens a text in training. Requests of like length share rows of 128, 192, 256, 320, …
tokens, as segments that do not see one another, so that next to nothing is padding; each set of shapes is
compiled once. `plan` does what needs no parameters, for those who score the same requests again and again.

Easy to get wrong: what a score may depend on. Equal requests are computed once, and all of them are put into
an order of their own before they are packed: neither the order of items nor that of options can change a
bit. Batch size and mesh change the rounding of the last digits alone.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink import metrics
from jaxlink.model import decoder, loss
from jaxlink.model.axes import named, placed_by
from jaxlink.run_model import RunModel

_ROW = 128  # shortest rows: several requests fit into each, and kernels take multiples of it
_AHEAD = 2  # batches that the device has before the first is fetched

# Rows are whole on every device: an evaluation's are short.
_RULES = {**mesh_lib.RULES, 'sequence': ()}

Request = tuple[str, str]  # context, continuation
Progress = Callable[[Iterable[Any]], Iterable[Any]]  # such as functools.partial(tqdm.tqdm, …)


class Likelihood(NamedTuple):
  """What a model gives a continuation.

  Attributes:
    nats: its log-likelihood, 0 or less.
    tokens: of the continuation.
    greedy: whether each of its tokens was the likeliest.
    cut: whether the model had no room for all of the context (or continuation), whose beginning was
      left out.
  """

  nats: float
  tokens: int
  greedy: bool
  cut: bool


class Row(NamedTuple):
  """Ids that go in, ids that come out, and from which one on these count."""

  given: tuple[int, ...]
  wanted: tuple[int, ...]
  first: int


@dataclasses.dataclass(frozen=True)
class _Batch:
  """Arrays [B, T] of a batch, and where its texts are.

  Attributes:
    arrays: tokens, labels, segments, positions, int32.
    places: (text, row, begin, end) of each.
  """

  arrays: dict[str, np.ndarray]
  places: list[tuple[int, int, int, int]]

  @property
  def shape(self) -> tuple[int, int]:
    """B and T."""
    return self.arrays['tokens'].shape


@dataclasses.dataclass(frozen=True)
class Plan:
  """Requests, tokenised and packed.

  Attributes:
    batches: of all different texts.
    texts: the different texts.
    parts: of each request, the numbers of its texts, one but for long ones of `plan_rolling`.
    cut: of each request, whether something was left out.
  """

  batches: list[_Batch]
  texts: list[Row]
  parts: list[list[int]]
  cut: list[bool]

  @property
  def tokens(self) -> int:
    """That the model reads, without padding."""
    return sum(len(text.given) for text in self.texts)

  @property
  def slots(self) -> int:
    """The same with padding."""
    return sum(batch.shape[0] * batch.shape[1] for batch in self.batches)


class Scorer:
  """Scores texts with a model; on several hosts, called alike on all.

  Args:
    model: with its tokenizer; the parameters may be abstract where others are given to each call.
    batch_tokens: most tokens of a batch, padding included; 0 chooses by the device.

  Raises:
    ValueError: `batch_tokens` is below 0.
  """

  def __init__(self, model: RunModel, *, batch_tokens: int = 0):
    if batch_tokens < 0:
      raise ValueError(f'batch_tokens is {batch_tokens}: it is 0 or more.')
    self.model = model
    on_cpu = model.mesh.devices.flat[0].platform == 'cpu'
    self._batch_tokens = batch_tokens or (2_048 if on_cpu else 32_768) * mesh_lib.batch_ways(
      model.mesh
    )
    # Kernels take rows of multiples of 128.
    self._unit = _ROW if model.config.attention != 'xla' else _ROW // 2
    self._graph = decoder.abstract_decoder(model.config)[0]
    self._placement = mesh_lib.Placement(model.mesh, _RULES)
    self._programs: dict[tuple[Any, ...], jax.stages.Compiled] = {}

  # ── what callers ask ────────────────────────────────────────────────────────

  def log_likelihoods(
    self, requests: Sequence[Request], progress: Progress = iter
  ) -> list[Likelihood]:
    """Returns log p(continuation | context) of each request.

    Args:
      requests: (context, continuation); the continuation is never empty. After the context '' it begins
        a text.
      progress: wraps the batches, such as `tqdm.tqdm`.

    Raises:
      ValueError: a continuation has no tokens.
    """
    return self.run(self.plan(requests), progress=progress)

  def rolling(
    self, texts: Sequence[str], progress: Progress = iter, *, length: int = 0
  ) -> list[Likelihood]:
    """Returns log p(text) of each text, in windows that do not overlap, as held-out text is scored.

    Args:
      texts: not empty.
      progress: wraps the batches.
      length: tokens of a window, each of which begins with what opens a text; 0 takes all that the model
        has room for.
    """
    return self.run(self.plan_rolling(texts, length=length), progress=progress)

  def hidden(self, texts: Sequence[str], progress: Progress = iter) -> np.ndarray:
    """Returns float32 [N, D]: the mean, over a text's tokens, of the last layer's normalised output.

    What opens a text is not in the mean; of a text that the model has no room for, the beginning counts.
    """
    return self.run_hidden(self.plan_hidden(texts), progress=progress)

  # ── plan and run ────────────────────────────────────────────────────────────

  def plan(self, requests: Sequence[Request]) -> Plan:
    """Tokenises and packs requests; see `log_likelihoods`."""
    known: dict[Request, tuple[Row, bool]] = {}
    for request in requests:
      if request not in known:
        known[request] = self._row(*request)
    rows, cut = (
      zip(*(known[request] for request in requests), strict=True) if requests else ((), ())
    )
    return self._pack(rows, [[i] for i in range(len(rows))], list(cut))

  def plan_rolling(self, texts: Sequence[str], *, length: int = 0) -> Plan:
    """Tokenises and packs texts; see `rolling`."""
    length = min(length or self.model.config.max_length, self.model.config.max_length)
    rows, parts = [], []
    for text in texts:
      ids = self._encode(text)
      if not ids:
        raise ValueError(f'{text!r} has no tokens: there is nothing to score.')
      windows = [ids[first : first + length] for first in range(0, len(ids), length)]
      parts.append(list(range(len(rows), len(rows) + len(windows))))
      rows += [Row((self.model.opening, *w[:-1]), tuple(w), 0) for w in windows]
    return self._pack(rows, parts, [False] * len(parts))

  def plan_rows(self, rows: Sequence[Row], parts: list[list[int]]) -> Plan:
    """Packs rows of ids.

    Args:
      rows: what is scored.
      parts: of each request, its rows.
    """
    return self._pack(rows, parts, [False] * len(parts))

  def plan_hidden(self, texts: Sequence[str]) -> Plan:
    """Tokenises and packs texts; see `hidden`."""
    rows, cut, most = [], [], self.model.config.max_length
    for text in texts:
      ids = (self.model.opening, *self._encode(text))
      rows.append(Row(ids[:most], ids[:most], 0))
      cut.append(len(ids) > most)
    return self._pack(rows, [[i] for i in range(len(rows))], cut)

  def prepare(self, plan: Plan, params: Any = None, *, hidden: bool = False) -> None:
    """Compiles what a plan needs, for `run` or `run_hidden`; parameters may be abstract."""
    params = self.model.params if params is None else params
    program_of = self._mean_program if hidden else self._score_program
    for batch in plan.batches:
      program_of(params, batch)

  def run(
    self, plan: Plan, params: Any = None, progress: Progress = iter,
    stopped: Callable[[], bool] = lambda: False,
  ) -> list[Likelihood] | None:  # fmt: skip
    """Scores a plan.

    Args:
      plan: of this scorer.
      params: in place of the model's.
      progress: wraps the batches.
      stopped: asked before each batch; once it is true, the scoring is given up.

    Returns:
      One for each request; None where it was given up.
    """
    params = self.model.params if params is None else params
    nats = np.zeros(len(plan.texts))
    greedy = np.zeros(len(plan.texts), bool)
    for batch, found in self._stream(plan, self._score_program, params, progress, stopped):
      if found is None:
        return None
      nll_BT, likeliest_BT = found
      for text, row, begin, end in batch.places:
        here = slice(begin + plan.texts[text].first, end)
        nats[text] = -nll_BT[row, here].sum(dtype=np.float64)
        greedy[text] = likeliest_BT[row, here].all()
    counts = [len(text.wanted) - text.first for text in plan.texts]
    return [
      Likelihood(
        float(nats[parts].sum()), sum(counts[p] for p in parts), bool(greedy[parts].all()), cut
      )
      for parts, cut in zip(plan.parts, plan.cut, strict=True)
    ]

  def run_hidden(
    self, plan: Plan, params: Any = None, progress: Progress = iter,
    stopped: Callable[[], bool] = lambda: False,
  ) -> np.ndarray | None:  # fmt: skip
    """What `hidden` returns, of a plan; arguments as of `run`."""
    params = self.model.params if params is None else params
    states_ND = np.zeros((len(plan.texts), self.model.config.width), np.float32)
    for batch, found in self._stream(plan, self._mean_program, params, progress, stopped):
      if found is None:
        return None
      for text, row, begin, _ in batch.places:
        states_ND[text] = found[row, batch.arrays['segments'][row, begin] - 1]
    return states_ND[[parts[0] for parts in plan.parts]]

  # ── texts to rows ───────────────────────────────────────────────────────────

  def _encode(self, text: str) -> list[int]:
    return self.model.tokenizer.encode(text)

  def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of a context and of what follows it, as lm-evaluation-harness cuts them.

    The context has its own ids, and the continuation what the ids of both as one text have beyond as many.
    Spaces at the end of the
    context go to the continuation, as pieces begin with their space.

    Raises:
      ValueError: nothing is left for the continuation.
    """
    kept = context.rstrip()
    whole = self._encode(context + continuation)
    before = self._encode(kept) if kept else []
    if len(before) >= len(whole):
      raise ValueError(
        f'the continuation {continuation!r} of {context[-40:]!r} has no tokens of its own.'
      )
    return before, whole[len(before) :]

  def _row(self, context: str, continuation: str) -> tuple[Row, bool]:
    before, after = self.encode_pair(context, continuation)
    ids = [self.model.opening, *before, *after]
    room = self.model.config.max_length + 1
    cut = len(ids) > room
    ids = ids[-room:]
    count = min(len(after), len(ids) - 1)
    return Row(tuple(ids[:-1]), tuple(ids[1:]), len(ids) - 1 - count), cut

  def _pack(self, rows: Sequence[Row], parts: list[list[int]], cut: list[bool]) -> Plan:
    texts = sorted(set(rows), key=lambda row: (-len(row.given), row))
    number = {text: i for i, text in enumerate(texts)}
    parts = [[number[rows[i]] for i in mine] for mine in parts]
    batches = []
    by_length = itertools.groupby(range(len(texts)), lambda i: self._length(len(texts[i].given)))
    for length, members in by_length:
      packed = _pack_rows([(i, len(texts[i].given)) for i in members], length)
      most = self._rows_below(self._batch_tokens // length)
      for first in range(0, len(packed), most):
        part = packed[first : first + most]
        batches.append(_make_batch(texts, part, min(most, self._rows(len(part))), length))
    return Plan(batches, texts, parts, cut)

  def _length(self, tokens: int) -> int:
    """Of the rows that texts of so many tokens are packed into: four lengths to an octave, or the most."""
    step = max(self._unit, (1 << (max(tokens, _ROW) - 1).bit_length()) // 8)
    return min(max(_ROW, -(-tokens // step) * step), self.model.config.max_length)

  def _rows(self, wanted: int) -> int:
    """Rows of a batch: a power of two, and a number that the mesh splits."""
    ways = mesh_lib.batch_ways(self.model.mesh)
    return -(-(1 << (wanted - 1).bit_length()) // ways) * ways

  def _rows_below(self, most: int) -> int:
    """The same, and no more than `most`, as far as the mesh allows."""
    ways = mesh_lib.batch_ways(self.model.mesh)
    return max(ways, (1 << max(0, most.bit_length() - 1)) // ways * ways)

  # ── the device ──────────────────────────────────────────────────────────────

  def _stream(self, plan, program_of, params, progress, stopped=lambda: False):
    """Yields each batch with what the program gives for it, in NumPy; None once it was stopped."""
    waiting: list[tuple[_Batch, Any]] = []
    for batch in progress(plan.batches):
      if stopped():
        yield batch, None
        return
      program = program_of(params, batch)
      arrays = {name: self._put(array) for name, array in batch.arrays.items()}
      waiting.append((batch, program(params, arrays)))
      if len(waiting) > _AHEAD:
        done, found = waiting.pop(0)
        yield done, metrics.fetch(found)
    for done, found in waiting:
      yield done, metrics.fetch(found)

  def _put(self, array: np.ndarray) -> jax.Array:
    sharding = mesh_lib.batch_sharding(self.model.mesh)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

  def _score_program(self, params, batch):
    return self._compiled('score', self._score, params, batch.shape)

  def _mean_program(self, params, batch):
    most = 1 << (int(batch.arrays['segments'].max()) - 1).bit_length()
    mean = functools.partial(self._mean, segments=most)
    return self._compiled(('mean', most), mean, params, batch.shape)

  def _compiled(self, name, function, params, shape):
    if (name, shape) not in self._programs:
      split, whole = (
        mesh_lib.batch_sharding(self.model.mesh), mesh_lib.replicated(self.model.mesh)
      )  # fmt: skip
      abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
      )
      row = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=split)
      batch = dict.fromkeys(('tokens', 'labels', 'segments', 'positions'), row)
      lowered = jax.jit(function, out_shardings=whole).lower(abstract, batch)
      self._programs[name, shape] = lowered.compile()
    return self._programs[name, shape]

  def _score(self, params, batch: Mapping[str, jax.Array]):
    """Of each position, −log p of its label (float32), and whether it is the likeliest."""
    with placed_by(self._placement):
      model = decoder.bind(self._graph, params)
      hidden_BTD = model(batch['tokens'], batch['segments'], batch['positions'])
      B, T, D = hidden_BTD.shape
      rows = max(1, B // mesh_lib.batch_ways(self.model.mesh))
      chunk = loss.positions_per_chunk(loss.LossConfig(), rows, T, D, self.model.config.vocabulary)
      chunk = next(c for c in range(min(chunk, T), 0, -1) if T % c == 0)

      def some(xs):
        hidden_BCD, labels_BC = xs
        logits_BCV = model.logits(named(hidden_BCD, 'batch', None, 'residual'))
        total_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
        of_label_BC = jnp.take_along_axis(logits_BCV, labels_BC[..., None], axis=-1)[..., 0]
        return total_BC - of_label_BC, of_label_BC >= logits_BCV.max(-1)

      cut = lambda x: jnp.moveaxis(x.reshape(B, T // chunk, chunk, *x.shape[2:]), 1, 0)  # noqa: E731
      found = jax.lax.map(some, (cut(hidden_BTD), cut(batch['labels'])))
      return tuple(jnp.moveaxis(x, 0, 1).reshape(B, T) for x in found)

  def _mean(self, params, batch: Mapping[str, jax.Array], *, segments: int):
    """Of each segment, the mean of its hidden states without the first: float32 BSD."""
    with placed_by(self._placement):
      model = decoder.bind(self._graph, params)
      hidden_BTD = model(batch['tokens'], batch['segments'], batch['positions'])
      numbers_S = jnp.arange(1, segments + 1)
      counts_BT = batch['positions'] > 0
      member_BTS = (batch['segments'][..., None] == numbers_S) & counts_BT[..., None]
      sums_BSD = jnp.einsum(
        'bts,btd->bsd', member_BTS.astype(jnp.float32), hidden_BTD.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
      )  # fmt: skip
      return sums_BSD / jnp.maximum(member_BTS.sum(1), 1)[..., None]


def _pack_rows(members: Iterable[tuple[int, int]], room: int) -> list[list[int]]:
  """Puts texts, longest first, each into the fullest row that has room for it: best fit.

  Args:
    members: (text, tokens), descending in tokens.
    room: tokens of a row.

  Returns:
    Texts of each row.
  """
  rows: list[list[int]] = []
  free: list[tuple[int, int]] = []  # (room left, −row), ascending
  for text, tokens in members:
    at = bisect.bisect_left(free, (tokens, -len(rows)))
    if at == len(free):
      left, row = room, len(rows)
      rows.append([])
    else:
      left, minus = free.pop(at)
      row = -minus
    rows[row].append(text)
    if left > tokens:
      bisect.insort(free, (left - tokens, -row))
  return rows


def _make_batch(
  texts: Sequence[Row], packed: Sequence[Sequence[int]], rows: int, length: int
) -> _Batch:
  names = ('tokens', 'labels', 'segments', 'positions')
  arrays = {name: np.zeros((rows, length), np.int32) for name in names}
  places = []
  for row, members in enumerate(packed):
    begin = 0
    for segment, text in enumerate(members, 1):
      end = begin + len(texts[text].given)
      arrays['tokens'][row, begin:end] = texts[text].given
      arrays['labels'][row, begin:end] = texts[text].wanted
      arrays['segments'][row, begin:end] = segment
      arrays['positions'][row, begin:end] = np.arange(end - begin)
      places.append((text, row, begin, end))
      begin = end
  return _Batch(arrays, places)
