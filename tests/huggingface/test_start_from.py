"""`Stage.start_from` of a Hugging Face model: what a run takes from it, and what it refuses."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxlink import mesh, origin, stage_data, stage_state, step
from jaxlink.checkpoint import CheckpointConfig
from jaxlink.data.tokenizer import Tokenizer, train_sentencepiece
from jaxlink.evaluation.records import read_evaluations
from jaxlink.huggingface import read, weights, write
from jaxlink.mesh import MeshConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer
from jaxlink.stage import Stage
from tests import tiny_project
from tests.huggingface import runs


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A model folder, and its run."""
  folder = tmp_path_factory.mktemp('start')
  runs.make(folder / 'run')
  write.export(str(folder / 'run'), str(folder / 'model'))
  return folder / 'model'


@pytest.fixture
def copy(model, tmp_path):
  """A copy of the model that a test may spoil."""
  shutil.copytree(model, tmp_path / 'model')
  return tmp_path / 'model'


def _plan(**fields) -> types.SimpleNamespace:
  """A plan on eight devices of a model like that of `runs.make`."""
  devices = mesh.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())
  config = dataclasses.replace(_decoder(), **fields)
  optimizer = make_optimizer(OptimizerConfig(), 10, model=config)
  state = step.abstract_state(config, optimizer, devices)
  return types.SimpleNamespace(mesh=devices, model=config, optimizer=optimizer, state=state)


def _decoder():
  return DecoderConfig(
    layers=2, width=16, heads=4, kv_heads=2, feedforward=24, max_length=64,
    vocabulary=runs.VOCABULARY, dtype='float32', attention='xla',
  )  # fmt: skip


def _begin(folder, plan):
  """What the first stage of a run begins with."""
  taken, position = origin.take(str(folder), Tokenizer(str(runs.TOKENIZER)))
  assert not position.readings
  stage = Stage(
    mixture='m', tokens=5120, batch=8, sequence_length=64, optimizer=OptimizerConfig(),
    start_from=str(folder),
  )  # fmt: skip
  part = types.SimpleNamespace(origin=taken, stage=stage)
  run = types.SimpleNamespace(
    stages=(stage,), checkpoint=CheckpointConfig(), first_step=lambda k: 10 * k
  )
  data = types.SimpleNamespace(stages=[part])
  stage_state.check_origins(run, data, [plan], 0)
  assert stage_state.describe_origin(run, 0, part) == (
    f'stage pretrain starts from the Hugging Face model {folder}, with a fresh optimizer state'
  )
  return stage_state.begin(run, 0, data, [plan], None, None)


def test_a_stage_begins_with_its_weights_in_shards_and_a_fresh_optimizer(model):
  plan = _plan()
  state = _begin(model, plan)
  for got, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(plan.state), strict=True):
    assert (got.shape, got.dtype, got.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
  tensors = weights.Tensors(str(model))
  embed = np.array(state.params['embed'])
  np.testing.assert_array_equal(embed[: runs.SIZE], tensors['model.embed_tokens.weight'][:, :])
  assert not embed[runs.SIZE :].any()
  q = tensors['model.layers.1.self_attn.q_proj.weight'][:, :]
  np.testing.assert_array_equal(state.params['layers']['attention']['q'][1].reshape(16, 16), q.T)
  assert int(state.step) == int(state.skipped) == 0
  assert not any(np.array(leaf).any() for leaf in jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'layers': 3, 'kv_heads': 4}, r'layers = 2 \(is 3\); DecoderConfig.kv_heads = 2 \(is 4\)'),
    ({'qk_norm': True}, r'DecoderConfig.qk_norm = False'),
    ({'max_length': 128}, r'DecoderConfig.max_length = 64 \(is 128\)'),
  ],
)
def test_another_decoder_is_refused_with_the_settings_to_change(model, fields, said):
  with pytest.raises(ValueError, match=rf"Stage.start_from of 'pretrain': .*{said}"):
    _begin(model, _plan(**fields))


def test_another_model_under_the_same_name_is_noticed(copy):
  taken, _ = origin.take(str(copy), Tokenizer(str(runs.TOKENIZER)))
  origin.check_model(taken, 'pretrain', _decoder())
  path = copy / weights.ONE
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(ValueError, match='another model than when this run began'):
    origin.check_model(taken, 'pretrain', _decoder())
  path.unlink()
  with pytest.raises(FileNotFoundError, match='is gone'):
    origin.check_model(taken, 'pretrain', _decoder())


