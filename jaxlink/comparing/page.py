"""A comparison as one page of HTML: opens from the disk, loads nothing, light and dark, wide and narrow.

Easy to get wrong: a plot without its numbers. Whatever is drawn stands in a table, too, for those who do not
see it.
"""

import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from jaxlink import auditing
from jaxlink.auditing import plots as tables
from jaxlink.auditing.markup import Child, bdi, tag, to_html
from jaxlink.comparing import plots, terminal
from jaxlink.comparing.results import Comparison, Result, Table, Versus

_STYLES = (
  pathlib.Path(auditing.__file__).with_name('page.css'),
  pathlib.Path(__file__).with_name('page.css'),
)
_TILES = 4
_MARKS = {'better': '▲', 'worse': '▼', 'no difference': '=', 'too few seeds': '·'}
_GLYPHS = {'o': '●', 's': '■', '^': '▲', 'D': '◆', 'v': '▼', 'P': '✚', 'X': '✖'}


def render(comparison: Comparison) -> str:
  """Returns the page.

  Raises:
    ValueError: matplotlib is not installed.
  """
  try:
    import matplotlib  # noqa: F401
  except ModuleNotFoundError:
    raise ValueError("--html needs matplotlib: pip install 'jaxlink[plots]'") from None
  title = _title(comparison)
  head = tag(
    'head',
    tag('meta', charset='utf-8'),
    tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
    tag('meta', http_equiv='Content-Security-Policy',
        content="default-src 'none'; style-src 'unsafe-inline'"),
    tag('title', f'{title} – a comparison'),
    tag('style', '\n'.join(path.read_text(encoding='utf-8') for path in _STYLES)),
  )  # fmt: skip
  body = tag(
    'body', _summary(comparison, title), _glance(comparison), list(_scores(comparison)), _differences(comparison),
    _read(comparison), _runs(comparison), _how(comparison),
    tag('footer', 'Made by ', tag('code', 'python -m jaxlink.compare'), '.'),
  )  # fmt: skip
  return f'<!DOCTYPE html>\n{to_html(tag("html", head, body, lang="en"))}\n'


# ── the parts of the page ───────────────────────────────────────────────────────


def _title(comparison: Comparison) -> str:
  names = [setting.name for setting in comparison.settings]
  if len(names) == 1:
    return names[0]
  others = names[1:]
  more = f' and {len(others) - 4} more' if len(others) > 5 else ''
  shown = ', '.join(others[:4] if more else others)
  return f'{shown}{more} against {names[0]}'


def _summary(comparison: Comparison, title: str) -> Child:
  lead = (
    f'{len(comparison.settings)} settings; every other one is held against {comparison.baseline}. Intervals and '
    f'verdicts at {comparison.level:.0%}, over seeds.'
  )
  if len(comparison.settings) == 1:
    lead = 'The scores of one setting. Give a second one to compare it with.'
  parts: list[Child] = [tag('h1', bdi(title)), tag('p', lead, class_='lead')]
  if tiles := _tiles(comparison):
    parts.append(
      tag('ul', [tag('li', tag('b', a), tag('span', b)) for a, b in tiles], class_='tiles')
    )
  if comparison.warnings:
    parts += [
      tag('h3', 'Read with care'),
      tag('ul', [tag('li', bdi(text)) for text in comparison.warnings], class_='findings warnings'),
    ]
  return parts


def _tiles(comparison: Comparison) -> list[tuple[str, str]]:
  """The speed-up of each setting by the first score; for one setting, its scores."""
  if len(comparison.settings) == 1:
    return [
      (f'{t.results[0].final:.3f}', _spaced(t))
      for t in comparison.tables[:_TILES]
      if t.results[0].n
    ]
  first, found = comparison.tables[0], []
  for result in first.results[1:][:_TILES]:
    quick = result.speedup
    if quick and quick.value is not None:
      value, _, ends = terminal.speedup(quick).partition(' ')
      ends = f' ({ends})' if ends else ', one seed each' if quick.n == 1 else f', {quick.n} seeds'
      missed = '; † the best of the baseline is not reached' if quick.reached < quick.runs else ''
      text = f'speed-up of {result.setting} over {comparison.baseline} to the same {_spaced(first)}{ends}{missed}'
      found.append((value, text))
  return found


def _spaced(table: Table) -> str:
  return f'{table.measure.replace("_", " ")} of {table.set}'


