"""Checkpoints of a run: asynchronous, committed or absent, restorable on another mesh.

In: the state (a pytree of global `jax.Array`s) and a JSON dict `meta` (step, stage, fingerprints,
data counts, config). Out: `<directory>/<step>/state` and `/meta`, written by Orbax; `restore` gives
both back, bit for bit, on whatever shardings the abstract state asks for.

Easy to get wrong: `save` returns before anything is on disk. Its error, such as a full disk, shows
at the next `save` or at `close`, so a run has not succeeded until `close` has returned. A step
directory appears by a rename when it is whole; what a killed run leaves has another name and never
counts as a step.
"""

import json
import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxlink.config import configurable

_Tree = Any

# The least that a restore fetches and decompresses. Without it a chunk is one shard of the writer's
# mesh, so a host of a finer mesh reads (and throws away) whole shards to get its slices.
_CHUNK_BYTES = 32 << 20


class CheckpointError(RuntimeError):
  """A save failed; the message has the directory, the step and the last good step."""


@configurable
class CheckpointConfig:
  """When to save and what to keep.

  Attributes:
    every_steps: a checkpoint after each so many steps (and at a stop and at the end, by the loop).
    keep: the latest checkpoints that stay, beside those at the end of a stage. At least 1.
    keep_every: checkpoints at multiples of this many steps stay for good; 0 keeps none for good.
    timeout_seconds: the longest that hosts wait for one another and for a save to be committed.
  """

  every_steps: int = 1000
  keep: int = 2
  keep_every: int = 0
  timeout_seconds: int = 1200

  def __post_init__(self):
    for name, least in (('every_steps', 1), ('keep', 1), ('keep_every', 0), ('timeout_seconds', 1)):
      value = getattr(self, name)
      if value < least:
        raise ValueError(f'CheckpointConfig.{name} is {value}: it is at least {least}.')
    if self.keep_every % self.every_steps:
      raise ValueError(
        f'CheckpointConfig.keep_every is {self.keep_every}: it is a multiple of every_steps, '
        f'{self.every_steps}, or 0.'
      )


