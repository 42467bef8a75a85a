"""The export command's folder: what is in it, what it equals, and what is refused."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest

from jaxlink.huggingface import layout, read, weights, write
from jaxlink.model.mup import MupConfig
from jaxlink.model.shape import DecoderConfig
from tests.huggingface import runs, variants


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run directory, and the state that was saved there."""
  folder = tmp_path_factory.mktemp('runs') / 'mine'
  return folder, runs.make(folder)


@pytest.fixture(scope='module')
def exported(run):
  """The export of the run, in files of 10 kB."""
  write.export(str(run[0]), str(run[0].parent / 'model'), shard_bytes=10_000)
  return run[0].parent / 'model'


def _tensors(folder):
  tensors = weights.Tensors(str(folder))
  return {name: tensors[name][(slice(None),) * len(s)] for name, s in tensors.shapes.items()}


def _wanted(params, model):
  """Names and values of tensors, by the table."""
  found = {}
  for parameter in layout.parameters(model):
    array = np.array(variants.at(params, parameter.path))
    if parameter.stacked:
      found |= {parameter.name.format(i): parameter.theirs(part) for i, part in enumerate(array)}
    else:
      found[parameter.name] = array[: parameter.shape[0]]
  return found


def _model(**fields):
  return DecoderConfig(
    **{'layers': 2, 'width': 16, 'heads': 4, 'kv_heads': 2, 'feedforward': 24, 'max_length': 64,
       'dtype': 'float32', 'attention': 'xla', 'vocabulary': runs.SIZE, **fields}
  )  # fmt: skip


def _same(found, wanted):
  assert found.keys() == wanted.keys()
  for name, array in wanted.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_it_holds_the_moving_average_bit_for_bit_without_padding_in_small_files(run, exported):
  _, state = run
  average = state.opt_state[-1].average
  _same(_tensors(exported), _wanted(average, _model()))
  assert len(list(exported.glob('model-*-of-*.safetensors'))) == 3
  index = json.loads((exported / weights.INDEX).read_text())
  assert index['metadata']['total_size'] == sum(a.nbytes for a in _tensors(exported).values())
  assert not list(exported.parent.glob('*.partial'))


def test_without_the_average_it_holds_the_parameters_and_bfloat16_rounds_them(run, tmp_path):
  folder, state = run
  write.export(f'{folder}@30', str(tmp_path / 'model'), dtype='bfloat16', averaged=False)
  rounded = {n: a.astype('bfloat16') for n, a in _wanted(state.params, _model()).items()}
  _same(_tensors(tmp_path / 'model'), rounded)
  assert (tmp_path / 'model' / weights.ONE).exists()
  assert not (tmp_path / 'model' / weights.INDEX).exists()


def test_what_was_exported_comes_back_on_a_mesh_bit_for_bit(run, exported):
  _, state = run
  model = _model(vocabulary=runs.VOCABULARY)
  average = state.opt_state[-1].average
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), average
  )
  read.check(str(exported), model)
  params = read.params(str(exported), model, abstract)
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    wanted = np.array(variants.at(average, tuple(key.key for key in path)))
    assert leaf.sharding == variants.at(abstract, tuple(key.key for key in path)).sharding
    if path[-1].key == 'embed':
      wanted[runs.SIZE :] = 0
    np.testing.assert_array_equal(leaf, wanted)
  cut = read.params(
    str(exported), _model(vocabulary=4096),
    {**abstract, 'embed': jax.ShapeDtypeStruct((4096, 16), np.float32, sharding=abstract['embed'].sharding)},
  )  # fmt: skip
  np.testing.assert_array_equal(cut['embed'], np.array(average['embed'])[:4096])


def test_its_settings_and_card_say_what_it_is(exported):
  described = json.loads((exported / 'config.json').read_text())
  assert (described['vocab_size'], described['model_type']) == (8192, 'llama')
  generation = json.loads((exported / 'generation_config.json').read_text())
  assert generation == {'bos_token_id': 2, 'eos_token_id': 1, 'pad_token_id': 0}
  settings = json.loads((exported / 'tokenizer_config.json').read_text())
  assert settings == {
    'tokenizer_class': 'PreTrainedTokenizerFast', 'model_max_length': 64,
    'clean_up_tokenization_spaces': False, 'split_special_tokens': True,
    'bos_token': '<s>', 'eos_token': '</s>', 'pad_token': '<pad>', 'unk_token': '<unk>',
  }  # fmt: skip
  card = (exported / 'README.md').read_text()
  for said in ('# model', '30 steps (15,360 tokens)', 'moving average', 'Llama architecture',
               '| sample_tr | 15,360 | 0.25 |', '| sample_tr | 1.8750 |', '| 2 | 16 | 4 | 2 | 24 | 8,192 | 64 |',
               '"learning_rate"'):  # fmt: skip
    assert said in card


