"""A comparison as plain text of 80 columns, and the phrases that the page uses, too.

Easy to get wrong: digits. A difference has as many as its interval asks for, so that ±0.0034 does not become
±0.0.
"""

import math
import textwrap
from collections.abc import Sequence

from jaxlink.comparing.results import Comparison, Result, Table, Versus, language_name
from jaxlink.comparing.runs import Setting, Source
from jaxlink.comparing.speedup import SpeedUp

_WIDTH = 80
NONE = '–'


def describe(comparison: Comparison) -> str:
  """Returns the whole comparison."""
  parts = [_opening(comparison), *(_fill(f'warning: {text}') for text in comparison.warnings)]
  heading = None
  for table in comparison.tables:
    if heading != (heading := group_name(table)):
      parts.append(f'\n{heading.upper()}')
    parts.append(_table(table, comparison.baseline))
  parts += ['', *_differences(comparison), *_sources(comparison.settings)]
  parts += [_fill(text) for text in comparison.notes]
  if comparison.left_out:
    parts.append(
      _fill(f'not shown: {len(comparison.left_out)} more scores; --scores "*" shows all')
    )
  return '\n'.join(parts)


# ── phrases ─────────────────────────────────────────────────────────────────────


def group_name(table: Table) -> str:
  """The heading under which a score stands."""
  name = language_name(table.language) or 'language not recorded'
  return {'target': f'{name}: the language that is to gain', 'other': f'{name}: kept or lost'}.get(
    table.role, name
  )


def direction(table: Table) -> str:
  """Which way is better, and chance."""
  chance = '' if table.chance is None else f', chance {table.chance:.3g}'
  return f'{table.better} is better{chance}'


def final(result: Result) -> str:
  """The last score with its interval: '2.1889 ±0.0123'."""
  if result.final is None:
    return NONE
  if result.low is None or result.high is None:
    return f'{result.final:.4f}'
  half = (result.high - result.low) / 2
  if result.over == 'items':  # percentiles: not the same on both sides
    places = _digits(half)
    return f'{result.final:.{places}f} [{result.low:.{places}f}, {result.high:.{places}f}]'
  return f'{result.final:.{_digits(half)}f} ±{half:.{_digits(half)}f}'


def difference(versus: Versus | None) -> str:
  """The difference to the baseline with its interval: '-0.0312 ±0.0100'."""
  if versus is None:
    return ''
  if versus.low is None or versus.high is None:
    return f'{versus.value:+.4f}'
  half = (versus.high - versus.low) / 2
  return f'{versus.value:+.{_digits(half)}f} ±{half:.{_digits(half)}f}'


def verdict(versus: Versus | None) -> str:
  """'better*' and so on."""
  return '' if versus is None else versus.verdict + '*' * versus.holds


def speedup(found: SpeedUp | None) -> str:
  """'×1.28 1.10–1.49', or why there is none."""
  if found is None or found.value is None:
    return '' if found is None else NONE
  ends = (
    ''
    if found.low is None or found.high is None
    else f' {_factor(found.low)}–{_factor(found.high)}'
  )
  missed = '†' if found.reached < found.runs else ''
  return f'{found.bound}×{_factor(found.value)}{missed}{ends}'


def speedup_notes(results: Sequence[Result]) -> list[str]:
  """What must be said of a score's speed-ups beside their numbers."""
  found = [(r.setting, r.speedup) for r in results if r.speedup]
  notes = []
  missed: dict[str, list[str]] = {}
  for name, s in found:
    if s.value is not None and s.reached < s.runs:
      limit = f', which bounds the speed-up to it: below ×{_factor(s.limit)}' if s.limit else ''
      missed.setdefault(f'{s.runs - s.reached} of {s.runs} runs{limit}', []).append(name)
  if missed:
    which = '; '.join(f'{", ".join(names)} ({count})' for count, names in missed.items())
    notes.append(
      f"† the baseline's best score is not reached by {which}. The speed-up is to the best score that both reach "
      'by the last evaluation that both have'
    )
  if any(s.bound for _, s in found):
    notes.append('≥ and ≤: the score was there at the first evaluation, so the speed-up is a bound')
  notes += [f'{name}: {s.caveat}' for name, s in found if s.caveat]
  reasons: dict[str, list[str]] = {}
  for name, s in found:
    if s.value is None:
      reasons.setdefault(s.why, []).append(name)
  return notes + [f'no speed-up for {", ".join(names)}: {why}' for why, names in reasons.items()]


def dose(source: Source) -> str:
  """What LINK replaced in a source."""
  if not source.dose:
    return '' if not source.linked else 'LINK'
  return (
    f'{source.dose.get("realised_all", math.nan):.1%} of words replaced '
    f'({source.dose.get("replaced", 0):,.0f})'
  )


