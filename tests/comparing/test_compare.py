"""The command itself."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys

import pytest

from tests import tiny_project
from tests.comparing.fake_runs import Law, make


def compare(*arguments, code=0):
  done = subprocess.run(
    [sys.executable, '-m', 'jaxlink.compare', *map(str, arguments)], env={**os.environ, 'PYTHONIOENCODING': 'utf-8'},
    cwd=tiny_project.ROOT, text=True, timeout=120, check=False, capture_output=True, encoding='utf-8',
  )  # fmt: skip
  assert done.returncode == code, done.stderr + done.stdout
  return done.stdout if not code else done.stderr


def test_the_command_prints_and_writes(tmp_path):
  for name, speed, rate in (('slow', 1.0, 4e-3), ('fast', 1.5, 2e-3)):
    for seed in range(2):
      make(
        tmp_path / name / f'seed-{seed}',
        {'sample_tr': Law(speed, seed / 100)},
        seed=seed,
        rate=rate,
      )
  page, numbers = tmp_path / 'out/page.html', tmp_path / 'out/numbers.json'
  text = compare(tmp_path / 'slow', tmp_path / 'fast', '--differs', 'learning_rate', '--html', page, '--json', numbers)  # fmt: skip
  assert re.search(r'^fast  +[12]\.', text, re.MULTILINE)
  assert 'warning' not in text
  assert page.read_text(encoding='utf-8').startswith('<!DOCTYPE html>')
  assert json.loads(numbers.read_text(encoding='utf-8'))['baseline'] == 'slow'


def test_a_refusal_is_one_line_and_exit_code_1(tmp_path):
  a = make(tmp_path / 'a', {'sample_tr': Law()})
  b = make(tmp_path / 'b', {'sample_tr': Law()}, tokenizer='b' * 64)
  error = compare(a, b, code=1)
  assert error.startswith('error: ')
  assert error.count('\n') == 1
  assert 'another tokenizer' in error


def test_help_needs_no_heavy_import():
  code = "import sys; sys.argv = ['x', '--help']\nfrom jaxlink import compare\ntry: compare.main()\nexcept SystemExit: pass\nassert not {'numpy', 'jax', 'matplotlib', 'tensorflow'} & set(sys.modules)"  # fmt: skip
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert 'Easy to get wrong' in done.stdout


def test_comparing_needs_neither_jax_nor_tensorflow(tmp_path):
  directory = make(tmp_path / 'a', {'sample_tr': Law()})
  code = f"import sys\nfrom jaxlink.comparing import comparison, page, runs\npage.render(comparison.compare(runs.read_settings([{directory!r}])))\nassert not {{'jax', 'tensorflow'}} & set(sys.modules)"  # fmt: skip
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
  directory = make(tmp_path / 'a', {'sample_tr': Law()})
  code = f"import sys; sys.argv = ['compare', {directory!r}]\nfrom jaxlink import compare\ncompare.main()"
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run([sys.executable, '-c', code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
  os.close(write)
  assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.slow
def test_trained_runs_with_half_the_learning_rate_or_twice_the_tokens_are_told_apart(tmp_path):
  project = tiny_project.make(tmp_path)
  settings = {
    'plain': ('Stage.tokens = 5_120',),
    'half': ('Stage.tokens = 5_120', 'OptimizerConfig.learning_rate = 5e-3'),
    'twice': ('Stage.tokens = 10_240',),
  }
  common = (
    'EvaluationConfig.prompts = ()', 'EvaluationConfig.every_tokens = 1_024',
    "OptimizerConfig.schedule = 'constant'", 'OptimizerConfig.warmup_share = 0.0',
  )  # fmt: skip

  def train(name, seed):
    seed += 3 * (name == 'twice')  # else its runs would be the plain ones as far as these go
    seeds = [f'Run.seed_{what} = {seed}' for what in ('init', 'order', 'link')]
    project.train(tmp_path / 'runs' / name / f'seed-{seed}', *common, *settings[name], *seeds)

  train('plain', 0)  # alone, since it makes the caches
  others = [(name, seed) for seed in range(3) for name in settings][1:]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda other: train(*other), others))
  numbers = tmp_path / 'numbers.json'
  compare(tmp_path / 'runs', '--baseline', 'plain', '--json', numbers)
  tables = {t['set']: t for t in json.loads(numbers.read_text(encoding='utf-8'))['tables']}
  found = {r['setting']: r for r in tables['tiny_tr']['results']}
  assert found['half']['versus']['verdict'] == 'worse'
  assert found['half']['speedup']['high'] < 1
  assert found['twice']['versus']['verdict'] == 'better'
  same = found['twice']['speedup']  # a constant rate: it learns as fast, only for longer
  assert same['low'] < 1 < same['high']
  assert same['reached'] == 3
