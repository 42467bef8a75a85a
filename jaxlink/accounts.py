"""What a run has read of each source: losses by source, and the LINK dose, summed from step to step.

The counts of a batch's rows are summed on the device, so that they are those of the whole batch on every
host; here they are added up and become metrics. The totals lie in every checkpoint.

Easy to get wrong: each step counts once. `take` is called for each fetched step, in order, and the totals
that are saved with a step are taken after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Accounts:
  """Totals of a run's sources.

  Args:
    sources: names, in the mixture's order.
    count_names: what is counted of each row; () if no source has LINK.
    totals: of a run that is resumed: source → name → count.
  """

  def __init__(
    self,
    sources: Sequence[str],
    count_names: Sequence[str],
    totals: Mapping[str, Mapping[str, int]] | None = None,
  ):
    self._sources, self._names = tuple(sources), tuple(count_names)
    self._totals = np.zeros((len(sources), len(count_names)), np.int64)
    for row, source in zip(self._totals, self._sources, strict=True):
      saved = (totals or {}).get(source, {})
      row[:] = [saved.get(name, 0) for name in self._names]

  def take(self, values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the counts of a step, and makes its metrics scalars by name."""
    values = dict(values)
    sums, tokens = values.pop('loss_sum_by_source'), values.pop('tokens_by_source')
    for name, total, count in zip(self._sources, sums.tolist(), tokens.tolist(), strict=True):
      if count:  # a source without tokens has no loss
        values[f'loss/{name}'] = total / count
    if self._names:
      self._totals += values.pop('counts_by_source')
      for source, dose in self.totals.items():
        values |= {f'link/{source}/{name}': value for name, value in rates(dose).items()}
    return values

  @property
  def totals(self) -> dict[str, dict[str, int]]:
    """Source → name → count, of the sources that LINK reads."""
    return {
      source: dict(zip(self._names, row.tolist(), strict=True))
      for source, row in zip(self._sources, self._totals, strict=True)
      if row.any()
    }


def rates(dose: Mapping[str, int]) -> dict[str, float]:
  """What is asked of a dose: counts, and shares of them.

  `realised_covered` and `realised_all` are replaced words per eligible word and per word of the rewritten
  documents; `inflation` is new tokens per source token; `skipped` and `reread` are shares of the source
  tokens that were read.
  """
  read = max(1, dose['tokens_read'])
  return {
    'words': dose['words'],
    'covered': dose['covered'],
    'eligible': dose['eligible'],
    'replaced': dose['replaced'],
    'realised_covered': dose['replaced'] / max(1, dose['eligible']),
    'realised_all': dose['replaced'] / max(1, dose['words']),
    'inflation': 1 + (dose['tokens_inserted'] - dose['tokens_removed']) / read,
    'skipped': dose['tokens_skipped'] / read,
    'reread': dose['tokens_reread'] / read,
  }
