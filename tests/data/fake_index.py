"""A cache of any size without files: its manifest is made up, its records are computed when they are read."""

import json
import os

import numpy as np

from jaxlink.data import blocks as blocks_lib
from jaxlink.link.draws import key_of

TYPES = ('dog', 'house', 'of', 'city', 'free', 'unknown', 'words', 'the')
_HASHES = np.array([key_of(text) for text in TYPES], np.uint64)


class FakeIndex(blocks_lib.Blocks):
  """Blocks of which each is one document: a word of two tokens, a token that is none, and so on.

  Attributes:
    records: how many were read.
  """

  def __init__(self, folder: str, name: str, tokens: int, *, block: int = 4096, shards: int = 1000):
    """Writes the manifest into a folder, and opens it.

    Args:
      folder: made if it is not there.
      name: of the source.
      tokens: of the source; `shards` divides them.
      block: tokens to a block.
      shards: files that there would be.
    """
    assert tokens % shards == 0
    manifest = {
      'format': blocks_lib.FORMAT, 'task': name, 'fingerprint': f'{name} {tokens}', 'block': block,
      'shards': [{'shard': s, 'tokens': tokens // shards} for s in range(shards)],
      'tokenizer': {'size': 8000},
    }  # fmt: skip
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, blocks_lib.MANIFEST), 'w', encoding='utf-8') as file:
      json.dump(manifest, file)
    super().__init__(folder)
    self.records = 0

  def _record(self, kind: str, shard: int, block: int) -> bytes:
    self.records += 1
    of_shard = self.manifest['shards'][shard]['tokens']
    length = min(self.block, of_shard - block * self.block)
    assert length > 0, 'a block that the shard does not have'
    if kind == 'tokens':
      first = shard * of_shard + block * self.block
      ids = ((first + np.arange(length)) % 7993).astype('<u2')
      return np.array([length, 1, 0], '<u4').tobytes() + ids.tobytes()
    start = np.arange(0, length - 2, 3)
    key = np.uint64(shard * 10**6 + block)
    count = len(start)
    return b''.join([
      np.array([count, 1], '<u4').tobytes(),
      np.array([0, 0], '<u8').tobytes(),
      np.array([key], '<u8').tobytes(),
      _HASHES[(start + block) % len(TYPES)].astype('<u8').tobytes(),
      np.array([0], '<u4').tobytes(),
      start.astype('<u4').tobytes(),
      np.full(count, 2, '<u2').tobytes(),
      np.ones(count, 'u1').tobytes(),
    ])  # fmt: skip