def _key(comparison: Comparison) -> ET.Element:
  """What colours, dashes and marks mean."""
  entries = []
  for i, setting in enumerate(comparison.settings):
    colour, dash = plots.style(i)
    line = tag('line', x1=0, y1=7, x2=32, y2=7, stroke_width=2.5,
               stroke_dasharray=(None, '6 4', '2 4')[dash], style=f'stroke:var(--c{colour})')  # fmt: skip
    mark = tag('text', _GLYPHS[plots.MARKERS[colour]], x=16, y=12, text_anchor='middle', style=f'fill:var(--c{colour})')  # fmt: skip
    seeds = f'{len(setting.runs)} seed{"s" if len(setting.runs) > 1 else ""}'
    entries.append(
      tag('li', tag('svg', line, mark, viewBox='0 0 32 14', aria_hidden='true'), bdi(setting.name), f' ({seeds})')
    )  # fmt: skip
  return tag('ul', entries, class_='key')


def _glance(comparison: Comparison) -> Child:
  """All verdicts in one table, where there are several scores."""
  if len(comparison.tables) < 2 or len(comparison.settings) < 2:
    return None
  others = comparison.settings[1:]
  head = tag('tr', tag('th'), [tag('th', bdi(s.name), scope='col', class_='n') for s in others])
  body = [
    tag('tr', tag('th', table.name, scope='row'),
        [tag('td', _short_verdict(result.versus), class_='n') for result in table.results[1:]])
    for table in comparison.tables
  ]  # fmt: skip
  return [
    tag('h2', 'At a glance'),
    tag('p', f'The last score less that of {comparison.baseline}, and whether it is better (▲) or worse (▼), shows '
             'no difference (=), or has too few seeds to tell (·).', class_='quiet'),
    tag('div', tag('table', tag('thead', head), tag('tbody', body)), class_='scroll'),
  ]  # fmt: skip


def _short_verdict(versus: Versus | None) -> Child:
  if versus is None:
    return terminal.NONE
  mark = tag('span', _MARKS[versus.verdict], class_=_class(versus), title=versus.verdict)
  return [terminal.difference(versus).partition(' ')[0], ' ', mark, '*' * versus.holds]


def _class(versus: Versus) -> str:
  return versus.verdict if versus.verdict in ('better', 'worse') else 'none'


def _scores(comparison: Comparison) -> Iterator[Child]:
  """A block for each score, under the language that it is of."""
  heading, number = None, 0
  for k, table in enumerate(comparison.tables):
    if heading != (heading := terminal.group_name(table)):
      yield tag('h2', heading)
    if k == 0:
      yield tag('p', 'Lines are means over seeds at evaluated tokens, bands the range of the seeds (of a speed-up, its '
                     'interval). Tokens are on a logarithmic axis, so a constant speed-up is a constant shift.', class_='quiet')  # fmt: skip
      if len(comparison.settings) > 1:
        yield _key(comparison)
    yield tag('h3', table.name, tag('span', f'   {terminal.direction(table)}', class_='quiet'))
    yield _score_table(table)
    figures = []
    for draw, caption in ((plots.curves, 'Score over trained tokens'), (plots.speedups, 'Speed-up over levels of the score'), (plots.law, 'Monolingual runs, and what each setting is worth')):  # fmt: skip
      number += 1
      if (drawn := draw(table, number)) is not None:
        figures.append(tag('figure', drawn, tag('figcaption', caption)))
    if figures:
      yield tag('div', figures, class_='plots')
    if notes := terminal.table_notes(table):
      yield tag('ul', [tag('li', bdi(note)) for note in notes], class_='notes')
    yield _values(table)


def _score_table(table: Table) -> ET.Element:
  alone = len(table.results) == 1
  header = ['', 'last score', 'seeds', 'tokens']
  if not alone:
    header[2:2] = ['less baseline', 'verdict', 'p', 'speed-up']
  rows = [_row(result, first=i == 0, alone=alone) for i, result in enumerate(table.results)]
  return tables.table(header, rows)


def _row(result: Result, *, first: bool, alone: bool) -> list[Child]:
  tokens = terminal.NONE if result.tokens is None else plots.short(result.tokens)
  row: list[Child] = [bdi(result.setting), terminal.final(result), str(result.n), tokens]
  versus = result.versus
  if alone:
    middle: list[Child] = []
  elif first:
    middle = ['baseline', '', '', '']
  elif versus is None:
    middle = [terminal.NONE] * 4
  else:
    p = terminal.NONE if versus.p is None else _probability(versus.p)
    verdict = tag('span', terminal.verdict(versus), class_=_class(versus))
    middle = [terminal.difference(versus), verdict, p, terminal.speedup(result.speedup)]
  return [*row[:2], *middle, *row[2:]]


def _probability(p: float) -> str:
  return '<.001' if p < 0.001 else f'{p:.3f}'.lstrip('0')


