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
from collections.abc import Sequence

from jaxlink.comparing import curves as curves_lib
from jaxlink.comparing import differences, multiplier, speedup, statistics
from jaxlink.comparing.curves import Curve
from jaxlink.comparing.records import Score
from jaxlink.comparing.results import Comparison, Result, Table, Versus
from jaxlink.comparing.runs import Run, Setting
from jaxlink.comparing.speedup import SpeedUp
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
  if interval := statistics.of_mean(finals, level):
    low, high, over = interval.low, interval.high, 'seeds'
  elif len(found) == 1 and found[0].low is not None and found[0].high is not None:
    low, high, over = found[0].low, found[0].high, 'items'
  versus = quicker = None
  theirs = [run for run in first.runs if score in run.curves]
  if setting is not first and theirs:
    versus, quicker = _against(score, theirs, runs, level)
  return Result(
    setting.name, len(runs), math.fsum(finals) / len(finals), low, high, over,
    max(curve.tokens[-1] for curve in found), curves_lib.band(found), versus, quicker,
  )  # fmt: skip


# ── against the baseline ────────────────────────────────────────────────────────


def pairs(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
  """Runs of two settings with the same seeds of parameters and order, and of LINK if that is needed."""
  for fields in (2, 3):
    by_seed = [{run.seeds[:fields]: run for run in runs} for runs in (a, b)]
    if [len(found) for found in by_seed] == [len(a), len(b)]:
      return [(by_seed[0][key], by_seed[1][key]) for key in by_seed[0] if key in by_seed[1]]
  raise AssertionError('seeds of a setting are different')


def _against(
  score: Score, a: Sequence[Run], b: Sequence[Run], level: float
) -> tuple[Versus, SpeedUp]:
  paired = pairs(a, b)
  ours = [(x.curves[score], y.curves[score]) for x, y in paired]
  all_a, all_b = ([run.curves[score] for run in runs] for runs in (a, b))
  use_pairs = len(ours) > 1 or (ours and len(all_a) == len(all_b) == 1)
  if use_pairs:
    found = statistics.of_mean([y.final - x.final for x, y in ours], level, 'paired')
    quicker = speedup.of_pairs(ours, level)
    values = [(x.final, y.final) for x, y in ours]
    value = math.fsum(y - x for x, y in values) / len(values)
  else:
    finals_a, finals_b = ([curve.final for curve in group] for group in (all_a, all_b))
    found = statistics.of_difference(finals_a, finals_b, level)
    quicker = speedup.of_groups(all_a, all_b, level)
    value = math.fsum(finals_b) / len(finals_b) - math.fsum(finals_a) / len(finals_a)
  n = len(ours) if use_pairs else min(len(all_a), len(all_b))
  if found:
    verdict = _verdict(found.low, found.high, all_a[0].better)
    versus = Versus(
      found.value, found.low, found.high, 'seeds', n, found.method, found.p, None, verdict, False
    )
    return versus, quicker
  low, high = _over_items(all_a[0], all_b[0], value)
  verdict, why = 'too few seeds', ''
  if a[0].key == b[0].key:
    verdict = 'no difference'
    why = 'one configuration: what the two runs differ by is the noise between seeds'
  over = 'items' if low is not None else ''
  return Versus(value, low, high, over, n, '', None, None, verdict, False, why), quicker


def _verdict(low: float, high: float, better: str) -> str:
  if low <= 0 <= high:
    return 'no difference'
  return 'better' if (high < 0) == (better == 'lower') else 'worse'


def _over_items(a: Curve, b: Curve, value: float) -> tuple[float | None, float | None]:
  """The difference's interval over items, as if the two runs had other items: wider than the truth."""
  if None in (a.low, a.high, b.low, b.high):
    return None, None
  half = math.hypot((a.high - a.low) / 2, (b.high - b.low) / 2)
  return value - half, value + half


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
