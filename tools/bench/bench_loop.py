"""What the training loop costs over its bare compiled step, and what the loader gives.

  python tools/bench/bench_loop.py --gin_file=gin/quickstart.gin --steps 100

Runs, in turn and twice: the same compiled step called in a plain loop on one batch that stays on the
device, and the real loop (loader, metrics one step late, stop signal, checkpoints off). Prints tokens/s,
their ratio, and what `Batches.read` alone gives. The recipe's cache must exist.
"""

import argparse
import functools
import statistics
import tempfile
import time

import jax

from jaxlink import accounts, config, metrics, report_data, setup, stage_data, train
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.data.loader import Loader
from jaxlink.stage import Run
from jaxlink.stop import Stop


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gin_file', default='gin/quickstart.gin')
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--steps', type=int, default=100)
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  run = config.parse(Run, [args.gin_file], args.gin_bindings)
  stage = run.stages[0]

  data = stage_data.open_stages(run)
  part = data.stages[0]
  batches = part.batches
  plan = setup.make_plans(run, data)[0]
  step = plan.compile_step(run)
  sharding = mesh_lib.batch_sharding(plan.mesh)

  def bare() -> float:
    with Loader(batches, sharding, start=0, stop=1) as loader:
      batch = loader[0]
    state = step_lib.init_state(plan.model, plan.optimizer, plan.mesh, run.seed_init)
    state, values = step(state, batch)
    jax.block_until_ready(values)
    began = time.perf_counter()
    for _ in range(args.steps):
      state, values = step(state, batch)
    jax.block_until_ready((state, values))
    return args.steps * stage.tokens_per_step / (time.perf_counter() - began)

  def loop() -> float:
    state = step_lib.init_state(plan.model, plan.optimizer, plan.mesh, run.seed_init)
    with tempfile.TemporaryDirectory() as folder:
      log = metrics.Metrics(folder)
      logger = metrics.Logger(log, steps=args.steps + 1, tokens_at=run.tokens_at)
      logger.begin_stage(flatten=accounts.Accounts(batches.mixture.names, batches.count_names).take)
      with Stop() as stop, Loader(batches, sharding, start=0, stop=args.steps + 1) as loader:
        for index in range(args.steps + 1):
          state, values = step(state, loader[index])
          known = train.host_metrics(run, 0, index + 1, part, loader)
          note = functools.partial(report_data.describe_repetitions, part, index + 1)
          logger.log(index + 1, values, known, note)
          stop.requested()
          if index == 0:
            jax.block_until_ready(state)
            began = time.perf_counter()
        logger.close()
        jax.block_until_ready(state)
        seconds = time.perf_counter() - began
      log.close()
    return args.steps * stage.tokens_per_step / seconds

  def reading() -> float:
    began = time.perf_counter()
    for index in range(args.steps):
      batches.read(index, range(stage.batch))
    return args.steps * stage.tokens_per_step / (time.perf_counter() - began)

  rows = [(bare(), loop(), reading()) for _ in range(args.rounds)]
  print(f'{args.gin_file}: {stage.batch} x {stage.sequence_length} tokens a step, {args.steps} steps a round, '
        f'jax {jax.__version__} on {jax.devices()[0].device_kind}')  # fmt: skip
  print('round   bare step, tokens/s   loop, tokens/s   loop / bare   reading alone, tokens/s')
  for index, (one, two, three) in enumerate(rows):
    print(f'{index:>5} {one:>21,.0f} {two:>16,.0f} {two / one:>13.3f} {three:>25,.0f}')
  print(f'median ratio {statistics.median(two / one for one, two, _ in rows):.3f}')


if __name__ == '__main__':
  main()
