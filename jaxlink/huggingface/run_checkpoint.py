"""A run's checkpoint, read a parameter at a time on the host, whatever mesh it was trained on.

Easy to get wrong: which parameters. Where the run keeps their moving average, that is what it evaluates
and what is exported; it lies among the optimizer's state, of which nothing else is read.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxlink import origin, run_directory
from jaxlink.checkpoint import CheckpointConfig, Keeper
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.huggingface.layout import Path
from jaxlink.model.mup import MupConfig
from jaxlink.model.shape import DecoderConfig


class RunCheckpoint:
  """What lies in a checkpoint.

  Attributes:
    directory: of the run.
    step: finished updates.
    config: the run's, resolved to plain dicts, as of the checkpoint.
    meta: what lies beside the state.
    model: its decoder's shape; the vocabulary is that of the parameters, padding included.
    averaged: whether parameters are their moving average.

  Args:
    name: 'DIRECTORY' for the last checkpoint, or 'DIRECTORY@STEP'.
    averaged: takes the moving average where the run keeps one.

  Raises:
    FileNotFoundError: there is no such run or step.
    ValueError: a configuration of another version of jaxlink.
  """

  def __init__(self, name: str, *, averaged: bool = True):
    try:
      self.directory, self.step = origin.find(name)
    except (FileNotFoundError, ValueError) as error:
      raise type(error)(str(error).removeprefix('Stage.start_from is ')) from None
    self._folder = os.path.join(os.path.abspath(self.directory), 'checkpoints')
    keeper = Keeper(self._folder, CheckpointConfig(), writer=False)
    self.meta = keeper.read_meta(self.step)
    keeper.close()
    self.config: dict[str, Any] = self.meta['config']
    self._reader = ocp.PyTreeCheckpointHandler()
    self._state = pathlib.Path(self._folder, str(self.step), 'state')
    self._tree = self._reader.metadata(self._state).tree
    self._prefix: tuple[Any, ...] = ('params',)
    last = self._tree['opt_state'][-1]
    self.averaged = averaged and isinstance(last, Mapping) and 'average' in last
    if self.averaged:
      self._prefix = 'opt_state', len(self._tree['opt_state']) - 1, 'average'
    self.model = _model(self.config['model'], self._described('embed').shape[0], self.directory)

  def read(self, path: Path) -> np.ndarray:
    """Reads a parameter, layers stacked."""
    wanted = self._described(*path)
    item = jax.tree.map(
      lambda described: 0 if described is wanted else ocp.PLACEHOLDER, self._tree, is_leaf=_is_leaf
    )
    arguments = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), self._tree, is_leaf=_is_leaf
    )
    restored = self._reader.restore(
      self._state, args=ocp.args.PyTreeRestore(item=item, restore_args=arguments)
    )
    return _at(restored, (*self._prefix, *path))

  def tokenizer(self, path: str = '') -> Tokenizer:
    """Opens the tokenizer that the run was trained with.

    Args:
      path: of its file; '' where the run left it.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is another one.
    """
    if not path:
      frozen = pathlib.Path(self.directory) / 'stages.json'
      if not frozen.exists():
        raise FileNotFoundError(
          f'{frozen} is not there: --tokenizer says where the tokenizer of the run is.'
        )
      kept = json.loads(frozen.read_text(encoding='utf-8'))
      path = os.path.normpath(
        os.path.join(self.config['data']['cache_dir'], kept['tokenizer']['path'])
      )
    if not os.path.exists(path):
      raise FileNotFoundError(
        f"the run's tokenizer is not at {path}: --tokenizer says where it is, or run the command in the "
        'folder where the run was trained.'
      )
    tokenizer = Tokenizer(path)
    if tokenizer.sha256 != self.meta['tokenizer']:
      raise ValueError(
        f'{path} is another tokenizer than the one that {self.directory} was trained with.'
      )
    return tokenizer

  def scores(self) -> dict[str, float]:
    """Held-out bits per byte of each task at this step; {} where it was not evaluated."""
    found = run_directory.read_evaluations(self.directory).get(self.step, {})
    return found.get('bits_per_byte', {})

  def _described(self, *path: str) -> Any:
    return _at(self._tree, (*self._prefix, *path))


def _model(saved: Mapping[str, Any], vocabulary: int, directory: str) -> DecoderConfig:
  fields = {name: value for name, value in saved.items() if name != '@'}
  fields['attention'] = 'auto'  # what it was trained with may be of another device
  try:
    if fields.get('mup'):
      fields['mup'] = MupConfig(**{k: v for k, v in fields['mup'].items() if k != '@'})
    return DecoderConfig(**fields).resolve(platform='cpu', vocabulary=vocabulary)
  except TypeError as error:
    raise ValueError(f'{directory} is a run of another version of jaxlink: {error}') from None


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
  for key in path:
    tree = tree[key]
  return tree


def _is_leaf(described: Any) -> bool:
  return described is None or hasattr(described, 'shape')
