"""A score over trained tokens: the best so far, the tokens to a level, and the mean of several seeds.

Interpolation between two evaluated points is linear in the score and in the logarithm of the tokens, and
linear in the tokens from an evaluation before the first update. Nothing is extrapolated.

Easy to get wrong: which way is better. `Curve.costs` is the score where lower is better and its negative
where higher is, so that everything here falls.
"""

import dataclasses
import functools
from collections.abc import Collection, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curve:
  """A score of one run along its training.

  Attributes:
    tokens: trained tokens of each evaluation, rising.
    values: finite, as many.
    better: 'lower' or 'higher'.
    low: of the last evaluation, the lower end of the interval over items; None where there is none.
    high: its upper end.
    chance: what a model that knows nothing gets, or None.
    resolution: the step in which the score goes, such as 1 / items of an accuracy; 0 where there is none.
  """

  tokens: tuple[int, ...]
  values: tuple[float, ...]
  better: str
  low: float | None = None
  high: float | None = None
  chance: float | None = None
  resolution: float = 0.0

  def at_tokens(self, kept: Collection[int]) -> 'Curve':
    """The curve of some of its evaluations; without the interval over items where the last one is left out."""
    points = [(t, v) for t, v in zip(self.tokens, self.values, strict=True) if t in kept]
    tokens, values = (tuple(column) for column in zip(*points, strict=True)) if points else ((), ())
    ends = (self.low, self.high) if tokens[-1:] == self.tokens[-1:] else (None, None)
    return Curve(tokens, values, self.better, *ends, self.chance, self.resolution)

  @property
  def final(self) -> float:
    """The value of the last evaluation."""
    return self.values[-1]

  @functools.cached_property
  def costs(self) -> np.ndarray:
    """[P] the score, turned so that less is better."""
    return np.asarray(self.values, float) * (1 if self.better == 'lower' else -1)

  @functools.cached_property
  def envelope(self) -> np.ndarray:
    """[P] the best cost so far."""
    return np.minimum.accumulate(self.costs)

  @property
  def best(self) -> float:
    """The best cost of all."""
    return float(self.envelope[-1])

  @property
  def at_chance(self) -> bool:
    """Whether chance lies in the interval over items of the last evaluation."""
    return None not in (self.chance, self.low, self.high) and self.low <= self.chance <= self.high

  def tokens_to(self, cost: float) -> float | None:
    """Tokens at which the best so far reaches a cost.

    Returns:
      Tokens; those of the first evaluation where that one is as good already; None where none is.
    """
    reached = np.flatnonzero(self.envelope <= cost)
    if not len(reached):
      return None
    i = int(reached[0])
    if i == 0:
      return float(self.tokens[0])
    before, after = self.tokens[i - 1], self.tokens[i]
    share = (self.envelope[i - 1] - cost) / (self.envelope[i - 1] - self.envelope[i])
    if before <= 0:
      return float(before + share * (after - before))
    return float(before * (after / before) ** share)

  def at(self, tokens: Sequence[float]) -> np.ndarray:
    """[N] values at other token counts, by the same interpolation; nan outside the evaluated range."""
    x = np.asarray(self.tokens, float)
    i = np.clip(np.searchsorted(x, tokens, side='left'), 1, max(1, len(x) - 1))
    found = np.full(len(tokens), np.nan)
    for n, (k, t) in enumerate(zip(i, tokens, strict=True)):
      if len(x) == 1 or not x[0] <= t <= x[-1]:
        found[n] = self.values[0] if t == x[0] else np.nan
        continue
      a, b = x[k - 1], x[k]
      share = np.log(t / a) / np.log(b / a) if a > 0 else (t - a) / (b - a)
      found[n] = self.values[k - 1] + share * (self.values[k] - self.values[k - 1])
    return found


@dataclasses.dataclass(frozen=True)
class Band:
  """The mean of several seeds along the training, between the lowest and the highest of them."""

  tokens: list[int]
  mean: list[float]
  low: list[float]
  high: list[float]


def band(curves: Sequence[Curve]) -> Band:
  """The mean over runs at each token count that one of them was evaluated at and all have reached."""
  grid = sorted({tokens for curve in curves for tokens in curve.tokens})
  values = np.stack([curve.at(grid) for curve in curves])
  kept = np.flatnonzero(np.isfinite(values).all(0))
  values = values[:, kept]
  return Band(
    [grid[k] for k in kept],
    *(v.tolist() for v in (values.mean(0), values.min(0), values.max(0))),
  )
