"""Every setting of a recipe does something: for each field, another value is seen where it should be.

The table must name every field of every configurable, so a new field without an effect fails here.
"""

import ast
import dataclasses
import pathlib
import tempfile
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink import report
from jaxlink import step as step_lib
from jaxlink.checkpoint import CheckpointConfig, Keeper
from jaxlink.data import resolve
from jaxlink.evaluation import in_loop
from jaxlink.link.substitute import LinkPolicy
from jaxlink.mesh import MeshConfig
from jaxlink.model.attention import choose
from jaxlink.model.decoder import DecoderConfig
from jaxlink.model.loss import LossConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer, make_schedule
from jaxlink.stage import DataConfig, EvaluationConfig, Run, Stage

MODEL = DecoderConfig(layers=1, width=32, heads=4, feedforward=32, vocabulary=128, max_length=32)
POLICY = LinkPolicy(lexicon='en-tr', language='tr', stop_words='list')
STAGE = Stage(
  mixture='m', tokens=4096, batch=8, sequence_length=16, optimizer=OptimizerConfig(schedule='wsd')
)
RUN = Run(directory='d', modules=('a',), stages=(STAGE,), model=MODEL)


def _step(run: Run) -> str:
  """The train step as it is lowered: what the device is told to compute."""
  (stage,) = run.stages
  mesh = mesh_lib.make_mesh(run.mesh)
  model = run.model.resolve(platform='cpu')
  optimizer = make_optimizer(stage.optimizer, stage.steps)
  step = step_lib.make_train_step(
    model, optimizer, make_schedule(stage.optimizer, stage.steps), mesh,
    loss_config=run.loss, n_sources=2,
  )  # fmt: skip
  return step_lib.lower_step(
    step,
    step_lib.abstract_state(model, optimizer, mesh),
    step_lib.abstract_batch(stage.batch, stage.sequence_length, mesh),
  ).as_text()


def _with(part: str) -> Callable[[Any], Run]:
  return lambda value: dataclasses.replace(RUN, **{part: value})


def _staged(**changes: Any) -> Run:
  return dataclasses.replace(RUN, stages=(dataclasses.replace(STAGE, **changes),))


def _step_of_model(config: DecoderConfig) -> str:
  return _step(_with('model')(config))


def _step_of_loss(config: LossConfig) -> str:
  return _step(_with('loss')(config))


def _step_of_optimizer(config: OptimizerConfig) -> str:
  return _step(_staged(optimizer=config))


def _request_of_stage(stage: Stage) -> Any:
  return resolve.make_request(dataclasses.replace(RUN, stages=(stage,)))


def _request_of_policy(policy: LinkPolicy) -> Any:
  return resolve.make_request(_staged(link={'en': policy}))


def _init(run: Run) -> float:
  optimizer = make_optimizer(STAGE.optimizer, STAGE.steps)
  state = step_lib.init_state(
    run.model.resolve(platform='cpu'), optimizer, mesh_lib.make_mesh(run.mesh), run.seed_init
  )
  return float(np.asarray(state.params['embed']).sum())


def _refuses_a_longer_stage(config: DecoderConfig) -> bool:
  try:
    dataclasses.replace(RUN, model=config)
  except ValueError:
    return True
  return False


def _due(config: EvaluationConfig) -> list[int]:
  evaluator = object.__new__(in_loop.Evaluator)
  evaluator._settings, evaluator._stage = config, STAGE
  return [step for step in range(STAGE.steps + 1) if evaluator.due(step)]


@dataclasses.dataclass(frozen=True)
class _TestedBy:
  """For what only a whole run can show: the test that shows it, as 'path::function' from tests/."""

  test: str

  def source(self) -> str:
    """Of that test."""
    path, name = self.test.split('::')
    text = (pathlib.Path(__file__).parent / path).read_text(encoding='utf-8')
    for node in ast.parse(text).body:
      if isinstance(node, ast.FunctionDef) and node.name == name:
        return ast.get_source_segment(text, node)
    raise AssertionError(f'there is no test {self.test}')


