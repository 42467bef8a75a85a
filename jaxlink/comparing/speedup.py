"""Tokens-to-equal-score speed-up: how many tokens the baseline needs for a score, per token of another setting.

  speed-up = tokens of the baseline / tokens of the other, to the best score that both reach

Of a pair of runs that score is the baseline's best where the other run reaches it, else the other's best. So
every pair has a number, changing places gives its inverse, and two equal settings give 1 on average. Whether
the baseline's best score was reached at all is told beside it, with a bound where it was not. Intervals are
those of the mean logarithm over pairs of seeds.

A curve that is evaluated more often has more chances of a good score. So of curves with other grids, evaluations
at tokens that both have are taken; where these are few, all are, and a caveat is given.

Easy to get wrong: learning-rate schedules. A run in the middle of its schedule scores worse than a run whose
budget ends there. The run that is ahead reaches the score before its own end, and in a shorter run would have
reached it with fewer tokens: with schedules that decay, speed-ups read closer to 1 than they are.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxlink.comparing import statistics
from jaxlink.comparing.curves import Curve

_LEVELS = 33

Pairs = Sequence[tuple[Curve, Curve]]


@dataclasses.dataclass(frozen=True)
class SpeedUp:
  """Of a setting over the baseline, for one score.

  Attributes:
    value: geometric mean over pairs; None where there is none, and `why` tells why.
    low: end of the interval over seeds; None with fewer than two runs, or where there is a `bound`.
    high: the other end.
    n: pairs of runs, or runs of the smaller setting where seeds are not the same.
    bound: '≥' where runs of the other setting had the score at their first evaluation, after the first update,
      so that the speed-up is this or more; '≤' where the baseline's had; '' for neither.
    reached: runs that reach the baseline's best score.
    runs: runs of which that was asked.
    limit: where not all do, the speed-up to the baseline's best score is below this in those that do not.
    levels: scores at which the speed-up is given, as a curve; of pairs only.
    curve: speed-up at these.
    curve_low: ends of its interval over seeds, nan where there is none; [] with one pair.
    curve_high: the other ends.
    why: there is no value.
    caveat: what makes the value doubtful; '' for nothing.
  """

  value: float | None
  low: float | None = None
  high: float | None = None
  n: int = 0
  bound: str = ''
  reached: int = 0
  runs: int = 0
  limit: float | None = None
  levels: list[float] = dataclasses.field(default_factory=list)
  curve: list[float] = dataclasses.field(default_factory=list)
  curve_low: list[float] = dataclasses.field(default_factory=list)
  curve_high: list[float] = dataclasses.field(default_factory=list)
  why: str = ''
  caveat: str = ''


def of_pairs(pairs: Pairs, level: float) -> SpeedUp:
  """The speed-up from pairs of runs with the same seeds: (of the baseline, of the other)."""
  if why := _why_not([curve for pair in pairs for curve in pair]):
    return SpeedUp(None, n=len(pairs), why=why)
  whole = pairs
  pairs, caveats = zip(*(_on_one_grid(pair) for pair in pairs), strict=True)
  if why := _why_not([curve for pair in pairs for curve in pair]):
    return SpeedUp(None, n=len(pairs), why=why)
  costs = [max(a.best, b.best) for a, b in pairs]
  logs_a, early_a = _logs([a for a, _ in pairs], costs)
  logs_b, early_b = _logs([b for _, b in pairs], costs)
  if why := _where_not(logs_a + logs_b, early_a, early_b):
    return SpeedUp(None, n=len(pairs), why=why)
  logs = [a - b for a, b in zip(logs_a, logs_b, strict=True)]
  interval = None if early_a or early_b else statistics.of_mean(logs, level, 'paired')
  reached, limit = _reached(whole)
  return SpeedUp(
    math.exp(math.fsum(logs) / len(logs)), *_ends(interval), n=len(pairs), bound=_bound(early_a, early_b),
    reached=reached, runs=len(pairs), limit=limit, caveat=max(caveats), **_curve(pairs, level),
  )  # fmt: skip


def of_groups(a: Sequence[Curve], b: Sequence[Curve], level: float) -> SpeedUp:
  """The speed-up of runs whose seeds are not the same, to the best score that all of them reach."""
  n = min(len(a), len(b))
  if why := _why_not([*a, *b]):
    return SpeedUp(None, n=n, why=why)
  best = min(curve.best for curve in a)
  reached = sum(curve.best <= best for curve in b)
  curves, caveat = _on_one_grid([*a, *b])
  if why := _why_not(curves):
    return SpeedUp(None, n=n, why=why)
  a, b = curves[: len(a)], curves[len(a) :]
  cost = max(curve.best for curve in (*a, *b))
  logs_a, early_a = _logs(a, [cost] * len(a))
  logs_b, early_b = _logs(b, [cost] * len(b))
  if why := _where_not(logs_a + logs_b, early_a, early_b):
    return SpeedUp(None, n=n, why=why)
  early = early_a or early_b
  interval = None if early else statistics.of_difference(logs_b, logs_a, level)
  return SpeedUp(
    math.exp(math.fsum(logs_a) / len(logs_a) - math.fsum(logs_b) / len(logs_b)), *_ends(interval),
    n=n, bound=_bound(early_a, early_b), reached=reached, runs=len(b), caveat=caveat,
  )  # fmt: skip


def _on_one_grid(curves: Sequence[Curve]) -> tuple[Sequence[Curve], str]:
  """The curves at the tokens that all were evaluated at, and a caveat where these are too few for that."""
  grids = [{tokens for tokens in curve.tokens if tokens} for curve in curves]  # 0 tells nothing
  shared = set.intersection(*grids)
  end = min(map(max, grids))
  least = min(sum(tokens <= end for tokens in grid) for grid in grids)
  if len(shared) >= max(2, least / 2):
    return [curve.at_tokens(shared | {0}) for curve in curves], ''
  if all(grid == grids[0] for grid in grids):
    return curves, ''
  counts = sorted(map(len, grids))
  return curves, (
    f'runs were evaluated at other tokens, {counts[0]} to {counts[-1]} times: the best of more evaluations is '
    'better by chance, so the speed-up favours them'
  )  # fmt: skip


def _logs(curves: Sequence[Curve], costs: Sequence[float]) -> tuple[list[float], bool]:
  """Logarithms of the tokens to each cost, and whether one was there at the first evaluation."""
  needs = [curve.tokens_to(cost) for curve, cost in zip(curves, costs, strict=True)]
  early = any(need == curve.tokens[0] for need, curve in zip(needs, curves, strict=True))
  return [math.log(need) if need else -math.inf for need in needs], early


def _where_not(logs: Sequence[float], early_a: bool, early_b: bool) -> str:
  if -math.inf in logs:
    return 'the score was there before the first update'
  return 'the score was there at the first evaluation' if early_a and early_b else ''


def _bound(early_a: bool, early_b: bool) -> str:
  return '≥' if early_b else '≤' if early_a else ''


def _why_not(curves: Sequence[Curve]) -> str:
  if any(len(curve.tokens) < 2 for curve in curves):
    return 'a run was evaluated once'
  if any(curve.best >= curve.costs[0] for curve in curves):
    return 'a run never scored better than at first'
  if any(curve.at_chance for curve in curves):
    return 'a run did not leave chance'
  return ''


def _reached(pairs: Pairs) -> tuple[int, float | None]:
  """How many reach the baseline's best score, and what bounds the speed-up of those that do not."""
  limits = [a.tokens_to(a.best) / b.tokens[-1] for a, b in pairs if b.best > a.best]
  return len(pairs) - len(limits), max(limits, default=None)


