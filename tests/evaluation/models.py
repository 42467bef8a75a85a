"""A decoder with random parameters and the sample's tokenizer, on any mesh."""

import functools
import gzip
import pathlib

import jax
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink.data.tokenizer import Tokenizer, padded_size
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig
from jaxlink.run_model import RunModel

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'


@functools.cache
def tokenizer() -> Tokenizer:
  return Tokenizer(str(SAMPLE / 'tokenizer_1k.model'))


@functools.cache
def random_model(*, max_length: int = 256, scale: float = 4.0, seed: int = 0, **sizes) -> RunModel:
  """A model whose likelihoods differ from uniform ones; `sizes` are of the mesh."""
  known = tokenizer()
  config = DecoderConfig(
    layers=2, width=32, heads=4, kv_heads=2, feedforward=48, max_length=max_length,
    vocabulary=padded_size(known.size),
  )  # fmt: skip
  config = config.resolve(platform='cpu', tokenizer_size=known.size)
  _, shapes, names = decoder.abstract_decoder(config)
  params = jax.tree.map(lambda x: scale * x, decoder.init_params(config, jax.random.key(seed)))
  count = int(np.prod(list(sizes.values()) or [1]))
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(**{'data': 1, **sizes}), jax.devices()[:count])
  params = jax.device_put(params, mesh_lib.param_shardings(mesh, shapes, names))
  return RunModel(config, params, known, known.bos_id, known.eos_id, mesh, 'random')


@functools.cache
def turkish() -> tuple[str, ...]:
  """Real lines of the sample's held-out Turkish."""
  with gzip.open(SAMPLE / 'tr.validation.txt.gz', 'rt', encoding='utf-8') as file:
    return tuple(line for line in file.read().split('\n') if line)
