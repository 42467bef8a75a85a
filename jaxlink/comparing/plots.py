"""The plots of a comparison: drawn by matplotlib, taken into the page as SVG whose colours follow the page's.

In: tables of a comparison. Out: elements of the page's tree, or None where there is nothing to draw.

Easy to get wrong: names within the SVG. All plots stand in one page, so ids are made unique by the plot's
number; and colours are names that the page's style sheet knows in light and dark, of which matplotlib sees
stand-ins.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from jaxlink.comparing.results import Result, Table

DASHES = ('-', '--', ':')
COLOURS = 7
MARKERS = 'os^DvPX'
_SIZE = (5.0, 3.3)  # inches of 72 points, so about the width of a telephone in points
# What matplotlib draws with → what the page draws with.
_STANDINS = {
  '#000001': 'var(--ink)', '#000002': 'var(--quiet)', '#000003': 'var(--line)',
  **{f'#0000{k + 16:02x}': f'var(--c{k})' for k in range(COLOURS)},
}  # fmt: skip
_INK, _QUIET, _LINE = list(_STANDINS)[:3]
_TOKENS = ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


def style(index: int) -> tuple[int, int]:
  """Number of a setting's colour and of its dashes; the first setting is 0, 0."""
  return index % COLOURS, index // COLOURS % len(DASHES)


def curves(table: Table, number: int) -> ET.Element | None:
  """A score over trained tokens: mean of the seeds, and their range."""
  drawn = [(i, r) for i, r in enumerate(table.results) if r.band and any(r.band.tokens)]
  if not drawn:
    return None
  figure, axes = _figure()
  for i, result in drawn:
    points = [p for p in zip(*_columns(result), strict=True) if p[0] > 0]  # a logarithm has no 0
    tokens, mean, low, high = (list(column) for column in zip(*points, strict=True))
    if result.n > 1:
      axes.fill_between(tokens, low, high, color=_colour(i), alpha=0.18, linewidth=0)
    axes.plot(tokens, mean, markersize=_marks(len(drawn), len(tokens)), **_line(i))
  if table.chance is not None:
    axes.axhline(table.chance, color=_QUIET, linewidth=1, linestyle=(0, (2, 3)))
    axes.annotate('chance', (1, table.chance), xycoords=('axes fraction', 'data'), ha='right', va='bottom', color=_QUIET)  # fmt: skip
  _tokens_axis(axes, 'trained tokens')
  axes.set_ylabel(_unit(table))
  return _svg(figure, number, f'{table.name} over trained tokens: {_ends(table.results)}')


def speedups(table: Table, number: int) -> ET.Element | None:
  """The speed-up over levels of the score, with its interval over seeds."""
  drawn = [
    (i, r.setting, r.speedup) for i, r in enumerate(table.results) if r.speedup and r.speedup.curve
  ]
  if not drawn:
    return None
  figure, axes = _figure()
  values = [value for _, _, found in drawn for value in found.curve]
  for i, _, found in drawn:
    if found.curve_low:
      axes.fill_between(found.levels, found.curve_low, found.curve_high, color=_colour(i), alpha=0.15, linewidth=0)  # fmt: skip
    axes.plot(found.levels, found.curve, markersize=0, **_line(i))
  axes.axhline(1, color=_colour(0), linewidth=1.5)
  if table.better == 'lower':
    axes.invert_xaxis()  # better to the right, as training goes
  least, most = min(1.0, *values), max(1.0, *values)
  axes.set_ylim(least / 1.25, most * 1.25)  # a band of two seeds may be far wider
  axes.set_xlabel(f'{_unit(table)}, better to the right')
  axes.set_ylabel('speed-up')
  axes.yaxis.set_major_formatter(lambda value, _: f'×{value:.3g}')
  text = '; '.join(
    f'{name} ×{found.curve[-1]:.2f} at the best score that all reach' for _, name, found in drawn
  )
  return _svg(figure, number, f'Speed-up over levels of {table.name}: {text}')