def _ends(interval: statistics.Interval | None) -> tuple[float | None, float | None]:
  return (math.exp(interval.low), math.exp(interval.high)) if interval else (None, None)


def _curve(pairs: Pairs, level: float) -> dict[str, list[float]]:
  """The speed-up over levels of the score: from the first evaluation of all to the best that all reach."""
  curves = [curve for pair in pairs for curve in pair]
  firsts = [curve.envelope[int(curve.tokens[0] == 0)] for curve in curves]
  start, end = min(map(float, firsts)), max(curve.best for curve in curves)
  if start <= end:
    return {}
  costs = [
    cost for cost in np.linspace(start, end, _LEVELS).tolist()
    if all(curve.tokens_to(cost) for curve in curves)  # else it was there before the first update
  ]  # fmt: skip
  sign = 1 if curves[0].better == 'lower' else -1
  found: dict[str, list[float]] = {
    'levels': [sign * cost for cost in costs], 'curve': [], 'curve_low': [], 'curve_high': []
  }  # fmt: skip
  for cost in costs:
    logs = [math.log(a.tokens_to(cost) / b.tokens_to(cost)) for a, b in pairs]
    found['curve'].append(math.exp(math.fsum(logs) / len(logs)))
    if len(logs) > 1:  # nan where a few pairs agree to the last bit
      low, high = _ends(statistics.of_mean(logs, level))
      found['curve_low'].append(math.nan if low is None else low)
      found['curve_high'].append(math.nan if high is None else high)
  return found
