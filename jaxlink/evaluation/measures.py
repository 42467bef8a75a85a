"""From likelihoods to scores: accuracy, likelihood gap, bits per byte, each with chance and an interval.

Accuracies differ in what an option's likelihood is divided by, named as in lm-evaluation-harness:

  accuracy         nothing (acc)
  accuracy_char    the option's characters (acc_norm)
  accuracy_byte    its UTF-8 bytes (acc_bytes)
  accuracy_token   its tokens
  accuracy_pmi     nothing, and the option's likelihood without the context is taken away (acc_mutual_info)

The gaps move before accuracy does: the mean over items of the right option's log-likelihood less the mean of
the wrong ones', in nats (`gap`), and per byte of the option in bits (`gap_byte`). They are 0 where options
are as likely as one another.

Beside chance stands what a model gets for which every token is equally likely (`uniform`), as it nearly is before
training: it prefers options of few tokens. Where right options are shorter than wrong ones that is above
chance, and below it where they are longer.

Intervals are percentiles of the bootstrap over items, with draws that are the same for all scores and runs.
They tell what other items would have changed, and nothing of other seeds: `jaxlink.compare` has those.

Easy to get wrong: ties. Where the right option shares the highest likelihood with others, it counts as
1/ties, so that no order of options is better than another.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxlink.evaluation.items import Choice, Question, Text
from jaxlink.evaluation.scoring import Likelihood

DRAWS = 1_000  # of the bootstrap
LEVEL = 0.95
UNIFORM = 8_192  # tokens of the vocabulary of which each is equally likely; only gaps depend on it
_SLICE = 2**22  # numbers of resampling at a time

Better = Literal['higher', 'lower']


@dataclasses.dataclass(frozen=True)
class Score:
  """A number by which a model is judged.

  Attributes:
    value: of all items.
    low: end of the interval over items.
    high: the other end.
    chance: what a model that knows nothing gets; None where there is no such number.
    better: which direction is.
    uniform: what a model gets for which all tokens are equally likely; None where it was not worked out.
  """

  value: float
  low: float
  high: float
  chance: float | None
  better: Better
  uniform: float | None = None

  def to_json(self) -> dict[str, Any]:
    """Plain JSON; a value that is no number is None."""
    entry = dataclasses.asdict(self)
    for name in ('value', 'low', 'high'):
      entry[name] = entry[name] if math.isfinite(entry[name]) else None
    return entry


@dataclasses.dataclass(frozen=True)
class Measured:
  """Scores of a set.

  Attributes:
    scores: by name.
    items: for each item and name, what it adds to the mean, such as 1.0 for a right answer.
    groups: group → name → value, where a set has groups.
  """

  scores: dict[str, Score]
  items: dict[str, np.ndarray]
  groups: dict[str, dict[str, float]]


def requests_of(item: Choice | Question, *, pmi: bool = True) -> list[tuple[str, str]]:
  """What has to be scored for an item: its options, and those without context for `accuracy_pmi`."""
  if isinstance(item, Question):
    return item.requests
  alone = [('', item.delimiter + choice) for choice in item.choices]
  alone = alone if pmi and any(item.contexts) else []
  return item.requests + alone


def measure_choices(items: Sequence[Choice], found: Sequence[Sequence[Likelihood]]) -> Measured:
  """Scores multiple choice.

  Args:
    items: N of them.
    found: for each, the likelihoods of `requests_of`.
  """
  pmi = any(len(f) > len(i.choices) for i, f in zip(items, found, strict=True))
  rows, uniform = [], []
  for item, likelihoods in zip(items, found, strict=True):
    nats = np.array([one.nats for one in likelihoods])
    tokens = np.array([one.tokens for one in likelihoods])
    rows.append(_marks(item, nats, tokens, pmi))
    uniform.append(_marks(item, -tokens * math.log(UNIFORM), tokens, pmi))
  values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
  chance = _chance(items)
  drawn = means(np.stack(list(values.values()), axis=1))
  scores = {
    name: Score(
      *drawn[m], 0.0 if name.startswith('gap') else chance, 'higher',
      float(np.mean([row[name] for row in uniform])),
    )
    for m, name in enumerate(values)
  }  # fmt: skip
  return Measured(scores, values, _groups(items, values))


def _marks(item: Choice, nats: np.ndarray, tokens: np.ndarray, pmi: bool) -> dict[str, float]:
  """What an item adds to each score, of the likelihoods of its requests."""
  K = len(item.choices)
  nats_K, tokens_K = nats[:K], tokens[:K]
  chars_K = np.array([len(choice) for choice in item.choices])
  bytes_K = np.array([len(choice.encode()) for choice in item.choices])
  by = {
    'accuracy': nats_K, 'accuracy_char': nats_K / chars_K, 'accuracy_byte': nats_K / bytes_K,
    'accuracy_token': nats_K / tokens_K,
  }  # fmt: skip
  if pmi:  # without a context nothing is to be taken away
    by['accuracy_pmi'] = nats_K - (nats[K:] if len(nats) > K else 0.0)
  found = {name: _credit(given_K, item.label) for name, given_K in by.items()}
  found['gap'] = _gap(nats_K, item.label)
  found['gap_byte'] = _gap(nats_K / bytes_K, item.label) / math.log(2)
  return found


def _chance(items: Sequence[Choice]) -> float:
  """Of a guess; where all items have the same options, of the best one that is always given."""
  even = float(np.mean([1 / len(item.choices) for item in items]))
  if len({item.choices for item in items}) > 1:
    return even
  most = np.bincount([item.label for item in items]).max() / len(items)
  return max(even, float(most))


def measure_texts(items: Sequence[Text | Question], found: Sequence[Likelihood]) -> Measured:
  """Bits per byte of texts, or of the answers of questions.

  Args:
    items: N of them.
    found: the likelihood of each, in whole.
  """
  texts = [item.answers[0] if isinstance(item, Question) else item.text for item in items]
  bits_N = np.array([-one.nats / math.log(2) for one in found])
  bytes_N = np.array([len(text.encode()) for text in texts], float)
  score = Score(*ratio(bits_N, bytes_N), None, 'lower')
  groups = {
    group: {'bits_per_byte': float(bits_N[here].sum() / bytes_N[here].sum())}
    for group, here in _members(items).items()
  }
  return Measured({'bits_per_byte': score}, {'bits': bits_N, 'bytes': bytes_N}, groups)


def measure_means(
  items: Sequence[Any], values: Mapping[str, Sequence[float]], chance: Mapping[str, float | None]
) -> Measured:
  """Scores that are means over items, and better when higher, such as exact match.

  Args:
    items: N of them.
    values: name → what each item adds.
    chance: name → what a model that knows nothing gets, or None.
  """
  arrays = {name: np.array(each, float) for name, each in values.items()}
  drawn = means(np.stack(list(arrays.values()), axis=1))
  scores = {name: Score(*drawn[m], chance[name], 'higher') for m, name in enumerate(arrays)}
  return Measured(scores, arrays, _groups(items, arrays))


def means(values_NM: np.ndarray) -> list[tuple[float, float, float]]:
  """Mean, and its interval over N items, of each of M columns."""
  sums_RM = _resample(values_NM) / len(values_NM)
  return [(float(v), *_interval(r)) for v, r in zip(values_NM.mean(0), sums_RM.T, strict=True)]


def ratio(above_N: np.ndarray, below_N: np.ndarray) -> tuple[float, float, float]:
  """Sum over sum, and its interval over N items."""
  sums_R2 = _resample(np.stack([above_N, below_N], axis=1))
  return float(above_N.sum() / below_N.sum()), *_interval(sums_R2[:, 0] / sums_R2[:, 1])


def _resample(values_NM: np.ndarray) -> np.ndarray:
  """Sums of N items drawn with replacement, `DRAWS` times: [R, M]."""
  N = len(values_NM)
  random = np.random.default_rng(0)
  slices = max(1, _SLICE // N)
  found = []
  for first in range(0, DRAWS, slices):
    drawn_RN = random.integers(N, size=(min(slices, DRAWS - first), N))
    counts_RN = np.stack([np.bincount(row, minlength=N) for row in drawn_RN])
    found.append(counts_RN @ values_NM)
  return np.concatenate(found)


def _interval(values_R: np.ndarray) -> tuple[float, float]:
  if not np.isfinite(values_R).all():
    return math.nan, math.nan
  low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)


def _credit(given_K: np.ndarray, label: int) -> float:
  if not np.isfinite(given_K).all():
    return math.nan
  best_K = given_K == given_K.max()
  return float(best_K[label]) / best_K.sum()


def _gap(given_K: np.ndarray, label: int) -> float:
  return float(given_K[label] - np.delete(given_K, label).mean())


def _members(items: Sequence[Any]) -> dict[str, list[int]]:
  """Items of each group, in the order of the groups' first items; {} where there is one group only."""
  found: dict[str, list[int]] = {}
  for n, item in enumerate(items):
    found.setdefault(item.group, []).append(n)
  return found if len(found) > 1 else {}


def _groups(items: Sequence[Any], values: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
  return {
    group: {name: float(each[here].mean()) for name, each in values.items()}
    for group, here in _members(items).items()
  }
