"""The tree that hands a schedule's sequences to its sources; `scheduled` says why it is right.

In: knots of shares. Out: `Curves`, their integrals; `choose_tree`, a tree and what it can be off; and
`Splitter`, which sends sequences down a tree.

Easy to get wrong: the inverse of an integral where a node has share 0. There it is flat, the children
are level too, and the slot after the flat is the one to take; after the last of the node's share there
is no inverse, and the children go on with their last slopes, for a sequence that rounding up still has
to place.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from jaxlink.data import mixture

_NEVER = 2**62  # sequences

Knot = tuple[Fraction, tuple[Fraction, ...]]
_Tree = int | tuple  # a source, or (left, right)


class Curves:
  """The sources' shares and integrals, as integers over a common denominator.

  In piece p, which holds from starts[p], source i's integral over the first t sequences is
  (square[p, i] t² + linear[p, i] t + constant[p, i]) / denominator.

  Attributes:
    starts: J positions, the first 0.
    square, linear, constant: Python integers, J × K.
    denominator: of all of them.
    corners: shares at both ends of each piece, times a common denominator; each a K-vector.
  """

  def __init__(self, knots: Sequence[Knot]):
    shares_d = math.lcm(*(share.denominator for _, shares in knots for share in shares))
    at_d = math.lcm(*(at.denominator for at, _ in knots))
    weights = [
      np.array([int(share * shares_d) for share in shares], dtype=object) for _, shares in knots
    ]
    ends = [int(at * at_d) for at, _ in knots]
    # (start, end, weights there), in units of 1 / at_d sequences; the last has no end.
    pieces = [(0, ends[0], weights[0], weights[0])] + [
      (ends[k], ends[k + 1], weights[k], weights[k + 1]) for k in range(len(knots) - 1)
    ]
    pieces = [piece for piece in pieces if piece[1] > piece[0]]
    lengths = math.lcm(*(end - start for start, end, _, _ in pieces))
    pieces.append((ends[-1], ends[-1] + lengths, weights[-1], weights[-1]))

    rows, done = [], weights[0] * 0  # `done`: the integral so far, times the denominator
    for start, end, low, high in pieces:
      per_unit = lengths // (end - start)
      square = (high - low) * (at_d * at_d * per_unit)
      linear = low * (2 * at_d * lengths) - (high - low) * (2 * start * at_d * per_unit)
      constant = done - low * (2 * start * lengths) + (high - low) * (start * start * per_unit)
      rows.append((square, linear, constant))
      done = done + (low + high) * ((end - start) * lengths)
    denominator = 2 * shares_d * at_d * lengths
    table = np.array(rows, dtype=object)  # J × 3 × K
    common = math.gcd(denominator, *table.ravel().tolist())
    self.square, self.linear, self.constant = np.moveaxis(table // common, 1, 0)
    self.denominator = denominator // common
    self.starts = [Fraction(start, at_d) for start, _, _, _ in pieces]
    corners = {tuple(corner): corner for _, _, *both in pieces for corner in both}
    self.corners = list(corners.values())

  def integral(self, g: int) -> tuple[Fraction, ...]:
    p = self._piece(g)
    values = (self.square[p] * g + self.linear[p]) * g + self.constant[p]
    return tuple(Fraction(value, self.denominator) for value in values)

  def shares(self, g: int) -> tuple[Fraction, ...]:
    p = self._piece(g)
    return tuple(Fraction(v, self.denominator) for v in 2 * g * self.square[p] + self.linear[p])

  def _piece(self, g: int) -> int:
    mixture.check_sequences(g)
    return sum(start <= g for start in self.starts) - 1


# ── the tree ────────────────────────────────────────────────────────────────────


def choose_tree(corners: list[np.ndarray]) -> tuple[_Tree, Fraction]:
  """Returns the best of a few trees of the sources that have a share anywhere, and its bound."""
  single = [(profile, i) for i, profile in enumerate(zip(*corners, strict=True)) if any(profile)]
  alike: dict[tuple, list[tuple[int, int]]] = {}
  for profile, source in single:
    weight = math.gcd(*profile)
    alike.setdefault(tuple(w // weight for w in profile), []).append((weight, source))
  groups = []
  for profile, members in alike.items():
    weight = sum(weight for weight, _ in members)
    subtree = _without_weights(mixture.plant(sorted(members, reverse=True)))
    groups.append((tuple(w * weight for w in profile), subtree))
  trees = [_halve(groups, level=False), _halve(groups, level=True)]
  if len(single) <= 16:
    trees.append(_halve(single, level=True))  # four levels: at most 2 off, whatever the knots
  bounds = [_bound(tree, corners) for tree in trees]
  best = bounds.index(min(bounds))
  return trees[best], bounds[best]


def _without_weights(tree: int | tuple) -> _Tree:
  return tree if isinstance(tree, int) else tuple(map(_without_weights, tree[2:]))


def _halve(items: list[tuple[tuple[int, ...], _Tree]], level: bool) -> _Tree:
  """A tree of subtrees: halves about alike in weight at all corners, heavy subtrees put first.

  Args:
    items: (weights at the corners, subtree).
    level: no subtree is deeper in it than in a tree of equal depths.
  """
  if len(items) == 1:
    return items[0][1]
  total = [sum(weights) for weights in zip(*(weights for weights, _ in items), strict=True)]
  # Floats choose: exactly rounded quotients and sums, so that all machines choose alike.
  relative = [
    [w / t if t else 0.0 for w, t in zip(weights, total, strict=True)] for weights, _ in items
  ]
  room = 2 ** ((len(items) - 1).bit_length() - 1) if level else len(items) - 1
  left, right, ahead = [], [], [0.0] * len(total)  # `ahead`: left's weight less right's
  for i in sorted(range(len(items)), key=lambda i: -max(relative[i])):
    to_left = math.fsum(a * w for a, w in zip(ahead, relative[i], strict=True)) < 0 or not left
    to_left = len(right) == room or (to_left and len(left) < room)
    (left if to_left else right).append(items[i])
    sign = 1 if to_left else -1
    ahead = [a + sign * w for a, w in zip(ahead, relative[i], strict=True)]
  return _halve(left, level), _halve(right, level)


def _bound(tree: _Tree, corners: list[np.ndarray]) -> Fraction:
  """The most that any source of a tree can be off its integral."""
  weights: dict[int, list[int]] = {}  # by the node's id: one for each corner

  def weigh(node: _Tree) -> list[int]:
    if isinstance(node, int):
      return [corner[node] for corner in corners]
    weights[id(node)] = [a + b for a, b in zip(*map(weigh, node), strict=True)]
    return weights[id(node)]

  def worst(node: _Tree, off: Fraction) -> Fraction:
    if isinstance(node, int):
      return off
    return max(worst(child, Fraction(1, 2) + off * ratio(child, node)) for child in node)

  def ratio(child: _Tree, node: tuple) -> Fraction:
    # Where the node's weight is 0 at a corner, the ratio's limit there is its value at the other end.
    most, of = 0, 1
    own = weights[id(child)] if id(child) in weights else weigh(child)
    for part, whole in zip(own, weights[id(node)], strict=True):
      if part * of > most * whole:
        most, of = part, whole
    return Fraction(most, of)

  weigh(tree)
  return worst(tree, Fraction(0))


# ── down the tree ───────────────────────────────────────────────────────────────


class Splitter:
  """The tree as tables, to send many sequences down it at once.

  Nodes are numbered: first the K sources, then the inner ones, the root last. Tables of integrals hold
  Python integers, because products leave int64.
  """

  def __init__(self, curves: Curves, tree: _Tree, n_sources: int):
    self._n_sources, self._denominator = n_sources, curves.denominator
    # Piece p holds from the first integer t that is not before its start.
    self._first_t = np.array([math.ceil(start) for start in curves.starts], np.int64)
    left, right = [-1] * n_sources, [-1] * n_sources
    table = [*np.stack([curves.square, curves.linear, curves.constant]).transpose(2, 0, 1)]

    def add(node: _Tree) -> int:
      if isinstance(node, int):
        return node
      children = add(node[0]), add(node[1])
      left.append(children[0])
      right.append(children[1])
      table.append(table[children[0]] + table[children[1]])
      return len(table) - 1

    self._root = add(tree)
    self._left, self._right = np.array(left), np.array(right)
    self._square, self._linear, self._constant = np.stack(table, axis=1)  # each nodes × J
    # Where the left child's share of the node never changes, G(n) is that share times n.
    self._ratio = self._constant_ratios()
    self._keeps_ratio = np.array([ratio is not None for ratio in self._ratio])
    self._set_ends(curves.starts)

  def counts(self, n: int) -> np.ndarray:
    """How many of the root's first n sequences each source gets."""
    mixture.check_sequences(n)
    counts = np.zeros(self._n_sources, np.int64)
    node, n = np.array([self._root]), np.array([n])
    while node.size:
      at_leaf = node < self._n_sources
      counts[node[at_leaf]] = n[at_leaf]
      node, n = node[~at_leaf & (n > 0)], n[~at_leaf & (n > 0)]
      to_left = self.to_the_left(node, n)
      node = np.concatenate([self._left[node], self._right[node]])
      n = np.concatenate([to_left, n - to_left])
    return counts

  def descend(self, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Follows sequences first, first + 1, ..., a block of them: source and index within, int64."""
    slot = np.arange(mixture.BLOCK)
    source, within = np.empty_like(slot), np.empty_like(slot)
    node, n = np.full_like(slot, self._root), first + slot
    while slot.size:
      at_leaf = node < self._n_sources
      source[slot[at_leaf]], within[slot[at_leaf]] = node[at_leaf], n[at_leaf]
      slot, node, n = slot[~at_leaf], node[~at_leaf], n[~at_leaf]
      # A node's sequences are consecutive: what goes left of n + 1 is asked once more for its last.
      order = np.argsort(node, kind='stable')
      slot, node, n = slot[order], node[order], n[order]
      ends = np.flatnonzero(np.diff(node, append=-1)) + 1
      to_left = self.to_the_left(
        np.insert(node, ends, node[ends - 1]), np.insert(n, ends, n[ends - 1] + 1)
      )
      at = np.arange(slot.size) + np.searchsorted(ends, np.arange(slot.size), 'right')
      goes_left = to_left[at + 1] > to_left[at]
      n = np.where(goes_left, to_left[at], n - to_left[at])
      node = np.where(goes_left, self._left[node], self._right[node])
    return source, within

  def to_the_left(self, node: np.ndarray, n: np.ndarray) -> np.ndarray:
    """round(G(n)), halves up: how many of an inner node's first n sequences go left; int64."""
    to_left = np.empty_like(n)
    keeps = self._keeps_ratio[node]
    if keeps.any():
      ratios = [self._ratio[v] for v in node[keeps].tolist()]
      to_left[keeps] = [
        (2 * m * part + whole) // (2 * whole)
        for m, (part, whole) in zip(n[keeps].tolist(), ratios, strict=True)
      ]
    if not keeps.all():
      to_left[~keeps] = self._along_curves(node[~keeps], n[~keeps])
    return to_left

  def _along_curves(self, node: np.ndarray, n: np.ndarray) -> np.ndarray:
    t, M = self._slot(node, n), self._denominator
    own, own_next = self._integral(node, t), self._integral(node, t + 1)
    part, part_next = self._integral(self._left[node], t), self._integral(self._left[node], t + 1)
    rise = own_next - own
    doubled = 2 * (part * rise + (part_next - part) * (n.astype(object) * M - own))
    return ((doubled + rise * M) // (2 * M * rise)).astype(np.int64)

  def _integral(self, node: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The nodes' integrals over the first t sequences, times the denominator."""
    p = np.searchsorted(self._first_t, t, 'right') - 1
    t = t.astype(object)
    return (self._square[node, p] * t + self._linear[node, p]) * t + self._constant[node, p]

  def _slot(self, node: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The slot t in which each node's integral passes n, or its last one with a share; int64."""
    t = np.where(node == self._root, n, self._last_t[node])
    inside = (node != self._root) & (n <= self._last_n[node])
    if inside.any():
      last_t, node, n = t[inside], node[inside], n[inside]
      p = (self._reached[node] <= n[:, None]).sum(axis=1) - 1
      p = np.minimum(p, self._last_piece[node])
      below = self._constant[node, p] - n.astype(object) * self._denominator
      t[inside] = np.minimum(
        _largest_t(self._square[node, p], self._linear[node, p], below), last_t
      )
    return t

  def _constant_ratios(self) -> list[tuple[int, int] | None]:
    """For each inner node whose left child has one share of it throughout, that share as integers."""
    shares = np.concatenate([self._square, self._linear], axis=1).tolist()
    ratios: list[tuple[int, int] | None] = [None] * self._n_sources
    for node in range(self._n_sources, len(shares)):
      pairs = list(zip(shares[self._left[node]], shares[node], strict=True))
      part, whole = Fraction(*next(pair for pair in pairs if pair[1])).as_integer_ratio()
      constant = all(a * whole == b * part for a, b in pairs)
      ratios.append((part, whole) if constant else None)
    return ratios

  def _set_ends(self, starts: list[Fraction]) -> None:
    """Finds at which n each node enters each piece, and the last n and t of its share."""
    N, J = self._square.shape
    has_share = (self._square != 0) | (self._linear != 0)
    self._last_piece = J - 1 - np.argmax(has_share[:, ::-1], axis=1)
    self._reached = np.empty((N, J), np.int64)
    self._last_n, self._last_t = np.full(N, _NEVER), np.full(N, _NEVER)
    for p, start in enumerate(starts):
      s, d = start.as_integer_ratio()
      scaled = (self._square[:, p] * s + self._linear[:, p] * d) * s + self._constant[:, p] * (
        d * d
      )
      unit = self._denominator * d * d
      self._reached[:, p] = -(-scaled // unit)
      ended = self._last_piece == p - 1
      self._last_n[ended] = (scaled // unit)[ended]
      self._last_t[ended] = math.ceil(start) - 1


def _passes(square: int, linear: int, below: int) -> int:
  """The largest integer t with square·t² + linear·t + below ≤ 0, where that rises with t."""
  if not square:
    return -below // linear
  discriminant = linear * linear - 4 * square * below
  root = math.isqrt(discriminant)
  if square > 0:
    return (root - linear) // (2 * square)
  root += root * root < discriminant
  return (linear - root) // (-2 * square)


_largest_t = np.frompyfunc(_passes, 3, 1)
