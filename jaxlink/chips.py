"""What accelerators can do at their best: one table, for MFU and for estimates of runs not yet started.

Easy to get wrong: what a "chip" is. JAX shows one device for each chip of v4, v5e, v5p and v6e; rates and
memory here are those of a device. Rates are what data sheets state; a card's own limit of power is lower.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device.

  Attributes:
    kinds: names that JAX gives it.
    flops: dense bfloat16 flop/s.
    memory: bytes of HBM.
    memory_rate: bytes/s between HBM and the cores.
    link_rate: bytes/s that it can send to its neighbours (ICI, NVLink), over all links, one direction.
    platform: 'tpu' or 'gpu'.
  """

  kinds: tuple[str, ...]
  flops: float
  memory: int
  memory_rate: float
  link_rate: float
  platform: str = 'tpu'


# Sources: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} (half of the ICI bandwidth that they state for both
# directions) and NVIDIA's data sheets (A100; H100 and H200 SXM, half of the flop/s that they state with
# sparsity, half of NVLink's both directions). The PCIe and NVL cards of the last two are slower, and are
# not here. Memory of GPUs is what CUDA reports.
CHIPS: Mapping[str, Chip] = {
  'v4': Chip(('TPU v4',), 275e12, 32 * 2**30, 1228e9, 300e9),
  'v5e': Chip(('TPU v5 lite', 'TPU v5e'), 197e12, 16 * 2**30, 819e9, 200e9),
  'v5p': Chip(('TPU v5', 'TPU v5p'), 459e12, 95 * 2**30, 2765e9, 600e9),
  'v6e': Chip(('TPU v6 lite', 'TPU v6e'), 918e12, 32 * 2**30, 1638e9, 400e9),
  'a100-40': Chip(
    ('NVIDIA A100-SXM4-40GB', 'NVIDIA A100-PCIE-40GB'),
    312e12, 42_298_834_944, 1555e9, 300e9, 'gpu',
  ),
  'a100': Chip(
    ('NVIDIA A100-SXM4-80GB', 'NVIDIA A100 80GB PCIe'),
    312e12, 85_100_068_864, 2039e9, 300e9, 'gpu',
  ),
  'h100': Chip(('NVIDIA H100 80GB HBM3',), 989e12, 84_942_979_072, 3352e9, 450e9, 'gpu'),
  'h200': Chip(('NVIDIA H200',), 989e12, 151_397_597_184, 4800e9, 450e9, 'gpu'),
}  # fmt: skip


def by_kind(kind: str) -> Chip | None:
  """The chip that JAX calls so, or None if it is not in the table."""
  return next((chip for chip in CHIPS.values() if kind in chip.kinds), None)
