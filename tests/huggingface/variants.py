"""Decoders of every form that Hugging Face knows, small, with parameters that are all different."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxlink.huggingface import layout, write
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig

SIZE = 200  # of the tokenizer; some variants pad it

_BASE = {
  'layers': 2, 'width': 32, 'heads': 4, 'feedforward': 48, 'vocabulary': SIZE, 'max_length': 64,
  'dtype': 'float32', 'attention': 'xla',
}  # fmt: skip
VARIANTS = {
  'llama': {},
  'llama, grouped': {'kv_heads': 2, 'rope_theta': 500_000.0},
  'llama, one kv head, large heads': {'kv_heads': 1, 'head_size': 16},
  'llama, untied, padded': {'tied_embeddings': False, 'vocabulary': 256, 'norm_epsilon': 1e-5},
  'qwen3': {'qk_norm': True},
  'qwen3, grouped, untied': {'qk_norm': True, 'kv_heads': 2, 'tied_embeddings': False},
  'qwen3, odd heads, padded': {
    'qk_norm': True, 'heads': 3, 'kv_heads': 1, 'head_size': 16, 'vocabulary': 256,
  },
}  # fmt: skip


def config(name: str) -> DecoderConfig:
  """A resolved config."""
  return DecoderConfig(**{**_BASE, **VARIANTS[name]})


def params(model: DecoderConfig, seed: int = 0) -> dict[str, Any]:
  """Initial parameters whose norms are not all 1, as NumPy arrays."""
  made = decoder.init_params(model, jax.random.key(seed, impl='threefry2x32'))
  draw = np.random.Generator(np.random.PCG64(seed))

  def one(path, leaf):
    leaf = np.array(leaf)
    if jax.tree_util.keystr(path[-1:], simple=True).endswith('norm'):
      leaf *= draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    return leaf * np.float32(1.5)  # attention that looks somewhere

  return jax.tree_util.tree_map_with_path(one, made)


def at(tree: Any, path: tuple[str, ...]) -> Any:
  """A leaf of a nested dict."""
  for key in path:
    tree = tree[key]
  return tree


def write_weights(
  folder: pathlib.Path, model: DecoderConfig, tree: Any, *, dtype: str = 'float32',
  shard_bytes: int = 1 << 40,
) -> None:  # fmt: skip
  """Writes parameters as safetensors, without the padding of the vocabulary."""
  write.write_weights(
    folder, model, lambda path: np.array(at(tree, path)), vocabulary=SIZE, dtype=dtype,
    shard_bytes=shard_bytes,
  )  # fmt: skip


def packed_rows() -> dict[str, np.ndarray]:
  """Two rows of 24 positions, one packed with three fragments and padding; tokens above the specials."""
  draw = np.random.Generator(np.random.PCG64(1))
  tokens = draw.integers(4, SIZE, (2, 24)).astype(np.int32)
  segments = np.array([[1] * 5 + [2] * 9 + [3] * 7 + [0] * 3, [1] * 24], np.int32)
  positions = np.array([[*range(5), *range(9), *range(7), *range(3)], list(range(24))], np.int32)
  return {'tokens': tokens, 'segments': segments, 'positions': positions}


LOOKED_AT = ((0, 0), (0, 9), (0, 20), (1, 23))  # row and position: the ends of fragments


def looked_at(gradient: np.ndarray) -> list[float]:
  """The norm, and numbers that are others where a matrix is transposed or heads are in another order."""
  places = [(5, 2), (14, 11)] if gradient.ndim == 2 else [(5,), (2,)]
  return [float(np.linalg.norm(gradient)), *(float(gradient[place]) for place in places)]


def logit_weights(rows: dict[str, np.ndarray]) -> np.ndarray:
  """What log-probabilities are multiplied with, so that a gradient depends on every logit."""
  draw = np.random.Generator(np.random.PCG64(2))
  return draw.uniform(0, 1, (*rows['tokens'].shape, SIZE)).astype(np.float32)


def run(
  model: DecoderConfig, tree: Any, rows: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, Any]]:
  """The decoder's logits of the tokenizer's ids, and gradients of their weighted log-probabilities."""
  graph, _, _ = decoder.abstract_decoder(model)

  def total(tree):
    bound = decoder.bind(graph, tree)
    logits = bound.logits(bound(rows['tokens'], rows['segments'], rows['positions']))[..., :SIZE]
    weight = (rows['segments'] > 0)[..., None] * logit_weights(rows)
    return (jax.nn.log_softmax(logits) * weight).sum(), logits

  (_, logits), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(tree)
  return np.array(logits), gradients


def their_gradients(model: DecoderConfig, gradients: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Names and values of gradients as Hugging Face's tensors lie."""
  stripped = dataclasses.replace(model, vocabulary=SIZE)
  for parameter in layout.parameters(stripped):
    array = np.array(at(gradients, parameter.path))
    if not parameter.stacked:
      yield parameter.name, parameter.theirs(array[: parameter.shape[0]])
      continue
    for layer, part in enumerate(array):
      yield parameter.name.format(layer), parameter.theirs(part)