def _saves(config: CheckpointConfig) -> Any:
  """Which steps are due, which are kept after four saves, and how long Orbax would wait."""
  with tempfile.TemporaryDirectory() as folder:
    keeper = Keeper(folder, config)
    for step in (4_000, 5_000, 6_000, 7_000):
      keeper.save(step, {'w': jnp.zeros(2)}, {})
    keeper.close()
    kept = sorted(path.name for path in pathlib.Path(folder).iterdir())
    waits = keeper._manager._options.async_options.timeout_secs
    return [step for step in range(2001) if keeper.due(step)], kept, waits


_PASSED_ON = _TestedBy('test_settings.py::test_train_passes_settings_on')
_EVALUATED = _TestedBy(
  'evaluation/test_in_loop.py::test_settings_of_lines_and_batches_do_what_they_say'
)

# Field: (another value, what sees it). Where the second is left out, the class's own below sees it.
TABLE: dict[type, tuple[Any, Callable | None, dict[str, Any]]] = {
  DecoderConfig: (MODEL, _step_of_model, {
    'layers': 2, 'width': 64, 'heads': 2, 'feedforward': 64, 'kv_heads': 2, 'head_size': 16,
    'vocabulary': 256, 'max_length': (8, _refuses_a_longer_stage), 'rope_theta': 100.0,
    'norm_epsilon': 1e-3, 'qk_norm': True, 'tied_embeddings': False, 'dtype': 'bfloat16',
    'remat': 'full', 'attention': ('xla', lambda c: choose(c.attention, 'cpu')),
  }),
  LossConfig: (LossConfig(), _step_of_loss, {'z_loss': 1e-3, 'chunk': 4}),
  OptimizerConfig: (STAGE.optimizer, _step_of_optimizer, {
    'learning_rate': 1e-2, 'schedule': 'cosine', 'warmup_share': 0.3, 'decay_share': 0.5,
    'final_share': 0.5, 'b1': 0.8, 'b2': 0.9, 'epsilon': 1e-5, 'weight_decay': 0.0, 'clip_norm': 0.0,
  }),
  MeshConfig: (MeshConfig(), lambda c: _step(_with('mesh')(c)), {
    'data': (4, lambda c: c.sizes(4 if c.data == 4 else 8)), 'fsdp': 8, 'tensor': 2,
  }),
  LinkPolicy: (POLICY, _request_of_policy, {
    'lexicon': 'other', 'language': 'az', 'doc_fraction': 1.0, 'word_ratio': 0.5, 'ratio_of': 'all',
    'senses': 'first', 'regime': 'content',
    'stop_words': 'other', 'mode': 'annotate', 'match_case': False, 'join': 'space',
    'multi_word': False, 'redraw': True,
  }),
  Stage: (STAGE, _request_of_stage, {
    'mixture': 'n', 'tokens': (8192, lambda s: s.steps), 'batch': (16, lambda s: s.steps),
    'sequence_length': (32, lambda s: s.steps), 'rates': {'a': '1/3'}, 'link': {'en': POLICY},
    'optimizer': (OptimizerConfig(), lambda s: _step_of_optimizer(s.optimizer)),
    'name': ('anneal', report.describe_stage),
  }),
  DataConfig: (DataConfig(), lambda c: resolve.make_request(_with('data')(c)), {
    'cache_dir': ('x', lambda c: resolve.kept_path({}, c.cache_dir)), 'shards': 16, 'block': 512,
    'build_processes': (2, _PASSED_ON), 'workers': (1, _PASSED_ON), 'prefetch': (2, _PASSED_ON),
  }),
  EvaluationConfig: (EvaluationConfig(), _due, {
    'every_tokens': 1024,
    'split': ('test', lambda c: resolve.make_request(_with('evaluation')(c))),
    'batch': (16, _EVALUATED), 'prompts': (('a',), _EVALUATED), 'generate_tokens': (4, _EVALUATED),
    'temperature': (0.0, _EVALUATED),
  }),
  CheckpointConfig: (CheckpointConfig(), _saves, {
    'every_steps': 10, 'keep': 3, 'keep_every': 5_000, 'timeout_seconds': 9,
  }),
  Run: (RUN, lambda r: resolve.make_request(r), {
    'directory': ('e', _TestedBy('test_train.py::test_a_second_run_in_one_directory_is_refused')), 'modules': ('b',),
    'stages': (dataclasses.replace(STAGE, mixture='o'),),
    'model': (dataclasses.replace(MODEL, layers=2), _step), 'loss': (LossConfig(z_loss=1e-2), _step),
    'mesh': (MeshConfig(fsdp=8), _step), 'data': DataConfig(shards=3),
    'checkpoint': (CheckpointConfig(keep=9), lambda r: _saves(r.checkpoint)),
    'evaluation': EvaluationConfig(split='test'), 'seed_init': (1, _init),
    'seed_order': (1, _TestedBy('test_train.py::test_other_data_than_a_checkpoint_was_made_with_is_refused')),
    'seed_link': 1, 'max_skipped': (3, _TestedBy(
      'test_train.py::test_updates_that_are_not_finite_are_skipped_and_end_the_run_after_a_while')),
    'compile_cache': (False, _TestedBy('test_train.py::test_main_keeps_compiled_steps_if_asked')),
    'wandb_project': ('turkish', _PASSED_ON),
  }),
}  # fmt: skip

