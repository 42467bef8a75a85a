"""One run at a time writes in a directory, and what has begun there cannot be changed."""

import signal
import subprocess
import sys

import pytest

from jaxlink import run_directory

HOLD = """
import pathlib, sys
from jaxlink import run_directory
with run_directory.claim(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  sys.stdin.read()
"""


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