# ── parts ───────────────────────────────────────────────────────────────────────


def _opening(comparison: Comparison) -> str:
  lines = []
  for setting in comparison.settings:
    tokens = sorted({run.trained for run in setting.runs})
    reach = f'{tokens[0]:,}' if len(tokens) == 1 else f'{tokens[0]:,} to {tokens[-1]:,}'
    role = (
      ', baseline' if setting.name == comparison.baseline and len(comparison.settings) > 1 else ''
    )
    seeds = 'seed' if len(setting.runs) == 1 else 'seeds'
    lines.append(f'{setting.name}{role}: {len(setting.runs)} {seeds}, {reach} tokens')
  lines.append(f'Intervals at {comparison.level:.0%}.')
  return '\n'.join(_fill(line) for line in lines)


def _table(table: Table, baseline: str) -> str:
  lines = ['', f'{table.name}   ({direction(table)})']
  alone = len(table.results) == 1
  header = ('', 'final') if alone else ('', 'final', 'difference', 'verdict', 'speed-up')
  rows = [header]
  for result in table.results:
    row = [_clip(result.setting, 14), final(result)]
    if not alone:
      own = result.setting == baseline
      row += ['baseline' if own else difference(result.versus), verdict(result.versus), speedup(result.speedup)]  # fmt: skip
    rows.append(tuple(row))
  widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
  lines += [
    '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for row in rows
  ]
  notes = table_notes(table)
  lines += [_fill(note, '  ') for note in notes]
  return '\n'.join(lines)


def table_notes(table: Table) -> list[str]:
  """What must be said beside the numbers of a score."""
  notes = speedup_notes(table.results)
  for result in table.results:
    if result.versus and result.versus.why:
      notes.append(f'{result.setting}: {result.versus.why}')
    notes += [f'{result.setting}: {note}' for note in result.notes]
    if result.versus and result.versus.over == 'items':
      notes.append(f'{result.setting}: the interval of the difference is over items')
    notes.append(multiplier_note(result, table))
  notes += table.remarks
  return [note for note in notes if note]


def multiplier_note(result: Result, table: Table) -> str:
  """The data-equivalence multiplier in words; '' where there is none."""
  found = result.multiplier
  if found is None:
    return ''
  if math.isinf(found.value):
    return (
      f'{result.setting}: data multiplier without bound: beyond the E of the law, {table.law.e:.4f}'
    )
  ends = ''
  if found.low is not None and found.high is not None:
    ends = f' ({found.low:.2f} to {"∞" if math.isinf(found.high) else f"{found.high:.2f}"})'
  beyond = '' if found.within else ', beyond the pools that were fitted'
  return (
    f'{result.setting}: data multiplier {found.value:.2f}{ends}: worth {found.value * found.unique:,.0f} '
    f'unique tokens for its {found.unique:,}{beyond}'
  )


def _differences(comparison: Comparison) -> list[str]:
  if not comparison.differences:
    return []
  lines = ['DIFFERENCES IN CONFIGURATION']
  for entry in comparison.differences:
    values = [
      f'{setting.name} {value}'
      for setting, value in zip(comparison.settings, entry.values, strict=True)
    ]
    meant = ' (meant)' if entry.meant else ''
    lines.append(_fill(f'{entry.name}{meant}: {"; ".join(values)}', '  '))
  return [*lines, '']


def _sources(settings: Sequence[Setting]) -> list[str]:
  lines = ['READ OF EACH SOURCE']
  for setting in settings:
    for source in setting.sources:
      parts = [
        NONE if source.tokens is None else f'{source.tokens:,.0f} tokens',
        NONE if source.repetitions is None else f'{source.repetitions:.2f} passes',
        dose(source),
      ]
      lines.append(
        _fill(f'{setting.name}, {source.task}: {", ".join(p for p in parts if p)}', '  ')
      )
  return [*lines, ''] if len(lines) > 1 else []


# ── small things ────────────────────────────────────────────────────────────────


def _fill(text: str, indent: str = '') -> str:
  return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + '  ',
                       break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _clip(text: str, length: int) -> str:
  return text if len(text) <= length else text[: length - 1] + '…'


def _digits(half: float) -> int:
  """Decimals of a number with such an interval: 2 to 4, or 6 where it is below 0.0001."""
  if not 0 < half < 1e-4:
    return 4 if not half else min(4, max(2, 1 - math.floor(math.log10(half))))
  return 6


def _factor(value: float) -> str:
  return f'{value:.2f}' if value < 100 else f'{value:.3g}'
