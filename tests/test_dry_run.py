"""A plan says what it counts, what it assumes and what is missing."""

import dataclasses

import pytest

from jaxlink import config, dry_run, setup
from jaxlink.stage import Run
from tests import tiny_project


def _report(project, capsys, *bindings: str) -> tuple[int, str]:
  code = dry_run.report(config.parse(Run, [project.recipe], list(bindings)), [project.recipe])
  return code, capsys.readouterr().out


def test_with_a_cache_nothing_is_assumed_and_nothing_missing(trained):
  project, _ = trained
  output = project.train(project.folder / 'run', arguments=['--dry_run'])
  assert 'train step: 2 sources; lowered' in output
  assert 'nothing is missing' in output


def test_without_a_cache_the_number_of_sources_is_said_to_be_assumed(trained, capsys, tmp_path):
  empty = f"DataConfig.cache_dir = '{tmp_path}'", 'DecoderConfig.vocabulary = 768'
  code, output = _report(trained[0], capsys, *empty)
  assert code == 1
  assert '2 sources assumed, as in Stage.rates' in output
  code, output = _report(trained[0], capsys, *empty, "Stage.rates = {'a': 1, 'b': 1, 'c': 1}")
  assert '3 sources assumed, as in Stage.rates' in output
  code, output = _report(trained[0], capsys, *empty, 'Stage.rates = {}')
  assert '2 sources assumed, as of one target' in output


@pytest.mark.parametrize('link', ['one language', 'two languages', 'in the cache', 'none'])
def test_the_step_is_lowered_for_the_counts_that_its_batches_have(trained, tmp_path, link):
  (tmp_path / 'en-de.tsv').write_text('the\tder\nand\tund\n')
  bindings = {
    'one language': [],
    'two languages': [
      f"LinkPolicy.lexicon = {{'tr': 'tiny_tr', 'de': '{tmp_path}/en-de.tsv'}}",
      "LinkPolicy.language = ''",
    ],
    'in the cache': ["Stage.link_route = 'cache'"],
    'none': [],
  }
  run = config.parse(Run, [trained[0].recipe], bindings[link])
  if link == 'none':
    run = dataclasses.replace(run, stages=(dataclasses.replace(run.stages[0], link={}),))
  counts = setup.counts_without_data(run.stages[0])
  assert counts == len(tiny_project.open_stage(run).batches.count_names)
  assert bool(counts) == link.endswith(('language', 'languages'))


@pytest.mark.parametrize(
  ('mesh', 'message'),
  [
    (['MeshConfig.data = 4'], 'its axes multiply to 4, and there are 8 devices.'),
    (['MeshConfig.fsdp = 16', 'Stage.batch = 16'],
     'its axes multiply to 16, and there are 8 devices, which 16 does not divide.'),
  ],
)  # fmt: skip
def test_a_mesh_that_does_not_fit_is_told_with_both_numbers(trained, capsys, mesh, message):
  code, output = _report(trained[0], capsys, 'Run.mesh = @MeshConfig()', *mesh,
                         'DecoderConfig.vocabulary = 768')  # fmt: skip
  assert code == 1
  assert message in output.split('missing:')[1]
