"""The training command, from the recipe to the summary, on real text."""

import json
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlink import config, metrics, train
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.checkpoint import Keeper
from jaxlink.mesh import MeshConfig
from jaxlink.optimizer import make_optimizer
from jaxlink.stage import Run

STEPS = 20


def _run(project, directory, *bindings: str) -> Run:
  return config.parse(Run, [project.recipe], [f"Run.directory = '{directory}'", *bindings])


def _losses(directory: pathlib.Path) -> list[float]:
  lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  return [line['loss'] for line in lines if 'loss' in line]


def test_a_run_says_what_it_reads_what_it_replaced_and_what_came_out(trained):
  project, output = trained
  for part in ('tiny_tr', 'repetitions', 'LINK on tiny_en', 'documents rewritten', 'before:', 'after:',
               'bits per byte before', 'xz -9e alone', 'generated: Türkiye', 'checkpoint:', 'next:'):  # fmt: skip
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
  assert (
    json.loads((project.folder / 'run/config.json').read_text())['stages'][0]['tokens'] == 10_240
  )


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
  compiles = []
  compile_step = step_lib.compile_step
  monkeypatch.setattr(step_lib, 'compile_step', lambda *a: compiles.append(a) or compile_step(*a))
  run = _run(project, tmp_path / 'run', 'EvaluationConfig.every_tokens = 0', 'EvaluationConfig.prompts = ()',
             'CheckpointConfig.every_steps = 1000', 'Run.compile_cache = False')  # fmt: skip
  calls = metrics.fetch.calls
  assert train.train(run) == 0
  texts, evaluations = 2, 2
  assert metrics.fetch.calls - calls == STEPS + texts * evaluations
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


@pytest.mark.parametrize(
  ('bindings', 'message'),
  [
    (['Stage.sequence_length = 128'], 'max_length allows 64 positions'),
    (['Stage.batch = 7'], 'a batch of 7 sequences does not split over the 8 devices'),
    (['Stage.token = 3'], r"token.*Nearest: 'tokens'"),
    (["Stage.tokens = '3'"], 'Stage.tokens'),
    (['anneal/Stage.tokens = 3'], 'anneal'),
    (['DecoderConfig.vocabulary = 512'], '512'),
    (['Run.stages = []'], 'Run.stages is empty'),
    (["Run.stages = [@a/Stage(), @b/Stage()]"], 'one stage a run'),
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
               'the mesh has 32, this machine', 'python -m jaxlink.cache --gin_file='):  # fmt: skip
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


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(trained):
  project, _ = trained
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  directory = project.folder / 'two_hosts'
  commands = [
    project.command(
      directory, 'Run.mesh = @MeshConfig()', 'MeshConfig.fsdp = 2',
      arguments=[f'--coordinator_address=localhost:{port}', '--num_processes=2', f'--process_id={i}'],
    )
    for i in range(2)
  ]  # fmt: skip
  processes = [
    subprocess.Popen(c, env=project.environment(), cwd=project.folder, text=True,
                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for c in commands
  ]  # fmt: skip
  try:
    outputs = [p.communicate(timeout=300)[0] for p in processes]
  finally:
    for p in processes:
      p.kill()
  assert [p.returncode for p in processes] == [0, 0], outputs
  expected = _losses(project.folder / 'run')
  losses = _losses(directory)
  assert losses[0] == pytest.approx(expected[0], rel=1e-5)
  assert losses == pytest.approx(expected, rel=1e-3)
