"""The state that training goes on with: restored, carried into the next stage, or taken from another run.

Easy to get wrong: a checkpoint at a stage's boundary is of the stage that ended. What the next one does to
the optimizer's state is done when its first step is due, so a run that is killed on either side of the
boundary goes on alike.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jaxlink import config, stage_data
from jaxlink import step as step_lib
from jaxlink.checkpoint import Keeper
from jaxlink.setup import Plan
from jaxlink.stage import Run
from jaxlink.stage_data import RunData


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


def begin(
  run: Run, k: int, plans: Sequence[Plan], keeper: Keeper, state: step_lib.TrainState | None
) -> step_lib.TrainState:
  """The state before the first step of stage k.

  Args:
    run: the recipe.
    k: which stage.
    plans: of all stages.
    keeper: of the run's own checkpoints.
    state: at the end of stage k − 1, donated; None before the first.

  Raises:
    FileNotFoundError: the checkpoint to start from is not there.
    ValueError: it is of another tokenizer, or of a state of other shapes.
  """
  stage, plan, first = run.stages[k], plans[k], run.first_step(k)
  foreign = False
  earlier = [s.name for s in run.stages[:k]]
  if stage.start_from in earlier:
    j = earlier.index(stage.start_from)
    end = run.first_step(j + 1)
    if end != first:
      jax.tree.map(lambda array: array.delete(), state)  # two states may not fit
      state, _ = keeper.restore(end, plans[j].state)
  elif stage.start_from:
    directory, step = stage_data.origin(stage.start_from)
    reader = Keeper(str(directory / 'checkpoints'), run.checkpoint, writer=False)
    state, _ = reader.restore(step, plan.state)
    reader.close()
    foreign = True
  elif state is None:
    return step_lib.init_state(plan.model, plan.optimizer, plan.mesh, run.seed_init)
  if not foreign and stage.optimizer_state == 'keep' and not stage.start_from:
    return state
  return step_lib.begin_again(
    state,
    plan.state,
    step=first,
    optimizer=plan.optimizer if stage.optimizer_state == 'reset' else None,
    foreign=foreign,
  )


def describe_origin(run: Run, k: int) -> str:
  """Where stage k starts and how its model differs from the one there; '' if at the stage before."""
  stage = run.stages[k]
  if not stage.start_from:
    return ''
  moments = {'keep': 'with its optimizer state', 'reset': 'with a fresh optimizer state'}
  how = moments[stage.optimizer_state]
  if stage.start_from in [s.name for s in run.stages[:k]]:
    return f'stage {stage.name} starts from the end of stage {stage.start_from}, {how}'
  directory, step = stage_data.origin(stage.start_from)
  meta, _ = stage_data.read_origin(stage.start_from)
  lines = [f'stage {stage.name} starts from step {step:,} of {directory}, {how}']
  differences = config.differences(meta['config']['model'], config.resolved(run.model))
  if differences:
    lines.append(f'  the model differs there: {"; ".join(differences)}')
  return '\n'.join(lines)
