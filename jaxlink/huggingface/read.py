"""A Hugging Face Llama or Qwen3 as the start of a run: its weights in shards on the mesh, nothing else.

Each device's part of a parameter is read from the files, which are memory-mapped: no host holds more than
one parameter beside what its devices keep. The optimizer begins anew.

Easy to get wrong: the tokenizer. Embeddings are rows of ids, and nothing in the weights tells whose ids. A
run whose tokenizer gives others is refused.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlink.data.tokenizer import Tokenizer, padded_size
from jaxlink.huggingface import config_json, layout, tokenizer_json, weights
from jaxlink.model.shape import DecoderConfig


def is_checkpoint(folder: str) -> bool:
  """Whether a folder is a Hugging Face model, not a run of ours: it has a config.json and weights."""
  base = pathlib.Path(folder)
  if (base / 'checkpoints').is_dir() or not (base / 'config.json').is_file():
    return False
  kinds = ('*.safetensors', weights.INDEX, '*.bin', '*.pt', '*.pth')
  return any(next(base.glob(kind), None) for kind in kinds)


def digest(folder: str) -> str:
  """A hash of all that a run takes from a checkpoint: its config.json and the bytes of its weights."""
  base = hashlib.sha256()
  for path in (pathlib.Path(folder) / 'config.json', *weights.weight_files(folder)):
    with open(path, 'rb') as file:
      base.update(path.name.encode() + hashlib.file_digest(file, 'sha256').digest())
  return base.hexdigest()


def check(folder: str, model: DecoderConfig) -> None:
  """Looks whether a decoder can start from a checkpoint.

  Args:
    folder: of the checkpoint.
    model: resolved.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: it is another model, each setting named with the value to set; weights are missing, of
      another shape, or pickled.
  """
  there = _fields(folder)
  config_json.check_same(model, there, folder)
  tensors = weights.Tensors(folder)
  shapes = tensors.shapes
  wanted = layout.tensor_shapes(dataclasses.replace(model, vocabulary=there['vocabulary']))
  wrong = [
    f'{name} is {list(shapes[name]) if name in shapes else "missing"}, not {list(shape)}'
    for name, shape in wanted.items()
    if shapes.get(name) != shape
  ]
  wrong += [f'{name} has no place here' for name in shapes if name not in wanted | _repeated(model)]
  if wrong:
    more = f'; and {len(wrong) - 5} more' if wrong[5:] else ''
    raise ValueError(f'{folder}: {"; ".join(wrong[:5])}{more}.')
  if model.tied_embeddings and not _ties(tensors):
    raise ValueError(
      f'{folder}: its config.json ties the embeddings, and lm_head.weight is another matrix than the '
      "embedding: transformers would not tie them. There: 'tie_word_embeddings': false; here: "
      'DecoderConfig.tied_embeddings = False.'
    )


def check_tokenizer(folder: str, tokenizer: Tokenizer) -> None:
  """Compares a run's tokenizer with a checkpoint's.

  Raises:
    ValueError: it is another one, there is none to compare with, or its ids do not all have a row in the
      embedding.
  """
  rows = _fields(folder)['vocabulary']
  if tokenizer.size > rows:
    raise ValueError(
      f'{tokenizer.path} has {tokenizer.size:,} ids, and the embedding of {folder} {rows:,} rows.'
    )
  paths = _tokenizer_files(folder)
  if not paths:
    raise ValueError(
      f'{folder} has neither tokenizer.json nor tokenizer.model, so nothing tells whether its ids are those '
      f'of {tokenizer.path}: put the tokenizer there that it was trained with.'
    )
  if any(_same(path, tokenizer) for path in paths):
    return
  if how := tokenizer_json.difference(tokenizer, paths[0]):
    raise ValueError(
      f'{tokenizer.path} is not the tokenizer of {folder}: {how}. Register the text with {paths[0]}.'
    )


def params(folder: str, model: DecoderConfig, abstract: dict[str, Any]) -> dict[str, Any]:
  """Reads parameters into their shards.

  Rows of the embedding that the decoder has no room for are left out; rows that it has beyond them are 0.

  Args:
    folder: of a checkpoint that `check` has passed.
    model: resolved.
    abstract: nested dict of `jax.ShapeDtypeStruct`s with shardings.
  """
  tensors = weights.Tensors(folder)
  made: dict[str, Any] = {}
  for parameter in layout.parameters(model):
    at, wanted = made, abstract
    for key in parameter.path[:-1]:
      at, wanted = at.setdefault(key, {}), wanted[key]
    at[parameter.path[-1]] = _array(tensors, parameter, wanted[parameter.path[-1]])
  return made


def recipe(folder: str) -> str:
  """The settings with which a run goes on from a checkpoint, as lines of gin, and what else it needs.

  Raises:
    FileNotFoundError: it is no checkpoint.
    ValueError: a model that the decoder is not.
  """
  fields = _fields(folder)
  rows = fields.pop('vocabulary')
  path = next(iter(_tokenizer_files(folder)), '')
  room = ''
  lines = [f'DecoderConfig.{name} = {value!r}' for name, value in fields.items()]
  if path:
    size = Tokenizer(path).size
    kept = padded_size(size)
    room = f'  # {size:,} ids, {rows:,} rows there: {kept:,} rows here; DecoderConfig.vocabulary asks for more'
  count = sum(int(np.prod(shape)) for shape in weights.Tensors(folder).shapes.values())
  return '\n'.join(
    [
      f'# {folder}: {count:,} parameters',
      *lines,
      *([room.strip()] if room else []),
      f'Stage.start_from = {os.path.abspath(folder)!r}',
      '',
      "# Its tokenizer, in the module of Run.modules that registers the text (README.md, 'Your language'):",
      f"#   register_corpus('mine', {{'train': 'mine.txt'}}, language='…', tokenizer={os.path.abspath(path)!r})"
      if path else '#   there is none in the folder: register the text with the tokenizer that it was trained with',
      '# A stage begins with a fresh optimizer and its own schedule: a warm-up (OptimizerConfig.warmup_share)',
      '# and a lower peak than in pretraining keep what the model knows.',
    ]
  )  # fmt: skip


def _array(tensors, parameter, wanted):
  """A parameter of this mesh."""
  read: dict[Any, np.ndarray] = {}  # devices that hold the same part

  def part(index):
    bounds = tuple(s.indices(n)[:2] for s, n in zip(index, wanted.shape, strict=True))
    if bounds not in read:
      read[bounds] = _part(tensors, parameter, wanted.shape, [slice(*b) for b in bounds])
    return read[bounds]

  return jax.make_array_from_callback(wanted.shape, wanted.sharding, part)


def _part(tensors, parameter, shape, index):
  """A float32 box of a parameter, layers included."""
  if parameter.stacked:
    layers, *index = index
    sizes = [s.stop - s.start for s in index]
    box = np.empty((layers.stop - layers.start, *sizes), jnp.float32)
    for i, layer in enumerate(range(layers.start, layers.stop)):
      box[i] = parameter.ours(tensors[parameter.name.format(layer)], index)
    return box
  tensor = tensors[parameter.name]
  box = np.zeros([s.stop - s.start for s in index], jnp.float32)
  rows = tensor.get_shape()[0] if parameter.path[-1] in ('embed', 'head') else shape[0]
  if (end := min(index[0].stop, rows)) > index[0].start:
    box[: end - index[0].start] = parameter.ours(tensor, [slice(index[0].start, end), *index[1:]])
  return box


def _fields(folder: str) -> dict[str, Any]:
  path = pathlib.Path(folder) / 'config.json'
  try:
    described = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise FileNotFoundError(f'{folder} is no Hugging Face checkpoint: no config.json.') from None
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}).') from None
  return config_json.fields(described, folder)


def _tokenizer_files(folder: str) -> list[str]:
  paths = [os.path.join(folder, name) for name in ('tokenizer.json', 'tokenizer.model')]
  return [path for path in paths if os.path.exists(path)]


def _repeated(model: DecoderConfig) -> dict[str, None]:
  """Tensors that some programs write although others say the same."""
  repeated = {f'model.layers.{i}.self_attn.rotary_emb.inv_freq': None for i in range(model.layers)}
  return {**repeated, 'model.rotary_emb.inv_freq': None} | (
    {'lm_head.weight': None} if model.tied_embeddings else {}
  )


def _ties(tensors: weights.Tensors, rows: int = 4096) -> bool:
  """Whether a head that was written beside tied embeddings is the embedding."""
  embed, head = 'model.embed_tokens.weight', 'lm_head.weight'
  if head not in tensors.shapes:
    return True
  parts = (slice(i, i + rows) for i in range(0, tensors.shapes[embed][0], rows))
  return tensors.shapes[head] == tensors.shapes[embed] and all(
    np.array_equal(tensors[embed][part], tensors[head][part]) for part in parts
  )


def _same(path: str, tokenizer: Tokenizer) -> bool:
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() == tokenizer.sha256
