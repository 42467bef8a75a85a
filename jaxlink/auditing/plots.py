"""Tables, bars and one plot, as HTML and inline SVG whose colours follow the page's.

Easy to get wrong: a bar without its number. Every bar has one in its row or its title, for those who do not
see it.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from jaxlink.auditing.markup import Child, tag

Part = tuple[str, float]  # class of the colour, share of the whole

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 20, 48


def table(
  header: Sequence[str], rows: Sequence[Sequence[Child]], *, left: int = 1, bar: bool = False,
  numbers: bool = True,
) -> ET.Element:  # fmt: skip
  """A table whose first columns are names and whose others are numbers; the last may be bars."""

  def class_of(column: int) -> str | None:
    if bar and column == len(header) - 1:
      return 'bar'
    return 'n' if numbers and column >= left else None

  def first(cell: Child) -> ET.Element:
    part = isinstance(cell, str) and cell.startswith('  ')
    return tag('th', cell.strip() if isinstance(cell, str) else cell, scope='row',
               class_='part' if part else None)  # fmt: skip

  head = tag(
    'tr', [tag('th', text, class_=class_of(i), scope='col') for i, text in enumerate(header)]
  )
  body = [
    tag(
      'tr',
      first(row[0]),
      [tag('td', cell, class_=class_of(i)) for i, cell in enumerate(row[1:], 1)],
    )
    for row in rows
  ]
  return tag('div', tag('table', tag('thead', head), tag('tbody', body)), class_='scroll')


def bar(parts: Sequence[Part]) -> ET.Element:
  """One bar; what the parts leave of 1 is empty."""
  spans = [
    tag('span', class_=name, style=f'width:{100 * part:.2f}%', title=f'{part:.1%}')
    for name, part in parts if part > 0
  ]  # fmt: skip
  return tag('div', spans, class_='track')


def stacked(rows: Sequence[tuple[str, Sequence[Part], float]], header: str) -> ET.Element:
  """Bars under each other, each with its name and a share; `header` says of what."""
  body = [
    tag('tr', tag('th', name, scope='row'), tag('td', bar(parts), class_='bar', style='width:75%'),
        tag('td', f'{share:.1%}', class_='n'))
    for name, parts, share in rows
  ]  # fmt: skip
  head = tag('tr', tag('th'), tag('th'), tag('th', header, class_='n', scope='col'))
  return tag('div', tag('table', tag('thead', head), tag('tbody', body)), class_='scroll')


def key(entries: Sequence[tuple[str, str]]) -> ET.Element:
  """What the colours mean."""
  return tag('ul', [tag('li', tag('i', class_=name), text) for name, text in entries], class_='key')


def dose(ceiling: float, ratio: float, ratio_of: str) -> ET.Element:
  """The share of all words that is replaced against the ratio, under both readings of it.

  Args:
    ceiling: eligible words, as a share of all.
    ratio: of the policy, which is marked.
    ratio_of: its reading.
  """
  top = min(1.0, max(0.1, 1.3 * ceiling))
  x = lambda value: _LEFT + value * (_WIDTH - _LEFT - _RIGHT)  # noqa: E731
  y = lambda value: _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)  # noqa: E731

  def line(
    x1: float, y1: float, x2: float, y2: float, class_: str, dash: str | None = None
  ) -> ET.Element:
    return tag('line', x1=f'{x(x1):.1f}', y1=f'{y(y1):.1f}', x2=f'{x(x2):.1f}', y2=f'{y(y2):.1f}',
               class_=class_, stroke_width=1 if class_ == 'axis' else 2.5, stroke_dasharray=dash)  # fmt: skip

  def text(
    at: float, up: float, words: str, class_: str | None = None, anchor: str = 'middle'
  ) -> ET.Element:
    return tag('text', words, x=f'{at:.1f}', y=f'{up:.1f}', class_=class_, text_anchor=anchor)

  step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.25) if top / s <= 5 or s == 0.25)
  levels = [step * n for n in range(int(top / step) + 1)]
  point = min(ratio, ceiling) if ratio_of == 'all' else ratio * ceiling
  flip = ratio > 0.75
  return tag(
    'svg',
    tag('title', f'Words replaced against word_ratio; the ceiling is {ceiling:.2%} of all words.'),
    [line(0, level, 1, level, 'axis') for level in levels],
    [text(_LEFT - 8, y(level) + 5, f'{level:.0%}', 'quiet', 'end') for level in levels],
    [text(x(n / 4), _HEIGHT - _BOTTOM + 20, f'{n / 4:g}', 'quiet') for n in range(5)],
    text(x(0.5), _HEIGHT - 8, 'word_ratio', 'quiet'),
    line(0, 0, 1, ceiling, 'covered'),
    line(0, 0, ceiling, ceiling, 'all'),
    line(ceiling, ceiling, 1, ceiling, 'all', '3 5'),
    text(x(max(0.02, ceiling - 0.02)), y(ceiling) - 10, 'of all words', 'all-text',
         'end' if ceiling > 0.3 else 'start'),
    text(x(0.98), y(ceiling) - 10, f'ceiling {ceiling:.1%}', None, 'end'),
    text(x(0.82), y(0.8 * ceiling) + 30, 'of the eligible', 'covered-text'),
    tag('circle', cx=f'{x(ratio):.1f}', cy=f'{y(point):.1f}', r=6, class_='dot'),
    text(x(ratio) + (-12 if flip else 12), y(point) + 18, 'the policy', None, 'end' if flip else 'start'),
    viewBox=f'0 0 {_WIDTH} {_HEIGHT}', role='img',
  )  # fmt: skip
