"""Names the axes of activations: what the model says about itself, and no more.

`named(x, 'batch', 'sequence', 'heads', 'head_size')` returns x as it is unless somebody is placing
arrays. `mesh.py` does, with `placed_by`; the model itself never learns of a mesh.

Easy to get wrong: the placement is read while a function is traced and is no part of jit's cache
key. Enter `placed_by` inside the function that is jitted, not around its call.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

Place = Callable[[jax.Array, tuple[str | None, ...]], jax.Array]

_place: contextvars.ContextVar[Place | None] = contextvars.ContextVar('place', default=None)


def named(x: jax.Array, *names: str | None) -> jax.Array:
  """Returns x, placed by the rules in force for these axis names; x itself where there are none.

  Raises:
    ValueError: the number of names is not the rank of x.
  """
  if len(names) != x.ndim:
    raise ValueError(f'{len(names)} axis names {names} for an array of shape {x.shape}.')
  place = _place.get()
  return x if place is None else place(x, names)


@contextlib.contextmanager
def placed_by(place: Place | None) -> Iterator[None]:
  """While active, `named` hands its arrays and names to `place`."""
  token = _place.set(place)
  try:
    yield
  finally:
    _place.reset(token)
