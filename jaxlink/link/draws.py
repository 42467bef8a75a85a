"""The one source of chance in LINK: numbers in [0, 1) that depend on their name and nothing else.

In: what is drawn for (seed, source, epoch, stream, document, k). Out: float64 with 53 random bits.
The reference draws for the words of one document, the load-time engine for many documents at once:
both get the same numbers, on any host, in any order, because there is no state to have a history.

Easy to get wrong: `document` and `k` are 64-bit integers, and int64 and uint64 arrays of the same
bits draw the same. A string becomes one with `key_of`, never with `hash`, which differs by process.

Source: splitmix64, Steele, Lea and Flood 2014, with Stafford's mixer 13 as its finaliser.
"""

import dataclasses
import functools
import hashlib
import operator

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: the step between neighbours
_MULTIPLY_1 = 0xBF58476D1CE4E5B9
_MULTIPLY_2 = 0x94D049BB133111EB


def key_of(text: str) -> int:
  """Returns the 64-bit key of a string (BLAKE2b, 8 bytes, big-endian, of its UTF-8)."""
  # 'surrogatepass': text from JSON may hold lone surrogates, and a key must not fail on them.
  digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
  return int.from_bytes(digest, 'big')


@dataclasses.dataclass(frozen=True)
class Draws:
  """Draws of one source in one epoch.

  Attributes:
    seed: LINK's own seed, not that of initialisation or order.
    source: name of the source of text.
    epoch: 0 for a rewriting that is fixed for the run.

  Raises:
    TypeError: `seed` or `epoch` is no int, or `source` no string.
    ValueError: `epoch` is negative.
  """

  seed: int
  source: str
  epoch: int = 0

  key_of = staticmethod(key_of)

  def __post_init__(self):
    for name, kind in (('seed', int), ('source', str), ('epoch', int)):
      value = getattr(self, name)
      if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f'Draws.{name} is {value!r}: it is of type {kind.__name__}.')
    if self.epoch < 0:
      raise ValueError(f'Draws.epoch is {self.epoch}: it is 0 or more.')

  def uniform(
    self, stream: str, document: int | np.ndarray, k: int | np.ndarray
  ) -> float | np.ndarray:
    """Draws numbers in [0, 1).

    Args:
      stream: what the number is for; streams are independent of each other.
      document: 64-bit key of the document, or an array of them.
      k: which draw of the document (a word's index, a key), or an array. Arrays broadcast.

    Returns:
      A float for two ints, else a float64 array of the broadcast shape.

    Raises:
      TypeError: `document` or `k` holds something other than integers.
    """
    start = _base(self.seed, self.source, self.epoch, stream)
    bits = _advance(_advance(start, _integers(document, 'document')), _integers(k, 'k'))
    return (bits >> 11) * 2.0**-53


@functools.lru_cache(maxsize=4096)
def _base(seed: int, source: str, epoch: int, stream: str) -> int:
  return key_of(repr((seed, source, epoch, stream)))


def _integers(value: int | np.ndarray, name: str) -> int | np.ndarray:
  """An int, or a new uint64 array of at least one axis."""
  if isinstance(value, np.ndarray) and value.ndim:
    if value.dtype.kind not in 'iu':
      raise TypeError(f'Draws.uniform: {name} has dtype {value.dtype}: it holds 64-bit integers.')
    return value.astype(np.uint64)
  try:
    return operator.index(value)
  except TypeError:
    raise TypeError(f'Draws.uniform: {name} is {value!r}: it is an int or an array.') from None


def _advance(start: int | np.ndarray, index: int | np.ndarray) -> int | np.ndarray:
  """mix(start + (index + 1) * golden) modulo 2^64, of ints or elementwise of uint64 arrays."""
  if isinstance(start, int) and isinstance(index, int):
    x = (start + (index + 1) * _GOLDEN) & _MASK
    x = (x ^ (x >> 30)) * _MULTIPLY_1 & _MASK
    x = (x ^ (x >> 27)) * _MULTIPLY_2 & _MASK
    return x ^ (x >> 31)
  # Python ints, since NumPy warns of overflow in scalars but not in arrays.
  if isinstance(index, int):
    x = start + np.uint64((index + 1) * _GOLDEN & _MASK)
  else:
    index += np.uint64(1)
    index *= np.uint64(_GOLDEN)
    x = index + (np.uint64(start) if isinstance(start, int) else start)
  x ^= x >> np.uint64(30)
  x *= np.uint64(_MULTIPLY_1)
  x ^= x >> np.uint64(27)
  x *= np.uint64(_MULTIPLY_2)
  x ^= x >> np.uint64(31)
  return x
