"""LINK on tokens: drawn sites of token windows become the token ids of their translations.

In: the tokens of some windows laid end to end, the marks of their words, a `LinkTable`, and draws. Out:
the new tokens, where every old one went, and what was counted. Vectorised: no tokenizer, and no Python
loop over words.

It equals `substitute` on the text, token for token: same draws, same sites, and the ids that the
tokenizer gives to the substituted text cut at `Substituted.cuts`.

Easy to get wrong: what a window cannot see. A source of several words that begins before the window
decides what its first words are, so windows are handed over with some tokens before their start, and
`settled` says whether those were enough.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlink.link import senses, words
from jaxlink.link.draws import Draws
from jaxlink.link.table import (
  BEGINS,
  COVERED,
  COVERED_ANY,
  ELIGIBLE,
  STOP,
  VARIANTS,
  LinkTable,
  extend_hash,
  pair_bit,
  variant,
)  # fmt: skip

# What is known of a word, as bits: those of its entry (COVERED_ANY, COVERED, ELIGIBLE), and these. The
# words of a site of several have the bits of the site.
REWRITTEN = 1  # its document was drawn
REPLACED = 16
STOP_REPLACED = 32
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
  document_W: np.ndarray  # uint64: key of its document
  flags_W: np.ndarray  # uint8
  epoch_W: np.ndarray | int  # of the source; read only where draws differ by epoch


@dataclasses.dataclass(frozen=True)
class Choice:
  """How sites are drawn, and how a language and a sense are chosen; see `LinkPolicy`.

  Attributes:
    doc_fraction: probability that a document is rewritten.
    probability: that an eligible word is replaced.
    senses: as in the policy.
    language_by: as in the policy.
    redraw: whether `draws` are asked for each epoch.
    draws: epoch → draws of the source.
  """

  doc_fraction: float
  probability: float
  senses: str
  language_by: str
  redraw: bool
  draws: Callable[[int], Draws]


@dataclasses.dataclass(frozen=True, eq=False)
class Spliced:
  """M new tokens. S sites were replaced.

  Attributes:
    tokens_M: int32.
    starts_M: bool, the first token of a document.
    place_N: where each old token went, and one more: the end. An old token inside a site went to the
      site's end.
    kind_W: what is known of each word, as bits.
    extent_W: words of the site that begins at each word; 0 inside one of several.
    word_S: the first word of each site.
    language_S: index of its language.
    begin_S, size_S: where in the new tokens its inserted ids are.
    labels_M: mode 'restore' only: what the token's place should have been predicted as.
    mask_M: mode 'restore' only: whether it is trained on.
  """

  tokens_M: np.ndarray
  starts_M: np.ndarray
  place_N: np.ndarray
  kind_W: np.ndarray
  extent_W: np.ndarray
  word_S: np.ndarray
  language_S: np.ndarray
  begin_S: np.ndarray
  size_S: np.ndarray
  labels_M: np.ndarray | None = None
  mask_M: np.ndarray | None = None


def splice(
  windows: Windows,
  table: LinkTable,
  choice: Choice,
  tail: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Spliced:
  """Replaces drawn sites by translations.

  Args:
    windows: tokens and word marks.
    table: translations as token ids.
    choice: which sites, languages and senses.
    tail: mode 'annotate' only: the ids of the closing bracket and the text that these ids are, which
      stand between a word and the next.

  Returns:
    The new tokens.

  Source: LINK, arXiv 2605.23885; what is the paper's and what is ours: `jaxlink.link.policy`.
  """
  w = windows
  run_W, head_U = _runs(w)
  rewritten_U = np.ones(len(head_U), bool)
  if choice.doc_fraction < 1:
    rewritten_U = _draw(w, choice, 'doc', head_U, 0) < choice.doc_fraction
  language_U = None
  if len(table.languages) > 1 and choice.language_by == 'per_document':
    u_U = _draw(w, choice, 'language', head_U, 0)
    language_U = (u_U * len(table.languages)).astype(np.int64)

  rewritten_W = rewritten_U[run_W]
  language_W = None if language_U is None else language_U[run_W]
  entry_W, extent_W, kind_W = _find(w, table, run_W, rewritten_W, language_W)
  site_S = np.flatnonzero(kind_W & ELIGIBLE)
  if choice.probability < 1:
    u_S = _draw(w, choice, 'word', site_S, w.index_W[site_S])
    site_S = site_S[u_S < choice.probability]
  entry_S, extent_S = entry_W[site_S], extent_W[site_S]

  if language_W is not None:
    language_S = language_W[site_S]
  elif len(table.languages) > 1:
    u_S = _draw(w, choice, 'language', site_S, w.index_W[site_S])
    language_S = senses.pick_language(table.count_EG[entry_S] > 0, u_S)
  else:
    language_S = np.zeros(len(site_S), np.int64)
  target_S = _pick_targets(w, table, choice, site_S, entry_S, language_S)

  kind_W[site_S] |= np.uint8(REPLACED)
  kind_W[site_S[table.flags_E[entry_S] & STOP > 0]] |= np.uint8(STOP_REPLACED)
  _mark_inside(kind_W, extent_W)
  column_S = target_S * VARIANTS + _variants(w.flags_W, site_S, extent_S)
  first_S = table.start_KV[column_S]
  size_S = table.start_KV[column_S + 1] - first_S
  begin_S, last_S = w.start_W[site_S], site_S + extent_S - 1
  end_S = w.start_W[last_S] + w.length_W[last_S]
  ids = table.ids
  if table.mode == 'annotate':
    begin_S, end_S, ids, first_S, size_S = _annotate(w, last_S, end_S, ids, first_S, size_S, tail)
  return _build(w, table.mode, begin_S, end_S, ids, first_S, size_S, kind_W, extent_W, site_S,
                language_S, rewritten_U, run_W)  # fmt: skip


def find(
  w: Windows, table: LinkTable, language: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Looks every word up as if all documents were rewritten, to one language or to any.

  Returns:
    The entry of each word, or -1; the words of the site that begins there, or 0 inside one; and what is
    known of it, as bits.
  """
  run_W, _ = _runs(w)
  all_W = np.ones(len(run_W), bool)
  language_W = None if language is None else np.full(len(run_W), language)
  entry_W, extent_W, kind_W = _find(w, table, run_W, all_W, language_W)
  _mark_inside(kind_W, extent_W)
  return entry_W, extent_W, kind_W


