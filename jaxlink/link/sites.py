"""Where a lexicon's sources stand in token windows: the words of each site, and what is known of them.

In: the tokens of some windows laid end to end, the marks of their words, a `LinkTable`. Out: for every word its
entry, the extent of its site, and bits. Nothing is drawn here, and nothing replaced (`splice`).

Easy to get wrong: what a window cannot see. A source of several words that begins before the window decides what
its first words are, so windows are handed over with some tokens before their start, and `settled` says whether
those were enough.
"""

from typing import NamedTuple

import numpy as np

from jaxlink.link import words
from jaxlink.link.table import (
  BEGINS,
  COVERED,
  COVERED_ANY,
  ELIGIBLE,
  LinkTable,
  extend_hash,
  pair_bit,
)

# A bit of a word beside those of its entry (COVERED_ANY, COVERED, ELIGIBLE); the words of a site of several
# have the bits of the site.
REWRITTEN = 1  # its document was drawn
_OF_ENTRY = COVERED_ANY | COVERED | ELIGIBLE


class Windows(NamedTuple):
  """N tokens of R windows of one source laid end to end, and the W words that begin in them, in order."""

  tokens_N: np.ndarray  # int32
  starts_N: np.ndarray  # bool: the first token of a document
  first_R: np.ndarray  # int64: first token of each window; the first is 0
  start_W: np.ndarray  # int64: first token
  length_W: np.ndarray  # int64: tokens, those of a space before it included
  hash_W: np.ndarray  # uint64: of its key
  index_W: np.ndarray  # int64: in its document
  flags_W: np.ndarray  # uint8
  fragment_F: np.ndarray  # int64: first token of each window and of each document in one
  document_F: np.ndarray  # uint64: key of its document
  epoch_F: np.ndarray | None = None  # of the source; read only where draws differ by epoch


class Found(NamedTuple):
  """What was looked up."""

  entry_W: np.ndarray  # row of the table, or -1
  extent_W: np.ndarray  # words of the site that begins at each word; 0 inside one of several
  kind_W: np.ndarray  # bits of the entry, and REWRITTEN
  reach_C: np.ndarray  # (C, 2): first word and end of each source of several that is there


