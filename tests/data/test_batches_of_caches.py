"""Batches of real caches, with mixture, packing and LINK: a function of the step, whoever reads them."""

import json
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlink import config
from jaxlink import mesh as mesh_lib
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.loader import Batches, Loader, digest
from jaxlink.data.mixture import Mixture
from jaxlink.data.windows import Windows
from jaxlink.stage import Run

STEPS, BATCH = 200, 8


@pytest.fixture(scope='module')
def batches(trained) -> Batches:
  run = config.parse(Run, [trained[0].recipe])
  (sources,) = resolve.resolve(resolve.make_request(run), run.data.cache_dir).stages
  blocks = [Blocks(s.folder) for s in sources]
  assert any(b.manifest['dose'] for b in blocks)
  windows = [Windows(b, 64, run.seed_order) for b in blocks]
  return Batches(Mixture([b.name for b in blocks], [s.rate for s in sources]), windows, BATCH)


@pytest.fixture(scope='module')
def whole(batches) -> list[str]:
  return [digest(batches.read(step, range(BATCH))) for step in range(STEPS)]


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
  window = batches.windows[0]
  per_epoch = window.blocks.tokens // window.length
  first = window.start(np.arange(per_epoch)) % window.blocks.tokens
  second = window.start(np.arange(per_epoch, 2 * per_epoch)) % window.blocks.tokens
  assert not (np.diff(first) > 0).all()
  assert not (first == second).all()


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
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
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
