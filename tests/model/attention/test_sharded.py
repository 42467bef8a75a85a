"""Each back end gives the same on a mesh as on one device: batch, heads and rows split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.mesh import MeshConfig
from jaxlink.model import attention, axes
from tests.model.attention.naive import arrays, packed

# Four parts of a row are 128 each, the smallest that splash takes.
BATCH, LENGTH = 4, 512
OPTIONS = {'window': 40, 'soft_cap': 2.0}


def run(mesh, name, options):
  """Output and gradients, with inputs and outputs as the model lays them."""
  placement = mesh and mesh_lib.Placement(mesh_lib.make_mesh(mesh))
  q, k, v, gradient = arrays(0, batch=BATCH, length=LENGTH)
  segments = packed(0, batch=BATCH, length=LENGTH, fragments=6)

  def scalar(q, k, v):
    with axes.placed_by(placement):
      q = axes.named(q, 'batch', 'sequence', 'heads', 'head_size')
      k, v = (axes.named(x, 'batch', 'sequence', 'kv', 'head_size') for x in (k, v))
      out = attention.attend(
        q, k, v, segments, implementation=name, interpret=name != 'xla', **options
      )
      return jnp.sum(axes.named(out, 'batch', 'sequence', 'heads', 'head_size') * gradient), out

  (_, out), gradients = jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))(q, k, v)
  return out, *gradients


@functools.cache
def alone(name, options):
  return run(None, name, dict(options))


def check(mesh, name, options):
  for one, other in zip(run(mesh, name, options), alone(name, tuple(options.items())), strict=True):
    np.testing.assert_allclose(one, other, atol=5e-6 * np.abs(other).max())


@pytest.mark.parametrize(
  ('mesh', 'name', 'options'),
  [
    (MeshConfig(data=2, sequence=4), 'xla', OPTIONS),
    (MeshConfig(data=2, sequence=2, tensor=2), 'xla', {}),
    (MeshConfig(data=2, fsdp=2, tensor=2), 'pallas', {}),
    (MeshConfig(data=2, sequence=2, tensor=2), 'splash', {}),
  ],
  ids=str,
)
def test_a_mesh_gives_what_one_device_gives(mesh, name, options):
  check(mesh, name, options)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('mesh', 'name', 'options'),
  [
    (MeshConfig(data=2, sequence=4), 'splash', {}),
    (MeshConfig(data=2, sequence=4), 'splash', OPTIONS),
    (MeshConfig(fsdp=2, data=2, tensor=2), 'splash', OPTIONS),
    (MeshConfig(data=4, tensor=2), 'pallas', {}),
    (MeshConfig(data=2, fsdp=2, sequence=2), 'xla', OPTIONS),
  ],
  ids=str,
)
def test_other_meshes_give_what_one_device_gives(mesh, name, options):
  check(mesh, name, options)
