"""What a stage's steps are compiled from: its mesh, model and optimizer.

A `Run` and the opened data of its stages go in. No parameter is allocated here: states are abstract.
Without data (nothing is cached yet) and for devices that are not here, the same plans are made: what only
the data knows is then assumed, and `Plan.assumed` says so.

Easy to get wrong: the vocabulary. A recipe may state it, padded as it likes, but never below the
tokenizer's: an id past the embedding would be read from another row without an error.
"""

import dataclasses
from typing import Any

import jax
import optax

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.data.linked import counts_of
from jaxlink.data.tokenizer import padded_size
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import make_optimizer, make_schedule
from jaxlink.stage import Run, Stage
from jaxlink.stage_data import RunData


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a stage's steps are compiled from.

  Attributes:
    stage: of the recipe.
    mesh: of all devices.
    model: resolved.
    optimizer: that follows `schedule`.
    schedule: step of the run → learning rate.
    state: abstract, with shardings.
    batch: abstract, with shardings.
    sources: of the stage's mixture.
    attention_reason: why the model's attention is the one that it is.
    assumed: where `sources` is from if there is no data to count them in; '' if there is.
  """

  stage: Stage
  mesh: mesh_lib.AnyMesh
  model: DecoderConfig
  optimizer: optax.GradientTransformationExtraArgs
  schedule: optax.Schedule
  state: step_lib.TrainState
  batch: dict[str, Any]
  sources: int
  attention_reason: str
  assumed: str = ''

  def train_step(self, run: Run) -> step_lib.TrainStep:
    """The train step as a plain function."""
    return step_lib.make_train_step(
      self.model, self.optimizer, self.schedule, self.mesh,
      loss_config=run.loss, n_sources=self.sources, accumulate=self.stage.accumulate,
    )  # fmt: skip

  def compile_step(self, run: Run) -> jax.stages.Compiled:
    """The executable of the train step."""
    return step_lib.compile_step(self.train_step(run), self.state, self.batch)


def make_plans(
  run: Run,
  data: RunData | None,
  mesh: mesh_lib.AnyMesh | None = None,
  platform: str | None = None,
) -> list[Plan]:
  """What is compiled for a mesh and the batches of each stage.

  Args:
    run: the recipe.
    data: of its stages; None where nothing is cached.
    mesh: by default of all devices.
    platform: of the mesh's devices, where it is abstract: 'tpu', 'gpu' or 'cpu'.

  Raises:
    ValueError: the mesh does not fit the devices, a batch not the mesh, or the recipe's vocabulary
      has no room for the tokenizer's, or is open without one.
  """
  vocabulary, size = run.model.vocabulary, 0
  if data is not None:
    size = data.tokenizer.size
    vocabulary = vocabulary or padded_size(size)
  mesh = mesh_lib.make_mesh(run.mesh) if mesh is None else mesh
  platform = platform or mesh.devices.flat[0].platform
  model = run.model.resolve(
    platform=platform, vocabulary=vocabulary or None, tokenizer_size=size,
    sequence=mesh.shape['sequence'],
  )  # fmt: skip
  reason = run.model.choose_attention(platform, mesh.shape['sequence'])[1]
  plans = []
  for k, stage in enumerate(run.stages):
    first = run.first_step(k)
    optimizer = make_optimizer(stage.optimizer, stage.steps, first, model)
    if data is None:
      counts, (sources, assumed) = counts_without_data(stage), _sources_without_data(stage)
    else:
      part = data.stages[k]
      counts, sources, assumed = len(part.batches.count_names), len(part.sources), ''
    plans.append(
      Plan(
        stage,
        mesh,
        model,
        optimizer,
        make_schedule(stage.optimizer, stage.steps, first),
        step_lib.abstract_state(model, optimizer, mesh),
        step_lib.abstract_batch(stage.batch, stage.sequence_length, mesh, counts),
        sources,
        reason,
        assumed,
      )
    )
  return plans


def counts_without_data(stage: Stage) -> int:
  """How many counts a row will have, see `jaxlink.data.loader.Batches`."""
  if not stage.link or stage.link_route == 'cache':
    return 0
  languages = dict.fromkeys(name for policy in stage.link.values() for name in policy.lexicons)
  return len(counts_of(languages))


def _sources_without_data(stage):
  if stage.rates:
    return len(stage.rates), 'as in Stage.rates'
  return 2, 'as of one target and one auxiliary language'
