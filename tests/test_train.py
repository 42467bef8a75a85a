"""The training command, from the recipe to the summary, on real text."""

import argparse
import errno
import json
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlink import accounts, config, metrics, report_data, run_directory, train
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.checkpoint import Keeper
from jaxlink.evaluation import in_loop
from jaxlink.mesh import MeshConfig
from jaxlink.optimizer import make_optimizer
from jaxlink.stage import Run
from tests import tiny_project

STEPS = 20


def _run(project, directory, *bindings: str) -> Run:
  return config.parse(Run, [project.recipe], [f"Run.directory = '{directory}'", *bindings])


def _losses(directory: pathlib.Path) -> list[float]:
  lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  return [line['loss'] for line in lines if 'loss' in line]


def test_a_run_says_what_it_reads_what_it_replaced_and_what_came_out(trained):
  project, output = trained
  for part in ('tiny_tr', 'repetitions', 'LINK on tiny_en, drawn as it is read: 50%', 'before:', 'after:',
               'LINK on tiny_en: ', 'start: git', 'bits per byte before', 'xz -9e alone', 'generated: Türkiye', 'checkpoint:', 'next:'):  # fmt: skip
    assert part in output
  lines = [
    json.loads(line) for line in (project.folder / 'run/metrics.jsonl').read_text().splitlines()
  ]
  steps = [line['step'] for line in lines if 'loss' in line]
  assert steps == list(range(1, STEPS + 1))
  last = next(line for line in lines if line.get('loss') and line['step'] == STEPS)
  assert last['tokens/tiny_tr'] + last['tokens/tiny_en'] == STEPS * 8 * 64
  assert last['tokens/tiny_tr'] == 112 * 64  # 0.7 of 160 sequences
  evaluated = [line['step'] for line in lines if 'bits_per_byte/tiny_tr' in line]
  assert evaluated == [0, 10, 20]
  start = json.loads((project.folder / 'run/starts.jsonl').read_text())
  assert start['versions']['jax'] == jax.__version__
  dose = start['dose']['pretrain']['tiny_en']
  assert 0 < dose['sample']['replaced'] == dose['sample']['eligible'] < dose['sample']['words']
  assert dose['probability'] == 0.3
  assert 'tiny_tr' not in start['dose']['pretrain']
  assert (
    json.loads((project.folder / 'run/config.json').read_text())['stages'][0]['tokens'] == 10_240
  )


def test_the_dose_in_metrics_checkpoints_and_summary_is_that_of_the_batches_that_were_read(trained):
  project, output = trained
  run = _run(project, project.folder / 'run')
  batches = tiny_project.open_stage(run).batches
  expected = np.zeros(len(batches.count_names), np.int64)
  doses = []
  for step in range(STEPS):
    expected += batches.read(step, range(8))['counts'].sum(axis=0)
    doses.append(dict(zip(batches.count_names, expected.tolist(), strict=True)))
  keeper = Keeper(str(project.folder / 'run/checkpoints'), run.checkpoint, writer=False)
  assert keeper.read_meta(STEPS)['counts'] == [{'tiny_en': doses[-1]}]
  lines = [
    json.loads(line) for line in (project.folder / 'run/metrics.jsonl').read_text().splitlines()
  ]
  logged = [line for line in lines if 'link/tiny_en/replaced' in line]
  assert [line['step'] for line in logged] == list(range(1, STEPS + 1))
  for line, dose in zip(logged, doses, strict=True):
    assert {name: line[f'link/tiny_en/{name}'] for name in accounts.rates(dose)} == pytest.approx(
      accounts.rates(dose)
    )
  assert not [name for name in logged[0] if name.startswith('link/tiny_tr')]
  assert report_data.describe_realised('tiny_en', doses[-1]) in output


def test_a_resumed_run_counts_on_where_the_first_part_stopped(trained, tmp_path, monkeypatch):
  project, _ = trained
  run = _run(project, tmp_path / 'run')
  log = metrics.Logger.log

  def interrupted(self, step, *rest):
    log(self, step, *rest)
    if step == 7:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(metrics.Logger, 'log', interrupted)
  assert train.train(run) == 143
  assert run_directory.last_checkpoint(tmp_path / 'run') == 7
  monkeypatch.undo()
  assert train.train(run) == 0
  metas = []
  for directory in (tmp_path / 'run', project.folder / 'run'):
    keeper = Keeper(str(directory / 'checkpoints'), run.checkpoint, writer=False)
    metas.append(keeper.read_meta(STEPS))
  assert metas[0]['counts'] == metas[1]['counts']
  assert metas[0]['batches'] == metas[1]['batches']


