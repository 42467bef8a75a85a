"""Which parameter of the decoder is which tensor of a Hugging Face Llama or Qwen3, and how it lies there.

One table. Here the layers of a parameter are stacked on a leading axis and its axes keep their meaning
(D, heads, size of a head); there each layer has a tensor of its own, a matrix of outputs by inputs, or a
vector. `ours(parameter, tensor)` and `theirs` only copy and transpose, so that each undoes the other bit
for bit.

Easy to get wrong: which axes are inputs. Of `o` they are the first two (H, K), of `q`, `k` and `v` only D.
A square matrix that is transposed once too often loads without an error.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlink.model.shape import DecoderConfig

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A parameter of the decoder and its tensors.

  Attributes:
    path: keys in the nested dict of parameters.
    name: of the tensor there; '{}' is the number of the layer, where layers are stacked here.
    shape: here, without the axis of the layers.
    inputs: how many of the leading axes are inputs. 0 is for what lies there as it does here.
  """

  path: Path
  name: str
  shape: tuple[int, ...]
  inputs: int

  @property
  def stacked(self) -> bool:
    """Whether layers are stacked here, each a tensor there."""
    return '{}' in self.name

  @property
  def their_shape(self) -> tuple[int, ...]:
    """Shape of a tensor there."""
    if not self.inputs:
      return self.shape
    return math.prod(self.shape[self.inputs :]), math.prod(self.shape[: self.inputs])

  def theirs(self, layer: np.ndarray) -> np.ndarray:
    """The tensor there of a parameter, or of one layer of it; a view where it can be one."""
    if not self.inputs:
      return layer
    return layer.reshape(self.their_shape[::-1]).T

  def ours(self, tensor: Any, index: Sequence[slice]) -> np.ndarray:
    """A part of a parameter, or of one layer of it, from the tensor there.

    Args:
      tensor: an array, or a file's tensor that is read where it is indexed, such as safetensors' slices.
      index: unit steps along the axes here; what the part does not need is not read, but along the last
        axes of inputs and of outputs.

    Returns:
      The part, in the dtype of the tensor.
    """
    if not self.inputs:
      return np.asarray(tensor[tuple(index)])
    bounds = [part.indices(size)[:2] for part, size in zip(index, self.shape, strict=True)]
    n = self.inputs
    rows, row_shape, row_rest = _cover(self.shape[n:], bounds[n:])
    columns, column_shape, column_rest = _cover(self.shape[:n], bounds[:n])
    part = np.asarray(tensor[rows, columns]).T.reshape(*column_shape, *row_shape)
    return part[(*column_rest, *row_rest)]


def parameters(config: DecoderConfig) -> list[Parameter]:
  """The parameters of a decoder, in the order of their tensors there.

  Args:
    config: with its vocabulary filled in.
  """
  D, H, G, K = config.width, config.heads, config.G, config.K
  F, V = config.feedforward, config.vocabulary
  layer, attention = 'model.layers.{}.', ('layers', 'attention')
  found = [
    Parameter(('embed',), 'model.embed_tokens.weight', (V, D), 0),
    Parameter(('layers', 'attention_norm'), layer + 'input_layernorm.weight', (D,), 0),
    Parameter((*attention, 'q'), layer + 'self_attn.q_proj.weight', (D, H, K), 1),
    Parameter((*attention, 'k'), layer + 'self_attn.k_proj.weight', (D, G, K), 1),
    Parameter((*attention, 'v'), layer + 'self_attn.v_proj.weight', (D, G, K), 1),
    Parameter((*attention, 'o'), layer + 'self_attn.o_proj.weight', (H, K, D), 2),
  ]
  if config.qk_norm:
    found += [
      Parameter((*attention, 'q_norm'), layer + 'self_attn.q_norm.weight', (K,), 0),
      Parameter((*attention, 'k_norm'), layer + 'self_attn.k_norm.weight', (K,), 0),
    ]
  found += [
    Parameter(('layers', 'mlp_norm'), layer + 'post_attention_layernorm.weight', (D,), 0),
    Parameter(('layers', 'mlp', 'gate'), layer + 'mlp.gate_proj.weight', (D, F), 1),
    Parameter(('layers', 'mlp', 'up'), layer + 'mlp.up_proj.weight', (D, F), 1),
    Parameter(('layers', 'mlp', 'down'), layer + 'mlp.down_proj.weight', (F, D), 1),
    Parameter(('norm',), 'model.norm.weight', (D,), 0),
  ]
  if not config.tied_embeddings:
    found.append(Parameter(('head',), 'lm_head.weight', (V, D), 0))
  return found


def tensor_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
  """Names and shapes of all tensors there, layer after layer, as Hugging Face orders them."""
  found = parameters(config)
  first = next(i for i, parameter in enumerate(found) if parameter.stacked)
  stacked = [parameter for parameter in found if parameter.stacked]
  rest = [parameter for parameter in found[first:] if not parameter.stacked]
  shapes = {p.name: p.their_shape for p in found[:first]}
  for layer in range(config.layers):
    shapes |= {p.name.format(layer): p.their_shape for p in stacked}
  return shapes | {p.name: p.their_shape for p in rest}


def _cover(shape, bounds):
  """Where a box of some axes lies in their product: the rows to read, their shape, and the rest to cut.

  Only the first axis is cut while reading: of the others all is read.
  """
  below = math.prod(shape[1:])
  first, end = bounds[0]
  rows = slice(first * below, end * below)
  return rows, (end - first, *shape[1:]), (slice(None), *(slice(*b) for b in bounds[1:]))
