"""Stages: exact boundaries, branches equal to the straight run, and what may change after a start."""

import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from jaxlink import metrics, run_directory, stage_data, train
from jaxlink.checkpoint import Keeper
from jaxlink.stage import Run
from tests import tiny_project

STEPS = 20  # of 8 x 64 tokens

# A warm-up of 2 steps, the peak, a decay over the last 8: in one stage, and in two.
STRAIGHT = [
  "OptimizerConfig.schedule = 'wsd'",
  'OptimizerConfig.warmup_share = 0.1',
  'OptimizerConfig.decay_share = 0.4',
]
TRUNK = [
  'Stage.tokens = 6_144',
  "Stage.name = 'trunk'",
  "OptimizerConfig.schedule = 'constant'",
  'OptimizerConfig.warmup_share = 0.1666',
  'CheckpointConfig.keep_every = 5',
]
DECAY = [
  'Stage.tokens = 4_096',
  "Stage.name = 'decay'",
  "OptimizerConfig.schedule = 'wsd'",
  'OptimizerConfig.warmup_share = 0.0',
  'OptimizerConfig.decay_share = 1.0',
]


def _scoped(scope: str, bindings: list[str]) -> list[str]:
  return [f'{scope}/{b}' for b in bindings if not b.startswith('CheckpointConfig')] + [
    f'{scope}/Stage.optimizer = @{scope}/OptimizerConfig()'
  ]


TWO = ['Run.stages = [@Stage(), @decay/Stage()]', *TRUNK, *_scoped('decay', DECAY)]


def _run(project, directory: pathlib.Path, *bindings: str) -> Run:
  return tiny_project.parse(project, directory, *tiny_project.QUIET, *bindings)


def _state(run: Run, step: int) -> dict[str, np.ndarray]:
  import orbax.checkpoint as ocp

  path = pathlib.Path(run.directory).absolute() / 'checkpoints' / str(step) / 'state'
  tree = ocp.PyTreeCheckpointer().restore(path)
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(p): np.asarray(leaf) for p, leaf in flat}


def _meta(run: Run, step: int) -> dict:
  folder = str(pathlib.Path(run.directory) / 'checkpoints')
  keeper = Keeper(folder, run.checkpoint, writer=False)
  meta = keeper.read_meta(step)
  keeper.close()
  return meta


@pytest.fixture(scope='module')
def straight(trained, tmp_path_factory) -> Run:
  run = _run(trained[0], tmp_path_factory.mktemp('straight') / 'run', *STRAIGHT)
  assert train.train(run) == 0
  return run


@pytest.fixture(scope='module')
def two(trained, tmp_path_factory) -> Run:
  run = _run(trained[0], tmp_path_factory.mktemp('two') / 'run', *TWO)
  assert train.train(run) == 0
  return run


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
  assert one.keys() == other.keys()
  for name, array in one.items():
    np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_two_stages_that_divide_a_schedule_are_the_one_stage_bit_for_bit(straight, two):
  losses = [
    [line['loss'] for line in tiny_project.metrics_of(r.directory)] for r in (straight, two)
  ]
  assert len(losses[0]) == STEPS
  assert losses[0] == losses[1]
  rates = [
    [line['learning_rate'] for line in tiny_project.metrics_of(r.directory)]
    for r in (straight, two)
  ]
  assert rates[0] == pytest.approx(rates[1], rel=1e-6)
  _same(_state(straight, STEPS), _state(two, STEPS))


def test_a_branch_of_a_trunk_is_the_straight_run_bit_for_bit(trained, straight, tmp_path):
  project, _ = trained
  # A trunk that went on beyond the branch.
  trunk = _run(project, tmp_path / 'trunk', *TRUNK, 'Stage.tokens = 8_192',
               'OptimizerConfig.warmup_share = 0.125', 'CheckpointConfig.every_steps = 4',
               'CheckpointConfig.keep_every = 4')  # fmt: skip
  assert train.train(trunk) == 0
  branch = _run(project, tmp_path / 'branch', *DECAY, f"Stage.start_from = '{tmp_path}/trunk@12'")
  assert train.train(branch) == 0
  expected, found = _state(straight, STEPS), _state(branch, 8)
  assert (expected.pop("['step']"), found.pop("['step']")) == (STEPS, 8)
  _same(expected, found)
  accounts = _meta(straight, STEPS)['accounts'], _meta(branch, 8)['accounts']
  for name in ('tiny_en', 'tiny_tr'):
    assert accounts[0][name]['all_tokens'] == accounts[1][name]['all_tokens']
    assert accounts[1][name]['tokens'] < accounts[1][name]['all_tokens']


