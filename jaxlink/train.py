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
import pathlib
import signal
import sys
import time
from typing import Any

import jax
import tqdm

from jaxlink import accounts, compile_cache, config, dry_run, metrics, report, run_directory, setup
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.checkpoint import CheckpointError, Keeper
from jaxlink.data.loader import Batches, Loader
from jaxlink.evaluation.in_loop import Evaluator, read_records
from jaxlink.model.decoder import flops_per_token
from jaxlink.stage import Run
from jaxlink.stop import Stop, Terminated, terminable


class SkippedTooMuch(RuntimeError):
  """Too many updates in a row had a loss or gradient that is not finite."""


def train(run: Run) -> int:
  """Trains a run to its end, or until it is asked to stop; called alike on all hosts.

  Args:
    run: the recipe.

  Returns:
    The exit code: 0 when the run is complete, 128 + the signal's number when a signal stopped it.

  Raises:
    ValueError: the recipe does not fit the run's directory, its data or the devices, or another
      process trains in the directory.
    CheckpointError: a save failed.
    SkippedTooMuch: `run.max_skipped` updates in a row, or all of them, were not finite.
  """
  directory = pathlib.Path(run.directory)

  def is_complete() -> bool:
    run_directory.check_config(run, directory)
    return run_directory.complete(run, directory)

  if not run_directory.first_decides(is_complete):
    with run_directory.claim(directory):
      if code := _train_stage(run, directory):
        return code
  _say(run_directory.summary(run, directory))
  return 0


def _train_stage(run: Run, directory: pathlib.Path) -> int:
  (stage,) = run.stages
  main_process = jax.process_index() == 0

  # ── data ────────────────────────────────────────────────────────────────────
  data = setup.open_data(run)
  batches, mixture = data.batches, data.batches.mixture
  _say(report.describe_sources(batches, data.blocks, stage.steps))
  for source in batches.windows:
    if dose := report.describe_dose(source, data.blocks):
      _say(dose)

  # ── mesh, model, optimizer ──────────────────────────────────────────────────
  plan = setup.make_plan(run, data)
  _say(report.describe_model(plan.model, stage.sequence_length))
  _say(report.describe_mesh(plan.mesh))
  _say(report.describe_stage(stage))

  # ── restore ─────────────────────────────────────────────────────────────────
  keeper = Keeper(str(directory / 'checkpoints'), run.checkpoint)
  start = keeper.latest() or 0
  counted = {}
  if start:
    state, meta = keeper.restore(start, plan.state)
    run_directory.check_data(meta, batches)
    counted = meta.get('counts', {})
    _say(f'resumed at step {start:,} of {stage.steps:,}')
  else:
    state = step_lib.init_state(plan.model, plan.optimizer, plan.mesh, run.seed_init)
  # An evaluation that a stop or a kill prevented; decided before the records are cut back to `start`.
  evaluate_first = run_directory.first_decides(
    lambda: start == 0 or start not in read_records(directory)
  )
  log = metrics.Metrics(
    run.directory, writer=main_process, resume_step=start, wandb_project=run.wandb_project
  )
  if main_process:
    record = run_directory.record_start(run, directory, plan.mesh, start, batches)
    _say(report.describe_start(record))

  # ── compile ─────────────────────────────────────────────────────────────────
  began = time.perf_counter()
  evaluate = Evaluator(
    run, stage, model=plan.model, mesh=plan.mesh, params=plan.state.params, data=data.resolution,
    tokenizer=data.tokenizer, start=start, writer=main_process,
  )  # fmt: skip
  train_step = plan.compile_step(run, len(data.blocks))
  _say(f'compiled in {time.perf_counter() - began:.1f} s')

  # ── loop ────────────────────────────────────────────────────────────────────
  account = accounts.Accounts(mixture.names, batches.count_names, counted)
  logger = metrics.Logger(
    log,
    steps=stage.steps,
    tokens_per_step=stage.tokens_per_step,
    start=start,
    flops_per_token=flops_per_token(plan.model, stage.sequence_length),
    peak_flops=metrics.peak_flops(plan.mesh.devices.flat),
    flatten=account.take,
  )
  with (
    Stop() as stop,
    Loader(batches, mesh_lib.batch_sharding(plan.mesh), start=start, stop=stage.steps,
           workers=run.data.workers, prefetch=run.data.prefetch) as loader,
    jax.transfer_guard('disallow'),
  ):  # fmt: skip
    step, stopped = start, False
    if evaluate.due(step) and evaluate_first:
      scores = evaluate(step, state.params, log, stop.requested)
      stopped = scores is None
      _say(report.describe_scores_line(step, scores))
    while step < stage.steps and not stopped:
      state, values = train_step(state, loader[step])
      step += 1
      check_skipped(logger.log(step, values, host_metrics(step, batches, loader)), run)
      stopped = stop.requested()
      if evaluate.due(step) and not stopped:
        check_skipped(logger.flush(), run)
        scores = evaluate(step, state.params, log, stop.requested)
        stopped = scores is None
        _say(report.describe_scores_line(step, scores))
        logger.restart_clock()
      if keeper.due(step) or stopped or step == stage.steps:
        check_skipped(logger.flush(), run)
        keeper.save(step, state, checkpoint_meta(run, step, batches, account, logger.last))
    logger.close()
    log.close()
    keeper.close()

  # ── end ─────────────────────────────────────────────────────────────────────
  if not stopped:
    return 0
  saved = f'saved in {directory}' if step > start else 'nothing new to save'
  _say(f'{stop.signal_name}: stopped after step {step:,} of {stage.steps:,}, {saved}. '
       'The same command goes on from there.')  # fmt: skip
  return 128 + getattr(signal, stop.signal_name)


