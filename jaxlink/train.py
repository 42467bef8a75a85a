"""`python -m jaxlink.train`: trains a recipe, or goes on where it was stopped.

  python -m jaxlink.train --gin_file=gin/quickstart.gin
  python -m jaxlink.train --gin_file=gin/quickstart.gin --gin_bindings="Stage.tokens = 1_000_000"

The same command resumes: SIGTERM and Ctrl-C save first, and a killed run goes on from its last
checkpoint, bit for bit. On several hosts each runs the same command, with --distributed where JAX knows
the cluster (TPU pods, Slurm), else with --coordinator_address, --num_processes and --process_id.

Easy to get wrong: `step` counts finished updates. Batch `step` makes update `step`, which makes state
`step + 1`, and that is the number of its metrics, evaluation and checkpoint.
"""

from jaxlink import arguments

if __name__ == '__main__':
  ARGUMENTS = arguments.parse(__doc__)  # before the imports below, which take seconds

import argparse
import functools
import pathlib
import signal
import sys
import time
from typing import Any

import jax
import tqdm

from jaxlink import compile_cache, config, dry_run, metrics, report, run_directory
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.checkpoint import CheckpointError, Keeper
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.loader import Batches, Loader
from jaxlink.data.mixture import Mixture
from jaxlink.data.tokenizer import Tokenizer, padded_size
from jaxlink.data.windows import Windows
from jaxlink.evaluation.in_loop import Evaluator
from jaxlink.optimizer import make_optimizer, make_schedule
from jaxlink.stage import Run
from jaxlink.stop import Stop


class SkippedTooMuch(RuntimeError):
  """Too many updates in a row had a loss or gradient that is not finite."""


def train(run: Run) -> int:
  """Trains a run to its end, or until it is asked to stop.

  Args:
    run: the recipe.

  Returns:
    The exit code: 0 when the run is complete, 128 + the signal's number when a signal stopped it.

  Raises:
    ValueError: the recipe does not fit the run's directory, its data or the devices.
    CheckpointError: a save failed.
    SkippedTooMuch: `run.max_skipped` updates in a row were not finite.
  """
  (stage,) = run.stages
  main_process = jax.process_index() == 0
  say = tqdm.tqdm.write if main_process else lambda _: None
  directory = pathlib.Path(run.directory)
  run_directory.check_config(run, directory)
  if summary := run_directory.finished(run, directory):
    say(summary)
    return 0

  # ── data ────────────────────────────────────────────────────────────────────
  data = resolve.resolve_on_hosts(run)
  (sources,) = data.stages
  blocks = [Blocks(source.folder) for source in sources]
  windows = [Windows(b, stage.sequence_length, run.seed_order) for b in blocks]
  mixture = Mixture([b.name for b in blocks], [source.rate for source in sources])
  batches = Batches(mixture, windows, stage.batch)
  tokenizer = Tokenizer(data.tokenizer['path'])
  say(report.describe_sources(batches, blocks, stage.steps))
  for source in blocks:
    if dose := report.describe_dose(source):
      say(dose)

  # ── mesh, model, optimizer ──────────────────────────────────────────────────
  mesh = mesh_lib.make_mesh(run.mesh)
  model = run.model.resolve(
    platform=mesh.devices.flat[0].platform,
    vocabulary=run.model.vocabulary or padded_size(tokenizer.size),
  )
  optimizer = make_optimizer(stage.optimizer, stage.steps)
  schedule = make_schedule(stage.optimizer, stage.steps)
  abstract_state = step_lib.abstract_state(model, optimizer, mesh)
  abstract_batch = step_lib.abstract_batch(stage.batch, stage.sequence_length, mesh)
  say(report.describe_model(model, stage.sequence_length))
  say(report.describe_mesh(mesh))
  say(report.describe_stage(stage))

  # ── restore ─────────────────────────────────────────────────────────────────
  keeper = Keeper(str(directory / 'checkpoints'), run.checkpoint)
  start = keeper.latest() or 0
  if start:
    state, meta = keeper.restore(start, abstract_state)
    run_directory.check_data(meta, batches)
    say(f'resumed at step {start:,} of {stage.steps:,}')
  else:
    state = step_lib.init_state(model, optimizer, mesh, run.seed_init)
  if main_process:
    run_directory.record_start(run, directory, mesh, start)
  log = metrics.Metrics(run.directory, writer=main_process, resume_step=start)

  # ── compile ─────────────────────────────────────────────────────────────────
  began = time.perf_counter()
  train_step = step_lib.compile_step(
    step_lib.make_train_step(
      model, optimizer, schedule, mesh, loss_config=run.loss, n_sources=len(sources)
    ),
    abstract_state,
    abstract_batch,
  )
  evaluate = Evaluator(
    run, stage, model=model, mesh=mesh, params=abstract_state.params, data=data,
    tokenizer=tokenizer, start=start, writer=main_process,
  )  # fmt: skip
  say(f'compiled in {time.perf_counter() - began:.1f} s')

  # ── loop ────────────────────────────────────────────────────────────────────
  logger = metrics.Logger(
    log,
    steps=stage.steps,
    tokens_per_step=stage.tokens_per_step,
    start=start,
    flatten=functools.partial(by_source, mixture.names),
  )
  with (
    Stop() as stop,
    Loader(batches, mesh_lib.batch_sharding(mesh), start=start, stop=stage.steps,
           workers=run.data.workers, prefetch=run.data.prefetch) as loader,
    jax.transfer_guard('disallow'),
  ):  # fmt: skip
    step, stopped = start, False
    if evaluate.due(step) and step not in run_directory.evaluations(directory):
      scores = evaluate(step, state.params, log, stop.requested)
      stopped = scores is None
      say(report.describe_scores_line(step, scores))
    while step < stage.steps and not stopped:
      state, values = train_step(state, loader[step])
      step += 1
      check_skipped(logger.log(step, values, host_metrics(step, batches, loader)), run)
      stopped = stop.requested()
      if evaluate.due(step) and not stopped:
        check_skipped(logger.flush(), run)
        scores = evaluate(step, state.params, log, stop.requested)
        stopped = scores is None
        say(report.describe_scores_line(step, scores))
        logger.restart_clock()
      if keeper.due(step) or stopped or step == stage.steps:
        check_skipped(logger.flush(), run)
        keeper.save(step, state, checkpoint_meta(run, step, batches))
    logger.close()
    log.close()
    keeper.close()

  # ── end ─────────────────────────────────────────────────────────────────────
  if stopped:
    saved = f'saved in {directory}' if step > start else 'nothing new to save'
    say(f'{stop.signal_name}: stopped after step {step:,} of {stage.steps:,}, {saved}. '
        'The same command goes on from there.')  # fmt: skip
    return 128 + getattr(signal, stop.signal_name)
  say(run_directory.finished(run, directory))
  return 0


