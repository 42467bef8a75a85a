"""What came out of a study, as tables: a row for each run, text and dose, last scores by setting, curves over tokens.

In: the arms' directories. Out: runs.csv, and Markdown for a terminal and for docs/studies.

Easy to get wrong: means over different seeds. Differences are taken seed by seed, and a mean in a curve is over
the seeds that all settings have reached, so that a study half done does not compare seed 0 with seeds 0 to 2.
"""

import csv
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from jaxlink.comparing import speedup
from jaxlink.comparing import statistics as intervals
from jaxlink.comparing.curves import Curve
from jaxlink.evaluation.records import read_evaluations
from tools.study_grid import Arm, Study
from tools.study_runner import LOG

Row = dict[str, Any]

_SCORE = 'bits_per_byte/'


def plan(study: Study, arms: Sequence[Arm]) -> str:
  """The grid before it is run: what makes each setting, and how far each run is."""
  made = {arm.setting: '; '.join(study.settings[arm.setting]) or 'as it stands' for arm in arms}
  lines = [
    [
      arm.setting,
      arm.seed,
      f'{arm.step:,} of {arm.run.steps:,}',
      f'{arm.tokens:,}',
      arm.run.directory,
    ]
    for arm in arms
  ]
  tokens = sum(arm.tokens for arm in arms)
  parts = [
    study.purpose,
    *(f'{setting}: {what}' for setting, what in made.items()),
    markdown(['setting', 'seed', 'steps done', 'tokens', 'directory'], lines),
    f'{len(arms)} runs of {tokens:,} tokens; baseline {study.baseline!r}',
  ]
  return '\n\n'.join(filter(None, parts))


def report(study: Study, arms: Sequence[Arm]) -> str:
  """Writes runs.csv and returns all tables as Markdown."""
  found = rows(study, arms)
  names = columns(found)
  write_csv(pathlib.Path(study.directory) / 'runs.csv', found)
  parts = [study.purpose, markdown(names, [[row.get(name) for name in names] for row in found])]
  if any(row['status'] == 'finished' for row in found):
    parts += [sources_read(arms), doses(arms), last_scores(study, found), speed_ups(study, arms)]
    # Controls that came later have a table of their own, so that fewer seeds of them hide none of the others.
    chosen = study.chosen or tuple(study.settings)
    groups = (
      [arm for arm in arms if arm.setting in chosen],
      [arm for arm in arms if arm.setting not in chosen or arm.setting == study.baseline],
    )
    parts += [curves(group) for group in groups if len({arm.setting for arm in group}) > 1]
  return '\n\n'.join(filter(None, parts))


def rows(study: Study, arms: Sequence[Arm]) -> list[Row]:
  """A row for each run, finished or not: its state, and the numbers of its last checkpoint.

  'repetitions/SOURCE' is of the run so far; 'replaced' the share of the words of all sources under LINK;
  'bits_per_byte/TEXT' the score at that step; 'seconds' the time of all its starts, start-up, compilation and
  evaluation included, and 'tokens_per_second' what that makes.
  """
  seconds: dict[tuple[str, int], float] = {}
  log = pathlib.Path(study.directory) / LOG
  lines = log.read_text(encoding='utf-8', errors='replace').splitlines() if log.exists() else []
  for number, line in enumerate(lines, 1):
    try:
      start = json.loads(line)
      key = start['setting'], start['seed']
    except (ValueError, TypeError, KeyError):
      if line.strip():
        print(f'{log}, line {number} is not whole; its seconds are not counted', file=sys.stderr)
      continue
    seconds[key] = seconds.get(key, 0.0) + start['seconds']
  return [_row(arm, seconds.get((arm.setting, arm.seed))) for arm in arms]


def _row(arm: Arm, seconds: float | None) -> Row:
  step, tokens = arm.step, arm.run.tokens_at(arm.step)
  status = 'finished' if arm.complete else 'begun' if step else 'not begun'
  row: Row = {
    'setting': arm.setting,
    'seed': arm.seed,
    'status': status,
    'steps': step,
    'tokens': tokens,
  }
  if step:
    meta = _meta(arm)
    for source, account in meta['accounts'].items():
      row[f'repetitions/{source}'] = round(account['all_repetitions'], 3)
    doses = [dose for stage in meta['counts'] for dose in stage.values()]
    words = sum(dose['words_seen'] for dose in doses)
    row['replaced'] = round(sum(d['replaced'] for d in doses) / words, 4) if words else 0.0
    scores = read_evaluations(arm.directory).get(step, {}).get('bits_per_byte', {})
    row |= {f'{_SCORE}{text}': round(v, 4) for text, v in scores.items() if v is not None}
  if seconds is not None:
    row['seconds'] = round(seconds, 1)
  if seconds:
    row['tokens_per_second'] = round(tokens / seconds)
  return row


