"""Policies of the mixture: pure functions from sizes, rates and budgets to exact shares.

In: Fractions of tokens for each source. Out: shares by source, which add up to 1, or knots of them in
tokens. `mixing.resolve` chooses among them.

Easy to get wrong: rates are not shares. Curves of rates are divided by their sum where a curve has a
point, and from there to the next such place the shares run in straight lines, not the rates.
"""

import bisect
import decimal
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from jaxlink.data.mixing.split_tree import Curves, Knot
from jaxlink.data.mixture import exact, parse_rate

Number = float | int | str
Rate = Number | Fraction | None | tuple[tuple[Number, Number], ...]

_PARTS = 65_536  # the largest period that `Mixture` tabulates


def given_shares(given: Mapping[str, Rate]) -> list[Knot]:
  """The knots of given rates and curves: at every place that a curve names, rates by their sum."""
  curves = {name: _parse_curve(name, rate) for name, rate in given.items()}
  places = sorted({at for points in curves.values() if len(points) > 1 for at, _ in points})
  knots = []
  for at in places or [Fraction(0)]:
    # One knot, or two where a curve jumps; before token 0 there is nothing.
    sides = (bisect.bisect_left, bisect.bisect_right) if at else (bisect.bisect_right,)
    rates_at = [tuple(_value(points, at, side) for points in curves.values()) for side in sides]
    for rates in dict.fromkeys(rates_at):
      total = sum(rates)
      if not total:
        raise ValueError(f'all rates are 0 at token {at}: some source is read at any time.')
      knots.append((at, tuple(rate / total for rate in rates)))
  return knots


def proportional(sizes: Mapping[str, Fraction]) -> dict[str, Fraction]:
  """Shares in proportion to the tokens available."""
  total = sum(sizes.values())
  return {name: size / total for name, size in sizes.items()}


def by_temperature(sizes: Mapping[str, Fraction], temperature: Fraction) -> dict[str, Fraction]:
  """Shares in proportion to sizes ** (1 / temperature), which are irrational, made exact.

  They are rounded to multiples of 1/65,536 by largest remainders, and a source whose share is smaller
  gets one of them. So the mixture stays within one sequence of them everywhere.
  """
  with decimal.localcontext(prec=50):  # exp and ln are correctly rounded: all machines agree
    power = decimal.Decimal(temperature.denominator) / temperature.numerator
    logs = {n: (decimal.Decimal(s.numerator) / s.denominator).ln() for n, s in sizes.items()}
    largest = max(logs.values())
    weights = {n: Fraction(((log - largest) * power).exp()) for n, log in logs.items()}
  least: set[str] = set()
  while True:
    rest = {name: weight for name, weight in weights.items() if name not in least}
    total = sum(rest.values())
    ideal = {name: weight * (_PARTS - len(least)) / total for name, weight in rest.items()}
    tiny = {name for name, parts in ideal.items() if parts < 1}
    if not tiny:
      break
    least |= tiny
  parts = {name: math.floor(ideal.get(name, 1)) for name in sizes}
  by_remainder = sorted(ideal, key=lambda name: (parts[name] - ideal[name], name))
  for name in by_remainder[: _PARTS - sum(parts.values())]:
    parts[name] += 1
  return {name: Fraction(n, _PARTS) for name, n in parts.items()}


def unimax(room: Mapping[str, Fraction], budget: int) -> dict[str, Fraction]:
  """UniMax: equal shares of the budget, of which each source takes no more than its room.

  Smallest room first, each source is offered an equal part of what is left; what it has no room for
  stays for the larger ones. Source: arXiv 2304.09151, where the room is N times the source's size.

  Raises:
    ValueError: there is not room for the whole budget.
  """
  if sum(room.values()) < budget:
    raise _too_little(sum(room.values()), budget)
  left, shares = Fraction(budget), dict.fromkeys(room, Fraction(0))
  ascending = sorted(room, key=lambda name: (room[name], name))
  for done, name in enumerate(ascending):
    tokens = min(room[name], left / (len(ascending) - done))
    shares[name], left = tokens / budget, left - tokens
  return shares


