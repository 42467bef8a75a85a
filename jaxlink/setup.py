"""What a run needs before its first step: its data opened, its mesh, model and optimizer made.

A `Run` goes in. `open_data` prepares and opens the caches; `make_plan` gives everything that the
steps are compiled from. No parameter is allocated here: states are abstract.

Easy to get wrong: the vocabulary. A recipe may state it, padded as it likes, but never below the
tokenizer's: an id past the embedding would be read from another row without an error.
"""

import dataclasses
from typing import Any

import jax
import optax

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.mixture import Mixture
from jaxlink.data.tokenizer import Tokenizer, padded_size
from jaxlink.data.windows import Windows
from jaxlink.link.table import LinkTable
from jaxlink.model.decoder import DecoderConfig
from jaxlink.optimizer import make_optimizer, make_schedule
from jaxlink.stage import Run, Stage


@dataclasses.dataclass(frozen=True)
class Data:
  """The opened data of a run's stage.

  Attributes:
    resolution: names all caches, those of the held-out text too.
    blocks: of each source, in the mixture's order.
    batches: all global batches, by step.
    tokenizer: of all sources.
  """

  resolution: resolve.Resolution
  blocks: list[Blocks]
  batches: Batches
  tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a run's steps are compiled from.

  Attributes:
    mesh: of all devices.
    model: resolved.
    optimizer: that follows `schedule`.
    schedule: step → learning rate.
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


def open_data(run: Run) -> Data:
  """Prepares what is missing of a run's caches and opens them; called alike on all hosts.

  Raises:
    DataError: they could not be made.
    ValueError: they do not make the stage's batches.
  """
  (stage,) = run.stages
  resolution = resolve.resolve_on_hosts(run)
  (sources,) = resolution.stages
  tokenizer = Tokenizer(resolution.tokenizer['path'])
  blocks = [Blocks(source.folder) for source in sources]
  windows = [
    _windows(run, stage, source, b, tokenizer) for source, b in zip(sources, blocks, strict=True)
  ]
  mixture = Mixture([b.name for b in blocks], [source.rate for source in sources])
  return Data(resolution, blocks, Batches(mixture, windows, stage.batch), tokenizer)


def _windows(
  run: Run, stage: Stage, source: resolve.Source, blocks: Blocks, tokenizer: Tokenizer
) -> Windows | LinkedWindows:
  if not source.link:
    return Windows(blocks, stage.sequence_length, run.seed_order)
  return LinkedWindows(
    blocks,
    stage.sequence_length,
    run.seed_order,
    table=LinkTable.open(source.link),
    policy=stage.link[source.task],
    seed_link=run.seed_link,
    stage_tokens=stage.tokens,
    tokenizer=tokenizer,
    source_counts=source.counts or None,
  )


def make_plan(run: Run, data: Data) -> Plan:
  """Makes the mesh of all devices and what is compiled for it and the data's batches.

  Raises:
    ValueError: the mesh does not fit the devices, the batch not the mesh, or the recipe's vocabulary
      has no room for the tokenizer's.
  """
  (stage,) = run.stages
  vocabulary = run.model.vocabulary or padded_size(data.tokenizer.size)
  if vocabulary < data.tokenizer.size:
    raise ValueError(
      f'DecoderConfig.vocabulary is {vocabulary}, and the tokenizer has {data.tokenizer.size} ids: it is '
      f"{data.tokenizer.size} or more, or 0 to take the tokenizer's."
    )
  mesh = mesh_lib.make_mesh(run.mesh)
  model = run.model.resolve(platform=mesh.devices.flat[0].platform, vocabulary=vocabulary)
  optimizer = make_optimizer(stage.optimizer, stage.steps)
  return Plan(
    mesh,
    model,
    optimizer,
    make_schedule(stage.optimizer, stage.steps),
    step_lib.abstract_state(model, optimizer, mesh),
    step_lib.abstract_batch(
      stage.batch, stage.sequence_length, mesh, len(data.batches.count_names)
    ),
  )
