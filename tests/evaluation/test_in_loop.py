"""What an evaluation records, and when it is due."""

import json

import pytest

from jaxlink import config, train
from jaxlink.evaluation.records import read_evaluations
from jaxlink.stage import Run


def _train(project, directory, *bindings):
  run = config.parse(Run, [project.recipe], [f"Run.directory = '{directory}'", *bindings])
  assert train.train(run) == 0
  return read_evaluations(directory)


def test_settings_of_lines_and_batches_do_what_they_say(trained, tmp_path):
  project, _ = trained
  base = _train(project, tmp_path / 'a', 'EvaluationConfig.every_tokens = 0')
  assert sorted(base) == [0, 20]
  other = _train(
    project, tmp_path / 'b', 'EvaluationConfig.every_tokens = 2_560', 'EvaluationConfig.batch = 24',
    "EvaluationConfig.prompts = ('Ankara', 'The')", 'EvaluationConfig.generate_tokens = 9',
    'EvaluationConfig.temperature = 0.0',
  )  # fmt: skip
  assert sorted(other) == [0, 5, 10, 15, 20]
  assert [line[:3] for line in other[20]['lines']] == ['Ank', 'The']
  # Rows of a batch are scored alone: its size changes no score.
  for step in base:
    assert other[step]['bits_per_byte'] == pytest.approx(base[step]['bits_per_byte'], rel=1e-5)


def test_scores_are_in_the_metrics_too(trained):
  project, _ = trained
  records = read_evaluations(project.folder / 'run')
  lines = [json.loads(s) for s in (project.folder / 'run/metrics.jsonl').read_text().splitlines()]
  for line in lines:
    if 'bits_per_byte/tiny_tr' in line:
      assert line['bits_per_byte/tiny_tr'] == records[line['step']]['bits_per_byte']['tiny_tr']


def test_only_the_last_record_may_be_torn_and_text_may_hold_any_separator(tmp_path):
  path = tmp_path / 'evaluations.jsonl'
  whole = [json.dumps({'step': n, 'lines': ['a\u2028b\x85']}, ensure_ascii=False) for n in (0, 5)]
  path.write_text('\n'.join([*whole, '{"step": 10, "li']), encoding='utf-8')
  assert sorted(read_evaluations(tmp_path)) == [0, 5]
  path.write_text('\n'.join([whole[0], '{"step": 5, "li', whole[1], '']), encoding='utf-8')
  with pytest.raises(ValueError, match='line 2 is not a whole record'):
    read_evaluations(tmp_path)
