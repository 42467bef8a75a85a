"""Counts the floating-point operations of a traced step, loops in full.

A jaxpr goes in; the flops of its matrix products, and of kernels, come out, over all devices. A scanned
layer counts as often as it runs: XLA's own `cost_analysis` counts the body of a loop once.

Easy to get wrong: what is in the number. Products alone are counted (2 for each multiply and add): sums,
norms and softmaxes are a percent of a step, and matrix units do not do them. A masked product counts whole,
as it is computed whole. Inside `shard_map` shapes are one device's, so they count once for each device.
"""

import dataclasses
import math
from typing import Any

from jax.extend import core

_BRANCHES = 'branches'


@dataclasses.dataclass(frozen=True)
class Flops:
  """Operations of a function, over all devices.

  Attributes:
    products: of matrix products that the compiler sees.
    kernels: of kernels (Pallas): by their own estimate, else by the products inside times the grid.
    unbounded: loops whose length is not in the program; their bodies are counted once.
  """

  products: float = 0.0
  kernels: float = 0.0
  unbounded: int = 0

  @property
  def total(self) -> float:
    return self.products + self.kernels

  def with_kernels(self, share: float) -> float:
    """The total, of kernels that do this share of the work that their grids span."""
    return self.products + self.kernels * share

  def __add__(self, other: 'Flops') -> 'Flops':
    return Flops(
      self.products + other.products, self.kernels + other.kernels, self.unbounded + other.unbounded
    )

  def times(self, n: float) -> 'Flops':
    """Of n runs."""
    return Flops(self.products * n, self.kernels * n, self.unbounded)


def count(jaxpr: Any) -> Flops:
  """The flops of a jaxpr, as `jax.make_jaxpr(f)(…)` or `jax.jit(f).trace(…).jaxpr` give it."""
  total = Flops()
  for eqn in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
    total += _of(eqn)
  return total


def _of(eqn: Any) -> Flops:
  name, params = eqn.primitive.name, eqn.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    left = eqn.invars[0].aval.shape
    depth = math.prod(left[axis] for axis in contracted)
    return Flops(products=2.0 * math.prod(eqn.outvars[0].aval.shape) * depth)
  if name == 'conv_general_dilated':
    raise ValueError('flops: a convolution is not counted; the decoder has none.')
  if name == 'pallas_call':
    return Flops(kernels=_kernel(params))
  if name == 'scan':
    return count(params['jaxpr']).times(params['length'])
  if name == 'while':
    once = count(params['body_jaxpr']) + count(params['cond_jaxpr'])
    return dataclasses.replace(once, unbounded=once.unbounded + 1) if once.total else Flops()
  if name == 'cond':
    return max((count(branch) for branch in params[_BRANCHES]), key=lambda flops: flops.total)
  inside = sum((count(jaxpr) for jaxpr in _jaxprs(params)), Flops())
  if name == 'shard_map':
    mesh = params['mesh']
    manual = params.get('manual_axes', mesh.axis_names)
    return inside.times(math.prod(mesh.shape[axis] for axis in manual))
  return inside


def _kernel(params: dict[str, Any]) -> float:
  if (estimate := params.get('cost_estimate')) is not None:
    return float(estimate.flops)
  steps = math.prod(n for n in params['grid_mapping'].grid if isinstance(n, int))
  return count(params['jaxpr']).total * steps


def _jaxprs(params: dict[str, Any]) -> list[Any]:
  """The jaxprs in an equation's parameters: of jit, checkpoint, custom derivatives, shard_map."""
  kinds = (core.Jaxpr, core.ClosedJaxpr)
  return [value for value in params.values() if isinstance(value, kinds)]
