"""What is frozen when a run begins stays, and what has not begun does not bind."""

import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest

from jaxlink import metrics, report_data, stage_data, train
from jaxlink.evaluation import in_loop
from jaxlink.evaluation.records import read_evaluations
from jaxlink.stage import Run
from tests import tiny_project

TRUNK = [
  'Stage.tokens = 6_144', "Stage.name = 'trunk'", "OptimizerConfig.schedule = 'constant'",
]  # fmt: skip
TWO = [
  *TRUNK, 'Run.stages = [@Stage(), @more/Stage()]', "more/Stage.name = 'more'",
  'more/Stage.tokens = 2_048',
]  # fmt: skip


class Killed(BaseException):
  """Stands for a kill: nothing catches it, nothing is saved."""


def _run(project, directory: pathlib.Path, *bindings: str, quiet: bool = True) -> Run:
  return tiny_project.parse(project, directory, *(tiny_project.QUIET if quiet else ()), *bindings)


def _losses(directory: pathlib.Path | str) -> dict[int, float]:
  return {line['step']: line['loss'] for line in tiny_project.metrics_of(directory)}


def _save_at_once(patch: pytest.MonkeyPatch) -> None:
  """A process that is really killed writes no more; what only stands for one waits for its saves."""
  save = train.Keeper.save

  def save_and_wait(self, *rest):
    save(self, *rest)
    self.wait()

  patch.setattr(train.Keeper, 'save', save_and_wait)


@pytest.fixture
def killed(monkeypatch):
  """Trains a run that is killed at a step."""

  def train_until(run: Run, at: int) -> None:
    log = metrics.Logger.log

    def fatal(self, step, *rest):
      if step == at:
        raise Killed
      return log(self, step, *rest)

    with monkeypatch.context() as patch:
      patch.setattr(metrics.Logger, 'log', fatal)
      _save_at_once(patch)
      with pytest.raises(Killed):
        train.train(run)

  return train_until


@pytest.fixture(scope='module')
def two(trained, tmp_path_factory) -> Run:
  run = _run(trained[0], tmp_path_factory.mktemp('two') / 'run', *TWO)
  assert train.train(run) == 0
  return run


@pytest.mark.parametrize('at', [13, pytest.param(14, marks=pytest.mark.slow)])
def test_a_kill_after_the_checkpoint_of_a_boundary_changes_nothing(
  trained, two, tmp_path, killed, at
):
  run = _run(trained[0], tmp_path / 'run', *TWO)
  killed(run, at)
  assert train.train(run) == 0
  assert _losses(tmp_path / 'run') == _losses(two.directory)


@pytest.mark.slow
def test_a_branch_that_is_killed_at_once_starts_again_from_the_same_step(trained, tmp_path, killed):
  project, _ = trained
  trunk = tmp_path / 'trunk'
  assert train.train(_run(project, trunk, *TRUNK)) == 0
  branches = [
    _run(project, tmp_path / name, 'Stage.tokens = 4_096', f"Stage.start_from = '{trunk}{at}'")
    for name, at in (('whole', '@12'), ('broken', ''))
  ]
  assert train.train(branches[0]) == 0
  killed(branches[1], 3)
  assert train.train(_run(project, trunk, *TWO)) == 0  # the trunk goes on
  assert train.train(branches[1]) == 0
  assert _losses(tmp_path / 'broken') == _losses(tmp_path / 'whole')

  killed(late := _run(project, tmp_path / 'late', f"Stage.start_from = '{trunk}@12'"), 3)
  shutil.rmtree(trunk)
  with pytest.raises(
    FileNotFoundError, match=r"Stage.start_from of 'pretrain': step 12 .* is gone"
  ):
    train.train(late)
  assert train.train(_run(project, trunk, *TRUNK, 'Run.seed_init = 7')) == 0
  with pytest.raises(ValueError, match='is another checkpoint than when this run began'):
    train.train(late)