def find(
  w: Windows, table: LinkTable, language: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Looks every word up as if all documents were rewritten, to one language or to any.

  Returns:
    The entry of each word, or -1; the words of the site that begins there, or 0 inside one; and what is
    known of it, as bits.
  """
  fragment_W = fragments(w)
  all_W = np.ones(len(fragment_W), bool)
  language_W = None if language is None else np.full(len(fragment_W), language)
  found = look_up(w, table, fragment_W, all_W, language_W)
  mark_inside(found.kind_W, found.extent_W)
  return found.entry_W, found.extent_W, found.kind_W


def look_up(
  w: Windows,
  table: LinkTable,
  fragment_W: np.ndarray,
  rewritten_W: np.ndarray,
  language_W: np.ndarray | None,
) -> Found:
  """Looks the words of rewritten documents up, in the language of each if they have one."""
  look_W = rewritten_W & (w.flags_W & words.UNSPLICEABLE == 0)
  entry_W = table.find(w.hash_W)
  entry_W[~look_W] = -1
  flags_W = table.flags_E[entry_W]
  kind_W = flags_W & np.uint8(_OF_ENTRY)
  if language_W is not None:
    covered_W = table.count_EG[entry_W, language_W] > 0
    identity_W = ~covered_W & table.identity_EG[entry_W, language_W]
    kind_W &= np.where(covered_W, np.uint8(_OF_ENTRY), np.uint8(0))
    kind_W |= identity_W * np.uint8(COVERED_ANY)
  extent_W = np.ones(len(entry_W), np.int64)
  reach_C = np.zeros((0, 2), np.int64)
  begins = np.flatnonzero(flags_W & BEGINS)
  if len(begins) and table.max_words > 1:
    at_C, size_C, entry_C = _find_several(w, table, look_W, fragment_W, language_W, begins)
    reach_C = np.stack([at_C, at_C + size_C], axis=1)
    end = 0
    for i, n, entry in zip(at_C.tolist(), size_C.tolist(), entry_C.tolist(), strict=True):
      if i >= end:  # from the left, none inside another
        end = i + n
        entry_W[i], extent_W[i], kind_W[i] = entry, n, table.flags_E[entry] & _OF_ENTRY
        extent_W[i + 1 : end], kind_W[i + 1 : end] = 0, 0
  kind_W |= rewritten_W * np.uint8(REWRITTEN)
  return Found(entry_W, extent_W, kind_W, reach_C)


def _find_several(
  w: Windows,
  table: LinkTable,
  look_W: np.ndarray,
  fragment_W: np.ndarray,
  language_W: np.ndarray | None,
  begins: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Finds the longest source of several words at each word that may begin one (`begins`).

  Returns:
    Of those that were found: first word, number of words, entry.
  """

  def goes_on(at: np.ndarray) -> np.ndarray:
    """Whether words `at` and the next can be of one source."""
    after = np.minimum(at + 1, len(fragment_W) - 1)
    return joined(w, at) & look_W[after] & (fragment_W[after] == fragment_W[at])

  at = begins[goes_on(begins)]
  hash_C = extend_hash(w.hash_W[at], w.hash_W[at + 1])
  keep = table.pairs[pair_bit(hash_C)]
  at, hash_C = at[keep], hash_C[keep]
  best, size = np.full(len(at), -1, np.int64), np.zeros(len(at), np.int64)
  alive = np.arange(len(at))
  for n in range(2, table.max_words + 1):
    if n > 2:
      alive = alive[goes_on(at[alive] + n - 2)]
      hash_C[alive] = extend_hash(hash_C[alive], w.hash_W[at[alive] + n - 1])
    if not len(alive):
      break
    found = table.find(hash_C[alive])
    ok = (found >= 0) & (table.words_E[found] == n)
    if language_W is not None:
      ok &= table.count_EG[found, language_W[at[alive]]] > 0
    best[alive[ok]], size[alive[ok]] = found[ok], n
  hit = size > 0
  return at[hit], size[hit], best[hit]


def joined(w: Windows, word_S: np.ndarray) -> np.ndarray:
  """Whether words and those after them stand side by side, with a single space between them."""
  last_S = word_S >= len(w.start_W) - 1
  word_S = np.where(last_S, 0, word_S)
  after_S = np.minimum(word_S + 1, len(w.start_W) - 1)
  side_by_side = w.start_W[after_S] == w.start_W[word_S] + w.length_W[word_S]
  return side_by_side & (w.flags_W[after_S] & words.LEADING_SPACE > 0) & ~last_S


def mark_inside(kind_W: np.ndarray, extent_W: np.ndarray) -> None:
  """Gives the words inside a site of several the bits of its first."""
  for i in np.flatnonzero(extent_W > 1).tolist():
    kind_W[i + 1 : i + extent_W[i]] = kind_W[i]


def settled(w: Windows, reach_C: np.ndarray, table: LinkTable, row: int, start: int) -> bool:
  """Whether a window's words from token `start` on would be the same with more tokens before it.

  They are if a document starts in between; or if a word up to there stands apart from the one before it;
  or if no source of several words that stands in the text reaches over its beginning, none of those in
  sight and, `table.max_words` - 1 words after the first one seen, none of the others.
  """
  begin = w.first_R[row]
  if w.starts_N[begin : start + 1].any():
    return True
  seen, here = np.searchsorted(w.start_W, (begin, start)).tolist()
  if here == seen:  # there may be the rest of a long word
    return False
  if table.max_words < 2:
    return True
  edges = np.arange(seen + 1, here + 1)
  if not joined(w, edges - 1).all():
    return True
  edges = edges[edges >= seen + table.max_words - 1]
  reach = reach_C[(reach_C[:, 0] >= seen) & (reach_C[:, 0] < here)]
  inside = (edges[:, None] > reach[:, 0]) & (edges[:, None] < reach[:, 1])
  return bool((~inside.any(axis=1)).any())


def fragments(w: Windows) -> np.ndarray:
  """The fragment of each word."""
  edges_F = np.append(np.searchsorted(w.start_W, w.fragment_F), len(w.start_W))
  return np.repeat(np.arange(len(w.fragment_F)), np.diff(edges_F))
