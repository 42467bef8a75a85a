"""Data-equivalence multiplier: how many times the target text a monolingual run would need for the same score.

  L_mono(U) = E + B · U^-beta            fitted to monolingual runs at pools of U unique tokens
  m = U' / U  with  L_mono(U') = L_mix(U)    so    m = ((L_mix - E) / B)^(-1/beta) / U

Of a score where higher is better: a monotone fit through the runs' means, linear in log U between them.

The unit is that of the score. Bits per byte and nats per token of one tokenizer differ by a constant factor,
which E and B take up: m is the same. The runs should be tuned, and equal in compute, tokenizer and held-out
text; an untuned monolingual run makes m too large.

Easy to get wrong: E. An error of 1.5 % in it can move m by 20 %, and near E the multiplier has no bound; so
it comes with an interval, and with the range of pools that was fitted. Beyond that range it is told as such.

Source: METHODS, data-equivalence multiplier (arXiv 2605.13225).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

LEAST = 3  # pool sizes for three numbers
SOUND = 4  # that leave something to judge the fit by
_BETAS = np.geomspace(0.01, 3.0, 300)
_DRAWS = 400


@dataclasses.dataclass(frozen=True)
class Law:
  """L(U) = E + B · U^-beta."""

  e: float
  b: float
  beta: float

  def loss(self, unique: float) -> float:
    """Of a run with so many unique tokens."""
    return self.e + self.b * unique**-self.beta

  def unique_for(self, loss: float) -> float:
    """Unique tokens for a loss; infinite at E or below."""
    if loss <= self.e:
      return math.inf
    return ((loss - self.e) / self.b) ** (-1 / self.beta)


@dataclasses.dataclass(frozen=True)
class Multiplier:
  """Of one setting.

  Attributes:
    value: unique tokens of a monolingual run of the same score, over those of the setting; inf where the law
      never gets there.
    low: end of the interval; None where the runs give none.
    high: the other end.
    unique: of the setting.
    score: of the setting.
    within: whether the equivalent pool lies between those of the monolingual runs.
  """

  value: float
  low: float | None
  high: float | None
  unique: int
  score: float
  within: bool


@dataclasses.dataclass(frozen=True)
class Pools:
  """Scores of the monolingual runs, by their unique tokens: one run or several at each."""

  unique: tuple[int, ...]
  scores: tuple[float, ...]

  @property
  def sizes(self) -> list[int]:
    """Different pools, rising."""
    return sorted(set(self.unique))


def fit(pools: Pools) -> Law:
  """The law of least squares, with E ≥ 0 and B > 0.

  Raises:
    ValueError: there are fewer than three pool sizes, or scores do not fall with more text.
  """
  if len(pools.sizes) < LEAST:
    raise ValueError(missing(pools))
  x, y = np.asarray(pools.unique, float), np.asarray(pools.scores, float)
  scale = math.exp(np.log(x).mean())  # U in units of it, so that no column is tiny
  best = _best(np.log(x / scale), y, _BETAS)
  for span in (1.03, 1.003, 1.0003, 1.00003):  # finer round the best
    betas = best[1].beta * np.geomspace(1 / span, span, 61)
    best = _best(np.log(x / scale), y, betas)
  law = best[1]
  if not (law.b > 0 and math.isfinite(best[0])):
    raise ValueError('monolingual scores do not get better with more text: there is no law to fit.')
  return Law(law.e, law.b * scale**law.beta, law.beta)


def missing(pools: Pools) -> str:
  """Which monolingual runs are needed; '' where there are enough."""
  sizes = pools.sizes
  if len(sizes) >= LEAST:
    return ''
  have = ', '.join(f'{size:,}' for size in sizes) or 'none'
  anchor = sizes[-1] if sizes else 0
  proposed = [size for size in (anchor // 4, anchor // 2, anchor, 2 * anchor) if size not in sizes]
  such_as = (
    f', such as {" or ".join(f"{size:,}" for size in proposed)} unique tokens' if anchor else ''
  )
  return (
    f'the multiplier needs monolingual runs at {LEAST} pools or more (4 leave something to judge the fit by); '
    f'there are runs at: {have}. Missing: runs on {LEAST - len(sizes)} or more other amounts of the same '
    f'text{such_as}, tuned, of equal compute'
  )


def of_loss(
  pools: Pools, unique: int, scores: Sequence[float], *, level: float, seed: int = 0
) -> Multiplier:
  """The multiplier of a setting by a score where lower is better.

  The interval is a parametric bootstrap: runs are drawn anew around the law, the noise between them, and the
  setting's own mean. The variance is that between runs at equal pools where there are any, else that around
  the law, and is drawn too, for it is known from a few runs only.

  Args:
    pools: of the monolingual runs.
    unique: unique target tokens of the setting.
    scores: final ones, of each seed.
    level: of the interval.
    seed: of its draws.
  """
  law, mean = fit(pools), math.fsum(scores) / len(scores)
  value = law.unique_for(mean) / unique
  x = np.asarray(pools.unique, float)
  variance, freedom = _noise(pools, law, scores)
  low = high = None
  if freedom:
    rng, found = np.random.default_rng(seed), []
    fitted = np.asarray([law.loss(u) for u in x])
    for _ in range(_DRAWS):
      sigma = math.sqrt(variance * freedom / rng.chisquare(freedom))
      drawn = Pools(pools.unique, tuple(fitted + rng.normal(0, sigma, len(x))))
      shifted = mean + rng.normal(0, sigma / math.sqrt(len(scores)))
      try:
        found.append(fit(drawn).unique_for(shifted) / unique)
      except ValueError:
        found.append(math.inf)
    low, high = _ends(found, level)
  return Multiplier(value, low, high, unique, mean, _within(value * unique, pools))


def of_accuracy(pools: Pools, unique: int, scores: Sequence[float]) -> Multiplier | None:
  """The multiplier by a score where higher is better, from a monotone fit; None beyond the runs' range."""
  sizes = pools.sizes
  if len(sizes) < LEAST:
    raise ValueError(missing(pools))
  mean = math.fsum(scores) / len(scores)
  values = [
    [s for u, s in zip(pools.unique, pools.scores, strict=True) if u == size] for size in sizes
  ]
  fitted = monotone([sum(v) / len(v) for v in values], [len(v) for v in values])
  if not fitted[0] <= mean <= fitted[-1] or fitted[0] == fitted[-1]:
    return None
  i = max(1, int(np.searchsorted(fitted, mean)))
  rise = fitted[i] - fitted[i - 1]
  share = (mean - fitted[i - 1]) / rise if rise else 0.0  # level: the smaller pool is enough
  pool = sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share
  return Multiplier(pool / unique, None, None, unique, mean, True)


