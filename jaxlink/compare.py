"""`python -m jaxlink.compare`: runs held against one another, by score, with intervals over seeds.

  python -m jaxlink.compare runs/mixing-0 runs/mixing-1 runs/link-0 runs/link-1 --html compare.html
  python -m jaxlink.compare mixing=runs/a,runs/b link=runs/c,runs/d --differs link
  python -m jaxlink.compare studies/link_tr --baseline mixing --monolingual studies/pools

Runs whose configurations differ in seeds only are one setting. NAME=DIR,DIR names one; a folder of runs and a
study's folder (STUDY/SETTING/RUN) stand for the runs in them. Every other setting is held against the baseline:
its curve over trained tokens, the difference of its last score, and how many tokens it needs to the best score
that both reach. Runs with the same seeds are pairs.

Runs with other tokenizers, other versions of a set or held-out text in other windows are refused. Where more
differs than was named (--differs), it warns.

Easy to get wrong: one seed. It gives no interval, and so no verdict: with two seeds of each setting the
intervals are wide, with three they begin to be useful.
"""

import argparse
import json
import os
import pathlib
import sys


def main() -> None:
  args = _arguments()
  try:
    run(args)
    sys.stdout.flush()
  except BrokenPipeError:  # whoever read has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


def run(args: argparse.Namespace) -> None:
  """Reads, compares, prints and writes."""
  from jaxlink.comparing import comparison, results, runs, terminal

  found = comparison.compare(
    runs.read_settings(args.runs),
    baseline=args.baseline,
    level=args.level,
    meant=[name for name in args.differs.split(',') if name],
    scores=args.scores,
    language=args.language,
    across_tokenizers=args.across_tokenizers,
    monolingual=runs.read_settings(args.monolingual),
  )
  print(terminal.describe(found))
  written = []
  if args.json:
    text = json.dumps(results.to_json(found), ensure_ascii=False, indent=1, allow_nan=False)
    written.append(_write(args.json, text + '\n'))
  if args.html:
    from jaxlink.comparing import page

    written.append(_write(args.html, page.render(found)))
  if written:
    print(f'\nwritten: {", ".join(written)}')


def _write(path: str, text: str) -> str:
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  pathlib.Path(path).write_text(text, encoding='utf-8')
  return path


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.compare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    'runs', nargs='+', metavar='DIR | NAME=DIR,DIR', help='runs, folders of runs, or a study'
  )
  parser.add_argument(
    '--baseline', default='', metavar='NAME', help='the setting that others are held against (the first)'
  )  # fmt: skip
  parser.add_argument('--html', default='', metavar='FILE', help='one page with plots')
  parser.add_argument('--json', default='', metavar='FILE', help='every number')
  parser.add_argument('--level', type=float, default=0.95, help='of intervals and verdicts (0.95)')
  parser.add_argument(
    '--differs', default='', metavar='NAME,NAME',
    help="what is meant to differ, such as link or learning_rate; warns of anything else",
  )  # fmt: skip
  parser.add_argument(
    '--scores', nargs='+', default=[], metavar='PATTERN',
    help="such as 'xcopa_*' or accuracy_byte; default: all but other normalisations of a number",
  )  # fmt: skip
  parser.add_argument(
    '--language',
    default='',
    help="code of the language that is to gain; default: from the runs' text",
  )
  parser.add_argument(
    '--across_tokenizers', action='store_true', help='lets other tokenizers through; bits per byte alone'
  )  # fmt: skip
  parser.add_argument(
    '--monolingual', nargs='+', default=[], metavar='DIR',
    help='tuned runs on the target language alone, at 3 or more amounts of text: for the data-equivalence multiplier',
  )  # fmt: skip
  return parser.parse_args()


if __name__ == '__main__':
  main()
