"""Weights and embeddings over a mesh: gathered for use, their gradients in float32 and in shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.aot import hlo, traffic
from jaxlink.model import decoder
from jaxlink.model.axes import named, placed_by

V, D, B, T = 512, 64, 16, 32


@pytest.fixture(scope='module')
def table() -> jax.Array:
  return jax.random.normal(jax.random.key(0), (V, D))


def test_a_lookup_is_the_row_and_nan_where_there_is_none(table):
  tokens = jnp.array([[0, 3, V - 1], [V, -1, 3]])
  found = decoder._lookup(table, tokens, 'float32')
  assert np.array_equal(found[0], table[tokens[0]])
  assert np.isnan(found[1, :2]).all()
  assert np.array_equal(found[1, 2], table[3])


def test_the_gradient_of_a_frequent_token_is_summed_in_float32(table):
  tokens = jnp.full((1, 1000), 7)
  ones = lambda table: decoder._lookup(table, tokens, 'bfloat16').astype(jnp.float32).sum()  # noqa: E731
  gradient = jax.grad(ones)(table)
  assert gradient.dtype == jnp.float32
  assert np.array_equal(gradient[7], np.full(D, 1000.0))  # a sum in bfloat16 stops at 256
  assert not np.delete(np.asarray(gradient), 7, 0).any()


def test_a_gradient_on_a_mesh_is_that_of_one_device_and_is_never_whole(table):
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1, fsdp=8))
  weight = jax.random.normal(jax.random.key(1), (D, D))
  tokens = jax.random.randint(jax.random.key(2), (B, T), 0, V)

  def loss(placement):
    def of(table, weight, tokens):
      with placed_by(placement):
        x_BTD = named(decoder._lookup(table, tokens, 'float32'), 'batch', 'sequence', 'residual')
        return jnp.square(x_BTD @ decoder._whole(weight, 'float32', ('embed', 'heads'))).sum()

    return jax.grad(of, argnums=(0, 1))

  plain = jax.jit(loss(None))(table, weight, tokens)
  lies = [
    jax.sharding.NamedSharding(mesh, mesh_lib.spec(names))
    for names in (('vocab', 'embed'), ('embed', 'heads'), ('batch', None))
  ]
  step = jax.jit(loss(mesh_lib.Placement(mesh)), in_shardings=lies, out_shardings=tuple(lies[:2]))
  compiled = step.lower(table, weight, tokens).compile()
  split = compiled(*jax.device_put((table, weight, tokens), tuple(lies)))
  for whole, parts in zip(plain, split, strict=True):
    assert np.abs(parts - whole).max() < 1e-5 * np.abs(whole).max()
  reduced = [
    c for c in traffic.collectives(hlo.parse(compiled.as_text()), dict(mesh.shape))
    if c.kind in ('all-reduce', 'reduce-scatter')
  ]  # fmt: skip
  assert sum(c.sent for c in reduced) < V * D * 4