def monotone(values: Sequence[float], weights: Sequence[float]) -> list[float]:
  """The nearest rising sequence, by least squares (pool adjacent violators).

  >>> monotone([1, 3, 2], [1, 1, 1])
  [1.0, 2.5, 2.5]
  """
  blocks: list[tuple[float, float, int]] = []  # mean, weight, members
  for value, weight in zip(values, weights, strict=True):
    blocks.append((float(value), float(weight), 1))
    while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
      (a, wa, na), (b, wb, nb) = blocks[-2:]
      blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
  return [mean for mean, _, members in blocks for _ in range(members)]


def _best(log_x: np.ndarray, y: np.ndarray, betas: np.ndarray) -> tuple[float, Law]:
  """The least squares over given exponents: for each, E and B are linear."""
  powers = np.exp(-betas[:, None] * log_x)  # [exponents, runs]
  centred = powers - powers.mean(1, keepdims=True)
  slopes = (centred * (y - y.mean())).sum(1) / np.maximum((centred**2).sum(1), 1e-300)
  levels = y.mean() - slopes * powers.mean(1)
  below = levels < 0  # E is no loss then: the law through 0
  slopes = np.where(below, (powers * y).sum(1) / (powers**2).sum(1), slopes)
  levels = np.where(below, 0.0, levels)
  squares = ((levels[:, None] + slopes[:, None] * powers - y) ** 2).sum(1)
  squares = np.where(slopes > 0, squares, np.inf)
  k = int(squares.argmin())
  return float(squares[k]), Law(float(levels[k]), float(slopes[k]), float(betas[k]))


def _noise(pools: Pools, law: Law, scores: Sequence[float]) -> tuple[float, int]:
  """Variance between runs and its degrees of freedom; 0 where nothing tells."""
  squares, freedom = 0.0, 0
  groups = [
    [s for u, s in zip(pools.unique, pools.scores, strict=True) if u == size] for size in pools.sizes
  ]  # fmt: skip
  for group in [*groups, list(scores)]:
    squares += float(np.var(group)) * len(group)
    freedom += len(group) - 1
  if not freedom and len(pools.sizes) > LEAST:
    residuals = [s - law.loss(u) for u, s in zip(pools.unique, pools.scores, strict=True)]
    squares, freedom = float(np.sum(np.square(residuals))), len(residuals) - LEAST
  return (squares / freedom, freedom) if freedom else (0.0, 0)


def _ends(found: Sequence[float], level: float) -> tuple[float, float]:
  ordered = sorted(found)  # not a percentile: some may be infinite
  last = len(ordered) - 1
  return ordered[round((1 - level) / 2 * last)], ordered[round((1 + level) / 2 * last)]


def _within(pool: float, pools: Pools) -> bool:
  return pools.sizes[0] <= pool <= pools.sizes[-1]
