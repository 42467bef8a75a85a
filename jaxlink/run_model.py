"""A trained model for whoever uses it (generation, evaluation): parameters on a mesh, and their tokenizer.

In: a run's directory, 'DIRECTORY@STEP', or a folder with an exported Hugging Face model. Out: the decoder's
shape for these devices, its parameters alone, and the tokenizer. Nothing of the optimizer is read but a
moving average of the parameters, which is taken where a run keeps one: it is what the run evaluates.

Easy to get wrong: what was resolved for the run's devices. A model trained on TPU in bfloat16 with a
kernel for attention is here computed as this platform does it, unless the recipe says how.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink.data.tokenizer import Tokenizer, padded_size
from jaxlink.huggingface import config_json
from jaxlink.huggingface import read as huggingface
from jaxlink.huggingface.run_checkpoint import RunCheckpoint
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig
from jaxlink.names import nearest

_SHOWN = 6  # steps that an error names


class RunModel(NamedTuple):
  """A model, ready to be used.

  Attributes:
    config: resolved for the mesh's devices.
    params: nested dict of arrays on the mesh.
    tokenizer: that it was trained with.
    opening: the id that every text begins with: BOS, or EOS where the vocabulary has no BOS.
    eos: the id that ends a text.
    mesh: where the parameters are.
    description: one line for people: where it is from, step, size.
  """

  config: DecoderConfig
  params: dict[str, Any]
  tokenizer: Tokenizer
  opening: int
  eos: int
  mesh: jax.sharding.Mesh
  description: str


def load(
  source: str | pathlib.Path,
  step: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
  *,
  tokenizer: str = '',
  narrow: bool = False,
) -> RunModel:
  """Loads a run's checkpoint, or an exported model.

  Args:
    source: a run's directory, 'DIRECTORY@STEP', or a Hugging Face folder.
    step: of a run, in place of one in `source`; None for its last.
    mesh: None for all devices along `data`.
    tokenizer: its file, where it is no more where the run left it.
    narrow: keeps parameters in the dtype of the products, which is what these read anyway: half the
      memory where that is bfloat16.

  Raises:
    FileNotFoundError: there is no such directory, checkpoint, step or tokenizer.
    ValueError: the directory holds neither, the tokenizer is another than the run's, or the mesh does
      not divide the model.
  """
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig()) if mesh is None else mesh
  device = mesh.devices.flat[0]
  if huggingface.is_checkpoint(os.fspath(source)):
    if step is not None:
      raise ValueError(
        f'{source} is an exported model, which has no steps, and step {step} is asked for.'
      )
    config, params, opened, opening, eos = _exported(os.fspath(source), mesh, tokenizer)
    what = f'{source}, a Hugging Face model'
  else:
    checkpoint = RunCheckpoint(find(os.fspath(source), step))
    opened = checkpoint.tokenizer(tokenizer)
    opening, eos = opened.eos_id if opened.bos_id is None else opened.bos_id, opened.eos_id
    dtype = checkpoint.config['model']['dtype']
    # As this platform does it; nothing is differentiated.
    config = dataclasses.replace(checkpoint.model, dtype=dtype, attention='auto', remat='none')
    config = config.resolve(platform=device.platform, tokenizer_size=opened.size)
    params = place(config, mesh, checkpoint.read)
    average = ', the average of its parameters' if checkpoint.averaged else ''
    what = f'{checkpoint.directory}, step {checkpoint.step:,}{average}'
  if narrow:
    params = jax.tree.map(lambda x: x.astype(config.dtype), params)
  count = decoder.parameter_count(config).total
  what += f': {count / 1e6:,.1f}M parameters, {config.dtype} on {mesh.size} {device.device_kind}'
  return RunModel(config, params, opened, opening, eos, mesh, what)


def _exported(folder: str, mesh: jax.sharding.Mesh, tokenizer: str) -> tuple[Any, ...]:
  """Config, parameters, tokenizer and the ids that open and end a text, of a Hugging Face model.

  A text opens with config.json's `bos_token_id`, also where the model's own tokenizer adds none (Qwen3).
  """
  described = json.loads((pathlib.Path(folder) / 'config.json').read_text(encoding='utf-8'))
  there = config_json.fields(described, folder)
  rows = there.pop('vocabulary')
  # Padded, so that meshes divide it; what is beyond the rows has no probability.
  config = DecoderConfig(**there, vocabulary=padded_size(rows), tokenizer_size=rows)
  config = config.resolve(platform=mesh.devices.flat[0].platform)
  huggingface.check(folder, config)
  names = [tokenizer] if tokenizer else ['tokenizer.json', 'tokenizer.model']
  paths = [path for name in names if os.path.exists(path := os.path.join(folder, name))]
  if not paths:
    raise FileNotFoundError(
      f'{folder} has no tokenizer.json: --tokenizer says where its tokenizer is.'
    )
  opened = Tokenizer(paths[0])
  huggingface.check_tokenizer(folder, opened)
  eos = described.get('eos_token_id')
  eos = eos if isinstance(eos, int) else opened.eos_id  # a list has those that end a turn, too
  opening = described.get('bos_token_id')
  opening = next(id_ for id_ in (opening, opened.bos_id, eos) if id_ is not None)
  params = huggingface.params(folder, config, _abstract(config, mesh))
  return config, params, opened, opening, eos


def place(
  config: DecoderConfig,
  mesh: jax.sharding.Mesh,
  read: Callable[[tuple[str, ...]], np.ndarray],
) -> dict[str, Any]:
  """Parameters on a mesh, one after the other: the host holds one at a time.

  Args:
    config: resolved.
    mesh: of the devices.
    read: path in the nested dict → array.

  Raises:
    ValueError: the mesh does not divide a parameter.
  """

  def one(path, shape):
    array = np.asarray(read(tuple(key.key for key in path)))
    if array.shape != shape.shape:
      raise ValueError(
        f'{jax.tree_util.keystr(path, simple=True, separator=".")} is {array.shape} in the checkpoint, '
        f'and {shape.shape} in the model that its configuration describes.'
      )
    return jax.make_array_from_callback(array.shape, shape.sharding, lambda index: array[index])

  return jax.tree_util.tree_map_with_path(one, _abstract(config, mesh))


def find(source: str, step: int | None = None) -> str:
  """'DIRECTORY@STEP' of a checkpoint that is there.

  Raises:
    FileNotFoundError: there is no such directory, no checkpoint in it, or none of this step.
    ValueError: what follows @ is no number, or two steps are given.
  """
  directory, at, wanted = source.rpartition('@')
  if not at or '/' in wanted or os.path.isdir(source):
    directory, wanted = source, ''
  if wanted and not wanted.isdigit():
    raise ValueError(f'{source!r}: what follows @ is the number of a step.')
  if wanted and step is not None and int(wanted) != step:
    raise ValueError(f'{source!r} names a step, and step {step} is asked for: give one of them.')
  step = int(wanted) if wanted else step
  folder = pathlib.Path(directory)
  if not folder.is_dir():
    raise FileNotFoundError(f'there is no directory {directory!r}.{_near(folder)}')
  steps = sorted(int(f.name) for f in (folder / 'checkpoints').glob('*') if f.name.isdigit())
  if not steps:
    raise FileNotFoundError(
      f'{directory} holds no checkpoint: it is the directory of a run (Run.directory) that has saved one, '
      'or the folder of a Hugging Face model.'
      f'{_near(folder)}'
    )
  if step is not None and step not in steps:
    near = sorted(sorted(steps, key=lambda s: abs(s - step))[:_SHOWN])
    there = 'There are' if len(near) == len(steps) else f'Of its {len(steps)} the nearest are'
    raise FileNotFoundError(
      f'{directory} holds no checkpoint of step {step:,}. {there}: {", ".join(map(str, near))}.'
    )
  return f'{directory}@{steps[-1] if step is None else step}'


def _abstract(config: DecoderConfig, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Shapes of the parameters, with their shardings."""
  _, shapes, names = decoder.abstract_decoder(config)
  return jax.tree.map(
    lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
    shapes,
    mesh_lib.param_shardings(mesh, shapes, names),
  )


def _near(folder: pathlib.Path) -> str:
  """The end of an error: a run beside or below the folder that may be meant."""
  places = [*sorted(folder.glob('*/checkpoints')), *sorted(folder.parent.glob('*/checkpoints'))]
  runs: dict[str, str] = {}  # those below the folder first
  for path in places:
    runs.setdefault(path.parent.name, str(path.parent))
  hit = nearest(folder.name, runs)
  return hit or (f' Runs near there: {", ".join(list(runs.values())[:_SHOWN])}.' if runs else '')
