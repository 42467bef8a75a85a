"""Writes a run's checkpoint as a Hugging Face model folder, one parameter at a time.

What is held is one parameter with its layers, never the model. The folder appears by a rename when it is
whole; what an interrupted export leaves is called '….partial' and is removed by the next one.

Easy to get wrong: the vocabulary. Rows that only pad the embedding stay behind, so the softmax of the
exported model is over the tokenizer's ids alone.
"""

import dataclasses
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import tqdm

from jaxlink.evaluation import held_out
from jaxlink.huggingface import card, config_json, layout, tokenizer_json, weights
from jaxlink.huggingface.run_checkpoint import RunCheckpoint
from jaxlink.model import mup
from jaxlink.model.shape import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Exported:
  """What was written.

  Attributes:
    parameters: how many.
    bytes: of the tensors.
    files: with tensors.
    averaged: whether the parameters are a moving average.
    stripped: rows of padding that were left behind.
  """

  parameters: int
  bytes: int
  files: int
  averaged: bool
  stripped: int


def export(
  run: str, to: str, *, dtype: str = 'float32', shard_bytes: int = 4 * 10**9,
  averaged: bool = True, tokenizer_path: str = '', with_tokenizer: bool = True, force: bool = False,
) -> Exported:  # fmt: skip
  """Writes a model folder.

  Args:
    run: 'DIRECTORY' or 'DIRECTORY@STEP'.
    to: the folder; its last part is the model's name on the card.
    dtype: 'float32' or 'bfloat16'.
    shard_bytes: of a file of tensors, at most.
    averaged: takes the moving average of the parameters where the run keeps one.
    tokenizer_path: of the run's tokenizer; '' where the run left it.
    with_tokenizer: writes tokenizer files.
    force: replaces a model folder that is there.

  Raises:
    FileNotFoundError: no such run, step or tokenizer.
    ValueError: the folder is there, or the model or its tokenizer cannot be expressed, by name.
  """
  target = pathlib.Path(os.path.abspath(to))
  _check_target(target, force)
  source = RunCheckpoint(run, averaged=averaged)
  config_json.check_expressible(source.model)
  tokenizer = source.tokenizer(tokenizer_path)
  opening = held_out.opening({'bos': tokenizer.bos_id, 'eos': tokenizer.eos_id})
  ids = config_json.TextIds(opening, tokenizer.eos_id, tokenizer.pad_id if tokenizer.pads else None)
  model = dataclasses.replace(source.model, vocabulary=tokenizer.size)

  partial = target.with_name(f'{target.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  if with_tokenizer:
    _write_json(partial / 'tokenizer.json', tokenizer_json.make(tokenizer, opening))
    if how := tokenizer_json.difference(tokenizer, str(partial / 'tokenizer.json')):
      raise ValueError(
        f'{tokenizer.path} cannot be expressed as a tokenizer.json: {how}. '
        '--no_tokenizer exports the weights alone.'
      )
    settings = tokenizer_json.settings(tokenizer, opening, model.max_length)
    _write_json(partial / 'tokenizer_config.json', settings)
  described = config_json.to_json(model, ids, dtype=dtype)
  _write_json(partial / 'config.json', described)
  generation = {f'{name}_token_id': id_ for name, id_ in ids._asdict().items() if id_ is not None}
  _write_json(partial / 'generation_config.json', generation)

  parameters, size = write_weights(
    partial,
    source.model,
    source.read,
    vocabulary=tokenizer.size,
    dtype=dtype,
    shard_bytes=shard_bytes,
  )
  text = card.write(
    config=source.config, meta=source.meta, described=described, scores=source.scores(),
    parameters=parameters, averaged=source.averaged, folded=source.model.mup is not None,
    name=target.name,
  )  # fmt: skip
  (partial / 'README.md').write_text(text, encoding='utf-8')
  _put_in_place(partial, target)
  return Exported(
    parameters=parameters, bytes=size, files=len(weights.weight_files(str(target))),
    averaged=source.averaged, stripped=source.model.vocabulary - model.vocabulary,
  )  # fmt: skip


def write_weights(
  folder: pathlib.Path, model: DecoderConfig, read: Callable[[layout.Path], np.ndarray], *,
  vocabulary: int, dtype: str, shard_bytes: int,
) -> tuple[int, int]:  # fmt: skip
  """Writes the tensors of a decoder; muP's factors go into them.

  Args:
    folder: exists.
    model: resolved, with the vocabulary of its parameters.
    read: gives a parameter by its path, layers stacked; it is changed.
    vocabulary: rows of the embedding that are written.
    dtype: 'float32' or 'bfloat16'.
    shard_bytes: of a file, at most.

  Returns:
    How many parameters there are, and their bytes.
  """
  factors = mup.fold_factors(model)
  model = dataclasses.replace(model, vocabulary=vocabulary)
  shapes = layout.tensor_shapes(model)
  writer = weights.Writer(folder, shapes, dtype=dtype, shard_bytes=shard_bytes)
  with tqdm.tqdm(
    total=writer.bytes, unit='B', unit_scale=True, desc='exporting', mininterval=0.5
  ) as bar:
    for parameter in layout.parameters(model):
      # In a call of its own: what is read is given up before the next parameter is.
      _put(writer, parameter, read(parameter.path), factors.get(parameter.path[-1]), bar)
  writer.close()
  return sum(map(math.prod, shapes.values())), writer.bytes


def _put(
  writer: weights.Writer, parameter: layout.Parameter, array: np.ndarray, factor: float | None,
  bar: tqdm.tqdm,
) -> None:  # fmt: skip
  """Writes the tensors of a parameter; rows of padding stay behind."""
  if factor is not None:
    array *= array.dtype.type(factor)
  if not parameter.stacked:
    bar.update(writer.put(parameter.name, array[: parameter.shape[0]]))
    return
  for layer, part in enumerate(array):
    bar.update(writer.put(parameter.name.format(layer), parameter.theirs(part)))


def _check_target(target: pathlib.Path, force: bool) -> None:
  if not target.exists():
    return
  if not force:
    raise ValueError(f'--to: {target} exists. --force replaces it.')
  if not (target / 'config.json').exists() or not list(target.glob('*.safetensors')):
    raise ValueError(f'--to: {target} is no model folder, and is not replaced.')


def _put_in_place(partial: pathlib.Path, target: pathlib.Path) -> None:
  old = target.with_name(f'{target.name}.old.partial')
  shutil.rmtree(old, ignore_errors=True)
  if target.exists():
    target.rename(old)
  partial.rename(target)
  shutil.rmtree(old, ignore_errors=True)


def _write_json(path: pathlib.Path, value: object) -> None:
  path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + '\n', encoding='utf-8')
