"""The harness's model without a model: its windows are the harness's, its settings are those of tasks."""

import importlib.util
import subprocess
import sys

import pytest

from jaxlink.generation.draw import Sampling

HERE = importlib.util.find_spec('lm_eval') is not None
needed = pytest.mark.skipif(not HERE, reason='lm_eval is not installed (make test-peers)')


@pytest.mark.skipif(HERE, reason='lm_eval is installed')
def test_without_lm_eval_the_command_says_what_to_install():
  done = subprocess.run(
    [sys.executable, '-m', 'jaxlink.evaluation.harness', '--help'],
    capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].endswith("pip install 'jaxlink[harness]'")
  assert 'Traceback' not in done.stderr


@needed
@pytest.mark.parametrize('count', [1, 2, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize('length', [1, 2, 8])
def test_windows_of_a_whole_text_are_the_harness_own(count, length):
  from lm_eval import utils

  from jaxlink.evaluation import harness

  ids = list(range(100, 100 + count))
  found = harness._windows(2, ids, length)
  wanted = utils.get_rolling_token_windows(
    token_list=ids, prefix_token=2, max_seq_len=length, context_len=1
  )
  pairs = [utils.make_disjoint_window(pair) for pair in wanted]
  assert len(found) == len(pairs)
  for row, (context, continuation) in zip(found, pairs, strict=True):
    assert list(row.given) == [*context, *continuation][:-1]
    assert list(row.wanted[row.first :]) == continuation
    assert len(row.given) == len(row.wanted) <= length


@needed
def test_a_text_without_tokens_has_no_windows():
  from jaxlink.evaluation import harness

  assert harness._windows(2, [], 8) == []


@needed
def test_settings_of_a_task_are_read_as_the_harness_reads_them():
  from jaxlink.evaluation import harness

  greedy = Sampling(temperature=0.0)
  assert harness._settings({}) == (greedy, 256, ())
  given = {'until': '\n', 'do_sample': False, 'temperature': 0.7, 'max_new_tokens': 8}
  assert harness._settings(given) == (greedy, 8, ('\n',))
  given = {
    'until': ['\n', 'Q:'],
    'temperature': 0.7,
    'top_p': 0.9,
    'max_gen_toks': 4,
    'max_tokens': 9,
  }
  assert harness._settings(given) == (Sampling(temperature=0.7, top_p=0.9), 4, ('\n', 'Q:'))
  with pytest.raises(ValueError, match=r"'temprature'\. Nearest: 'temperature'"):
    harness._settings({'temprature': 1})
