"""Reads a compiled program's text: its computations, its instructions, and how often each runs.

HLO text (optimized, scheduled) goes in; an iteration over instructions with the number of their runs in one
step comes out, from which `traffic` takes collectives and bytes. Nothing is interpreted but loop bounds.

Easy to get wrong: the length of a loop. Compilers write it as an attribute (`known_trip_count`) or not at
all; then it is found where the loop's condition compares a counter with a constant. A loop whose length
cannot be found is counted once and named in `Program.unbounded`.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator

_WIDTHS = {
  'pred': 1,
  'token': 0,
  'opaque': 0,
  's4': 0.5,
  'u4': 0.5,
  'bf16': 2,
  'c64': 8,
  'c128': 16,
}
_ARRAY = re.compile(r'\b(pred|bf16|token|opaque|[fsuc]\d+[a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?')
_NAME = re.compile(r'%?([\w.\-]+)')
_CALLED = re.compile(r'\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: without its percent sign.
    type: as written: a shape or a tuple of them.
    opcode: such as 'fusion' or 'all-gather-start'.
    operands: their names.
    attributes: what follows the operands, as written; of a constant or parameter, its value too.
    root: whether it is the computation's result.
  """

  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  root: bool


@dataclasses.dataclass(frozen=True)
class Computation:
  """A list of instructions, in the order of their schedule."""

  name: str
  instructions: tuple[Instruction, ...]

  @functools.cached_property
  def by_name(self) -> dict[str, Instruction]:
    return {one.name: one for one in self.instructions}

  @property
  def root(self) -> Instruction:
    return next((one for one in self.instructions if one.root), self.instructions[-1])


