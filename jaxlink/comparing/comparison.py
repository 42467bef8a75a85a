"""Settings against a baseline: finals, differences, verdicts, speed-ups, multipliers, as one plain object.

In: settings (`runs.read_settings`). Out: a `Comparison`, of which terminal, page and JSON are made.

Easy to get wrong: what a verdict rests on. It needs an interval over seeds. One seed each gives none: the
interval over a set's items is shown then and carries no verdict, since two seeds of one setting can lie
outside of it.
"""

import dataclasses
import fnmatch
import math
import pathlib
import re
from collections.abc import Iterator, Sequence

from jaxlink.comparing import against, differences, multiplier, statistics
from jaxlink.comparing import curves as curves_lib
from jaxlink.comparing.records import Score
from jaxlink.comparing.results import Comparison, Result, Table
from jaxlink.comparing.runs import Run, Setting
from jaxlink.names import nearest

_VARIANT = re.compile(r'(accuracy|gap)_\w+')  # other normalisations of the same number


def compare(
  settings: Sequence[Setting], *, baseline: str = '', level: float = 0.95, meant: Sequence[str] = (),
  scores: Sequence[str] = (), language: str = '', across_tokenizers: bool = False,
  monolingual: Sequence[Setting] = (),
) -> Comparison:  # fmt: skip
  """Compares settings.

  Args:
    settings: two or more, or one whose curves are wanted.
    baseline: name of a setting, or its folder; '' is the first.
    level: of intervals and verdicts, 0.5 to less than 1.
    meant: names of settings of the configuration that are meant to differ.
    scores: patterns of names such as 'xcopa_tr/*'; () leaves out other normalisations of a number.
    language: code of the language that is to gain; '' takes it from the runs.
    across_tokenizers: lets other tokenizers through, and compares bits per byte alone.
    monolingual: settings to which the multiplier's law is fitted.

  Raises:
    ValueError: they cannot be compared, a name is unknown, or there is no score.
  """
  if not 0.5 <= level < 1:
    raise ValueError(
      f'--level is {level}: it is a probability of 0.5 to less than 1, such as 0.95.'
    )
  names = [setting.name for setting in settings]
  wanted = (
    baseline if baseline in names else pathlib.PurePath(baseline).name
  )  # a setting's folder, too
  if baseline and wanted not in names:
    raise ValueError(
      f'--baseline {baseline!r} is no setting.{nearest(baseline, names)} Settings: {", ".join(names)}.'
    )
  first = next(s for s in settings if s.name == (wanted or names[0]))
  settings = [first, *(s for s in settings if s is not first)]
  chosen, left_out = _choose(settings, scores, per_byte=across_tokenizers)
  everyone = [*settings, *(s for s in monolingual if s.name not in names)]
  differences.check(everyone, {s.set for s in chosen}, across_tokenizers=across_tokenizers)
  found = differences.of_configs(settings, meant)
  warned = differences.warnings(settings, found, bool(meant))
  warned += _without(settings, chosen)
  if across_tokenizers:
    warned.append('tokenizers may differ: only bits per byte are compared, and that held-out text is the '
                  'same was not checked')  # fmt: skip
  targets = [language] if language else _targets(settings)
  tables = [_table(score, settings, first, level, targets) for score in chosen]
  if monolingual:
    warned += _check_monolingual(settings, monolingual, targets)
    tables = [_with_multipliers(t, settings, monolingual, level, targets, warned) for t in tables]
    if not any(table.pools for table in tables):
      raise ValueError(
        '--monolingual: its runs have no score of the target language that settings have.'
      )
  roles = {'target': 0, 'other': 1, '': 2}
  tables.sort(key=lambda t: (roles[t.role], t.language, t.measure != 'bits_per_byte', t.set))
  tables, count = _adjusted(tables, level)
  return Comparison(
    level, first.name, list(settings), targets, tables, found, warned,
    _notes(settings, count, level), count, left_out,
  )  # fmt: skip


# ── scores ──────────────────────────────────────────────────────────────────────