@pytest.mark.slow
def test_a_branch_inside_a_run_starts_from_the_stage_that_it_names(trained, straight, tmp_path):
  project, _ = trained
  other = [
    *DECAY[:1],
    "Stage.name = 'other'",
    *DECAY[2:],
    "Stage.rates = {'tiny_tr': 1, 'tiny_en': 1}",
  ]
  run = _run(
    project, tmp_path / 'run', 'Run.stages = [@Stage(), @other/Stage(), @decay/Stage()]',
    *TRUNK, *_scoped('other', other),
    *_scoped('decay', [*DECAY, "Stage.start_from = 'trunk'"]),
  )  # fmt: skip
  assert train.train(run) == 0
  expected, found = _state(straight, STEPS), _state(run, 28)
  assert (expected.pop("['step']"), found.pop("['step']")) == (STEPS, 28)
  _same(expected, found)


@pytest.mark.parametrize('at', [*(pytest.param(n, marks=pytest.mark.slow) for n in (11, 13)), 12])
def test_a_stop_on_either_side_of_a_boundary_changes_nothing(
  trained, two, tmp_path, monkeypatch, at
):
  project, _ = trained
  run = _run(project, tmp_path / 'run', *TWO)
  log = metrics.Logger.log

  def interrupted(self, step, *rest):
    if step == at:
      signal.raise_signal(signal.SIGTERM)
    return log(self, step, *rest)

  monkeypatch.setattr(metrics.Logger, 'log', interrupted)
  assert train.train(run) == 143
  monkeypatch.undo()
  assert run_directory.last_checkpoint(tmp_path / 'run') == at
  assert train.train(run) == 0
  strip = lambda lines: [{k: v for k, v in line.items() if 'second' not in k} for line in lines]  # noqa: E731
  assert strip(tiny_project.metrics_of(tmp_path / 'run')) == strip(
    tiny_project.metrics_of(two.directory)
  )
  _same(_state(run, STEPS), _state(two, STEPS))
  assert _meta(run, STEPS)['counts'] == _meta(two, STEPS)['counts']
  assert len(_meta(run, STEPS)['counts']) == 2


def test_accounts_are_those_of_the_batches_by_stage_and_in_all(two):
  data = stage_data.open_stages(two)
  total = dict.fromkeys(('tiny_en', 'tiny_tr'), 0)
  lines = {line['step']: line for line in tiny_project.metrics_of(two.directory)}
  step = 0
  for k, part in enumerate(data.stages):
    mine = dict.fromkeys(total, 0)
    for index in range(part.stage.steps):
      rows = part.batches.read(index, range(8))['source']
      for name, count in zip(
        part.batches.mixture.names, np.bincount(rows, minlength=2), strict=True
      ):
        mine[name] += int(count)
        total[name] += int(count)
      step += 1
      for window in part.batches.windows:
        name = window.blocks.name
        assert lines[step][f'stage_sequences/{name}'] == mine[name]
        assert lines[step][f'sequences/{name}'] == total[name]
        assert lines[step][f'tokens/{name}'] == 64 * total[name]
        passes = float(total[name] * window.stride / window.blocks.tokens)
        assert lines[step][f'repetitions/{name}'] == pytest.approx(passes, rel=1e-12)
      assert (lines[step]['stage'], lines[step]['trained_tokens']) == (k, 512 * step)
    assert _meta(two, step)['accounts']['tiny_tr']['tokens'] == 64 * mine['tiny_tr']


def test_the_second_stage_reads_on_where_the_first_stopped(two):
  first, second = stage_data.open_stages(two).stages
  counts = first.batches.counts(first.stage.steps)
  assert second.batches.firsts == tuple(counts.tolist())
  assert second.batches.phase == first.stage.steps * 8  # the shares are the same
  rows = [
    (part.batches.read(k, range(8)), part)
    for part in (first, second) for k in range(part.stage.steps)
  ]  # fmt: skip
  whole = rows[0][1].batches
  for step, (batch, _) in enumerate(rows):
    for name, array in whole.read(step, range(8)).items():
      np.testing.assert_array_equal(array, batch[name])


