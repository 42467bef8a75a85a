"""Devices that are not here: a TPU slice or a GPU box, by name, as XLA's compilers see them.

A name such as 'v5p:4x4x2' or 'h100:8' goes in; a `Target` with devices that can be compiled for, and run
nowhere, comes out. TPUs need `libtpu`, GPUs `jax-cuda12-plugin` or `jax-cuda13-plugin`; neither needs the
hardware or its driver. Without a GPU plugin a step is still traced and counted.

Easy to get wrong: the environment is read when JAX and libtpu are loaded: call `prepare` before either.
"""

import dataclasses
import importlib
import importlib.util
import math
import os
import re
from typing import Any

from jaxlink.chips import CHIPS, Chip
from jaxlink.names import nearest

EXAMPLES = 'v5p:4x4x2, v5e:16x16, v6e:8x8, v4:2x2x4, h100:8, h200:8'
_PLUGINS = ('jax_cuda12_plugin', 'jax_cuda13_plugin')
# What XLA:GPU asks of a card that is not here: capability, cores, registers, shared memory (NVIDIA's tuning
# guides for Ampere and Hopper).
_HOPPER = (
  '9', 'feature_extension: ACCELERATED_FEATURES', 132, 128, 233472, 232448, 52428800, 1.98
)  # fmt: skip
_CARDS = {
  'a100-40': ('8', '', 108, 64, 167936, 166912, 41943040, 1.41),
  'a100': ('8', '', 108, 64, 167936, 166912, 41943040, 1.41),
  'h100': _HOPPER,
  'h200': _HOPPER,
}


@dataclasses.dataclass(frozen=True)
class Target:
  """What a step is compiled for.

  Attributes:
    name: as asked for.
    chip: each device.
    count: devices.
    devices: that can be compiled for; None where there is no compiler here for them.
    lack: why there is none, or ''.
  """

  name: str
  chip: Chip
  count: int
  devices: list[Any] | None
  lack: str = ''


def prepare() -> None:
  """Sets the environment in which compilers look for no device. Before JAX is imported."""
  os.environ['JAX_PLATFORMS'] = 'cpu'
  quiet = {
    'TPU_SKIP_MDS_QUERY': '1',  # no question to a metadata server that is not there
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # of no consequence; unset, libtpu complains
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # its lock is for chips: two compilers may run side by side
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  for name, value in quiet.items():
    os.environ.setdefault(name, value)


def find(name: str, slices: int = 1) -> Target:
  """The target of this name.

  Args:
    name: chip:shape. A shape is 'AxB' or 'AxBxC' chips for a TPU slice, a number of cards for GPUs.
    slices: TPU slices of that shape, connected by the data centre's network.

  Raises:
    ValueError: the name is not understood, the chip unknown, or the shape not one that is built.
    ModuleNotFoundError: libtpu is missing.
  """
  match = re.fullmatch(r'([\w-]+):(\d+(?:x\d+){0,2})', name)
  if not match:
    raise ValueError(f'--topology is {name!r}: it is chip:shape, such as {EXAMPLES}.')
  kind, shape = match[1], [int(n) for n in match[2].split('x')]
  if kind not in CHIPS:
    raise ValueError(
      f'--topology is {name!r}: no chip {kind!r} is known.{nearest(kind, CHIPS)} Known: '
      f'{", ".join(CHIPS)}. Examples: {EXAMPLES}.'
    )
  chip = CHIPS[kind]
  if min(shape) < 1 or slices < 1:
    raise ValueError(f'--topology is {name!r} with {slices} slices: numbers are 1 or more.')
  if chip.platform == 'tpu':
    return _tpu(name, kind, chip, shape, slices)
  if len(shape) != 1 or slices != 1:
    raise ValueError(f'--topology is {name!r}: GPUs are counted, as in {kind}:8, without slices.')
  return _gpu(name, kind, chip, shape[0])


def _tpu(name: str, kind: str, chip: Chip, shape: list[int], slices: int) -> Target:
  rank = 2 if kind in ('v5e', 'v6e') else 3
  if len(shape) != rank:
    example = 'x'.join(['4'] * rank)
    raise ValueError(
      f'--topology is {name!r}: a {kind} slice has {rank} sides, as {kind}:{example}.'
    )
  if importlib.util.find_spec('libtpu') is None:
    raise ModuleNotFoundError(
      f'--topology is {name!r}, and libtpu is not installed: its compiler needs no TPU. In an environment '
      'of its own, so that training does not look for chips: pip install libtpu'
    )
  import jax
  from jax.experimental import topologies

  options = {'chip_config_name': 'megacore'} if kind == 'v4' else {}  # one device a chip
  if math.prod(shape) < 4:
    options['chips_per_host_bounds'] = [*shape, *[1] * (3 - rank)]
  if slices > 1:
    options['num_slices'] = slices
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=name, **options)
  except jax.errors.JaxRuntimeError as error:
    first = str(error).splitlines()[0]
    raise ValueError(
      f'--topology is {name!r}, which libtpu does not build ({first}). Examples: {EXAMPLES}.'
    ) from None
  return Target(name, chip, len(found.devices), list(found.devices))


def _gpu(name: str, kind: str, chip: Chip, count: int) -> Target:
  plugin = next((p for p in _PLUGINS if importlib.util.find_spec(p)), None)
  if plugin is None:
    lack = (
      'no compiler for GPUs here: memory of temporaries and collectives are unknown. It needs neither a GPU '
      'nor a driver: pip install jax-cuda13-plugin'
    )
    return Target(name, chip, count, None, lack)
  import jax
  from jax.experimental import topologies

  try:
    found = topologies.get_topology_desc(
      platform='cuda', topology_name=kind, topology=f'1x1x{count}', target_config=_card(kind, chip)
    )
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    return Target(
      name, chip, count, None, f'{plugin} gives no topology: {str(error).splitlines()[0]}'
    )
  return Target(name, chip, count, list(found.devices))


def _card(kind: str, chip: Chip) -> str:
  """XLA's description of a card (GpuTargetConfigProto, as text)."""
  major, feature, cores, units, shared, optin, cache, clock = _CARDS[kind]
  return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(chip.memory_rate)}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {chip.memory}
  shared_memory_per_block_optin: {optin}
  cuda_compute_capability {{ major: {major} {feature} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  name: "{chip.kinds[0]}"
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{chip.kinds[0]}"
"""
