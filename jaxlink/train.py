"""`python -m jaxlink.train`: trains a recipe, or goes on where it was stopped.

  python -m jaxlink.train --gin_file=gin/quickstart.gin
  python -m jaxlink.train --gin_file=gin/quickstart.gin --gin_bindings="Stage.tokens = 1_000_000"

The same command resumes: SIGTERM and Ctrl-C save first, and a killed run goes on from its last
checkpoint, bit for bit. On several hosts each runs the same command, with --distributed where JAX knows
the cluster (TPU pods, Slurm), else with --coordinator_address, --num_processes and --process_id.

Easy to get wrong: `step` counts finished updates of the run, over all its stages. Batch `step` makes
update `step`, which makes state `step + 1`, and that is the number of its metrics, evaluation and
checkpoint. Data counts a stage's own steps, from 0.
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
import traceback
from typing import Any

import jax
import tqdm

from jaxlink import (
  accounts,
  compile_cache,
  config,
  distributed,
  dry_run,
  hosts,
  metrics,
  profiling,
  report,
  report_data,
  run_directory,
  setup,
  stage_data,
  stage_state,
  xla_flags,
)
from jaxlink import mesh as mesh_lib
from jaxlink.checkpoint import CheckpointError, Keeper
from jaxlink.data.loader import Loader
from jaxlink.evaluation.in_loop import Evaluator
from jaxlink.evaluation.records import read_evaluations
from jaxlink.model.shape import flops_per_token
from jaxlink.optimizer import ema_params
from jaxlink.stage import Run
from jaxlink.stage_data import StageData
from jaxlink.stop import Stop, Terminated, terminable

_ACCOUNTED = 16  # sources whose accounts are in the metrics of every step


class SkippedTooMuch(RuntimeError):
  """Too many updates in a row had a loss or gradient that is not finite."""


def train(run: Run, profile_steps: range | None = None) -> int:
  """Trains a run to its end, or until it is asked to stop; called alike on all hosts.

  Args:
    run: the recipe.
    profile_steps: steps to trace; see `profiling`.

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

  if not hosts.first_decides(is_complete):
    with run_directory.claim(directory):
      if code := _train(run, directory, profile_steps):
        return code
  _say(run_directory.summary(run, directory))
  return 0


