"""The mixture: which source gives each sequence of a run, in exact rational shares.

In: names and rates. Out: for the run's sequence g (0, 1, 2, ... over all batches) its source, and
which of that source's sequences it is; and how many each source gave to the first g. Everything is
random access: no count is carried along, so any host computes any batch of any step by itself.

How close the realised shares are, at every prefix of the run and for every source:

Less than 1 sequence off, where the shares' common denominator is at most 65,536. One period is
tabulated by earliest deadline first: the j-th sequence of a source with share p must come in slots
[floor(j/p), ceil((j+1)/p)) for the source to stay within 1 of p*t. That all sources can meet all
deadlines is Tijdeman's theorem (The chairman assignment problem, Discrete Mathematics 32, 1980);
that taking the earliest deadline then meets them is classical for unit jobs.

Less than 2 sequences off, otherwise. A binary tree of sources hands every node's sequences on: of
the first n, round(p*n) go left and the others right, p being left's share of the node. Either child
is then at most 1/2 off its share of the node, and inherits p times what the node is off. The tree
is built so that a child with children of its own has at most 2/3 of its parent: a node is less than
1/2 * (1 + 2/3 + 4/9 + ...) = 3/2 off, and a leaf, whatever its p, less than 1/2 + 3/2. (Measured
with 100 sources of random shares: 1.06.)
(Blocks of 1,024 whose ends hold floor(C_i*t) - floor(C_{i-1}*t), C the cumulative shares, would be
the obvious thing. A source with a share under 1/1,024 then has blocks that hold -1 of it.)

Easy to get wrong: any float on the way. 0.3 is 3/10 here and 0.1 + 0.2 is not asked for; all
arithmetic is on integers and Fractions.
"""

import abc
import functools
import heapq
import json
import math
import numbers
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

_LARGEST_PERIOD = 65_536
BLOCK = 1_024


def exact(number: object) -> Fraction:
  """Reads a number exactly.

  Args:
    number: an int, a Fraction, a float (read by its shortest decimal: 0.3 is 3/10), or a string such
      as '1/3' or '0.25', the way to write a third in gin.

  Raises:
    ValueError: it is no number, or not finite.
  """
  if isinstance(number, numbers.Rational) and not isinstance(number, bool):
    return Fraction(int(number.numerator), int(number.denominator))
  if isinstance(number, str | float | np.floating):
    try:
      return Fraction(str(number))
    except (ValueError, ZeroDivisionError):
      pass
  raise ValueError(f"{number!r} is no number and no string such as '1/3'.")


def parse_rate(rate: object, name: str) -> Fraction:
  """Reads one rate exactly.

  Args:
    rate: a number as `exact` reads it.
    name: the source, for the error.

  Returns:
    The rate, > 0.

  Raises:
    ValueError: the rate is missing (None), no number, not finite, or not positive.
  """
  allowed = "a positive number or a string such as '1/3'"
  if rate is None:
    raise ValueError(f"the rate of source '{name}' is missing: it is {allowed}.")
  try:
    value = exact(rate)
  except ValueError:
    raise ValueError(f"the rate of source '{name}' is {rate!r}: it is {allowed}.") from None
  if value <= 0:
    raise ValueError(
      f"the rate of source '{name}' is {rate!r}: it is {allowed}. Leave out a source that is not "
      'to be read.'
    )
  return value


