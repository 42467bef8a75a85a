"""Batches of real caches, with mixture, packing and LINK: a function of the step, whoever reads them."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlink import config
from jaxlink import mesh as mesh_lib
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches, Loader, digest
from jaxlink.data.windows import Windows
from jaxlink.stage import Run
from tests import tiny_project
from tests.ports import free_port

STEPS, BATCH = 200, 8


@pytest.fixture(scope='module')
def batches(trained) -> Batches:
  return tiny_project.open_stage(config.parse(Run, [trained[0].recipe])).batches


@pytest.fixture(scope='module')
def whole(batches) -> list[str]:
  return [digest(batches.read(step, range(BATCH))) for step in range(STEPS)]


def test_the_english_source_has_link_and_the_turkish_one_is_read_as_it_is(batches):
  assert batches.mixture.names == ('tiny_en', 'tiny_tr')
  assert [type(w) for w in batches.windows] == [LinkedWindows, Windows]
  assert (batches.batch, batches.length) == (BATCH, 64)


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_that_read_their_rows_read_the_batch_of_one(batches, whole, hosts):
  each = BATCH // hosts
  for step in range(STEPS):
    parts = [batches.read(step, range(h * each, (h + 1) * each)) for h in range(hosts)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert digest(joined) == whole[step]


@pytest.mark.parametrize(('start', 'workers'), [(0, 0), (57, 1), (199, 2)])
def test_a_loader_gives_them_from_any_step_with_any_workers(batches, whole, start, workers):
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:2])
  sharding = mesh_lib.batch_sharding(mesh)
  with Loader(batches, sharding, start=start, stop=STEPS, workers=workers) as loader:
    for step in range(start, STEPS):
      assert digest(jax.device_get(loader[step])) == whole[step]


def test_the_source_repeats_and_its_order_changes(batches):
  for window, stride in ((batches.windows[0], batches.windows[0].stride), (batches.windows[1], 64)):
    per_epoch = int(window.blocks.tokens // stride)
    first = window.start(np.arange(per_epoch)) % window.blocks.tokens
    second = window.start(np.arange(per_epoch, 2 * per_epoch)) % window.blocks.tokens
    assert not (np.diff(first) > 0).all()
    assert not (first == second).all()


def test_counts_are_those_of_the_rows_that_have_link_and_zero_in_others(batches):
  at = batches.count_names.index
  total = np.zeros(len(batches.count_names), np.int64)
  for step in range(20):
    batch = batches.read(step, range(BATCH))
    assert batch['counts'].shape == (BATCH, len(batches.count_names))
    assert not batch['counts'][batch['source'] == 1].any()
    inputs = batch['counts'][:, [at('tokens_read'), at('tokens_inserted')]].sum(axis=1)
    inputs -= batch['counts'][:, at('tokens_removed')]
    assert (inputs == np.where(batch['source'] == 0, 64, 0)).all()
    total += batch['counts'].sum(axis=0)
  words = [total[at(n)] for n in ('words_seen', 'words', 'covered_any', 'covered', 'replaced')]
  assert words == sorted(words, reverse=True)
  assert total[at('replaced')] > 20
  assert total[at('eligible')] == total[at('covered')]


def test_text_that_was_rewritten_before_it_was_cached_is_read_as_it_is(trained, batches):
  bindings = ["Stage.link_route = 'cache'", 'Run.seed_link = 5']
  data = tiny_project.open_stage(config.parse(Run, [trained[0].recipe], bindings))
  dose = data.blocks[0].manifest['dose']
  assert dose['seed'] == 5
  assert 0 < dose['replaced'] < dose['words']
  assert data.blocks[1].manifest['dose'] is None
  assert [type(w) for w in data.batches.windows] == [Windows, Windows]
  assert data.batches.count_names == ()
  assert data.batches.fingerprint != batches.fingerprint
  for step in range(20):
    whole = data.batches.read(step, range(BATCH))
    assert 'counts' not in whole
    parts = [data.batches.read(step, range(h * 2, h * 2 + 2)) for h in range(4)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    assert digest(joined) == digest(whole)
  ids, _ = data.blocks[0].read(0, data.blocks[0].tokens)
  rows = data.batches.windows[0].rows([0])
  start = int(data.batches.windows[0].start(0))
  assert rows['tokens'][0].tolist() == np.take(ids, range(start, start + 64), mode='wrap').tolist()


def test_every_token_comes_from_the_cache(batches):
  """The tokens of an epoch are the cache's tokens, each as often as there."""
  window = batches.windows[1]
  count = -(-window.blocks.tokens // window.length)
  rows = window.rows(np.arange(count))['tokens']
  tokens, _ = window.blocks.read(0, window.blocks.tokens)
  excess = np.bincount(rows.ravel(), minlength=700) - np.bincount(tokens, minlength=700)
  assert excess.sum() == count * window.length - window.blocks.tokens
  assert (excess >= 0).all()


@pytest.mark.slow
def test_two_processes_assemble_the_batches_of_one(trained, whole, tmp_path):
  project, _ = trained
  port = free_port()
  outs = [tmp_path / str(process) for process in range(2)]
  environment = project.environment(devices=4)
  root = pathlib.Path(__file__).parents[2]
  environment['PYTHONPATH'] += f':{root}'
  processes = [
    subprocess.Popen(
      [sys.executable, '-m', 'tests.data.multihost_digest', str(process), str(port), 'data', '0',
       str(out), project.recipe, str(STEPS)],
      env=environment, cwd=project.folder, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    for process, out in enumerate(outs)
  ]  # fmt: skip
  try:
    printed = [process.communicate(timeout=200)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], printed
  results = [json.loads(out.read_text()) for out in outs]
  assert [r['digests'] for r in results] == [whole, whole]
  assert sorted(results[0]['rows'] + results[1]['rows']) == list(range(BATCH))
