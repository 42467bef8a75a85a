"""Rows of substituted tokens: reading wide enough that nothing outside matters, and counting.

In: a `LinkedWindows`, the numbers of its windows, and how far the run is. Out: T + 1 new tokens for each
window, and what was counted of the first T.

Easy to get wrong: what a row holds may not depend on how much was read to fill it. Words near either end of
what was read may belong to sites that lie half outside; such a row is read again, wider.
"""

from typing import TYPE_CHECKING

import numpy as np

from jaxlink.link import sites
from jaxlink.link import splice as splice_lib

if TYPE_CHECKING:
  from jaxlink.data.linked import LinkedWindows

_KIND_BITS = 6


def count_words(kind_W: np.ndarray, row_W: np.ndarray, rows: int) -> np.ndarray:
  """Of each row: words seen, and those with each bit; (rows, 7). `row_W` < 0 is not counted."""
  kinds = 1 << _KIND_BITS
  seen = row_W >= 0
  table = np.bincount((row_W[seen] << _KIND_BITS) + kind_W[seen], minlength=rows * kinds).reshape(
    rows, kinds
  )
  bits = np.arange(kinds)[:, None] >> np.arange(_KIND_BITS) & 1
  return table @ np.concatenate([np.ones((kinds, 1), np.int64), bits], axis=1)


