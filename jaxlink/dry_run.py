"""A recipe's plan on a machine that need not have its devices: lowered, counted, not run.

The same train step that would run is lowered for the recipe's mesh, with abstract devices where they
are not here: shapes, shardings and bytes per device come out, and no parameter is allocated.

Easy to get wrong: the vocabulary. Without a prepared cache there is no tokenizer to ask, so a recipe for
a pod states `DecoderConfig.vocabulary`.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink import report as report_lib
from jaxlink import report_data, stage_data
from jaxlink import step as step_lib
from jaxlink.data.linked import counts_of
from jaxlink.data.tokenizer import padded_size
from jaxlink.optimizer import make_optimizer, make_schedule
from jaxlink.stage import Run, Stage


def misfit(run: Run) -> str | None:
  """Why the recipe's mesh cannot be made of the devices that are here, or None if it can."""
  try:
    run.mesh.sizes(jax.device_count())
  except ValueError as error:
    return str(error)
  return None


def report(run: Run, gin_files: Sequence[str]) -> int:
  """Lowers the step, prints the plan and what is missing.

  Returns:
    The exit code: 0 if nothing is missing.

  Raises:
    ValueError: the recipe contradicts itself, or leaves its vocabulary open without a cache.
  """
  lack = misfit(run)
  here = lack is None
  devices = jax.device_count() if here else math.prod(max(1, n) for n in _axes(run))
  mesh = mesh_lib.make_mesh(run.mesh) if here else mesh_lib.abstract_mesh(run.mesh, devices)
  platform = jax.devices()[0].platform if here else 'tpu'
  data, reason = stage_data.open_if_prepared(run)
  vocabulary = run.model.vocabulary
  if data:
    vocabulary = vocabulary or padded_size(data.tokenizer.size)
  model = run.model.resolve(platform=platform, vocabulary=vocabulary or None)
  print(report_lib.describe_model(model, run.evaluation_length))
  axes = ', '.join(f'{name} {size}' for name, size in mesh.shape.items())
  print(f'mesh: {axes} ({devices} devices)')

  for k, stage in enumerate(run.stages):
    first = run.first_step(k)
    optimizer = make_optimizer(stage.optimizer, stage.steps, first)
    state = step_lib.abstract_state(model, optimizer, mesh)
    part = data.stages[k] if data else None
    counts = len(part.batches.count_names) if part else _counts(stage)
    batch = step_lib.abstract_batch(stage.batch, stage.sequence_length, mesh, counts)
    sources = len(part.sources) if part else len(stage.rates) or 2
    counted = f'{sources} sources'
    if not part:
      counted += ' assumed, ' + (
        'as in Stage.rates' if stage.rates else 'as of one target and one auxiliary language'
      )
    step = step_lib.make_train_step(
      model, optimizer, make_schedule(stage.optimizer, stage.steps, first), mesh,
      loss_config=run.loss, n_sources=sources,
    )  # fmt: skip
    lowered = step_lib.lower_step(step, state, batch, platform=None if here else platform)
    if k == 0:
      print(mesh_lib.sharding_table(state.params))
      size = sum(_bytes_per_device(leaf) for leaf in jax.tree.leaves(state))
      print(f'parameters and optimizer state: {size / 2**30:.2f} GiB on each device')
    print(report_lib.describe_stage(stage))
    if part:
      print(report_data.describe_sources(part))
    print(
      f'  {mesh_lib.rows_per_device(mesh, stage.batch)} sequences a device; train step: {counted}; lowered '
      f'for {platform}, {len(lowered.as_text()):,} characters of StableHLO'
    )

  if data:
    print(report_data.describe_forecast(data))
  command = ' '.join(f'--gin_file={name}' for name in gin_files)
  missing = []
  if not here:
    missing.append(
      f'devices: of this machine ({jax.devices()[0].platform}): {lack} On each host of a machine that has them: '
      f'python -m jaxlink.train {command} --distributed'
    )
  if data is None:
    missing.append(f'cache: {reason}. To make it: python -m jaxlink.cache {command}')
  print('\n'.join(['missing:', *(f'  {m}' for m in missing)]) if missing else 'nothing is missing')
  return int(bool(missing))


def _counts(stage: Stage) -> int:
  """How many counts a row has, see `jaxlink.data.loader.Batches`."""
  if not stage.link or stage.link_route == 'cache':
    return 0
  languages = dict.fromkeys(name for policy in stage.link.values() for name in policy.lexicons)
  return len(counts_of(languages))


def _axes(run: Run) -> tuple[int, ...]:
  return tuple(getattr(run.mesh, axis) for axis in mesh_lib.AXES)


def _bytes_per_device(leaf: jax.ShapeDtypeStruct) -> int:
  return math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
