"""The mesh of devices, and one table that says which named axis goes on which of its axes.

Four mesh axes: `data` (whole copies of the state, the batch split), `fsdp` (the batch split, the
state split too and gathered layer by layer), `sequence` (rows split into parts, each device keeping
its part's queries and gathering the row's keys and values) and `tensor` (heads, feed-forward and
vocabulary split).

The model names its axes (`vocab`, `heads`, …); `RULES` maps names to mesh axes. Meshes are made with
automatic axes: shardings are hints that XLA completes. A mesh can also be abstract, for devices that
are not here: a step for 32 chips is traced and lowered on a laptop.

Easy to get wrong: `batch` is split over `data` and `fsdp` together, so a batch has to be a multiple
of their product, not of `data` alone.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlink.config import configurable
from jaxlink.model.axes import Names
from jaxlink.names import nearest

AXES = ('data', 'fsdp', 'sequence', 'tensor')

AnyMesh = Mesh | AbstractMesh

RULES: Mapping[str, tuple[str, ...]] = {
  # parameters
  'layers': (),
  'vocab': ('tensor',),
  'embed': ('fsdp',),
  'heads': ('tensor',),
  'kv': ('tensor',),
  'head_size': (),
  'feedforward': ('tensor',),
  'norm': (),
  # activations, besides heads, kv, feedforward and vocab
  'batch': ('data', 'fsdp'),
  'sequence': ('sequence',),
  'residual': (),
}


@configurable
class MeshConfig:
  """How many ways each mesh axis splits; -1, for one of them, is what is left.

  Raises:
    ValueError: a size that is neither positive nor -1, or more than one -1.
  """

  data: int = -1
  fsdp: int = 1
  sequence: int = 1
  tensor: int = 1

  def __post_init__(self):
    for axis in AXES:
      if getattr(self, axis) < 1 and getattr(self, axis) != -1:
        raise ValueError(f'MeshConfig.{axis} is {getattr(self, axis)}: 1 or more, or -1.')
    if [getattr(self, axis) for axis in AXES].count(-1) > 1:
      raise ValueError(f'{self} has more than one -1: only one axis can take what is left.')

  def sizes(self, devices: int) -> tuple[int, ...]:
    """The sizes of `AXES` on this number of devices.

    Raises:
      ValueError: they do not multiply to it.
    """
    sizes = [getattr(self, axis) for axis in AXES]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and devices % known == 0:
      sizes[sizes.index(-1)] = devices // known
    elif -1 in sizes or known != devices:
      raise ValueError(
        f'{self}: its axes multiply to {known}, and there are {devices} devices'
        + (f', which {known} does not divide.' if -1 in sizes else '.')
      )
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of these devices, by default all of them.

  Several TPU slices lie along `data`, so that only gradients cross the slower network.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or `data` is no multiple of the
      number of slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = config.sizes(len(devices))
  slices = (
    len({getattr(d, 'slice_index', 0) for d in devices}) if devices[0].platform == 'tpu' else 1
  )
  if slices > 1:
    if sizes[0] % slices:
      raise ValueError(
        f'MeshConfig.data is {sizes[0]}: slices lie along data, so it is a multiple of {slices}.'
      )
    array = _across_slices(sizes, slices, devices)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))
  return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=devices)


def abstract_mesh(config: MeshConfig, devices: int) -> AbstractMesh:
  """A mesh of devices that are not here: enough to trace and lower for them."""
  return AbstractMesh(config.sizes(devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(
  names: Sequence[str | None], rules: Mapping[str, tuple[str, ...]] = RULES
) -> PartitionSpec:
  """The partition of an array whose axes carry these names; None stays whole.

  Raises:
    ValueError: a name without a rule.
  """
  parts = []
  for name in names:
    if name is not None and name not in rules:
      raise ValueError(f'no rule for the axis {name!r}.{nearest(name, rules)}')
    axes = rules[name] if name else ()
    parts.append(axes[0] if len(axes) == 1 else (axes or None))
  return PartitionSpec(*parts)


@dataclasses.dataclass(frozen=True)
class Placement:
  """What `model.axes.placed_by` takes: named axes on a mesh, by the rules."""

  mesh: AnyMesh
  rules: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: RULES)

  def place(self, x: jax.Array, names: Names) -> jax.Array:
    """x, constrained to the sharding of its names."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec(names, self.rules)))

  def per_shard(
    self, function: Callable[..., Any], inputs: Sequence[Names], outputs: Any
  ) -> Callable[..., Any]:
    """The function, run by each device on its own part of the inputs."""
    of = lambda names: spec(names, self.rules)  # noqa: E731
    # A kernel's outputs do not say along which axes they vary, so this is not checked.
    return jax.shard_map(
      function,
      mesh=self.mesh,
      in_specs=tuple(map(of, inputs)),
      out_specs=jax.tree.map(of, outputs, is_leaf=_is_names),
      check_vma=False,
    )

  def ways(self, name: str) -> int:
    """Into how many parts an axis of this name is split."""
    return _ways(self.mesh, self.rules[name])


