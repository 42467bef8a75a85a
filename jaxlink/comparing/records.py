"""The score records of a run: evaluations.jsonl, which it wrote while it trained, and scores.jsonl.

A line of evaluations.jsonl has bits per byte of the held-out texts (`bits_per_byte`: task → value) and may
have records of evaluation sets (`scores`: set → record); scores.jsonl has such a record on each line.

Easy to get wrong: two identities of one set. Of a set that was scored again in a new version the last one
counts, and older lines are left out. A part of a set (`EvaluationConfig.set_items`), by which a run is
followed, is a score of its own: 'xcopa_tr (100 items)'.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxlink.comparing.curves import Curve

UNKNOWN = '?'  # identity of held-out text of which the run kept no record


class Score(NamedTuple):
  """One number that is followed: a set and what is measured on it."""

  set: str
  measure: str

  def __str__(self) -> str:
    return f'{self.set}/{self.measure}'


@dataclasses.dataclass(frozen=True)
class Scores:
  """What a run's records say.

  Attributes:
    curves: of each score.
    identities: of each set; of held-out text its fingerprint and the length of its windows.
    languages: of each set; '' where it is not recorded.
    remarks: of a set: items that were cut, and those of which the training text holds a part.
    notes: what was left out.
  """

  curves: dict[Score, Curve]
  identities: dict[str, str]
  languages: dict[str, str]
  remarks: dict[str, str]
  notes: list[str]


class _Point(NamedTuple):
  step: int
  tokens: int
  score: Score
  identity: str
  language: str
  entry: Mapping[str, Any]  # value, low, high, chance, better
  remark: str = ''
  items: int = 0


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file.

  Raises:
    ValueError: it is not one.
  """
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is no JSON: {error}') from None


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads a file of a JSON object in each line; [] where there is none. A torn last line is left out.

  Raises:
    ValueError: a line other than the last is not whole.
  """
  if not path.exists():
    return []
  *lines, _ = path.read_bytes().split(b'\n')  # what follows the last one is torn
  found = []
  for number, line in enumerate(lines, 1):
    try:
      found.append(json.loads(line))
    except ValueError:
      raise ValueError(f'{path}, line {number} is not a whole record.') from None
  return found


def last_step(path: pathlib.Path, tail: int = 1 << 20) -> dict[str, Any]:
  """The metrics of a run's last logged step; {} where there are none.

  Args:
    path: of metrics.jsonl.
    tail: bytes of its end that are looked at, since it has a line for each step.
  """
  if not path.exists():
    return {}
  with open(path, 'rb') as file:
    file.seek(max(0, path.stat().st_size - tail))
    *lines, _ = file.read().split(b'\n')
  for line in reversed(lines):
    try:
      record = json.loads(line)
    except ValueError:  # the first line of the tail is cut
      continue
    if 'trained_tokens' in record:
      return record
  return {}


def read_scores(folder: pathlib.Path, config: Mapping[str, Any], kept: Mapping[str, Any]) -> Scores:
  """Reads both files of a run.

  Args:
    folder: of the run.
    config: resolved.
    kept: stages.json, or {}.
  """
  afterwards = list(_afterwards(folder))
  whole = {point.identity for point in afterwards}
  points = [*_in_loop(folder, config, kept, whole), *afterwards]
  identities = {point.score.set: point.identity for point in points}
  notes, by_score, lost = [], {}, 0
  outdated: dict[str, int] = {}
  for point in points:
    name = point.score.set
    if point.identity != identities[name]:
      outdated[name] = outdated.get(name, 0) + 1
      continue
    value = point.entry.get('value')
    if value is None or not math.isfinite(value):
      lost += 1
      continue
    by_score.setdefault(point.score, {})[point.step] = point  # of a step, the last one counts
  for name, count in outdated.items():
    notes.append(f'{count} scores of {name} are of another version of the set and left out')
  if lost:
    notes.append(f'{lost} scores are no numbers and left out')
  curves = {score: _curve(by_step.values()) for score, by_step in by_score.items()}
  languages = {point.score.set: point.language for point in points}
  remarks = {point.score.set: point.remark for point in points if point.remark}
  return Scores(curves, identities, languages, remarks, notes)


def _curve(points: Any) -> Curve:
  ordered = sorted(points, key=lambda point: point.tokens)
  entry = ordered[-1].entry
  return Curve(
    tuple(point.tokens for point in ordered), tuple(float(point.entry['value']) for point in ordered),
    entry['better'], entry.get('low'), entry.get('high'), entry.get('chance'), _resolution(ordered),
  )  # fmt: skip


def _resolution(points: Sequence[_Point]) -> float:
  """1 / items where the score counts items, also where a tie counts for a half, a third or a quarter; else 0."""
  counts = [12 * point.items * point.entry['value'] for point in points]
  whole = all(abs(count - round(count)) < 1e-6 for count in counts)
  return 1 / points[-1].items if whole and points[-1].items else 0.0


def _in_loop(
  folder: pathlib.Path, config: Mapping[str, Any], kept: Mapping[str, Any], whole: set[str]
) -> Iterator[_Point]:
  held_out = {entry['task']: entry for entry in kept.get('evaluations', [])}
  evaluation = config.get('evaluation', {})
  length = evaluation.get('sequence_length') or config['stages'][0]['sequence_length']
  for line in read_lines(folder / 'evaluations.jsonl'):
    step, tokens = line['step'], line['trained_tokens']
    for task, value in line.get('bits_per_byte', {}).items():
      entry = held_out.get(task, {})
      fingerprint = pathlib.PurePath(entry.get('folder', '')).name
      identity = f'{fingerprint}, windows of {length} tokens' if fingerprint else UNKNOWN
      yield _Point(
        step, tokens, Score(task, 'bits_per_byte'), identity,
        entry.get('language', ''), {'value': value, 'better': 'lower'},
      )  # fmt: skip
    for record in line.get('scores', {}).values():
      name = record['set']
      if evaluation.get('set_items') and record['identity'] not in whole:
        name = f'{name} ({record["items"]} items)'
      yield from _of_record({**record, 'step': step, 'trained_tokens': tokens, 'set': name})


def _afterwards(folder: pathlib.Path) -> Iterator[_Point]:
  for record in read_lines(folder / 'scores.jsonl'):
    yield from _of_record(record)


def _of_record(record: Mapping[str, Any]) -> Iterator[_Point]:
  remark = _remark(record)
  for measure, entry in record.get('scores', {}).items():
    yield _Point(
      record['step'], record['trained_tokens'], Score(record['set'], measure), record['identity'],
      record.get('language', ''), entry, remark, record.get('items', 0),
    )  # fmt: skip


def _remark(record: Mapping[str, Any]) -> str:
  parts = []
  if record.get('cut'):
    parts.append(f'{record["cut"]} of {record["items"]} items were too long and cut')
  if seen := record.get('contaminated'):
    parts.append(
      f'{seen["items"]} of {seen["compared"]} items share {seen["n"]} words in a row with the training text'
    )
  return ', '.join(parts)
