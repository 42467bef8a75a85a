"""The training step: tokens/s, MFU, memory and compile time by size and attention, beside PyTorch.

  python tools/bench/bench_step.py                                          the small shape, on this machine
  python tools/bench/bench_step.py --python ENV/bin/python                  and PyTorch in another environment
  python tools/bench/bench_step.py --sizes 137m,1b --attention xla,pallas --remat full,dots --json OUT.json

Every row is a real step (jaxlink.step: loss, gradient, clipping, AdamW, metrics by source), compiled and
called on one batch that stays on the device; a step is timed until its loss is known on the host. Ours and PyTorch's
take turns, each alone on the device, `--rounds` times; the median of all steps counts. PyTorch's is `pytorch_step.py`, a model of the
same shape, compiled and eager, with the fastest attention that it has for the task, in a process of its own.

MFU is `model.shape.flops_per_token` (6 for each parameter that multiplies a token, and the lower half of the
attention square; nothing for what remat computes again; a packed row counts as one document) times tokens/s,
over the device's dense bfloat16 peak (`jaxlink.chips`); a CPU has none. Memory is what XLA's
analysis of the executable says (arguments and temporaries); of PyTorch it is the allocator's peak.

Easy to get wrong: rows of one document and packed rows cost PyTorch differently. `--documents` says how many
a row has; on a CPU it is 1 unless asked, since PyTorch has no fast packed attention there.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs the card, too

import jax
import numpy as np
import tqdm

from jaxlink import config, metrics
from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.model.decoder import parameter_count
from jaxlink.model.loss import LossConfig
from jaxlink.model.shape import DecoderConfig, flops_per_token
from jaxlink.optimizer import OptimizerConfig, make_optimizer, make_schedule

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {'layers': 4, 'width': 256, 'heads': 4, 'feedforward': 688, 'vocabulary': 8192}
# name: (batch, length) on one device
BATCHES = {'small': (16, 256), 'tiny': (16, 256), '137m': (32, 2048), '1b': (8, 2048)}


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  split = lambda text: text.split(',')  # noqa: E731
  parser.add_argument('--sizes', type=split, default=['small'], help='small, tiny, 137m, 1b')
  parser.add_argument(
    '--attention', type=split, default=['auto'], help='back ends, see DecoderConfig'
  )
  parser.add_argument('--remat', type=split, default=[''], help="policies; '' keeps the size's own")
  parser.add_argument('--batch', type=int, default=0, help="rows of a batch; 0 takes the size's")
  parser.add_argument('--length', type=int, default=0, help="tokens of a row; 0 takes the size's")
  parser.add_argument('--documents', type=int, default=0, help='in a row; 0: 1 on a CPU, else 4')
  parser.add_argument('--dtype', default='auto', help='auto, float32 or bfloat16')
  parser.add_argument('--steps', type=int, default=10, help='timed in each round')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--python', help='an interpreter with torch, for the rows of PyTorch')
  parser.add_argument(
    '--modes', type=split, default=['compiled'], help='of PyTorch: compiled, eager'
  )
  parser.add_argument('--json', help='file to write the figures to')
  return parser.parse_args()


class Ours:
  """A compiled step; its state and batch are on the device only while it is measured."""

  def __init__(self, model: DecoderConfig, batch: int, length: int, documents: int):
    self.model, self.batch, self.length, self.documents = model, batch, length, documents
    self.mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
    settings = OptimizerConfig()
    self.optimizer = make_optimizer(settings, 1000)
    step = step_lib.make_train_step(
      model, self.optimizer, make_schedule(settings, 1000), self.mesh,
      loss_config=LossConfig(), n_sources=2,
    )  # fmt: skip
    abstract = step_lib.abstract_state(model, self.optimizer, self.mesh)
    began = time.perf_counter()
    self.step = step_lib.compile_step(
      step, abstract, step_lib.abstract_batch(batch, length, self.mesh)
    )
    self.compile_seconds = time.perf_counter() - began
    memory = self.step.memory_analysis()
    self.bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes

  def measure(self, steps: int) -> dict:
    """Figures of one round: seconds of each step after two that are not counted."""
    state = step_lib.init_state(self.model, self.optimizer, self.mesh, 0)
    batch = jax.device_put(self._arrays(), mesh_lib.batch_sharding(self.mesh))
    seconds = []
    for _ in range(steps + 2):
      began = time.perf_counter()
      state, values = self.step(state, batch)
      float(values['loss'])
      seconds.append(time.perf_counter() - began)
    return {'seconds': seconds[2:], 'first': self.compile_seconds, 'bytes': self.bytes}

  def _arrays(self) -> dict[str, np.ndarray]:
    B, T = self.batch, self.length
    tokens = np.random.default_rng(0).integers(0, self.model.vocabulary, (B, T + 1))
    at = np.arange(T, dtype=np.int32)
    return {
      'tokens': tokens[:, :-1].astype(np.int32),
      'labels': tokens[:, 1:].astype(np.int32),
      'loss_mask': np.ones((B, T), bool),
      'segments': np.tile(1 + at // (T // self.documents), (B, 1)),
      'positions': np.tile(at % (T // self.documents), (B, 1)),
      'source': np.zeros(B, np.int32),
    }


def pytorch(python: str, shape: dict, mode: str) -> dict | str:
  """Figures of PyTorch's step, or the last line of its error."""
  asked = json.dumps(shape | {'compile': mode == 'compiled'})
  done = subprocess.run(
    [python, pathlib.Path(__file__).with_name('pytorch_step.py'), asked],
    capture_output=True, text=True, timeout=1200, check=False,
  )  # fmt: skip
  if done.returncode:
    return (done.stderr.strip().splitlines() or ['no output'])[-1]
  return json.loads(done.stdout.strip().splitlines()[-1])


