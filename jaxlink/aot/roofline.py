"""How long a step takes at the least: the slowest of its products, its memory traffic and its links.

Easy to get wrong: what this is. `seconds` is a bound from below, at the rates of the data sheet and with
everything overlapped; `seconds_apart` is what the same three take one after the other. A real step lies
above the first, and as a rule above its MFU's inverse: use it to compare plans, not to promise.
"""

import dataclasses

from jaxlink.chips import Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Times of one step on one device, in seconds.

  Attributes:
    compute: products, recomputed ones included, at the chip's peak.
    memory: bytes to and from HBM at its rate; None where unknown.
    links: bytes sent to other devices at the rate of all links; None where unknown.
    seconds: the largest of the three.
    seconds_apart: their sum.
    bound: what the largest is: 'compute', 'memory' or 'links'.
    mfu: model flops over what the chip could do in `seconds`: the most that can be reached.
    tokens_per_second: of all devices, at `seconds`.
  """

  compute: float
  memory: float | None
  links: float | None
  seconds: float
  seconds_apart: float
  bound: str
  mfu: float
  tokens_per_second: float


def estimate(
  chip: Chip,
  devices: int,
  *,
  flops: float,
  model_flops: float,
  tokens: int,
  memory_bytes: float | None,
  sent_bytes: float | None,
) -> Roofline:
  """The roofline of a step.

  Args:
    chip: each device.
    devices: how many.
    flops: of all devices in a step, as computed.
    model_flops: of all devices in a step, as the model needs (`model.shape.flops_per_token` · tokens).
    tokens: of the batch.
    memory_bytes: of one device, read and written in a step.
    sent_bytes: of one device, sent in a step.
  """
  times = {
    'compute': flops / devices / chip.flops,
    'memory': None if memory_bytes is None else memory_bytes / chip.memory_rate,
    'links': None if sent_bytes is None else sent_bytes / chip.link_rate,
  }
  known = {name: time for name, time in times.items() if time is not None}
  bound = max(known, key=known.get)
  seconds = known[bound]
  return Roofline(
    **times,
    seconds=seconds,
    seconds_apart=sum(known.values()),
    bound=bound,
    mfu=model_flops / devices / chip.flops / seconds,
    tokens_per_second=tokens / seconds,
  )
