"""Meshes, the table of rules, and what does not divide."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxlink import mesh as mesh_lib
from jaxlink.mesh import MeshConfig


def test_minus_one_takes_the_rest_of_the_devices():
  assert MeshConfig().sizes(8) == (8, 1, 1, 1)
  assert MeshConfig(fsdp=2, tensor=2).sizes(8) == (2, 2, 1, 2)
  assert MeshConfig(data=1, fsdp=-1).sizes(8) == (1, 8, 1, 1)
  assert MeshConfig(sequence=4).sizes(8) == (2, 1, 4, 1)


@pytest.mark.parametrize(
  ('config', 'numbers'),
  [
    (MeshConfig(data=2, fsdp=3), r'multiply to 6, and there are 8 devices\.'),
    (MeshConfig(tensor=3), 'multiply to 3, and there are 8 devices, which 3 does not divide'),
  ],
)
def test_sizes_that_do_not_multiply_to_the_devices_raise_with_both_numbers(config, numbers):
  with pytest.raises(ValueError, match=numbers):
    mesh_lib.make_mesh(config)


def test_a_size_of_zero_and_a_second_minus_one_raise():
  with pytest.raises(ValueError, match=r'MeshConfig\.fsdp is 0'):
    MeshConfig(fsdp=0)
  with pytest.raises(ValueError, match='more than one -1'):
    MeshConfig(fsdp=-1)


def test_axes_are_automatic_on_real_and_abstract_meshes():
  for mesh in (mesh_lib.make_mesh(MeshConfig()), mesh_lib.abstract_mesh(MeshConfig(), 32)):
    assert mesh.axis_names == ('data', 'fsdp', 'sequence', 'tensor')
    assert mesh.axis_types == (AxisType.Auto,) * 4
  assert mesh.shape['data'] == 32


def test_slices_lie_along_data_and_must_divide_it():
  def device(i):
    return types.SimpleNamespace(
      id=i,
      platform='tpu',
      device_kind='TPU v5e',
      slice_index=i // 4,
      process_index=i // 4,
      coords=(i % 2, i % 4 // 2, 0),
      core_on_chip=0,
    )

  devices = [device(i) for i in range(8)]
  with pytest.raises(
    ValueError, match='data is 1: slices lie along data, so it is a multiple of 2'
  ):
    mesh_lib.make_mesh(MeshConfig(data=1, fsdp=8), devices)
  array = mesh_lib._across_slices((2, 4, 1), 2, devices)
  assert [{d.slice_index for d in row.flat} for row in array] == [{0}, {1}]


def test_names_become_partitions_and_an_unknown_name_raises():
  assert mesh_lib.spec(('batch', None, 'heads')) == PartitionSpec(('data', 'fsdp'), None, 'tensor')
  with pytest.raises(ValueError, match=r"no rule for the axis 'head'\. Nearest: 'heads'"):
    mesh_lib.spec(('head',))


def test_a_dimension_that_its_axis_does_not_divide_raises_with_both_numbers():
  mesh = mesh_lib.make_mesh(MeshConfig(tensor=4))
  shapes = {'attention': {'k': jax.ShapeDtypeStruct((8, 2, 4), jnp.float32)}}
  names = {'attention': {'k': ('embed', 'kv', 'head_size')}}
  with pytest.raises(ValueError, match=r"attention\.k has 2 along 'kv', which the 4 devices"):
    mesh_lib.param_shardings(mesh, shapes, names)


def test_rows_split_over_data_and_fsdp_together():
  mesh = mesh_lib.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  assert mesh_lib.rows_per_device(mesh, 8) == 2
  with pytest.raises(ValueError, match='batch of 6 sequences does not split over the 4 devices'):
    mesh_lib.rows_per_device(mesh, 6)
  batch = jax.device_put(np.arange(16).reshape(8, 2), mesh_lib.batch_sharding(mesh))
  assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 2)}


def test_the_table_shows_shape_partition_and_bytes_of_one_device():
  mesh = mesh_lib.abstract_mesh(MeshConfig(fsdp=4, tensor=2), 16)
  shapes = {'up': jax.ShapeDtypeStruct((1024, 4096), jnp.float32)}
  sharding = mesh_lib.param_shardings(mesh, shapes, {'up': ('embed', 'feedforward')})['up']
  table = mesh_lib.sharding_table(
    {'up': jax.ShapeDtypeStruct((1024, 4096), jnp.float32, sharding=sharding)}
  )
  assert [line.split() for line in table.splitlines()] == [
    ['name', 'shape', 'partition', 'MiB', 'per', 'device'],
    ['up', '1024×4096', 'fsdp,', 'tensor', '2.00'],
    ['total', '2.00'],
  ]
