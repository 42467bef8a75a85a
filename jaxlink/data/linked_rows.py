"""Rows of substituted tokens: reading wide enough that nothing outside matters, and counting.

In: a `LinkedWindows`, the numbers of its windows, and how far the run is. Out: T + 1 new tokens for each
window, and what was counted of the first T.

Easy to get wrong: what a row holds may not depend on how much was read to fill it. Words near either end of
what was read may belong to sites that lie half outside; such a row is read again, wider.
"""

from typing import TYPE_CHECKING

import numpy as np

from jaxlink.link import splice as splice_lib

if TYPE_CHECKING:
  from jaxlink.data.linked import LinkedWindows

_KIND_BITS = 6


def count_words(spliced: splice_lib.Spliced, row_W: np.ndarray, rows: int) -> np.ndarray:
  """Of each row: words seen, and those with each bit; (rows, 7). `row_W` < 0 is not counted."""
  kinds = 1 << _KIND_BITS
  seen = row_W >= 0
  table = np.bincount(
    (row_W[seen] << _KIND_BITS) + spliced.kind_W[seen], minlength=rows * kinds
  ).reshape(rows, kinds)
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
    before = 16 * (2 * source.table.max_words - 1)
    after = int(width / shrink) - width + 32 + 8 * source.table.max_words
    left = np.arange(count)
    while len(left):
      left = left[~self._fill(left, starts_B[left], ahead_B[left], before, width + after)]
      before, after = before * 4, after * 4 + width

  def _fill(
    self, rows: np.ndarray, starts_R: np.ndarray, ahead_R: np.ndarray, before: int, after: int
  ) -> np.ndarray:
    """Makes rows from `before` tokens before their start and `after` from there on.

    The next windows start `ahead_R` tokens later.

    Returns:
      Whether that was enough, for each.
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
    done_R = spliced.place_N[sure_R] >= place_R + width
    done_R &= [splice_lib.settled(windows, spliced, table, r, int(b))
               for r, b in enumerate(begin_R)]  # fmt: skip
    at = place_R[done_R, None] + np.arange(width)
    into = rows[done_R]
    self.tokens_BN[into] = spliced.tokens_M[at]
    self.begins_BN[into] = spliced.starts_M[at]
    if self.labels_BN is not None:
      self.labels_BN[into], self.mask_BN[into] = spliced.labels_M[at], spliced.mask_M[at]
    self.counts_BC[into] = self._count(windows, spliced, ahead_R, begin_R, place_R)[done_R]
    return done_R

  def _sure_until(self, windows: splice_lib.Windows, whole_R: np.ndarray) -> np.ndarray:
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
      touches = windows.start_W[stop - 1] + windows.length_W[stop - 1] == whole_R[r]
      back = table.max_words - 1 if touches else 0
      if table.mode == 'annotate':
        back = max(back, 1)
      if back:
        sure_R[r] = windows.start_W[max(first, stop - back)]
    return sure_R

  def _count(
    self,
    windows: splice_lib.Windows,
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
    row_W[(windows.start_W < begin_R[row_W]) | (place_W >= stop_R[row_W])] = -1
    for i in spliced.word_S[spliced.extent_W[spliced.word_S] > 1].tolist():
      row_W[i + 1 : i + spliced.extent_W[i]] = row_W[i]
    words = count_words(spliced, row_W, count)

    stops = np.append(windows.first_R[1:], len(windows.tokens_N))
    end_R = np.empty(count, np.int64)  # the old token whose new one is the first that is left out
    for r, (first, stop) in enumerate(zip(begin_R.tolist(), stops.tolist(), strict=True)):
      end_R[r] = first + np.searchsorted(spliced.place_N[first:stop], stop_R[r])
    read_R = end_R - begin_R

    begins = np.flatnonzero(windows.starts_N)
    row_D = np.searchsorted(windows.first_R, begins, side='right') - 1
    inside_D = (begins >= begin_R[row_D]) & (begins < end_R[row_D])
    head_W = (windows.index_W == 0) & (row_W >= 0) & (spliced.kind_W & splice_lib.REWRITTEN > 0)

    site_row = row_W[spliced.word_S]
    ok = site_row >= 0
    inserted = np.bincount(site_row[ok], spliced.size_S[ok], minlength=count)
    out = np.zeros((count, len(source.names)), np.int64)
    out[:, 0] = np.bincount(row_D[inside_D], minlength=count)
    out[:, 1] = np.bincount(row_W[head_W], minlength=count)
    out[:, 2:9] = words
    out[:, 9] = read_R
    out[:, 10] = self._rewritten(windows, spliced, row_W, begin_R, end_R)
    out[:, 11] = np.maximum(0, ahead_R - read_R)
    out[:, 12] = np.maximum(0, read_R - ahead_R)
    out[:, 13] = read_R + inserted - source.length
    out[:, 14] = inserted
    for g in range(len(source.names) - 15):
      of = ok & (spliced.language_S == g)
      size_S = spliced.extent_W[spliced.word_S]
      out[:, 15 + g] = np.bincount(site_row[of], size_S[of], minlength=count)
    return out

  def _rewritten(
    self,
    windows: splice_lib.Windows,
    spliced: splice_lib.Spliced,
    row_W: np.ndarray,
    begin_R: np.ndarray,
    end_R: np.ndarray,
  ) -> np.ndarray:
    """How many old tokens of each row are of documents that were rewritten."""
    cuts = np.union1d(np.flatnonzero(windows.starts_N), begin_R)
    cuts = np.union1d(cuts, end_R)
    word_F = np.searchsorted(windows.start_W, cuts)
    ends_F = np.append(cuts[1:], len(windows.tokens_N))
    some = word_F < np.searchsorted(windows.start_W, ends_F)
    rewritten_F = np.zeros(len(cuts), bool)
    rewritten_F[some] = spliced.kind_W[word_F[some]] & splice_lib.REWRITTEN > 0
    row_F = np.searchsorted(begin_R, cuts, side='right') - 1
    inside = (row_F >= 0) & (cuts < end_R[row_F]) & rewritten_F
    return np.bincount(row_F[inside], (ends_F - cuts)[inside], minlength=len(begin_R))
