"""Whether what a few steps change in a model depends on its width: with muP it must not.

  python tools/coordinate_check.py --gin_file=gin/mup_proxy.gin
  python tools/coordinate_check.py --gin_file=gin/mup_proxy.gin --widths 128 256 --steps 2

Trains the recipe's model at each width for a few steps on one batch of its own text, with muP and
without, and prints the mean |change| of what flows through it on that batch: its slope over width, both
logarithmic. A slope within 0.05 is flat. Writes coordinate_check.json and coordinate_check.png into --out.
Exits with 1 where muP is not flat, or where nothing is without it: then the check has seen nothing.

In: a recipe with `DecoderConfig.mup`, whose data is cached or can be. With muP the head starts at 0 here,
whatever `MupConfig.zero_head` says: what a random head makes of changed hidden states shrinks with the
width (a slope near −0.4 of the logits over these steps), and would hide what the head learns.

Easy to get wrong: the batch. A step does something to each of its tokens, and something random to all
others; the random part shrinks with the width while there are more tokens than dimensions. A large
batch, or another one at each step, therefore shows slopes that are not those of the parametrisation.
"""

# ruff: noqa: E402
import argparse
import sys

FLAT = 0.05
WATCHED = ('embedding', 'attention', 'mlp', 'residual', 'logits')


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gin_file', action='append', required=True)
  parser.add_argument('--gin_bindings', action='append', default=[], metavar='BINDING')
  parser.add_argument('--widths', type=int, nargs='+', default=[128, 256, 512, 1024])
  parser.add_argument('--steps', type=int, default=4, help='updates (4)')
  parser.add_argument(
    '--learning_rate', type=float, default=1e-3,
    help='low, for changes are to stay small beside what they change (1e-3)',
  )  # fmt: skip
  parser.add_argument(
    '--batch', type=int, default=2,
    help='sequences: few, for their tokens should not be many more than the width (2)',
  )  # fmt: skip
  parser.add_argument('--seeds', type=int, default=2, help='models whose changes are averaged (2)')
  parser.add_argument('--out', default='runs/coordinate_check', help='folder of picture and JSON')
  args = parser.parse_args()
  if len(set(args.widths)) < 2:
    parser.error('--widths: a slope needs two or more')
  return args


if __name__ == '__main__':
  ARGUMENTS = parse_arguments()  # before the imports below, which take seconds

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxlink import config, metrics, setup, stage_data
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.data.loader import Loader
from jaxlink.model import decoder, mup
from jaxlink.optimizer import OptimizerConfig, make_optimizer, make_schedule
from jaxlink.stage import Run

Changes = dict[str, list[float]]  # what is watched → mean |change| after 1, 2, … steps


def check(
  run: Run, widths: list[int], steps: int, learning_rate: float, seeds: int
) -> dict[str, Any]:
  """Trains all models; returns {'changes': {'mup' or 'usual': {width: Changes}}, 'slopes': …}.

  Slopes are of the last step: {'mup' or 'usual': {what is watched: slope}}.

  Raises:
    ValueError: the recipe has no muP, or a width does not fit its heads.
  """
  if run.model.mup is None:
    raise ValueError('DecoderConfig.mup is None: there is nothing to check.')
  data = stage_data.open_stages(run)
  plan = setup.make_plans(run, data)[0]
  with Loader(
    data.stages[0].batches, mesh_lib.batch_sharding(plan.mesh), start=0, stop=1
  ) as loader:
    batch = loader[0]
  from_zero = dataclasses.replace(plan.model.mup, zero_head=True)
  models = {
    (kind, width): dataclasses.replace(mup.widened(plan.model, width), **switch)
    for kind, switch in (('mup', {'mup': from_zero}), ('usual', {'mup': None}))
    for width in widths
  }
  changes: dict[str, dict[int, Changes]] = {'mup': {}, 'usual': {}}
  with tqdm.tqdm(total=len(models) * seeds) as bar:
    for (kind, width), model in models.items():
      found = []
      for seed in range(seeds):
        found.append(_changes(run, plan, model, batch, steps, learning_rate, seed))
        bar.update()
      changes[kind][width] = {
        name: np.mean([one[name] for one in found], axis=0).tolist() for name in WATCHED
      }
  slopes = {
    kind: {name: slope(widths, [by_width[width][name][-1] for width in widths]) for name in WATCHED}
    for kind, by_width in changes.items()
  }
  return {'changes': changes, 'slopes': slopes}


def slope(widths: list[int], values: list[float]) -> float:
  """Of log values over log widths, by least squares."""
  return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def verdict(slopes: dict[str, dict[str, float]]) -> str:
  """'' where muP is flat and the usual model is not; else what is wrong."""
  steep = [name for name, value in slopes['mup'].items() if not abs(value) <= FLAT]
  if steep:
    return f'not flat with muP: {", ".join(steep)}'
  if all(abs(value) <= FLAT for value in slopes['usual'].values()):
    return 'flat without muP, too: these widths and steps show nothing'
  return ''


