"""Every recipe that is shipped can be read, and is whole."""

import pathlib

import pytest

from jaxlink import config
from jaxlink.stage import Run

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = sorted(
  path.name
  for path in (ROOT / 'gin').glob('*.gin')
  if not path.name.startswith(('study_', 'testbed_'))  # grids of runs: tests/tools/test_study.py
)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_makes_a_run(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  run = config.parse(Run, [f'gin/{name}'])
  assert run.steps > 0
  assert f'--gin_file=gin/{name}' in (ROOT / 'gin' / name).read_text()


def test_an_added_stage_is_added_to_the_quickstart(monkeypatch):
  monkeypatch.chdir(ROOT)
  first, added = (config.parse(Run, [f'gin/{n}.gin']) for n in ('quickstart', 'stages_append'))
  assert added.stages[:1] == first.stages
  assert added.directory == first.directory
  assert len(added.stages) == 2
