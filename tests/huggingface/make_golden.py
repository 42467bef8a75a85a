"""Makes golden.json: what transformers computes with weights that are the same on every machine.

  python -m tests.huggingface.make_golden

It needs torch and transformers. The weights are written by our export and read by transformers alone; the
file keeps a few logits and their norm, and of every gradient the shape, the norm and two numbers.
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers

from tests.huggingface import test_transformers, variants

PATH = pathlib.Path(__file__).with_name('golden.json')
NAMES = ('llama, grouped', 'llama, untied, padded', 'qwen3, grouped, untied')


def main() -> None:
  made = {'transformers': transformers.__version__, 'torch': torch.__version__.split('+')[0]}
  for name in NAMES:
    model, rows = variants.config(name), variants.packed_rows()
    with tempfile.TemporaryDirectory() as folder:
      theirs = test_transformers.exported(pathlib.Path(folder), model, variants.params(model))
      logits, gradients = test_transformers.run(theirs, rows)
    made[name] = {
      'logits': [[*map(_short, logits[at][:6])] for at in variants.LOOKED_AT],
      'logits_norm': _short(np.linalg.norm(logits[rows['segments'] > 0])),
      'gradients': {
        n: [list(g.shape), *map(_short, variants.looked_at(g))] for n, g in gradients.items()
      },
    }
  PATH.write_text(json.dumps(made, indent=1) + '\n', encoding='utf-8')


def _short(x: float) -> float:
  return float(f'{x:.8g}')


if __name__ == '__main__':
  main()
