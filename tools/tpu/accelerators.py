"""What Cloud TPU calls its accelerators: which there are, how many chips and hosts they have.

In: a name such as v5p-64. Out: its generation, chips and hosts.

Easy to get wrong: what the number counts. v5p-64 has 64 TensorCores, so 32 chips, which are 32 devices to
JAX; v5litepod-64 and v6e-64 have 64 chips.
"""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Generation:
  """A generation of TPUs, as Cloud TPU offers it.

  Attributes:
    counted: what the number in an accelerator's name counts: 'chips' or 'TensorCores', two a chip.
    sizes: the numbers that there are.
    runtime: the software version of its machines.
    xla_flags: the generation's name in jaxlink's table of compiler flags.
  """

  counted: str
  sizes: tuple[int, ...]
  runtime: str
  xla_flags: str


GENERATIONS = {
  'v5litepod': Generation('chips', (1, 4, 8, 16, 32, 64, 128, 256), 'v2-alpha-tpuv5-lite', 'v5e'),
  'v5p': Generation(
    'TensorCores', (8, 16, 32, 64, *range(128, 12_289, 128)), 'v2-alpha-tpuv5', 'v5p'
  ),
  'v6e': Generation('chips', (1, 4, 8, 16, 32, 64, 128, 256), 'v2-alpha-tpuv6e', 'v6e'),
}


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """A TPU slice by its name, such as v5p-64.

  Raises:
    ValueError: there is none of this name.
  """

  name: str

  def __post_init__(self):
    kind, _, size = self.name.partition('-')
    if kind not in GENERATIONS or not size.isdecimal():
      written = {'v5e': 'v5litepod', 'v5lite': 'v5litepod', 'v6': 'v6e', 'v5': 'v5p'}
      near = written.get(kind) or next(iter(difflib.get_close_matches(kind, GENERATIONS, 1)), '')
      raise ValueError(
        f'--accelerator is {self.name!r}: it is {", ".join(GENERATIONS)}, a dash and a size, such as '
        f'v5p-64.' + (f' Nearest: {f"{near}-{size}" if size else near!r}.' if near else '')
      )
    if int(size) not in self.generation.sizes:
      near = sorted(self.generation.sizes, key=lambda n: abs(n - int(size)))[:2]
      raise ValueError(
        f'--accelerator is {self.name!r}: there is no {kind} of {size} {self.generation.counted}. '
        f'Nearest: {" and ".join(f"{kind}-{n}" for n in sorted(near))}.'
      )

  @property
  def generation(self) -> Generation:
    return GENERATIONS[self.name.partition('-')[0]]

  @property
  def chips(self) -> int:
    """Chips, which are JAX's devices."""
    size = int(self.name.partition('-')[2])
    return size // 2 if self.generation.counted == 'TensorCores' else size

  @property
  def hosts(self) -> int:
    """Machines: of four chips, but one alone may have eight."""
    one = 4 if self.generation.counted == 'TensorCores' else 8
    return 1 if self.chips <= one else self.chips // 4
