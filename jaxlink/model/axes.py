"""Names the axes of activations: what the model says about itself, and no more.

`named(x, 'batch', 'sequence', 'heads', 'head_size')` returns x as it is unless somebody is placing
arrays. `mesh.py` does, with `placed_by`; the model itself never learns of a mesh. A kernel that the
compiler cannot split by itself is called through `per_shard`: each device runs it on its own part.

Easy to get wrong: the placement is read while a function is traced and is no part of jit's cache
key. Enter `placed_by` inside the function that is jitted, not around its call.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax

Names = tuple[str | None, ...]


class Placement(Protocol):
  """Where named axes lie; `mesh.Placement` is the one that knows."""

  def place(self, x: jax.Array, names: Names) -> jax.Array:
    """x, constrained to lie as its names say."""

  def per_shard(
    self, function: Callable[..., Any], inputs: Sequence[Names], outputs: Any
  ) -> Callable[..., Any]:
    """The function, run by each device on its own part of the inputs."""

  def ways(self, name: str) -> int:
    """Into how many parts an axis of this name is split."""


_placement: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
  'placement', default=None
)


def named(x: jax.Array, *names: str | None) -> jax.Array:
  """Returns x, placed by the rules in force for these axis names; x itself where there are none.

  Raises:
    ValueError: the number of names is not the rank of x.
  """
  if len(names) != x.ndim:
    raise ValueError(f'{len(names)} axis names {names} for an array of shape {x.shape}.')
  placement = _placement.get()
  return x if placement is None else placement.place(x, names)


def per_shard(
  function: Callable[..., Any], inputs: Sequence[Names], outputs: Any
) -> Callable[..., Any]:
  """The function, run by each device on its own part of every input; itself where nothing is placed.

  Args:
    function: of arrays, independent along every axis that the rules split.
    inputs: names of the axes of each argument. An axis whose name is None is whole on each device.
    outputs: names of the axes of the result: a tuple, or a pytree of tuples.
  """
  placement = _placement.get()
  return function if placement is None else placement.per_shard(function, inputs, outputs)


def ways(name: str) -> int:
  """Into how many parts an axis of this name is split by the rules in force; 1 without any."""
  placement = _placement.get()
  return 1 if placement is None else placement.ways(name)


@contextlib.contextmanager
def placed_by(placement: Placement | None) -> Iterator[None]:
  """While active, `named` and `per_shard` follow this placement."""
  token = _placement.set(placement)
  try:
    yield
  finally:
    _placement.reset(token)
