"""A stop is a request first; on several hosts it is agreed, and nothing waits for it."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxlink import stop as stop_lib
from jaxlink.stop import Stop, Terminated, terminable
from tests.ports import free_port


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_a_signal_is_a_request_with_its_name(name, capsys):
  with Stop() as stop:
    assert not stop.requested()
    assert stop.signal_name is None
    signal.raise_signal(getattr(signal, name))
    assert stop.requested()
    assert stop.requested()
    assert stop.signal_name == name
  assert f'{name}: stopping after a checkpoint.' in capsys.readouterr().err


def test_outside_of_a_stop_sigterm_ends_at_once_and_inside_of_it_is_a_request():
  before = signal.getsignal(signal.SIGTERM)
  with terminable():
    with Stop() as stop:
      signal.raise_signal(signal.SIGTERM)
      assert stop.requested()
    with pytest.raises(Terminated):
      signal.raise_signal(signal.SIGTERM)
  assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_ctrl_c_stops_at_once():
  with Stop() as stop:
    signal.raise_signal(signal.SIGINT)
    assert stop.requested()
    with pytest.raises(KeyboardInterrupt, match='second Ctrl-C'):
      signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_after_a_sigterm_is_still_the_first_ctrl_c():
  with Stop() as stop:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert stop.requested()
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize('error', [None, ValueError])
def test_handlers_are_back_afterwards(error):
  def own(number, frame):
    pass

  before = [signal.signal(number, own) for number in (signal.SIGTERM, signal.SIGINT)]
  try:
    try:
      with Stop():
        assert signal.getsignal(signal.SIGTERM) is not own
        if error:
          raise error
    except ValueError:
      pass
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is own
  finally:
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
      signal.signal(number, handler)


def test_only_the_main_thread_can_stop():
  errors = []

  def enter():
    try:
      Stop().__enter__()
    except RuntimeError as error:
      errors.append(str(error))

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join(10)
  assert 'only the main thread can receive signals' in errors[0]


class Store(dict):
  """The key-value store of processes that are threads here."""

  key_value_set = dict.__setitem__

  def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in list(self.items()) if key.startswith(folder)]


def test_hosts_that_are_at_different_calls_stop_at_the_call_after_the_last(monkeypatch):
  monkeypatch.setattr(stop_lib, '_LOOK_SECONDS', 0.01)
  monkeypatch.setattr(stop_lib, '_numbers', itertools.repeat(0))
  store = Store()
  hosts = [stop_lib.Agreement(store, index, 3) for index in range(3)]
  for host, calls in zip(hosts, (4, 7, 5), strict=True):
    assert [host.reached() for _ in range(calls)] == [False] * calls
  hosts[2].asked = 'SIGINT'
  limit = time.monotonic() + 20
  while not all(host.signal_name for host in hosts):
    assert time.monotonic() < limit
    time.sleep(0.01)
  assert [host.signal_name for host in hosts] == ['SIGINT'] * 3
  for host, before in zip(hosts, (3, 0, 2), strict=True):
    assert [host.reached() for _ in range(before + 1)] == [False] * before + [True]
    assert host.reached()  # and none after it


def test_the_thread_that_asks_the_others_ends_with_the_run(monkeypatch):
  monkeypatch.setattr(stop_lib, '_numbers', itertools.count(7))
  waits, asked = stop_lib.Agreement(Store(), 0, 2), stop_lib.Agreement(Store(), 0, 2)
  asked.asked = 'SIGTERM'  # and the other host never answers
  for agreement in (waits, asked):
    agreement.end()
  assert not any(agreement._thread.is_alive() for agreement in (waits, asked))


HOST = """
import signal, sys, time
import jax
address, index, number = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(address, 2, index)
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jaxlink.stop import Stop
with Stop() as stop:
  step, waits = 0, []
  while True:
    step += 1
    multihost_utils.process_allgather(jnp.ones(()))  # a training step: hosts go in step
    time.sleep(0.01)
    if step == 20 and index == 1:  # one host alone is told
      signal.raise_signal(getattr(signal, number))
    asked = time.monotonic()
    stopped = stop.requested()
    if step < 20:
      assert not stopped
      waits.append(time.monotonic() - asked)
    if stopped or step == 2000:
      break
multihost_utils.process_allgather(jnp.ones(()))  # what saving does: hangs unless all are here
print(step, stop.signal_name, sorted(waits)[len(waits) // 2] < 0.5)  # as a rule it does not wait
jax.distributed.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_two_hosts_stop_at_the_same_step_when_one_is_told(name):
  address = f'localhost:{free_port()}'
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  hosts = [
    subprocess.Popen(
      [sys.executable, '-c', HOST, address, str(index), name],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    said = [host.communicate(timeout=120) for host in hosts]
  finally:
    for host in hosts:
      host.kill()
  assert [host.returncode for host in hosts] == [0, 0], said
  (step, _, quick), (other, received, other_quick) = (
    out.splitlines()[-1].split()
    for out, _ in said  # Gloo says something before
  )
  assert step == other
  assert 20 <= int(step) < 2000
  assert received == name
  assert quick == other_quick == 'True'
