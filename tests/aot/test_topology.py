"""Names of machines: what is understood, and what an error says of the rest."""

import importlib.util

import pytest

from jaxlink.aot import topology


def _without(monkeypatch, *packages):
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name: None if name in packages else find_spec(name)
  )


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('v5q:4x4x2', "no chip 'v5q' is known. Nearest: 'v5"),
    ('v5p', 'chip:shape, such as v5p:4x4x2'),
    ('v5p:4x4', 'a v5p slice has 3 sides, as v5p:4x4x4'),
    ('v5e:4x4x4', 'a v5e slice has 2 sides'),
    ('v5e:0x4', 'numbers are 1 or more'),
    ('h100:2x4', 'GPUs are counted, as in h100:8'),
  ],
)
def test_a_name_that_is_not_understood_is_told_with_examples(name, message):
  with pytest.raises(ValueError, match=message):
    topology.find(name)


def test_slices_are_for_tpus():
  with pytest.raises(ValueError, match='without slices'):
    topology.find('h100:8', slices=2)


def test_without_libtpu_the_error_says_what_to_install(monkeypatch):
  _without(monkeypatch, 'libtpu')
  with pytest.raises(ModuleNotFoundError, match='pip install libtpu'):
    topology.find('v5p:4x4x2')


def test_without_a_gpu_compiler_the_target_says_what_is_lacking(monkeypatch):
  _without(monkeypatch, *topology._PLUGINS)
  target = topology.find('h200:8')
  assert (target.count, target.devices) == (8, None)
  assert 'pip install jax-cuda13-plugin' in target.lack


def test_every_gpu_in_the_table_can_be_described_to_the_compiler():
  for name, chip in topology.CHIPS.items():
    if chip.platform == 'gpu':
      assert f'device_memory_size: {chip.memory}\n' in topology._card(name, chip)
