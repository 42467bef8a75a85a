"""What a compiled step moves: between devices (collectives), and between a device's memory and its cores.

A parsed program (`hlo.Program`) goes in; bytes per device and step come out, loops in full.

Easy to get wrong: which bytes. `sent` is what one device puts on its links: of an all-reduce over n devices
2·(n-1)/n of the array (a ring), of a gather or a scatter (n-1)/n of the whole one, of a permute all of
it. Memory traffic counts operands and results of each scheduled instruction, except what the compiler
keeps in the cores' own memory; of a slice that is read or written within a loop only the slice counts.
"""

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxlink.aot import hlo

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute',
         'ragged-all-to-all', 'collective-broadcast')  # fmt: skip
# Instructions that move no bytes: names, shapes and control.
_FREE = {
  'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call',
  'after-all', 'partition-id', 'replica-id', 'opt-barrier', 'add-dependency', 'async-start', 'async-update',
  'async-done', 'copy-done', 'iota', 'domain',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
  """Collectives of one kind, over the same mesh axes, of one array size.

  Attributes:
    kind: out of `KINDS`.
    axes: mesh axes between whose devices it speaks, joined by '·'; '?' where that is not clear.
    group: devices in a group.
    count: runs in a step.
    sent: bytes that a device sends in a step, all runs together.
  """

  kind: str
  axes: str
  group: int
  count: int
  sent: float


def collectives(program: hlo.Program, mesh: Mapping[str, int]) -> list[Collective]:
  """The collectives of a step, summed by kind and axes, the largest first.

  Args:
    program: compiled for a mesh whose devices are numbered along `mesh`, the last axis fastest.
    mesh: sizes of its axes, by name.
  """
  devices = math.prod(mesh.values())
  groups = _axis_groups(mesh)
  counts: collections.Counter[tuple[str, str, int]] = collections.Counter()
  sent: collections.Counter[tuple[str, str, int]] = collections.Counter()
  seen = set()
  for computation, one, times in program.runs():
    for scope, found, kind in _found(program, computation, one):
      channel = re.search(r'channel_id=(\d+)', found.attributes)
      key = (channel[1] if channel else found.name, kind, times)
      if key in seen:
        continue  # one collective, spread over several fusions that run beside it
      seen.add(key)
      axes, size = _axes(found.attributes, kind, groups, devices)
      operands = sum(hlo.size(scope.by_name[name].type) for name in found.operands)
      counts[kind, axes, size] += times
      sent[kind, axes, size] += times * operands * _share(kind, size)
  listed = [Collective(*key, count=counts[key], sent=sent[key]) for key in counts]
  return sorted(listed, key=lambda c: -c.sent)


def memory_traffic(program: hlo.Program) -> float:
  """Bytes that a device reads from and writes to its main memory in a step."""
  total = 0.0
  for computation, one, times in program.runs():
    if one.opcode in _FREE or one.opcode.endswith('-done'):
      continue
    total += times * _moved(program, computation, one)
  return total


def _found(program, computation, one):
  """(scope, collective, kind) in an instruction: itself, or within the fusion that it is."""
  kind = one.opcode.removesuffix('-start')
  if kind in KINDS:
    yield computation, one, kind
  if one.opcode == 'fusion':
    for called in program.called(one):
      for inner in called.instructions:
        kind = inner.opcode.removesuffix('-start')
        if kind in KINDS:
          # A TPU writes a reduce-scatter as an all-reduce that is sliced in the same fusion.
          scatter = kind == 'all-reduce' and 'all-reduce-scatter' in f'{called.name} {one.name}'
          yield called, inner, 'reduce-scatter' if scatter else kind


def _share(kind: str, n: int) -> float:
  """Bytes sent by a device for each byte of the operand that it gives."""
  if n <= 1:
    return 0.0
  return {
    'all-gather': n - 1.0,
    'all-reduce': 2 * (n - 1) / n,
    'collective-permute': 1.0,
    'collective-broadcast': 1.0,
  }.get(kind, (n - 1) / n)


def _axis_groups(mesh: Mapping[str, int]) -> dict[frozenset[frozenset[int]], tuple[str, int]]:
  """Groups of devices that differ along some axes only → those axes, for each set of axes."""
  names = [name for name, size in mesh.items() if size > 1]
  ids = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
  found = {}
  for length in range(len(names) + 1):
    for chosen in itertools.combinations(names, length):
      last = [list(mesh).index(name) for name in chosen]
      n = math.prod(mesh[name] for name in chosen)
      rows = np.moveaxis(ids, last, range(ids.ndim - len(last), ids.ndim)).reshape(-1, n)
      found[frozenset(frozenset(row.tolist()) for row in rows)] = ('·'.join(chosen), n)
  return found


def _axes(attributes: str, kind: str, groups, devices: int) -> tuple[str, int]:
  if kind == 'collective-permute':
    pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', attributes)
    if not pairs:
      return '?', devices
    moved = [tuple(map(int, p)) for p in re.findall(r'(\d+),(\d+)', pairs[1])]
    for rows, (name, n) in sorted(groups.items(), key=lambda item: item[1][1]):
      row_of = {device: i for i, row in enumerate(rows) for device in row}
      if all(row_of[a] == row_of[b] for a, b in moved):
        return name, n
    return '?', devices
  rows = _replica_groups(attributes, devices)
  if rows is None:
    return '?', devices
  found = groups.get(frozenset(frozenset(row) for row in rows))
  return found or ('?', max(map(len, rows)))


def _replica_groups(attributes: str, devices: int) -> Sequence[Sequence[int]] | None:
  """Groups in any of the three ways in which HLO writes them."""
  if match := re.search(
    r'replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?\)?)\))? \{([^}]*)\}', attributes
  ):
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
    chosen = re.findall(r"'([^']+)'", match[3])
    ids = _iota(match[2]) if match[2] else np.arange(math.prod(sizes.values()))
    if ids is None or ':(' in match[3]:  # a part of an axis
      return None
    ids = ids.reshape(tuple(sizes.values()))
    last = [list(sizes).index(name) for name in chosen]
    n = math.prod(sizes[name] for name in chosen)
    return np.moveaxis(ids, last, range(ids.ndim - len(last), ids.ndim)).reshape(-1, n).tolist()
  if match := re.search(r'replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)', attributes):
    return _iota(match[2]).reshape([int(n) for n in match[1].split(',')]).tolist()
  if match := re.search(r'replica_groups=\{(\{[\d,{}]*\})?\}', attributes):
    if not match[1]:
      return [list(range(devices))]
    return [[int(n) for n in row.split(',')] for row in re.findall(r'\{([\d,]+)\}', match[1])]
  return None


def _iota(text: str) -> np.ndarray | None:
  """Numbers from 0 as '[2,4]T(1,0)' orders them; None for another notation."""
  match = re.fullmatch(r'\[([\d,]+)\](?:T\(([\d,]+)\))?', text)
  if not match:
    return None
  shape = [int(n) for n in match[1].split(',')]
  ids = np.arange(math.prod(shape)).reshape(shape)
  return ids.transpose([int(n) for n in match[2].split(',')]) if match[2] else ids


def _moved(program: hlo.Program, scope: hlo.Computation, one: hlo.Instruction) -> float:
  if one.opcode in ('dynamic-slice', 'slice', 'gather'):
    return 2.0 * hlo.size(one.type, memory='hbm')
  if one.opcode in ('dynamic-update-slice', 'scatter'):
    return 2.0 * hlo.size(scope.by_name[one.operands[1]].type, memory='hbm')
  if one.opcode == 'copy-start':  # its type has the operand, too
    return float(hlo.size(one.type, memory='hbm'))
  types = [scope.by_name[name].type for name in one.operands]
  if one.opcode.endswith('-start'):
    return 2.0 * sum(hlo.size(kind, memory='hbm') for kind in types)
  read = [float(hlo.size(kind, memory='hbm')) for kind in types]
  written = float(hlo.size(one.type, memory='hbm'))
  if one.opcode == 'fusion' and (called := program.called(one)):
    read = [
      min(size, _read_of(program, called[0], i)) if size else 0.0 for i, size in enumerate(read)
    ]
    written -= _kept(called[0], one)
  return sum(read) + max(written, 0.0)


def _read_of(program: hlo.Program, body: hlo.Computation, index: int) -> float:
  """Bytes of its operand `index` that a fusion reads: slices, where it takes nothing but slices."""
  parameter = next(
    one
    for one in body.instructions
    if one.opcode == 'parameter' and one.attributes.startswith(str(index))
    and re.match(r'\d+', one.attributes)[0] == str(index)
  )  # fmt: skip
  names, total = [parameter.name], 0.0
  while names:
    name = names.pop()
    for user in body.instructions:
      if name not in user.operands:
        continue
      if user.opcode in ('bitcast', 'reshape'):
        names.append(user.name)
      elif user.opcode in ('dynamic-slice', 'gather', 'slice') and user.operands[0] == name:
        total += hlo.size(user.type)
      elif user.opcode == 'dynamic-update-slice' and user.operands[0] == name:
        continue  # written in place: the rest stays as it lies
      elif user.opcode == 'fusion' and (inner := program.called(user)):
        total += sum(
          _read_of(program, inner[0], i) for i, n in enumerate(user.operands) if n == name
        )
      else:
        return math.inf
  return total


def _kept(body: hlo.Computation, one: hlo.Instruction) -> float:
  """Bytes of a fusion's results that it leaves as they lie, for it updates a slice of them."""
  roots = [body.root]
  if body.root.opcode == 'tuple':
    roots = [body.by_name[name] for name in body.root.operands]
  total = 0.0
  for root in roots:
    while root.opcode in ('bitcast', 'reshape') and root.operands:
      root = body.by_name[root.operands[0]]
    if root.opcode == 'dynamic-update-slice':
      whole = hlo.size(root.type)
      total += whole - min(whole, hlo.size(body.by_name[root.operands[1]].type))
  return total
