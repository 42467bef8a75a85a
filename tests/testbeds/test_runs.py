"""In the cloned language LINK gains: a pair of short runs, by the study's own command."""

import json
import os
import subprocess
import sys

import pytest

from tests.tiny_project import ROOT

SMALL = (
  'Study.seeds = (0,)',
  'Stage.tokens = 131_072',
  'DecoderConfig.layers = 2',
  'DecoderConfig.width = 64',
  'DecoderConfig.heads = 1',
  'DecoderConfig.feedforward = 128',
  'EvaluationConfig.every_tokens = 0',
)


@pytest.mark.slow
def test_link_with_a_perfect_lexicon_beats_mixing_at_equal_tokens(tmp_path):
  bindings = [*SMALL, f"Study.directory = '{tmp_path / 'study'}'"]
  command = [sys.executable, str(ROOT / 'tools/study.py'), str(ROOT / 'gin/testbed_clone.gin')]
  done = subprocess.run(
    [*command, *(f'--gin_bindings={binding}' for binding in bindings)],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', 'PYTHONPATH': str(ROOT)},
    cwd=tmp_path, text=True, timeout=600, capture_output=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  last = {}
  for setting in ('mixing', 'link'):
    path = tmp_path / 'study' / setting / 'seed-0' / 'evaluations.jsonl'
    last[setting] = json.loads(path.read_text(encoding='utf-8').splitlines()[-1])
  mixing, link = (last[setting]['bits_per_byte']['testbed_clone'] for setting in ('mixing', 'link'))
  assert link < mixing - 0.01
  unstated = last['link']['scores']['testbed_clone_facts_clone_unstated']
  assert unstated['items'] == 128