def repeated_shares(
  targets: Mapping[str, Fraction],
  given: Mapping[str, Rate],
  sizes: Mapping[str, Fraction],
  budget: int,
  before: Mapping[str, Fraction],
) -> list[Knot]:
  """Constant shares that read the targets so many times by the end; the rest by the given rates.

  Raises:
    ValueError: a target that was read more often before, or whose rate is a curve; more repetitions
      than the budget has room for; or no source to fill it.
  """
  shares = {}
  for name, times in targets.items():
    if isinstance(given[name], tuple | list):
      raise ValueError(
        f"the rate of source '{name}' is a curve, and MixingConfig.repetitions[{name!r}] decides its "
        'share: leave out one of them.'
      )
    if times < before[name]:
      raise ValueError(
        f'MixingConfig.repetitions[{name!r}] is {text(times)}, and earlier stages read it '
        f'{text(before[name])} times already: it is no less than that.'
      )
    shares[name] = (times - before[name]) * sizes[name] / budget
  total = sum(shares.values())
  if total > 1:
    most = {
      n: before[n] + max(Fraction(0), 1 - total + share) * budget / sizes[n]
      for n, share in shares.items()
    }
    raise ValueError(
      f'MixingConfig.repetitions asks {math.ceil(total * budget):,} tokens of a stage of {budget:,}. At '
      f'most, the others as they are: {", ".join(f"{n!r} {_floor(r)}" for n, r in most.items())}.'
    )
  others = {name: rate for name, rate in given.items() if name not in targets}
  if total < 1 and not others:
    raise ValueError(
      f'MixingConfig.repetitions asks {math.ceil(total * budget):,} tokens of a stage of {budget:,}, '
      'and it has no other source for the rest.'
    )
  knots = given_shares(others) if others else [(Fraction(0), ())]
  for i, (at, rest) in enumerate(knots):
    at_knot = {n: share * (1 - total) for n, share in zip(others, rest, strict=True)} | shares
    knots[i] = (at, tuple(at_knot[name] for name in given))
  return knots


def cap_shares(
  names: tuple[str, ...],
  knots: Sequence[Knot],
  limits: Mapping[str, Fraction],
  budget: int,
  fixed: tuple[str, ...] = (),
) -> list[Knot]:
  """Applies the rule for caps that stands at the top of `mixing`.

  Args:
    names: the sources.
    knots: their shares, at positions in tokens.
    limits: the most tokens that the stage may read of a source, for those that have a cap.
    budget: tokens of the stage.
    fixed: sources that are not to change.

  Raises:
    ValueError: no source is left to take what the caps free, or none at some knot.
  """
  knots, settled = list(knots), set(fixed)  # `settled`: what no longer takes freed shares
  while True:
    read = dict(zip(names, Curves(knots).integral(budget), strict=True))
    over = {n: limits[n] / read[n] for n in set(limits) - settled if read[n] > limits[n]}
    if not over:
      return knots
    settled |= set(over)
    if settled.issuperset(names):
      raise _too_little(sum(read[n] if n in fixed else limits[n] for n in names), budget)
    for i, (at, shares) in enumerate(knots):
      capped = [x * over.get(n, 1) for n, x in zip(names, shares, strict=True)]
      freed = 1 - sum(capped)
      takers = sum(x for n, x in zip(names, capped, strict=True) if n not in settled)
      if freed and not takers:
        raise ValueError(
          f'MixingConfig.max_repetitions frees {text(freed)} of the tokens at token {at}, and no '
          f'source below its cap has a share there to take it: {", ".join(sorted(over))}.'
        )
      growth = 1 + freed / takers if freed else 1
      knots[i] = (
        at,
        tuple(x if n in settled else x * growth for n, x in zip(names, capped, strict=True)),
      )


# ── helpers ─────────────────────────────────────────────────────────────────────


def _parse_curve(name: str, rate: Rate) -> list[tuple[Fraction, Fraction]]:
  """A rate as points of (tokens, rate), one point if it is constant."""
  if not isinstance(rate, tuple | list):
    return [(Fraction(0), parse_rate(rate, name))]
  problem = (
    f"the rate of source '{name}' is {rate!r}: a curve has points of (tokens, rate) that ascend from 0 "
    'or more, two at one place are a jump, and rates of 0 or more, not all 0.'
  )
  try:
    points = [(exact(at), exact(value)) for at, value in rate]
  except (TypeError, ValueError):
    raise ValueError(problem) from None
  places = [at for at, _ in points]
  if (
    not points
    or places != sorted(places)
    or places[0] < 0
    or any(places.count(at) > 2 for at in places)
    or any(value < 0 for _, value in points)
    or not any(value for _, value in points)
  ):
    raise ValueError(problem)
  return points


def _value(points: list[tuple[Fraction, Fraction]], at: Fraction, side: Callable) -> Fraction:
  """The value of a curve just before `at` (side bisect_left) or from it on (bisect_right)."""
  after = side([place for place, _ in points], at)
  if after in (0, len(points)):
    return points[max(0, after - 1)][1]
  (begin, low), (end, high) = points[after - 1], points[after]
  return low + (high - low) * (at - begin) / (end - begin)


def _too_little(tokens: Fraction, budget: int) -> ValueError:
  return ValueError(
    f'MixingConfig.max_repetitions allows {math.floor(tokens):,} tokens of all sources together, and '
    f'the stage asks {budget:,}: raise a cap, add a source, or train on fewer tokens.'
  )


def text(number: Fraction) -> str:
  """A number as messages show it."""
  return f'{float(number):.6g}'


def _floor(number: Fraction) -> str:
  return f'{math.floor(number * 10**4) / 10**4:g}'