def test_another_tokenizer_is_refused(model, copy, tmp_path):
  texts = ['Bir varmış bir yokmuş, evvel zaman içinde kalbur saman içinde.'] * 20
  train_sentencepiece(texts, 300, str(tmp_path / 'other.model'))
  with pytest.raises(ValueError, match=r'other.model is not the tokenizer of .* with one and'):
    origin.take(str(model), Tokenizer(str(tmp_path / 'other.model')))
  ours = Tokenizer(str(runs.TOKENIZER))
  described = json.loads((copy / 'config.json').read_text())
  (copy / 'config.json').write_text(json.dumps(described | {'vocab_size': 8000}))
  with pytest.raises(ValueError, match=r'has 8,192 ids, and the embedding of .* 8,000 rows'):
    origin.take(str(copy), ours)
  (copy / 'config.json').write_text(json.dumps(described))
  (copy / 'tokenizer.json').unlink()
  with pytest.raises(ValueError, match=r'neither tokenizer\.json nor'):
    origin.take(str(copy), ours)
  shutil.copy(runs.TOKENIZER, copy / 'tokenizer.model')
  origin.take(str(copy), ours)


def test_damaged_and_pickled_weights_are_refused(copy):
  whole = (copy / weights.ONE).read_bytes()
  (copy / weights.ONE).write_bytes(whole[:-100])
  with pytest.raises(ValueError, match='not a whole safetensors file'):
    read.check(str(copy), _decoder())
  (copy / weights.ONE).rename(copy / 'pytorch_model.bin')
  assert read.is_checkpoint(str(copy))
  with pytest.raises(ValueError, match='pickled weights'):
    read.check(str(copy), _decoder())
  shapes = {'model.norm.weight': (16,), 'model.norm.bias': (16,)}
  writer = weights.Writer(copy, shapes, dtype='float32', shard_bytes=1 << 20)
  for name in shapes:
    writer.put(name, np.zeros(16, np.float32))
  writer.close()
  with pytest.raises(ValueError, match=r'model.embed_tokens.weight is missing, .* and \d+ more'):
    read.check(str(copy), _decoder())


@pytest.mark.slow
def test_a_run_goes_on_from_the_score_at_which_the_exported_one_ended(project, tmp_path):
  unpadded = ['DecoderConfig.vocabulary = 700', 'EvaluationConfig.prompts = ()']
  first, second = tmp_path / 'first', tmp_path / 'second'
  project.train(first, *unpadded)
  write.export(str(first), str(tmp_path / 'model'))
  start = f"Stage.start_from = '{tmp_path}/model'"
  mesh_of_four = ['Run.mesh = @MeshConfig()', 'MeshConfig.data = 2', 'MeshConfig.tensor = 2']
  printed = project.train(second, *unpadded, start, *mesh_of_four, devices=4)
  assert 'starts from the Hugging Face model' in printed
  ended, began = (
    read_evaluations(first)[20]['bits_per_byte'],
    read_evaluations(second)[0]['bits_per_byte'],
  )
  assert began == pytest.approx(ended, rel=1e-5)
  assert read_evaluations(second)[20]['bits_per_byte']['tiny_tr'] < began['tiny_tr']
  kept = stage_data.read(second)['stages'][0]['origin']
  assert kept == {
    'directory': f'{tmp_path}/model',
    'step': None,
    'digest': read.digest(f'{tmp_path}/model'),
  }
  # A run that was stopped before its first step keeps to what it had found.
  shutil.rmtree(second / 'checkpoints')
  (tmp_path / 'model' / 'config.json').write_text('{}')
  printed = project.train(second, *unpadded, start, *mesh_of_four, devices=4, code=1)
  assert 'is another model than when this run began' in printed
  assert tiny_project.metrics_of(second)


def test_a_head_of_its_own_beside_tied_embeddings_is_refused(copy):
  described = json.loads((copy / 'config.json').read_text())
  assert described['tie_word_embeddings']
  path = copy / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  config = dataclasses.replace(_decoder(), vocabulary=described['vocab_size'])
  tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()
  safetensors.numpy.save_file(tensors, path)
  read.check(str(copy), config)
  tensors['lm_head.weight'][3, 2] += 1
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match=r'lm_head\.weight is another matrix than the embedding'):
    read.check(str(copy), config)


def test_rope_that_is_said_twice_and_differently_is_refused(copy):
  path = copy / 'config.json'
  described = json.loads(path.read_text()) | {'rope_scaling': {'rope_theta': 9.0}}
  path.write_text(json.dumps(described))
  with pytest.raises(ValueError, match='rope_scaling and rope_parameters disagree on rope_theta'):
    read.check(str(copy), _decoder())