def test_training_learns(trained):
  losses = _losses(trained[0].folder / 'run')
  assert losses[-1] < losses[0] - 1


def test_the_trainer_imports_neither_tensorflow_nor_seqio():
  code = (
    'import sys, jaxlink.train\n'
    "print([m for m in ('tensorflow', 'seqio', 'torch') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'


def test_another_configuration_in_the_same_directory_is_refused_by_name(trained):
  project, _ = trained
  run = _run(
    project, project.folder / 'run', 'OptimizerConfig.learning_rate = 0.02', 'Run.seed_init = 3'
  )
  with pytest.raises(ValueError, match=r'another configuration') as error:
    train.train(run)
  assert 'stages[0].optimizer.learning_rate: 0.01 → 0.02' in str(error.value)
  assert 'seed_init: 0 → 3' in str(error.value)


def test_another_mesh_or_cadence_in_the_same_directory_is_no_other_configuration(trained, capsys):
  project, _ = trained
  run = _run(project, project.folder / 'run', 'CheckpointConfig.every_steps = 7', 'Run.mesh = @MeshConfig()',
             'MeshConfig.fsdp = 8')  # fmt: skip
  assert train.train(run) == 0
  assert 'complete: 20 steps' in capsys.readouterr().out


def test_other_data_than_a_checkpoint_was_made_with_is_refused(trained, tmp_path):
  project, _ = trained
  run = _run(project, tmp_path / 'run')
  assert train.train(run) == 0
  # A complete run is not asked again, so its record of being complete goes first.
  (tmp_path / 'run/evaluations.jsonl').unlink()
  (tmp_path / 'run/config.json').unlink()
  other = _run(project, tmp_path / 'run', 'Run.seed_order = 1')
  with pytest.raises(ValueError, match='the data has changed since the checkpoint of step 20'):
    train.train(other)


def test_the_loop_fetches_once_a_step_and_compiles_nothing(trained, tmp_path, monkeypatch):
  project, _ = trained
  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: events.append(name) if name.endswith('backend_compile_duration') else None
  )
  compiled_at = []
  log = metrics.Logger.log
  monkeypatch.setattr(
    metrics.Logger, 'log', lambda self, *a: compiled_at.append(len(events)) or log(self, *a)
  )
  evaluate = in_loop.Evaluator.__call__

  def evaluation(self, *args):
    before = len(events)
    scores = evaluate(self, *args)
    assert len(events) == before  # scoring and generating were compiled before
    return scores

  monkeypatch.setattr(in_loop.Evaluator, '__call__', evaluation)
  compiles = []
  compile_step = step_lib.compile_step
  monkeypatch.setattr(step_lib, 'compile_step', lambda *a: compiles.append(a) or compile_step(*a))
  run = _run(project, tmp_path / 'run', 'EvaluationConfig.every_tokens = 0',
             'CheckpointConfig.every_steps = 1000', 'Run.compile_cache = False')  # fmt: skip
  calls = metrics.fetch.calls
  assert train.train(run) == 0
  texts, lines, evaluations = 2, 1, 2
  assert metrics.fetch.calls - calls == STEPS + (texts + lines) * evaluations
  assert len(compiles) == 1
  assert len(compiled_at) == STEPS
  assert compiled_at[0] == compiled_at[-1]  # from the first step to the last


def test_a_checkpoint_restores_bit_equal_on_other_meshes(trained):
  project, _ = trained
  run = _run(project, project.folder / 'run')
  model = run.model.resolve(platform='cpu', vocabulary=768)
  optimizer = make_optimizer(run.stages[0].optimizer, STEPS)
  keeper = Keeper(str(project.folder / 'run/checkpoints'), run.checkpoint, writer=False)
  states = []
  for mesh_config, devices in (
    (MeshConfig(), jax.devices()[:1]),
    (MeshConfig(fsdp=8), jax.devices()),
    (MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()),
  ):
    mesh = mesh_lib.make_mesh(mesh_config, devices)
    abstract = step_lib.abstract_state(model, optimizer, mesh)
    state, meta = keeper.restore(STEPS, abstract)
    assert meta['step'] == STEPS
    assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, abstract)
    states.append(jax.tree.map(np.asarray, state))
  for other in states[1:]:
    jax.tree.map(np.testing.assert_array_equal, states[0], other)


