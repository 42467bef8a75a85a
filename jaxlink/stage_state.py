"""The state that training goes on with: restored, carried into the next stage, or taken from another run.

Easy to get wrong: a checkpoint at a stage's boundary is of the stage that ended. What the next one does to
the optimizer's state is done when its first step is due, so a run that is killed on either side of the
boundary goes on alike.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlink import config
from jaxlink import origin as origin_lib
from jaxlink import step as step_lib
from jaxlink.checkpoint import Keeper
from jaxlink.huggingface import read
from jaxlink.setup import Plan
from jaxlink.stage import Run, Stage
from jaxlink.stage_data import RunData, StageData


def restore(
  run: Run, data: RunData, plans: Sequence[Plan], keeper: Keeper
) -> tuple[int, step_lib.TrainState | None, dict[str, Any]]:
  """The last checkpoint of the run: its step, state and meta; 0, None and {} where there is none.

  Raises:
    ValueError: it was made with other batches or another state than these.
  """
  step = keeper.latest()
  if not step:
    return 0, None, {}
  k = run.stage_at(step - 1)
  state, meta = keeper.restore(step, plans[k].state)
  batches = data.stages[k].batches
  if meta['batches'] != batches.fingerprint:
    now = {w.blocks.name: w.blocks.fingerprint for w in batches.windows}
    changed = [name for name, old in meta['caches'].items() if now.get(name) != old]
    raise ValueError(
      f'the data has changed since the checkpoint of step {step:,}'
      + (f': {", ".join(changed)} has another fingerprint' if changed else '')
      + '. A run goes on with the data that it began with; give Run.directory another name.'
    )
  return step, state, meta


def check_origins(run: Run, data: RunData, plans: Sequence[Plan], start: int) -> None:
  """Looks whether stages that are still to begin can start from the other runs that they name.

  Raises:
    FileNotFoundError: the checkpoint is gone.
    ValueError: it is another one than when the stage was frozen, or its state has other shapes.
  """
  for k, (part, plan) in enumerate(zip(data.stages, plans, strict=True)):
    if not part.origin or run.first_step(k) < start:
      continue
    if part.origin.step is None:
      origin_lib.check_model(part.origin, part.stage.name, plan.model)
    else:
      reader = origin_lib.open_checkpoint(part.origin, part.stage.name, run.checkpoint)
      try:
        reader.check(part.origin.step, plan.state)
      except ValueError as error:
        raise ValueError(f'Stage.start_from of {part.stage.name!r}: {error}') from None
      reader.close()


def begin(
  run: Run,
  k: int,
  data: RunData,
  plans: Sequence[Plan],
  keeper: Keeper,
  state: step_lib.TrainState | None,
) -> step_lib.TrainState:
  """The state before the first step of stage k.

  Args:
    run: the recipe.
    k: which stage.
    data: with the checkpoints of other runs that stages start from.
    plans: of all stages.
    keeper: of the run's own checkpoints.
    state: at the end of stage k − 1, donated; None before the first.

  Raises:
    FileNotFoundError: the checkpoint to start from is not there.
    ValueError: it is another one than when the stage was frozen, or its state has other shapes.
  """
  stage, plan, first = run.stages[k], plans[k], run.first_step(k)
  origin = data.stages[k].origin
  earlier = [s.name for s in run.stages[:k]]
  if origin and origin.step is None:
    origin_lib.check_model(origin, stage.name, plan.model)
    _free(state)
    state = _from_model(origin.directory, plan)
  elif origin:
    reader = origin_lib.open_checkpoint(origin, stage.name, run.checkpoint)
    _free(state)
    state, _ = reader.restore(origin.step, plan.state)
    reader.close()
  elif stage.start_from:
    j = earlier.index(stage.start_from)
    end = run.first_step(j + 1)
    if end != first:
      _free(state)
      state, _ = keeper.restore(end, plans[j].state)
  elif state is None:
    return step_lib.init_state(plan.model, plan.optimizer, plan.mesh, run.seed_init)
  elif stage.optimizer_state == 'keep':
    return state
  return step_lib.begin_again(
    state,
    plan.state,
    step=first,
    optimizer=plan.optimizer if _fresh_optimizer(stage, origin) else None,
    foreign=origin is not None,
  )


def describe_origin(run: Run, k: int, part: StageData) -> str:
  """Where stage k starts and how its model differs from the one there; '' if at the stage before."""
  if not part.stage.start_from:
    return ''
  moments = {'keep': 'with its optimizer state', 'reset': 'with a fresh optimizer state'}
  how = moments['reset' if _fresh_optimizer(part.stage, part.origin) else 'keep']
  name = part.stage.name
  if part.origin is None:
    return f'stage {name} starts from the end of stage {part.stage.start_from}, {how}'
  if part.origin.step is None:
    return f'stage {name} starts from the Hugging Face model {part.origin.directory}, {how}'
  lines = [f'stage {name} starts from step {part.origin.step:,} of {part.origin.directory}, {how}']
  there = origin_lib.read_meta(part.origin.directory, part.origin.step)['config']['model']
  if differences := config.differences(there, config.resolved(run.model)):
    lines.append(f'  the model differs there: {"; ".join(differences)}')
  return '\n'.join(lines)


def _fresh_optimizer(stage: Stage, origin: origin_lib.Origin | None) -> bool:
  """Whether a stage begins without moments; a Hugging Face model has none to keep."""
  return stage.optimizer_state == 'reset' or (origin is not None and origin.step is None)


def _from_model(directory: str, plan: Plan) -> step_lib.TrainState:
  """A state with a Hugging Face model's parameters and no optimizer state."""
  abstract = plan.state
  step, skipped, in_a_row = (
    jax.make_array_from_callback((), abstract.step.sharding, lambda _: np.int32(0))
    for _ in range(3)
  )
  params = read.params(directory, plan.model, abstract.params)
  return step_lib.TrainState(step, params, (), skipped, in_a_row)


def _free(state: step_lib.TrainState | None) -> None:
  """Gives up a state before another one is restored: two may not fit."""
  jax.tree.map(lambda array: array.delete(), state)
