"""Windows with LINK: sequences of a source whose words are substituted as they are read.

A sequence is T new tokens. Window n starts at source token floor(n·S), with S = T over the policy's
expected inflation, so that on the average one window ends where the next one starts. Each reads on until
its row is full: what lies between its end and the next start is skipped, or read twice; both are counted.
Shuffling, epochs and fragments are those of `windows`.

In: a cache, a link table, a policy, and how far the run is. Out: the arrays of `windows.fragments`, and
for each row the counts named in `counts_of`.

Easy to get wrong:
- S must not divide U: a window would end at the same places in every epoch, and what it skips there
  would never be read. U is therefore a whole number of windows and 0.382 of one.
- A row reads on past its source tokens, or not so far: what it holds is `linked_rows`' business.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from jaxlink.data import link_sample, linked_rows
from jaxlink.data.blocks import Blocks
from jaxlink.data.shuffle import order_key, permute
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.windows import fragments, order_name, stream_of
from jaxlink.link import sites
from jaxlink.link import splice as splice_lib
from jaxlink.link.policy import DOSE_FIELDS, LinkPolicy, probability
from jaxlink.link.table import LinkTable

# What is counted of each row beside the words of `Dose`, in source tokens but for the last:
TOKEN_FIELDS = (
  'tokens_read',  # from which the row was made
  'tokens_rewritten',  # those of them in rewritten documents
  'tokens_skipped',  # between its end and the start of the next window
  'tokens_reread',  # of it and of the next window
  'tokens_removed',  # that were replaced
  'tokens_inserted',  # new tokens in their places
)
_PHASE = Fraction(382, 1000)  # the golden section: no two of many epochs start alike


def counts_of(languages: Sequence[str]) -> tuple[str, ...]:
  """The names of the counts of a row; of several languages, replaced words of each too."""
  by_language = [f'replaced_{language}' for language in languages] if len(languages) > 1 else []
  return (*DOSE_FIELDS, *TOKEN_FIELDS, *by_language)


class LinkedWindows:
  """The sequences of one source with LINK; it stands in for `windows.Windows`.

  Attributes:
    blocks: the source.
    length: T, inputs to a sequence, in tokens.
    seed: the seed of the order.
    table: translations.
    policy: how they are used.
    stride: S, source tokens from one window to the next.
    order: changes with what decides where sequence i starts, see `windows.Windows`.
    tokenizer: of the source.
    sample: what replacing every eligible word does to a sample of the source.
    fingerprint: changes with everything that the rows depend on. Its leading number is the version of
      this module's arithmetic.
  """

  def __init__(
    self,
    blocks: Blocks,
    length: int,
    seed: int,
    *,
    table: LinkTable,
    policy: LinkPolicy,
    seed_link: int,
    stage_tokens: int,
    tokenizer: Tokenizer,
    source_counts: Mapping[str, int] | None = None,
  ):
    """Measures what the policy does to the source, and lays out its windows.

    Args:
      blocks: a source of at least one token.
      length: T, ≥ 1.
      seed: the seed of the order.
      table: built for the policy and the source's tokenizer.
      policy: checked.
      seed_link: the seed of the draws.
      stage_tokens: tokens of the stage, over which a schedule is averaged.
      tokenizer: the source's, for annotations.
      source_counts: 'words' and 'eligible' of the whole source; needed by `ratio_of='all'`.

    Raises:
      ValueError: `ratio_of='all'` without counts, or a ratio that the lexicon cannot reach.
    """
    self.blocks, self.length, self.seed = blocks, length, seed
    self.table, self.policy, self._seed_link = table, policy, seed_link
    self.tokenizer = tokenizer
    self._tails: dict[bytes, np.ndarray] = {}
    self.names = counts_of(table.languages)
    self._draws = functools.partial(policy.draws, seed_link, blocks.name)
    self._counts = (0, 0)  # words of the whole source, and eligible ones
    if policy.ratio_of == 'all':
      if source_counts is None:
        raise ValueError("ratio_of='all' needs the counts of the whole source.")
      self._counts = source_counts['words'], source_counts['eligible']
      _check_reach(policy, *self._counts)
    self.sample = link_sample.measure(self)
    self.stride = _stride(length, blocks.tokens, self.sample.growth * self._mean_dose(stage_tokens))
    self.stream = stream_of(blocks, self.stride)
    self.order = order_name(blocks, length, seed, self.stride)
    described = dataclasses.asdict(policy)
    for name in ('lexicon', 'stop_words', 'word_list'):
      del described[name]  # what they hold is in the table, whose name is its content's hash
    what = json.dumps(
      ['linked 2', blocks.name, blocks.fingerprint, length, seed, table.meta['digest'], described,
       seed_link, str(self.stride), self._counts],
      sort_keys=True,
    )  # fmt: skip
    self.fingerprint = hashlib.sha256(what.encode()).hexdigest()

  def __getstate__(self):
    return {**self.__dict__, '_tails': {}}

  def probability(self, tokens: int) -> float:
    """Of replacing an eligible word, after so many tokens of the stage."""
    return probability(self.policy.ratio_of, self.policy.at(tokens)[1], *self._counts)[0]

  def start(self, i: ArrayLike) -> np.ndarray:
    """Where sequences start: int64 of i's shape, token positions in the endless repetition."""
    i = np.asarray(i, np.int64)
    starts = [self.window_start(n) for n in self._numbers(i.ravel())]
    return np.array(starts, np.int64).reshape(i.shape)

  def window_start(self, n: int) -> int:
    """Where window n starts: floor(n·S)."""
    return n * self.stride.numerator // self.stride.denominator

  def first(self, epoch: int) -> int:
    """The first sequence of an epoch: the first window n with floor(n·S) at or after its first token."""
    return -(-epoch * self.blocks.tokens * self.stride.denominator // self.stride.numerator)

  def rows(self, i_B: ArrayLike, tokens: int = 0) -> dict[str, np.ndarray]:
    """Reads sequences.

    Args:
      i_B: which of the source's sequences, ≥ 0.
      tokens: of the stage, before the batch that they are in.

    Returns:
      The arrays of `windows.fragments`, each (B, T), and counts (B, `names`) int32.
    """
    rows = linked_rows.Rows(self, self._numbers(np.asarray(i_B, np.int64)), tokens)
    out = fragments(rows.tokens_BN, rows.begins_BN)
    if rows.labels_BN is not None:
      out['labels'] = rows.labels_BN[:, 1:]
      out['loss_mask'] &= rows.mask_BN[:, 1:]
    out['counts'] = rows.counts_BC
    return out

  def repetitions(self, i: int) -> Fraction:
    """How often the source has been passed after its first i sequences: i·S/U, exactly."""
    return i * self.stride / self.blocks.tokens

  def choice(self, tokens: int) -> splice_lib.Choice:
    """How sites are drawn after so many tokens of the stage."""
    policy = self.policy
    return splice_lib.Choice(
      policy.at(tokens)[0], self.probability(tokens), policy.senses, policy.language_by,
      policy.redraw, self._draws,
    )  # fmt: skip

  def read(self, spans: Sequence[tuple[int, int]]) -> tuple[sites.Windows, np.ndarray]:
    """Lays ranges of the endless repetition end to end, with the words that are whole in them.

    Args:
      spans: R ranges (start, length).

    Returns:
      The windows, and where in each the whole words end: its end, or the first token of a last word
      that runs over it.
    """
    first_R = np.cumsum([0, *(length for _, length in spans)])
    whole_R = first_R[1:].copy()
    tokens_N = np.empty(first_R[-1], np.int32)
    starts_N = np.empty(first_R[-1], bool)
    parts = []
    for r, (start, length) in enumerate(spans):
      here = slice(first_R[r], first_R[r + 1])
      tokens_N[here], starts_N[here] = self.blocks.read(start, length)
      words = self.blocks.read_words(start, length)
      if len(words.start) and words.start[-1] + words.length[-1] > length:
        whole_R[r] = first_R[r] + words.start[-1]
        words = words._make([*(column[:-1] for column in words[:5]), *words[5:]])
      parts.append(
        words._replace(start=words.start + first_R[r], fragment=words.fragment + first_R[r])
      )
    words = parts[0]._make(map(np.concatenate, zip(*parts, strict=True)))
    epoch = None
    if self.policy.redraw:
      row_F = np.searchsorted(first_R, words.fragment, side='right') - 1
      begin_R = np.array([start for start, _ in spans]) - first_R[:-1]
      epoch = (words.fragment + begin_R[row_F]) // self.blocks.tokens
    windows = sites.Windows(
      tokens_N, starts_N, first_R[:-1], words.start, words.length, words.hash, words.index,
      words.flags, words.fragment, words.document, epoch,
    )  # fmt: skip
    return windows, whole_R

  def tail(self, gap: np.ndarray) -> np.ndarray:
    """The ids of a closing bracket and the text that is between a word and the next."""
    known = self._tails.get(key := gap.tobytes())
    if known is None:
      tokenizer = self.tokenizer
      if tokenizer.unk_id is not None and (gap == tokenizer.unk_id).any():
        ids = [*tokenizer.encode_piece(')'), *gap.tolist()]  # what they were cannot be told
      else:
        ids = tokenizer.encode_piece(f'){tokenizer.decode_piece(gap.tolist())}')
      known = np.array(ids, np.int32)
      if len(gap) < 16 and len(self._tails) < 1 << 16:
        self._tails[key] = known
    return known

  def _numbers(self, i_B: np.ndarray) -> list[int]:
    """Which windows sequences are: those that start in an epoch, shuffled among themselves."""
    if i_B.size and i_B.min() < 0:
      raise ValueError(
        f"sequence {i_B.min()} of source '{self.blocks.name}': sequences are counted from 0."
      )
    epochs = [self.window_start(i) // self.blocks.tokens for i in i_B.tolist()]
    first_B = np.array([self.first(epoch) for epoch in epochs], np.int64)
    stop_B = np.array([self.first(epoch + 1) for epoch in epochs], np.int64)
    keys_B = order_key(self.seed, self.stream, np.array(epochs, np.int64))
    return (first_B + permute(i_B - first_B, stop_B - first_B, keys_B)).tolist()

  def _mean_dose(self, stage_tokens: int) -> Fraction:
    """The mean of the product of document fraction and probability over the stage."""
    if not self.policy.scheduled:
      return Fraction(self.policy.at(0)[0] * self.probability(0)).limit_denominator(10**6)
    steps = 1000
    at = [stage_tokens * (2 * k + 1) // (2 * steps) for k in range(steps)]
    doses = [self.policy.at(t)[0] * self.probability(t) for t in at]
    return Fraction(sum(doses) / steps).limit_denominator(10**6)


def _check_reach(policy: LinkPolicy, words: int, eligible: int) -> None:
  """Raises ValueError if a share of all words that the policy takes is more than are eligible."""
  curve = policy.word_ratio
  most = max(value for _, value in curve) if isinstance(curve, tuple) else curve
  if probability('all', most, words, eligible)[1]:
    raise ValueError(
      f"LinkPolicy.word_ratio is {most:g} of all words (ratio_of='all'): regime {policy.regime!r} can "
      f'replace at most {eligible / max(1, words):.4f} of them. Ask for that or less.'
    )


def _stride(length: int, tokens: int, growth: Fraction) -> Fraction:
  """S: T over the inflation, moved so that U is a whole number of windows and 0.382 of one.

  Without inflation it is T, and nothing is skipped that another epoch would have to find.
  """
  if not growth:
    return Fraction(length)
  stride = Fraction(length) / (1 + growth)
  windows = round(tokens / stride - _PHASE)
  return tokens / (windows + _PHASE) if windows >= 64 else stride
