"""The sweep of learning rates over widths: its table, its verdict, and that it does nothing twice."""

import json
import math

import pytest

from tests import tiny_project
from tools import mup_sweep

GRID = (1e-3, 2e-3, 4e-3, 8e-3)
MUP = ['DecoderConfig.mup = @MupConfig()', 'MupConfig.base_width = 32', 'Stage.tokens = 2_048']


def losses(**best_places):
  """Parabolas over the grid with their least at these places, by width."""
  return {
    int(width[1:]): {rate: 5 + (i - place) ** 2 for i, rate in enumerate(GRID)}
    for width, place in best_places.items()
  }


def test_the_best_rate_may_move_by_one_step_inside_the_grid():
  assert mup_sweep.best(losses(w128=1, w512=2)) == {128: 2e-3, 512: 4e-3}
  assert mup_sweep.verdict(losses(w128=1, w256=1, w512=2)) == ''
  assert 'width 512 is at the end' in mup_sweep.verdict(losses(w128=2, w512=3))
  wide = {w: {**by_rate, 16e-3: 99.0} for w, by_rate in losses(w128=1, w512=3).items()}
  assert 'moves by 2 steps' in mup_sweep.verdict(wide)


def test_the_text_has_a_star_at_each_widths_best():
  lines = mup_sweep.text_table(losses(w128=1, w512=2)).splitlines()
  assert [line.count('*') for line in lines] == [0, 0, 1, 1, 0]
  assert lines[2].split() == ['0.002', '5.0000*', '6.0000']


@pytest.mark.slow
def test_a_sweep_trains_each_point_once_on_the_same_batches(project, tmp_path, monkeypatch):
  run = tiny_project.parse(project, tmp_path / 'run', *tiny_project.QUIET, *MUP)
  table = tmp_path / 'sweep.jsonl'
  first = mup_sweep.sweep(run, [32, 64], [1e-3, 1e-2], True, table)
  assert len({loss for by_rate in first.values() for loss in by_rate.values()}) == 4
  assert all(0 < loss < 7 for by_rate in first.values() for loss in by_rate.values())
  rows = [json.loads(line) for line in table.read_text().splitlines()]
  assert [(row['width'], row['learning_rate']) for row in rows] == [
    (32, 1e-3), (32, 1e-2), (64, 1e-3), (64, 1e-2)]  # fmt: skip

  table.write_text(''.join(table.read_text().splitlines(keepends=True)[:3]))
  again = mup_sweep.sweep(run, [32, 64], [1e-3, 1e-2], True, table)
  assert again == first  # the one that was left out is trained anew, to the same loss

  monkeypatch.setattr(mup_sweep, '_train', None)
  assert mup_sweep.sweep(run, [64], [1e-2], True, table) == {64: {1e-2: first[64][1e-2]}}
  mup_sweep.draw({'muP': first}, tmp_path / 'picture.png')
  assert (tmp_path / 'picture.png').stat().st_size > 5_000


def test_rows_of_another_recipe_do_not_count(tmp_path, project):
  run = tiny_project.parse(project, tmp_path / 'run', *MUP)
  other = tiny_project.parse(project, tmp_path / 'run', *MUP, 'OptimizerConfig.b2 = 0.9')
  rate = tiny_project.parse(project, tmp_path / 'x', *MUP, 'OptimizerConfig.learning_rate = 0.1')
  name = mup_sweep.recipe_name(run)
  assert name != mup_sweep.recipe_name(other)
  assert name == mup_sweep.recipe_name(rate)
  table = tmp_path / 'sweep.jsonl'
  row = {'recipe': name, 'mup': True, 'width': 64, 'learning_rate': 1e-3, 'loss': None}
  table.write_text(json.dumps(row) + '\n')
  assert mup_sweep.read_table(table, name, True) == {64: {1e-3: math.inf}}
  assert mup_sweep.read_table(table, name, False) == {}
  assert mup_sweep.read_table(table, mup_sweep.recipe_name(other), True) == {}