def law(table: Table, number: int) -> ET.Element | None:
  """Monolingual runs over their unique tokens, the law through them, and the score of each setting."""
  if table.law is None:
    return None
  figure, axes = _figure()
  pools = [unique for unique, _ in table.pools]
  low, high = min(pools), max(pools)
  grid = [low * (high / low) ** (k / 60) for k in range(61)]
  axes.plot(grid, [table.law.loss(unique) for unique in grid], color=_INK, linewidth=1.5)
  axes.plot(pools, [score for _, score in table.pools], 'o', color=_INK, markersize=5)
  for i, result in enumerate(table.results):
    if result.multiplier:
      axes.plot([result.multiplier.unique], [result.multiplier.score], markersize=7, **_line(i))
      axes.axhline(
        result.multiplier.score, color=_colour(i), linewidth=1, linestyle=DASHES[style(i)[1]]
      )
  _tokens_axis(axes, 'unique tokens of the target language')
  axes.set_ylabel(_unit(table))
  e, b, beta = table.law.e, table.law.b, table.law.beta
  text = f'L(U) = {e:.4g} + {b:.4g} · U^-{beta:.4g}, from {len(pools)} monolingual runs'
  return _svg(figure, number, f'{table.name} of monolingual runs over their unique tokens: {text}')


# ── drawing ─────────────────────────────────────────────────────────────────────


def _figure() -> tuple[Any, Any]:
  import matplotlib
  from matplotlib.figure import Figure

  matplotlib.rcParams.update({'svg.fonttype': 'none', 'font.size': 11, 'axes.unicode_minus': False})
  figure = Figure(_SIZE, dpi=72, layout='constrained')
  axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(_LINE)
  axes.tick_params(color=_LINE, labelcolor=_QUIET)
  axes.grid(axis='y', color=_LINE, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.xaxis.label.set_color(_QUIET)
  axes.yaxis.label.set_color(_QUIET)
  axes.locator_params(axis='x', nbins=5)
  return figure, axes


def _colour(index: int) -> str:
  return list(_STANDINS)[3 + style(index)[0]]


def _line(index: int) -> dict[str, Any]:
  colour, dash = style(index)
  return {
    'color': _colour(index), 'linestyle': DASHES[dash], 'marker': MARKERS[colour], 'linewidth': 1.8,
  }  # fmt: skip


def _marks(lines: int, points: int) -> float:
  """Size of the marks of evaluated points: none where they would run into one another."""
  if points == 1:
    return 6
  return 4 if lines <= 5 and points < 25 else 0


def _columns(result: Result) -> tuple[Sequence[float], ...]:
  band = result.band
  return band.tokens, band.mean, band.low, band.high


def _tokens_axis(axes: Any, label: str) -> None:
  from matplotlib import ticker

  axes.set_xscale('log')
  low, high = axes.get_xlim()
  wide = high / low > 30
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.xaxis.set_major_formatter(lambda value, _: short(value))
  axes.set_xlabel(label)


def short(tokens: float) -> str:
  """A number of tokens as axes show it: '1.5M'."""
  for size, letter in _TOKENS:
    if tokens >= size:
      return f'{tokens / size:.3g}{letter}'
  return f'{tokens:.3g}'


def _unit(table: Table) -> str:
  return {'bits_per_byte': 'bits per byte', 'gap': 'gap, nats'}.get(
    table.measure, table.measure.replace('_', ' ')
  )


def _ends(results: Sequence[Result]) -> str:
  return ', '.join(f'{r.setting} {r.final:.4f}' for r in results if r.final is not None)


# ── into the page ───────────────────────────────────────────────────────────────


def _svg(figure: Any, number: int, title: str) -> ET.Element:
  """The figure as an element of the page: no file of its own, no fonts, colours by name."""
  buffer = io.StringIO()
  figure.savefig(buffer, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
  root = ET.fromstring(buffer.getvalue())
  for parent in list(root.iter()):
    for child in list(parent):
      if child.tag.endswith(('metadata', 'style')):
        parent.remove(child)
  referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', buffer.getvalue()))
  kept = {name for pair in referred for name in pair if name}
  for element in root.iter():
    element.tag = element.tag.rpartition('}')[2]
    attributes = {key.rpartition('}')[2]: value for key, value in element.attrib.items()}
    if attributes.get('id') not in kept:
      attributes.pop('id', None)
    element.attrib = {key: _attribute(key, value, number) for key, value in attributes.items()}
    if element.tag != 'text':
      element.text = element.tail = None  # line breaks
    else:
      element.tail = None
  for name in ('width', 'height', 'version'):
    root.attrib.pop(name, None)
  root.attrib |= {'class': 'plot', 'role': 'img', 'aria-label': title}
  return root


def _attribute(key: str, value: str, number: int) -> str:
  if key == 'id':
    return f'p{number}-{value}'
  if key == 'href':
    return value.replace('#', f'#p{number}-')
  value = re.sub(r'url\(#', f'url(#p{number}-', value)
  value = re.sub(r'font: ([\d.]+px) [^;]*', r'font-size: \1', value)
  return re.sub('#[0-9a-f]{6}', lambda found: _STANDINS.get(found[0], found[0]), value)