def test_another_length_begins_the_next_epoch_in_an_order_of_its_own(trained, tmp_path):
  bindings = [*TWO, 'decay/Stage.sequence_length = 32', 'decay/Stage.batch = 4']
  first, second = stage_data.open_stages(_run(trained[0], tmp_path, *bindings)).stages
  for window, start in zip(second.batches.windows, second.batches.firsts, strict=True):
    assert start == window.first(1)  # less than one pass was made
  assert second.batches.phase == first.stage.steps * 8
  account = second.account(second.stage.steps)
  assert account['tiny_tr']['tokens'] % 32 == 0
  before = first.account(first.stage.steps)['tiny_tr']['tokens']
  assert account['tiny_tr']['all_tokens'] == before + account['tiny_tr']['tokens']


@pytest.mark.slow
def test_a_stage_added_to_a_finished_run_goes_on_from_its_end(trained, two, tmp_path, capsys):
  project, _ = trained
  run = _run(project, tmp_path / 'run', *TRUNK)
  assert train.train(run) == 0
  assert 'complete: 12 steps' in capsys.readouterr().out
  assert train.train(_run(project, tmp_path / 'run', *TWO)) == 0
  assert 'complete: 20 steps' in capsys.readouterr().out
  _same(_state(run, STEPS), _state(two, STEPS))


@pytest.mark.slow
def test_what_has_begun_is_fixed_and_what_has_not_may_change(trained, tmp_path, monkeypatch):
  project, _ = trained
  run = _run(project, tmp_path / 'run', *TWO)
  log = metrics.Logger.log

  def interrupted(self, step, *rest):
    if step == 5:
      signal.raise_signal(signal.SIGTERM)
    return log(self, step, *rest)

  monkeypatch.setattr(metrics.Logger, 'log', interrupted)
  assert train.train(run) == 143
  monkeypatch.undo()
  with pytest.raises(ValueError, match=r'stages\[0\].tokens: 6144 → 7168'):
    train.train(_run(project, tmp_path / 'run', *TWO, 'Stage.tokens = 7_168'))
  changed = _run(project, tmp_path / 'run', *TWO, 'decay/Stage.tokens = 2_048',
                 "decay/Stage.rates = {'tiny_tr': 0.9, 'tiny_en': 0.1}")  # fmt: skip
  assert train.train(changed) == 0
  assert [line['step'] for line in tiny_project.metrics_of(tmp_path / 'run')] == list(range(1, 17))
  with pytest.raises(ValueError, match=r'stages\[1\].tokens.*add a stage to Run.stages'):
    train.train(_run(project, tmp_path / 'run', *TWO))
  with pytest.raises(ValueError, match="stage 'decay' has begun, and the recipe has no such stage"):
    train.train(_run(project, tmp_path / 'run', *TRUNK))


def test_a_source_is_read_as_often_as_asked_over_all_stages(trained, tmp_path):
  mixing = [
    'decay/Stage.mixing = @MixingConfig()', 'decay/Stage.rates = {}',
    "MixingConfig.policy = 'repetitions'", "MixingConfig.repetitions = {'tiny_tr': 0.25}",
  ]  # fmt: skip
  first, second = stage_data.open_stages(_run(trained[0], tmp_path, *TWO, *mixing)).stages
  before = first.account(first.stage.steps)['tiny_tr']
  after = second.account(second.stage.steps)['tiny_tr']
  tokens = second.blocks[second.batches.mixture.names.index('tiny_tr')].tokens
  assert 0 < before['repetitions'] < 0.25
  assert abs(after['all_repetitions'] - 0.25) * tokens <= 2 * 64
  assert after['all_tokens'] == before['tokens'] + after['tokens']


