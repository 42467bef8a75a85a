"""A source held in memory, for tests: what windows and the loader ask of a cache."""

import hashlib

import numpy as np

BOS, EOS, FIRST_BYTE = 1, 2, 3


class MemoryBlocks:
  """Documents as bytes of UTF-8 between BOS and EOS."""

  def __init__(self, name: str, texts: list[str]):
    documents = [[BOS, *(FIRST_BYTE + byte for byte in t.encode()), EOS] for t in texts]
    self.name = name
    self.all_tokens = np.array([token for d in documents for token in d], np.int32)
    self.all_starts = self.all_tokens == BOS
    self.tokens = len(self.all_tokens)
    self.fingerprint = hashlib.sha256(self.all_tokens.tobytes()).hexdigest()

  def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    assert start >= 0
    at = (start + np.arange(length)) % self.tokens
    return self.all_tokens[at], self.all_starts[at]


PROVERBS = [
  'Haraka haraka haina baraka.',
  'Damlaya damlaya göl olur.',
  'Mtaka cha mvunguni sharti ainame.',
  'Bir elin nesi var, iki elin sesi var.',
  'Asiyefunzwa na mamaye hufunzwa na ulimwengu.',
  'Sakla samanı, gelir zamanı.',
  'Haba na haba hujaza kibaba.',
]


def corpus(name: str, documents: int, seed: int) -> MemoryBlocks:
  """Documents of 1 to 12 proverbs each."""
  rng = np.random.default_rng(seed)
  return MemoryBlocks(
    name, [' '.join(rng.choice(PROVERBS, rng.integers(1, 13))) for _ in range(documents)]
  )