def sources_read(arms: Sequence[Arm]) -> str:
  """What finished runs of each setting have read of each source, means over seeds."""
  lines = []
  for setting, metas in _finished(arms).items():
    kept = {
      arm.setting: json.loads((arm.directory / 'stages.json').read_text())
      for arm in arms
      if arm.complete
    }
    unique = {k: v for stage in kept[setting]['stages'] for k, v in stage['tokens'].items()}
    for source in metas[0]['accounts']:
      found = [meta['accounts'][source] for meta in metas]
      tokens = statistics.mean(account['all_tokens'] for account in found)
      whole = statistics.mean(meta['trained_tokens'] for meta in metas)
      lines.append([
        setting, source, f'{unique[source]:,}', f'{tokens:,.0f}', f'{tokens / whole:.2%}',
        f'{statistics.mean(account["all_repetitions"] for account in found):.3f}',
      ])  # fmt: skip
  return markdown(
    ['setting', 'source', 'unique tokens', 'tokens read', 'share', 'repetitions'], lines
  )


def doses(arms: Sequence[Arm]) -> str:
  """What LINK did in the finished runs of each setting, means over seeds; '' where no run has LINK.

  'inserted' is the share of the tokens read in the source's stream that LINK put there; then of all that
  the runs read.
  """
  lines = []
  for setting, metas in _finished(arms).items():
    for source in {source: None for meta in metas for stage in meta['counts'] for source in stage}:
      found = [stage[source] for meta in metas for stage in meta['counts'] if source in stage]
      dose = {name: sum(one[name] for one in found) / len(metas) for name in found[0]}
      read = statistics.mean(meta['accounts'][source]['all_tokens'] for meta in metas)
      inflation = 1 + (dose['tokens_inserted'] - dose['tokens_removed']) / dose['tokens_read']
      words = f'{dose["words_seen"]:,.0f}'
      shares = (
        dose[name] / dose['words_seen']
        for name in ('covered', 'eligible', 'replaced', 'stop_replaced')
      )
      lines.append([
        setting, source, words, *(f'{share:.1%}' for share in shares), f'{inflation:.3f}',
        f'{dose["tokens_inserted"] / read:.1%}',
        f'{dose["tokens_inserted"] / statistics.mean(meta["trained_tokens"] for meta in metas):.1%}',
      ])  # fmt: skip
  header = ['setting', 'source', 'words', 'covered', 'eligible', 'replaced', 'stop words replaced',
            'inflation', 'inserted tokens', 'of all tokens']  # fmt: skip
  return markdown(header, lines) if lines else ''


def _finished(arms: Sequence[Arm]) -> dict[str, list[dict[str, Any]]]:
  """What lies in the last checkpoints of finished runs, by setting."""
  found: dict[str, list[dict[str, Any]]] = {}
  for arm in arms:
    if arm.complete:
      found.setdefault(arm.setting, []).append(_meta(arm))
  return found


def _meta(arm: Arm) -> dict[str, Any]:
  path = arm.directory / 'checkpoints' / str(arm.step) / 'meta' / 'metadata'
  return json.loads(path.read_text(encoding='utf-8'))


def columns(found: Sequence[Row]) -> list[str]:
  """All columns, related ones side by side."""
  names = list(dict.fromkeys(name for row in found for name in row))
  groups = list(dict.fromkeys(name.split('/')[0] for name in names))
  return sorted(names, key=lambda name: groups.index(name.split('/')[0]))


