"""Every setting of a recipe does something: for each field, another value is seen where it should be.

The table must name every field of every configurable, so a new field without an effect fails here.
"""

import ast
import dataclasses
import pathlib
import tempfile
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import config as config_lib
from jaxlink import mesh as mesh_lib
from jaxlink import report
from jaxlink import step as step_lib
from jaxlink.checkpoint import CheckpointConfig, Keeper
from jaxlink.data import mixing, resolve
from jaxlink.data.mixing import MixingConfig
from jaxlink.evaluation import in_loop
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists
from jaxlink.link.substitute import substitute
from jaxlink.mesh import MeshConfig
from jaxlink.model import mup
from jaxlink.model.attention import choose
from jaxlink.model.loss import LossConfig
from jaxlink.model.mup import MupConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer, make_schedule
from jaxlink.stage import DataConfig, EvaluationConfig, Run, Stage
from tests import tiny_project

MODEL = DecoderConfig(layers=1, width=32, heads=4, feedforward=32, vocabulary=128, max_length=32)
POLICY = LinkPolicy(lexicon='en-tr', language='tr', regime='domain', word_list='list')
PROVERBS = [
  'The early bird catches the worm.',
  'A stitch in time saves nine.',
  'A bird in the hand.',
  'Time and tide wait for no man.',
  'The worm will turn in time.',
  'A hand for the bird.',
]
TURKISH = Lexicon.from_pairs([
  ('bird', 'kuş', 9), ('bird', 'serçe', 1), ('worm', 'kurt', 9), ('worm', 'solucan', 1),
  ('time', 'zaman', 9), ('time', 'vakit', 1), ('hand', 'el', 1),
])  # fmt: skip
SWAHILI = Lexicon.from_pairs([('bird', 'ndege'), ('time', 'wakati'), ('hand', 'mkono')])
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
    loss_config=run.loss, n_sources=2, accumulate=stage.accumulate,
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


def _texts(policy: LinkPolicy, epoch: int = 0) -> list[str]:
  """Proverbs as a policy rewrites them; what it draws needs no data to be prepared."""
  lexicons = dict(zip(policy.lexicons, (TURKISH, SWAHILI), strict=False))
  lists = WordLists(listed=frozenset(TURKISH.entries))
  draws = policy.draws(0, 'en', epoch)
  return [
    substitute(text, lexicons, policy, draws, document=key_of(text), lists=lists).text
    for text in [f'{number}. {proverb}' for number in range(20) for proverb in PROVERBS]
  ]


def _texts_in_full(policy: LinkPolicy) -> list[str]:
  return _texts(dataclasses.replace(policy, doc_fraction=1.0, word_ratio=1.0))


def _texts_of_two_languages(policy: LinkPolicy) -> list[str]:
  two = {'tr': 'en-tr', 'sw': 'en-sw'}
  return _texts_in_full(dataclasses.replace(policy, lexicon=two, language=''))


def _texts_of_a_later_epoch(policy: LinkPolicy) -> bool:
  return _texts(policy, epoch=1) == _texts(policy, epoch=0)


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
  evaluator._settings, evaluator._run_config = config, RUN
  return [step for step in range(STAGE.steps + 1) if evaluator.due(step)]


def _shares(config: MixingConfig) -> Any:
  """Of a small source and a large one, of which the small one is read too often."""
  sizes = {'tr': Fraction(100), 'en': Fraction(1000)}
  return mixing.resolve(config, {'tr': 1, 'en': 1}, sizes, 600)


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
_JUDGED = _TestedBy('test_evaluate.py::test_the_loop_judges_every_kind_of_set')
_EVALUATED = _TestedBy(
  'evaluation/test_in_loop.py::test_settings_of_lines_and_batches_do_what_they_say'
)

