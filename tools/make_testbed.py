"""Writes the files of a testbed to a folder, to be looked at or used elsewhere.

  python tools/make_testbed.py --to DIR                  both testbeds, in DIR/clone and DIR/facts
  python tools/make_testbed.py clone --to DIR            one of them

Training needs no such call: `tasks.testbed_clone` and `tasks.testbed_facts` make what they read. The files are
the same wherever they are made of the same sample and code. docs/testbeds.md says what is in them.
"""

import argparse
import pathlib
import sys

from jaxlink.testbeds import files


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('testbeds', nargs='*', metavar='NAME', help="'clone' or 'facts' (both)")
  parser.add_argument('--to', required=True, metavar='DIR', help='an empty folder, or a new one')
  args = parser.parse_args()
  try:
    writers = {name: files.writer(name) for name in args.testbeds or ('clone', 'facts')}
    for name, write in writers.items():
      folder = pathlib.Path(args.to) / name
      if folder.exists() and any(folder.iterdir()):
        raise ValueError(f'--to {args.to}: {folder} holds files already.')
      folder.mkdir(parents=True, exist_ok=True)
      write(folder)
      for path in sorted(folder.iterdir()):
        print(f'{path}: {path.stat().st_size:,} bytes')
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
