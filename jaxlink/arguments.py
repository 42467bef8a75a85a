"""The training command's arguments, apart from it because it imports JAX, and --help should not wait."""

import argparse


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
  return args