def test_updates_that_are_not_finite_are_skipped_and_end_the_run_after_a_while(trained, tmp_path):
  project, _ = trained
  run = _run(project, tmp_path / 'run', 'OptimizerConfig.learning_rate = 1e38', 'Run.max_skipped = 4',
             'OptimizerConfig.warmup_share = 0.0')  # fmt: skip
  with pytest.raises(train.SkippedTooMuch, match='4 updates in a row'):
    train.train(run)


def test_a_run_of_which_no_update_was_finite_is_not_complete(trained, tmp_path):
  project, _ = trained
  run = _run(project, tmp_path / 'run', 'Run.max_skipped = 100', 'Run.loss = @LossConfig()',
             'LossConfig.z_loss = 1e38', 'CheckpointConfig.every_steps = 1000')  # fmt: skip
  with pytest.raises(train.SkippedTooMuch, match='20 updates in a row'):
    train.train(run)
  assert run_directory.last_checkpoint(tmp_path / 'run') is None


def test_skipped_updates_are_told_at_the_end_and_what_is_not_finite_is_null(
  trained, tmp_path, monkeypatch, capsys
):
  # Norms keep the scores of even such parameters finite.
  monkeypatch.setattr(in_loop.held_out, 'bits_per_byte', lambda *_: float('nan'))
  project, _ = trained
  run = _run(project, tmp_path / 'run', 'OptimizerConfig.learning_rate = 1e38', 'Run.max_skipped = 100',
             'OptimizerConfig.warmup_share = 0.0')  # fmt: skip
  assert train.train(run) == 0
  output = capsys.readouterr().out
  assert (
    'skipped: 19 of 20 updates, whose loss or gradient was not finite, among them the last 19'
    in output
  )
  assert 'not finite' in output.split('xz -9e alone')[1]

  def refuse(constant):
    raise AssertionError(f'{constant} is no JSON')

  lines = (tmp_path / 'run/evaluations.jsonl').read_text().split('\n')[:-1]
  last = [json.loads(line, parse_constant=refuse) for line in lines][-1]
  assert last['bits_per_byte'] == {'tiny_en': None, 'tiny_tr': None}
  assert set(last['nonfinite']) == {'tiny_en', 'tiny_tr'}


def test_a_second_run_in_one_directory_is_refused(trained, tmp_path):
  project, _ = trained
  held = 'import pathlib, sys, jaxlink.run_directory as r\nwith r.claim(pathlib.Path(sys.argv[1])): print(flush=True), input()'
  holder = subprocess.Popen([sys.executable, '-c', held, str(tmp_path / 'run')], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
  try:
    holder.stdout.readline()
    run = config.parse(Run, [project.recipe], [f"Run.directory = '{tmp_path}/run'"])
    with pytest.raises(ValueError, match=rf'{tmp_path}/run: process {holder.pid} .*Run\.directory'):
      train.train(run)
  finally:
    holder.communicate('\n')
  assert not (tmp_path / 'run/metrics.jsonl').exists()


def _main(project, *bindings: str) -> int:
  return train.main(argparse.Namespace(
    gin_file=[project.recipe], gin_bindings=list(bindings), dry_run=False, distributed=False,
    coordinator_address=None, profile_steps=None, xla_flags='none',
  ))  # fmt: skip


def test_a_full_disk_in_the_loop_is_one_line_with_the_last_good_step(
  trained, tmp_path, monkeypatch, capsys
):
  write = metrics.Metrics.write

  def full(self, step, values):
    if step == 16:
      raise OSError(errno.ENOSPC, 'No space left on device')
    write(self, step, values)

  monkeypatch.setattr(metrics.Metrics, 'write', full)
  assert _main(trained[0], f"Run.directory = '{tmp_path}'", 'Run.compile_cache = False') == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('error: [Errno 28] No space left on device; ')
  assert re.search(rf'last checkpoint in {tmp_path} is of step (10|15)', error)


def test_a_run_directory_that_cannot_be_made_is_one_line(trained, tmp_path, capsys):
  (tmp_path / 'file').touch()
  assert (
    _main(trained[0], f"Run.directory = '{tmp_path}/file/run'", 'Run.compile_cache = False') == 1
  )
  assert f'nothing has been saved in {tmp_path}/file/run' in capsys.readouterr().err


@pytest.mark.parametrize('asked', [True, False])
def test_main_keeps_compiled_steps_if_asked(trained, tmp_path, monkeypatch, asked):
  enabled = []
  monkeypatch.setattr(train.compile_cache, 'enable', lambda: enabled.append(True))
  monkeypatch.setattr(train, 'train', lambda run, profile_steps: 0)
  assert _main(trained[0], f'Run.compile_cache = {asked}') == 0
  assert bool(enabled) is asked


def test_sigterm_while_the_data_is_prepared_ends_its_process_too_and_says_so(project, tmp_path):
  process = project.start(tmp_path / 'run', f"DataConfig.cache_dir = '{tmp_path}/cache'")
  try:
    while not process.stdout.readline().startswith('data: preparing'):
      assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)  # ends when no child holds the pipe any more
  finally:
    process.kill()
  assert process.returncode == 143
  assert 'SIGTERM: ended at once; nothing has been saved' in output


