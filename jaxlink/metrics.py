"""Metrics of a run: fetched one step late, written as JSON lines, to TensorBoard and to W&B if asked.

In: the device arrays of each step. Out: one JSON object a line in `<run>/metrics.jsonl`, event
files in `<run>/tensorboard`, and a line for the person who waits.

Easy to get wrong: looking at a step's loss right after the step makes the host wait for the device,
and the device then for the host. `Logger.log(step, …)` keeps the arrays and fetches those of the
call before, by `fetch`, the only place where the loop waits. `step` here counts finished updates,
as in a checkpoint's name: the first update's metrics have step 1, and a run restored at step 10
keeps lines up to step 10.

`mfu`, the model's flops utilisation, is flops per token (`model.shape.flops_per_token` has the
definition) times tokens/s over the peak of all devices in dense bfloat16, whatever the dtype of the
run; where the peak is not known (`chips.CHIPS`), as on a CPU, there is none.
"""

import collections
import datetime
import importlib.util
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

import jax
import numpy as np
import tqdm

from jaxlink.chips import by_kind

_WINDOW = 50  # steps over which tokens/s is taken
_PLAIN_SECONDS = 10.0  # between lines where there is no terminal
_BAR_SECONDS = 0.5  # between texts beside the bar


def fetch(tree: Any) -> Any:
  """The tree on the host, as NumPy arrays; waits for the device. `fetch.calls` counts the calls."""
  fetch.calls += 1
  return jax.device_get(tree)


fetch.calls = 0


