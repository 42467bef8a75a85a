"""Stages with different optimizers, and the average of the parameters, in whole runs."""

import dataclasses
import signal

import jax
import numpy as np
import pytest

from jaxlink import metrics, run_directory, train
from jaxlink.checkpoint import Keeper
from jaxlink.evaluation.in_loop import Evaluator
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig
from jaxlink.stage import Run, Stage
from tests import tiny_project

# Adafactor with an average, then Muon without: nothing of the first state fits the second.
TWO = [
  'Run.stages = [@Stage(), @second/Stage()]',
  'Stage.tokens = 5_120',
  "second/Stage.name = 'second'",
  "second/Stage.optimizer_state = 'reset'",
  'second/Stage.optimizer = @second/OptimizerConfig()',
  "OptimizerConfig.algorithm = 'adafactor'",
  'OptimizerConfig.ema_decay = 0.9',
  "second/OptimizerConfig.algorithm = 'muon'",
  'second/OptimizerConfig.ema_decay = 0.0',
  'Run.mesh = @MeshConfig()',
  'MeshConfig.data = 2',
  'MeshConfig.fsdp = 4',
  'EvaluationConfig.prompts = ()',
]
BOUNDARY, END = 10, 20


def _state(run: Run, step: int) -> dict[str, np.ndarray]:
  import orbax.checkpoint as ocp

  tree = ocp.PyTreeCheckpointer().restore(f'{run.directory}/checkpoints/{step}/state')
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(p, simple=True, separator='.'): np.asarray(x) for p, x in flat}


@pytest.mark.slow
def test_a_run_whose_stages_have_different_optimizers_resumes_bit_for_bit(
  trained, tmp_path, monkeypatch
):
  evaluated = {}
  evaluate = Evaluator.__call__

  def noting(self, step, params, *rest):
    evaluated[step] = jax.device_get(params)
    return evaluate(self, step, params, *rest)

  monkeypatch.setattr(Evaluator, '__call__', noting)
  straight = tiny_project.parse(trained[0], tmp_path / 'straight', *TWO)
  assert train.train(straight) == 0
  first, last = _state(straight, BOUNDARY), _state(straight, END)

  # What is evaluated is the average while there is one.
  average = {name: x for name, x in first.items() if '.average.' in name}
  assert len(average) == len([name for name in first if name.startswith('params.')])
  for name, x in average.items():
    path = name.split('.average.')[1]
    seen = evaluated[BOUNDARY]
    for key in path.split('.'):
      seen = seen[key]
    np.testing.assert_array_equal(seen, x)
    assert not np.array_equal(x, first[f'params.{path}'])
  assert not [name for name in last if '.average.' in name]
  np.testing.assert_array_equal(evaluated[END]['embed'], last['params.embed'])

  log, stops = metrics.Logger.log, [7, 13]

  def interrupted(self, step, *rest):
    log(self, step, *rest)
    if step in stops:
      stops.remove(step)
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(metrics.Logger, 'log', interrupted)
  stopped = tiny_project.parse(trained[0], tmp_path / 'stopped', *TWO)
  assert train.train(stopped) == 143
  assert run_directory.last_checkpoint(tmp_path / 'stopped') == 7
  assert train.train(stopped) == 143
  assert train.train(stopped) == 0
  for step, expected in ((BOUNDARY, first), (END, last)):
    state = _state(stopped, step)
    assert state.keys() == expected.keys()
    for name, x in expected.items():
      np.testing.assert_array_equal(state[name], x, err_msg=name)
  keeper = Keeper(f'{stopped.directory}/checkpoints', stopped.checkpoint, writer=False)
  assert keeper.read_meta(END)['skipped'] == 0
  keeper.close()


STAGE = Stage(mixture='m', tokens=64, batch=8, sequence_length=8, optimizer=OptimizerConfig())
MODEL = DecoderConfig(layers=1, width=32, heads=4, feedforward=32)


@pytest.mark.parametrize(
  ('settings', 'kept'),
  [
    ({'algorithm': 'muon'}, "the state of 'muon'"),
    ({'ema_decay': 0.9}, "the state of 'adamw' and an average of the parameters"),
  ],
)
def test_a_stage_cannot_keep_the_state_of_another_optimizer(settings, kept):
  second = dataclasses.replace(STAGE, name='second', optimizer=OptimizerConfig(**settings))
  expected = (
    f"Stage.optimizer_state of 'second' is 'keep', and its optimizer keeps {kept}, "
    "that of 'pretrain' the state of 'adamw'"
  )
  for start_from in ('', 'pretrain'):
    stages = (STAGE, dataclasses.replace(second, start_from=start_from))
    with pytest.raises(ValueError, match=expected):
      Run(directory='d', modules=('a',), stages=stages, model=MODEL)
  reset = dataclasses.replace(second, optimizer_state='reset')
  Run(directory='d', modules=('a',), stages=(STAGE, reset), model=MODEL)
  same = dataclasses.replace(STAGE, name='second', optimizer=OptimizerConfig(b1=0.8))
  Run(directory='d', modules=('a',), stages=(STAGE, same), model=MODEL)
