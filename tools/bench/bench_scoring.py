"""How fast evaluation items are scored, beside the bare forward pass over as many tokens.

  python tools/bench/bench_scoring.py --gin_file=gin/model/tiny.gin
  python tools/bench/bench_scoring.py --gin_file=gin/model/137m.gin --items 200

Random parameters of a recipe's shape. The items are made of the sample's held-out lines: a beginning as
context, and two endings, short (minimal pairs, multiple choice) or long (reading). For each kind:

  forward   the compiled evaluation step of training (model and loss) on rows of 256 tokens without padding,
            the batch being that of the scorer: real tokens/s
  scored    `Scorer.run` on the packed items, to NumPy arrays on the host: real tokens/s, padding not counted
  texts     the same with tokenising and packing before it, `Scorer.log_likelihoods`

Each is the median of --rounds, which take turns. Prints the ratios to `forward`, and how full the rows are.

Easy to get wrong: threads. All use the cores that the process may use; run nothing beside them.
"""

import argparse
import gzip
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.config import parse
from jaxlink.data.tokenizer import Tokenizer, padded_size
from jaxlink.evaluation.scoring import Request, Scorer
from jaxlink.model import decoder
from jaxlink.model.loss import LossConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.run_model import RunModel

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'
LENGTH = 256


def main() -> None:
  args = _arguments()
  model = _random(args)
  scorer = Scorer(model, batch_tokens=args.batch_tokens)
  count = decoder.parameter_count(model.config).total
  device = model.mesh.devices.flat[0]
  print(
    f'{", ".join(args.gin_file)}: {count / 1e6:.1f}M parameters, {model.config.dtype}, {args.items} items, '
    f'median of {args.rounds}; jax {jax.__version__} on {model.mesh.size} {device.device_kind}'
  )
  print('items      tokens  fill   forward, tokens/s   scored   ratio    texts   ratio')
  for name, begin, end in (('short', 6, 10), ('long', 20, 90)):
    requests = _requests(args.items, begin, end)
    plan = scorer.plan(requests)
    scorer.prepare(plan)
    forward, tokens = _forward(scorer, plan.tokens)
    speeds = _alternate(
      args.rounds,
      (forward, tokens),
      (lambda plan=plan: scorer.run(plan), plan.tokens),
      (lambda requests=requests: scorer.log_likelihoods(requests), plan.tokens),
    )
    bare, scored, whole = speeds
    print(
      f'{name:<7}{plan.tokens:>10,}{plan.tokens / plan.slots:>6.2f}{bare:>20,.0f}{scored:>9,.0f}'
      f'{scored / bare:>8.3f}{whole:>9,.0f}{whole / bare:>8.3f}',
      flush=True,
    )


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gin_file', action='append', required=True)
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--items', type=int, default=1_000)
  parser.add_argument('--batch_tokens', type=int, default=0, help='of the scorer (0 chooses)')
  parser.add_argument('--rounds', type=int, default=5)
  return parser.parse_args()


def _random(args: argparse.Namespace) -> RunModel:
  tokenizer = Tokenizer(str(SAMPLE / 'tokenizer.model'))
  config = parse(DecoderConfig, args.gin_file, args.gin_bindings)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig())
  platform = mesh.devices.flat[0].platform
  config = config.resolve(
    platform=platform, vocabulary=padded_size(tokenizer.size), tokenizer_size=tokenizer.size
  )
  _, shapes, names = decoder.abstract_decoder(config)
  params = jax.device_put(
    decoder.init_params(config, jax.random.key(0)), mesh_lib.param_shardings(mesh, shapes, names)
  )
  return RunModel(config, params, tokenizer, tokenizer.bos_id, tokenizer.eos_id, mesh, 'random')


def _requests(items: int, begin: int, end: int) -> list[Request]:
  """Two endings for the beginning of each text of `end` words."""
  with gzip.open(SAMPLE / 'tr.validation.txt.gz', 'rt', encoding='utf-8') as file:
    words = file.read().split()
  requests = []
  for n in range(items):
    at, other = (n * 7) % (len(words) - end), (n * 13 + 5) % (len(words) - end)
    context = ' '.join(words[at : at + begin])
    requests.append((context, ''.join(f' {w}' for w in words[at + begin : at + end])))
    requests.append((context, ''.join(f' {w}' for w in words[other + begin : other + end])))
  return requests


def _forward(scorer: Scorer, tokens: int) -> tuple[Callable[[], None], int]:
  """A pass over about as many tokens, in rows without padding, and how many they are."""
  model = scorer.model
  rows = scorer._rows(max(1, scorer._batch_tokens // LENGTH))
  step = step_lib.make_eval_step(model.config, model.mesh, loss_config=LossConfig())
  abstract = step_lib.abstract_batch(rows, LENGTH, model.mesh)
  compiled = step_lib.compile_eval_step(step, model.params, abstract)
  sharding = mesh_lib.batch_sharding(model.mesh)
  rng = np.random.default_rng(0)

  def batch() -> dict[str, jax.Array]:
    whole = (rows, LENGTH)
    made = {
      'tokens': rng.integers(model.tokenizer.size, size=whole, dtype=np.int32),
      'labels': rng.integers(model.tokenizer.size, size=whole, dtype=np.int32),
      'loss_mask': np.ones(whole, bool),
      'segments': np.ones(whole, np.int32),
      'positions': np.tile(np.arange(LENGTH, dtype=np.int32), (rows, 1)),
      'source': np.zeros(rows, np.int32),
    }
    return {name: jax.device_put(array, sharding) for name, array in made.items()}

  batches = [batch() for _ in range(max(1, tokens // (rows * LENGTH)))]

  def run() -> None:
    jax.block_until_ready([compiled(model.params, one) for one in batches])

  return run, len(batches) * rows * LENGTH


def _alternate(rounds: int, *each: tuple[Callable[[], object], int]) -> list[float]:
  """Median tokens/s of each, which take turns; the first round is not counted."""
  speeds: list[list[float]] = [[] for _ in each]
  for counted in range(rounds + 1):
    for (run, tokens), found in zip(each, speeds, strict=True):
      began = time.perf_counter()
      run()
      if counted:
        found.append(tokens / (time.perf_counter() - began))
  return [statistics.median(found) for found in speeds]


if __name__ == '__main__':
  main()