CASES = [(cls, field) for cls, (_, _, fields) in TABLE.items() for field in fields]


@pytest.mark.parametrize('cls', TABLE, ids=lambda cls: cls.__name__)
def test_the_table_names_every_field(cls):
  assert {f.name for f in dataclasses.fields(cls)} == set(TABLE[cls][2])


@pytest.mark.parametrize(('cls', 'field'), CASES, ids=lambda v: getattr(v, '__name__', v))
def test_another_value_is_seen(cls, field):
  config, observe, fields = TABLE[cls]
  value = fields[field]
  if (
    isinstance(value, tuple)
    and len(value) == 2
    and (callable(value[1]) or isinstance(value[1], _TestedBy))
  ):
    value, observe = value
  assert getattr(config, field) != value
  if isinstance(observe, _TestedBy):
    assert f'{cls.__name__}.{field}' in observe.source()
    return
  assert observe(dataclasses.replace(config, **{field: value})) != observe(config)


def test_train_passes_settings_on(trained, tmp_path, monkeypatch):
  from jaxlink import config, metrics, train

  project, _ = trained
  seen = {}

  class Seen(Exception):
    pass

  def loader(*_, **settings):
    seen.update(settings)
    raise Seen

  def sink(*_, wandb_project, **__):
    seen.update(wandb_project=wandb_project)
    return metrics.Metrics(str(tmp_path), writer=False)

  monkeypatch.setattr(train, 'Loader', loader)
  monkeypatch.setattr(train, 'metrics', types.SimpleNamespace(
    Metrics=sink, Logger=metrics.Logger, peak_flops=metrics.peak_flops))  # fmt: skip
  real = resolve.resolve
  monkeypatch.setattr(
    resolve, 'resolve', lambda *a, processes: seen.update(processes=processes) or real(*a)
  )
  run = config.parse(Run, [project.recipe], [
    f"Run.directory = '{tmp_path}'", 'DataConfig.workers = 3', 'DataConfig.prefetch = 7',
    'DataConfig.build_processes = 5', "Run.wandb_project = 'turkish'",
  ])  # fmt: skip
  with pytest.raises(Seen):
    train.train(run)
  assert (seen['workers'], seen['prefetch'], seen['processes']) == (3, 7, 5)
  assert seen['wandb_project'] == 'turkish'


def test_a_test_that_is_not_there_is_no_witness():
  with pytest.raises(AssertionError, match='there is no test'):
    _TestedBy('test_settings.py::test_of_nothing').source()


@pytest.mark.parametrize('seed', ['seed_init', 'seed_order', 'seed_link'])
def test_a_seed_is_32_bits(seed):
  for value in (-1, 2**32):
    with pytest.raises(ValueError, match=rf'Run\.{seed} is {value}: it is 0 or more, below'):
      _with(seed)(value)
  assert getattr(_with(seed)(2**32 - 1), seed) == 2**32 - 1


def test_an_address_is_no_folder():
  with pytest.raises(ValueError, match=r"Run\.directory is 'gs://bucket/run': .*Mount"):
    _with('directory')('gs://bucket/run')
  with pytest.raises(ValueError, match=r"DataConfig\.cache_dir is 's3://bucket/cache': .*Mount"):
    DataConfig(cache_dir='s3://bucket/cache')
