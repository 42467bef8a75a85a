"""A score of one setting against that of the baseline: difference, interval, verdict, speed-up.

In: two settings whose runs all have the score. Out: a `Versus`, a `SpeedUp`, and what must be said of them.

Easy to get wrong: at which tokens. A difference is that of scores at the last tokens that both runs of a pair
have, unless each was scored at the end of its own training: then the budget is a part of what is compared.
"""

import math
from collections.abc import Sequence

from jaxlink.comparing import speedup, statistics
from jaxlink.comparing.curves import Curve
from jaxlink.comparing.records import Score
from jaxlink.comparing.results import Versus
from jaxlink.comparing.runs import Run, Setting
from jaxlink.comparing.speedup import SpeedUp


def compare(
  score: Score, baseline: Setting, other: Setting, level: float
) -> tuple[Versus | None, SpeedUp, list[str]]:
  """Compares two settings by a score.

  Args:
    score: that all of their runs have.
    baseline: the setting that is compared with.
    other: the setting.
    level: of intervals and verdicts.

  Returns:
    The difference, None where no two runs were scored at the same tokens; the speed-up; notes on both.
  """
  a, b = baseline.runs, other.runs
  paired = pairs(a, b)
  notes = []
  use_pairs = len(paired) > 1 or (paired and len(a) == len(b) == 1)
  if use_pairs:
    quicker = speedup.of_pairs([(x.curves[score], y.curves[score]) for x, y in paired], level)
    notes += _without_partner(paired, baseline, other)
    groups = [[(x,), (y,)] for x, y in paired]
  else:
    quicker = speedup.of_groups(*([run.curves[score] for run in runs] for runs in (a, b)), level)
    groups = [[a, b]]
  cut, later = [], False
  for group in groups:
    if found := _at_one_end(score, *group):
      cut.append(found)
      ends = [run.curves[score].tokens[-1] for side in group for run in side]
      later |= ends != [curve.tokens[-1] for side in found for curve in side]
  if len(cut) < len(groups):
    notes.append(f'{len(groups) - len(cut)} of {len(groups)} comparisons left out: never scored at the same tokens')  # fmt: skip
  if not cut:
    return None, quicker, notes
  notes += _at_which_tokens(cut, later)
  all_a, all_b = ([curve for found in cut for curve in found[side]] for side in (0, 1))
  return _versus(all_a, all_b, bool(use_pairs), level, a[0].key == b[0].key), quicker, notes


def pairs(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
  """Runs of two settings with the same seeds of parameters and order, and of LINK if that is needed."""
  for fields in (2, 3):
    by_seed = [{run.seeds[:fields]: run for run in runs} for runs in (a, b)]
    if [len(found) for found in by_seed] == [len(a), len(b)]:
      return [(by_seed[0][key], by_seed[1][key]) for key in by_seed[0] if key in by_seed[1]]
  raise AssertionError('seeds of a setting are different')


# ── at which tokens ─────────────────────────────────────────────────────────────


def _at_one_end(score: Score, a: Sequence[Run], b: Sequence[Run]) -> tuple[list[Curve], list[Curve]] | None:  # fmt: skip
  """Curves of both up to the last tokens that all have, or up to the ends of training; None without either."""
  runs = [*a, *b]
  curves = [run.curves[score] for run in runs]
  ends = {curve.tokens[-1] for curve in curves}
  if len(ends) > 1 and any(c.tokens[-1] < r.planned for c, r in zip(curves, runs, strict=True)):
    shared = set.intersection(*(set(curve.tokens) for curve in curves))
    if not shared:
      return None
    curves = [curve.at_tokens({t for t in curve.tokens if t <= max(shared)}) for curve in curves]
  return curves[: len(a)], curves[len(a) :]


def _at_which_tokens(cut: Sequence[tuple[list[Curve], list[Curve]]], later: bool) -> list[str]:
  """Tells where the difference is not at equal tokens, or where runs were scored `later`, too."""
  at_a, at_b = (sorted({c.tokens[-1] for found in cut for c in found[side]}) for side in (0, 1))
  if at_a != at_b:
    return [f'the difference is of scores at the ends, {_span(at_b)} tokens against {_span(at_a)}']
  if later:
    return [
      f'the difference is at {_span(at_a)} tokens, the last that both have: some runs were scored later'
    ]
  return []


def _span(tokens: Sequence[int]) -> str:
  return f'{tokens[0]:,}' if len(tokens) == 1 else f'{tokens[0]:,} to {tokens[-1]:,}'


def _without_partner(paired: Sequence[tuple[Run, Run]], *settings: Setting) -> list[str]:
  kept = {run.directory for pair in paired for run in pair}
  lacking = []
  for setting in settings:
    if seeds := [run.seed for run in setting.runs if run.directory not in kept]:
      many = len(seeds) > 1
      lacking.append(
        f'seed{"s" * many} {", ".join(seeds)} of {setting.name} {"have" if many else "has"} no partner'
      )
  many = len(paired) > 1
  return [f'difference of {len(paired)} pair{"s" * many}; {"; ".join(lacking)}'] if lacking else []


# ── how much ────────────────────────────────────────────────────────────────────


def _versus(a: Sequence[Curve], b: Sequence[Curve], paired: bool, level: float, one: bool) -> Versus:  # fmt: skip
  """The difference of the last values; of pairs where `paired`, and `one` where both are one configuration."""
  finals_a, finals_b = ([curve.final for curve in group] for group in (a, b))
  value = math.fsum(finals_b) / len(b) - math.fsum(finals_a) / len(a)
  least_a, least_b = (
    statistics.rounding(max(curve.resolution for curve in group)) for group in (a, b)
  )
  if paired:
    n = len(a)
    apart = [y - x for x, y in zip(finals_a, finals_b, strict=True)]
    found = statistics.of_mean(apart, level, 'paired', least_a + least_b)
  else:
    n = min(len(a), len(b))
    found = statistics.of_difference(finals_a, finals_b, level, max(least_a, least_b))
  if found:
    verdict = _verdict(found.low, found.high, a[0].better)
    return Versus(
      found.value, found.low, found.high, 'seeds', n, found.method, found.p, None, verdict, False
    )
  low, high = _over_items(a[0], b[0], value) if len(a) == len(b) == 1 else (None, None)
  verdict, why = 'too few seeds', ''
  if one:
    verdict = 'no difference'
    why = 'one configuration: what the two runs differ by is the noise between seeds'
  elif max(len(a), len(b)) > 1 and len(a) + len(b) > 2:
    why = 'all seeds agree to the last bit: so few tell nothing of the noise between them'
  over = 'items' if low is not None else ''
  return Versus(value, low, high, over, n, '', None, None, verdict, False, why)


def _verdict(low: float, high: float, better: str) -> str:
  if low <= 0 <= high:
    return 'no difference'
  return 'better' if (high < 0) == (better == 'lower') else 'worse'


def _over_items(a: Curve, b: Curve, value: float) -> tuple[float | None, float | None]:
  """The difference's interval over items, as if the two runs had other items: wider than the truth."""
  if None in (a.low, a.high, b.low, b.high):
    return None, None
  half = math.hypot((a.high - a.low) / 2, (b.high - b.low) / 2)
  return value - half, value + half
