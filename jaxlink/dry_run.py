"""A recipe's plan on a machine that need not have its devices: lowered, counted, not run.

The same train step that would run is lowered for the recipe's mesh, with abstract devices where they
are not here: shapes, shardings and bytes per device come out, and no parameter is allocated.

Easy to get wrong: the vocabulary. Without a prepared cache there is no tokenizer to ask, so a recipe for
a pod states `DecoderConfig.vocabulary`.
"""

import math
from collections.abc import Sequence

import jax

from jaxlink import mesh as mesh_lib
from jaxlink import report as report_lib
from jaxlink import report_data, setup, stage_data
from jaxlink import step as step_lib
from jaxlink.stage import Run


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
  plans = setup.make_plans(run, data, mesh, platform)
  print(report_lib.describe_model(plans[0].model, run.evaluation_length, plans[0].attention_reason))
  axes = ', '.join(f'{name} {size}' for name, size in mesh.shape.items())
  print(f'mesh: {axes} ({devices} devices)')

  for k, plan in enumerate(plans):
    counted = f'{plan.sources} sources' + (f' assumed, {plan.assumed}' if plan.assumed else '')
    lowered = step_lib.lower_step(
      plan.train_step(run), plan.state, plan.batch, platform=None if here else platform
    )
    if k == 0:
      print(mesh_lib.sharding_table(plan.state.params))
      size = sum(mesh_lib.bytes_per_device(leaf) for leaf in jax.tree.leaves(plan.state))
      print(f'parameters and optimizer state: {size / 2**30:.2f} GiB on each device')
    print(report_lib.describe_stage(plan.stage))
    if data:
      print(report_data.describe_sources(data.stages[k]))
    rows = mesh_lib.rows_per_device(mesh, plan.stage.batch)
    print(
      f'  {rows} sequences a device; train step: {counted}; lowered for {platform}, '
      f'{len(lowered.as_text()):,} characters of StableHLO'
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


def _axes(run: Run) -> tuple[int, ...]:
  return tuple(getattr(run.mesh, axis) for axis in mesh_lib.AXES)
