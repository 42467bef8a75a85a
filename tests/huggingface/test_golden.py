"""What transformers computed once, in golden.json: make_golden.py says how, test_transformers.py does it anew."""

import json
import pathlib

import numpy as np
import pytest

from tests.huggingface import variants

GOLDEN = json.loads(pathlib.Path(__file__).with_name('golden.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', [name for name in variants.VARIANTS if name in GOLDEN])
def test_logits_and_gradients_are_those_that_transformers_gave(name):
  model, rows, golden = variants.config(name), variants.packed_rows(), GOLDEN[name]
  logits, gradients = variants.run(model, variants.params(model), rows)
  real = logits[rows['segments'] > 0]
  assert np.linalg.norm(real) == pytest.approx(golden['logits_norm'], rel=1e-5)
  seen = [logits[at][:6] for at in variants.LOOKED_AT]
  np.testing.assert_allclose(seen, golden['logits'], rtol=0, atol=1e-5 * np.abs(real).max())
  found = dict(variants.their_gradients(model, gradients))
  assert found.keys() == golden['gradients'].keys()
  for where, (shape, *numbers) in golden['gradients'].items():
    assert list(found[where].shape) == shape
    (norm, *there), (here_norm, *here) = numbers, variants.looked_at(found[where])
    assert here_norm == pytest.approx(norm, rel=1e-5), where
    assert here == pytest.approx(there, rel=0, abs=1e-5 * norm), where