class Keeper:
  """Saves and restores the checkpoints in one directory; on several hosts, called alike on all.

  Args:
    directory: where the step directories are; a writer makes it.
    config: when to save and what to keep.
    keep_steps: steps whose checkpoints stay for good.
    writer: whether this run saves. A writer removes what a killed run left half-written before it
      saves; there is one writing run to a directory at a time. A reader (evaluation, export)
      touches nothing.

  Raises:
    FileNotFoundError: a reader's directory is not there.
  """

  def __init__(
    self,
    directory: str,
    config: CheckpointConfig,
    *,
    keep_steps: Sequence[int] = (),
    writer: bool = True,
  ):
    self._directory = pathlib.Path(directory).absolute()
    self._config = config
    self._saving: int | None = (
      None  # the step that was handed over and not yet known to be committed
    )
    if not writer and not self._directory.is_dir():
      raise FileNotFoundError(f'no checkpoints: there is no directory {self._directory}.')
    logger = logging.getLogger('absl')
    level = logger.level
    if not writer:
      logger.setLevel(logging.ERROR)  # Orbax warns that a reader will not write
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        # A reader is told that it saves nothing, or Orbax warns that it will not.
        save_interval_steps=1 if writer else 0,
        preservation_policy=_kept(config, keep_steps) if writer else None,
        create=writer,
        read_only=not writer,
        cleanup_tmp_directories=writer,
        async_options=ocp.AsyncOptions(timeout_secs=config.timeout_seconds),
      ),
      item_handlers={
        'state': ocp.PyTreeCheckpointHandler(),
        'meta': ocp.JsonCheckpointHandler(),
      },
    )
    logger.setLevel(level)

  def latest(self) -> int | None:
    """The last step that is committed, or None."""
    steps = [step for step in self._manager.all_steps() if step != self._saving]
    return max(steps, default=None)

  def due(self, step: int) -> bool:
    """Whether a checkpoint is due after `step` finished updates."""
    return step > 0 and step % self._config.every_steps == 0

  def save(self, step: int, state: _Tree, meta: dict[str, Any]) -> None:
    """Starts a save and returns when the state is copied.

    The state may be donated or changed afterwards. Waits for the save before it, if unfinished.

    Raises:
      CheckpointError: the save before this one failed, or this one at its start.
      TypeError, ValueError: `meta` is not plain JSON (NaN is not).
      ValueError: the step is not after the last one.
    """
    self.wait()
    last = self.latest()
    if last is not None and step <= last:
      raise ValueError(f'step {step} is to be saved in {self._directory}, which is at step {last}.')
    meta = json.loads(json.dumps(meta, allow_nan=False))  # a copy: it is written later
    arguments = ocp.args.Composite(
      state=ocp.args.PyTreeSave(
        state,
        save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), state),
      ),
      meta=ocp.args.JsonSave(meta),
    )
    self._saving = step
    try:
      # The loop's guard forbids what a save is for: bringing arrays to the host.
      with jax.transfer_guard('allow'):
        self._manager.save(step, args=arguments, force=True)
    except Exception as error:
      raise self._failure(error) from error

  def wait(self) -> None:
    """Returns when the last save is committed.

    Raises:
      CheckpointError: it failed.
    """
    try:
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
    except Exception as error:
      raise self._failure(error) from error
    self._saving = None

  def restore(self, step: int, abstract: _Tree) -> tuple[_Tree, dict[str, Any]]:
    """Reads a checkpoint into the shardings of `abstract`, bit-equal to what was saved.

    Args:
      step: a committed step.
      abstract: the tree of `jax.ShapeDtypeStruct`s with shardings that the run expects; the mesh
        may be another than the one it was saved on.

    Returns:
      The state, in the structure of `abstract`, and the meta dict.

    Raises:
      FileNotFoundError: there is no such step.
      ValueError: paths, shapes or dtypes differ (each leaf is named), or a leaf has no sharding.
        Nothing has been restored then.
    """
    self._check_step(step)
    self._check_tree(step, abstract)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract)
        ),
        meta=ocp.args.JsonRestore(),
      ),
    )
    return restored.state, restored.meta

  def check(self, step: int, abstract: _Tree) -> None:
    """Raises what `restore` would raise of such a step and state, without reading arrays."""
    self._check_step(step)
    self._check_tree(step, abstract)

  def read_meta(self, step: int) -> dict[str, Any]:
    """The meta dict alone. Raises FileNotFoundError where there is no such step."""
    self._check_step(step)
    return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

  def close(self) -> None:
    """Waits until everything is committed.

    Raises:
      CheckpointError: the last save failed.
    """
    try:
      self.wait()
    finally:
      self._manager.close()

  def _check_step(self, step: int) -> None:
    steps = sorted(s for s in self._manager.all_steps() if s != self._saving)
    if step not in steps:
      have = f'Steps there: {", ".join(map(str, steps))}.' if steps else 'None is there.'
      raise FileNotFoundError(f'no checkpoint of step {step} in {self._directory}. {have}')

  def _check_tree(self, step: int, abstract: _Tree) -> None:
    saved = {
      path: (tuple(leaf.shape), str(leaf.dtype))
      for path, leaf in _leaves(self._manager.item_metadata(step).state.tree).items()
    }
    wanted = {
      path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in _leaves(abstract).items()
    }
    lines = [f'{path}: in the checkpoint only' for path in saved if path not in wanted]
    lines += [f'{path}: not in the checkpoint' for path in wanted if path not in saved]
    for path in wanted:
      if path in saved and saved[path] != wanted[path]:
        (have_shape, have_type), (shape, dtype) = saved[path], wanted[path]
        lines.append(f'{path}: {have_type}{list(have_shape)} there, {dtype}{list(shape)} here')
    if lines:
      shown = '\n  '.join(lines[:20]) + (f'\n  … and {len(lines) - 20} more' if lines[20:] else '')
      raise ValueError(
        f'the checkpoint {self._directory / str(step)} is of another state than this run:\n  {shown}'
      )
    bare = [path for path, leaf in _leaves(abstract).items() if leaf.sharding is None]
    if bare:
      raise ValueError(f'restore: the abstract state has leaves without a sharding: {bare}.')

  def _failure(self, error: Exception) -> CheckpointError:
    good = self.latest()
    last = (
      f'The last good step is {good}.' if good is not None else 'No step has been saved before.'
    )
    reason = re.sub(r'\s+', ' ', str(error))[:600] or type(error).__name__
    return CheckpointError(
      f'the checkpoint of step {self._saving} in {self._directory} failed: {reason} {last}'
    )


def _kept(config: CheckpointConfig, steps: Sequence[int]) -> Any:
  """Which checkpoints stay: the latest, those at multiples, and those of certain steps."""
  policies = ocp.checkpoint_managers.preservation_policy
  parts = [policies.LatestN(n=config.keep)]
  if config.keep_every:
    parts.append(policies.EveryNSteps(interval_steps=config.keep_every))
  if steps:
    parts.append(policies.CustomSteps(steps=list(steps)))
  return policies.AnyPreservationPolicy(policies=parts)


def _leaves(tree: _Tree) -> dict[str, Any]:
  """Path such as 'params.layers.w' → leaf, the same for a state and for its saved description."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in flat}
