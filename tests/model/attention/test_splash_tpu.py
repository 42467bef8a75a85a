"""Splash attention compiled ahead of time for TPU chips that are not here; needs libtpu.

Its arithmetic is tested in the interpreter; here the compiler for the chip accepts it, forward and
backward, with every option, at every head size, and on meshes.
"""

import os

import jax
import jax.numpy as jnp
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.mesh import MeshConfig
from jaxlink.model import attention, axes
from jaxlink.model.decoder import abstract_decoder, bind
from jaxlink.model.shape import DecoderConfig

pytest.importorskip('libtpu')
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
# Nothing runs on a chip here, so another process that compiles is no conflict.
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')


@pytest.fixture(scope='module')
def devices():
  """Of four v5e chips."""
  from jax.experimental import topologies

  return topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices


def compiled(devices, mesh, shape, *, dtype=jnp.bfloat16, **options):
  """Forward and backward of a batch (rows, length, heads, key-value heads, head size)."""
  B, T, H, G, K = shape
  mesh = mesh_lib.make_mesh(mesh, devices)
  placement = mesh_lib.Placement(mesh)

  def array(heads, name):
    names = ('batch', 'sequence', name, 'head_size')
    sharding = jax.sharding.NamedSharding(mesh, mesh_lib.spec(names))
    return jax.ShapeDtypeStruct((B, T, heads, K), dtype, sharding=sharding)

  segments = jax.ShapeDtypeStruct((B, T), jnp.int32, sharding=mesh_lib.batch_sharding(mesh))

  def total(q, k, v, segments):
    with axes.placed_by(placement):
      out = attention.attend(q, k, v, segments, implementation='splash', **options)
    return out.astype(jnp.float32).sum()

  step = jax.jit(jax.grad(total, (0, 1, 2)))
  inputs = (array(H, 'heads'), array(G, 'kv'), array(G, 'kv'), segments)
  return step.trace(*inputs).lower(lowering_platforms=('tpu',)).compile()


def kernels(executable):
  """How often each kernel is called."""
  lines = [line for line in executable.as_text().splitlines() if 'tpu_custom_call' in line]
  return [sum(f'splash_mha_{phase}' in line for line in lines) for phase in ('fwd', 'dq', 'dkv')]


@pytest.mark.parametrize(
  ('shape', 'options'),
  [
    ((4, 2048, 16, 8, 128), {}),
    ((4, 2048, 8, 8, 64), {'window': 1024}),
    ((4, 1000, 8, 2, 80), {'window': 100, 'soft_cap': 50.0}),
    ((4, 200, 4, 1, 16), {'soft_cap': 50.0}),
    ((4, 1024, 4, 2, 256), {}),
    ((4, 1024, 4, 2, 128), {'dtype': jnp.float32}),
  ],
)
def test_every_option_and_head_size_compiles_for_the_chip(devices, shape, options):
  executable = compiled(devices, MeshConfig(data=4), shape, **options)
  assert kernels(executable) == [1, 1, 1]


@pytest.mark.parametrize(
  'mesh',
  [
    MeshConfig(data=1, sequence=2, tensor=2),
    MeshConfig(data=1, fsdp=2, sequence=2),
    MeshConfig(data=1, sequence=4),
  ],
  ids=str,
)
def test_rows_and_heads_over_devices_compile_without_the_square_of_the_length(devices, mesh):
  T = 8192
  executable = compiled(devices, mesh, (4, T, 8, 4, 128), window=1024, soft_cap=50.0)
  assert kernels(executable) == [1, 1, 1]
  scores = 2 * 4 * 8 * T * T // 4  # of a device, in bfloat16
  assert executable.memory_analysis().temp_size_in_bytes < scores / 8


@pytest.mark.parametrize(('remat', 'times'), [('full', 2), ('attention', 1), ('dots', 1)])
def test_remat_keeps_the_output_of_the_kernel_in_the_compiled_step(devices, remat, times):
  config = DecoderConfig(
    layers=2, width=256, heads=4, kv_heads=2, feedforward=256, vocabulary=128,
    attention='splash', dtype='bfloat16', remat=remat,
  )  # fmt: skip
  graph, shapes, _ = abstract_decoder(config)
  whole = jax.sharding.SingleDeviceSharding(devices[0])
  place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)  # noqa: E731
  row = place(jax.ShapeDtypeStruct((1, 256), jnp.int32))

  def loss(params, row):
    return bind(graph, params)(row, row, row).astype(jnp.float32).sum()

  step = jax.jit(jax.grad(loss)).trace(jax.tree.map(place, shapes), row)
  executable = step.lower(lowering_platforms=('tpu',)).compile()
  assert kernels(executable)[0] == times