# Field: (another value, what sees it). Where the second is left out, the class's own below sees it.
TABLE: dict[type, tuple[Any, Callable | None, dict[str, Any]]] = {
  DecoderConfig: (MODEL, _step_of_model, {
    'layers': 2, 'width': 64, 'heads': 2, 'feedforward': 64, 'kv_heads': 2, 'head_size': 16,
    'vocabulary': 256, 'tokenizer_size': 100, 'max_length': (8, _refuses_a_longer_stage), 'rope_theta': 100.0,
    'norm_epsilon': 1e-3, 'qk_norm': True, 'tied_embeddings': False, 'dtype': 'bfloat16',
    'remat': 'full', 'attention': ('xla', lambda c: choose(c.attention, 'cpu')),
    'window': 3, 'soft_cap': 1.0, 'mup': MupConfig(base_width=16),
  }),
  LossConfig: (LossConfig(), _step_of_loss, {'z_loss': 1e-3, 'chunk': 4}),
  OptimizerConfig: (STAGE.optimizer, _step_of_optimizer, {
    'learning_rate': 1e-2, 'schedule': 'cosine', 'warmup_share': 0.3, 'decay_share': 0.5,
    'final_share': 0.5, 'b1': 0.8, 'b2': 0.9, 'epsilon': 1e-5, 'weight_decay': 0.0, 'clip_norm': 0.0,
    'algorithm': 'muon', 'decay_embeddings': False, 'ema_decay': 0.9,
    'momentum': (0.5, _TestedBy(
      'test_optimizer.py::test_muons_momentum_is_nesterovs_of_the_gradients')),
    'adamw_rate': (0.5, _TestedBy(
      'test_optimizer.py::test_muon_leaves_embeddings_head_and_norms_to_adamw_with_its_own_rate')),
  }),
  MupConfig: (MupConfig(base_width=16), lambda c: _step_of_model(dataclasses.replace(MODEL, mup=c)), {
    'base_width': 8, 'base_layers': 4,
    'zero_head': (False, lambda c: mup.start_std(
      dataclasses.replace(MODEL, mup=c, tied_embeddings=False), 'head', 32)),
    'zero_queries': (True, lambda c: mup.start_std(dataclasses.replace(MODEL, mup=c), 'q', 32)),
  }),
  MeshConfig: (MeshConfig(), lambda c: _step(_with('mesh')(c)), {
    'data': (4, lambda c: c.sizes(4 if c.data == 4 else 8)), 'fsdp': 8, 'tensor': 2, 'sequence': 4,
  }),
  LinkPolicy: (POLICY, _request_of_policy, {
    'lexicon': 'other', 'language': 'az', 'language_by': ('per_word', _texts_of_two_languages),
    'doc_fraction': (1.0, _texts), 'word_ratio': (0.5, _texts), 'ratio_of': 'all',
    'senses': ('weighted', _texts_in_full), 'regime': 'non_domain', 'stop_words': 'other',
    'word_list': 'other', 'mode': 'annotate', 'match_case': False, 'join': 'space',
    'multi_word': False, 'lemmas': 'en', 'redraw': (True, _texts_of_a_later_epoch),
  }),
  MixingConfig: (MixingConfig(policy='temperature'), _shares, {
    'policy': 'proportional', 'temperature': 1.0, 'max_repetitions': 1,
    'repetitions': ({'tr': 2}, _TestedBy(
      'test_stages.py::test_a_source_is_read_as_often_as_asked_over_all_stages')),
  }),
  Stage: (STAGE, _request_of_stage, {
    'mixture': 'n', 'tokens': (8192, lambda s: s.steps), 'batch': (16, lambda s: s.steps),
    'accumulate': (8, lambda s: _step(_staged(accumulate=s.accumulate, batch=64))),
    'sequence_length': (32, lambda s: s.steps), 'rates': {'a': '1/3'}, 'link': {'en': POLICY},
    'mixing': MixingConfig(policy='proportional'),
    'start_from': ('runs/trunk', _TestedBy(
      'test_stages.py::test_a_branch_of_a_trunk_is_the_straight_run_bit_for_bit')),
    'optimizer_state': ('reset', _TestedBy(
      'test_stages.py::test_the_optimizer_state_is_kept_or_begun_anew')),
    'link_route': ('cache', _TestedBy(
      'data/test_batches_of_caches.py::test_text_that_was_rewritten_before_it_was_cached_is_read_as_it_is')),
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
    'sequence_length': (8, lambda c: _with('evaluation')(c).evaluation_length),
    'batch': (16, _EVALUATED), 'prompts': (('a',), _EVALUATED), 'generate_tokens': (4, _EVALUATED),
    'temperature': (0.0, _EVALUATED),
    'sets': (('xcopa_tr',), _JUDGED), 'set_items': (9, _JUDGED),
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
    'seed_link': (1, _TestedBy('test_settings.py::test_another_seed_of_link_draws_other_words')), 'max_skipped': (3, _TestedBy(
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


@pytest.mark.parametrize('senses', ['per_document', 'uniform', 'weighted', 'first'])
def test_each_way_to_choose_a_sense_is_another(senses):
  others = [s for s in ('per_document', 'uniform', 'weighted', 'first') if s != senses]
  text = _texts_in_full(dataclasses.replace(POLICY, senses=senses))
  assert text not in [_texts_in_full(dataclasses.replace(POLICY, senses=s)) for s in others]


def test_a_schedule_is_seen_where_the_batches_are_made(trained):
  project, _ = trained
  windows = [
    tiny_project.open_stage(config_lib.parse(Run, [project.recipe], bindings)).batches.windows[0]
    for bindings in ([], ['LinkPolicy.word_ratio = ((0, 0.0), (5_120, 1.0))'])
  ]
  assert windows[0].fingerprint != windows[1].fingerprint
  replaced = windows[1].names.index('replaced')
  counts = [windows[1].rows(range(40), tokens)['counts'][:, replaced].sum()
            for tokens in (0, 2_560, 5_120)]  # fmt: skip
  assert 0 == counts[0] < counts[1] < counts[2]


def test_another_seed_of_link_draws_other_words(trained):
  project, _ = trained
  found = [
    tiny_project.open_stage(
      config_lib.parse(Run, [project.recipe], [f'Run.seed_link = {seed}'])
    ).batches
    for seed in (0, 1)
  ]
  first, second = (batches.windows[0] for batches in found)
  assert found[0].fingerprint != found[1].fingerprint
  assert (first.start(range(9)) == second.start(range(9))).all()  # the order is seed_order's
  assert (first.rows(range(9))['tokens'] != second.rows(range(9))['tokens']).any()
  assert found[0].windows[1].fingerprint == found[1].windows[1].fingerprint


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
