"""The checkpoint that a stage starts from: of another run, or a Hugging Face model.

A recipe names a directory, and perhaps a step. What that is, is decided once, when the stage is frozen: the
other run may go on, or be trained again under the same name, while this one is stopped.

Easy to get wrong: a checkpoint is more than its number. `digest` tells whether what lies there is what was
found; a step that is gone or another is an error, never the next best one.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxlink.checkpoint import CheckpointConfig, Keeper
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.huggingface import read
from jaxlink.model.shape import DecoderConfig
from jaxlink.position import Position


@dataclasses.dataclass(frozen=True)
class Origin:
  """A checkpoint, as it was found when the stage was frozen.

  Attributes:
    directory: of the run, or of the Hugging Face model.
    step: of the checkpoint; None for a Hugging Face model.
    digest: of what lies beside the state there; of all files that are read of a Hugging Face model.
  """

  directory: str
  step: int | None
  digest: str


def take(start_from: str, tokenizer: Tokenizer) -> tuple[Origin, Position]:
  """What `Stage.start_from` names, and where its sources stand there.

  Args:
    start_from: a directory, and perhaps '@STEP'.
    tokenizer: of the run that starts.

  Raises:
    FileNotFoundError: there is no such run, or no such checkpoint in it.
    ValueError: the step is no number, or it was trained with another tokenizer.
  """
  if read.is_checkpoint(start_from):
    try:
      read.check_tokenizer(start_from, tokenizer)
    except ValueError as error:
      raise ValueError(f'Stage.start_from is {start_from!r}: {error}') from None
    return Origin(start_from, None, read.digest(start_from)), Position()
  directory, step = find(start_from)
  meta = read_meta(directory, step)
  if meta['tokenizer'] != tokenizer.sha256:
    raise ValueError(
      f'Stage.start_from is {start_from!r}, which was trained with another tokenizer: its parameters '
      'are of no use here.'
    )
  return Origin(directory, step, digest(meta)), Position.from_json(meta['position'])


def check_model(origin: Origin, stage: str, model: DecoderConfig) -> None:
  """Looks whether a Hugging Face model is the one that was frozen, and the decoder its like.

  Args:
    origin: as frozen.
    stage: its name, for errors.
    model: of the run, resolved.

  Raises:
    FileNotFoundError: a file of it is gone.
    ValueError: it is another one, or no such model as the decoder is.
  """
  where = f'Stage.start_from of {stage!r}: {origin.directory}'
  try:
    now = read.digest(origin.directory)
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{where} is gone: {error}') from None
  if now != origin.digest:
    raise ValueError(f'{where} is another model than when this run began.')
  try:
    read.check(origin.directory, model)
  except ValueError as error:
    raise ValueError(f'Stage.start_from of {stage!r}: {error}') from None


def find(start_from: str) -> tuple[str, int]:
  """The run's directory and the step that `Stage.start_from` names; its last step if it names none.

  Raises:
    FileNotFoundError: there is no such run, or no such checkpoint in it.
    ValueError: the step is no number.
  """
  directory, at, step = start_from.rpartition('@')
  if not at or '/' in step:  # a folder may have @ in its name
    directory, step = start_from, ''
  folder = pathlib.Path(directory) / 'checkpoints'
  if not folder.is_dir():
    raise FileNotFoundError(
      f'Stage.start_from is {start_from!r}: {directory} holds no checkpoints of a run, and is no Hugging '
      'Face model (config.json and .safetensors).'
    )
  if step and not step.isdigit():
    raise ValueError(f'Stage.start_from is {start_from!r}: what follows @ is the number of a step.')
  steps = sorted(int(f.name) for f in folder.glob('*') if f.name.isdigit())
  if not steps or (step and int(step) not in steps):
    raise FileNotFoundError(
      f'Stage.start_from is {start_from!r}: '
      + (f'checkpoints are of steps {", ".join(map(str, steps))}.' if steps else 'there is none.')
    )
  return directory, int(step) if step else steps[-1]


def read_meta(directory: str, step: int) -> dict[str, Any]:
  """What lies beside the state in a run's checkpoint."""
  keeper = Keeper(os.path.join(directory, 'checkpoints'), CheckpointConfig(), writer=False)
  meta = keeper.read_meta(step)
  keeper.close()
  return meta


def digest(meta: Mapping[str, Any]) -> str:
  """A hash of what lies beside a state: the same only if the run was the same up to there."""
  return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def open_checkpoint(origin: Origin, stage: str, settings: CheckpointConfig) -> Keeper:
  """A reader of the run that a stage starts from, whose checkpoint is the one that was frozen.

  Args:
    origin: as frozen.
    stage: its name, for errors.
    settings: of the run that reads.

  Raises:
    FileNotFoundError: the checkpoint is gone.
    ValueError: it is another one.
  """
  where = f'Stage.start_from of {stage!r}: step {origin.step:,} of {origin.directory}'
  try:
    meta = read_meta(origin.directory, origin.step)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{where} is gone: {error} CheckpointConfig.keep_every of that run keeps steps for good.'
    ) from None
  if digest(meta) != origin.digest:
    raise ValueError(f'{where} is another checkpoint than when this run began.')
  return Keeper(os.path.join(origin.directory, 'checkpoints'), settings, writer=False)
