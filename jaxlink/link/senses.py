"""Which translation: a number in [0, 1) picks a language and a target. Reference and engine share it.

Easy to get wrong: floating point. Both routes have to round alike, so the sums of weights are made here
once, and compared, never multiplied.
"""

import itertools

import numpy as np

from jaxlink.link.lexicon import Lexicon


def cumulative(lexicon: Lexicon, key: str) -> list[float]:
  """Returns, for each target of a source, the share of the weight up to and with it; the last is 1."""
  count = len(lexicon.entries.get(key, ()))
  sums = list(itertools.accumulate(lexicon.weights.get(key, (1.0,) * count)))
  return [each / sums[-1] for each in sums]


def pick_weighted(
  cumulative_K: np.ndarray, first_S: np.ndarray, count_S: np.ndarray, u_S: np.ndarray
) -> np.ndarray:
  """Returns which of its targets each site takes: the first whose cumulative weight exceeds u.

  Args:
    cumulative_K: of all targets, those of a source in a run.
    first_S: each site's first target.
    count_S: how many it has.
    u_S: in [0, 1).
  """
  picked_S = np.zeros(len(first_S), np.int64)
  open_S = np.flatnonzero(count_S > 1)
  while len(open_S):
    passed = u_S[open_S] >= cumulative_K[first_S[open_S] + picked_S[open_S]]
    open_S = open_S[passed]
    picked_S[open_S] += 1
    open_S = open_S[picked_S[open_S] < count_S[open_S] - 1]
  return picked_S


def pick_language(has_SG: np.ndarray, u_S: np.ndarray) -> np.ndarray:
  """Returns the language of each site: one of those that have it, each as likely.

  Args:
    has_SG: bool, whether language g has targets for the site; one at least does.
    u_S: in [0, 1).
  """
  rank_S = (u_S * has_SG.sum(axis=1)).astype(np.int64)
  return np.argmax(np.cumsum(has_SG, axis=1) > rank_S[:, None], axis=1)
