"""What was found out about a step, as a table to read and as JSON to keep.

Easy to get wrong: units. Memory is in GiB (2³⁰ bytes) of one device; flops are of all devices; GB are 10⁹
bytes sent or moved by one device in one step.
"""

import dataclasses
from typing import Any

from jaxlink.aot.search import Candidate, Search
from jaxlink.aot.stage import Compiled
from jaxlink.aot.topology import Target


def describe(found: Compiled, target: Target) -> str:
  """All of it, for one stage."""
  axes = (
    ', '.join(f'{name} {size}' for name, size in found.mesh.items() if size > 1) or 'one device'
  )
  lines = [
    f'stage {found.stage} on {target.name}: {target.count} × {target.chip.kinds[0]}; mesh {axes}; '
    f'{found.rows} sequences a device, {found.tokens:,} tokens a step; attention {found.attention}, '
    f'remat {found.remat}; '
    + (
      f'compiled in {found.seconds:.1f} s' if found.seconds is not None else 'traced, not compiled'
    ),
    *_memory(found),
    *_work(found),
  ]
  if found.collectives is not None:
    lines += _collectives(found)
  if found.roofline is not None:
    lines += _roofline(found, target)
  if found.unbounded:
    lines.append(
      f'counted once, for their length is not in the program: {", ".join(found.unbounded)}'
    )
  if target.lack:
    lines.append(f'not known: {target.lack}')
  if found.overflow:
    lines.append(f'out of memory: {found.overflow}')
  return '\n'.join(lines)


def describe_search(found: Search) -> str:
  """The table of remat × rows, and what each GiB buys."""
  lines = [
    'remat                  rows a device      GiB   least ms   tokens/s   MFU at most   recomputed'
  ]
  for one in found.candidates:
    start = f'{one.remat:<22} {one.rows:>13}'
    if one.overflow:
      lines.append(f'{start}   does not fit: {one.overflow}')
      continue
    lines.append(
      f'{start} {one.gib:>8.2f} {1e3 * one.seconds:>10.1f} {one.tokens_per_second:>10,.0f} '
      f'{one.mfu:>12.1%} {one.recomputed:>12.1%}'
    )
  if found.largest:
    one = found.largest
    lines.append(
      f'largest batch that fits: {one.rows} rows a device, remat {one.remat}, {one.gib:.2f} GiB'
    )
  if found.cheapest:
    one = found.cheapest
    lines.append(
      f"cheapest remat that fits at the recipe's {one.rows} rows: {one.remat}, which recomputes "
      f'{one.recomputed:.1%}, {one.gib:.2f} GiB'
    )
  for less, more in zip(found.frontier, found.frontier[1:], strict=False):
    gain = more.tokens_per_second / less.tokens_per_second - 1
    gib = more.gib - less.gib
    lines.append(
      f'{gib:+.2f} GiB, {_name(less)} → {_name(more)}: {gain:+.1%} tokens/s, {gain / gib:.1%} for each GiB'
    )
  return '\n'.join(lines)


def as_json(target: Target, stages: list[Compiled], searches: list[Search]) -> dict[str, Any]:
  """All figures, by their names: bytes, seconds, flops."""
  return {
    'topology': target.name,
    'devices': target.count,
    'chip': dataclasses.asdict(target.chip),
    'stages': [dataclasses.asdict(one) for one in stages],
    'searches': [dataclasses.asdict(one) for one in searches],
  }


def _name(one: Candidate) -> str:
  return f'{one.remat} at {one.rows}'


def _memory(found: Compiled) -> list[str]:
  memory = found.memory
  gib = lambda size: 'unknown' if size is None else f'{size / 2**30:.3f}'  # noqa: E731
  rows = [
    ('parameters', memory.parameters),
    ('optimizer state', memory.optimizer),
    ('batch', memory.batch),
    ('temporaries', memory.temporaries),
    ('results not in place', memory.outputs),
    ('code', memory.code),
    ('total', memory.total),
  ]
  lines = ['memory of a device               GiB']
  lines += [f'  {name:<24} {gib(size):>9}' for name, size in rows]
  share = f' ({memory.total / memory.limit:.1%})' if memory.total is not None else ''
  lines[-1] += f' of {memory.limit / 2**30:.2f}{share}'
  return lines


def _work(found: Compiled) -> list[str]:
  work = found.work
  rows = [
    ('model (the MFU definition)', work.model),
    ('computed', work.counted),
    ('of it recomputed by remat', work.recomputed),
    ('of it in attention kernels', work.kernels),
    ("XLA's count, a loop's body once", work.xla),
  ]
  lines = ['flops of a step                     Tflop   of the model']
  for name, flops in rows:
    if flops is None:
      lines.append(f'  {name:<31} {"unknown":>7}')
    else:
      lines.append(f'  {name:<31} {flops / 1e12:>7,.0f} {flops / work.model:>14.1%}')
  return lines


def _collectives(found: Compiled) -> list[str]:
  lines = ['collectives of a step          axes      devices    runs   GB sent by a device']
  for one in found.collectives:
    axes = one.axes or 'none'
    lines.append(
      f'  {one.kind:<24} {axes:>9} {one.group:>12} {one.count:>7,} {one.sent / 1e9:>21,.3f}'
    )
  if not found.collectives:
    lines.append('  none')
  return lines


def _roofline(found: Compiled, target: Target) -> list[str]:
  roof, chip = found.roofline, target.chip
  ms = lambda time: 'unknown' if time is None else f'{1e3 * time:,.1f}'  # noqa: E731
  sent = sum(c.sent for c in found.collectives) / 1e9 if found.collectives is not None else None
  amount = lambda size, unit: '' if size is None else f'{size:,.1f} {unit}'  # noqa: E731
  moved = None if found.moved is None else found.moved / 1e9
  whole = f'bound by {roof.bound}'
  if None in (roof.memory, roof.links):
    whole = 'of what is known, whether it fits not being known'
  each = found.work.counted / target.count / 1e12
  return [
    'least time of a step            ms',
    f'  products        {ms(roof.compute):>16}   {each:,.1f} Tflop at {chip.flops / 1e12:,.0f} Tflop/s',
    f'  memory traffic  {ms(roof.memory):>16}   {amount(moved, "GB")} at {chip.memory_rate / 1e9:,.0f} GB/s',
    f'  links           {ms(roof.links):>16}   {amount(sent, "GB")} at {chip.link_rate / 1e9:,.0f} GB/s',
    f'  {whole}: at least {ms(roof.seconds)} ms with all overlapped, {ms(roof.seconds_apart)} '
    f'ms one after the other; MFU at most {roof.mfu:.1%}, {roof.tokens_per_second:,.0f} tokens/s',
  ]