def _train(run: Run, directory: pathlib.Path, profile_steps: range | None) -> int:
  main_process = jax.process_index() == 0

  # ── data ────────────────────────────────────────────────────────────────────
  data = stage_data.open_on_hosts(run, directory)
  said = {''}
  for part in data.stages:
    _say(report.describe_stage(part.stage))
    _say(report_data.describe_sources(part))
    for source in part.batches.windows:
      dose = report_data.describe_dose(source, part.blocks)
      if dose not in said:  # a later stage may do the same
        _say(dose)
      said.add(dose)
  _say(report_data.describe_forecast(data))

  # ── mesh, model, optimizer ──────────────────────────────────────────────────
  plans = setup.make_plans(run, data)
  _say(report.describe_model(plans[0].model, run.evaluation_length, plans[0].attention_reason))
  _say(report.describe_mesh(plans[0].mesh))

  # ── restore ─────────────────────────────────────────────────────────────────
  ends = [run.first_step(k + 1) for k in range(len(run.stages))]
  keeper = Keeper(str(directory / 'checkpoints'), run.checkpoint, keep_steps=ends)
  start, state, meta = stage_state.restore(run, data, plans, keeper)
  stage_state.check_origins(run, data, plans, start)
  counted = meta.get('counts', [])  # LINK's of each stage so far
  if start:
    _say(f'resumed at step {start:,} of {run.steps:,}')
  profiler = profiling.Profiler(profile_steps, directory, start=start, steps=run.steps, say=_say)
  # An evaluation that a stop or a kill prevented; decided before the records are cut back to `start`.
  evaluate_first = hosts.first_decides(
    lambda: start == 0 or start not in read_evaluations(directory)
  )
  log = metrics.Metrics(
    run.directory, writer=main_process, resume_step=start, wandb_project=run.wandb_project
  )
  if main_process:
    record = run_directory.record_start(run, directory, plans[0].mesh, start, data)
    _say(report.describe_start(record))
  evaluate = Evaluator(
    run, model=plans[0].model, mesh=plans[0].mesh, params=plans[0].state.params,
    data=data, start=start, writer=main_process,
  )  # fmt: skip
  logger = metrics.Logger(
    log,
    steps=run.steps,
    tokens_at=run.tokens_at,
    start=start,
    peak_flops=metrics.peak_flops(plans[0].mesh.devices.flat),
  )

  stop, step, stopped = Stop(), start, False

  def score() -> bool:
    """Evaluates the state; false where a stop was requested on the way."""
    check_skipped(logger.flush(), run)
    scores = evaluate(step, ema_params(state.opt_state, state.params), log, stop.requested)
    if scores != {}:
      _say(report.describe_scores_line(step, scores))
    logger.restart_clock()
    return scores is not None

  if start and evaluate.due(start) and evaluate_first:
    with stop, jax.transfer_guard('disallow'):
      stopped = not score()
  for k in range(run.stage_at(start), len(run.stages)):
    if stopped:
      break
    part, plan, first, end = data.stages[k], plans[k], run.first_step(k), ends[k]

    # ── begin and compile a stage ───────────────────────────────────────────────
    if step == first:
      keeper.wait()  # a signal from here to the loop ends the process
      if line := stage_state.describe_origin(run, k, part):
        _say(line)
      state = stage_state.begin(run, k, data, plans, keeper, state)
    began = time.perf_counter()
    train_step = plan.compile_step(run)
    _say(f'stage {part.stage.name}: compiled in {time.perf_counter() - began:.1f} s')
    account = accounts.Accounts(
      part.batches.mixture.names, part.batches.count_names, (counted[k:] or [None])[0]
    )
    logger.begin_stage(
      flatten=account.take, flops_per_token=flops_per_token(plan.model, part.stage.sequence_length)
    )

    # ── loop ────────────────────────────────────────────────────────────────────
    with (
      stop,
      Loader(part.batches, mesh_lib.batch_sharding(plan.mesh), start=step - first,
             stop=end - first, workers=run.data.workers, prefetch=run.data.prefetch) as loader,
      jax.transfer_guard('disallow'),
    ):  # fmt: skip
      if step == 0:
        stopped = not score()
      while step < end and not stopped:
        with profiler.step(step):
          state, values = train_step(state, loader[step - first])
        step += 1
        profiler.after(step, state)
        known = host_metrics(run, k, step, part, loader)
        note = functools.partial(report_data.describe_repetitions, part, step - first)
        check_skipped(logger.log(step, values, known, note), run)
        stopped = stop.requested()
        if evaluate.due(step) and not stopped:
          stopped = not score()
        if keeper.due(step) or stopped or step == end:
          check_skipped(logger.flush(), run)
          counts = [*counted[:k], account.totals]
          keeper.save(step, state, checkpoint_meta(run, k, step, part, counts, logger.last))
    counted = [*counted[:k], account.totals]
  profiler.close(step, state)
  logger.close()
  log.close()
  keeper.close()
  stop.close()

  # ── end ─────────────────────────────────────────────────────────────────────
  if not stopped:
    return 0
  saved = f'saved in {directory}' if step > start else 'nothing new to save'
  _say(f'{stop.signal_name}: stopped after step {step:,} of {run.steps:,}, {saved}. '
       'The same command goes on from there.')  # fmt: skip
  return 128 + getattr(signal, stop.signal_name)


def _say(line: str) -> None:
  """Prints, on process 0, above the progress bar."""
  if jax.process_index() == 0:
    tqdm.tqdm.write(line)


