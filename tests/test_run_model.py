"""A run's parameters, or their average, come back bit for bit, on any mesh, with its tokenizer."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from jaxlink import config, origin, run_model, setup, stage_data
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.checkpoint import Keeper
from jaxlink.huggingface import write
from jaxlink.optimizer import ema_params
from tests import tiny_project


def state_of(run, step):
  """The state of a checkpoint, restored as training does."""
  plan = setup.make_plans(run, stage_data.open_stages(run))[0]
  keeper = Keeper(f'{run.directory}/checkpoints', run.checkpoint, writer=False)
  state, _ = keeper.restore(step, plan.state)
  keeper.close()
  return state


def assert_same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_parameters_are_those_of_the_checkpoint(trained):
  project, _ = trained
  directory = project.folder / 'run'
  wanted = state_of(tiny_project.parse(project, directory), 15).params
  model = run_model.load(directory, 15)
  assert_same(model.params, wanted)
  assert_same(run_model.load(f'{directory}@15').params, wanted)
  assert model.config.vocabulary == 768
  assert (model.opening, model.eos, model.tokenizer.size) == (2, 1, 700)
  assert ', step 15: ' in model.description


def test_the_last_checkpoint_is_the_default_and_a_mesh_changes_no_bit(trained):
  project, _ = trained
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(fsdp=2, tensor=2))
  model = run_model.load(project.folder / 'run', mesh=mesh)
  assert_same(model.params, run_model.load(project.folder / 'run', 20).params)
  assert model.params['layers']['attention']['q'].sharding.shard_shape((2, 32, 2, 16)) == (
    2, 16, 1, 16,
  )  # fmt: skip


def test_where_a_run_keeps_an_average_that_is_taken_and_rounded_on_request(trained, tmp_path):
  project, _ = trained
  run = tiny_project.parse(
    project, tmp_path, 'OptimizerConfig.ema_decay = 0.9', "DecoderConfig.dtype = 'bfloat16'"
  )
  plan = setup.make_plans(run, stage_data.open_stages(run))[0]
  state = step_lib.init_state(plan.model, plan.optimizer, plan.mesh, run.seed_init)
  state = dataclasses.replace(state, params=jax.tree.map(lambda x: 2 * x, state.params))
  shutil.copy(project.folder / 'run/stages.json', tmp_path)
  keeper = Keeper(str(tmp_path / 'checkpoints'), run.checkpoint)
  meta = origin.read_meta(str(project.folder / 'run'), 20)
  keeper.save(5, state, {**meta, 'config': config.resolved(run)})
  keeper.close()
  model = run_model.load(tmp_path)
  assert_same(model.params, ema_params(state.opt_state, state.params))
  assert_same(jax.tree.map(lambda x: 2 * x, model.params), state.params)
  assert 'average' in model.description
  assert model.config.dtype == 'bfloat16'
  assert model.params['embed'].dtype == 'float32'
  narrow = run_model.load(tmp_path, narrow=True).params
  assert_same(narrow, jax.tree.map(lambda x: x.astype('bfloat16'), model.params))


def test_mistakes_are_named(trained, tmp_path):
  project, _ = trained
  run = project.folder / 'run'
  for source, step, message in (
    (run, 17, r'holds no checkpoint of step 17. There are: 15, 20\.'),
    (f'{run}@7', None, 'no checkpoint of step 7'),
    (f'{run}@last', None, 'what follows @ is the number of a step'),
    (f'{run}@15', 20, 'names a step, and step 20 is asked for'),
    (project.folder / 'rum', None, f"there is no directory .*rum'. Nearest: '{run.name}'"),
    (project.folder, None, f'holds no checkpoint: .* Runs near there: .*{run}'),
  ):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
      run_model.load(source, step)


def test_another_tokenizer_is_refused(trained, tmp_path):
  project, _ = trained
  with pytest.raises(ValueError, match='another tokenizer than'):
    run_model.load(project.folder / 'run', tokenizer=str(tiny_project.SAMPLE / 'tokenizer.model'))
  moved = shutil.copy(project.folder / 'tokenizer.model', tmp_path)
  assert run_model.load(project.folder / 'run', tokenizer=moved).tokenizer.size == 700


def test_an_exported_model_is_the_run_s(trained, tmp_path):
  project, _ = trained
  directory = str(project.folder / 'run')
  write.export(directory, str(tmp_path / 'model'))
  ours, theirs = run_model.load(directory), run_model.load(tmp_path / 'model')
  embed = ours.params.pop('embed')
  np.testing.assert_array_equal(
    theirs.params.pop('embed')[:700], embed[:700]
  )  # the rest is padding
  assert theirs.config.tokenizer_size == ours.config.tokenizer_size == 700
  assert_same(theirs.params, ours.params)
  assert (theirs.opening, theirs.eos) == (ours.opening, ours.eos) == (2, 1)
  text = "Türkiye'nin başkenti Ankara'dır."
  assert theirs.tokenizer.encode(text) == ours.tokenizer.encode(text)
  with pytest.raises(
    ValueError, match='an exported model, which has no steps, and step 20 is asked'
  ):
    run_model.load(tmp_path / 'model', 20)
  (tmp_path / 'model/tokenizer.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'has no tokenizer\.json'):
    run_model.load(tmp_path / 'model')
