"""Compiles a recipe's real train step for a pod that is not here, and says what it will take.

  python tools/aot_compile.py --topology v5p:4x4x2 --gin_file=gin/1b_link.gin
  python tools/aot_compile.py --topology v5e:16x16 --gin_file=gin/1b_link.gin --gin_bindings 'MeshConfig.fsdp = 256'
  python tools/aot_compile.py --topology h100:8 --gin_file=gin/1b_link.gin --gin_bindings 'MeshConfig.fsdp = 8' --search

Needs no accelerator: libtpu's compiler (pip install libtpu, in an environment of its own) and XLA's for GPUs
(pip install jax-cuda13-plugin) run on any CPU. For each stage it prints memory of a device by kind, flops
with scanned layers in full, collectives with their bytes, and the least time of a step: the slowest of
products, memory traffic and links at the data sheet's rates, so that MFU is at most what is said. A step that
does not fit is named, with the compiler's own figure, and the exit code is 1.

--search compiles remat policies with more and more rows, and tells what each GiB buys. A compile takes half a
minute to two; nothing of a prepared cache is needed, but then DecoderConfig.vocabulary must be stated.
"""

import argparse
import sys


def main() -> None:
  args = _arguments()
  from jaxlink.aot import topology

  topology.prepare()
  import jax

  from jaxlink.aot import command

  try:
    code = command.run(args)
  except (ValueError, TypeError, OSError, ModuleNotFoundError, jax.errors.JaxRuntimeError) as error:
    sys.exit(f'error: {error}')
  sys.exit(code)


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--topology', required=True, metavar='CHIP:SHAPE',
    help='chips: v4, v5e, v5p, v6e, a100, a100-40, h100, h200; shapes: 4x4x2 (v4, v5p), 16x16 (v5e, v6e), '
    '8 (GPUs)',
  )  # fmt: skip
  parser.add_argument(
    '--slices',
    type=int,
    default=1,
    help='TPU slices of that shape; MeshConfig.data is a multiple (1)',
  )
  parser.add_argument(
    '--gin_file', action='append', required=True, help='a recipe, such as gin/1b_link.gin'
  )
  parser.add_argument(
    '--gin_bindings', action='append', default=[], metavar='BINDING',
    help="a setting that wins over the recipe's, such as 'Stage.batch = 256'; repeatable",
  )  # fmt: skip
  parser.add_argument('--search', action='store_true', help='remat policies by rows of a device')
  parser.add_argument(
    '--most_rows',
    type=int,
    default=64,
    metavar='N',
    help='rows of a device where the search ends (64)',
  )
  parser.add_argument('--json', default='', metavar='FILE', help='write all figures there')
  return parser.parse_args()


if __name__ == '__main__':
  main()
