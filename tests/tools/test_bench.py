"""The benchmarks run, on a recipe as it is and on small shapes."""

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
    env=project.environment(), cwd=project.folder, text=True, timeout=600, check=False,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  assert re.search(r'^median ratio \d+\.\d{3}$', done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    (['bench_step.py', '--batch=2', '--length=64', '--steps=1', '--rounds=1', '--remat=full,dots'],
     r'jaxlink, xla, remat dots +[\d,]+ +\d+\.\d{3} +-'),
    (['bench_loss.py', '--rows=2', '--tokens=64', '--width=32', '--vocabularies=256', '--rounds=1'],
     r'256 chunked +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +\d\.\de-0[67]'),
    (['bench_generate.py', f'--gin_file={ROOT}/gin/model/tiny.gin', '--vocabulary=256', '--batches=1',
      '--prompt=8', '--tokens=8', '--rounds=1'], r'\n +1 .*(yes|no)'),
    (['bench_attention.py', '--lengths=128', '--heads=4', '--head_size=16', '--cases=packed',
      '--dtypes=float32', '--rounds=1'], r'packed +128 float32 +pallas +\S+ +\S+ ok'),
  ],
)  # fmt: skip
def test_the_step_and_the_loss_are_measured_and_compared(arguments, expected):
  script, *rest = arguments
  done = subprocess.run(
    [sys.executable, str(ROOT / 'tools/bench' / script), *rest],
    text=True, timeout=600, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  assert re.search(expected, done.stdout), done.stdout
