"""AdamW and the schedules of its learning rate.

A config and the number of steps give an optax transformation: clip by global norm, Adam, decoupled
weight decay, learning rate. Its state has the same structure whatever the config says, so that the
next stage of a run can take it over.

Easy to get wrong: the schedule reads the training step, which is passed to `update`, and no counter
of its own. A skipped update leaves the optimizer's state as it was, and a counter inside it would
make the decay end late.
"""

import jax
import jax.numpy as jnp
import optax

from jaxlink.config import configurable
from jaxlink.names import nearest

SCHEDULES = ('cosine', 'wsd', 'constant')


@configurable
class OptimizerConfig:
  """AdamW (arXiv 1711.05101) and its schedule.

  Attributes:
    learning_rate: at its peak.
    schedule: 'cosine' falls from the peak to `final_share`; 'wsd' (warm-up, stable, decay; arXiv
      2404.06395) stays and falls linearly over the last `decay_share`; 'constant' stays.
    warmup_share: share of all steps of the stage in which the rate rises linearly from 0.
    decay_share: share of all steps in which 'wsd' falls; not to be set with the others. 1.0 without
      warm-up falls from a stage's first step on, as the end of one long 'wsd' does.
    final_share: the last rate as a share of the peak; not to be set with 'constant'.
    b1: decay of the mean gradient.
    b2: decay of the mean squared gradient.
    epsilon: added to its root.
    weight_decay: times the learning rate, the share by which each matrix shrinks a step. Matrices
      include the embeddings; norms, the one kind of vector in the model, do not decay.
    clip_norm: gradients of a larger global norm are scaled down to it; 0 for no clipping.

  Raises:
    ValueError: a number out of its range, an unknown schedule, or a share that the schedule has no
      use for.
  """

  learning_rate: float = 3e-4
  schedule: str = 'cosine'
  warmup_share: float = 0.02
  decay_share: float = 0.2
  final_share: float = 0.1
  b1: float = 0.9
  b2: float = 0.95
  epsilon: float = 1e-8
  weight_decay: float = 0.1
  clip_norm: float = 1.0

  def __post_init__(self):
    if self.schedule not in SCHEDULES:
      raise ValueError(
        f'OptimizerConfig.schedule is {self.schedule!r}.{nearest(self.schedule, SCHEDULES)} '
        f'Allowed: {", ".join(SCHEDULES)}.'
      )
    for name in ('learning_rate', 'epsilon'):
      if not getattr(self, name) > 0:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: it is above 0.')
    for name in ('weight_decay', 'clip_norm'):
      if not getattr(self, name) >= 0:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: it is 0 or more.')
    for name in ('warmup_share', 'decay_share', 'final_share'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: a share, 0 to 1.')
    for name in ('b1', 'b2'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f'OptimizerConfig.{name} is {getattr(self, name)}: 0 or more, below 1.')
    for name, users in (('decay_share', ('wsd',)), ('final_share', ('wsd', 'cosine'))):
      default = self.__dataclass_fields__[name].default
      if self.schedule not in users and getattr(self, name) != default:
        raise ValueError(
          f'OptimizerConfig.{name} is {getattr(self, name)}, and schedule {self.schedule!r} has no '
          f'use for it: leave it at {default}, or choose {" or ".join(map(repr, users))}.'
        )
    if self.schedule == 'wsd' and self.warmup_share + self.decay_share > 1:
      raise ValueError(
        f'OptimizerConfig.warmup_share {self.warmup_share} and decay_share {self.decay_share} '
        'together are more than 1: the schedule has no room for both.'
      )


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
  config: OptimizerConfig, steps: int, first: int = 0
) -> optax.GradientTransformationExtraArgs:
  """AdamW whose `update(gradients, state, params, step=step)` follows the schedule.

  Args:
    config: what to do.
    steps: of the stage.
    first: finished updates of the run when the stage begins.
  """
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
    optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon),
    optax.add_decayed_weights(config.weight_decay, mask=_matrices),
    _scale_by_step(make_schedule(config, steps, first)),
  )


def _matrices(params):
  """True for what decays. Layers are stacked, so rank does not tell: norms are told by name."""

  def one(path, _):
    return not jax.tree_util.keystr(path[-1:], simple=True).endswith('norm')

  return jax.tree_util.tree_map_with_path(one, params)


def _scale_by_step(schedule):
  def update(updates, state, params=None, *, step, **unused):
    del params, unused
    rate = -jnp.asarray(schedule(step), jnp.float32)
    return jax.tree.map(lambda update: update * rate, updates), state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
