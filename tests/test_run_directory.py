"""One run at a time writes in a directory, and what has begun there cannot be changed."""

import os
import shutil
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


@pytest.mark.skipif(not shutil.which('git'), reason='git is not installed')
def test_a_revision_tells_of_changed_files_and_of_code_that_git_does_not_know(
  tmp_path, monkeypatch
):
  for name in [name for name in os.environ if name.startswith('GIT_')]:
    monkeypatch.delenv(name)
  for name in ('GIT_CONFIG_GLOBAL', 'GIT_CONFIG_SYSTEM'):
    monkeypatch.setenv(name, os.devnull)
  module = tmp_path / 'jaxlink/run_directory.py'
  module.parent.mkdir()
  module.write_text('whole = True')
  monkeypatch.setattr(run_directory, '__file__', str(module))

  def git(*words):
    command = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-C', str(tmp_path), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

  assert run_directory._git_revision() == ''
  git('init')
  (tmp_path / 'other').write_text('of somebody who installed the project')
  git('add', 'other')
  git('commit', '--message', 'other')
  assert run_directory._git_revision() == ''  # a repository, but not the project's
  git('add', '.')
  git('commit', '--message', 'all')
  revision = git('rev-parse', '--short', 'HEAD')
  (tmp_path / 'notes.txt').write_text('no code')
  assert run_directory._git_revision() == revision
  (tmp_path / 'mine.gin').write_text('Stage.tokens = 1')
  assert run_directory._git_revision() == f'{revision}-untracked'
  module.write_text('whole = False')
  assert run_directory._git_revision() == f'{revision}-dirty-untracked'
