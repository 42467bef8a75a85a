"""Policies of the mixture: from the sources' sizes and a few settings to exact shares.

In: a `MixingConfig`, the sources' given rates, how many tokens one repetition of each has, and the
stage's budget. Out: a `ResolvedMixing`: exact shares, constant or at knots in tokens, which is kept
with the run, so that a cache which grows later changes nothing; it makes the mixture.

A rate may be a curve: a tuple of (tokens of the stage, rate), straight lines in between, level
outside, two points at one place a jump. At every place that any source's curve names, the rates are
divided by their sum; from place to place the shares, not the rates, run in straight lines.

Caps. A source whose repetitions by the end of the stage, those of earlier stages included, exceed its
`max_repetitions` gets the share that reaches it exactly (0 if it is there already, and then it is left
out). The freed share goes to the sources without a cap or below theirs, in proportion to their shares.
This is repeated until none exceeds its cap. Of a schedule, a capped source's shares are multiplied by
one constant, and at each knot what that frees goes to the others in proportion to their shares there.

Easy to get wrong: repetitions are counted in the tokens that training reads, not in those of the
text. `available` is what one repetition of a source gives, after LINK and all.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal

from jaxlink.config import configurable
from jaxlink.data.mixing import policies
from jaxlink.data.mixing.policies import Number, Rate, text
from jaxlink.data.mixing.scheduled import ScheduledMixture
from jaxlink.data.mixing.split_tree import Curves, Knot
from jaxlink.data.mixture import Mixture, exact
from jaxlink.names import nearest

_UNIMAX_REPETITIONS = 1
_WARN_ABOVE = 20
_WORTH = 15.387756  # R_D* of Muennighoff et al., arXiv 2305.16264, in their published code


@configurable
class MixingConfig:
  """How a stage divides its tokens among its sources. Numbers are read as `mixture.exact` does.

  Attributes:
    policy: 'given', by the rates of the mixture or the stage; 'proportional', by tokens available;
      'temperature', by their power 1 / `temperature`, rounded to multiples of 1/65,536; 'unimax', as
      equal as `max_repetitions` allows (arXiv 2304.09151); 'repetitions', those of `repetitions` as
      often as it says, the others by the given rates.
    temperature: only for 'temperature'. The default is that of mT5 (arXiv 2010.11934), which samples
      by the power 0.3.
    max_repetitions: caps, see above: one for all sources, or {source: cap}; 0 or {} for none. For
      'unimax' one number, its N; 0 there is 1, which the paper is reported to find best, by little.
    repetitions: {source: times}, only for 'repetitions': how often the source will have been read by
      the end of the stage, earlier stages included.

  Raises:
    ValueError: a number out of its range, or a setting that the policy has no use for.
  """

  policy: Literal['given', 'proportional', 'temperature', 'unimax', 'repetitions'] = 'given'
  temperature: float = 1 / 0.3
  max_repetitions: Number | dict[str, Number] = 0
  repetitions: dict[str, Number] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not 0 < self.temperature < math.inf:
      raise ValueError(f'MixingConfig.temperature is {self.temperature}: it is above 0.')
    if self.policy != 'temperature' and self.temperature != 1 / 0.3:
      raise ValueError(
        f'MixingConfig.temperature is {self.temperature}, and policy {self.policy!r} has no use for '
        f"it: leave it at {1 / 0.3}, or choose 'temperature'."
      )
    if (self.policy == 'repetitions') != bool(self.repetitions):
      raise ValueError(
        f'MixingConfig.repetitions is {self.repetitions}, and policy {self.policy!r} '
        + ('needs a source and a number.' if not self.repetitions else 'has no use for it.')
      )
    if self.policy == 'unimax' and isinstance(self.max_repetitions, dict):
      raise ValueError(
        f"MixingConfig.max_repetitions is {self.max_repetitions}: policy 'unimax' has one number for "
        'all sources.'
      )
    for name in ('max_repetitions', 'repetitions'):
      setting = getattr(self, name)
      for where, number in setting.items() if isinstance(setting, dict) else (('', setting),):
        try:
          allowed = exact(number) > 0 or (not where and exact(number) == 0)
        except ValueError:
          allowed = False
        if not allowed:
          raise ValueError(
            f'MixingConfig.{name}{f"[{where!r}]" if where else ""} is {number!r}: it is a number '
            f"above 0, or a string such as '7/2'{'' if where else '; 0 for no cap'}."
          )

  @property
  def uses_rates(self) -> bool:
    """Whether the given rates count."""
    return self.policy in ('given', 'repetitions')

  def caps(self, names: Iterable[str]) -> dict[str, Fraction]:
    """The cap of each source that has one."""
    if isinstance(self.max_repetitions, dict):
      return {name: exact(number) for name, number in self.max_repetitions.items()}
    cap = exact(self.max_repetitions)
    return dict.fromkeys(names, cap) if cap else {}


@dataclasses.dataclass(frozen=True)
class ResolvedMixing:
  """Exact shares of a stage's tokens.

  Attributes:
    names: the sources that are read.
    knots: (position in tokens, shares); constant before the first and after the last, straight lines
      in between, two at one position a jump. One knot alone: constant shares.
    notes: what the caps did, a line for each source.
  """

  names: tuple[str, ...]
  knots: tuple[Knot, ...]
  notes: tuple[str, ...] = ()

  def make(self, sequence_length: int) -> Mixture | ScheduledMixture:
    """The mixture for sequences of so many tokens."""
    if len(self.knots) == 1:
      return Mixture(self.names, self.knots[0][1])
    return ScheduledMixture(self.names, [(at / sequence_length, x) for at, x in self.knots])

  def tokens(self, budget: int) -> dict[str, Fraction]:
    """How many of the stage's first tokens each source gives; sequences round it by less than two."""
    return dict(zip(self.names, Curves(self.knots).integral(budget), strict=True))

  def to_json(self) -> dict[str, Any]:
    """A plain form with exact numbers, as strings."""
    knots = [[str(at), [str(share) for share in shares]] for at, shares in self.knots]
    return {'names': [*self.names], 'knots': knots, 'notes': [*self.notes]}

  @classmethod
  def from_json(cls, plain: Mapping[str, Any]) -> 'ResolvedMixing':
    """Reads what `to_json` wrote."""
    knots = tuple((Fraction(at), tuple(map(Fraction, shares))) for at, shares in plain['knots'])
    return cls(tuple(plain['names']), knots, tuple(plain['notes']))