class Rows:
  """B rows of T + 1 new tokens, and what was counted of them.

  Attributes:
    tokens_BN, begins_BN: N = T + 1 new tokens, and whether a document starts there.
    labels_BN, mask_BN: mode 'restore' only.
    counts_BC: `LinkedWindows.names`.
  """

  def __init__(self, source: 'LinkedWindows', numbers: list[int], tokens: int):
    self._source, self._choice = source, source.choice(tokens)
    count, width = len(numbers), source.length + 1
    starts_B = np.array([source.window_start(n) for n in numbers], np.int64)
    ahead_B = np.array([source.window_start(n + 1) for n in numbers], np.int64) - starts_B
    self.tokens_BN = np.empty((count, width), np.int32)
    self.begins_BN = np.empty((count, width), bool)
    self.counts_BC = np.zeros((count, len(source.names)), np.int32)
    self.labels_BN = self.mask_BN = None
    if source.table.mode == 'restore':
      self.labels_BN = np.empty((count, width), np.int32)
      self.mask_BN = np.empty((count, width), bool)
    dose = self._choice.doc_fraction * self._choice.probability
    shrink = min(1.0, 1.0 + float(source.sample.growth) * dose)
    # More than most rows need: a few documents are denser than the source, or hold longer words.
    before, after = 48, int(width / shrink) + 64
    left = np.arange(count)
    while len(left):
      settled, filled = self._fill(left, starts_B[left], ahead_B[left], before, after)
      before, after = before * (1 if settled.all() else 4), after * (1 if filled.all() else 4)
      left = left[~(settled & filled)]

  def _fill(
    self, rows: np.ndarray, starts_R: np.ndarray, ahead_R: np.ndarray, before: int, after: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Makes rows from `before` tokens before their start and `after` from there on.

    The next windows start `ahead_R` tokens later.

    Returns:
      Whether as much before was enough, and as much after, for each; rows are made where both were.
    """
    source, table = self._source, self._source.table
    spans = [(max(0, s - before), after + s - max(0, s - before)) for s in starts_R.tolist()]
    windows, whole_R = source.read(spans)
    spliced = splice_lib.splice(windows, table, self._choice, source.tail)
    length_R = np.array([length for _, length in spans])
    begin_R = windows.first_R + (length_R - after)  # of the window, in old tokens
    place_R = spliced.place_N[begin_R]  # in new ones
    sure_R = self._sure_until(windows, whole_R)
    width = source.length + 1
    filled_R = spliced.place_N[sure_R] >= place_R + width
    settled_R = np.array(
      [sites.settled(windows, spliced.reach_C, table, r, int(b)) for r, b in enumerate(begin_R)]
    )
    done_R = filled_R & settled_R
    at = place_R[done_R, None] + np.arange(width)
    into = rows[done_R]
    self.tokens_BN[into] = spliced.tokens_M[at]
    self.begins_BN[into] = spliced.starts_M[at]
    if self.labels_BN is not None:
      self.labels_BN[into], self.mask_BN[into] = spliced.labels_M[at], spliced.mask_M[at]
    self.counts_BC[into] = self._count(windows, spliced, ahead_R, begin_R, place_R)[done_R]
    return settled_R, filled_R

  def _sure_until(self, windows: sites.Windows, whole_R: np.ndarray) -> np.ndarray:
    """The old token of each window up to which nothing depends on what comes after it.

    A site of several words may reach on where words stand side by side up to the end; an annotation
    takes in what follows its word.
    """
    table, sure_R = self._source.table, whole_R.copy()
    firsts = np.searchsorted(windows.start_W, windows.first_R).tolist()
    stops = np.searchsorted(windows.start_W, whole_R).tolist()
    for r, (first, stop) in enumerate(zip(firsts, stops, strict=True)):
      if first == stop:
        continue
      back = 1 if table.mode == 'annotate' else 0
      if windows.start_W[stop - 1] + windows.length_W[stop - 1] == whole_R[r]:
        run = np.arange(max(first, stop - table.max_words), stop - 1)
        apart = np.flatnonzero(~sites.joined(windows, run))  # no source reaches over these
        most = len(run) - int(apart[-1]) if len(apart) else table.max_words - 1
        back = max(back, min(table.max_words - 1, most))
      if back:
        sure_R[r] = windows.start_W[max(first, stop - back)]
    return sure_R

  def _count(
    self,
    windows: sites.Windows,
    spliced: splice_lib.Spliced,
    ahead_R: np.ndarray,
    begin_R: np.ndarray,
    place_R: np.ndarray,
  ) -> np.ndarray:
    """The counts of each window's first T new tokens."""
    source = self._source
    count = len(begin_R)
    stop_R = place_R + source.length
    # Words belong to the row in which their first new token is, those of a site as its first.
    row_W = np.searchsorted(windows.first_R, windows.start_W, side='right') - 1
    place_W = spliced.place_N[windows.start_W]
    inside_W = (windows.start_W >= begin_R[row_W]) & (place_W < stop_R[row_W])
    extent_S = spliced.extent_W[spliced.word_S]
    for i, n in zip(
      spliced.word_S[extent_S > 1].tolist(), extent_S[extent_S > 1].tolist(), strict=True
    ):
      inside_W[i + 1 : i + n] = inside_W[i]
    # A site counts where its first inserted token is, an annotation therefore after its word.
    row_S = row_W[spliced.word_S]
    counted_S = inside_W[spliced.word_S] & (spliced.begin_S < stop_R[row_S])
    kind_W = spliced.kind_W.copy()
    for i, n in zip(
      spliced.word_S[~counted_S].tolist(), extent_S[~counted_S].tolist(), strict=True
    ):
      kind_W[i : i + n] &= np.uint8(~(splice_lib.REPLACED | splice_lib.STOP_REPLACED) & 0xFF)
    words = count_words(kind_W, np.where(inside_W, row_W, -1), count)

    stops = np.append(windows.first_R[1:], len(windows.tokens_N))
    end_R = np.empty(count, np.int64)  # the old token whose new one is the first that is left out
    for r, (first, stop) in enumerate(zip(begin_R.tolist(), stops.tolist(), strict=True)):
      end_R[r] = first + np.searchsorted(spliced.place_N[first:stop], stop_R[r])
    read_R = end_R - begin_R

    row_F = np.searchsorted(windows.first_R, windows.fragment_F, side='right') - 1
    begins_F = windows.starts_N[windows.fragment_F]
    begins_F &= (windows.fragment_F >= begin_R[row_F]) & (windows.fragment_F < end_R[row_F])
    drawn_F = begins_F & spliced.rewritten_F
    until_F = np.minimum(np.append(windows.fragment_F[1:], stops[-1]), end_R[row_F])
    size_F = np.maximum(0, until_F - np.maximum(windows.fragment_F, begin_R[row_F]))
    rewritten = np.bincount(row_F, size_F * spliced.rewritten_F, minlength=count)
    held_S = np.minimum(spliced.size_S, stop_R[row_S] - spliced.begin_S)  # a row may end in a site
    inserted = np.bincount(row_S[counted_S], held_S[counted_S], minlength=count)
    out = np.zeros((count, len(source.names)), np.int64)
    out[:, 0] = np.bincount(row_F[begins_F], minlength=count)
    out[:, 1] = np.bincount(row_F[drawn_F], minlength=count)
    out[:, 2:9] = words
    out[:, 9] = read_R
    out[:, 10] = rewritten
    out[:, 11] = np.maximum(0, ahead_R - read_R)
    out[:, 12] = np.maximum(0, read_R - ahead_R)
    out[:, 13] = read_R + inserted - source.length
    out[:, 14] = inserted
    for g in range(len(source.names) - 15):
      of = counted_S & (spliced.language_S == g)
      out[:, 15 + g] = np.bincount(row_S[of], extent_S[of], minlength=count)
    return out
