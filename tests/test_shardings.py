"""The rules' outcome for a whole model on two meshes, kept as a text that a person can read.

After a change of the rules: `python -m tests.test_shardings` writes the files anew; read the difference.
"""

import pathlib

import jax
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.mesh import MeshConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer

FOLDER = pathlib.Path(__file__).parent / 'golden'
MODEL = DecoderConfig(
  layers=4, width=256, heads=8, kv_heads=4, feedforward=512, vocabulary=1024,
  qk_norm=True, tied_embeddings=False, dtype='float32', attention='xla',
)  # fmt: skip
MESHES = {
  'fsdp_32': (MeshConfig(data=1, fsdp=32), 32),
  'data_2_fsdp_4_sequence_2_tensor_4': (MeshConfig(data=2, fsdp=4, sequence=2, tensor=4), 64),
}
ACTIVATIONS = {
  'residual BTD': ('batch', 'sequence', 'residual'),
  'queries BTHK': ('batch', 'sequence', 'heads', 'head_size'),
  'keys, values BTGK': ('batch', 'sequence', 'kv', 'head_size'),
  'feed-forward BTF': ('batch', 'sequence', 'feedforward'),
  'logits BCV': ('batch', 'sequence', 'vocab'),
}


def text(name: str) -> str:
  """Parameters, AdamW's moments, the batch, and the activations that the model names."""
  config, devices = MESHES[name]
  mesh = mesh_lib.abstract_mesh(config, devices)
  state = step_lib.abstract_state(MODEL, make_optimizer(OptimizerConfig(), 100), mesh)
  batch = step_lib.abstract_batch(64, 128, mesh)
  lines = [f'{axis} {size}' for axis, size in mesh.shape.items()]
  lines += ['', mesh_lib.sharding_table(jax.tree.map(lambda leaf: leaf, vars(state)))]
  lines += ['', mesh_lib.sharding_table(batch), '']
  width = max(map(len, ACTIVATIONS))
  lines += [f'{what:<{width}}  {mesh_lib.spec(names)}' for what, names in ACTIVATIONS.items()]
  return '\n'.join(lines) + '\n'


@pytest.mark.parametrize('name', MESHES)
def test_shardings_are_those_of_the_golden_file(name):
  assert text(name) == (FOLDER / f'shardings_{name}.txt').read_text()


if __name__ == '__main__':
  for name in MESHES:
    (FOLDER / f'shardings_{name}.txt').write_text(text(name))
