"""Compiles a recipe for a machine that is not here: what `tools/aot_compile.py` does.

Recipe, topology and switches go in; tables are printed, JSON is written.

Easy to get wrong: nothing runs, so nothing is timed. Memory is what the compiler will ask for, exactly;
times are bounds from below.
"""

import argparse
import json
import math
import pathlib
import sys

import tqdm

from jaxlink import mesh as mesh_lib
from jaxlink import setup, stage_data
from jaxlink.aot import report, topology
from jaxlink.aot.search import Candidate, search
from jaxlink.aot.stage import compile_stage
from jaxlink.config import parse
from jaxlink.stage import Run


def run(args: argparse.Namespace) -> int:
  """Compiles every stage of the recipe, and searches if asked.

  Returns:
    The exit code: 1 where a step does not fit, else 0.

  Raises:
    ValueError: the recipe or the topology contradict themselves or one another.
    ModuleNotFoundError: there is no compiler for the topology.
  """
  recipe = parse(Run, args.gin_file, args.gin_bindings)
  target = topology.find(args.topology, args.slices)
  mesh = make_mesh(recipe, target)
  data, _ = stage_data.open_if_prepared(recipe)
  if data is None and not recipe.model.vocabulary:
    raise ValueError(
      'DecoderConfig.vocabulary is 0, and no cache is prepared whose tokenizer could say: state it, as in '
      "--gin_bindings 'DecoderConfig.vocabulary = 50_304'."
    )
  plans = setup.make_plans(recipe, data, mesh, target.chip.platform)
  stages, searches = [], []
  with _Progress(len(plans)) as progress:
    for plan in plans:
      progress.begin(f'stage {plan.stage.name} for {target.name}')
      stages.append(compile_stage(recipe, plan, target))
      progress.end(report.describe(stages[-1], target) + '\n')
  if args.search:
    for k, stage in enumerate(recipe.stages):
      with _Progress(None) as progress:
        progress.begin(f'searching for stage {stage.name}')

        def said(one: Candidate, progress=progress) -> None:
          fits = f'{one.gib:.2f} GiB' if one.gib is not None else f'does not fit, {one.overflow}'
          progress.end(f'tried: remat {one.remat}, {one.rows} rows a device: {fits}')

        searches.append(search(recipe, k, target, mesh, most=args.most_rows, said=said))
      print(report.describe_search(searches[-1]))
  if args.json:
    path = pathlib.Path(args.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.as_json(target, stages, searches), indent=1) + '\n')
    print(f'written: {path}')
  return int(any(one.overflow for one in stages))


def make_mesh(recipe: Run, target: topology.Target) -> mesh_lib.AnyMesh:
  """The recipe's mesh on the target's devices.

  Raises:
    ValueError: it does not fit; the message proposes one that does.
  """
  try:
    recipe.mesh.sizes(target.count)
  except ValueError as error:
    config = recipe.mesh
    kept = math.prod(max(1, getattr(config, axis)) for axis in ('sequence', 'tensor'))
    proposal = "--gin_bindings 'MeshConfig.data = 1' --gin_bindings 'MeshConfig.fsdp = -1'"
    if target.count % kept:
      proposal += ''.join(f" --gin_bindings 'MeshConfig.{a} = 1'" for a in ('sequence', 'tensor'))
    raise ValueError(f'{error} For {target.name}: {proposal}') from None
  if target.devices is None:
    return mesh_lib.abstract_mesh(recipe.mesh, target.count)
  return mesh_lib.make_mesh(recipe.mesh, target.devices)


class _Progress:
  """A bar on a terminal; elsewhere a line as each compile begins. Both on stderr."""

  def __init__(self, total: int | None):
    self._bar = tqdm.tqdm(total=total, unit='compile', disable=not sys.stderr.isatty())

  def __enter__(self) -> '_Progress':
    return self

  def __exit__(self, *unused) -> None:
    self._bar.close()

  def begin(self, what: str) -> None:
    """Says what is being done now."""
    self._bar.set_description(what)
    if self._bar.disable:
      print(f'{what} …', file=sys.stderr, flush=True)

  def end(self, text: str) -> None:
    """Counts one compile, and prints its result."""
    self._bar.update()
    if text:
      self._bar.clear()
      print(text, flush=True)
