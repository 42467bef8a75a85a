"""Compiler flags that we recommend, by hardware: one table, each with its reason, date and source.

In: a platform. Out: the environment that sets its flags: `LIBTPU_INIT_ARGS` on TPUs, `XLA_FLAGS` on GPUs.
`python -m jaxlink.train --xla_flags=v5p` puts them there, and so do the scripts of tools/tpu.

Easy to get wrong: flags come and go between releases, and one that is not known ends the process at its
start, as does a value in last year's spelling. The tests hand each one to the installed jaxlib or libtpu.
Other flags are another program, whose sums round differently: a run goes on with the flags that it has.
"""

import dataclasses
import re
from collections.abc import MutableMapping
from typing import Any

PLATFORMS = ('v5e', 'v5p', 'v6e', 'gpu')
_TPUS = ('v5e', 'v5p', 'v6e')
_KINDS = {  # as JAX calls them
  'TPU v5 lite': 'v5e', 'TPU v5e': 'v5e', 'TPU v5': 'v5p', 'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e', 'TPU v6e': 'v6e',
}  # fmt: skip

_GUIDE = 'openxla.org/xla/flags_guidance'
_MAXTEXT = 'github.com/AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py'
_NVIDIA = 'docs.nvidia.com/jax-toolbox, GPU performance'


@dataclasses.dataclass(frozen=True)
class Flag:
  """One flag.

  Attributes:
    name: without dashes.
    value: as it is written.
    platforms: where it is set.
    reason: what it does for this trainer, and what it costs.
    date: when reason and source were last looked at.
    source: who recommends it.
  """

  name: str
  value: str
  platforms: tuple[str, ...]
  reason: str
  date: str
  source: str

  def __str__(self) -> str:
    return f'--{self.name}={self.value}'


FLAGS = (
  Flag(
    'xla_tpu_enable_data_parallel_all_reduce_opt', 'true', _TPUS,
    'several slices: the sum of gradients over the data centre network overlaps with the backward pass',
    '2026-11', f'{_GUIDE}; {_MAXTEXT}',
  ),
  Flag(
    'xla_tpu_data_parallel_opt_different_sized_ops', 'true', _TPUS,
    'the same for gradients of layers in a loop, whose sizes differ from what the loop stacks; takes memory',
    '2026-11', f'{_GUIDE}; {_MAXTEXT}',
  ),
  Flag(
    'xla_tpu_enable_async_collective_fusion_fuse_all_reduce', 'true', ('v5e',),
    'all-reduces run beside matrix products; off by default, unlike for all-gathers',
    '2026-11', _GUIDE,
  ),
  Flag(
    'xla_jf_spmd_threshold_for_windowed_einsum_mib', '1000000', _TPUS,
    'fsdp: a product stays one, and is not cut into as many as there are devices; of a 1.1B step for v5p:4x4x2 memory traffic falls from 361 to 234 GB by the compiled program, for 0.10 GiB',
    '2026-11', 'tools/aot_compile.py',
  ),
  Flag(
    'xla_tpu_scoped_vmem_limit_kib', '98304', ('v6e',),
    'a fusion may use 96 of the 128 MiB of a core\'s fast memory, by default 16: larger tiles, fewer reads; compiles longer',
    '2026-11', _MAXTEXT,
  ),
  Flag(
    'xla_gpu_enable_latency_hiding_scheduler', 'true', ('gpu',),
    'several GPUs: collectives start early and run beside matrix products; off by default',
    '2026-11', f'{_GUIDE}; {_NVIDIA}',
  ),
  Flag(
    'xla_gpu_enable_pipelined_all_gather', 'true', ('gpu',),
    'fsdp: a layer\'s weights are gathered during the layer before; takes the memory of one more layer',
    '2026-11', f'{_GUIDE}; {_NVIDIA}',
  ),
)  # fmt: skip


def environment(platform: str) -> dict[str, str]:
  """The variable that holds a platform's flags, and its value.

  Args:
    platform: one of `PLATFORMS`.
  """
  variable = 'XLA_FLAGS' if platform == 'gpu' else 'LIBTPU_INIT_ARGS'
  return {variable: ' '.join(str(flag) for flag in FLAGS if platform in flag.platforms)}


def put(platform: str, environ: MutableMapping[str, str]) -> None:
  """Adds a platform's flags to an environment; what is set there wins.

  To be called before JAX is imported.
  """
  for variable, flags in environment(platform).items():
    there = environ.get(variable, '')
    named = set(re.findall(r'--([a-z0-9_]+)', there))
    new = [flag for flag in flags.split() if flag[2:].split('=')[0] not in named]
    environ[variable] = ' '.join([*there.split(), *new])


def check(platform: str, device: Any) -> None:
  """Raises ValueError where a platform's flags were set and its device is not here; 'none' fits all."""
  here = _KINDS.get(device.device_kind, 'gpu' if device.platform == 'gpu' else device.device_kind)
  if platform not in ('none', here):
    allowed = f'none or {here}' if here in PLATFORMS else 'none'
    raise ValueError(
      f'--xla_flags is {platform}, and the devices are {device.device_kind}: give {allowed}.'
    )


def table() -> str:
  """The flags as a Markdown table, which docs/performance.md shows."""
  rows = [('flag', 'where', 'why', 'source', 'looked at')]
  rows += [
    (f'`{flag}`', ', '.join(flag.platforms), flag.reason, flag.source, flag.date) for flag in FLAGS
  ]
  lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
  return '\n'.join([lines[0], '|---' * len(rows[0]) + '|', *lines[1:]])