def param_shardings(mesh: AnyMesh, shapes: Any, names: Any) -> Any:
  """A sharding for each parameter, from the names of its axes.

  Args:
    mesh: real or abstract.
    shapes: nested dict of `jax.ShapeDtypeStruct`.
    names: the same form, with a tuple of axis names for each.

  Raises:
    ValueError: a dimension that its mesh axes do not divide.
  """

  def one(path, shape, names):
    sharding = NamedSharding(mesh, spec(names))
    for size, name, axes in zip(shape.shape, names, sharding.spec, strict=True):
      ways = _ways(mesh, axes)
      if size % ways:
        raise ValueError(
          f'{_name(path)} has {size} along {name!r}, which the {ways} devices along the mesh axis '
          f'{axes!r} do not divide.'
        )
    return sharding

  return jax.tree_util.tree_map_with_path(one, shapes, names)


def replicated(mesh: AnyMesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
  """The sharding of every array of a batch: rows over `data` and `fsdp`, all else whole.

  Also with a `sequence` axis: tokens are small, and the model cuts the rows after the embedding.
  """
  return NamedSharding(mesh, spec(('batch',)))


def batch_ways(mesh: AnyMesh) -> int:
  """Into how many parts the rows of a batch are split."""
  return _ways(mesh, RULES['batch'])


def rows_per_device(mesh: AnyMesh, batch: int) -> int:
  """Rows of a global batch that one device holds.

  Raises:
    ValueError: the batch does not split evenly.
  """
  ways = batch_ways(mesh)
  if batch % ways:
    raise ValueError(
      f'a batch of {batch} sequences does not split over the {ways} devices of data × fsdp.'
    )
  return batch // ways


def bytes_per_device(leaf: Any) -> int:
  """Bytes of an array, or of its `jax.ShapeDtypeStruct` with a sharding, on each device."""
  return math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize


def sharding_table(shapes: Any) -> str:
  """A text table of arrays that know their sharding: name, shape, partition, MiB per device.

  Args:
    shapes: a pytree of `jax.ShapeDtypeStruct` with shardings, or of arrays.
  """
  rows, total = [], 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    local = bytes_per_device(leaf)
    total += local
    parts = ', '.join(
      '·'.join(part) if isinstance(part, tuple) else str(part or '-') for part in leaf.sharding.spec
    )
    rows.append((_name(path), '×'.join(map(str, leaf.shape)), parts, f'{local / 2**20:,.2f}'))
  rows.append(('total', '', '', f'{total / 2**20:,.2f}'))
  rows.insert(0, ('name', 'shape', 'partition', 'MiB per device'))
  widths = [max(len(row[i]) for row in rows) for i in range(4)]
  return '\n'.join(
    f'{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}' for a, b, c, d in rows
  )


def _across_slices(sizes, slices, devices):
  inside = (sizes[0] // slices, *sizes[1:])
  return mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1, 1), devices)


def _is_names(value):
  return isinstance(value, tuple) and all(isinstance(name, str | None) for name in value)


def _ways(mesh, axes):
  axes = (axes,) if isinstance(axes, str) else axes or ()
  return math.prod(mesh.shape[axis] for axis in axes)


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator='.')
