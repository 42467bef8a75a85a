"""One training step, as the executable that runs it.

State and batch go in, state and metrics come out, all on the device. The step is lowered from
abstract state and an abstract batch, compiled once, and that executable is called: a batch or a
state of another shape, dtype or sharding raises. The same lowering serves a mesh that is not here.

A batch is a dict of arrays over B rows, see `abstract_batch`. Metrics are device scalars, or one
number for each source; fetching them is the caller's business.

Easy to get wrong: `step` counts batches, not applied updates. Where the loss or the gradient is not
finite, parameters and optimizer state stay bit for bit as they were and `step` moves on: a batch is
never fed twice, and batch `step` always makes state `step + 1`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlink import mesh as mesh_lib
from jaxlink.model import decoder, loss
from jaxlink.model.axes import placed_by
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import place_state

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a step changes.

  Attributes:
    step: int32, batches consumed.
    params: nested dict of float32 arrays.
    opt_state: the optimizer's.
    skipped: int32, updates skipped since the start.
    skipped_in_a_row: int32, of them the latest without an applied one between.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  skipped: jax.Array
  skipped_in_a_row: jax.Array


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, Batch], Metrics]


def abstract_state(
  config: DecoderConfig,
  optimizer: optax.GradientTransformation,
  mesh: mesh_lib.AnyMesh,
) -> TrainState:
  """The state as `jax.ShapeDtypeStruct`s with their shardings; nothing is allocated.

  The optimizer's state lies as `optimizer.place_state` says; counters are on every device.

  Raises:
    ValueError: a parameter that the mesh does not divide.
  """
  _, shapes, names = decoder.abstract_decoder(config)
  shardings = mesh_lib.param_shardings(mesh, shapes, names)
  whole = mesh_lib.replicated(mesh)
  counter = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
  return TrainState(
    step=counter,
    params=jax.tree.map(_placed, shapes, shardings),
    opt_state=place_state(optimizer, shapes, shardings, whole),
    skipped=counter,
    skipped_in_a_row=counter,
  )


def abstract_batch(
  batch: int, length: int, mesh: mesh_lib.AnyMesh, counts: int = 0
) -> dict[str, Any]:
  """A batch as `jax.ShapeDtypeStruct`s: names, shapes, dtypes and shardings.

  tokens, labels: int32 BT. loss_mask: bool BT. segments: int32 BT, 0 for padding. positions: int32
  BT, from 0 in each segment. source: int32 B, the index of the row's source in the mixture. counts,
  if there are any: int32 BC, what was counted when the row was made.

  Raises:
    ValueError: the batch does not split over the mesh.
  """
  mesh_lib.rows_per_device(mesh, batch)
  parts = mesh.shape['sequence']
  if length % parts:
    raise ValueError(
      f'rows of {length} tokens do not split over the {parts} devices of MeshConfig.sequence.'
    )
  sharding = mesh_lib.batch_sharding(mesh)

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  arrays = {
    'tokens': array(jnp.int32, batch, length),
    'labels': array(jnp.int32, batch, length),
    'loss_mask': array(jnp.bool_, batch, length),
    'segments': array(jnp.int32, batch, length),
    'positions': array(jnp.int32, batch, length),
    'source': array(jnp.int32, batch),
  }
  if counts:
    arrays['counts'] = array(jnp.int32, batch, counts)
  return arrays


def init_state(
  config: DecoderConfig,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  seed: int,
) -> TrainState:
  """A fresh state, made in its shards: no device ever holds more than its own.

  The values depend on the seed alone, not on the mesh: threefry keys, whose bits do not depend on
  how the array is laid out.

  Raises:
    ValueError: JAX was told to use the older threefry, whose bits do.
  """
  if not jax.config.jax_threefry_partitionable:
    raise ValueError(
      'jax_threefry_partitionable is False: initial values would depend on the mesh. Set it True.'
    )

  def init():
    params = decoder.init_params(config, jax.random.key(seed, impl='threefry2x32'))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), zero, zero)

  abstract = abstract_state(config, optimizer, mesh)
  return jax.jit(init, out_shardings=_shardings(abstract))()


def begin_again(
  state: TrainState,
  abstract: TrainState,
  *,
  step: int,
  optimizer: optax.GradientTransformation | None = None,
  foreign: bool = False,
) -> TrainState:
  """A state with another number of finished updates, for the first step of a stage.

  Args:
    state: donated.
    abstract: of the result, with shardings.
    step: the new number.
    optimizer: whose state begins anew; None keeps the state's.
    foreign: whether the state is of another run, whose skipped updates are not this one's.
  """

  def change(state: TrainState) -> TrainState:
    fields = {'step': jnp.full((), step, jnp.int32)}
    if optimizer is not None:
      fields['opt_state'] = optimizer.init(state.params)
    if foreign:
      fields |= dict.fromkeys(('skipped', 'skipped_in_a_row'), jnp.zeros((), jnp.int32))
    return dataclasses.replace(state, **fields)

  return jax.jit(change, donate_argnums=0, out_shardings=_shardings(abstract))(state)


def make_train_step(
  config: DecoderConfig,
  optimizer: optax.GradientTransformationExtraArgs,
  schedule: optax.Schedule,
  mesh: mesh_lib.AnyMesh,
  *,
  loss_config: loss.LossConfig,
  n_sources: int,
  accumulate: int = 1,
) -> TrainStep:
  """The step as a plain function of (state, batch), to be compiled by `compile_step`.

  The loss is the sum over loss tokens divided by their number in the global batch, however it is cut
  into parts and over devices. A batch without loss tokens divides by 0 and is thereby skipped and
  counted.

  Args:
    config: a resolved model config.
    optimizer: its `update` takes `step`.
    schedule: the optimizer's learning rate by step, to be reported.
    mesh: real or abstract.
    loss_config: z-loss and chunks.
    n_sources: sources in the mixture.
    accumulate: parts of the batch that are taken one after the other; their gradients are summed, in
      float32, before the one update. Each device takes its own rows in parts.

  Returns:
    A function whose metrics are, as float32 unless said otherwise: `loss` (mean nll in nats),
    `z_loss` (mean log² Z, without its coefficient), `grad_norm` (before clipping),
    `learning_rate`, `tokens` (int32 loss tokens), `loss_sum_by_source` (sums of nll),
    `tokens_by_source` (int32), and int32 `skipped` and `skipped_in_a_row`; of a batch with counts,
    int32 `counts_by_source` (sources, C).
  """
  graph, _, _ = decoder.abstract_decoder(config)
  sums_of = _loss_function(config, graph, mesh, loss_config)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    tokens = batch['loss_mask'].sum(dtype=jnp.int32)

    def mean_loss(params, part):
      sums = sums_of(params, part)
      return sums.total / tokens, sums

    gradient_of = jax.value_and_grad(mean_loss, has_aux=True)
    if accumulate == 1:
      source_B = batch['source']
      (mean, sums), gradients = gradient_of(state.params, batch)
    else:
      parts = _split(batch, accumulate, mesh)
      source_B = parts['source'].reshape(-1)
      mean, sums, gradients = _accumulate(gradient_of, state.params, parts)
    grad_norm = optax.tree.norm(gradients)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, step=state.step)
    params = optax.apply_updates(state.params, updates)

    finite = jnp.isfinite(mean) & jnp.isfinite(grad_norm)
    params, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      (params, opt_state),
      (state.params, state.opt_state),
    )
    skip = (~finite).astype(jnp.int32)
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      skipped=state.skipped + skip,
      skipped_in_a_row=(state.skipped_in_a_row + 1) * skip,
    )
    metrics = {
      'loss': sums.nll_B.sum() / tokens,
      'z_loss': sums.z_B.sum() / tokens,
      'grad_norm': grad_norm,
      'learning_rate': jnp.asarray(schedule(state.step), jnp.float32),
      'tokens': tokens,
      'loss_sum_by_source': loss.by_source(sums.nll_B, source_B, n_sources),
      'tokens_by_source': loss.by_source(sums.tokens_B, source_B, n_sources),
      'skipped': new_state.skipped,
      'skipped_in_a_row': new_state.skipped_in_a_row,
    }
    if 'counts' in batch:
      metrics['counts_by_source'] = loss.by_source(batch['counts'], batch['source'], n_sources)
    return new_state, metrics

  return train_step


def _split(batch, parts, mesh):
  """The batch as `parts` batches along a leading axis; every row stays on its device."""
  ways = mesh_lib.batch_ways(mesh)
  rows = batch['tokens'].shape[0]
  if rows % (ways * parts):
    raise ValueError(
      f'Stage.accumulate is {parts}: a batch of {rows} sequences on {ways} devices of data × fsdp has '
      f'{rows // ways} a device, which it does not divide.'
    )

  def one(x):
    x = x.reshape(ways, parts, rows // (ways * parts), *x.shape[1:]).swapaxes(0, 1)
    x = x.reshape(parts, rows // parts, *x.shape[3:])
    return jax.lax.with_sharding_constraint(
      x, jax.sharding.NamedSharding(mesh, mesh_lib.spec((None, 'batch')))
    )

  return jax.tree.map(one, batch)


def _accumulate(gradient_of, params, parts):
  """Mean loss, sums by row and gradients over the parts of a batch."""

  def add(carry, part):
    (mean, sums), gradients = gradient_of(params, part)
    return jax.tree.map(jnp.add, carry, (mean, gradients)), sums

  zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
  (mean, gradients), sums = jax.lax.scan(add, zeros, parts)
  return mean, jax.tree.map(jnp.ravel, dataclasses.replace(sums, total=mean)), gradients


def make_eval_step(
  config: DecoderConfig,
  mesh: mesh_lib.AnyMesh,
  *,
  loss_config: loss.LossConfig,
) -> EvalStep:
  """Scores a batch: a function of (params, batch), to be compiled by `compile_eval_step`.

  Returns:
    A function that gives, for each row, `nll` (float32, nats summed over loss tokens) and `tokens`
    (int32, their number). Bits per byte is nll / ln 2 over the bytes of the original text.
  """
  graph, _, _ = decoder.abstract_decoder(config)
  sums_of = _loss_function(config, graph, mesh, loss_config)

  def eval_step(params: Any, batch: Batch) -> Metrics:
    sums = sums_of(params, batch)
    return {'nll': sums.nll_B, 'tokens': sums.tokens_B}

  return eval_step


def lower_step(
  step: TrainStep, state: TrainState, batch: dict[str, Any], *, platform: str | None = None
) -> jax.stages.Lowered:
  """Lowers a train step; the state is donated, and comes back in the shardings that it had.

  Args:
    step: from `make_train_step`.
    state: from `abstract_state`.
    batch: from `abstract_batch`.
    platform: what to lower for, where the mesh is abstract: 'tpu', 'gpu' or 'cpu'.
  """
  whole = mesh_lib.replicated(state.step.sharding.mesh)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=(_shardings(state), whole))
  platforms = None if platform is None else (platform,)
  return jitted.trace(state, batch).lower(lowering_platforms=platforms)


def compile_step(step: TrainStep, state: TrainState, batch: dict[str, Any]) -> jax.stages.Compiled:
  """The executable of a train step: called with anything but such a state and batch, it raises."""
  return lower_step(step, state, batch).compile()


def compile_eval_step(step: EvalStep, params: Any, batch: dict[str, Any]) -> jax.stages.Compiled:
  """The executable of an eval step; every process gets the rows of the whole batch."""
  mesh = batch['tokens'].sharding.mesh
  jitted = jax.jit(step, out_shardings=mesh_lib.replicated(mesh))
  return jitted.lower(params, batch).compile()


def _loss_function(config, graph, mesh, loss_config):
  """(params, batch) → LossSums, with activations placed on the mesh."""
  placement = mesh_lib.Placement(mesh) if mesh.size > 1 else None

  parts = mesh.shape['sequence']

  def sums_of(params, batch):
    rows, length = batch['tokens'].shape
    with placed_by(placement):
      model = decoder.bind(graph, params)
      hidden_BTD = model(batch['tokens'], batch['segments'], batch['positions'])
      return loss.loss_sums(
        hidden_BTD,
        model.head_VD(),
        batch['labels'],
        batch['loss_mask'],
        z_loss=loss_config.z_loss,
        chunk=parts
        * loss.positions_per_chunk(
          loss_config,
          mesh_lib.rows_per_device(mesh, rows),
          length // parts,
          config.width,
          config.vocabulary // mesh.shape['tensor'],
        ),
        tokenizer_size=config.tokenizer_size,
      )

  return sums_of


def _placed(shape, sharding):
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _shardings(abstract):
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)
