"""The best learning rate at several widths: with muP it stays where the narrowest model has it.

  python tools/mup_sweep.py --gin_file=gin/mup_proxy.gin
  python tools/mup_sweep.py --gin_file=gin/mup_proxy.gin --widths 128 256 --learning_rates 4e-3 8e-3 16e-3
  python tools/mup_sweep.py --gin_file=gin/mup_proxy.gin --without_mup

Trains the recipe's first stage for each width and learning rate, on the same batches in the same order,
and scores a run by its mean training loss over the last tenth of its steps: text that is read for the
first time is as good as held-out text. Each finished run is a line of sweep.jsonl in --out, which a second
start does not run again; sweep.png is drawn from them. Exits with 1 where the best learning rate moves by
more than one step of the grid, or lies at the grid's end, where it may be better beyond.

In: a recipe with `DecoderConfig.mup`, whose data is cached or can be.

Easy to get wrong: one run at each point has noise of its own. Where two neighbours are nearly equal, the
best one says little; look at the picture.
"""

# ruff: noqa: E402
import argparse
import sys


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gin_file', action='append', required=True)
  parser.add_argument('--gin_bindings', action='append', default=[], metavar='BINDING')
  parser.add_argument('--widths', type=int, nargs='+', default=[128, 256, 512])
  parser.add_argument(
    '--learning_rates', type=float, nargs='+', default=[2e-3, 4e-3, 8e-3, 16e-3, 32e-3]
  )
  parser.add_argument('--without_mup', action='store_true', help='the usual model, to compare with')
  parser.add_argument('--out', default='runs/mup_sweep', help='folder of table and picture')
  return parser.parse_args()


if __name__ == '__main__':
  ARGUMENTS = parse_arguments()  # before the imports below, which take seconds

import dataclasses
import hashlib
import json
import math
import pathlib
from typing import Any

import numpy as np
import tqdm

from jaxlink import config, metrics, setup, stage_data
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.data.loader import Loader
from jaxlink.model import mup
from jaxlink.optimizer import make_optimizer, make_schedule
from jaxlink.stage import Run

Losses = dict[int, dict[float, float]]  # width → learning rate → loss in nats


def sweep(
  run: Run, widths: list[int], learning_rates: list[float], with_mup: bool, table: pathlib.Path
) -> Losses:
  """Trains what the table does not have yet, and returns all that was asked for.

  Raises:
    ValueError: the recipe has no muP, or a width does not fit its heads.
  """
  if run.model.mup is None:
    raise ValueError('DecoderConfig.mup is None: there is no width to start from.')
  name = recipe_name(run)
  losses = read_table(table, name, with_mup)
  todo = [(w, r) for w in widths for r in learning_rates if r not in losses.get(w, {})]
  for width in widths:
    mup.widened(run.model, width)  # a width that does not fit is told before the text is cached
  if todo:
    data = stage_data.open_stages(run)
    plan = setup.make_plans(run, data)[0]
    for width, rate in tqdm.tqdm(todo):
      model = mup.widened(plan.model, width)
      model = model if with_mup else dataclasses.replace(model, mup=None)
      loss = _train(run, data, plan, model, rate)
      tqdm.tqdm.write(f'width {width}, learning rate {rate:g}: {loss:.4f}')
      line = {'recipe': name, 'mup': with_mup, 'width': width, 'learning_rate': rate}
      with table.open('a') as file:  # a run that diverged has no number in JSON
        file.write(json.dumps(line | {'loss': loss if math.isfinite(loss) else None}) + '\n')
      losses.setdefault(width, {})[rate] = loss
  return {w: {r: losses[w][r] for r in learning_rates} for w in widths}


def recipe_name(run: Run) -> str:
  """A name of all that decides on a run's loss here, beside width and learning rate."""
  stage = dataclasses.replace(
    run.stages[0], optimizer=dataclasses.replace(run.stages[0].optimizer, learning_rate=1.0)
  )
  parts = [run.model, stage, run.loss, run.modules, run.seed_init, run.seed_order, run.seed_link]
  plain = [config.resolved(part) if dataclasses.is_dataclass(part) else part for part in parts]
  return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def read_table(path: pathlib.Path, recipe: str, with_mup: bool) -> Losses:
  """The finished runs of a recipe; a diverged one has an infinite loss."""
  losses: Losses = {}
  for line in path.read_text().splitlines() if path.exists() else []:
    row = json.loads(line)
    if (row['recipe'], row['mup']) == (recipe, with_mup):
      loss = math.inf if row['loss'] is None else row['loss']
      losses.setdefault(row['width'], {})[row['learning_rate']] = loss
  return losses


