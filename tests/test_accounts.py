"""The sum of a run's counts is that of its batches, by source, whether or not the run was resumed."""

import jax
import numpy as np
import pytest

from jaxlink import accounts, config
from jaxlink.data.linked import counts_of
from jaxlink.model import loss
from jaxlink.stage import Run
from tests import tiny_project

NAMES = counts_of(('tr',))
SOURCES = ('en', 'tr', 'en_books')


def _step(seed: int) -> dict[str, np.ndarray]:
  """What a step gives of three sources, of which the second has no LINK."""
  counts = np.random.default_rng(seed).integers(0, 2**31 - 1, (3, len(NAMES)), np.int32)
  counts[1] = 0
  return {
    'loss': np.float32(2.5),
    'loss_sum_by_source': np.array([6.0, 8.0, 0.0], np.float32),
    'tokens_by_source': np.array([3, 2, 0], np.int32),
    'counts_by_source': counts,
  }


def test_losses_are_means_of_the_sources_that_had_tokens():
  values = accounts.Accounts(SOURCES, NAMES).take(_step(0))
  assert {name: v for name, v in values.items() if name.startswith('loss')} == {
    'loss': 2.5, 'loss/en': 2.0, 'loss/tr': 4.0,
  }  # fmt: skip
  assert all(np.ndim(value) == 0 for value in values.values())


def test_totals_are_sums_of_all_steps_beyond_32_bits_of_the_sources_with_link():
  account = accounts.Accounts(SOURCES, NAMES)
  steps = [_step(seed) for seed in range(5)]
  for step in steps:
    account.take(step)
  total = sum(step['counts_by_source'].astype(np.int64) for step in steps)
  assert total.max() > 2**32
  assert account.totals == {
    'en': dict(zip(NAMES, total[0].tolist(), strict=True)),
    'en_books': dict(zip(NAMES, total[2].tolist(), strict=True)),
  }


def test_a_resumed_account_goes_on_where_the_first_was_saved():
  whole, first = accounts.Accounts(SOURCES, NAMES), accounts.Accounts(SOURCES, NAMES)
  for seed in range(6):
    expected = whole.take(_step(seed))
    if seed < 3:
      first.take(_step(seed))
      resumed = accounts.Accounts(SOURCES, NAMES, first.totals)
    else:
      assert resumed.take(_step(seed)) == expected
  assert resumed.totals == whole.totals


def test_what_a_step_gave_is_left_as_it_was():
  step = _step(0)
  accounts.Accounts(SOURCES, NAMES).take(step)
  assert set(step) == set(_step(0))


def test_a_run_without_link_has_losses_alone():
  step = _step(0)
  del step['counts_by_source']
  account = accounts.Accounts(SOURCES, ())
  assert account.take(step).keys() == {'loss', 'loss/en', 'loss/tr'}
  assert account.totals == {}


def test_metrics_are_running_totals_and_their_rates():
  account = accounts.Accounts(('en',), NAMES)
  step = {
    'loss_sum_by_source': np.array([1.0]), 'tokens_by_source': np.array([1]),
    'counts_by_source': np.zeros((1, len(NAMES)), np.int32),
  }  # fmt: skip
  of = {
    'words': 200, 'covered': 90, 'eligible': 50, 'replaced': 15, 'tokens_read': 400,
    'tokens_removed': 30, 'tokens_inserted': 50, 'tokens_skipped': 8, 'tokens_reread': 4,
  }  # fmt: skip
  for name, value in of.items():
    step['counts_by_source'][0, NAMES.index(name)] = value
  account.take(step)
  values = account.take(step)
  assert {name: v for name, v in values.items() if name.startswith('link/')} == {
    'link/en/words': 400, 'link/en/covered': 180, 'link/en/eligible': 100, 'link/en/replaced': 30,
    'link/en/realised_covered': 0.3, 'link/en/realised_all': 0.075, 'link/en/inflation': 1.05,
    'link/en/skipped': 0.02, 'link/en/reread': 0.01,
  }  # fmt: skip


def test_rates_of_nothing_are_zero_and_an_inflation_of_one():
  rates = accounts.rates(dict.fromkeys(NAMES, 0))
  assert rates.pop('inflation') == 1
  assert set(rates.values()) == {0}


@pytest.mark.parametrize('split', [1, 3])
def test_counts_of_real_batches_summed_by_source_are_those_of_their_rows(trained, split):
  batches = tiny_project.open_stage(config.parse(Run, [trained[0].recipe])).batches
  account = accounts.Accounts(batches.mixture.names, batches.count_names)
  by_source = jax.jit(loss.by_source, static_argnums=2)
  expected = np.zeros(len(batches.count_names), np.int64)
  for step in range(6):
    if step == split:
      account = accounts.Accounts(batches.mixture.names, batches.count_names, account.totals)
    batch = batches.read(step, range(batches.batch))
    expected += batch['counts'][batch['source'] == 0].sum(axis=0)
    account.take({
      'loss_sum_by_source': np.ones(2), 'tokens_by_source': np.ones(2, int),
      'counts_by_source': np.asarray(by_source(batch['counts'], batch['source'], 2)),
    })  # fmt: skip
  assert account.totals == {
    'tiny_en': dict(zip(batches.count_names, expected.tolist(), strict=True))
  }