def test_one_parameter_is_held_at_a_time(tmp_path):
  model, alive = variants.config('llama, untied, padded'), []

  def give(path):
    assert not [ref for ref in alive if ref() is not None]
    shape = next(p for p in layout.parameters(model) if p.path == path)
    array = np.ones((model.layers, *shape.shape) if shape.stacked else shape.shape, np.float32)
    alive.append(weakref.ref(array))
    return array

  write.write_weights(tmp_path, model, give, vocabulary=200, dtype='float32', shard_bytes=1 << 30)
  assert len(alive) == len(layout.parameters(model))


def test_an_interrupted_export_leaves_no_folder_that_looks_whole(run, tmp_path, monkeypatch):
  target = tmp_path / 'model'

  def interrupted(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(weights.Writer, 'put', interrupted)
    with pytest.raises(KeyboardInterrupt):
      write.export(str(run[0]), str(target))
  assert not target.exists()
  assert [path.name for path in tmp_path.iterdir()] == ['model.partial']
  write.export(str(run[0]), str(target), with_tokenizer=False)
  assert [path.name for path in tmp_path.iterdir()] == ['model']
  assert not (target / 'tokenizer.json').exists()


def test_a_folder_that_is_there_is_replaced_if_it_is_a_model_and_that_is_asked_for(run, tmp_path):
  target = tmp_path / 'model'
  target.mkdir()
  (target / 'mine.txt').write_text('mine')
  for force, said in ((False, 'exists. --force'), (True, 'no model folder')):
    with pytest.raises(ValueError, match=said):
      write.export(str(run[0]), str(target), force=force)
  assert (target / 'mine.txt').read_text() == 'mine'
  shutil.rmtree(target)
  write.export(str(run[0]), str(target), with_tokenizer=False)
  (target / 'old.txt').write_text('old')
  write.export(str(run[0]), str(target), force=True)
  assert not (target / 'old.txt').exists()
  assert [path.name for path in tmp_path.iterdir()] == ['model']


def test_what_hugging_face_cannot_express_is_refused_before_anything_is_written(tmp_path):
  runs.make(tmp_path / 'run', window=16)
  with pytest.raises(ValueError, match=r'DecoderConfig\.window is 16: .* no sliding window'):
    write.export(str(tmp_path / 'run'), str(tmp_path / 'model'))
  assert not list(tmp_path.glob('model*'))


def test_mup_goes_into_the_weights_and_qk_norm_makes_a_qwen3(tmp_path):
  mup = MupConfig(base_width=8, base_layers=1)
  state = runs.make(tmp_path / 'run', mup=mup, qk_norm=True, tied_embeddings=False)
  write.export(str(tmp_path / 'run'), str(tmp_path / 'model'), averaged=False)
  wanted = _wanted(state.params, _model(qk_norm=True, tied_embeddings=False))
  factors = {'model.norm': 0.5, 'q_norm': 4.0, 'o_proj': 0.5, 'down_proj': 0.5}
  for name in wanted:
    for part, factor in factors.items():
      if f'{part}.weight' in name:
        wanted[name] = wanted[name] * np.float32(factor)
  _same(_tensors(tmp_path / 'model'), wanted)
  assert json.loads((tmp_path / 'model/config.json').read_text())['model_type'] == 'qwen3'


def test_mistakes_are_one_line(run, tmp_path):
  folder, _ = run
  moved = tmp_path / 'moved'
  shutil.copytree(folder, moved)
  kept = {'tokenizer': {'path': 'gone.model'}}
  (moved / 'stages.json').write_text(json.dumps(kept))
  for arguments, code, said in (
    (['nowhere', '--to', 'x'], 1, "error: 'nowhere': nowhere holds no checkpoints"),
    ([str(folder)], 2, 'give RUN_DIR and --to, or --recipe'),
    ([str(folder), '--to', 'x', '--shard_size', '4'], 2, "'4' is no size: write 500MB"),
  ):
    done = subprocess.run(
      [sys.executable, '-m', 'jaxlink.export', *arguments],
      capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
      env={**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parents[1])},
    )  # fmt: skip
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'x').exists()
  for name, said in (
    (f'{folder}@12', '@12.: checkpoints are of steps 30'),
    (str(moved), 'tokenizer is not at'),
  ):
    with pytest.raises(FileNotFoundError, match=said):
      write.export(name, str(tmp_path / 'x'))
  with pytest.raises(FileNotFoundError, match='is no Hugging Face checkpoint'):
    read.recipe(str(tmp_path))
  other = tmp_path / 'other.json'
  other.write_text('{"type": "bytes"}')
  with pytest.raises(ValueError, match='another tokenizer than the one'):
    write.export(str(moved), str(tmp_path / 'x'), tokenizer_path=str(other))
  write.export(str(moved), str(tmp_path / 'x'), tokenizer_path=str(runs.TOKENIZER))


def test_the_recipe_of_a_checkpoint_is_that_of_its_run(exported):
  lines = read.recipe(str(exported)).splitlines()
  for line in ('DecoderConfig.kv_heads = 2', 'DecoderConfig.feedforward = 24',
               'DecoderConfig.tied_embeddings = True', f"Stage.start_from = '{exported}'"):  # fmt: skip
    assert line in lines
  assert any('8,192 ids, 8,192 rows there: 8,192 rows here' in line for line in lines)
