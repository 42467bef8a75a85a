"""What a stage's steps are compiled from: its mesh, model and optimizer.

A `Run` and the opened data of its stages go in. No parameter is allocated here: states are abstract.

Easy to get wrong: the vocabulary. A recipe may state it, padded as it likes, but never below the
tokenizer's: an id past the embedding would be read from another row without an error.
"""

import dataclasses
from typing import Any

import jax
import optax

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.data.tokenizer import padded_size
from jaxlink.model.decoder import DecoderConfig
from jaxlink.optimizer import make_optimizer, make_schedule
from jaxlink.stage import Run
from jaxlink.stage_data import RunData


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a stage's steps are compiled from.

  Attributes:
    mesh: of all devices.
    model: resolved.
    optimizer: that follows `schedule`.
    schedule: step of the run → learning rate.
    state: abstract, with shardings.
    batch: abstract, with shardings.
  """

  mesh: jax.sharding.Mesh
  model: DecoderConfig
  optimizer: optax.GradientTransformationExtraArgs
  schedule: optax.Schedule
  state: step_lib.TrainState
  batch: dict[str, Any]

  def compile_step(self, run: Run, n_sources: int) -> jax.stages.Compiled:
    """The executable of the train step."""
    step = step_lib.make_train_step(
      self.model, self.optimizer, self.schedule, self.mesh,
      loss_config=run.loss, n_sources=n_sources,
    )  # fmt: skip
    return step_lib.compile_step(step, self.state, self.batch)


def make_plans(run: Run, data: RunData) -> list[Plan]:
  """Makes the mesh of all devices, and what is compiled for it and the batches of each stage.

  Raises:
    ValueError: the mesh does not fit the devices, a batch not the mesh, or the recipe's vocabulary
      has no room for the tokenizer's.
  """
  vocabulary = run.model.vocabulary or padded_size(data.tokenizer.size)
  if vocabulary < data.tokenizer.size:
    raise ValueError(
      f'DecoderConfig.vocabulary is {vocabulary}, and the tokenizer has {data.tokenizer.size} ids: it is '
      f"{data.tokenizer.size} or more, or 0 to take the tokenizer's."
    )
  mesh = mesh_lib.make_mesh(run.mesh)
  model = run.model.resolve(platform=mesh.devices.flat[0].platform, vocabulary=vocabulary)
  plans = []
  for k, stage in enumerate(run.stages):
    first = run.first_step(k)
    optimizer = make_optimizer(stage.optimizer, stage.steps, first)
    plans.append(
      Plan(
        mesh,
        model,
        optimizer,
        make_schedule(stage.optimizer, stage.steps, first),
        step_lib.abstract_state(model, optimizer, mesh),
        step_lib.abstract_batch(
          stage.batch, stage.sequence_length, mesh, len(data.stages[k].batches.count_names)
        ),
      )
    )
  return plans
