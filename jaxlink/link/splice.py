"""LINK on tokens: drawn sites of token windows become the token ids of their translations.

In: the tokens of some windows laid end to end, the marks of their words, a `LinkTable`, and draws. Out:
the new tokens, where every old one went, and what was counted. Vectorised: no tokenizer, and no Python
loop over words; mode 'annotate' alone has one over its sites.

It equals `substitute` on the text, token for token: same draws, same sites (`sites`), and the ids that the
tokenizer gives to the substituted text cut at `Substituted.cuts`.

Easy to get wrong: where an old token went. One inside a site went to the site's end; the first one of a site
to its beginning, so that a window, or a document without BOS, that begins there has all of it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxlink.link import senses, sites, words
from jaxlink.link.draws import Draws
from jaxlink.link.table import ELIGIBLE, STOP, VARIANTS, LinkTable, variant

# Bits of a word beside those of `sites`.
REPLACED = 16
STOP_REPLACED = 32


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
    rewritten_F: whether the document of each fragment was drawn.
    word_S: the first word of each site.
    language_S: index of its language.
    begin_S, size_S: where in the new tokens its inserted ids are.
    reach_C: first word and end of each source of several words that stands in the text.
    labels_M: mode 'restore' only: what the token's place should have been predicted as.
    mask_M: mode 'restore' only: whether it is trained on.
  """

  tokens_M: np.ndarray
  starts_M: np.ndarray
  place_N: np.ndarray
  kind_W: np.ndarray
  extent_W: np.ndarray
  rewritten_F: np.ndarray
  word_S: np.ndarray
  language_S: np.ndarray
  begin_S: np.ndarray
  size_S: np.ndarray
  reach_C: np.ndarray
  labels_M: np.ndarray | None = None
  mask_M: np.ndarray | None = None


