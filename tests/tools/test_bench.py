"""The benchmark of the loop runs on a recipe as it is."""

import re
import subprocess
import sys

import pytest

from tests.tiny_project import ROOT

pytestmark = pytest.mark.slow


def test_the_loop_is_measured_beside_its_bare_step(project):
  done = subprocess.run(
    [sys.executable, str(ROOT / 'tools/bench/bench_loop.py'), f'--gin_file={project.recipe}',
     '--steps=3', '--rounds=1'],
    env=project.environment(), cwd=project.folder, text=True, timeout=200, check=False,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  assert re.search(r'median ratio \d+\.\d{3}$', done.stdout.strip())
