"""A batch is a function of (seed, stage, step): three sources, LINK, every policy, a stage boundary.

The window of steps crosses a boundary and the end of an epoch of each source.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlink import config, stage_data
from jaxlink import mesh as mesh_lib
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Loader, digest
from jaxlink.stage import Run

BATCH, FIRST, SECOND = 12, 130, 40  # sequences to a batch, steps of each stage
MIXING = 'Stage.mixing = @first/MixingConfig()'
POLICIES = {
  'given': [],
  'proportional': [MIXING, "first/MixingConfig.policy = 'proportional'"],
  'temperature': [MIXING, "first/MixingConfig.policy = 'temperature'"],
  'unimax': [MIXING, "first/MixingConfig.policy = 'unimax'", 'first/MixingConfig.max_repetitions = 1.5'],
  'repetitions': [MIXING, "first/MixingConfig.policy = 'repetitions'",
                  "first/MixingConfig.repetitions = {'tiny_tr': 1.25}"],
  'capped': [MIXING, "first/MixingConfig.max_repetitions = {'tiny_more': 1.1}"],
  'changing': [
    "Stage.rates = {'tiny_en': 1, 'tiny_more': ((0, 0), (30_000, 1)),"
    " 'tiny_tr': ((0, 2), (20_000, 0.5), (20_000, 2))}"],
}  # fmt: skip


def _run(project, policy: str) -> Run:
  bindings = [
    "Run.stages = [@Stage(), @second/Stage()]", "Stage.mixture = 'tiny_three'", 'Stage.rates = {}',
    f'Stage.batch = {BATCH}', f'Stage.tokens = {FIRST * BATCH * 64}', *POLICIES[policy],
    "second/Stage.name = 'second'", f'second/Stage.tokens = {SECOND * BATCH * 32}',
    'second/Stage.sequence_length = 32', 'second/Stage.mixing = @second/MixingConfig()',
    "second/MixingConfig.policy = 'given'", "second/Stage.mixture = 'tiny'",
    'second/Stage.rates = {}', "EvaluationConfig.split = ''",
  ]  # fmt: skip
  return config.parse(Run, [project.recipe], bindings)


def _at(data: stage_data.RunData, step: int) -> tuple[stage_data.StageData, int]:
  return (data.stages[0], step) if step < FIRST else (data.stages[1], step - FIRST)


@pytest.fixture(scope='module', params=POLICIES)
def opened(request, trained) -> stage_data.RunData:
  return stage_data.open_stages(_run(trained[0], request.param))


@pytest.fixture(scope='module')
def whole(opened) -> list[str]:
  found = []
  for step in range(FIRST + SECOND):
    part, local = _at(opened, step)
    found.append(digest(part.batches.read(local, range(BATCH))))
  return found


def test_the_window_holds_what_it_should(opened):
  first, second = opened.stages
  assert sorted(first.batches.mixture.names) == ['tiny_en', 'tiny_more', 'tiny_tr']
  assert [type(w) for w in first.batches.windows].count(LinkedWindows) == 1
  assert second.batches.length == 32
  account = first.account(FIRST)
  assert max(entry['repetitions'] for entry in account.values()) > 1
  assert sum(entry['sequences'] for entry in account.values()) == FIRST * BATCH


@pytest.mark.parametrize('hosts', [2, 3, 4])
def test_hosts_that_read_their_rows_read_the_batch_of_one(opened, whole, hosts):
  each = BATCH // hosts
  for step in range(FIRST + SECOND):
    part, local = _at(opened, step)
    rows = [part.batches.read(local, range(h * each, (h + 1) * each)) for h in range(hosts)]
    joined = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    assert digest(joined) == whole[step]


def test_what_was_frozen_reads_the_same(opened, whole, trained, tmp_path):
  run = _run(trained[0], 'given')
  stages = tuple(part.stage for part in opened.stages)
  run = dataclasses.replace(run, stages=stages)
  stage_data.freeze(run, tmp_path, opened)
  kept = json.loads(json.dumps(stage_data.read(tmp_path)))
  again = stage_data.open_stages(run, kept)
  for step in (0, FIRST - 1, FIRST, FIRST + SECOND - 1):
    part, local = _at(again, step)
    assert digest(part.batches.read(local, range(BATCH))) == whole[step]


def test_shares_are_within_two_sequences_of_their_integral_at_every_step(opened):
  for part in opened.stages:
    mixture = part.batches.mixture
    start = mixture.ideal(part.batches.phase)
    for step in range(part.stage.steps + 1):
      asked = mixture.ideal(part.batches.phase + step * BATCH)
      counts = part.batches.counts(step).tolist()
      assert sum(counts) == step * BATCH
      for got, now, before in zip(counts, asked, start, strict=True):
        assert abs(got - (now - before)) < 2


def _loads(opened, whole, workers: int, start: int, stop: int) -> None:
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:3])
  step = start
  while step < stop:
    part, local = _at(opened, step)
    end = min(stop - step + local, part.stage.steps)
    sharding = mesh_lib.batch_sharding(mesh)
    with Loader(part.batches, sharding, start=local, stop=end, workers=workers) as loader:
      for batch in loader:
        assert digest(jax.device_get(batch)) == whole[step]
        step += 1


def _end_of_an_epoch(opened) -> int:
  """The first step after one in which a source's first epoch ended."""
  part = opened.stages[0]
  return next(
    step for step in range(FIRST)
    if any(entry['repetitions'] >= 1 for entry in part.account(step).values())
  )  # fmt: skip


def test_a_loader_gives_them_from_any_start_across_the_boundary(opened, whole):
  for start in (0, FIRST // 2, FIRST, _end_of_an_epoch(opened)):
    _loads(opened, whole, 0, start, min(start + 60, FIRST + SECOND))


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 3])
def test_workers_change_nothing(opened, whole, workers):
  for start in (0, FIRST // 2, FIRST, _end_of_an_epoch(opened)):
    _loads(opened, whole, workers, start, min(start + 60, FIRST + SECOND))