def test_a_later_stage_that_cannot_start_is_told_before_the_first_begins(trained, two, tmp_path):
  bindings = [*TWO, f"more/Stage.start_from = '{two.directory}'", 'DecoderConfig.width = 48']
  with pytest.raises(ValueError, match=r"Stage.start_from of 'more': .*of another state"):
    train.train(_run(trained[0], tmp_path / 'run', *bindings))
  assert not list((tmp_path / 'run/checkpoints').glob('*'))


def test_a_start_that_failed_has_frozen_nothing(trained, tmp_path):
  project, _ = trained
  with pytest.raises(ValueError, match=r'MeshConfig|devices'):
    train.train(_run(project, tmp_path / 'run', 'Run.mesh = @MeshConfig()', 'MeshConfig.data = 3'))
  assert (tmp_path / 'run/stages.json').exists()
  other = _run(project, tmp_path / 'run', 'Run.seed_order = 5')
  assert train.train(other) == 0
  frozen = stage_data.read(tmp_path / 'run')['stages'][0]['batches']
  assert frozen == tiny_project.open_stage(other).batches.fingerprint


def test_a_stage_that_is_left_out_leaves_nothing_behind(trained, two, tmp_path, killed, capsys):
  project, _ = trained
  killed(_run(project, tmp_path / 'run', *TWO), 14)
  capsys.readouterr()
  assert train.train(_run(project, tmp_path / 'run', *TRUNK)) == 0
  summary = capsys.readouterr().out.split('complete: ')[1]
  assert summary.startswith('12 steps')
  assert 'more' not in summary.split('checkpoint:')[0]
  assert max(_losses(tmp_path / 'run')) == 12
  resolved = json.loads((tmp_path / 'run/config.json').read_text())
  assert [stage['name'] for stage in resolved['stages']] == ['trunk']