@dataclasses.dataclass
class Program:
  """A parsed program.

  Attributes:
    computations: by name.
    entry: the name of the one that runs.
    unbounded: loops whose length was not found, as far as `runs` has come.
  """

  computations: dict[str, Computation]
  entry: str
  unbounded: list[str] = dataclasses.field(default_factory=list)

  def runs(self) -> Iterator[tuple[Computation, Instruction, int]]:
    """Instructions that the schedule runs, with their computation and the runs in one step.

    Those of loops, calls and branches are among them (of a branch, each side as if it ran); those inside a
    fusion are not: `called` gives its computation.
    """
    yield from self._runs(self.computations[self.entry], 1)

  def called(self, one: Instruction) -> list[Computation]:
    """The computations that an instruction names, a loop's condition left out."""
    names = _CALLED.findall(one.attributes)
    for group in _BRANCHES.findall(one.attributes):
      names += _NAME.findall(group)
    return [self.computations[name] for name in dict.fromkeys(names) if name in self.computations]

  def trips(self, where: Computation, loop: Instruction) -> int | None:
    """How often a loop's body runs, or None if that cannot be found."""
    known = re.search(r'known_trip_count\D*(\d+)', loop.attributes)
    if known:
      return int(known[1])
    condition = re.search(r'condition=%?([\w.\-]+)', loop.attributes)
    body = re.search(r'body=%?([\w.\-]+)', loop.attributes)
    if not (condition and body):
      return None
    found = self._counter(self.computations[condition[1]])
    if found is None:
      return None
    index, end, direction = found
    step = _step(self.computations[body[1]], index)
    first = _first(where, loop, index)
    if step is None or first is None:
      return None
    if step < 0:
      return max(0, -(-(first - end + (direction == 'GE')) // -step))
    return max(0, -(-(end - first + (direction == 'LE')) // step))

  def _counter(self, condition: Computation) -> tuple[int, int, str] | None:
    """Of `counter < constant`: the counter's index in the loop's tuple, the constant, the direction."""
    compare, scope = condition.root, condition
    if (
      compare.opcode == 'fusion'
    ):  # the comparison, fused: its parameters are the fusion's operands
      scope = self.called(compare)[0]
      outer, compare = compare, scope.root
    if compare.opcode != 'compare':
      return None
    sides = []
    for name in compare.operands:
      one = _through(scope, name)
      if one.opcode == 'parameter' and scope is not condition:
        one = _through(condition, outer.operands[int(_first_number(one.attributes))])
      sides.append(one)
    counter, constant = sides
    direction = re.search(r'direction=(\w+)', compare.attributes)[1]
    if counter.opcode == 'constant':
      counter, constant = constant, counter
      direction = {'LT': 'GT', 'LE': 'GE', 'GT': 'LT', 'GE': 'LE'}.get(direction, direction)
    if counter.opcode != 'get-tuple-element' or constant.opcode != 'constant':
      return None
    return _index(counter), int(_first_number(constant.attributes)), direction

  def _runs(self, computation, times):
    for one in computation.instructions:
      yield computation, one, times
      if one.opcode == 'while':
        trips = self.trips(computation, one)
        if trips is None:
          self.unbounded.append(one.name)
        for called in self.called(one):
          yield from self._runs(called, times * (1 if trips is None else trips))
      elif one.opcode in ('call', 'conditional', 'async-start'):
        for called in self.called(one):
          yield from self._runs(called, times)


def parse(text: str) -> Program:
  """Reads HLO text.

  Raises:
    ValueError: it has no ENTRY computation.
  """
  computations: dict[str, Computation] = {}
  entry, name, lines = '', '', []
  for line in text.splitlines():
    if not line.startswith((' ', '}')) and line.rstrip().endswith('{') and '->' in line:
      name = _NAME.match(line.removeprefix('ENTRY ').strip())[1]
      lines = []
      if line.startswith('ENTRY'):
        entry = name
    elif line.rstrip() == '}' and name:  # an attribute of a kernel may hold lines of its own
      computations[name] = Computation(name, tuple(lines))
      name = ''
    elif name and (one := _instruction(line)):
      lines.append(one)
  if not entry:
    raise ValueError('the text has no ENTRY computation: it is no HLO module.')
  return Program(computations, entry)


def size(shape: str, *, memory: str = '') -> int:
  """Bytes of a type as written; a tuple's is the sum of its parts.

  Args:
    shape: such as 'f32[8,128]{1,0:T(8,128)}'.
    memory: where 'hbm', parts that lie in another memory of the device, S(1) and on, are left out.
  """
  total = 0.0
  for dtype, dims, layout in _ARRAY.findall(shape):
    if memory == 'hbm' and re.search(r'S\([1-9]', layout):
      continue
    count = 1
    for dim in filter(None, dims.split(',')):
      count *= int(dim.strip('<='))
    total += count * _width(dtype)
  return int(total)


def _width(dtype: str) -> float:
  if dtype in _WIDTHS:
    return _WIDTHS[dtype]
  return int(re.match(r'[fsuc](\d+)', dtype)[1]) / 8


def _instruction(line: str) -> Instruction | None:
  match = re.match(r'\s+(ROOT )?%?([\w.\-]+) = ', line)
  if not match:
    return None
  rest = line[match.end() :]
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  kind, rest = rest[:end], rest[end:].lstrip()
  opcode, _, _ = rest.partition('(')
  close = _closing(rest, len(opcode))
  inside = rest[len(opcode) + 1 : close]
  attributes = rest[close + 1 :]
  if opcode in ('constant', 'parameter', 'iota'):
    return Instruction(match[2], kind, opcode, (), inside + attributes, bool(match[1]))
  operands = tuple(re.findall(r'%([\w.\-]+)', inside))
  return Instruction(match[2], kind, opcode, operands, attributes, bool(match[1]))


def _closing(text: str, start: int) -> int:
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if not depth:
      return i
  raise ValueError(f'HLO: a parenthesis is not closed in {text[:80]!r}.')


def _through(computation: Computation, name: str) -> Instruction:
  """The instruction behind copies and other names for the same number."""
  one = computation.by_name[name]
  while one.opcode in ('copy', 'bitcast', 'convert', 'copy-done', 'copy-start') and one.operands:
    one = computation.by_name[one.operands[0]]
  return one


def _index(one: Instruction) -> int:
  return int(re.search(r'index=(\d+)', one.attributes)[1])


def _first_number(text: str) -> str:
  found = re.match(r'\s*(-?\d+)', text)
  return found[1] if found else '0'


def _step(body: Computation, index: int) -> int | None:
  """By how much a loop's body moves its counter."""
  if body.root.opcode != 'tuple':
    return None
  moved = _through(body, body.root.operands[index])
  if moved.opcode != 'add' and moved.opcode != 'subtract':
    return None
  left, right = (_through(body, name) for name in moved.operands)
  if left.opcode == 'constant':
    left, right = right, left
  if right.opcode != 'constant' or left.opcode != 'get-tuple-element' or _index(left) != index:
    return None
  step = int(_first_number(right.attributes))
  return -step if moved.opcode == 'subtract' else step


def _first(where: Computation, loop: Instruction, index: int) -> int | None:
  """The counter's value before the loop."""
  start = _through(where, loop.operands[0])
  if start.opcode != 'tuple':
    return None
  one = _through(where, start.operands[index])
  if one.opcode != 'constant':
    return None
  return int(_first_number(one.attributes))
