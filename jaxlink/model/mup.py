"""Maximal update parametrisation (muP, arXiv 2203.03466): a learning rate that holds for every width.

A learning rate is tuned on a narrow proxy and used as it is on a wide model. With m = width / base_width:

  group    parameters           start             learning rate  decay     forward
  embed    embed                1                 η              λ         1
  hidden   q k v o gate up down  1/√fan_in         η/m            λ·m       1
  readout  head                 0                 η              λ         logits · 1/m
  vector   all norms            1                 η              0         1

and queries times keys are scaled by 8/K instead of 1/√K (the same at a head size of 64). Tied embeddings
are of the group embed, and their logits are multiplied by 1/m, too; they start with √(2 / 5·base_width), as
a usual model of the base width does, for with 1 they would give logits of ±√base_width. Depth is no part of muP: with
`base_layers`, what a layer adds to the residual stream is multiplied by base_layers / layers (CompleteP,
arXiv 2505.01618). At m = 1 only the start of matrices, embeddings and head differs from a model without
muP, and the scale of a head size other than 64.

In: a `DecoderConfig`. Out: numbers by group for the optimizer, and numbers for the decoder; `fold` gives
an equal model without muP.

Easy to get wrong: λ·m belongs to optimizers that multiply decay by the learning rate, as ours does. The
product stays η·λ at every width.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax

from jaxlink.config import configurable

if TYPE_CHECKING:
  from jaxlink.model.shape import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Parameter:
  """What a parameter is to an optimizer.

  Attributes:
    group: 'embed', 'hidden', 'readout' or 'vector'.
    inputs, outputs: the axes of its matrix, counted from the end: layers may be stacked in front.
  """

  group: str
  inputs: tuple[int, ...] = ()
  outputs: tuple[int, ...] = ()


# By the last part of its path.
PARAMETERS: dict[str, Parameter] = {
  'embed': Parameter('embed', (-2,), (-1,)),
  'head': Parameter('readout', (-1,), (-2,)),
  **dict.fromkeys(('q', 'k', 'v'), Parameter('hidden', (-3,), (-2, -1))),
  'o': Parameter('hidden', (-3, -2), (-1,)),
  **dict.fromkeys(('gate', 'up', 'down'), Parameter('hidden', (-2,), (-1,))),
  **dict.fromkeys(('norm', 'attention_norm', 'mlp_norm', 'q_norm', 'k_norm'), Parameter('vector')),
}


@configurable
class MupConfig:
  """muP, and the proxy whose learning rate is used.

  Attributes:
    base_width: of the proxy. Heads and feed-forward grow with the width, the head size does not.
    base_layers: of the proxy; 0 leaves the residual stream as it is at any depth.
    zero_head: a head of its own starts at 0; else as in a usual model of the base width.
    zero_queries: queries start at 0: all of a row's attention is alike at the first step.
  """

  base_width: int
  base_layers: int = 0
  zero_head: bool = True
  zero_queries: bool = False

  def __post_init__(self):
    if self.base_width < 1:
      raise ValueError(f'MupConfig.base_width is {self.base_width}: it is 1 or more.')
    if self.base_layers < 0:
      raise ValueError(f'MupConfig.base_layers is {self.base_layers}: 0 leaves depth alone.')


@dataclasses.dataclass(frozen=True)
class Group:
  """What multiplies the learning rate and the weight decay of a group of parameters."""

  rate: float = 1.0
  decay: float = 1.0


@dataclasses.dataclass(frozen=True)
class Scales:
  """What the forward pass multiplies.

  Attributes:
    logits: by means of the hidden states that the head reads.
    queries: beside the usual 1/√K.
    branches: what attention and MLP add to the residual stream.
  """

  logits: float = 1.0
  queries: float = 1.0
  branches: float = 1.0


def parameters(params: Any) -> Any:
  """A `Parameter` for each leaf.

  Raises:
    ValueError: a parameter that the table does not name.
  """

  def one(path, _):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    if name not in PARAMETERS:
      raise ValueError(
        f'the parameter {jax.tree_util.keystr(path, simple=True, separator=".")} has no row in '
        'jaxlink.model.mup.PARAMETERS, which says how it learns.'
      )
    return PARAMETERS[name]

  return jax.tree_util.tree_map_with_path(one, params)


def groups(config: 'DecoderConfig | None') -> dict[str, Group]:
  """Learning rates and decay by group; without muP only the vectors differ: they do not decay."""
  m = config.width / config.mup.base_width if config is not None and config.mup else 1.0
  return {
    'embed': Group(),
    'hidden': Group(rate=1 / m, decay=m),
    'readout': Group(),
    'vector': Group(decay=0.0),
  }


def scales(config: 'DecoderConfig') -> Scales:
  """The numbers of the forward pass; all 1 without muP."""
  mup = config.mup
  if mup is None:
    return Scales()
  return Scales(
    logits=mup.base_width / config.width,
    queries=8 / math.sqrt(config.K),
    branches=mup.base_layers / config.layers if mup.base_layers else 1.0,
  )


def start_std(config: 'DecoderConfig', name: str, fan_in: int) -> float:
  """The standard deviation with which a matrix starts under muP; 0 for one that starts at 0.

  Args:
    config: with `mup`.
    name: a key of `PARAMETERS`.
    fan_in: how many numbers each of its outputs sums.
  """
  mup = config.mup
  if name == 'embed' and not config.tied_embeddings:
    return 1.0
  if (name == 'head' and mup.zero_head) or (name == 'q' and mup.zero_queries):
    return 0.0
  if name in ('embed', 'head'):
    return math.sqrt(2 / (5 * mup.base_width))
  return 1 / math.sqrt(fan_in)


def fold_factors(config: 'DecoderConfig') -> dict[str, float]:
  """By what `fold` multiplies parameters, by the last part of their paths; {} without muP."""
  by = scales(config)
  factors = {
    'norm': by.logits,
    'q_norm' if config.qk_norm else 'q': by.queries,
    'o': by.branches,
    'down': by.branches,
  }
  return {name: factor for name, factor in factors.items() if factor != 1}


def fold(config: 'DecoderConfig', params: Any) -> tuple['DecoderConfig', Any]:
  """An equal model without muP: the numbers of the forward pass go into the weights.

  Logits are equal up to rounding; bit for bit in float32 where each factor is a power of two.

  Args:
    config: of the decoder; without muP it comes back as it is, with the same parameters.
    params: nested dict of arrays, NumPy's or JAX's.
  """
  factors = fold_factors(config)

  def one(path, leaf):
    factor = factors.get(jax.tree_util.keystr(path[-1:], simple=True))
    return leaf if factor is None else leaf * leaf.dtype.type(factor)

  return dataclasses.replace(config, mup=None), jax.tree_util.tree_map_with_path(one, params)


def widened(config: 'DecoderConfig', width: int) -> 'DecoderConfig':
  """The model at another width, as muP has it: more heads of the same size, and more feed-forward.

  Raises:
    ValueError: heads or feed-forward at this width are no whole numbers.
  """
  changes = {'width': width, 'head_size': config.K}
  for name in ('heads', 'kv_heads', 'feedforward'):
    changes[name], rest = divmod(getattr(config, name) * width, config.width)
    if rest:
      raise ValueError(
        f'width {width}: DecoderConfig.{name}, {getattr(config, name)} at width {config.width}, would '
        'be no whole number.'
      )
  return dataclasses.replace(config, **changes)