def _values(table: Table) -> Child:
  """The curves as numbers."""
  grid = sorted({t for r in table.results if r.band for t in r.band.tokens})
  if len(grid) < 2:
    return None
  by_tokens = [
    dict(zip(r.band.tokens, r.band.mean, strict=True)) if r.band else {} for r in table.results
  ]
  rows = [
    [f'{tokens:,}', *(f'{found[tokens]:.4f}' if tokens in found else terminal.NONE for found in by_tokens)]
    for tokens in grid
  ]  # fmt: skip
  header = ['tokens', *(result.setting for result in table.results)]
  return tag(
    'details', tag('summary', 'the curve in numbers, means over seeds'), tables.table(header, rows)
  )


def _differences(comparison: Comparison) -> Child:
  if len(comparison.settings) < 2:
    return None
  parts: list[Child] = [tag('h2', 'What differs in configuration')]
  if not comparison.differences:
    return [*parts, tag('p', 'Nothing but seeds, and where and how the runs were made.')]
  header = ['', *(setting.name for setting in comparison.settings)]
  rows = [
    [entry.name + (' (meant)' if entry.meant else ''), *(tag('span', bdi(v), class_='wrap') for v in entry.values)]
    for entry in comparison.differences
  ]  # fmt: skip
  return [*parts, tables.table(header, rows, numbers=False)]


def _read(comparison: Comparison) -> Child:
  rows: list[Sequence[Child]] = []
  for setting in comparison.settings:
    for source in setting.sources:
      dose = source.dose
      rows.append([
        bdi(setting.name), source.task, source.language,
        *(terminal.NONE if n is None else f'{n:,.0f}' for n in (source.unique, source.tokens)),
        terminal.NONE if source.repetitions is None else f'{source.repetitions:.2f}',
        f'{dose["replaced"]:,.0f}' if 'replaced' in dose else terminal.NONE,
        f'{dose["realised_all"]:.1%}' if 'realised_all' in dose else terminal.NONE,
        f'{dose["realised_covered"]:.1%}' if 'realised_covered' in dose else terminal.NONE,
        f'{dose["inflation"]:.3f}' if 'inflation' in dose else terminal.NONE,
      ])  # fmt: skip
  if not rows:
    return None
  header = ['', 'source', 'language', 'unique tokens', 'tokens read', 'passes', 'words replaced', 'of all words',
            'of the eligible', 'inflation']  # fmt: skip
  return [
    tag('h2', 'What was read, and the dose of LINK'),
    tag('p', 'Of the first seed of each setting. Shares are of the words of rewritten documents; inflation is new '
             'tokens per source token.', class_='quiet'),
    tables.table(header, rows, left=3),
  ]  # fmt: skip


def _runs(comparison: Comparison) -> Child:
  rows = []
  for setting in comparison.settings:
    for run in setting.runs:
      versions = ', '.join(f'{k} {v}' for k, v in run.versions.items() if k in ('jax', 'flax', 'optax'))  # fmt: skip
      rows.append([
        bdi(setting.name), tag('span', bdi(run.directory), class_='wrap'), '/'.join(map(str, run.seeds)), f'{run.trained:,}',
        f'{run.planned:,}', ', '.join(run.revisions) or terminal.NONE, ', '.join(run.devices) or terminal.NONE,
        versions or terminal.NONE, run.tokenizer[:12] or terminal.NONE,
      ])  # fmt: skip
  header = ['', 'directory', 'seeds: init/order/LINK', 'tokens', 'planned', 'revision', 'device', 'versions', 'tokenizer']  # fmt: skip
  return [tag('h2', 'The runs'), tables.table(header, rows, numbers=False)]


def _how(comparison: Comparison) -> Child:
  lines = [
    'Last scores: means over seeds; ± is the half of Student\'s t interval. With one seed, the interval in brackets '
    'is over the items of the set.',
    'Differences: runs with the same seeds of parameters and order are pairs, and the interval is that of the mean '
    'of their differences; where seeds are not the same, the two groups have one variance.',
    'Speed-up: tokens of the baseline over tokens of the setting to the best score that both reach, of each pair of '
    'seeds; the mean and its interval are of the logarithm. A score counts as reached when it was once: curves are '
    'the best so far. Between two evaluations the score is linear in the logarithm of tokens. Nothing is extrapolated.',
    *comparison.notes,
  ]  # fmt: skip
  if any(table.law for table in comparison.tables):
    lines.append(
      'Data multiplier: unique target tokens that a monolingual run would need for the same score, over those of '
      'the setting, by L(U) = E + B · U^-beta fitted to the monolingual runs; the same in bits per byte and nats per '
      'token. Its interval is a bootstrap of runs around the law.'
    )  # fmt: skip
  if comparison.left_out:
    lines.append(f'Not shown: {", ".join(comparison.left_out)}.')
  return [
    tag('h2', 'How it was worked out'),
    tag('ul', [tag('li', line) for line in lines], class_='findings'),
  ]
