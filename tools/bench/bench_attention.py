"""Attention: equality with the reference, and time, of every back end that runs here.

  python tools/bench/bench_attention.py                         on this machine
  python tools/bench/bench_attention.py --platform gpu --json OUT.json
  python tools/bench/bench_attention.py --lengths 2048,8192 --cases packed,window --implementations xla,pallas

A row is a back end on a case: `one` document in each row, `packed` ones, `shared` key-value heads (a
quarter), `window` (a quarter of the row), `soft_cap`. Errors are the largest of the output, and of the
gradients of queries, keys and values, in units of the largest true value; the truth is the reference in
float32 at the highest precision, on the same rounded inputs. A back end is 'ok' if its error is below what
the dtype allows, or no larger than twice that of the reference in that dtype. A row says why not where a
back end cannot do the case, or not here. On a CPU the kernels run in the interpreter: their equality counts,
their time does not, and the default shape is small.

Time is the median of forward and backward together, of `--rounds` rounds in which the back ends take turns;
the ratio is to the reference in the same dtype. Tflop/s counts 6·H·K·(T + 1) for each token, as
`model.shape.flops_per_token` does: the lower half of the square, also where a window or segments leave less.

Easy to get wrong: the reference holds B·H·T·T scores in float32, 4 GiB for 8 rows of 2,048 with 32 heads.
Exit code 1 if any error is too large, or a kernel fails on the machine that it is for.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import sys
import time

CASES = {
  'one': {},
  'packed': {},
  'shared': {},
  'window': {},
  'soft_cap': {'soft_cap': 30.0},
}
# Of float32 products: a GPU and a TPU round their inputs to fewer bits unless asked not to.
BOUNDS = {('cpu', 'float32'): 1e-5, 'float32': 5e-3, 'bfloat16': 2e-2}


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  split = lambda text: text.split(',')  # noqa: E731
  numbers = lambda text: [int(one) for one in text.split(',')]  # noqa: E731
  parser.add_argument('--platform', choices=['cpu', 'gpu', 'tpu'], help='by default the best here')
  parser.add_argument('--implementations', type=split, help='by default all')
  parser.add_argument('--cases', type=split, default=list(CASES), help=', '.join(CASES))
  parser.add_argument('--dtypes', type=split, default=['float32', 'bfloat16'])
  parser.add_argument('--rows', type=int, default=0, help='of a batch; 0: 2 on a CPU, else 8')
  parser.add_argument('--lengths', type=numbers, help='of a row: 256 on a CPU, else 2048')
  parser.add_argument('--heads', type=int, default=0, help='0: 4 on a CPU, else 16')
  parser.add_argument('--head_size', type=int, default=0, help='0: 32 on a CPU, else 128')
  parser.add_argument('--documents', type=int, default=4, help='in a packed row')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--json', help='file to write the figures to')
  return parser.parse_args()


@dataclasses.dataclass
class Row:
  """A back end on a case; errors and times are None where `why_not` says why it did not run."""

  case: str
  length: int
  dtype: str
  implementation: str
  why_not: str = ''
  interpreted: bool = False
  forward_error: float | None = None
  gradient_error: float | None = None
  ok: bool | None = None
  seconds: float | None = None
  ratio: float | None = None
  tflops: float | None = None

  def __str__(self) -> str:
    start = f'{self.case:<9} {self.length:>6} {self.dtype:<9} {self.implementation:<8}'
    if self.why_not:
      return f'{start} {self.why_not}'
    note = ' (interpreted)' if self.interpreted else ''
    return (
      f'{start} {self.forward_error:>9.1e} {self.gradient_error:>9.1e} {"ok" if self.ok else "TOO LARGE":<9} '
      f'{self.seconds * 1e3:>9.2f} {self.ratio:>6.2f} {self.tflops:>8.3f}{note}'
    )


HEADER = (
  f'{"case":<9} {"length":>6} {"dtype":<9} {"back end":<8} {"forward":>9} {"gradient":>9} {"":<9} {"ms":>9} '
  f'{"ratio":>6} {"Tflop/s":>8}'
)


def main() -> int:
  args = parse()
  if args.platform:
    os.environ['JAX_PLATFORMS'] = {'gpu': 'cuda'}.get(args.platform, args.platform)
  import jax
  import tqdm

  from jaxlink.model import attention

  try:
    device = jax.devices()[0]
  except (RuntimeError, AssertionError) as error:
    print(f'error: JAX finds no {args.platform or "device"} here. {error}', file=sys.stderr)
    return 1
  small = device.platform == 'cpu'
  args.rows = args.rows or (2 if small else 8)
  args.lengths = args.lengths or ([256] if small else [2048])
  args.heads = args.heads or (4 if small else 16)
  args.head_size = args.head_size or (32 if small else 128)
  names = args.implementations or list(attention.IMPLEMENTATIONS)
  for given, allowed in ((names, attention.IMPLEMENTATIONS), (args.cases, CASES)):
    for name in given:
      if name not in allowed:
        print(f'error: no {name!r}: {", ".join(allowed)}', file=sys.stderr)
        return 1
  if args.heads % 4:
    print(f'error: --heads is {args.heads}: a multiple of 4, for shared heads', file=sys.stderr)
    return 1

  print(
    f'jax {jax.__version__} on {device.device_kind}: {args.rows} rows, {args.heads} heads of '
    f'{args.head_size}, packed rows of {args.documents} documents'
  )
  for platform in ('cpu', 'gpu', 'tpu'):
    print('auto:', *attention.choose('auto', platform, head_size=args.head_size), sep=' ')
  print(HEADER)
  rows = []
  blocks = [(case, T, dtype) for case in args.cases for T in args.lengths for dtype in args.dtypes]
  for block in tqdm.tqdm(blocks, desc='cases', disable=None):
    for row in measure(args, names, device.platform, *block):
      tqdm.tqdm.write(str(row))
      rows.append(row)
  if args.json:
    shape = {name: getattr(args, name) for name in ('rows', 'heads', 'head_size', 'documents')}
    record = {'jax': jax.__version__, 'device': device.device_kind, **shape}
    record['results'] = [dataclasses.asdict(row) for row in rows]
    with open(args.json, 'w', encoding='utf-8') as file:
      json.dump(record, file, indent=1)
  wrong = [row for row in rows if row.ok is False]
  compared = [row for row in rows if row.ok is not None]
  print(f'{len(wrong)} of {len(compared)} differ from the reference, or failed')
  return 1 if wrong else 0


def measure(
  args: argparse.Namespace, names: list[str], platform: str, case: str, T: int, dtype: str
):
  """Rows of all back ends on a case."""
  import jax
  import numpy as np

  inputs = make_inputs(args, case, T, dtype)
  options = dict(CASES[case], **({'window': T // 4} if case == 'window' else {}))
  with jax.default_matmul_precision('highest'):
    wide = [x.astype('float32') for x in inputs[:4]]
    truth = program('xla', False, options)(*wide, inputs[4])
  rows, runs = [], {}
  for name in ('xla', *(name for name in names if name != 'xla')):
    here = refusal(name, platform)
    row = Row(case, T, dtype, name, interpreted=bool(here) and platform == 'cpu')
    rows.append(row)
    if here and not row.interpreted:
      row.why_not = here
      continue
    try:
      run = program(name, row.interpreted, options)
      values = jax.block_until_ready(run(*inputs))
    except ValueError as error:  # a refusal
      row.why_not = str(error)
      continue
    except jax.errors.JaxRuntimeError as error:  # too little memory, or what a compiler rejects
      row.why_not, row.ok = f'FAILED: {error}'.splitlines()[0][:160], False
      continue
    runs[name] = run
    errors = [
      float(np.abs(np.float32(one) - true).max() / np.abs(true).max())
      for one, true in zip(map(np.asarray, values), map(np.asarray, truth), strict=True)
    ]
    row.forward_error, row.gradient_error = errors[0], max(errors[1:])
    bound = BOUNDS.get((platform, dtype), BOUNDS[dtype])
    reference = rows[0]
    row.ok = bool(
      row.forward_error <= max(bound, 2 * reference.forward_error)
      and row.gradient_error <= max(bound, 2 * reference.gradient_error)
    )
  times = {name: [] for name in runs}
  for _ in range(args.rounds):
    for name, run in runs.items():
      began = time.perf_counter()
      jax.block_until_ready(run(*inputs))
      times[name].append(time.perf_counter() - began)
  flops = 6 * args.heads * args.head_size * (T + 1) * args.rows * T
  for row in rows:
    if row.implementation in times:
      row.seconds = statistics.median(times[row.implementation])
      row.ratio = row.seconds / statistics.median(times['xla'])
      row.tflops = flops / row.seconds / 1e12
  return [row for row in rows if row.implementation in names]


def make_inputs(args: argparse.Namespace, case: str, T: int, dtype: str):
  """Queries, keys, values, the output's gradient, and segments with some padding at the end."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  H = args.heads
  G = H // 4 if case == 'shared' else H
  keys = jax.random.split(jax.random.key(0), 4)
  arrays = [
    jax.random.normal(key, (args.rows, T, heads, args.head_size), dtype)
    for key, heads in zip(keys, (H, G, G, H), strict=True)
  ]
  segments = np.ones((args.rows, T), np.int32)
  if case != 'one':
    rng = np.random.default_rng(0)
    for row in segments:
      cuts = np.sort(rng.choice(np.arange(1, T), args.documents, replace=False))
      row[:] = (1 + np.searchsorted(cuts, np.arange(T), side='right')) % (args.documents + 1)
  return [*arrays, jnp.asarray(segments)]


@functools.cache
def _program(name, interpret, options):
  import jax
  import jax.numpy as jnp

  from jaxlink.model import attention

  def both(q, k, v, gradient, segments):
    def scalar(q, k, v):
      out = attention.attend(
        q, k, v, segments, implementation=name, interpret=interpret, **dict(options)
      )
      return jnp.sum(out.astype(jnp.float32) * gradient.astype(jnp.float32)), out

    (_, out), gradients = jax.value_and_grad(scalar, (0, 1, 2), has_aux=True)(q, k, v)
    return out, *gradients

  return jax.jit(both)


def program(name: str, interpret: bool, options: dict):
  """Output and gradients, compiled once for each shape."""
  return _program(name, interpret, tuple(sorted(options.items())))


def refusal(name: str, platform: str) -> str:
  """Why a back end is not for this platform; '' if it is."""
  from jaxlink.model import attention

  try:
    attention.choose(name, platform)
  except ValueError as error:
    return str(error)
  return ''


if __name__ == '__main__':
  sys.exit(main())
