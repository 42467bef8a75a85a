"""The coordinate check: what it records is the model's, and it tells a flat model from one that is not."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlink.model import decoder
from jaxlink.model.mup import MupConfig
from jaxlink.model.shape import DecoderConfig
from tests import tiny_project
from tools import coordinate_check

ROOT = pathlib.Path(__file__).parents[2]
MUP = [
  'DecoderConfig.mup = @MupConfig()',
  'MupConfig.base_width = 32',
  'DecoderConfig.tied_embeddings = False',
  'Stage.sequence_length = 8',  # few tokens beside the width, as at the real widths
]


def test_a_slope_is_the_exponent_of_a_power_of_the_width():
  widths = [128, 256, 1024]
  assert coordinate_check.slope(widths, [3 * w**0.5 for w in widths]) == pytest.approx(0.5)
  assert coordinate_check.slope(widths, [7.0] * 3) == pytest.approx(0)


@pytest.mark.parametrize(
  ('with_mup', 'usual', 'expected'),
  [
    (0.05, 0.5, ''),
    (-0.06, 0.5, 'not flat with muP: embedding, attention'),
    (float('nan'), 0.5, 'not flat with muP'),
    (0.01, 0.04, 'flat without muP, too'),
  ],
)
def test_the_verdict_wants_muP_flat_and_the_usual_model_not(with_mup, usual, expected):
  names = coordinate_check.WATCHED
  slopes = {'mup': dict.fromkeys(names, with_mup), 'usual': dict.fromkeys(names, usual)}
  found = coordinate_check.verdict(slopes)
  assert found.startswith(expected)
  assert bool(found) == bool(expected)


def test_what_is_recorded_is_what_the_compiled_model_computes():
  config = DecoderConfig(
    layers=2, width=16, heads=2, feedforward=32, vocabulary=50, dtype='float32', attention='xla',
    mup=MupConfig(base_width=8),
  )  # fmt: skip
  params = decoder.init_params(config, jax.random.key(0))
  tokens = np.arange(12, dtype=np.int32)[None]
  batch = {'tokens': tokens, 'segments': np.ones_like(tokens), 'positions': tokens}
  values = coordinate_check._values(config, params, batch)
  graph = decoder.abstract_decoder(config)[0]

  @jax.jit
  def run(params):
    model = decoder.bind(graph, params)
    return model.logits(model(*batch.values()))

  np.testing.assert_allclose(values['logits'][0], run(params), rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(values['embedding'][0], params['embed'][tokens])
  assert {name: len(values[name]) for name in values} == {
    'embedding': 1, 'attention': 2, 'mlp': 2, 'residual': 2, 'logits': 1,
  }  # fmt: skip
  added = values['embedding'][0] + sum(values['attention']) + sum(values['mlp'])
  np.testing.assert_allclose(values['residual'][1], added, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_on_real_text_muP_is_flat_and_the_usual_model_is_not(project, tmp_path):
  run = tiny_project.parse(project, tmp_path, *tiny_project.QUIET, *MUP)
  result = coordinate_check.check(run, [128, 512], steps=4, learning_rate=1e-3, seeds=1)
  slopes = result['slopes']
  assert abs(slopes['mup']['residual']) < coordinate_check.FLAT, slopes
  assert abs(slopes['mup']['logits']) < coordinate_check.FLAT, slopes
  assert slopes['usual']['residual'] > 0.3, slopes
  coordinate_check.draw(result, tmp_path / 'picture.png')
  assert (tmp_path / 'picture.png').stat().st_size > 10_000
  json.dumps(result)


def test_a_recipe_without_mup_is_an_error(project, tmp_path):
  run = tiny_project.parse(project, tmp_path)
  with pytest.raises(ValueError, match=r'DecoderConfig\.mup is None'):
    coordinate_check.check(run, [32, 64], steps=1, learning_rate=1e-3, seeds=1)


@pytest.mark.parametrize('tool', ['coordinate_check', 'mup_sweep'])
def test_help_teaches_and_does_not_wait_for_jax(tool):
  code = (
    'import runpy, sys\n'
    f"sys.argv = ['{tool}', '--help']\n"
    f"try: runpy.run_path('tools/{tool}.py', run_name='__main__')\n"
    "except SystemExit: print('jax' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
  )
  assert 'Easy to get wrong' in done.stdout
  assert done.stdout.strip().endswith('False')