def resolve(
  config: MixingConfig,
  given: Mapping[str, Rate],
  available: Mapping[str, Fraction],
  budget: int,
  before: Mapping[str, Fraction] | None = None,
) -> ResolvedMixing:
  """Decides the shares of a stage.

  Args:
    config: the policy.
    given: each source's rate or curve, from a mixture or a recipe; its order is that of the result.
      Only 'given' and 'repetitions' look at the rates.
    available: trained tokens that one repetition of each source gives.
    budget: tokens of the stage.
    before: repetitions of each source that earlier stages made; none by default.

  Raises:
    ValueError: a rate that is wrong, an unknown source, a source without a token, a curve that the
      policy has no use for, repetitions or caps that do not fit the budget.
  """
  names = tuple(given)
  before = {name: Fraction((before or {}).get(name, 0)) for name in names}
  _check_sources(config, names, available)
  if budget < 1:
    raise ValueError(f'a stage of {budget} tokens: it has 1 or more.')
  sizes = {name: Fraction(available[name]) for name in names}
  if config.policy not in ('given', 'repetitions'):
    for name, rate in given.items():
      if isinstance(rate, tuple | list):
        raise ValueError(
          f"the rate of source '{name}' is a curve, and MixingConfig.policy {config.policy!r} has no "
          "use for it: 'given' has."
        )
  caps = {n: cap for n, cap in config.caps(names).items() if config.policy != 'unimax'}
  fixed: tuple[str, ...] = ()
  notes: list[str] = []
  match config.policy:
    case 'given':
      knots = policies.given_shares(given)
    case 'proportional':
      knots = _constant(policies.proportional(sizes))
    case 'temperature':
      knots = _constant(policies.by_temperature(sizes, exact(config.temperature)))
    case 'unimax':
      cap = exact(config.max_repetitions) or Fraction(_UNIMAX_REPETITIONS)
      room = {n: max(Fraction(0), (cap - before[n]) * sizes[n]) for n in names}
      shares = policies.unimax(room, budget)
      knots = _constant(shares)
      for name in names:
        if shares[name] and shares[name] * budget == room[name]:
          notes.append(
            f'{name}: at its cap of {text(cap)} repetitions: share {text(shares[name])}.'
          )
    case 'repetitions':
      targets = {name: exact(times) for name, times in config.repetitions.items()}
      fixed = tuple(targets)
      for name in fixed:
        if caps.get(name, targets[name]) < targets[name]:
          raise ValueError(
            f'MixingConfig.repetitions[{name!r}] is {text(targets[name])}, and its '
            f'MixingConfig.max_repetitions {text(caps[name])}: it is not above that.'
          )
      knots = policies.repeated_shares(targets, given, sizes, budget, before)

  limits = {n: max(Fraction(0), (cap - before[n]) * sizes[n]) for n, cap in caps.items()}
  asked = Curves(knots).integral(budget)
  knots = policies.cap_shares(names, knots, limits, budget, fixed)
  got = Curves(knots).integral(budget)
  if got != asked:
    for name, old, new in zip(names, asked, got, strict=True):
      if name not in fixed and new == limits.get(name):
        notes.append(
          f'{name}: {text(before[name] + old / sizes[name])} repetitions by the end without its cap of '
          f'{text(caps[name])}: share {text(old / budget)} → {text(new / budget)}.'
        )
      elif new > old:
        notes.append(
          f'{name}: takes {text((new - old) / budget)} of the stage from capped sources: share '
          f'{text(old / budget)} → {text(new / budget)}.'
        )
  return _without_idle(names, knots, notes, before)