# ── finding ─────────────────────────────────────────────────────────────────────


def _runs(w: Windows) -> tuple[np.ndarray, np.ndarray]:
  """Runs of words of one document in one window: the run of each word, the first word of each run."""
  if not len(w.start_W):
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
  changes_W = np.empty(len(w.start_W), bool)
  changes_W[0] = True
  # A document that stands twice in a row has one key: its index starts again.
  changes_W[1:] = w.index_W[1:] != w.index_W[:-1] + 1
  changes_W[1:] |= w.document_W[1:] != w.document_W[:-1]
  firsts = np.searchsorted(w.start_W, w.first_R)
  changes_W[firsts[firsts < len(changes_W)]] = True
  return np.cumsum(changes_W) - 1, np.flatnonzero(changes_W)


def _draw(
  w: Windows, choice: Choice, stream: str, word_S: np.ndarray, k_S: np.ndarray | int
) -> np.ndarray:
  """Draws for the documents of some words, in their epochs."""
  document_S = w.document_W[word_S]
  if not choice.redraw or isinstance(w.epoch_W, int):
    epoch = w.epoch_W if choice.redraw else 0
    return choice.draws(epoch).uniform(stream, document_S, k_S)
  out_S = np.empty(len(word_S))
  epoch_S = w.epoch_W[word_S]
  for epoch in np.unique(epoch_S).tolist():
    at = epoch_S == epoch
    k = k_S[at] if isinstance(k_S, np.ndarray) else k_S
    out_S[at] = choice.draws(epoch).uniform(stream, document_S[at], k)
  return out_S