def _choose(
  settings: Sequence[Setting], patterns: Sequence[str], *, per_byte: bool
) -> tuple[list[Score], list[str]]:
  every = list(dict.fromkeys(s for setting in settings for run in setting.runs for s in run.curves))
  if not every:
    raise ValueError(
      'no run has a score: neither evaluations.jsonl nor scores.jsonl has one. A recipe with '
      'EvaluationConfig.split evaluates held-out text, and jaxlink.evaluate any checkpoint.'
    )
  for pattern in patterns:
    if not any(_matches(score, pattern) for score in every):
      known = [str(score) for score in every]
      raise ValueError(
        f'--scores {pattern!r} is no score.{nearest(pattern, known)} Scores: {", ".join(known)}.'
      )
  chosen = [
    score for score in every
    if (any(_matches(score, p) for p in patterns) if patterns else not _VARIANT.fullmatch(score.measure))
    and (not per_byte or score.measure == 'bits_per_byte')
  ]  # fmt: skip
  if not chosen:
    raise ValueError('no score is left: across tokenizers, only bits per byte are compared.')
  return chosen, [str(score) for score in every if score not in chosen]


def _without(settings: Sequence[Setting], chosen: Sequence[Score]) -> Iterator[str]:
  """Runs that lack a score which other seeds of their setting have, or that have none at all."""
  for setting in settings:
    for run in setting.runs:
      lacks = [
        str(score) for score in chosen
        if score not in run.curves and any(score in other.curves for other in setting.runs)
      ]  # fmt: skip
      if not run.curves:
        yield f'seed {run.seed} of {setting.name} has no score at all'
      elif lacks:
        yield f'seed {run.seed} of {setting.name} has no score {", ".join(lacks)}'


def _matches(score: Score, pattern: str) -> bool:
  return any(fnmatch.fnmatchcase(name, pattern) for name in (str(score), score.set, score.measure))


def _targets(settings: Sequence[Setting]) -> list[str]:
  """Languages that gain: those of the text beside a linked source, else of runs in one language."""
  linked, alone = set(), set()
  for setting in settings:
    for run in setting.runs:
      spoken = {source.language for source in run.sources}
      if len(spoken) == 1:
        alone |= spoken
      if any(source.linked for source in run.sources):
        linked |= spoken - {source.language for source in run.sources if source.linked}
  return sorted((linked or alone) - {''})


def _table(
  score: Score, settings: Sequence[Setting], first: Setting, level: float, targets: Sequence[str]
) -> Table:
  having = [run for setting in settings for run in setting.runs if score in run.curves]
  language = next((run.languages[score.set] for run in having if run.languages[score.set]), '')
  role = '' if not (language and targets) else 'target' if language in targets else 'other'
  curve = having[0].curves[score]
  results = [_result(score, setting, first, level) for setting in settings]
  remarks: dict[str, list[str]] = {}
  for setting in settings:
    for remark in dict.fromkeys(run.remarks.get(score.set, '') for run in setting.runs):
      remarks.setdefault(remark, []).append(setting.name)
  told = [f'{", ".join(names)}: {remark}' for remark, names in remarks.items() if remark]
  return Table(*score, language, role, curve.better, curve.chance, results, told)


def _result(score: Score, setting: Setting, first: Setting, level: float) -> Result:
  runs = [run for run in setting.runs if score in run.curves]
  if not runs:
    return Result(setting.name, 0)
  found = [run.curves[score] for run in runs]
  finals = [curve.final for curve in found]
  low = high = None
  over = ''
  least = statistics.rounding(max(curve.resolution for curve in found))
  if interval := statistics.of_mean(finals, level, least=least):
    low, high, over = interval.low, interval.high, 'seeds'
  elif len(found) == 1 and found[0].low is not None and found[0].high is not None:
    low, high, over = found[0].low, found[0].high, 'items'
  versus = quicker = None
  notes: list[str] = []
  theirs = [run for run in first.runs if score in run.curves]
  if setting is not first and theirs:
    versus, quicker, notes = against.compare(
      score, dataclasses.replace(first, runs=tuple(theirs)), dataclasses.replace(setting, runs=tuple(runs)), level
    )  # fmt: skip
  return Result(
    setting.name, len(runs), math.fsum(finals) / len(finals), low, high, over,
    max(curve.tokens[-1] for curve in found), curves_lib.band(found), versus, quicker,
    notes=notes,
  )  # fmt: skip


# ── several comparisons ─────────────────────────────────────────────────────────


def _adjusted(tables: Sequence[Table], level: float) -> tuple[list[Table], int]:
  """Puts Holm's adjustment for all comparisons into the tables."""
  tested = [
    r.versus.p for t in tables for r in t.results if r.versus is not None and r.versus.p is not None
  ]
  adjusted = iter(statistics.holm(tested))

  def put(result: Result) -> Result:
    if result.versus is None or result.versus.p is None:
      return result
    p = next(adjusted)
    holds = result.versus.verdict in ('better', 'worse') and p <= 1 - level
    versus = dataclasses.replace(result.versus, p_holm=p, holds=holds)
    return dataclasses.replace(result, versus=versus)

  return [dataclasses.replace(t, results=[put(r) for r in t.results]) for t in tables], len(tested)


