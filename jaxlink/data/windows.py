"""Windows: the sequences of one source, as arithmetic on token positions.

A source is an endless repetition of its U tokens. Window n starts at token origin + n*T. In: the
number i of a sequence (the i-th that the source gives to the run). Out: the window that it is, and
the arrays that a model trains on.

Stated here and nowhere else: a window reads T + 1 tokens. Its inputs are the first T, its labels
the last T, so the label of its last input is the first input of the next window: every token of the
source is a label exactly as often as it is an input, and no token is lost between windows. A label
that is the first token of another document is masked: nothing before it predicts it.

The order: windows that start in epoch e (from the origin's first token on, U tokens to an epoch)
are shuffled among themselves, each epoch anew, and a window may run on into the next epoch. So
after E epochs every position has been an input E times, and fewer than T of them E + 1 times.

Easy to get wrong: the number of windows in an epoch is not constant. It is ceil((e+1)*U/T) -
ceil(e*U/T), which alternates between two values, one of them 0 where T > U. Rounding it once and
multiplying drops or repeats tokens.
"""

import hashlib
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from jaxlink.data.shuffle import order_key, permute


class Blocks(Protocol):
  """What windows ask of a cache opened for reading."""

  name: str
  tokens: int
  fingerprint: str

  def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [start, start + length) of the endless repetition, int32, and where documents start."""


class Windows:
  """The sequences of one source that is read as it is.

  Attributes:
    blocks: the source.
    length: T, inputs to a sequence, in tokens.
    seed: the seed of the order.
    origin: the token at which window 0 starts.
    stride: S, source tokens from one window to the next: T.
    order: changes with what decides where sequence i starts; where it is the same in two stages of a
      run, the second goes on in the order of the first.
    fingerprint: changes with the source's content and with every number above. Its leading 2 is the
      version of this module's arithmetic: another order under the same numbers needs another.
  """

  def __init__(self, blocks: Blocks, length: int, seed: int, origin: int = 0):
    """Checks the source and the numbers.

    Args:
      blocks: a source of at least one token whose first token starts a document.
      length: T, ≥ 1; may exceed the source's tokens.
      seed: the seed of the order; the source's name is hashed in, so sources may share it.
      origin: ≥ 0, in tokens. Another origin moves every window's edge and with it every fragment.

    Raises:
      ValueError: a number is out of range, or the source does not start with a document.
    """
    for name, value, least in (('length', length, 1), ('origin', origin, 0)):
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
          f"Windows.{name} of source '{blocks.name}' is {value!r}: it is a whole number of tokens, "
          f'at least {least}.'
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
      raise ValueError(f"Windows.seed of source '{blocks.name}' is {seed!r}: it is an integer.")
    if blocks.tokens < 1:
      raise ValueError(f"source '{blocks.name}' has {blocks.tokens} tokens: at least 1 is needed.")
    if not blocks.read(0, 1)[1][0]:
      raise ValueError(
        f"source '{blocks.name}' does not start with the first token of a document: its last "
        'document would run on into its first wherever the source repeats.'
      )
    self.blocks, self.length, self.seed, self.origin = blocks, length, seed, origin
    self.stride = Fraction(length)
    self.stream = stream_of(blocks, self.stride)
    what = f'windows 2/{blocks.name}/{blocks.fingerprint}/{length}/{seed}/{origin}'
    self.fingerprint = hashlib.sha256(what.encode()).hexdigest()
    self.order = order_name(blocks, length, seed, self.stride, origin)

  def start(self, i: ArrayLike) -> np.ndarray:
    """Where sequences start.

    Args:
      i: which of the source's sequences, ≥ 0; an integer or an array.

    Returns:
      int64 of i's shape: token positions in the endless repetition, counted from token 0 of its
      first pass (so ≥ origin, and beyond the source's tokens from the second pass on).
    """
    i = np.asarray(i, np.int64)
    if i.size and i.min() < 0:
      raise ValueError(
        f"sequence {i.min()} of source '{self.blocks.name}': sequences are counted from 0."
      )
    length, tokens = self.length, self.blocks.tokens
    epoch = i * length // tokens  # of window i, and so of the i-th in order: epochs come in order
    first = self.first(epoch)
    count = self.first(epoch + 1) - first
    n = first + permute(i - first, count, order_key(self.seed, self.stream, epoch))
    return self.origin + n * length

  def first(self, epoch: ArrayLike) -> ArrayLike:
    """The first sequence of an epoch, or of each of an array: the first window that starts in it."""
    return -(-epoch * self.blocks.tokens // self.length)

  def row(self, i: int) -> dict[str, np.ndarray]:
    """Sequence i alone: `rows` without the leading axis, arrays of shape T."""
    return {name: array[0] for name, array in self.rows([i]).items()}

  def rows(self, i_B: ArrayLike, tokens: int = 0) -> dict[str, np.ndarray]:
    """Reads sequences.

    Args:
      i_B: which of the source's sequences, ≥ 0.
      tokens: of the stage, before them; nothing here depends on it.

    Returns:
      tokens, labels, segments, positions int32 and loss_mask bool, each (B, T); see `fragments`.
    """
    del tokens
    starts = self.start(i_B)
    tokens_BN = np.empty((len(starts), self.length + 1), np.int32)
    begins_BN = np.empty(tokens_BN.shape, bool)
    for b, start in enumerate(starts.tolist()):
      tokens_BN[b], begins_BN[b] = self.blocks.read(start, self.length + 1)
    return fragments(tokens_BN, begins_BN)

  def repetitions(self, i: int) -> Fraction:
    """How often the source has been read after its first i sequences: i*T/U, exactly."""
    return Fraction(i * self.length, self.blocks.tokens)


def stream_of(blocks: Blocks, stride: Fraction) -> str:
  """What a source's orders are keyed by: windows of another size have orders of their own."""
  return f'{blocks.name}/{stride}'


def order_name(blocks: Blocks, length: int, seed: int, stride: Fraction, origin: int = 0) -> str:
  """A hash of all that decides where sequences of a source start."""
  what = f'order 2/{blocks.name}/{blocks.fingerprint}/{length}/{seed}/{stride}/{origin}'
  return hashlib.sha256(what.encode()).hexdigest()


def fragments(tokens_BN: np.ndarray, begins_BN: np.ndarray) -> dict[str, np.ndarray]:
  """Cuts windows at document starts into what a model trains on.

  Args:
    tokens_BN: int32, N = T + 1 tokens to a window.
    begins_BN: bool, True at the first token of a document.

  Returns:
    tokens (B, T) int32: the inputs.
    labels (B, T) int32: the token after each input.
    loss_mask (B, T) bool: False where the label is the first token of another document.
    segments (B, T) int32: 1, 2, ... in a row, one number to a fragment.
    positions (B, T) int32: counted from each fragment's first token; a document that was cut by
      the window's edge counts from the edge.
  """
  cuts_BT = begins_BN[:, :-1].copy()
  cuts_BT[:, 0] = True
  place_T = np.arange(cuts_BT.shape[1], dtype=np.int32)
  since_BT = np.maximum.accumulate(np.where(cuts_BT, place_T, np.int32(0)), axis=1)
  return {
    'tokens': tokens_BN[:, :-1],
    'labels': tokens_BN[:, 1:],
    'loss_mask': ~begins_BN[:, 1:],
    'segments': np.cumsum(cuts_BT, axis=1, dtype=np.int32),
    'positions': place_T - since_BT,
  }
