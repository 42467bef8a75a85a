"""Optimizers, the schedules of their learning rate, and an average of the parameters.

A config and the number of steps give an optax transformation: clip by global norm, the algorithm
(AdamW, Muon or Adafactor), decoupled weight decay, learning rate and, if asked for, an exponential
moving average of the parameters, which lies in the optimizer's state.

Easy to get wrong: the schedule reads the training step, which is passed to `update`, and no counter
of its own. A skipped update leaves the optimizer's state as it was, and a counter inside it would
make the decay end late. Counters that do lie there (of Adam's correction, Adafactor's memory, the
average's start) count applied updates, as they should.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxlink.config import configurable
from jaxlink.model import mup
from jaxlink.model.shape import DecoderConfig
from jaxlink.names import nearest

SCHEDULES = ('cosine', 'wsd', 'constant')
ALGORITHMS = ('adamw', 'muon', 'adafactor')

# Field: the field that decides whether it is used, and for which of its values it is.
_USED = {
  'decay_share': ('schedule', ('wsd',)),
  'final_share': ('schedule', ('wsd', 'cosine')),
  'b1': ('algorithm', ('adamw', 'muon')),
  'b2': ('algorithm', ('adamw', 'muon')),
  'epsilon': ('algorithm', ('adamw', 'muon')),
  'momentum': ('algorithm', ('muon',)),
  'adamw_rate': ('algorithm', ('muon',)),
}

_MUON_RMS = (
  0.2  # of Muon's updates before the learning rate: what AdamW's are like (arXiv 2502.16982)
)
_FACTORED_DECAY = 0.8  # Adafactor, arXiv 1804.04235, section 7.2
_FACTORED_EPSILON = 1e-30  # section 7.1


@configurable
class OptimizerConfig:
  """An optimizer and its schedule.

  Attributes:
    algorithm: 'adamw' (arXiv 1711.05101); 'muon' (Keller Jordan, 2024) for the matrices of the layers,
      each brought near the nearest orthogonal one and scaled to a root mean square of 0.2, as AdamW's
      updates have (arXiv 2502.16982), so that AdamW's rates and decay serve, with AdamW for embeddings,
      head and norms; 'adafactor' (arXiv 1804.04235), which keeps means over rows and columns of squared
      gradients and no mean gradient, with absolute steps: a learning rate like AdamW's.
    learning_rate: at its peak.
    schedule: 'cosine' falls from the peak to `final_share`; 'wsd' (warm-up, stable, decay; arXiv
      2404.06395) stays and falls linearly over the last `decay_share`; 'constant' stays.
    warmup_share: share of all steps of the stage in which the rate rises linearly from 0.
    decay_share: share of all steps in which 'wsd' falls; not to be set with the others. 1.0 without
      warm-up falls from a stage's first step on, as the end of one long 'wsd' does.
    final_share: the last rate as a share of the peak; not to be set with 'constant'.
    b1: AdamW's decay of the mean gradient; not to be set with 'adafactor', nor are the next two.
    b2: AdamW's decay of the mean squared gradient.
    epsilon: added to its root.
    momentum: Muon's decay of the mean gradient (Nesterov's).
    adamw_rate: what Muon's AdamW part has of the learning rate: 1 for the same.
    weight_decay: times the learning rate, the share by which each matrix shrinks a step. The head is a
      matrix; norms, the one kind of vector in the model, do not decay.
    decay_embeddings: whether input embeddings decay, too (with tied embeddings these are the head).
    clip_norm: gradients of a larger global norm are scaled down to it; 0 for no clipping.
    ema_decay: of an average of the parameters, which is then evaluated and exported; 0 for none. After
      t updates the average keeps min(ema_decay, (1 + t) / (10 + t)) of itself, so that the first
      parameters are soon forgotten.

  Raises:
    ValueError: a number out of its range, an unknown name, or a field that the schedule or the
      algorithm has no use for.
  """

  algorithm: str = 'adamw'
  learning_rate: float = 3e-4
  schedule: str = 'cosine'
  warmup_share: float = 0.02
  decay_share: float = 0.2
  final_share: float = 0.1
  b1: float = 0.9
  b2: float = 0.95
  epsilon: float = 1e-8
  momentum: float = 0.95
  adamw_rate: float = 1.0
  weight_decay: float = 0.1
  decay_embeddings: bool = True
  clip_norm: float = 1.0
  ema_decay: float = 0.0

  def __post_init__(self):
    for name, allowed in (('algorithm', ALGORITHMS), ('schedule', SCHEDULES)):
      if (value := getattr(self, name)) not in allowed:
        raise ValueError(
          f'OptimizerConfig.{name} is {value!r}.{nearest(value, allowed)} '
          f'Allowed: {", ".join(allowed)}.'
        )
    for name in ('learning_rate', 'epsilon', 'adamw_rate'):
      if not getattr(self, name) > 0:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: it is above 0.')
    for name in ('weight_decay', 'clip_norm'):
      if not getattr(self, name) >= 0:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: it is 0 or more.')
    for name in ('warmup_share', 'decay_share', 'final_share'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: a share, 0 to 1.')
    for name in ('b1', 'b2', 'momentum', 'ema_decay'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: 0 or more, below 1.')
    for name, (chooser, users) in _USED.items():
      default, chosen = self.__dataclass_fields__[name].default, getattr(self, chooser)
      if chosen not in users and getattr(self, name) != default:
        raise ValueError(
          f'OptimizerConfig.{name} is {getattr(self, name)}, and {chooser} {chosen!r} has no '
          f'use for it: leave it at {default}, or choose {" or ".join(map(repr, users))}.'
        )
    if self.schedule == 'wsd' and self.warmup_share + self.decay_share > 1:
      raise ValueError(
        f'OptimizerConfig.warmup_share {self.warmup_share} and decay_share {self.decay_share} '
        'together are more than 1: the schedule has no room for both.'
      )

  @property
  def keeps(self) -> str:
    """What its state is made of, in words: a stage can take over the state of one that says the same."""
    average = ' and an average of the parameters' if self.ema_decay else ''
    return f"the state of '{self.algorithm}'{average}"


def make_schedule(config: OptimizerConfig, steps: int, first: int = 0) -> optax.Schedule:
  """The learning rate of update `step` of the run, for first ≤ step < first + steps.

  Step `first` has a rate above 0 (a first update of nothing would be wasted), and the last step has
  exactly the final one. With W = round(warmup_share · steps) the rate in warm-up is
  peak · (n + 1) / (W + 1) at the stage's step n, and step W has the peak. Of a decay over D steps, step k
  has 1 − k/D of the way still to go, k from 1 to D: a stage that does nothing but decay is the end of a
  longer one that stayed at the peak until then.

  Args:
    config: what to do.
    steps: of the stage.
    first: finished updates of the run when the stage begins.

  Raises:
    ValueError: steps is below 1.
  """
  if steps < 1:
    raise ValueError(f'a schedule over {steps} steps: it is 1 or more.')
  peak = config.learning_rate
  warmup = round(config.warmup_share * steps)
  parts = [optax.linear_schedule(peak / (warmup + 1), peak, warmup)]
  starts = []
  if config.schedule == 'cosine':
    starts = [warmup]
    decay = max(steps - 1 - warmup, 1)
    parts.append(optax.cosine_decay_schedule(peak, decay, alpha=config.final_share))
  elif config.schedule == 'wsd':
    decay = max(round(config.decay_share * steps), 1)
    starts = [max(steps - 1 - decay, warmup or -1)]  # the last step that still has the peak
    decay = max(steps - 1 - starts[0], 1)
    parts.append(optax.linear_schedule(peak, peak * config.final_share, decay))
  schedule = optax.join_schedules(parts, starts)
  return lambda step: schedule(step - first)


def make_optimizer(
  config: OptimizerConfig, steps: int, first: int = 0, model: DecoderConfig | None = None
) -> optax.GradientTransformationExtraArgs:
  """An optimizer whose `update(gradients, state, params, step=step)` follows the schedule.

  Args:
    config: what to do.
    steps: of the stage.
    first: finished updates of the run when the stage begins.
    model: whose parameters it updates; its muP decides on rates and decay of groups of them.

  Raises:
    ValueError: muP with an algorithm that its rules are not for.
  """
  if model is not None and model.mup and config.algorithm != 'adamw':
    raise ValueError(
      f'OptimizerConfig.algorithm is {config.algorithm!r} with DecoderConfig.mup: the learning rates of '
      "muP are AdamW's. Choose 'adamw', or leave muP out."
    )
  algorithm = {'adamw': _adam, 'muon': _muon, 'adafactor': _adafactor}[config.algorithm]
  groups = mup.groups(model)

  def decay(parameter):
    if parameter.group == 'embed' and not config.decay_embeddings:
      return 0.0
    return config.weight_decay * groups[parameter.group].decay

  def rate(parameter):
    beside_muon = config.algorithm == 'muon' and parameter.group != 'hidden'
    return groups[parameter.group].rate * (config.adamw_rate if beside_muon else 1.0)

  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
    algorithm(config),
    _decayed(decay),
    _scaled(make_schedule(config, steps, first), rate),
    *([_averaged(config.ema_decay)] if config.ema_decay else []),
  )


def ema_params(opt_state: Any, params: Any) -> Any:
  """The average of the parameters that an optimizer keeps; `params` where it keeps none."""
  last = opt_state[-1]
  return last.average if isinstance(last, _AverageState) else params


def place_state(
  optimizer: optax.GradientTransformation, shapes: Any, shardings: Any, whole: Any
) -> Any:
  """The abstract state of an optimizer, placed.

  What has the shape of a parameter lies as the parameter. A mean over some of its axes has size 1
  there, and lies as the parameter does along the others.

  Args:
    optimizer: from `make_optimizer`.
    shapes: of the parameters, `jax.ShapeDtypeStruct`s.
    shardings: of the parameters, `jax.sharding.NamedSharding`s.
    whole: the sharding of everything else.
  """

  def place(leaf, sharding):
    if isinstance(leaf, optax.MaskedNode):  # a parameter that another part of Muon updates
      return leaf
    parts = [
      None if size == 1 else part for size, part in zip(leaf.shape, sharding.spec, strict=True)
    ]
    own = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*parts))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own)

  return optax.tree.map_params(
    optimizer,
    place,
    jax.eval_shape(optimizer.init, shapes),
    shardings,
    transform_non_params=lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
    is_leaf=lambda node: isinstance(node, optax.MaskedNode),
  )


def _adam(config):
  return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)


def _muon(config):
  def axes(params):
    return jax.tree.map(
      lambda kind: contrib.MuonDimensionNumbers(kind.inputs, kind.outputs), mup.parameters(params)
    )

  def part(params):
    return jax.tree.map(
      lambda kind: 'muon' if kind.group == 'hidden' else 'adamw', mup.parameters(params)
    )

  def resized(update, kind):
    size = [math.prod(update.shape[axis] for axis in axes) for axes in (kind.inputs, kind.outputs)]
    return update * (_MUON_RMS * math.sqrt(max(size)))

  muon = optax.chain(
    contrib.scale_by_muon(beta=config.momentum, weight_dimension_numbers=axes),
    optax.stateless(lambda updates, _: jax.tree.map(resized, updates, mup.parameters(updates))),
  )
  return optax.partition({'muon': muon, 'adamw': _adam(config)}, part)


class _FactoredState(NamedTuple):
  """Means of squared gradients over a matrix's outputs (`row`) and inputs (`column`).

  What is averaged over has size 1. Of a vector `row` has all of it, and `column` is not used.
  """

  count: jax.Array
  row: Any
  column: Any


def _adafactor(config):
  """Adafactor with absolute steps and no mean gradient; each layer's matrices are by themselves.

  optax's own takes an array's two longest axes for rows and columns, which in a stack LDHK are not
  those of the matrix.
  """
  del config

  def zeros(x, axes):
    return jnp.zeros([1 if i - x.ndim in axes else n for i, n in enumerate(x.shape)], x.dtype)

  def init(params):
    kinds = mup.parameters(params)
    return _FactoredState(
      jnp.zeros((), jnp.int32),
      jax.tree.map(lambda x, kind: zeros(x, kind.outputs), params, kinds),
      jax.tree.map(lambda x, kind: zeros(x, kind.inputs or range(-x.ndim, 0)), params, kinds),
    )

  def one(gradient, row, column, kind, keep):
    squared = jnp.square(gradient) + _FACTORED_EPSILON
    row = keep * row + (1 - keep) * squared.mean(kind.outputs, keepdims=True)
    update = gradient * jax.lax.rsqrt(row)
    if kind.group != 'vector':
      column = keep * column + (1 - keep) * squared.mean(kind.inputs, keepdims=True)
      update *= jnp.sqrt(row.mean(kind.inputs, keepdims=True)) * jax.lax.rsqrt(column)
    whole = kind.inputs + kind.outputs or (-1,)
    size = jnp.sqrt(jnp.square(update).mean(whole, keepdims=True))
    return update / jnp.maximum(1.0, size), row, column

  def update(gradients, state, params=None):
    del params
    count = state.count + 1
    keep = 1 - count.astype(jnp.float32) ** -_FACTORED_DECAY
    structure = jax.tree.structure(gradients)
    trees = gradients, state.row, state.column, mup.parameters(gradients)
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    updates, row, column = zip(*[one(*leaf, keep) for leaf in leaves], strict=True)
    state = _FactoredState(count, structure.unflatten(row), structure.unflatten(column))
    return structure.unflatten(updates), state

  return optax.GradientTransformation(init, update)


def _decayed(weight: Callable[[mup.Parameter], float]) -> optax.GradientTransformation:
  def one(update, param, kind):
    return update + weight(kind) * param if weight(kind) else update

  return optax.stateless(
    lambda updates, params: jax.tree.map(one, updates, params, mup.parameters(params))
  )


def _scaled(schedule, factor: Callable[[mup.Parameter], float]):
  def update(updates, state, params=None, *, step, **unused):
    del params, unused
    rate = -jnp.asarray(schedule(step), jnp.float32)
    kinds = mup.parameters(updates)
    return jax.tree.map(lambda update, kind: update * (rate * factor(kind)), updates, kinds), state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class _AverageState(NamedTuple):
  """The average of the parameters after `count` updates."""

  count: jax.Array
  average: Any


def _averaged(decay):
  """Leaves updates as they are, and is told the last ones: what the parameters become is known here."""

  def init(params):
    # A copy of its own: a step gives up both, and could not give up one buffer twice.
    return _AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

  def update(updates, state, params):
    count = state.count + 1
    keep = jnp.minimum(decay, (1 + count) / (10 + count))
    average = jax.tree.map(
      lambda old, new: keep * old + (1 - keep) * new,
      state.average,
      optax.apply_updates(params, updates),
    )
    return updates, _AverageState(count, average)

  return optax.GradientTransformation(init, update)
