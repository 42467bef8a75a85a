"""Bits per byte on held-out text: comparable across tokenizers and languages.

Each document is cut into windows of T tokens that do not overlap; a window is [BOS, x₁ … x_{T−1}] with
labels [x₁ … x_T], so that every token of the text is scored once and the first of each window given BOS.
Windows of short documents share a row (as segments), which changes no score. The sum of nll / ln 2 is
divided by the bytes of the original text.

Easy to get wrong: the divisor. It is the UTF-8 size of the text, not the number of tokens, and EOS,
which is no part of the text, is not scored.
"""

import dataclasses
import lzma
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxlink import metrics
from jaxlink.data.blocks import Blocks

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """The held-out text of one task as batches, the last one filled up with padding.

  Attributes:
    bytes: of the text.
    tokens: that are scored.
    batches: arrays as a training batch has them; `source` is 0.
  """

  bytes: int
  tokens: int
  batches: list[Batch]


def read_held_out(blocks: Blocks, *, length: int, batch: int) -> HeldOut:
  """Cuts a cache's documents into windows and packs them into rows of T.

  Args:
    blocks: cache of a held-out split.
    length: T.
    batch: B, rows in a batch.
  """
  tokenizer = blocks.manifest['tokenizer']
  rows = list(_rows(_documents(blocks, tokenizer), length, opening(tokenizer)))
  empty = {name: np.zeros_like(array) for name, array in rows[0].items()}
  rows += [empty] * (-len(rows) % batch)
  batches = []
  for first in range(0, len(rows), batch):
    part = rows[first : first + batch]
    batches.append({name: np.stack([row[name] for row in part]) for name in part[0]})
  scored = sum(int(b['loss_mask'].sum()) for b in batches)
  return HeldOut(blocks.manifest['bytes'], scored, batches)


def opening(tokenizer: Mapping[str, Any]) -> int:
  """The id that a text begins with: BOS, or what stands between documents without one, EOS."""
  return tokenizer['eos'] if tokenizer['bos'] is None else tokenizer['bos']


def bits_per_byte(
  held_out: HeldOut,
  score: Callable[[Batch], Mapping[str, jax.Array]],
  stopped: Callable[[], bool] = lambda: False,
) -> float | None:
  """Scores held-out text.

  Args:
    held_out: the text.
    score: gives `nll` of each row of a batch, in nats, as `jaxlink.step.make_eval_step` does.
    stopped: asked before each batch; once it is true, the evaluation is given up.

  Returns:
    Bits per byte, or None where it was given up.
  """
  sums = []
  for batch in held_out.batches:
    if stopped():
      return None
    sums.append(score(batch)['nll'])
  nats = sum(float(np.sum(nll, dtype=np.float64)) for nll in metrics.fetch(sums))
  return nats / math.log(2) / held_out.bytes


def _documents(blocks: Blocks, tokenizer: Mapping[str, Any]) -> Iterator[np.ndarray]:
  """Yields the tokens of each document, without BOS and EOS."""
  tokens, starts = blocks.read(0, blocks.tokens)
  first = int(tokenizer['bos'] is not None)
  for document in np.split(tokens, np.flatnonzero(starts)[1:]):
    yield document[first:-1] if document[-1] == tokenizer['eos'] else document[first:]


def _rows(documents: Iterator[np.ndarray], length: int, bos: int) -> Iterator[Batch]:
  """Fills rows of T with windows in their order; a window never runs on into the next row."""
  row, used, segment = _empty_row(length), 0, 0
  for document in documents:
    for first in range(0, len(document), length):
      window = document[first : first + length]
      count = len(window)
      if used + count > length:
        yield row
        row, used, segment = _empty_row(length), 0, 0
      here = slice(used, used + count)
      segment += 1
      row['tokens'][here] = [bos, *window[:-1]]
      row['labels'][here] = window
      row['loss_mask'][here] = True
      row['segments'][here] = segment
      row['positions'][here] = np.arange(count)
      used += count
  if used:
    yield row


def _empty_row(length: int) -> Batch:
  row: Batch = {
    k: np.zeros(length, np.int32) for k in ('tokens', 'labels', 'segments', 'positions')
  }
  return {**row, 'loss_mask': np.zeros(length, bool), 'source': np.zeros((), np.int32)}


def xz_bits_per_byte(blocks: Blocks, decode: Callable[[np.ndarray], str]) -> float:
  """Returns what `xz -9e` needs for the held-out text alone: a floor that a model should get under.

  The text is the cache's: documents in the cache's order, which is not the file's, and a compressor
  that is given them in another order needs a little more or less.

  Args:
    blocks: cache of the held-out text.
    decode: of its tokenizer.
  """
  text = '\n'.join(decode(d) for d in _documents(blocks, blocks.manifest['tokenizer'])).encode()
  return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