@pytest.mark.slow
def test_a_run_goes_on_with_the_text_that_it_began_with(
  trained, two, tmp_path, monkeypatch, capsys
):
  project, _ = trained
  run = _run(project, tmp_path / 'run', *TWO, f"DataConfig.cache_dir = '{tmp_path}/cache'")
  log = metrics.Logger.log

  def interrupted(self, step, *rest):
    if step == 5:
      signal.raise_signal(signal.SIGTERM)
    return log(self, step, *rest)

  text = project.folder / 'tr.txt'
  whole = text.read_bytes()
  monkeypatch.setattr(metrics.Logger, 'log', interrupted)
  assert train.train(run) == 143
  monkeypatch.undo()
  frozen = stage_data.read(tmp_path / 'run')
  try:
    text.write_bytes(whole + '\n\nBir cümle daha.\n'.encode())
    capsys.readouterr()
    assert train.train(run) == 0
    assert 'goes on with the caches that it began with' in capsys.readouterr().out
    assert [e['batches'] for e in stage_data.read(tmp_path / 'run')['stages']] == [
      e['batches'] for e in frozen['stages']
    ]
    _same(_state(run, STEPS), _state(two, STEPS))
    anew = stage_data.open_stages(run)  # another run would read the text as it is now
    assert anew.stages[0].batches.fingerprint != frozen['stages'][0]['batches']
    (turkish,) = (s for s in frozen['stages'][0]['sources'] if s['task'] == 'tiny_tr')
    shutil.rmtree(tmp_path / 'cache' / turkish['folder'])
    with pytest.raises(ValueError, match='is gone, and its text has changed'):
      stage_data.open_stages(run, frozen)
  finally:
    text.write_bytes(whole)
  restored = stage_data.open_stages(run, frozen)  # built again from the text that is back
  assert restored.stages[0].batches.fingerprint == frozen['stages'][0]['batches']


def test_the_optimizer_state_is_kept_or_begun_anew(trained, two, tmp_path):
  run = _run(trained[0], tmp_path / 'run', *TWO, "decay/Stage.optimizer_state = 'reset'")
  assert train.train(run) == 0
  mine, other = (tiny_project.metrics_of(r.directory) for r in (run, two))
  losses = [[line['loss'] for line in lines] for lines in (mine, other)]
  assert (
    losses[0][:13] == losses[1][:13]
  )  # loss 13 is of the parameters before the first new update
  assert losses[0][13:] != losses[1][13:]
  counts = {name: v for name, v in _state(run, STEPS).items() if name.endswith("['count']")}
  assert {int(v) for v in counts.values()} == {8}


@pytest.mark.parametrize(
  ('bindings', 'message'),
  [
    (["Stage.start_from = 'nowhere'"], 'nowhere holds no checkpoints'),
    (["Stage.start_from = '{two}@13'"], 'checkpoints are of steps .*12, .*20'),
    (["Stage.start_from = '{two}@last'"], 'the number of a step'),
    (["Stage.start_from = 'gs://bucket/run'"], 'addresses are not opened'),
    (["Stage.start_from = '{two}'", 'DecoderConfig.width = 48'], 'of another state than this run'),
    (['Run.stages = [@Stage(), @Stage()]'], "Stage.name 'pretrain' is that of two stages"),
    (['Run.stages = [@Stage(), @b/Stage()]', "b/Stage.name = 'b'", "b/Stage.start_from = 'c'"],
     'neither an earlier stage'),
    (['Run.stages = [@a/Stage(), @b/Stage()]', "a/Stage.name = 'a'", "b/Stage.name = 'b'",
      "a/Stage.start_from = 'b'"], 'no earlier stage'),
    (["Stage.name = 'a/b'"], 'Stage.name'),
    (["Stage.rates = {{'tiny_tt': 1}}"], "'tiny_tt' is not in mixture 'tiny'. Nearest: 'tiny_tr'"),
    (["Stage.rates = {{'tiny_tr': 0, 'tiny_en': 1}}"], "'tiny_tr' is 0"),
    (["Stage.rates = {{'tiny_tr': -1, 'tiny_en': 1}}"], "'tiny_tr' is -1"),
    (["Stage.rates = {{'tiny_tr': 1}}"], "'tiny_en' is missing"),
  ],
)  # fmt: skip
def test_a_mistake_is_an_error_that_names_it(trained, two, tmp_path, bindings, message):
  bindings = [b.format(two=two.directory) for b in bindings]
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    train.train(_run(trained[0], tmp_path / 'run', *bindings))
  assert not (tmp_path / 'run/checkpoints').is_dir() or not list(
    (tmp_path / 'run/checkpoints').iterdir()
  )