def by_source(names: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
  """Turns arrays over sources into a scalar for each, by name; a source without tokens has no loss."""
  values = dict(values)
  sums, tokens = values.pop('loss_sum_by_source'), values.pop('tokens_by_source')
  for name, total, count in zip(names, sums.tolist(), tokens.tolist(), strict=True):
    if count:
      values[f'loss/{name}'] = total / count
  return values


def host_metrics(step: int, batches: Batches, loader: Loader) -> dict[str, float]:
  """What the host knows after `step` updates without asking the device: tokens and repetitions."""
  values: dict[str, float] = {'data_wait_seconds': loader.wait_seconds}
  counts = batches.mixture.counts(step * batches.batch).tolist()
  for name, window, count in zip(batches.mixture.names, batches.windows, counts, strict=True):
    values[f'tokens/{name}'] = count * batches.length
    values[f'repetitions/{name}'] = float(window.repetitions(count))
  return values


def checkpoint_meta(run: Run, step: int, batches: Batches) -> dict[str, Any]:
  """What lies beside the state in a checkpoint: where it is in the data, and how it was made."""
  counts = batches.mixture.counts(step * batches.batch).tolist()
  return {
    'step': step,
    'stage': 0,
    'batches': batches.fingerprint,
    'caches': {w.blocks.name: w.blocks.fingerprint for w in batches.windows},
    'tokens': {n: c * batches.length for n, c in zip(batches.mixture.names, counts, strict=True)},
    'shares': {
      n: str(share) for n, share in zip(batches.mixture.names, batches.mixture.shares, strict=True)
    },
    'tokenizer': batches.windows[0].blocks.manifest['tokenizer']['sha256'],
    'config': config.resolved(run),
  }


def check_skipped(values: dict[str, Any] | None, run: Run) -> None:
  """Raises SkippedTooMuch where the last fetched metrics say so."""
  if values is not None and values['skipped_in_a_row'] >= run.max_skipped:
    raise SkippedTooMuch(
      f'{int(values["skipped_in_a_row"])} updates in a row had a loss or gradient that is not finite '
      f'(Run.max_skipped is {run.max_skipped}). The last checkpoint in {run.directory} is from before; '
      'a lower learning rate or OptimizerConfig.clip_norm may help.'
    )


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code; a person's mistakes are printed without traceback."""
  try:
    run = config.parse(Run, args.gin_file, args.gin_bindings)
    if args.distributed or args.coordinator_address:
      jax.distributed.initialize(args.coordinator_address, args.num_processes, args.process_id)
    if run.compile_cache:
      compile_cache.enable()
    if args.dry_run or not dry_run.devices_fit(run):
      return dry_run.report(run, args.gin_file)
    return train(run)
  except KeyboardInterrupt:
    print('interrupted; the same command goes on from the last checkpoint.', file=sys.stderr)
    return 130
  except (
    ValueError,
    TypeError,
    SyntaxError,
    FileNotFoundError,
    CheckpointError,
    SkippedTooMuch,
  ) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