# ── multiplier ──────────────────────────────────────────────────────────────────


def _check_monolingual(
  settings: Sequence[Setting], monolingual: Sequence[Setting], targets: Sequence[str]
) -> list[str]:
  """What makes a law of these runs doubtful; raises ValueError where it has no meaning."""
  if not targets:
    raise ValueError(
      '--monolingual: which language is to gain is not clear. Name it: --language tr.'
    )
  for setting in monolingual:
    if others := {s.language for s in setting.sources} - set(targets):
      raise ValueError(
        f'--monolingual {setting.name} reads text in {", ".join(sorted(others))}, too: the law is of runs on '
        f'{", ".join(targets)} alone.'
      )
  runs = [run for setting in [*settings, *monolingual] for run in setting.runs]
  lines = []
  if len({run.trained for run in runs}) > 1:
    lines.append('multiplier: runs are not of equal compute, trained tokens differ')
  if any(run.config['model'] != runs[0].config['model'] for run in runs):
    lines.append('multiplier: runs are not of one model')
  return lines


def _with_multipliers(
  table: Table, settings: Sequence[Setting], monolingual: Sequence[Setting], level: float,
  targets: Sequence[str], warned: list[str],
) -> Table:  # fmt: skip
  """Fits the law of a target-language score and gives each setting its multiplier."""
  if table.role != 'target':
    return table
  score = Score(table.set, table.measure)
  points = sorted(
    (_unique(run, targets), run.curves[score].final)
    for setting in monolingual for run in setting.runs
    if score in run.curves and _unique(run, targets)
  )  # fmt: skip
  pools = multiplier.Pools(tuple(u for u, _ in points), tuple(s for _, s in points))
  table = dataclasses.replace(table, pools=points)
  if not points:
    return table
  if why := multiplier.missing(pools):
    warned.append(f'{table.name}: {why}')
    return table
  if len(pools.sizes) < multiplier.SOUND:
    warned.append(
      f'{table.name}: {len(pools.sizes)} pools leave nothing to judge the multiplier by: it needs runs at '
      f'{multiplier.SOUND} or more to be trusted'
    )
  try:
    law = multiplier.fit(pools) if table.better == 'lower' else None
  except ValueError as error:
    warned.append(f'{table.name}: {error}')
    return table
  results = []
  for result, setting in zip(table.results, settings, strict=True):
    finals = [run.curves[score].final for run in setting.runs if score in run.curves]
    unique = _unique(setting.runs[0], targets)
    found = None
    if finals and unique and law:
      found = multiplier.of_loss(pools, unique, finals, level=level)
    elif finals and unique:
      found = multiplier.of_accuracy(pools, unique, finals)
    results.append(dataclasses.replace(result, multiplier=found))
  return dataclasses.replace(table, results=results, law=law)


def _unique(run: Run, targets: Sequence[str]) -> int:
  """Unique tokens of the target languages' text."""
  return sum(s.unique or 0 for s in run.sources if s.language in targets)


# ── notes ───────────────────────────────────────────────────────────────────────


def _notes(settings: Sequence[Setting], count: int, level: float) -> list[str]:
  lines = []
  if len(settings) > 1 and any(len(setting.runs) < 2 for setting in settings):
    lines.append(
      'Settings of one seed each have no interval over seeds, and so no verdict: an interval over items '
      'tells nothing of other seeds.'
    )
  if count:
    chance = count * (1 - level)
    lines.append(
      f'{count} comparison{"s" if count > 1 else ""} at {level:.0%}: {chance:.2g} would come out by chance '
      'alone. Verdicts with * stay after Holm\'s adjustment for all of them.'
    )  # fmt: skip
  stages = [stage for s in settings for run in s.runs for stage in run.config['stages']]
  decaying = {stage.get('optimizer', {}).get('schedule', 'constant') for stage in stages} - {
    'constant'
  }
  if len(settings) > 1 and decaying:
    lines.append(
      f'Learning rates decay ({", ".join(sorted(decaying))}): a score in the middle of a schedule is worse than '
      'that of a run whose budget ends there. Of two runs the one that is ahead reaches the score in the middle of '
      'its schedule, and in a shorter run would have reached it sooner: speed-ups read closer to 1 than they are.'
    )  # fmt: skip
  return lines
