"""What a comparison consists of, and its JSON.

Easy to get wrong: which way a difference goes. It is the setting less the baseline in the unit of the score;
`verdict` knows which way is better.
"""

import dataclasses
import math
from typing import Any

from jaxlink.comparing.curves import Band
from jaxlink.comparing.differences import Difference
from jaxlink.comparing.multiplier import Law, Multiplier
from jaxlink.comparing.runs import Setting
from jaxlink.comparing.speedup import SpeedUp
from jaxlink.link.formats import languages

FORMAT = 1  # of the JSON


@dataclasses.dataclass(frozen=True)
class Versus:
  """A setting's score against the baseline's.

  Attributes:
    value: mean difference, setting less baseline, in the score's unit.
    low: end of its interval; None where there is none.
    high: the other end.
    over: what the interval is over: 'seeds', 'items' or ''.
    n: pairs of seeds, or runs of the smaller setting where seeds are not the same.
    method: 'paired', 'pooled' or ''.
    p: two-sided; None without an interval over seeds.
    p_holm: adjusted for all comparisons of the page.
    verdict: 'better', 'worse', 'no difference' or 'too few seeds'.
    holds: whether a verdict of a difference stays after that adjustment.
    why: what the verdict rests on, where that is not the interval.
  """

  value: float
  low: float | None
  high: float | None
  over: str
  n: int
  method: str
  p: float | None
  p_holm: float | None
  verdict: str
  holds: bool
  why: str = ''


@dataclasses.dataclass(frozen=True)
class Result:
  """A score of one setting.

  Attributes:
    setting: its name.
    n: runs that have the score; the rest of the fields is None with 0.
    final: mean of the last evaluations.
    low: end of its interval; None where there is none.
    high: the other end.
    over: what the interval is over: 'seeds', 'items' or ''.
    tokens: at the last evaluation of all.
    band: mean and range over seeds along the training.
    versus: the baseline; None of itself.
    speedup: over the baseline; None of itself.
    multiplier: of data; None without monolingual runs.
    notes: what must be said of the difference: at which tokens it is, and runs without a partner.
  """

  setting: str
  n: int
  final: float | None = None
  low: float | None = None
  high: float | None = None
  over: str = ''
  tokens: int | None = None
  band: Band | None = None
  versus: Versus | None = None
  speedup: SpeedUp | None = None
  multiplier: Multiplier | None = None
  notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Table:
  """A score of all settings.

  Attributes:
    set: the held-out text or evaluation set.
    measure: on it.
    language: '' where it is not recorded.
    role: 'target', 'other' or '' where that is not known.
    better: 'lower' or 'higher'.
    chance: of a model that knows nothing, or None.
    results: of each setting, in order.
    remarks: on the items: those that were cut, or that the training text holds.
    law: of monolingual runs, or None.
    pools: (unique tokens, score) of the monolingual runs.
  """

  set: str
  measure: str
  language: str
  role: str
  better: str
  chance: float | None
  results: list[Result]
  remarks: list[str] = dataclasses.field(default_factory=list)
  law: Law | None = None
  pools: list[tuple[int, float]] = dataclasses.field(default_factory=list)

  @property
  def name(self) -> str:
    """As it is printed."""
    return f'{self.set}/{self.measure}'


@dataclasses.dataclass(frozen=True)
class Comparison:
  """All of it.

  Attributes:
    level: of intervals and verdicts.
    baseline: name of the setting that others are held against.
    settings: with their runs.
    targets: codes of the languages that are to gain.
    tables: of each score: target languages first.
    differences: of configurations.
    warnings: what makes it unclear where a difference comes from.
    notes: how to read the numbers.
    comparisons: verdicts that rest on an interval.
    left_out: scores that were not asked for.
  """

  level: float
  baseline: str
  settings: list[Setting]
  targets: list[str]
  tables: list[Table]
  differences: list[Difference]
  warnings: list[str]
  notes: list[str]
  comparisons: int
  left_out: list[str]


def to_json(comparison: Comparison) -> dict[str, Any]:
  """Plain JSON; numbers that are not finite are None."""
  whole: dict[str, Any] = {'format': FORMAT}
  for field in dataclasses.fields(comparison):
    value = getattr(comparison, field.name)
    if field.name == 'settings':
      whole['settings'] = [_setting(setting) for setting in value]
    elif field.name in ('tables', 'differences'):
      whole[field.name] = [dataclasses.asdict(entry) for entry in value]
    else:
      whole[field.name] = value
  return _plain(whole)


def language_name(code: str) -> str:
  """The English name of a language, or its code."""
  return languages.name(code).partition(' (')[0].strip("'") if code else ''


def _setting(setting: Setting) -> dict[str, Any]:
  runs = []
  for run in setting.runs:
    entry = {
      'directory': run.directory, 'seeds': run.seeds._asdict(), 'tokenizer': run.tokenizer,
      'trained': run.trained, 'planned': run.planned, 'git': ', '.join(run.revisions),
      'versions': run.versions, 'device': ', '.join(run.devices),
      'sources': [dataclasses.asdict(source) for source in run.sources], 'notes': list(run.notes),
      'scores': {
        str(score): {'tokens': curve.tokens, 'values': curve.values}
        for score, curve in run.curves.items()
      },
    }  # fmt: skip
    runs.append(entry)
  return {'name': setting.name, 'runs': runs}


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _plain(entry) for key, entry in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(entry) for entry in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