class Metrics:
  """Writes scalars by step; on a resumed run, what was written after the restored step goes first.

  Args:
    run_dir: the run's directory.
    writer: false on all processes but one: then nothing is touched or written.
    resume_step: finished updates in the restored checkpoint; 0 for a start from scratch, which
      keeps no earlier line.
    wandb_project: the W&B project to log to as well; '' for none.

  Raises:
    ValueError: a line of metrics.jsonl other than the last is not whole.
    ModuleNotFoundError: W&B is asked for and not installed.
  """

  def __init__(
    self,
    run_dir: str,
    *,
    writer: bool = True,
    resume_step: int = 0,
    wandb_project: str = '',
  ):
    self.writer = writer
    self._wandb = None
    if not writer:
      return
    folder = pathlib.Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'metrics.jsonl'
    if wandb_project and importlib.util.find_spec('wandb') is None:
      raise ModuleNotFoundError(
        f'Run.wandb_project is {wandb_project!r}, and wandb is not installed: pip install jaxlink[wandb].'
      )
    cut_back(path, resume_step)
    self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (closed in close)
    # Here and not above: half a second that processes without a writer need not spend.
    import tensorboardX

    self._board = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'),
      # TensorBoard drops what files from before hold of this step and later ones.
      purge_step=resume_step + 1 if resume_step else 0,
      # A file's own name has seconds: without this, a start in the same second overwrites the file.
      filename_suffix=f'.{time.time_ns()}',
      flush_secs=10,  # of events, the most that a kill takes
    )
    if wandb_project:
      import wandb

      self._wandb = wandb.init(project=wandb_project, name=folder.name, dir=str(folder))
      # W&B drops what is not above its last step; as an axis of its own the step may repeat.
      self._wandb.define_metric('*', step_metric='step')

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Writes scalars of one step, at once.

    Floats are written such that reading gives the same number, float32 included. JSON has no NaN
    and no infinity: there the value is null, and `nonfinite` maps its name to 'nan', 'inf' or
    '-inf'.

    Raises:
      TypeError: a value is not a scalar.
    """
    if not self.writer:
      return
    scalars = {name: _scalar(name, value) for name, value in values.items()}
    whole, odd = split_nonfinite(scalars)
    line = {'step': step} | whole | ({'nonfinite': odd} if odd else {})
    self._file.write(json.dumps(line, allow_nan=False) + '\n')
    self._file.flush()
    for name, value in scalars.items():
      self._board.add_scalar(name, value, step)
    if self._wandb is not None:
      self._wandb.log({'step': step, **scalars})

  def close(self) -> None:
    """Flushes and closes everything."""
    if not self.writer:
      return
    self._file.close()
    self._board.close()
    if self._wandb is not None:
      self._wandb.finish()


class Logger:
  """The loop's log: fetches one step late, counts tokens/s, shows progress.

  Args:
    metrics: where the values go.
    steps: the run's last step, for the progress line.
    tokens_at: finished updates → tokens trained on by them.
    start: finished updates before the first call.
    peak_flops: flop/s of all devices, or None where it is not known: then there is no `mfu`.
    stream: where progress goes: a bar on a terminal, else a line every ten seconds.
  """

  def __init__(
    self,
    metrics: Metrics,
    *,
    steps: int,
    tokens_at: Callable[[int], int],
    start: int = 0,
    peak_flops: float | None = None,
    stream: TextIO | None = None,
  ):
    self._metrics = metrics
    self._steps = steps
    self._tokens_at = tokens_at
    self._peak = peak_flops
    self._flops = 0.0
    self._flatten: Callable[[dict[str, Any]], dict[str, Any]] = dict
    self._stream = sys.stderr if stream is None else stream
    self.last: dict[str, Any] = {}  # the values that were fetched last
    self._pending: tuple[int, Any, Mapping[str, Any], Callable[[], str]] | None = None
    # (step, seconds) of finished steps: the first ends the first step, so compiling is left out.
    self._times: collections.deque[tuple[int, float]] = collections.deque(maxlen=_WINDOW + 1)
    self._bar = None
    self._said, self._every = -math.inf, _PLAIN_SECONDS
    if metrics.writer and self._stream.isatty():
      self._every = _BAR_SECONDS
      self._bar = tqdm.tqdm(
        total=steps,
        initial=start,
        file=self._stream,
        unit='step',
        bar_format='{percentage:3.0f} %|{bar}| step {n_fmt}/{total_fmt}{postfix}',
      )

  def begin_stage(
    self,
    *,
    flatten: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    flops_per_token: float = 0.0,
  ) -> None:
    """Writes what is pending, and takes what holds for the next steps.

    Args:
      flatten: makes scalars of fetched metrics that are arrays.
      flops_per_token: of a training step, for `mfu`.
    """
    self.flush()
    self.restart_clock()
    self._flatten, self._flops = flatten, flops_per_token

  def log(
    self,
    step: int,
    device_metrics: Any,
    host_metrics: Mapping[str, Any] | None = None,
    note: Callable[[], str] = str,
  ) -> dict[str, Any] | None:
    """Keeps the metrics of `step` and writes those of the call before.

    Args:
      step: finished updates: 1 after the first.
      device_metrics: a dict of scalar arrays, perhaps not yet computed; not looked at in this call.
      host_metrics: numbers that are known already, such as the seconds spent waiting for data.
      note: more for the progress line; called when a line is shown.

    Returns:
      The values of the step before, as fetched and written, or None at the first call.
    """
    before = self.flush()
    self._pending = (step, device_metrics, dict(host_metrics or {}), note)
    return before

  def flush(self) -> dict[str, Any] | None:
    """Fetches and writes what is pending: before an evaluation, a stop and the end."""
    if self._pending is None:
      return None
    step, device_metrics, host_metrics, note = self._pending
    self._pending = None
    values = self._flatten(fetch(device_metrics)) | host_metrics
    self._times.append((step, time.monotonic()))
    (first_step, first), (_, now) = self._times[0], self._times[-1]
    if step > first_step:
      tokens = self._tokens_at(step) - self._tokens_at(first_step)
      values['tokens_per_second'] = tokens / (now - first)
      if self._peak:
        values['mfu'] = self._flops / self._peak * values['tokens_per_second']
    self._metrics.write(step, values)
    self.last = values
    if self._metrics.writer:
      self._show(step, values, now, note)
    return values

  def restart_clock(self) -> None:
    """Leaves out the time since the last step: after an evaluation or a pause."""
    self._times.clear()

  def close(self) -> None:
    """Writes what is pending and ends the progress line."""
    self.flush()
    if self._bar is not None:
      self._bar.close()

  def _show(
    self, step: int, values: Mapping[str, Any], now: float, note: Callable[[], str]
  ) -> None:
    if now - self._said >= self._every or step == self._steps:
      self._said = now
      parts = [f'loss {float(values["loss"]):.4f}'] if 'loss' in values else []
      if rate := values.get('tokens_per_second'):
        parts.append(f'{rate:,.0f} tokens/s')
      parts += [text] if (text := note()) else []
      if rate:
        seconds = round((self._tokens_at(self._steps) - self._tokens_at(step)) / rate)
        parts.append(f'ETA {datetime.timedelta(seconds=seconds)}')
      line = ', '.join(parts)
      if self._bar is None:
        print(f'step {step}/{self._steps}, {line}', file=self._stream, flush=True)
      else:
        self._bar.set_postfix_str(line, refresh=False)
    if self._bar is not None:
      self._bar.update(step - self._bar.n)


def peak_flops(devices: Iterable[jax.Device]) -> float | None:
  """Dense bfloat16 flop/s of these devices together, or None where a device is not in the table."""
  found = [by_kind(device.device_kind) for device in devices]
  return None if None in found else sum(chip.flops for chip in found)


def split_nonfinite(
  scalars: Mapping[str, float],
) -> tuple[dict[str, float | None], dict[str, str]]:
  """What JSON can hold, with None for the rest, and of the rest name → 'nan', 'inf' or '-inf'."""
  odd = {name: str(value) for name, value in scalars.items() if not math.isfinite(value)}
  return {name: None if name in odd else value for name, value in scalars.items()}, odd


def _scalar(name: str, value: Any) -> float | int:
  array = np.asarray(value)
  if array.shape != () or not (
    np.issubdtype(array.dtype, np.number) or array.dtype == bool or 'float' in array.dtype.name
  ):
    raise TypeError(f'metric {name!r} is {value!r}: it is a scalar number.')
  if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
    return int(array)
  return float(array)


def cut_back(path: pathlib.Path, resume_step: int) -> None:
  """Replaces the file, in one rename, by its lines up to `resume_step`, byte for byte."""
  if not path.exists():
    return
  kept = path.with_name(path.name + '.cut')
  with open(path, 'rb') as old, open(kept, 'wb') as new:
    torn = None
    for number, line in enumerate(old, 1):
      if torn is not None:
        raise ValueError(f'{path}, line {torn} is not a whole metrics line, and others follow it.')
      try:
        step = json.loads(line)['step']
      except (ValueError, KeyError, TypeError):
        torn = number  # a kill in the middle of a write; fine if it is the last line
        continue
      if not line.endswith(b'\n'):
        torn = number
      elif resume_step and step <= resume_step:
        new.write(line)
    new.flush()
    os.fsync(new.fileno())
  os.replace(kept, path)
