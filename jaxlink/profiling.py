"""A profile of some steps of a run: what the device and the host did, for XProf or Perfetto.

In: the steps of `--profile_steps`. Out: a trace in `<run>/profile`, on process 0, and a line that says how
to look at it. It is no setting of the run, which may be stopped and go on with it or without.

Easy to get wrong: a step is under way on the device long after the call that began it has returned. A
trace therefore begins and ends where the device has nothing left to do. These two waits are all that it
changes in a run; numbers stay what they are.
"""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import jax

FOLDER = 'profile'  # in the run's directory
NAME = 'train'  # of a step in the trace


class Profiler:
  """Traces some steps of a loop.

    profiler = Profiler(range(10, 13), directory, start=0, steps=run.steps, say=print)
    while step < run.steps:
      with profiler.step(step):
        state, values = train_step(state, loader[step])
      step += 1
      profiler.after(step, state)
    profiler.close(step, state)

  Args:
    asked: numbers of the batches, not empty; None for no trace, which costs nothing.
    directory: of the run.
    start: the first step of this start of the run. What lies before it is past: that is no error, since
      a preempted run goes on by the same command, but a line says so.
    steps: of the run.
    say: prints a line.

  Raises:
    ValueError: the run has no such steps.
  """

  def __init__(
    self, asked: range | None, directory: pathlib.Path, *,
    start: int, steps: int, say: Callable[[str], None],
  ):  # fmt: skip
    self._folder, self._say = pathlib.Path(directory, FOLDER), say
    self._steps, self._since = asked or range(0), None
    if self._steps and self._steps.stop > steps:
      raise ValueError(
        f'--profile_steps is {asked.start}:{asked.stop}, and the run ends at step {steps}: END is '
        f'{steps} or less.'
      )
    if self._steps and self._steps.start < start:
      self._steps = range(start, max(start, self._steps.stop))
      what = f'traced from step {start:,} on' if self._steps else 'not traced'
      say(f'--profile_steps {asked.start}:{asked.stop}: the run goes on at step {start:,}, {what}')
    if jax.process_index():
      self._steps = range(0)

  def step(self, step: int) -> contextlib.AbstractContextManager:
    """Surrounds a step: the wait for its batch, and the call that begins it on the device."""
    if step not in self._steps:
      return contextlib.nullcontext()
    if self._since is None:
      self._since = step
      jax.profiler.start_trace(self._folder)
    return jax.profiler.StepTraceAnnotation(NAME, step_num=step)

  def after(self, step: int, state: Any) -> None:
    """Takes the state that `step` updates have made: a trace begins or ends with it."""
    if self._steps and step == self._steps.start:
      jax.block_until_ready(state)
    elif self._steps and step == self._steps.stop:
      self.close(step, state)

  def close(self, step: int, state: Any) -> None:
    """Writes the trace if one is under way, also one that a stop has cut short."""
    if self._since is None:
      return
    jax.block_until_ready(state)
    jax.profiler.stop_trace()
    since, self._since, self._steps = self._since, None, range(0)
    self._say(
      f'profile of steps {since:,}:{step:,}: {self._folder}; look at it with `pip install xprof` and '
      f'`xprof --logdir {self._folder}`, or open its …trace.json.gz at ui.perfetto.dev'
    )
