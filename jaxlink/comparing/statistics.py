"""Intervals over seeds: Student's t, paired where seeds match, and Holm's adjustment of several tests.

In: numbers, one for each run. Out: an `Interval`, or None where too few runs give none.

Easy to get wrong: what an interval is over. These are over seeds: what another seed would have changed. An
interval over a set's items says nothing of that, and is never put in its place. And scores that are counts of
items: a few runs often agree to the last item by chance, which is no proof that seeds change nothing. So a
variance is never taken as less than that of rounding to an item, and where that is not known, a few equal numbers
give no interval.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

_ENOUGH = 5  # equal numbers that tell of no variance


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with an interval at the stated level.

  Attributes:
    value: the estimate.
    low: lower end.
    high: upper end.
    n: runs, or pairs of runs, that it is made of.
    method: 'mean' of runs, 'paired' differences, or 'pooled' variance of two unpaired groups.
    p: two-sided probability of such an estimate where the truth is 0.
  """

  value: float
  low: float
  high: float
  n: int
  method: str
  p: float


def of_mean(
  values: Sequence[float], level: float, method: str = 'mean', least: float = 0.0
) -> Interval | None:
  """The t interval of a mean; None of fewer than two values, or of a few that are equal and not 0.

  Args:
    values: of each run, or pair of runs.
    level: of the interval.
    method: how it is called.
    least: variance of one value that is there at any rate, from `rounding`.
  """
  n = len(values)
  if n < 2:
    return None
  mean = math.fsum(values) / n
  variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
  variance = max(variance, least)
  return _around(mean, math.sqrt(variance / n), n - 1, n, level, method)


def of_difference(
  a: Sequence[float], b: Sequence[float], level: float, least: float = 0.0
) -> Interval | None:
  """The t interval of mean(b) - mean(a) of unpaired runs, with one variance for both, of `least` or more.

  Returns:
    None where the two have fewer than three runs together, one has none, or a few are equal within both.
  """
  freedom = len(a) + len(b) - 2
  if not a or not b or freedom < 1:
    return None
  mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
  squares = math.fsum((x - mean_a) ** 2 for x in a) + math.fsum((x - mean_b) ** 2 for x in b)
  error = math.sqrt(max(squares / freedom, least) * (1 / len(a) + 1 / len(b)))
  return _around(mean_b - mean_a, error, freedom, min(len(a), len(b)), level, 'pooled')


def rounding(resolution: float) -> float:
  """The variance that rounding to multiples of a resolution adds to a number."""
  return resolution**2 / 12


def holm(probabilities: Sequence[float]) -> list[float]:
  """Probabilities adjusted for being several (Holm 1979), in the order given.

  >>> holm([0.01, 0.04, 0.03])
  [0.03, 0.06, 0.06]
  """
  m, least = len(probabilities), 0.0
  adjusted = [0.0] * m
  for rank, i in enumerate(sorted(range(m), key=probabilities.__getitem__)):
    least = max(least, min(1.0, (m - rank) * probabilities[i]))
    adjusted[i] = least
  return adjusted


def t_between(t: float, freedom: int) -> float:
  """Probability that Student's t lies between -t and t (t ≥ 0).

  Source: Abramowitz and Stegun, 26.7.3 and 26.7.4, exact for whole degrees of freedom.
  """
  theta = math.atan(t / math.sqrt(freedom))
  sine, cosine = math.sin(theta), math.cos(theta)
  odd = freedom % 2
  term, total = (cosine if odd else 1.0), 0.0
  for k in range(1 + odd, freedom, 2):
    total += term
    term *= cosine * cosine * k / (k + 1)
  return 2 / math.pi * (theta + sine * total) if odd else sine * total


@functools.lru_cache
def t_quantile(level: float, freedom: int) -> float:
  """The t that has the share `level` between -t and t."""
  low, high = 0.0, 1.0
  while t_between(high, freedom) < level:
    low, high = high, 2 * high
  for _ in range(200):
    middle = (low + high) / 2
    low, high = (middle, high) if t_between(middle, freedom) < level else (low, middle)
  return high


def _around(
  value: float, error: float, freedom: int, n: int, level: float, method: str
) -> Interval | None:
  if error > 1e-9 * abs(value):
    p = max(0.0, 1 - t_between(abs(value) / error, freedom))
  else:  # equal, but for the last bits of a sum
    if value and freedom + 1 < _ENOUGH:
      return None
    p = 0.0 if value else 1.0
  half = t_quantile(level, freedom) * error
  return Interval(value, value - half, value + half, n, method, p)