def host_metrics(run: Run, k: int, step: int, part: StageData, loader: Loader) -> dict[str, float]:
  """What the host knows after `step` updates without asking the device: tokens and repetitions.

  `stage_tokens/…` and the like are of the stage, `tokens/…` of everything before it, too. Of a mixture of
  many sources they are given at each n-th step.
  """
  values = {'stage': k, 'trained_tokens': run.tokens_at(step)}
  values['data_wait_seconds'] = loader.wait_seconds
  if step % -(-len(part.sources) // _ACCOUNTED) == 0:
    for name, account in part.account(step - run.first_step(k)).items():
      for what in ('tokens', 'sequences', 'repetitions'):
        values[f'{what}/{name}'] = account[f'all_{what}']
        values[f'stage_{what}/{name}'] = account[what]
  return values


def checkpoint_meta(
  run: Run, k: int, step: int, part: StageData, counts: list[dict[str, Any]],
  values: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
  """What lies beside the state in a checkpoint: where it is in the data, and how it was made.

  `counts` are LINK's by stage; `values` the metrics of `step`, of which a run that is stopped before its
  first step has none.
  """
  batches, steps = part.batches, step - run.first_step(k)
  return {
    'step': step,
    'stage': k,
    'stage_name': part.stage.name,
    'trained_tokens': run.tokens_at(step),
    'skipped': int(values.get('skipped', 0)),
    'skipped_in_a_row': int(values.get('skipped_in_a_row', 0)),
    'batches': batches.fingerprint,
    'caches': {w.blocks.name: w.blocks.fingerprint for w in batches.windows},
    'accounts': part.account(steps),
    'position': part.position(steps).to_json(),
    'counts': counts,
    'shares': part.shares.to_json(),
    'tokenizer': part.blocks[0].manifest['tokenizer']['sha256'],
    # What only the same parameters give, so that a run made again under the same name is told apart.
    'values': {name: repr(values[name]) for name in ('loss', 'grad_norm') if name in values},
    'config': config.resolved(run),
  }


def check_skipped(values: dict[str, Any] | None, run: Run) -> None:
  """Raises SkippedTooMuch where the last fetched metrics say so."""
  steps = run.steps  # all of a run that is shorter than `max_skipped` is too many, too
  if values is not None and values['skipped_in_a_row'] >= min(run.max_skipped, steps):
    raise SkippedTooMuch(
      f'{int(values["skipped_in_a_row"])} updates in a row had a loss or gradient that is not finite '
      f'(Run.max_skipped is {run.max_skipped}, and the run has {steps} steps). What was saved last in '
      f'{run.directory} is from before; a lower learning rate or OptimizerConfig.clip_norm may help.'
    )


def main(args: argparse.Namespace) -> int:
  """Runs the command and returns its exit code; a person's mistakes are printed without traceback.

  On several hosts it ends the process itself where the run fails, and so do the other hosts.
  """
  run, watch = None, None
  try:
    with terminable():
      if args.distributed or args.coordinator_address:
        watch = distributed.join(
          args.coordinator_address, args.num_processes, args.process_id, args.initialization_timeout
        )
      try:
        run = config.parse(Run, args.gin_file, args.gin_bindings)
      except (
        TypeError
      ) as error:  # a setting of a wrong type; from here on it would be a fault of ours
        raise ValueError(error) from error
      if watch:
        watch.where_it_goes_on = functools.partial(_where_it_goes_on, run)
        watch.require_same(
          {'jax': jax.__version__, 'run': config.resolved(run)}, config.differences
        )
        watch.require_shared(run.directory, 'Run.directory')
      if run.compile_cache:
        compile_cache.enable()
      if args.dry_run or dry_run.misfit(run):
        code = dry_run.report(run, args.gin_file)
      else:
        xla_flags.check(args.xla_flags, jax.devices()[0])
        code = train(run, args.profile_steps)
    if watch:
      watch.leave()
    return code
  except (KeyboardInterrupt, Terminated) as ended:
    name, code = ('SIGTERM', 143) if isinstance(ended, Terminated) else ('SIGINT', 130)
    line = f'{name}: ended at once'
  except (
    ValueError,
    SyntaxError,
    FileNotFoundError,
    ModuleNotFoundError,
    SkippedTooMuch,
  ) as error:
    return _end(watch, 1, f'error: {error}')
  except Exception as error:
    if watch:
      watch.wait_for_blame()
    if not isinstance(error, CheckpointError | OSError):  # a full disk, a folder that is not ours
      if not watch:
        raise
      traceback.print_exc()
    code, line = 1, f'error: {error}'
  return _end(watch, code, line, f'; {_where_it_goes_on(run)}')


def _end(watch: distributed.Watch | None, code: int, line: str, how: str = '') -> int:
  if watch:
    watch.end(code, line, how)
  print(line + how, file=sys.stderr)
  return code


def _where_it_goes_on(run: Run | None) -> str:
  last = None if run is None else run_directory.last_checkpoint(pathlib.Path(run.directory))
  if last is None:
    where = '' if run is None else f' in {run.directory}'
    return f'nothing has been saved{where}, and the same command begins anew.'
  return f'the last checkpoint in {run.directory} is of step {last:,}, and the same command goes on there.'


if __name__ == '__main__':
  sys.exit(main(ARGUMENTS))
