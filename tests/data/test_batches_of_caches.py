"""Batches of real caches, with mixture, packing and LINK: a function of the step, whoever reads them."""

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