@pytest.mark.parametrize(
  ('bindings', 'message'),
  [
    (['Stage.sequence_length = 128'], 'max_length allows 64 positions'),
    (['Stage.batch = 7'], 'a batch of 7 sequences does not split over the 8 devices'),
    (['Stage.token = 3'], r"token.*Nearest: 'tokens'"),
    (["Stage.tokens = '3'"], 'Stage.tokens'),
    (['anneal/Stage.tokens = 3'], 'anneal'),
    (['DecoderConfig.vocabulary = 512'], 'vocabulary is 512, and the tokenizer has 700 ids'),
    (['EvaluationConfig.generate_tokens = 64'],
     r'generate_tokens is 64, .*EvaluationConfig.prompts .*DecoderConfig.max_length allows 64'),
    (['Run.stages = []'], 'Run.stages is empty'),
    (["DecoderConfig.remat = 'ful'"], "Nearest: 'full'"),
  ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_with_the_reason(trained, tmp_path, bindings, message):
  project, _ = trained
  with pytest.raises((ValueError, TypeError), match=message):
    train.train(_run(project, tmp_path / 'run', *bindings))


def test_a_mistake_is_one_line_and_no_traceback(project, tmp_path):
  output = project.train(tmp_path / 'run', 'Stage.token = 3', code=1)
  assert output.startswith('error: ')
  assert 'Traceback' not in output


def test_a_recipe_for_a_pod_is_lowered_counted_and_its_lacks_are_named(tmp_path):
  root = pathlib.Path(__file__).parents[1]
  done = subprocess.run(
    [sys.executable, '-m', 'jaxlink.train', f'--gin_file={root}/gin/1b_link.gin',
     f"--gin_bindings=DataConfig.cache_dir = '{tmp_path}'"],
    capture_output=True, text=True, check=False, cwd=root, timeout=120,
  )  # fmt: skip
  assert done.returncode == 1
  for part in ('parameters', 'fsdp 32', 'GiB on each device', 'lowered for tpu', 'missing:',
               'its axes multiply to 32, and there are', 'python -m jaxlink.cache --gin_file='):  # fmt: skip
    assert part in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_meshes_agree_with_one_device(trained):
  project, _ = trained
  expected = _losses(project.folder / 'run')
  for name, mesh in (
    ('data', 'MeshConfig.data = 8'),
    ('fsdp', 'MeshConfig.fsdp = 8'),
    ('all', 'MeshConfig.data = 2; MeshConfig.fsdp = 2; MeshConfig.tensor = 2'),
  ):
    directory = project.folder / f'mesh_{name}'
    project.train(directory, 'Run.mesh = @MeshConfig()', *mesh.split('; '), devices=8)
    losses = _losses(directory)
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    assert losses == pytest.approx(expected, rel=1e-3)