def _find(
  w: Windows,
  table: LinkTable,
  run_W: np.ndarray,
  rewritten_W: np.ndarray,
  language_W: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Looks words up: the entry of each, the words of the site that begins there, and its bits."""
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
  extent_W = np.ones(len(entry_W), np.int32)
  begins = np.flatnonzero(flags_W & BEGINS)
  if len(begins) and table.max_words > 1:
    _find_several(w, table, look_W, run_W, language_W, begins, entry_W, extent_W, kind_W)
  kind_W |= rewritten_W * np.uint8(REWRITTEN)
  return entry_W, extent_W, kind_W


def _find_several(
  w: Windows,
  table: LinkTable,
  look_W: np.ndarray,
  run_W: np.ndarray,
  language_W: np.ndarray | None,
  begins: np.ndarray,
  entry_W: np.ndarray,
  extent_W: np.ndarray,
  kind_W: np.ndarray,
) -> None:
  """Finds sources of several words, the longest from the left; changes the last three in place.

  `begins` are the words with which one may begin.
  """
  count = len(entry_W)

  def joined(at: np.ndarray) -> np.ndarray:
    """Whether words `at` and the next stand side by side, with a single space between them."""
    last = at >= count - 1
    at = np.where(last, 0, at)
    after = np.minimum(at + 1, count - 1)
    side_by_side = w.start_W[after] == w.start_W[at] + w.length_W[at]
    side_by_side &= (w.flags_W[after] & words.LEADING_SPACE > 0) & (run_W[after] == run_W[at])
    return side_by_side & look_W[after] & ~last

  at = begins[joined(begins)]
  hash_C = extend_hash(w.hash_W[at], w.hash_W[at + 1])
  keep = table.pairs[pair_bit(hash_C)]
  at, hash_C = at[keep], hash_C[keep]
  best, size = np.full(len(at), -1, np.int64), np.zeros(len(at), np.int64)
  alive = np.arange(len(at))
  for n in range(2, table.max_words + 1):
    if n > 2:
      alive = alive[joined(at[alive] + n - 2)]
      hash_C[alive] = extend_hash(hash_C[alive], w.hash_W[at[alive] + n - 1])
    if not len(alive):
      break
    found = table.find(hash_C[alive])
    ok = (found >= 0) & (table.words_E[found] == n)
    if language_W is not None:
      ok &= table.count_EG[found, language_W[at[alive]]] > 0
    best[alive[ok]], size[alive[ok]] = found[ok], n
  hit = size > 0
  end = 0
  for i, n, entry in zip(at[hit].tolist(), size[hit].tolist(), best[hit].tolist(), strict=True):
    if i >= end:
      end = i + n
      entry_W[i], extent_W[i], kind_W[i] = entry, n, table.flags_E[entry] & _OF_ENTRY
      extent_W[i + 1 : end], kind_W[i + 1 : end] = 0, 0


def _mark_inside(kind_W: np.ndarray, extent_W: np.ndarray) -> None:
  """Gives the words inside a site of several the bits of its first."""
  for i in np.flatnonzero(extent_W > 1).tolist():
    kind_W[i + 1 : i + extent_W[i]] = kind_W[i]


def settled(w: Windows, spliced: Spliced, table: LinkTable, row: int, start: int) -> bool:
  """Whether a window's words from token `start` on would be the same with more tokens before it.

  They are where a document starts in between, or a word from which on no source of several words that
  is out of sight can reach: `table.max_words` - 1 words after the first one seen, and inside no site.
  """
  begin = w.first_R[row]
  if w.starts_N[begin : start + 1].any():
    return True
  seen, here = np.searchsorted(w.start_W, (begin, start)).tolist()
  clear = seen + max(1, table.max_words - 1)
  return bool((spliced.extent_W[clear : here + 1] > 0).any()) or (
    clear <= here == len(spliced.extent_W)
  )


# ── choosing ────────────────────────────────────────────────────────────────────


def _pick_targets(
  w: Windows,
  table: LinkTable,
  choice: Choice,
  site_S: np.ndarray,
  entry_S: np.ndarray,
  language_S: np.ndarray,
) -> np.ndarray:
  target_S = table.first_EG[entry_S, language_S]
  if choice.senses == 'first':
    return target_S
  count_S = table.count_EG[entry_S, language_S]
  if choice.senses == 'per_document':
    k_S = table.sense_key_EG[entry_S, language_S]
  else:
    k_S = w.index_W[site_S]
  u_S = _draw(w, choice, 'sense', site_S, k_S)
  if choice.senses == 'weighted':
    return target_S + senses.pick_weighted(table.cumulative_K, target_S, count_S, u_S)
  return target_S + (u_S * count_S).astype(np.int64)


def _variants(flags_W: np.ndarray, site_S: np.ndarray, extent_S: np.ndarray) -> np.ndarray:
  """The variant of each site: upper if all its words are, else title if the first has a capital."""
  first_S = flags_W[site_S]
  upper_S = first_S & words.UPPER > 0
  for s in np.flatnonzero(upper_S & (extent_S > 1)).tolist():
    span = flags_W[site_S[s] : site_S[s] + extent_S[s]]
    upper_S[s] = (span & words.UPPER > 0).all()
  title_S = first_S & (words.TITLE | words.UPPER) > 0
  case_S = np.where(upper_S, 2, title_S)
  return variant(case_S, first_S & words.LEADING_SPACE > 0)


# ── building ────────────────────────────────────────────────────────────────────


def _annotate(
  w: Windows,
  last_S: np.ndarray,
  end_S: np.ndarray,
  ids: np.ndarray,
  first_S: np.ndarray,
  size_S: np.ndarray,
  tail: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Sites of annotations: the word stays, and what stands between it and the next word is retokenised.

  For the closing bracket joins it: `), ` may be one token.
  """
  ends = np.append(w.start_W, len(w.tokens_N))[last_S + 1]  # the next word, of any document
  stops = np.flatnonzero(w.starts_N)
  after = np.searchsorted(stops, end_S, side='right')  # at `end_S` it is of the next window
  closing = np.append(stops, len(w.tokens_N) + 1)[after] - 1  # EOS, which is no text
  windows = np.append(w.first_R[1:], len(w.tokens_N))
  ends = np.minimum(
    np.minimum(ends, closing), windows[np.searchsorted(windows, end_S, side='left')]
  )
  pieces, starts, sizes, at = [], [], [], 0
  for begin, end, first, size in zip(
    end_S.tolist(), ends.tolist(), first_S.tolist(), size_S.tolist(), strict=True
  ):
    piece = ids[first : first + size]
    closed = tail(w.tokens_N[begin:end])
    pieces += [piece, closed]
    starts.append(at)
    sizes.append(len(piece) + len(closed))
    at += sizes[-1]
  joined = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
  return end_S, ends, joined, np.array(starts, np.int64), np.array(sizes, np.int64)


def _ragged(start_S: np.ndarray, size_S: np.ndarray) -> np.ndarray:
  """start, start + 1, … of each site, size of them, one after another."""
  ends_S = np.cumsum(size_S)
  total = int(ends_S[-1]) if len(ends_S) else 0
  return np.arange(total) + np.repeat(start_S - (ends_S - size_S), size_S)


def _build(
  w: Windows,
  mode: str,
  begin_S: np.ndarray,
  end_S: np.ndarray,
  ids: np.ndarray,
  first_S: np.ndarray,
  size_S: np.ndarray,
  kind_W: np.ndarray,
  extent_W: np.ndarray,
  site_S: np.ndarray,
  language_S: np.ndarray,
  rewritten_U: np.ndarray,
  run_W: np.ndarray,
) -> Spliced:
  count = len(w.tokens_N)
  grown = np.zeros(count + 1, np.int64)
  grown[end_S] = size_S - (end_S - begin_S)
  place_N = np.arange(count + 1)
  place_N += np.cumsum(grown)
  out_end_S = place_N[end_S]
  out_begin_S = out_end_S - size_S
  removed = _ragged(begin_S, end_S - begin_S)
  kept = np.ones(count, bool)
  kept[removed] = False
  place_N[removed] = np.repeat(out_end_S, end_S - begin_S)
  tokens_M = np.empty(int(place_N[-1]), np.int32)
  inserted = _ragged(out_begin_S, size_S)
  tokens_M[place_N[:-1][kept]] = w.tokens_N[kept]
  tokens_M[inserted] = ids[_ragged(first_S, size_S)]
  starts_M = np.zeros(len(tokens_M), bool)
  starts_M[place_N[np.flatnonzero(w.starts_N)]] = True
  if mode != 'annotate':  # a window that begins at a site has all of it
    place_N[begin_S] = out_begin_S
  labels_M = mask_M = None
  if mode == 'restore':
    labels_M = tokens_M.copy()
    labels_M[out_begin_S] = w.tokens_N[begin_S]
    begins = w.starts_N.copy()
    begins[w.first_R] = True
    fragment_N = np.cumsum(begins) - 1
    rewritten_F = np.zeros(int(fragment_N[-1]) + 1 if count else 0, bool)
    rewritten_F[fragment_N[w.start_W]] = rewritten_U[run_W]
    mask_M = np.zeros(len(tokens_M), bool)
    mask_M[place_N[:-1][kept]] = ~rewritten_F[fragment_N[kept]]
    mask_M[out_begin_S] = True
  return Spliced(
    tokens_M, starts_M, place_N, kind_W, extent_W, site_S, language_S, out_begin_S, size_S,
    labels_M, mask_M,
  )  # fmt: skip