def write_csv(path: pathlib.Path, found: Sequence[Row]) -> None:
  """Writes rows whose columns may differ; what a run does not have is empty."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, columns(found))
    writer.writeheader()
    writer.writerows(found)


def markdown(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
  """A table as Markdown, its columns of numbers to the right."""
  cells = [['' if cell is None else str(cell) for cell in line] for line in lines]
  numbers = [
    all(re.fullmatch(r'[-+.,%\d ]*', line[k]) for line in cells) for k in range(len(header))
  ]
  rule = ['--:' if number else '---' for number in numbers]
  return '\n'.join(f'| {" | ".join(line)} |' for line in [list(header), rule, *cells])


def last_scores(study: Study, found: Sequence[Row]) -> str:
  """Each setting's last scores over its finished runs, and the differences to the baseline seed by seed."""
  lines = []
  for name in (name for name in columns(found) if name.startswith(_SCORE)):
    scores: dict[str, dict[int, float]] = {}
    for row in found:
      if row['status'] == 'finished' and name in row:
        scores.setdefault(row['setting'], {})[row['seed']] = row[name]
    base = scores.get(study.baseline, {})
    for setting, by_seed in scores.items():
      values = list(by_seed.values())
      paired = [value - base[seed] for seed, value in by_seed.items() if seed in base]
      if setting == study.baseline:
        paired = []
      lines.append([
        name.removeprefix(_SCORE), setting, ' '.join(map(str, by_seed)), _number(statistics.mean(values)),
        _number(statistics.stdev(values)) if len(values) > 1 else None,
        _number(statistics.mean(paired), '+') if paired else None, _interval(paired, '+.4f'),
        ', '.join(_number(value, '+') for value in paired),
      ])  # fmt: skip
  header = ['text', 'setting', 'seeds', 'mean bits per byte', 'standard deviation',
            f'minus {study.baseline!r}, mean', 'interval of 95 %', 'by seed']  # fmt: skip
  return markdown(header, lines)


def curves(arms: Sequence[Arm]) -> str:
  """Bits per byte of each text over trained tokens: means over the seeds that all settings have reached."""
  scores: dict[str, dict[int, dict[str, dict[int, float]]]] = {}  # text, tokens, setting, seed
  for arm in arms:
    for record in read_evaluations(arm.directory).values():
      for text, score in record['bits_per_byte'].items():
        if score is not None:
          at = scores.setdefault(text, {}).setdefault(record['trained_tokens'], {})
          at.setdefault(arm.setting, {})[arm.seed] = score
  names = list(dict.fromkeys(arm.setting for arm in arms))
  lines = []
  for text, by_tokens in scores.items():
    having = [name for name in names if any(name in at for at in by_tokens.values())]
    for tokens, at in sorted(by_tokens.items()):
      seeds = set.intersection(*(set(at.get(name, {})) for name in having))
      means = [
        _number(statistics.mean(at[name][seed] for seed in seeds))
        if seeds and name in having
        else None
        for name in names
      ]
      if seeds:
        lines.append([text, f'{tokens:,}', *means, ' '.join(map(str, sorted(seeds)))])
  return markdown(['text', 'tokens', *names, 'seeds'], lines)


def speed_ups(study: Study, arms: Sequence[Arm]) -> str:
  """How many tokens the baseline needs per token of each other setting, to the best score that both reach.

  As `python -m jaxlink.compare` has it, of finished pairs of runs; '' where there are none.
  """
  found: dict[tuple[str, str], dict[int, Curve]] = {}
  for arm in arms:
    points: dict[str, list[tuple[int, float]]] = {}
    for record in read_evaluations(arm.directory).values() if arm.complete else ():
      for text, score in record['bits_per_byte'].items():
        if score is not None:
          points.setdefault(text, []).append((record['trained_tokens'], score))
    for text, pairs in points.items():
      tokens, values = zip(*sorted(pairs), strict=True)
      found.setdefault((text, arm.setting), {})[arm.seed] = Curve(tokens, values, 'lower')
  lines = []
  for (text, setting), curves_of in found.items():
    base = found.get((text, study.baseline), {})
    seeds = sorted(set(base) & set(curves_of))
    if setting == study.baseline or not seeds:
      continue
    of = speedup.of_pairs([(base[seed], curves_of[seed]) for seed in seeds], 0.95)
    each = [speedup.of_pairs([(base[seed], curves_of[seed])], 0.95).value for seed in seeds]
    ends = '' if of.low is None else f'{of.low:.2f} to {of.high:.2f}'
    lines.append([
      text, setting, ' '.join(map(str, seeds)), of.why or f'{of.bound}{of.value:.2f}', ends,
      ', '.join('–' if one is None else f'{one:.2f}' for one in each), f'{of.reached} of {of.runs}',
    ])  # fmt: skip
  header = ['text', 'setting', 'seeds', 'speed-up', 'interval of 95 %', 'by seed',
            f'reach the best of {study.baseline!r}']  # fmt: skip
  return markdown(header, lines) if lines else ''


def _interval(values: Sequence[float], form: str) -> str:
  found = intervals.of_mean(values, 0.95, 'paired')
  return '' if found is None else f'{found.low:{form}} to {found.high:{form}}'


def _number(value: float, sign: str = '') -> str:
  return f'{value:{sign}.4f}'
