"""Scores as they are kept: a record for each checkpoint and set, in the run's scores.jsonl.

A record is plain JSON: step, trained_tokens, set, kind, language, identity, items, cut, contaminated, scores
(each with value, low, high, chance, better,
uniform) and groups. `evaluations.jsonl` of the training loop has the
same records under 'scores'. Items one by one are kept beside the caches, by model and set, so that what was
measured once is not measured again.

Easy to get wrong: what makes two scores comparable. `identity` tells the set's version and items; a record of
another identity is another score, and both stay in the file.
"""

import functools
import gzip
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxlink.evaluation.items import EvaluationSet

if TYPE_CHECKING:  # who reads records needs no model
  from jaxlink.evaluation.judging import Verdict

FILE = 'scores.jsonl'
# What a score is worked out by, beside all of jaxlink/generation.
_CODE = ('scoring', 'measures', 'judging', 'probe', 'answers', 'adherence', 'language_mixing')

Record = dict[str, Any]


def make_record(found: EvaluationSet, verdict: 'Verdict') -> Record:
  """A record without what is not known of the set and the verdict: step, tokens, contamination."""
  measured = verdict.measured
  record: Record = {
    'set': found.name, 'kind': found.kind, 'language': found.language, 'identity': found.identity,
    'items': len(next(iter(measured.items.values()))), 'cut': verdict.cut, 'contaminated': None,
    'scores': {name: score.to_json() for name, score in measured.scores.items()},
  }  # fmt: skip
  if measured.groups:
    record['groups'] = {
      group: {name: _finite(value) for name, value in values.items()}
      for group, values in measured.groups.items()
    }
  return record


def write(directory: str | os.PathLike, records: Iterable[Record]) -> None:
  """Adds records to a run's: of one step, set and identity, scores are added to those that are there."""
  path = pathlib.Path(directory) / FILE
  found: dict[tuple[Any, ...], Record] = {}
  for record in [*read(directory), *records]:
    before = found.get(_key(record), {})
    merged = {**before, **record, 'scores': {**before.get('scores', {}), **record['scores']}}
    merged['contaminated'] = record['contaminated'] or before.get('contaminated')
    found[_key(record)] = merged
  ordered = sorted(found.values(), key=lambda record: (record['step'], record['set']))
  beside = path.with_suffix(f'.{os.getpid()}')
  lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) + '\n' for record in ordered)
  beside.write_text(''.join(lines), encoding='utf-8')
  os.replace(beside, path)


def read(directory: str | os.PathLike) -> list[Record]:
  """Returns the records of a run, by step; [] where there are none.

  Raises:
    ValueError: a line is not whole.
  """
  path = pathlib.Path(directory) / FILE
  if not path.exists():
    return []
  records = []
  for number, line in enumerate(path.read_text(encoding='utf-8').split('\n')[:-1], 1):
    try:
      records.append(json.loads(line))
    except ValueError:
      raise ValueError(f'{path}, line {number} is not a whole record.') from None
  return records


def read_evaluations(directory: str | pathlib.Path) -> dict[int, dict[str, Any]]:
  """Returns what the training loop recorded, by step; {} where there is nothing.

  A score that is not finite is None.

  Raises:
    ValueError: a line other than the last is not whole.
  """
  path = pathlib.Path(directory) / 'evaluations.jsonl'
  if not path.exists():
    return {}
  records = {}
  # Not splitlines: generated text may hold other separators. What follows the last one is torn.
  *lines, _ = path.read_bytes().split(b'\n')
  for number, line in enumerate(lines, 1):
    try:
      record = json.loads(line)
    except ValueError:
      raise ValueError(f'{path}, line {number} is not a whole record.') from None
    records[record['step']] = record
  return records


# ── what was measured once ──────────────────────────────────────────────────────


def model_key(folder: str | os.PathLike, *settings: Any) -> str:
  """Names a model by its files: their names, sizes and times, and settings that its scores depend on.

  Args:
    folder: of a checkpoint, or of a Hugging Face model.
    settings: plain JSON.
  """
  folder = pathlib.Path(folder)
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  known = [
    (str(path.relative_to(folder)), (about := path.stat()).st_size, about.st_mtime_ns)
    for path in files
  ]
  text = json.dumps([_code(), os.path.abspath(folder), known, settings])
  return hashlib.sha256(text.encode()).hexdigest()[:20]


@functools.cache
def _code() -> str:
  """Digest of the modules that scores come from: a change there measures anew."""
  here = pathlib.Path(__file__).parent
  known = hashlib.sha256()
  for path in (
    *(here / f'{name}.py' for name in _CODE),
    *sorted((here.parent / 'generation').glob('*.py')),
  ):
    known.update(path.read_bytes())
  return known.hexdigest()


class Kept:
  """What was measured of a model.

  Args:
    cache_dir: folder of all caches.
    key: from `model_key`.
  """

  def __init__(self, cache_dir: str | os.PathLike, key: str):
    self._folder = pathlib.Path(cache_dir) / 'evaluation' / 'scores' / key

  def find(self, name: str, identity: str) -> Record | None:
    """Returns the record of a set, or None."""
    path = self.path(name, identity)
    if not path.exists():
      return None
    with gzip.open(path, 'rt', encoding='utf-8') as file:
      return json.loads(file.readline())

  def keep(self, record: Record, lines: Iterable[Mapping[str, Any]]) -> pathlib.Path:
    """Writes a record and what each item added to it: a line for the record, then one for each item."""
    path = self.path(record['set'], record['identity'])
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f'.{os.getpid()}.tmp')
    with gzip.open(beside, 'wt', encoding='utf-8') as file:
      file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + '\n')
      for line in lines:
        file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + '\n')
    os.replace(beside, path)
    return path

  def path(self, name: str, identity: str) -> pathlib.Path:
    """Returns the file with the record and the items of a set."""
    return self._folder / f'{name}-{identity}.jsonl.gz'


def item_lines(found: EvaluationSet, verdict: 'Verdict') -> Iterator[Mapping[str, Any]]:
  """What each item of a set added to its scores, for `Kept.keep`."""
  items = found.items
  if found.kind == 'label':
    items = [item for item in items if item.split == 'test']
  for n, item in enumerate(items):
    line = {name: _finite(float(values[n])) for name, values in verdict.measured.items.items()}
    written = {'written': verdict.written[item.id]} if item.id in verdict.written else {}
    yield {'id': item.id, **line, **written}


def _key(record: Record) -> tuple[Any, ...]:
  return record['step'], record['set'], record['identity']


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
