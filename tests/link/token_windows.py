"""Documents as the engine reads them: their tokens laid end to end, with a mark for every word."""

from collections.abc import Sequence

import numpy as np

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import sites as sites_lib
from jaxlink.link.draws import key_of

BOS, EOS = 2, 1


def windows_of(texts: Sequence[str], tokenizer: Tokenizer) -> sites_lib.Windows:
  """One window of all texts, each `BOS tokens EOS` (or no BOS where there is none), and one token more."""
  before = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  at = 0
  parts = []
  for text in texts:
    marked = tokenizer.encode_marked(text)
    tokens = np.concatenate([before, marked.ids, [tokenizer.eos_id]]).astype(np.int32)
    starts = np.zeros(len(tokens), bool)
    starts[0] = True
    first, length, flags, type_ = marked.words.T.astype(np.int64)
    hashes = np.array([key_of(key) for key in marked.types], np.uint64)
    parts.append(
      (tokens, starts, first + at + len(before), length, hashes[type_], np.arange(len(first)),
       flags.astype(np.uint8), np.array([at]), np.array([key_of(text)], np.uint64))
    )  # fmt: skip
    at += len(tokens)
  columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
  tokens = np.append(columns[0], np.int32([*before, tokenizer.eos_id][0]))
  starts = np.append(columns[1], True)
  columns[-2] = np.append(columns[-2], at)
  columns[-1] = np.append(columns[-1], np.uint64(0))
  return sites_lib.Windows(tokens, starts, np.zeros(1, np.int64), *columns[2:])


def tail_of(tokenizer: Tokenizer):
  """What `splice` asks in mode 'annotate'."""
  return lambda gap: np.array(
    tokenizer.encode_piece(')' + tokenizer.decode_piece(gap.tolist())), np.int32
  )
