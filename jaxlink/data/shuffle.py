"""The order of a source: a keyed permutation of [0, n) that is computed, not stored.

In: indices, the number n of things to order, and a 64-bit key made of (seed, stream, epoch).
Out: where each index goes. Any element of any order is had in constant time, on any host, without
a table and without a generator that remembers: a run resumes at step 10**9 as fast as at step 0.

Why a block cipher and not the cheaper affine map i -> (a*i + b) mod n: an affine order is a lattice.
Neighbours stay at one fixed distance for the whole epoch, so whatever structure a corpus has along
its length comes back as a beat in the batches. Marin's 32B run was shuffled that way, saw its loss
shift in phase as unshuffled data would make it, and went on with a Feistel cipher
(marin-community/marin, pull requests 1685 and 1800, issue 1803).

Easy to get wrong: the round value must be brought into the half's range *before* it is added.
(left + f) mod 2**64 mod a is not a permutation unless a is a power of two.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike

# Even, both digits are pushed equally often. Four make a strong pseudo-random permutation (Luby and
# Rackoff 1988) for large n; a source of ten windows has digits of two bits, where more are needed: with
# eight its places and pairs of places are even, and each of the 720 orders of six windows comes, 0.34
# times (one standard deviation) more or less often than chance has it.
_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the step of splitmix64


def order_key(seed: int, stream: str, epoch: ArrayLike) -> np.ndarray:
  """Hashes (seed, stream, epoch) to the key of one order.

  Args:
    seed: the run's seed for orders; adjacent seeds give unrelated keys.
    stream: what is being ordered, normally the name of the source.
    epoch: an integer or an array of integers, ≥ 0: each epoch has an order of its own.

  Returns:
    uint64 of epoch's shape.
  """
  digest = hashlib.blake2b(f'{seed}/{stream}'.encode(), digest_size=8).digest()
  base = np.uint64(int.from_bytes(digest, 'little'))
  return _splitmix(base, np.asarray(epoch, np.uint64))


def permute(index: ArrayLike, size: ArrayLike, key: ArrayLike) -> np.ndarray:
  """Moves indices by the permutation of [0, size) that the key names.

  A Feistel network over Z_a x Z_b with a about b about sqrt(size) and a*b ≥ size; what falls on
  [size, a*b) walks on along its cycle until it is inside, which leaves a permutation of [0, size).
  Fewer than one index in sqrt(size) walks at all.

  Args:
    index: integers in [0, size).
    size: how many things are ordered, 1 to 2**62; one number, or one for each index.
    key: from `order_key`; one, or one for each index. Sizes and keys may differ along the array,
      as they do in a batch that begins in one epoch and ends in the next.

  Returns:
    int64, of the shape that the three broadcast to.

  Raises:
    ValueError: an index lies outside [0, size).

  Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains (CT-RSA 2002), methods 2 and 3.
  """
  index, size, key = np.broadcast_arrays(index, size, key)
  if index.size and not ((index >= 0) & (index < size)).all():
    wrong = np.flatnonzero((index < 0) | (index >= size))[0]
    raise ValueError(
      f'permute: index {index.flat[wrong]} is outside [0, {size.flat[wrong]}), the things to order.'
    )
  shape = index.shape
  index, size, key = (x.astype(np.uint64).ravel() for x in (index, size, key))
  # The root may be off by one in the last bit; a*b ≥ size holds for any a. IEEE 754 rounds square
  # roots correctly, so every machine finds the same a.
  a = np.ceil(np.sqrt(size.astype(np.float64))).astype(np.uint64)
  b = -(-size.astype(np.int64) // a.astype(np.int64)).astype(np.uint64)

  moved = _encrypt(index, a, b, key)
  walking = np.flatnonzero(moved >= size)
  while walking.size:
    moved[walking] = _encrypt(moved[walking], a[walking], b[walking], key[walking])
    walking = walking[moved[walking] >= size[walking]]
  return moved.astype(np.int64).reshape(shape)


def _encrypt(x_N: np.ndarray, a_N: np.ndarray, b_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
  """A permutation of [0, a*b): the two digits of x in base b push one another in turn."""
  left, right = x_N // b_N, x_N % b_N
  for i in range(0, _ROUNDS, 2):
    left = (left + _below(a_N, key_N, right, i)) % a_N
    right = (right + _below(b_N, key_N, left, i + 1)) % b_N
  return left * b_N + right


def _below(limit_N, key_N, half_N, i: int) -> np.ndarray:
  """A number in [0, limit) hashed from (key, half, round): the top 32 bits, scaled (Lemire 2019)."""
  hashed = _splitmix(key_N, half_N * np.uint64(_ROUNDS) + np.uint64(i))
  return ((hashed >> np.uint64(32)) * limit_N) >> np.uint64(32)


def _splitmix(state, n) -> np.ndarray:
  """Output number n of the splitmix64 generator at `state`, by random access (Steele et al. 2014)."""
  with np.errstate(over='ignore'):  # arithmetic modulo 2**64 is what is meant
    z = state + (n + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