@pytest.mark.slow
def test_an_evaluation_at_a_boundary_that_a_kill_prevented_is_made_up_for(
  trained, tmp_path, monkeypatch
):
  project, _ = trained
  bindings = [*TWO, 'EvaluationConfig.every_tokens = 0', 'EvaluationConfig.prompts = ()']
  bindings += ["more/Stage.optimizer_state = 'reset'"]
  runs = [_run(project, tmp_path / name, *bindings, quiet=False) for name in ('whole', 'broken')]
  assert train.train(runs[0]) == 0
  scored = in_loop.Evaluator.__call__

  def fatal(self, step, *rest):
    if step == 12:
      raise Killed
    return scored(self, step, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(in_loop.Evaluator, '__call__', fatal)
    _save_at_once(patch)
    with pytest.raises(Killed):
      train.train(runs[1])
  assert train.train(runs[1]) == 0
  found = [read_evaluations(tmp_path / name) for name in ('whole', 'broken')]
  assert list(found[0]) == list(found[1]) == [0, 12, 16]
  for step, record in found[0].items():
    assert record['bits_per_byte'] == found[1][step]['bits_per_byte']
    assert record['trained_tokens'] == 512 * step


@pytest.mark.slow
def test_lengths_that_alternate_read_nothing_again_and_go_on_where_they_stood(trained, tmp_path):
  scopes = ('b', 'c', 'd')
  bindings = ['Run.stages = [@Stage(), @b/Stage(), @c/Stage(), @d/Stage()]', "Stage.name = 'a'"]
  for scope, length in zip(scopes, (32, 64, 32), strict=True):
    bindings += [f"{scope}/Stage.name = '{scope}'", f'{scope}/Stage.tokens = 6_144']
    bindings += [f'{scope}/Stage.sequence_length = {length}'] if length != 64 else []
  a, b, c, d = stage_data.open_stages(_run(trained[0], tmp_path, *bindings)).stages
  for source in range(2):
    for early, late in ((a, c), (b, d)):
      counts = early.batches.counts(early.stage.steps)
      assert late.batches.firsts[source] == early.batches.firsts[source] + counts[source]
    assert b.batches.windows[source].first(1) == b.batches.firsts[source]


def test_stages_of_slightly_other_doses_read_other_text(trained, tmp_path):
  names = ('b', 'c', 'd')
  bindings = [
    f'Run.stages = [@Stage(), {", ".join(f"@{n}/Stage()" for n in names)}]', "Stage.name = 'a'",
    'Stage.tokens = 30_720', 'LinkPolicy.doc_fraction = 1.0',
  ]  # fmt: skip
  for n, ratio in zip(names, (0.32, 0.34, 0.36), strict=True):
    bindings += [f"{n}/Stage.name = '{n}'", f"{n}/Stage.link = {{'tiny_en': @{n}/LinkPolicy()}}"]
    bindings += [f'{n}/LinkPolicy.word_ratio = {ratio}']
  stages = stage_data.open_stages(_run(trained[0], tmp_path, *bindings)).stages
  read = []
  for part in stages:
    window, first = part.batches.windows[0], part.batches.firsts[0]
    count = int(part.batches.counts(part.stage.steps)[0])
    starts = window.start(np.arange(first, first + count)) % window.blocks.tokens
    read.append({(s + k) % window.blocks.tokens for s in starts.tolist() for k in range(64)})
  share = len(read[0]) / stages[0].blocks[0].tokens
  for one, other in itertools.pairwise(read):
    assert len(one & other) / len(other) < 1.5 * share  # what chance gives, and its noise


@pytest.mark.slow
def test_a_stage_added_with_a_task_that_has_no_held_out_text_goes_on(trained, tmp_path):
  project, _ = trained
  first = [*TRUNK, 'EvaluationConfig.prompts = ()']
  assert train.train(_run(project, tmp_path / 'run', *first, quiet=False)) == 0
  bindings = [*TWO, "more/Stage.mixture = 'tiny_more'", 'more/Stage.rates = {}', 'more/Stage.link = {}',
              'EvaluationConfig.prompts = ()']  # fmt: skip
  assert train.train(_run(project, tmp_path / 'run', *bindings, quiet=False)) == 0
  assert set(read_evaluations(tmp_path / 'run')[16]['bits_per_byte']) == {'tiny_en', 'tiny_tr'}


def test_the_forecast_is_of_the_stage_that_reads_a_source_most(trained, tmp_path):
  bindings = [
    'Run.stages = [@Stage(), @a/Stage(), @b/Stage()]', "a/Stage.name = 'a'", "b/Stage.name = 'b'",
    "a/Stage.rates = {'tiny_tr': 1, 'tiny_en': '1/100'}", 'a/Stage.tokens = 800_000',
    "b/Stage.start_from = 'pretrain'",
  ]  # fmt: skip
  data = stage_data.open_stages(_run(trained[0], tmp_path, *bindings))
  most = data.stages[1].account(data.stages[1].stage.steps)['tiny_tr']['all_repetitions']
  assert most > 20
  lines = report_data.describe_forecast(data).splitlines()
  assert f'tiny_tr {most:.1f}' in lines[0]
  assert lines[1].startswith(f'warning: tiny_tr will be read {most:.1f} times')


def test_a_point_beyond_the_stage_is_warned_of(trained, tmp_path):
  rates = "Stage.rates = {'tiny_en': 1, 'tiny_tr': ((0, 1), (1_000_000, 3))}"
  part = tiny_project.open_stage(_run(trained[0], tmp_path, rates))
  assert (
    "warning: Stage.rates['tiny_tr'] has a point at 1,000,000 tokens, and the stage ends after 10,240"
    in report_data.describe_sources(part)
  )


@pytest.mark.parametrize(
  ('bindings', 'message'),
  [
    (['Stage.mixing = @MixingConfig()', "MixingConfig.policy = 'proportional'"],
     "Stage.rates of 'pretrain' is .*'proportional' has no use for rates"),
    (["Stage.optimizer_state = 'reset'"], 'begins with fresh parameters'),
    (["Stage.start_from = '{run}@5'"], 'the run itself'),
    (["Stage.start_from = '{run}/me@host/run@5'"], '/me@host/run holds no checkpoints'),
  ],
)  # fmt: skip
def test_a_setting_without_a_use_is_refused(trained, tmp_path, bindings, message):
  run = tmp_path / 'run'
  bindings = [b.format(run=run) for b in bindings]
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    stage_data.open_stages(_run(trained[0], run, *bindings))
