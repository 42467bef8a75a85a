"""The words of a lexicon with each other's translations: a control for what substitution teaches.

  python tools/shuffle_lexicon.py tasks/sample/en-tr.tsv tasks/sample/en-tr.shuffled.tsv --target tr

A run that replaces words by these replaces exactly as many, and the same ones, as a run with the true
lexicon: the sources are the same, and what is drawn depends on the word's place alone. What goes in are as many
target words, of the same list, which mean something else. In: a lexicon in any format that `LinkPolicy.lexicon` takes.
Out: pairs, a line each, in the order of the lexicon; the same for the same --seed.

Easy to get wrong: a word keeps its one wrong translation in the whole run, so that a model can learn the
list by heart, and what it learns then is a cipher. The control is for meaning, not for consistency.
"""

import argparse
import pathlib
import random
import sys

from jaxlink.link.lexicon import Lexicon


def shuffled(lexicon: Lexicon, seed: int) -> list[tuple[str, str]]:
  """The lexicon's pairs with the targets dealt out anew.

  Each source keeps its number of targets, and each target its number of sources. No source has a target that
  it had before, itself, or the same target twice.

  Raises:
    ValueError: that cannot be done: the lexicon is too small, or most of its pairs have one target.
  """
  sources = [source for source, targets in lexicon.entries.items() for _ in targets]
  targets = [target for found in lexicon.entries.values() for target in found]
  random.Random(seed).shuffle(targets)
  generator = random.Random(seed + 1)
  given: dict[str, list[str]] = {}
  for source, target in zip(sources, targets, strict=True):
    given.setdefault(source, []).append(target)

  def allowed(source: str, target: str, others: list[str]) -> bool:
    return target not in (*lexicon.entries[source], *others) and target.casefold() != source

  places = [(source, k) for source, found in given.items() for k in range(len(found))]
  for _ in range(100):
    wrong = [(s, k) for s, k in places if not allowed(s, given[s][k], _without(given[s], k))]
    if not wrong:
      return [(source, target) for source, found in given.items() for target in found]
    for source, k in wrong:
      other, j = generator.choice(places)
      given[source][k], given[other][j] = given[other][j], given[source][k]
  raise ValueError(
    f'{len(wrong)} of {len(places)} pairs found no other target in 100 rounds: the lexicon has too few words.'
  )


def _without(found: list[str], k: int) -> list[str]:
  return found[:k] + found[k + 1 :]


def main() -> int:
  """Runs the command and returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('lexicon', help='file of the lexicon')
  parser.add_argument('out', help='the list to write')
  parser.add_argument('--source', default='en', help='language of the words (en)')
  parser.add_argument('--target', default='', help='language of the translations, such as tr')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  try:
    lexicon = Lexicon.load(args.lexicon, source=args.source, target=args.target)
    pairs = shuffled(lexicon, args.seed)
    text = ''.join(f'{source}\t{target}\n' for source, target in pairs)
    pathlib.Path(args.out).write_text(text, encoding='utf-8')
    again = Lexicon.load(args.out, source=args.source, target=args.target)
    if {k: len(v) for k, v in again.entries.items()} != {
      k: len(v) for k, v in lexicon.entries.items()
    }:
      lost = sorted(lexicon.entries.keys() ^ again.entries.keys())
      raise ValueError(
        f'{args.out} reads back with other words: {", ".join(lost[:5]) or "fewer senses"}.'
      )
  except (ValueError, FileNotFoundError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  print(f'{args.out}: {len(pairs):,} pairs of {len(lexicon.entries):,} words')
  return 0


if __name__ == '__main__':
  sys.exit(main())
