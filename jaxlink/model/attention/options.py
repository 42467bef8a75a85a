"""What is asked of an attention, and how it is laid on devices: shared by every implementation.

Easy to get wrong: with a sequence axis, a device holds a part of the queries of a row and all of
its keys and values. Segments therefore go in twice, once cut and once whole, and a kernel learns
where its queries lie from an array that is cut as they are.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax

from jaxlink.model import axes

# The name under which kernels keep what their backward pass reads, for remat policies.
RESIDUALS = 'attention_residuals'

_QUERIES = ('batch', 'sequence', 'heads', 'head_size')
_KEYS = ('batch', None, 'kv', 'head_size')


@dataclasses.dataclass(frozen=True)
class Options:
  """What an implementation has to do, or refuse.

  Attributes:
    head_size: K.
    window: how many positions a query sees, its own included; 0 for all.
    soft_cap: c of c·tanh(score / c), taken on scaled scores before the mask; 0 for none.
    scale: multiplies q·k; None for 1 / √K.
    sequence: into how many parts rows are split over devices.
    interpret: run Pallas kernels in their interpreter, which needs neither TPU nor GPU.
  """

  head_size: int
  window: int = 0
  soft_cap: float = 0.0
  scale: float | None = None
  sequence: int = 1
  interpret: bool = False


def per_shard(
  local: Callable[..., jax.Array], extra: Sequence[jax.Array], names: Sequence[axes.Names]
) -> Callable[..., jax.Array]:
  """A function of q, k, v and segments that runs `local` on each device's part of them.

  Args:
    local: of q, k, v, the segments of its queries, the segments of its keys, and the extra arrays.
    extra: arrays that are the same for every row.
    names: their axes.

  Raises:
    ValueError: by the function, for fewer key-value heads than devices that split heads.
  """

  def call(q_BTHK, k_BSGK, v_BSGK, segments_BT):
    ways, groups = axes.ways('kv'), k_BSGK.shape[2]
    if groups % ways:
      raise ValueError(
        f'MeshConfig.tensor is {ways}, and DecoderConfig.kv_heads is {groups}: it divides them, so '
        'that each device has the key-value heads of its query heads.'
      )
    inputs = (_QUERIES, _KEYS, _KEYS, ('batch', 'sequence'), ('batch', None), *names)
    return axes.per_shard(local, inputs, _QUERIES)(
      q_BTHK, k_BSGK, v_BSGK, segments_BT, segments_BT, *extra
    )

  return call