def _say(line: str) -> None:
  """Prints, on process 0, above the progress bar."""
  if jax.process_index() == 0:
    tqdm.tqdm.write(line)


def host_metrics(step: int, batches: Batches, loader: Loader) -> dict[str, float]:
  """What the host knows after `step` updates without asking the device: tokens and repetitions."""
  values: dict[str, float] = {'data_wait_seconds': loader.wait_seconds}
  counts = batches.mixture.counts(step * batches.batch).tolist()
  for name, window, count in zip(batches.mixture.names, batches.windows, counts, strict=True):
    values[f'tokens/{name}'] = count * batches.length
    values[f'repetitions/{name}'] = float(window.repetitions(count))
  return values


def checkpoint_meta(
  run: Run, step: int, batches: Batches, account: accounts.Accounts, values: dict[str, Any]
) -> dict[str, Any]:
  """What lies beside the state in a checkpoint: where it is in the data, and how it was made.

  `values` are the metrics of `step`; a run that is stopped before its first step has none.
  """
  counts = batches.mixture.counts(step * batches.batch).tolist()
  return {
    'step': step,
    'stage': 0,
    'skipped': int(values.get('skipped', 0)),
    'skipped_in_a_row': int(values.get('skipped_in_a_row', 0)),
    'batches': batches.fingerprint,
    'caches': {w.blocks.name: w.blocks.fingerprint for w in batches.windows},
    'tokens': {n: c * batches.length for n, c in zip(batches.mixture.names, counts, strict=True)},
    'counts': account.totals,
    'shares': {
      n: str(share) for n, share in zip(batches.mixture.names, batches.mixture.shares, strict=True)
    },
    'tokenizer': batches.windows[0].blocks.manifest['tokenizer']['sha256'],
    'config': config.resolved(run),
  }


def check_skipped(values: dict[str, Any] | None, run: Run) -> None:
  """Raises SkippedTooMuch where the last fetched metrics say so."""
  steps = run.stages[0].steps  # all of a run that is shorter than `max_skipped` is too many, too
  if values is not None and values['skipped_in_a_row'] >= min(run.max_skipped, steps):
    raise SkippedTooMuch(
      f'{int(values["skipped_in_a_row"])} updates in a row had a loss or gradient that is not finite '
      f'(Run.max_skipped is {run.max_skipped}, and the run has {steps} steps). What was saved last in '
      f'{run.directory} is from before; a lower learning rate or OptimizerConfig.clip_norm may help.'
    )


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code; a person's mistakes are printed without traceback."""
  run = None
  try:
    with terminable():
      run = config.parse(Run, args.gin_file, args.gin_bindings)
      if args.distributed or args.coordinator_address:
        jax.distributed.initialize(args.coordinator_address, args.num_processes, args.process_id)
      if run.compile_cache:
        compile_cache.enable()
      if args.dry_run or dry_run.misfit(run):
        return dry_run.report(run, args.gin_file)
      return train(run)
  except (KeyboardInterrupt, Terminated) as ended:
    name, code = ('SIGTERM', 143) if isinstance(ended, Terminated) else ('SIGINT', 130)
    print(f'{name}: ended at once; {_where_it_goes_on(run)}', file=sys.stderr)
    return code
  except (
    ValueError,
    TypeError,
    SyntaxError,
    FileNotFoundError,
    ModuleNotFoundError,
    CheckpointError,
    SkippedTooMuch,
  ) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except OSError as error:  # a full disk, a folder that is not ours
    print(f'error: {error}; {_where_it_goes_on(run)}', file=sys.stderr)
    return 1


def _where_it_goes_on(run: Run | None) -> str:
  last = None if run is None else run_directory.last_checkpoint(pathlib.Path(run.directory))
  if last is None:
    where = '' if run is None else f' in {run.directory}'
    return f'nothing has been saved{where}, and the same command begins anew.'
  return f'the last checkpoint in {run.directory} is of step {last:,}, and the same command goes on there.'


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
