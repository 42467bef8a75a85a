"""Documents as the engine reads them: their tokens laid end to end, with a mark for every word."""

from collections.abc import Sequence

import numpy as np

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import splice
from jaxlink.link.draws import key_of

BOS, EOS = 2, 1


def windows_of(texts: Sequence[str], tokenizer: Tokenizer) -> splice.Windows:
  """One window of all texts, each `BOS tokens EOS`, and the BOS of one more."""
  at = 0
  parts = []
  for text in texts:
    marked = tokenizer.encode_marked(text)
    tokens = np.concatenate([[BOS], marked.ids, [EOS]]).astype(np.int32)
    starts = np.zeros(len(tokens), bool)
    starts[0] = True
    first, length, flags, type_ = marked.words.T.astype(np.int64)
    hashes = np.array([key_of(key) for key in marked.types], np.uint64)
    parts.append(
      (tokens, starts, first + at + 1, length, hashes[type_], np.arange(len(first)),
       np.full(len(first), key_of(text), np.uint64), flags.astype(np.uint8))
    )  # fmt: skip
    at += len(tokens)
  columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
  tokens = np.append(columns[0], np.int32(BOS))
  starts = np.append(columns[1], True)
  return splice.Windows(tokens, starts, np.zeros(1, np.int64), *columns[2:], 0)


def tail_of(tokenizer: Tokenizer):
  """What `splice` asks in mode 'annotate'."""
  return lambda gap: np.array(
    tokenizer.encode_piece(')' + tokenizer.decode_piece(gap.tolist())), np.int32
  )
