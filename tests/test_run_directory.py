"""Process 0 decides what the run directory means, and one run at a time writes there."""

import signal
import subprocess
import sys

import jax
import pytest

from jaxlink import run_directory

HOLD = """
import pathlib, sys
from jaxlink import run_directory
with run_directory.claim(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  sys.stdin.read()
"""


def _hosts(monkeypatch, index: int, told: list[int], answer: int | None = None) -> None:
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: index)
  monkeypatch.setattr(
    run_directory.multihost_utils,
    'broadcast_one_to_all',
    lambda value: told.append(int(value)) or (value if answer is None else answer),
  )


def test_process_0_tells_what_it_decides_and_what_it_refuses(monkeypatch):
  told = []
  _hosts(monkeypatch, 0, told)
  assert run_directory.first_decides(lambda: True) is True
  assert run_directory.first_decides(lambda: False) is False
  with pytest.raises(KeyError):  # its own error, after the others know
    run_directory.first_decides(lambda: {}['step'])
  assert told == [1, 0, -1]


@pytest.mark.parametrize(('answer', 'expected'), [(1, True), (0, False)])
def test_the_others_do_not_look_for_themselves(monkeypatch, answer, expected):
  _hosts(monkeypatch, 1, [], answer)
  assert run_directory.first_decides(lambda: pytest.fail('looked')) is expected


def test_the_others_stop_where_process_0_refuses(monkeypatch):
  _hosts(monkeypatch, 1, [], -1)
  with pytest.raises(ValueError, match='process 0 refused'):
    run_directory.first_decides(lambda: True)


def test_a_directory_is_held_until_its_process_ends_however_it_ends(tmp_path):
  holder = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
  try:
    assert holder.stdout.readline() == 'held\n'
    refusal = pytest.raises(ValueError, match=f'writes in {tmp_path}: process {holder.pid} on')
    with refusal, run_directory.claim(tmp_path):
      pass
  finally:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
  for _ in range(2):  # and is free again after each
    with run_directory.claim(tmp_path):
      pass