def check_names(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the sources of a mixture; raises ValueError for none, or one that is named twice."""
  names = tuple(names)
  if not names:
    raise ValueError('a mixture of no sources: name at least one.')
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"source '{name}' is named {names.count(name)} times in one mixture.")
  return names


class Order(abc.ABC):
  """Which source gives each sequence of a stage, and which of that source's sequences it is.

  Attributes:
    names: the sources, in order; a source is known by its index here.
  """

  names: tuple[str, ...]

  def source_of(self, g: ArrayLike) -> np.ndarray:
    """The source of each of the stage's sequences.

    Args:
      g: indices of the stage's sequences, ≥ 0, an integer or an array.

    Returns:
      int32 of g's shape: indices into `names`.
    """
    return self._locate(g)[0]

  def index_within(self, g: ArrayLike) -> np.ndarray:
    """Which of its source's sequences each of the stage's sequences is: 0 for the source's first.

    Args:
      g: indices of the stage's sequences, ≥ 0, an integer or an array.

    Returns:
      int64 of g's shape.
    """
    return self._locate(g)[1]

  @abc.abstractmethod
  def counts(self, g: int) -> np.ndarray:
    """How many of the stage's first g sequences each source gives.

    Args:
      g: ≥ 0.

    Returns:
      int64, one for each source; they add up to g.
    """

  @abc.abstractmethod
  def shares_at(self, g: int) -> tuple[Fraction, ...]:
    """The shares at the stage's sequence g."""

  @abc.abstractmethod
  def ideal(self, g: int) -> tuple[Fraction, ...]:
    """How many of the first g sequences each source would give if sequences could be cut."""

  @property
  @abc.abstractmethod
  def key(self) -> str:
    """All that the order depends on as an exact text: equal texts give equal orders."""

  @abc.abstractmethod
  def _locate(self, g: ArrayLike) -> tuple[np.ndarray, np.ndarray]: ...


class Mixture(Order):
  """Sources and their shares of the run's sequences (all of one length, so of its tokens).

  Attributes:
    names: the sources, in order; a source is known by its index here.
    shares: their exact shares, which add up to 1.
  """

  def __init__(self, names: Sequence[str], rates: Sequence[object]):
    """Divides the rates by their sum.

    Args:
      names: one or more sources, each once.
      rates: one for each source, as `parse_rate` reads them.

    Raises:
      ValueError: no source, a source twice, a rate missing or left over, or a rate that is wrong.
    """
    names, rates = check_names(names), tuple(rates)
    if len(rates) > len(names):
      raise ValueError(f'{len(rates)} rates for {len(names)} sources: {list(names)}.')
    rates += (None,) * (len(names) - len(rates))
    parsed = [parse_rate(rate, name) for name, rate in zip(names, rates, strict=True)]
    total = sum(parsed)
    self.names = names
    self.shares = tuple(rate / total for rate in parsed)

    denominator = math.lcm(*(share.denominator for share in self.shares))
    weights = tuple(int(share * denominator) for share in self.shares)
    if denominator <= _LARGEST_PERIOD:
      # Several periods to a table where one is short; the deadlines are the same.
      periods = max(1, BLOCK // denominator)
      self._block, self._quotas = periods * denominator, tuple(periods * w for w in weights)
      self._tree = None
    else:
      self._block, self._quotas = BLOCK, None
      self._tree = plant(sorted(((w, i) for i, w in enumerate(weights)), reverse=True))

  def counts(self, g: int) -> np.ndarray:
    counts = np.zeros(len(self.names), np.int64)
    if self._tree is not None:
      _count(self._tree, int(g), counts)
      return counts
    block, rest = divmod(int(g), self._block)
    source_K, _ = _tabulate(self._quotas)
    counts += np.bincount(source_K[:rest], minlength=len(counts))
    return counts + block * np.array(self._quotas)

  def shares_at(self, g: int) -> tuple[Fraction, ...]:
    """The shares at the run's sequence g: the same everywhere."""
    del g
    return self.shares

  def ideal(self, g: int) -> tuple[Fraction, ...]:
    """How many of the first g sequences each source would give if sequences could be cut."""
    return tuple(share * int(g) for share in self.shares)

  @property
  def key(self) -> str:
    """Names and shares as an exact text, for fingerprints: equal texts give equal batches."""
    shares = {name: str(share) for name, share in zip(self.names, self.shares, strict=True)}
    return json.dumps({'shares': shares}, ensure_ascii=False)

  def _locate(self, g: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    if self._tree is not None:
      return locate_by_blocks(g, functools.partial(_descend, self._tree))
    g = check_sequences(g)
    block, slot = np.divmod(g, self._block)
    source_K, within_K = _tabulate(self._quotas)
    source = source_K[slot]
    return source, within_K[slot] + block * np.array(self._quotas)[source]


def check_sequences(g: ArrayLike) -> np.ndarray:
  """Returns indices of sequences as int64; raises ValueError for a negative one."""
  g = np.asarray(g, np.int64)
  if g.size and g.min() < 0:
    raise ValueError(f'sequence {g.min()} of a run: sequences are counted from 0.')
  return g


def locate_by_blocks(
  g: ArrayLike, descend: Callable[[int], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
  """Looks sequences up in the blocks of BLOCK that they lie in.

  Args:
    g: indices of the run's sequences, ≥ 0.
    descend: source and index within the source of each sequence of the block that starts there.

  Returns:
    int32 and int64 of g's shape: source, and index within the source.
  """
  g = check_sequences(g)
  block, slot = np.divmod(g, BLOCK)
  source, within = np.empty(g.shape, np.int32), np.empty(g.shape, np.int64)
  for t in np.unique(block).tolist():
    here = block == t
    source_K, within_K = descend(t * BLOCK)
    source[here], within[here] = source_K[slot[here]], within_K[slot[here]]
  return source, within


@functools.lru_cache(maxsize=16)
def _tabulate(quotas: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Orders quotas[i] sequences of each source i by earliest deadline first.

  Returns:
    source_K int32 and within_K int64 (which of the source's own sequences), K the quotas' sum.
  """
  size = sum(quotas)
  jobs = []  # (first slot, slot after the last, source), one for each sequence
  for source, quota in enumerate(quotas):
    j = np.arange(quota, dtype=np.int64)
    release, deadline = j * size // quota, -(-(j + 1) * size // quota)
    jobs.extend(zip(release.tolist(), deadline.tolist(), [source] * quota, strict=True))
  jobs.sort()

  source_K, within_K = np.empty(size, np.int32), np.empty(size, np.int64)
  used = [0] * len(quotas)
  waiting, next_job = [], 0
  for slot in range(size):
    while next_job < size and jobs[next_job][0] <= slot:
      heapq.heappush(waiting, jobs[next_job][1:])
      next_job += 1
    deadline, source = heapq.heappop(waiting)
    assert slot < deadline, 'every deadline can be met (Tijdeman 1980)'
    source_K[slot], within_K[slot] = source, used[source]
    used[source] += 1
  source_K.setflags(write=False)
  within_K.setflags(write=False)
  return source_K, within_K


def plant(weighted: list[tuple[int, int]]) -> int | tuple:
  """Builds the tree: a leaf is a source, a node is (left's weight, weight, left, right).

  Args:
    weighted: (weight, source), heaviest first.
  """
  if len(weighted) == 1:
    return weighted[0][1]
  total, left, n = sum(weight for weight, _ in weighted), 0, 0
  while 3 * left < total:  # ends with a heavy leaf alone, or between a third and two thirds
    left += weighted[n][0]
    n += 1
  return left, total, plant(weighted[:n]), plant(weighted[n:])


def _to_the_left(weight: int, total: int, n):
  """round(n * weight / total), halves up: how many of a node's first n sequences go left."""
  return (2 * n * weight + total) // (2 * total)


def _count(tree: int | tuple, n: int, counts: np.ndarray) -> None:
  """Adds a node's first n sequences to its sources' counts."""
  if isinstance(tree, int):
    counts[tree] += n
    return
  weight, total, left, right = tree
  to_left = _to_the_left(weight, total, n)
  _count(left, to_left, counts)
  _count(right, n - to_left, counts)


@functools.lru_cache(maxsize=64)
def _descend(tree: tuple, first: int) -> tuple[np.ndarray, np.ndarray]:
  """Follows sequences first, first + 1, ... of the run, a block of them, down the tree.

  Returns:
    source_K int32 and within_K int64 (which of the source's own sequences).
  """
  source_K, within_K = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int64)

  def follow(node: int | tuple, slots: np.ndarray, n: np.ndarray) -> None:
    if isinstance(node, int):
      source_K[slots], within_K[slots] = node, n
    elif slots.size:
      weight, total, left, right = node
      before = _to_the_left(weight, total, n)
      goes_left = _to_the_left(weight, total, n + 1) > before
      follow(left, slots[goes_left], before[goes_left])
      follow(right, slots[~goes_left], (n - before)[~goes_left])

  # Python integers: weights of shares such as 0.7182818284590452 leave int64 at once.
  follow(tree, np.arange(BLOCK), np.arange(first, first + BLOCK).astype(object))
  source_K.setflags(write=False)
  within_K.setflags(write=False)
  return source_K, within_K
