"""Flops of a traced step: equal to hand counts and, without loops, to the compiler's."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec

from jaxlink.aot import flops

B, D, L = 8, 16, 5
X, W = jnp.ones((B, D)), jnp.ones((L, D, D))
PRODUCT = 2 * B * D * D


def _layers(x, w, *, remat=False):
  layer = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
  return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, w)[0].sum()


def _count(function, *args):
  return flops.count(jax.make_jaxpr(function)(*args))


def test_a_scan_counts_as_often_as_it_runs():
  assert _count(_layers, X, W).total == L * PRODUCT


def test_a_gradient_is_two_products_more_and_remat_one_again():
  gradient = lambda remat: _count(  # noqa: E731
    jax.grad(lambda x, w: _layers(x, w, remat=remat), argnums=(0, 1)), X, W
  )
  assert gradient(False).total == 3 * L * PRODUCT
  assert gradient(True).total == 4 * L * PRODUCT


def test_without_loops_it_is_what_the_compiler_counts():
  def product(a, b, c):
    return jnp.einsum('btd,dhk->bthk', a, b), jnp.einsum('btd,btc->dc', a, c)

  arrays = jnp.ones((2, 6, 16)), jnp.ones((16, 4, 8)), jnp.ones((2, 6, 3))
  compiled = jax.jit(product).lower(*arrays).compile()
  counted = _count(product, *arrays).total
  assert counted == 2 * 2 * 6 * 16 * 32 + 2 * 2 * 6 * 16 * 3
  assert compiled.cost_analysis()['flops'] == counted


def test_the_compiler_counts_a_loop_once():
  compiled = jax.jit(lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]).lower(X, W)
  assert compiled.compile().cost_analysis()['flops'] < 2 * PRODUCT


def test_of_branches_the_dearest_counts():
  f = lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w[0] @ w[1], lambda: x @ w[0])  # noqa: E731
  assert _count(f, X, W).total == 2 * PRODUCT


def test_a_loop_without_a_length_counts_once_and_is_told():
  f = lambda x, w: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ w[0], x)  # noqa: E731
  assert _count(f, X, W) == flops.Flops(products=PRODUCT, unbounded=1)
  assert _count(lambda x: jax.lax.while_loop(lambda x: x < 9, lambda x: x + 1, x), 0).unbounded == 0


def test_a_part_of_each_device_counts_for_every_device():
  mesh = Mesh(jax.devices()[:4], ('x',))
  spec = PartitionSpec('x')
  f = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec)
  assert _count(f, X, W[0]).total == PRODUCT


def test_a_kernel_counts_its_products_for_each_point_of_its_grid():
  def kernel(x, w, out):
    out[...] = x[...] @ w[...]

  f = pl.pallas_call(
    kernel,
    grid=(B // 2,),
    in_specs=[pl.BlockSpec((2, D), lambda i: (i, 0)), pl.BlockSpec((D, D), lambda i: (0, 0))],
    out_specs=pl.BlockSpec((2, D), lambda i: (i, 0)),
    out_shape=jax.ShapeDtypeStruct((B, D), jnp.float32),
  )
  counted = _count(f, X, W[0])
  assert counted == flops.Flops(kernels=PRODUCT)
  assert counted.with_kernels(0.25) == PRODUCT / 4


def test_a_convolution_is_refused():
  image, filters = jnp.ones((1, 3, 8)), jnp.ones((4, 3, 2))
  with pytest.raises(ValueError, match='convolution'):
    _count(lambda a, b: jax.lax.conv(a, b, (1,), 'VALID'), image, filters)
