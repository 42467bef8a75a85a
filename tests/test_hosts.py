"""Process 0 decides what the run's directory means."""

import json

import jax
import pytest

from jaxlink import distributed, hosts


class Store(dict):
  """The key-value store, for one process at a time."""

  def key_value_set(self, key: str, value: str) -> None:
    assert key not in self  # each decision has a key of its own
    self[key] = value

  def blocking_key_value_get(self, key: str, timeout: int) -> str:
    if key not in self:
      raise jax.errors.JaxRuntimeError(f'DEADLINE_EXCEEDED: {key} in {timeout} ms')
    return self[key]


@pytest.fixture
def be(monkeypatch):
  """Takes the part of one of two processes, which share what is returned."""
  store = Store()
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed, 'client', lambda: store)

  def become(index: int) -> Store:
    monkeypatch.setattr(jax, 'process_index', lambda: index)
    monkeypatch.setattr(hosts, '_numbers', iter(range(10)))
    return store

  return become


def test_the_others_do_as_process_0_decides_and_do_not_look_for_themselves(be):
  store = be(0)
  assert hosts.first_decides(lambda: True) is True
  assert hosts.first_decides(lambda: False) is False
  with pytest.raises(KeyError):  # its own error, after the others know
    hosts.first_decides(lambda: {}['step'])
  assert [json.loads(told) for told in store.values()] == [True, False, "process 0: 'step'"]

  be(1)
  assert hosts.first_decides(lambda: pytest.fail('looked')) is True
  assert hosts.first_decides(lambda: pytest.fail('looked')) is False
  with pytest.raises(ValueError, match="process 0: 'step'"):
    hosts.first_decides(lambda: pytest.fail('looked'))


def test_the_others_wait_as_long_as_process_0_takes(be, monkeypatch):
  store, asked = be(1), []

  def get(key: str, timeout: int) -> str:
    asked.append(timeout)
    if len(asked) == 5:
      store[key] = 'true'
    return Store.blocking_key_value_get(store, key, timeout)

  monkeypatch.setattr(store, 'blocking_key_value_get', get)
  assert hosts.first_decides(lambda: pytest.fail('looked')) is True
  assert max(asked) <= 1000  # milliseconds: between two of them a signal is handled