def splice(
  windows: sites.Windows,
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
  every_F = np.arange(len(w.fragment_F))
  rewritten_F = np.ones(len(every_F), bool)
  if choice.doc_fraction < 1:
    rewritten_F = _draw(w, choice, 'doc', every_F, 0) < choice.doc_fraction
  language_F = None
  if len(table.languages) > 1 and choice.language_by == 'per_document':
    u_F = _draw(w, choice, 'language', every_F, 0)
    language_F = (u_F * len(table.languages)).astype(np.int64)

  fragment_W = sites.fragments(w)
  language_W = None if language_F is None else language_F[fragment_W]
  found = sites.look_up(w, table, fragment_W, rewritten_F[fragment_W], language_W)
  entry_W, extent_W, kind_W = found.entry_W, found.extent_W, found.kind_W
  site_S = np.flatnonzero(kind_W & ELIGIBLE)
  if choice.probability < 1:
    u_S = _draw(w, choice, 'word', fragment_W[site_S], w.index_W[site_S])
    site_S = site_S[u_S < choice.probability]
  entry_S, extent_S = entry_W[site_S], extent_W[site_S]

  if language_W is not None:
    language_S = language_W[site_S]
  elif len(table.languages) > 1:
    u_S = _draw(w, choice, 'language', fragment_W[site_S], w.index_W[site_S])
    language_S = senses.pick_language(table.count_EG[entry_S] > 0, u_S)
  else:
    language_S = np.zeros(len(site_S), np.int64)
  target_S = _pick_targets(w, table, choice, fragment_W, site_S, entry_S, language_S)

  kind_W[site_S] |= np.uint8(REPLACED)
  kind_W[site_S[table.flags_E[entry_S] & STOP > 0]] |= np.uint8(STOP_REPLACED)
  sites.mark_inside(kind_W, extent_W)
  column_S = target_S * VARIANTS + _variants(w.flags_W, site_S, extent_S)
  first_S = table.start_KV[column_S]
  size_S = table.start_KV[column_S + 1] - first_S
  begin_S, last_S = w.start_W[site_S], site_S + extent_S - 1
  end_S = w.start_W[last_S] + w.length_W[last_S]
  ids = table.ids
  if table.mode == 'annotate':
    begin_S, end_S, ids, first_S, size_S = _annotate(w, last_S, end_S, ids, first_S, size_S, tail)
  tokens_M, starts_M, place_N, begin_M = _build(
    w, begin_S, end_S, ids, first_S, size_S, in_place=table.mode != 'annotate'
  )
  labels_M = mask_M = None
  if table.mode == 'restore':
    labels_M, mask_M = _ask_back(w, tokens_M, place_N, begin_S, begin_M, rewritten_F)
  return Spliced(
    tokens_M, starts_M, place_N, kind_W, extent_W, rewritten_F, site_S, language_S, begin_M, size_S,
    found.reach_C, labels_M, mask_M,
  )  # fmt: skip


def _draw(
  w: sites.Windows, choice: Choice, stream: str, fragment_S: np.ndarray, k_S: np.ndarray | int
) -> np.ndarray:
  """Draws for the documents of some fragments, in their epochs."""
  document_S = w.document_F[fragment_S]
  if not choice.redraw or w.epoch_F is None:
    return choice.draws(0).uniform(stream, document_S, k_S)
  out_S = np.empty(len(fragment_S))
  epoch_S = w.epoch_F[fragment_S]
  for epoch in np.unique(epoch_S).tolist():
    at = epoch_S == epoch
    k = k_S[at] if isinstance(k_S, np.ndarray) else k_S
    out_S[at] = choice.draws(epoch).uniform(stream, document_S[at], k)
  return out_S


# ── choosing ────────────────────────────────────────────────────────────────────


def _pick_targets(
  w: sites.Windows,
  table: LinkTable,
  choice: Choice,
  fragment_W: np.ndarray,
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
  u_S = _draw(w, choice, 'sense', fragment_W[site_S], k_S)
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
  w: sites.Windows,
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


def ragged(start_S: np.ndarray, size_S: np.ndarray) -> np.ndarray:
  """start, start + 1, … of each site, size of them, one after another."""
  ends_S = np.cumsum(size_S)
  total = int(ends_S[-1]) if len(ends_S) else 0
  return np.arange(total) + np.repeat(start_S - (ends_S - size_S), size_S)


def _build(
  w: sites.Windows,
  begin_S: np.ndarray,
  end_S: np.ndarray,
  ids: np.ndarray,
  first_S: np.ndarray,
  size_S: np.ndarray,
  in_place: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Puts `ids[first : first + size]` in the place of tokens [begin, end), at every site.

  `in_place` sites replace a word; others stand behind one, and belong to what is before them.

  Returns:
    The new tokens; which of them begin documents; where every old token went, those inside a site to its
    end; and where each site's ids begin.
  """
  count = len(w.tokens_N)
  grown = np.zeros(count + 1, np.int64)
  grown[end_S] = size_S - (end_S - begin_S)
  place_N = np.arange(count + 1)
  place_N += np.cumsum(grown)
  end_M = place_N[end_S]
  begin_M = end_M - size_S
  removed = ragged(begin_S, end_S - begin_S)
  kept = np.ones(count, bool)
  kept[removed] = False
  place_N[removed] = np.repeat(end_M, end_S - begin_S)
  tokens_M = np.empty(int(place_N[-1]), np.int32)
  tokens_M[place_N[:-1][kept]] = w.tokens_N[kept]
  tokens_M[ragged(begin_M, size_S)] = ids[ragged(first_S, size_S)]
  if in_place:  # what begins at a site, a window or a document without BOS, has all of it
    place_N[begin_S] = begin_M
  starts_M = np.zeros(len(tokens_M), bool)
  starts_M[place_N[:-1][w.starts_N]] = True
  return tokens_M, starts_M, place_N, begin_M


def _ask_back(
  w: sites.Windows,
  tokens_M: np.ndarray,
  place_N: np.ndarray,
  begin_S: np.ndarray,
  begin_M: np.ndarray,
  rewritten_F: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Labels and mask of mode 'restore': in rewritten documents, only the originals of sites are asked."""
  labels_M = tokens_M.copy()
  labels_M[begin_M] = w.tokens_N[begin_S]
  edges_M = np.append(place_N[w.fragment_F], len(tokens_M))
  mask_M = ~np.repeat(rewritten_F, np.diff(edges_M))
  mask_M[begin_M] = True
  return labels_M, mask_M