def warnings_of(repetitions: Mapping[str, Fraction | float]) -> list[str]:
  """A line for each source that will be read more often than is known to help.

  Args:
    repetitions: of each source by the end, earlier stages included.
  """
  lines = []
  for name, times in repetitions.items():
    if times > _WARN_ABOVE:
      worth = 1 + _WORTH * (1 - math.exp(-(float(times) - 1) / _WORTH))
      lines.append(
        f'{name} will be read {float(times):.1f} times: beyond about {_WARN_ABOVE} repetitions little is '
        'gained. Inside a mixture, a pool of scarce text tolerates 15 to 20 (arXiv 2605.12715); by the '
        f'law of Muennighoff et al. (arXiv 2305.16264), {float(times):.1f} readings are worth '
        f'{worth:.1f} of fresh text, and 40 only 15.2.'
      )
  return lines


# ── helpers ─────────────────────────────────────────────────────────────────────


def _constant(shares: Mapping[str, Fraction]) -> list[Knot]:
  return [(Fraction(0), tuple(shares.values()))]


def _check_sources(
  config: MixingConfig, names: tuple[str, ...], available: Mapping[str, Fraction]
) -> None:
  for setting in ('repetitions', 'max_repetitions'):
    value = getattr(config, setting)
    for name in value if isinstance(value, dict) else ():
      if name not in names:
        raise ValueError(
          f'MixingConfig.{setting}: {name!r} is not in the mixture.{nearest(name, names)} Sources: '
          f'{", ".join(names)}.'
        )
  for name in names:
    if name not in available or available[name] < 1:
      raise ValueError(
        f"source '{name}' has {available.get(name, 0)} tokens to train on: a source that is mixed has "
        '1 or more.'
      )


def _without_idle(
  names: tuple[str, ...], knots: list[Knot], notes: list[str], before: Mapping[str, Fraction]
) -> ResolvedMixing:
  """Makes one knot of knots that are alike, and leaves sources out that have no share then."""
  if len({shares for _, shares in knots}) > 1:
    return ResolvedMixing(names, tuple(knots), tuple(notes))
  shares = dict(zip(names, knots[0][1], strict=True))
  idle = [name for name, share in shares.items() if not share]
  notes = notes + [
    f'{name}: left out with a share of 0; earlier stages read it {text(before[name])} times.'
    for name in idle
  ]
  shares = {name: share for name, share in shares.items() if share}
  return ResolvedMixing(tuple(shares), tuple(_constant(shares)), tuple(notes))