def table(slopes: dict[str, dict[str, float]]) -> str:
  """The slopes as text."""
  rows = [f'{"slope over width":<18}{"muP":>8}{"without":>9}']
  rows += [
    f'{name:<18}{slopes["mup"][name]:>+8.3f}{slopes["usual"][name]:>+9.3f}' for name in WATCHED
  ]
  return '\n'.join(rows)


def draw(result: dict[str, Any], path: pathlib.Path) -> None:
  """A panel for each that is watched: mean |change| over width after the last step."""
  import matplotlib

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(1, len(WATCHED), figsize=(13, 3.2), layout='constrained')
  for axis, name in zip(axes, WATCHED, strict=True):
    for kind, label, style in (('usual', 'without muP', 's--'), ('mup', 'muP', 'o-')):
      by_width = result['changes'][kind]
      values = [changes[name][-1] for changes in by_width.values()]
      axis.plot(list(by_width), values, style, label=f'{label} {result["slopes"][kind][name]:+.3f}')
    low, high = axis.get_ylim()
    axis.set(xscale='log', yscale='log', title=name, xlabel='width')
    axis.set_ylim(min(low, high / 30), high * 1.5)  # all panels span a factor of 30 or more
    axis.set_xticks(list(by_width), map(str, by_width), minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=8)
  axes[0].set_ylabel('mean |change|')
  figure.savefig(path, dpi=100)
  plt.close(figure)


def _changes(run, plan, model, batch, steps, learning_rate, seed) -> Changes:
  settings = dataclasses.replace(
    run.stages[0].optimizer,
    learning_rate=learning_rate,
    schedule='constant',
    warmup_share=0.0,
    **{
      name: OptimizerConfig.__dataclass_fields__[name].default
      for name in ('decay_share', 'final_share')
    },
  )
  optimizer = make_optimizer(settings, steps, model=model)
  state = step_lib.init_state(model, optimizer, plan.mesh, seed)
  step = step_lib.compile_step(
    step_lib.make_train_step(
      model, optimizer, make_schedule(settings, steps), plan.mesh,
      loss_config=run.loss, n_sources=plan.sources,
    ),
    step_lib.abstract_state(model, optimizer, plan.mesh),
    plan.batch,
  )  # fmt: skip
  first = _values(model, state.params, batch)
  changes: Changes = {name: [] for name in WATCHED}
  for _ in range(steps):
    state, _ = step(state, batch)
    now = _values(model, state.params, batch)
    for name in WATCHED:
      changes[name].append(float(np.mean(np.abs(now[name] - first[name]))))
  return changes


def _values(model, params, batch) -> dict[str, np.ndarray]:
  """What flows through the model on a batch; of what each layer has, all layers."""
  params, batch = jax.tree.map(jnp.asarray, metrics.fetch((params, batch)))
  bound = decoder.bind(decoder.abstract_decoder(model)[0], params)
  seen: dict[str, list[np.ndarray]] = {name: [] for name in WATCHED}
  with jax.disable_jit(), _recorded(seen):
    hidden_BTD = bound(batch['tokens'], batch['segments'], batch['positions'])
    seen['logits'].append(np.asarray(bound.logits(hidden_BTD)))
  return {name: np.stack(values) for name, values in seen.items()}


@contextlib.contextmanager
def _recorded(seen: dict[str, list[np.ndarray]]) -> Iterator[None]:
  """While active, modules note what they return: only where nothing is traced."""

  def noting(cls, name):
    call = cls.__call__

    def noted(self, x_BTD, *args):
      if cls is decoder.Layer and not seen['embedding']:
        seen['embedding'].append(np.asarray(x_BTD))
      out = call(self, x_BTD, *args)
      seen[name].append(np.asarray(jax.tree.leaves(out)[0]))
      return out

    return mock.patch.object(cls, '__call__', noted)

  with contextlib.ExitStack() as stack:
    for cls, name in (
      (decoder.Attention, 'attention'),
      (decoder.Mlp, 'mlp'),
      (decoder.Layer, 'residual'),
    ):
      stack.enter_context(noting(cls, name))
    yield


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code."""
  try:
    run = config.parse(Run, args.gin_file, args.gin_bindings)
    first = dataclasses.replace(run.stages[0], batch=args.batch, accumulate=1)
    run = dataclasses.replace(run, stages=(first, *run.stages[1:]))
    result = check(run, sorted(set(args.widths)), args.steps, args.learning_rate, args.seeds)
  except (ValueError, TypeError, SyntaxError, FileNotFoundError, ModuleNotFoundError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  (out / 'coordinate_check.json').write_text(json.dumps(result, indent=1) + '\n')
  draw(result, out / 'coordinate_check.png')
  print(table(result['slopes']))
  if wrong := verdict(result['slopes']):
    print(f'error: {wrong}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