def sized(name: str) -> DecoderConfig:
  """The shape of a name."""
  if name == 'small':
    return DecoderConfig(**SMALL)
  if name not in BATCHES:
    sys.exit(f'error: no size {name!r}: {", ".join(BATCHES)}')
  vocabulary = 8192 if name == 'tiny' else 50_304
  return config.parse(
    DecoderConfig,
    [str(ROOT / f'gin/model/{name}.gin')],
    [f'DecoderConfig.vocabulary = {vocabulary}'],
  )


def measure(args: argparse.Namespace, name: str) -> list[dict]:
  """Rows of one size."""
  device = jax.devices()[0]
  base = sized(name)
  batch, length = args.batch or BATCHES[name][0], args.length or BATCHES[name][1]
  documents = args.documents or (1 if device.platform == 'cpu' else 4)
  runs, rows = {}, []
  for attention in args.attention:
    for remat in args.remat:
      changes = {'attention': attention, 'dtype': args.dtype, 'max_length': max(length, 2048)}
      label = f'jaxlink, {attention}, remat {remat or base.remat}'
      try:
        asked = dataclasses.replace(base, **changes, **({'remat': remat} if remat else {}))
        model = asked.resolve(platform=device.platform)
        label = f'jaxlink, {model.attention}, remat {model.remat}'
        runs[label] = Ours(model, batch, length, documents)
      except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        rows.append({'size': name, 'what': label, 'error': str(error).splitlines()[0][:120]})
  model = dataclasses.replace(base, dtype=args.dtype, attention='xla').resolve(
    platform=device.platform
  )
  shape = {key: getattr(model, key) for key in
           ('layers', 'width', 'heads', 'feedforward', 'vocabulary', 'tied_embeddings', 'dtype')}  # fmt: skip
  shape |= {'kv_heads': model.G, 'head_size': model.K, 'batch': batch, 'length': length,
            'documents': documents, 'packed': documents > 1, 'steps': args.steps,
            'device': 'cpu' if device.platform == 'cpu' else 'cuda'}  # fmt: skip
  if args.python:
    for mode in args.modes:
      runs[f'PyTorch, {mode}'] = functools.partial(pytorch, args.python, shape, mode)
  seen: dict[str, list[dict]] = {label: [] for label in runs}
  for _ in tqdm.tqdm(range(args.rounds), desc=name, disable=not sys.stderr.isatty()):
    for label, run in runs.items():
      seen[label].append(run.measure(args.steps) if isinstance(run, Ours) else run())
  flops, peak = flops_per_token(model, length), metrics.peak_flops([device])
  for label, figures in seen.items():
    row = {'size': name, 'what': label, 'batch': batch, 'length': length, 'documents': documents}
    rows.append(row)
    if failed := [f for f in figures if isinstance(f, str)]:
      row['error'] = failed[0]
      continue
    seconds = statistics.median(s for f in figures for s in f['seconds'])
    row['tokens_per_second'] = batch * length / seconds
    row['mfu'] = row['tokens_per_second'] * flops / peak if peak else None
    row |= {key: figures[0].get(key) for key in ('first', 'bytes', 'peak')}
  count = parameter_count(model)
  print(f'{name}: {count.total:,} parameters, {batch} rows of {length} tokens, {documents} documents each, '
        f'{model.dtype}, {flops / 1e6:,.1f} Mflop a token')  # fmt: skip
  return rows


def table(rows: list[dict]) -> str:
  """Rows as text, with the ratio to the first of each size that is PyTorch's, else to the first."""
  lines = [f'{"what":<40} {"tokens/s":>11} {"ratio":>6} {"MFU":>6} {"compile or first step, s":>25} {"GiB":>7} {"peak GiB":>9}']  # fmt: skip
  for size in dict.fromkeys(row['size'] for row in rows):
    mine = [row for row in rows if row['size'] == size]
    base = next((r for r in mine if 'PyTorch' in r['what'] and 'error' not in r), None) or next(
      (r for r in mine if 'error' not in r), None
    )
    for row in mine:
      if 'error' in row:
        lines.append(f'{row["what"]:<40} {row["error"]}')
        continue
      gib = lambda n: '-' if n is None else f'{n / 2**30:.2f}'  # noqa: E731
      ratio = row['tokens_per_second'] / base['tokens_per_second']
      mfu = '-' if row['mfu'] is None else f'{100 * row["mfu"]:.1f} %'
      lines.append(
        f'{row["what"]:<40} {row["tokens_per_second"]:>11,.0f} {ratio:>6.3f} {mfu:>6} '
        f'{row["first"]:>25.1f} {gib(row["bytes"]):>7} {gib(row["peak"]):>9}'
      )
    lines.append(f'ratios: to {base["what"]}' if base else 'nothing ran')
  return '\n'.join(lines)


def main() -> None:
  args = parse()
  rows = [row for size in args.sizes for row in measure(args, size)]
  print(
    f'jax {jax.__version__} on {jax.devices()[0].device_kind}, {args.rounds} rounds of {args.steps} steps'
  )
  print(table(rows))
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == '__main__':
  main()
