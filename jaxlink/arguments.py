"""The training command's arguments, apart from it because it imports JAX, and --help should not wait.

Easy to get wrong: XLA reads its flags when JAX is imported, so they are put into the environment here.
"""

import argparse
import os

from jaxlink import xla_flags


def parse(description: str) -> argparse.Namespace:
  """Returns the arguments of the training command."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.train',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--gin_file', action='append', required=True, help='a recipe, such as gin/quickstart.gin'
  )
  parser.add_argument(
    '--gin_bindings', action='append', default=[], metavar='BINDING',
    help="a setting that wins over the recipe's, such as 'Stage.tokens = 1_000_000'; repeatable",
  )  # fmt: skip
  parser.add_argument(
    '--dry_run', action='store_true', help='lower the step, print its plan, train nothing'
  )
  parser.add_argument(
    '--profile_steps', type=_steps, metavar='FIRST:END',
    help='trace these steps into DIRECTORY/profile, such as 10:13 for the three after step 10',
  )  # fmt: skip
  parser.add_argument(
    '--xla_flags', choices=['none', *xla_flags.PLATFORMS], default='none',
    help='the recommended compiler flags of this hardware (docs/performance.md); none: XLA\'s defaults',
  )  # fmt: skip
  parser.add_argument('--distributed', action='store_true', help='several hosts, found by JAX')
  parser.add_argument('--coordinator_address', help='several hosts: host:port of process 0')
  parser.add_argument('--num_processes', type=int, help='several hosts: how many processes')
  parser.add_argument('--process_id', type=int, help='several hosts: which one this is')
  parser.add_argument(
    '--initialization_timeout', type=int, default=300, metavar='SECONDS',
    help='several hosts: the longest that they wait for one another at the start (300)',
  )  # fmt: skip
  args = parser.parse_args()
  several = args.distributed or args.coordinator_address is not None
  for name in ('num_processes', 'process_id'):
    if getattr(args, name) is not None and not several:
      parser.error(f'--{name} needs --coordinator_address, or --distributed')
  if args.xla_flags != 'none':
    xla_flags.put(args.xla_flags, os.environ)
  return args


def _steps(text: str) -> range:
  first, _, end = text.partition(':')
  if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not FIRST:END, two steps of which the first is less: 10:13 are the three after step 10'
    )
  return range(int(first), int(end))
