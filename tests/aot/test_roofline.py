"""The least time of a step: its arithmetic, and what it is bound by."""

import pytest

from jaxlink.aot.roofline import estimate
from jaxlink.chips import CHIPS, Chip, by_kind

# 100 flop/s, 10 bytes/s to memory, 5 to neighbours.
CHIP = Chip(('toy',), 100.0, 1000, 10.0, 5.0)


def _estimate(**changed):
  known = {
    'flops': 800.0, 'model_flops': 600.0, 'tokens': 12, 'memory_bytes': 10.0, 'sent_bytes': 5.0
  }  # fmt: skip
  return estimate(CHIP, 2, **(known | changed))


def test_a_step_is_bound_by_its_slowest_part():
  found = _estimate()
  assert (found.compute, found.memory, found.links) == (4.0, 1.0, 1.0)
  assert (found.bound, found.seconds, found.seconds_apart) == ('compute', 4.0, 6.0)
  assert found.mfu == 600 / 2 / 100 / 4
  assert found.tokens_per_second == 3.0
  assert _estimate(memory_bytes=80.0).bound == 'memory'
  assert _estimate(sent_bytes=80.0).bound == 'links'
  assert _estimate(sent_bytes=80.0).seconds == 16.0


def test_what_is_unknown_bounds_nothing():
  found = _estimate(memory_bytes=None, sent_bytes=None)
  assert (found.memory, found.links, found.seconds, found.seconds_apart) == (None, None, 4.0, 4.0)


@pytest.mark.parametrize(
  ('kind', 'flops'), [('TPU v5 lite', 197e12), ('TPU v5', 459e12), ('NVIDIA H200', 989e12)]
)
def test_a_chip_is_found_by_the_name_that_jax_gives_it(kind, flops):
  assert by_kind(kind).flops == flops


def test_no_name_is_that_of_two_chips():
  kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
  assert len(kinds) == len(set(kinds))
  assert by_kind('cpu') is None