def best(losses: Losses) -> dict[int, float]:
  """The learning rate with the lowest loss at each width."""
  return {width: min(by_rate, key=by_rate.get) for width, by_rate in losses.items()}


def verdict(losses: Losses) -> str:
  """'' where the best learning rate stays within one step of the grid, inside it; else what is wrong."""
  grid = sorted(next(iter(losses.values())))
  places = {width: grid.index(rate) for width, rate in best(losses).items()}
  ends = [width for width, place in places.items() if place in (0, len(grid) - 1)]
  if ends:
    return f'the best learning rate of width {ends[0]} is at the end of the grid: widen it'
  moved = max(places.values()) - min(places.values())
  return f'the best learning rate moves by {moved} steps of the grid' if moved > 1 else ''


def text_table(losses: Losses) -> str:
  """Losses by learning rate and width, the best of each width starred."""
  winners, grid = best(losses), sorted(next(iter(losses.values())))
  rows = ['learning rate' + ''.join(f'{f"width {width}":>13}' for width in losses)]
  for rate in grid:
    cells = (f'{losses[w][rate]:.4f}{"*" if winners[w] == rate else " "}' for w in losses)
    rows.append(f'{rate:<13g}' + ''.join(f'{cell:>13}' for cell in cells))
  return '\n'.join(rows)


def draw(panels: dict[str, Losses], path: pathlib.Path) -> None:
  """A panel with a line for each width: loss over learning rate, its best one marked."""
  import matplotlib

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(
    1, len(panels), figsize=(4.8 * len(panels), 3.6), sharey=True, squeeze=False, layout='constrained'
  )  # fmt: skip
  for axis, (title, losses) in zip(axes[0], panels.items(), strict=True):
    for width, by_rate in sorted(losses.items()):
      rates = sorted(by_rate)
      (line,) = axis.plot(rates, [by_rate[r] for r in rates], 'o-', ms=3, label=f'width {width}')
      rate = min(by_rate, key=by_rate.get)
      axis.plot(rate, by_rate[rate], '*', ms=13, color=line.get_color())
    grid = sorted({rate for by_rate in losses.values() for rate in by_rate})
    axis.set(xscale='log', title=title, xlabel='learning rate')
    axis.set_xticks(grid, [f'{rate:g}' for rate in grid], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=8)
  axes[0][0].set_ylabel('training loss, last tenth, nats')
  figure.savefig(path, dpi=100)
  plt.close(figure)


def _train(run: Run, data: Any, plan: setup.Plan, model: Any, rate: float) -> float:
  stage = run.stages[0]
  settings = dataclasses.replace(stage.optimizer, learning_rate=rate)
  optimizer = make_optimizer(settings, stage.steps, model=model)
  state = step_lib.init_state(model, optimizer, plan.mesh, run.seed_init)
  step = step_lib.compile_step(
    step_lib.make_train_step(
      model, optimizer, make_schedule(settings, stage.steps), plan.mesh,
      loss_config=run.loss, n_sources=plan.sources, accumulate=stage.accumulate,
    ),
    step_lib.abstract_state(model, optimizer, plan.mesh),
    plan.batch,
  )  # fmt: skip
  losses = []
  sharding = mesh_lib.batch_sharding(plan.mesh)
  with Loader(data.stages[0].batches, sharding, start=0, stop=stage.steps) as loader:
    for n in tqdm.tqdm(range(stage.steps), leave=False):
      state, values = step(state, loader[n])
      losses.append(values['loss'])
  last = metrics.fetch(losses[-max(stage.steps // 10, 1) :])
  return float(np.mean(last))


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code."""
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  widths, rates = sorted(set(args.widths)), sorted(set(args.learning_rates))
  try:
    run = config.parse(Run, args.gin_file, args.gin_bindings)
    losses = sweep(run, widths, rates, not args.without_mup, out / 'sweep.jsonl')
  except (ValueError, TypeError, SyntaxError, FileNotFoundError, ModuleNotFoundError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  panels = {
    'muP' if kind else 'without muP': read_table(out / 'sweep.jsonl', recipe_name(run), kind)
    for kind in (True, False)
  }
  draw({title: panel for title, panel in panels.items() if panel}, out / 'sweep.png')
  print(text_table(losses))
  if args.without_mup:
    return 0
  if wrong := verdict(losses):
    print(f'error: {wrong}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
