"""Where a run is in each of its sources: what has been read of it, by this run and by those before it.

A stage begins at the position that the stage before ended at, or at that of the checkpoint that it starts
from, and ends at another; a checkpoint holds the position of its step. All of it is arithmetic on counts
of sequences: nothing is carried from batch to batch.

Easy to get wrong: the order of a source goes on only where sequences start at the same places. With another
sequence length or another dose they do not. Such a stage begins an epoch that no stage has begun before;
a later stage that reads as an earlier one did goes on where that one stood.
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from jaxlink.data.loader import Batches


@dataclasses.dataclass(frozen=True)
class Reading:
  """What has been read of a source.

  Attributes:
    orders: each order of its windows (`jaxlink.data.windows.Windows.order`) → its next sequence in it.
    epochs: how many have been begun, in whichever order: the next one that is nobody's.
    passed: source tokens that were passed, in all.
    sequences: that were trained on, in all.
    tokens: that were trained on, in all.
  """

  orders: Mapping[str, int]
  epochs: int
  passed: Fraction
  sequences: int
  tokens: int


@dataclasses.dataclass(frozen=True)
class Position:
  """Where a run is.

  Attributes:
    mixture: `key` of the last mixture.
    phase: its next sequence.
    readings: by the name of the source; of all that were ever read.
  """

  mixture: str = ''
  phase: int = 0
  readings: Mapping[str, Reading] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Plain JSON; fractions are text."""
    readings = {
      name: {**dataclasses.asdict(reading), 'passed': str(reading.passed)}
      for name, reading in self.readings.items()
    }
    return {'mixture': self.mixture, 'phase': self.phase, 'readings': readings}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> 'Position':
    """The reverse of `to_json`."""
    readings = {
      name: Reading(**{**fields, 'passed': Fraction(fields['passed'])})
      for name, fields in value['readings'].items()
    }
    return cls(value['mixture'], value['phase'], readings)

  def repetitions(self, name: str, tokens: int) -> Fraction:
    """How often a source of so many tokens has been passed."""
    reading = self.readings.get(name)
    return reading.passed / tokens if reading else Fraction(0)

  def first(self, window: Any) -> int:
    """A source's first sequence from here on; `window` as in `jaxlink.data.loader.Batches`."""
    reading = self.readings.get(window.blocks.name)
    if reading is None:
      return 0
    if window.order in reading.orders:
      return reading.orders[window.order]
    return int(window.first(reading.epochs))

  def after(self, batches: Batches, steps: int) -> 'Position':
    """The position after `steps` batches of a stage that begins here."""
    readings = dict(self.readings)
    counts = batches.counts(steps).tolist()
    for window, first, count in zip(batches.windows, batches.firsts, counts, strict=True):
      name = window.blocks.name
      before = readings.get(name, Reading({}, 0, Fraction(0), 0, 0))
      if not count:
        readings[name] = before
        continue
      epoch = int((first + count - 1) * window.stride // window.blocks.tokens)
      readings[name] = Reading(
        {**before.orders, window.order: first + count},
        max(before.epochs, epoch + 1),
        before.passed + count * window.stride,
        before.sequences + count,
        before.tokens + count * batches.length,
      )
    phase = batches.phase + steps * batches.batch
    return Position(batches.mixture.key, phase, readings)
