"""The words of a lexicon with each other's translations: a control for what substitution teaches.

  python tools/shuffle_lexicon.py tasks/sample/en-tr.tsv tasks/sample/en-tr.shuffled.tsv --target tr \\
      --text tasks/sample/en.train.jsonl.gz --tokenizer tasks/sample/tokenizer.model

A run that replaces words by these replaces exactly as many, and the same ones, as a run with the true
lexicon: the sources are the same, and what is drawn depends on the word's place alone. What goes in are target
words of the same list which mean something else. They are dealt out among pairs of like kind, with as
many tokens and a capital or none, and neighbours by how often the text has the source: so as many tokens go in,
and words about as frequent. In: a lexicon in any format that `LinkPolicy.lexicon` takes, the text in which words are to be replaced,
its tokenizer. Out: pairs, a line each, in the order of the lexicon; the same for the same --seed.

Easy to get wrong: a word keeps its one wrong translation in the whole run, so that a model can learn the
list by heart, and what it learns then is a cipher. The control is for meaning, not for consistency. Nor does a
word come where its own kind does: a noun may stand for a verb.
"""

import argparse
import collections
import itertools
import pathlib
import random
import sys
from collections.abc import Callable, Iterable, Mapping

from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.substitute import substitute
from jaxlink.link.words import key

WINDOW = 8  # pairs among which targets are dealt out


def shuffled(
  lexicon: Lexicon, size: Callable[[str], int], counts: Mapping[str, int], seed: int
) -> list[tuple[str, str]]:
  """The lexicon's pairs with the targets dealt out anew among pairs of like kind.

  Each source keeps its number of targets, and each target its number of sources. No source has a target that
  it had before, itself, or the same target twice.

  Args:
    size: of a target, in tokens.
    counts: how often each key of the lexicon is found in the text; those not there are never.

  Raises:
    ValueError: that cannot be done: the lexicon is too small, or most of its pairs have one target.
  """
  generator = random.Random(seed)
  pairs = [(source, k) for source, targets in lexicon.entries.items() for k in range(len(targets))]
  generator.shuffle(pairs)  # equals in no order: neighbours in a dictionary share their stem

  kinds = {(source, k): kind(lexicon.entries[source][k], size) for source, k in pairs}
  pairs.sort(
    key=lambda pair: (kinds[pair], -counts.get(pair[0], 0) / len(lexicon.entries[pair[0]]))
  )
  given = {source: list(targets) for source, targets in lexicon.entries.items()}

  def swap(one: tuple[str, int], other: tuple[str, int]) -> None:
    (s, k), (t, j) = one, other
    given[s][k], given[t][j] = given[t][j], given[s][k]

  for _, group in itertools.groupby(pairs, kinds.__getitem__):
    alike = list(group)
    for start in range(0, len(alike), WINDOW):
      window = alike[start : start + WINDOW]
      for k in range(len(window) - 1, 0, -1):
        swap(window[k], window[generator.randrange(k + 1)])

  def allowed(source: str, k: int) -> bool:
    target, others = given[source][k], given[source][:k] + given[source][k + 1 :]
    return target not in (*lexicon.entries[source], *others) and target.casefold() != source

  for attempt in range(100):
    wrong = [at for at, pair in enumerate(pairs) if not allowed(*pair)]
    if not wrong:
      return [(source, target) for source, found in given.items() for target in found]
    for at in wrong:
      near = pairs[max(0, at - WINDOW - attempt) : at + WINDOW + attempt + 1]
      same = [pair for pair in near if kinds[pair] == kinds[pairs[at]] or attempt >= 50]
      swap(pairs[at], generator.choice(same))
  raise ValueError(
    f'{len(wrong)} of {len(pairs)} pairs found no other target in 100 rounds: the lexicon has too few words.'
  )


def kind(target: str, size: Callable[[str], int]) -> tuple[bool, int]:
  """What a target's stand-in has to have alike: a capital or none, and its tokens."""
  return target[0].isupper(), size(target)


def count_sources(lexicon: Lexicon, texts: Iterable[str]) -> collections.Counter[str]:
  """How often substitution finds each key of the lexicon in texts, those of several words included."""
  policy = LinkPolicy(lexicon='counted', language='mul', doc_fraction=1.0, word_ratio=1.0)
  draws = policy.draws(0, 'counted', 0)
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    found = substitute(text, {'mul': lexicon}, policy, draws, document=0)
    counts.update(key(original) for _, _, original, _ in found.sites)
  return counts


def main() -> int:
  """Runs the command and returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('lexicon', help='file of the lexicon')
  parser.add_argument('out', help='the list to write')
  parser.add_argument('--text', required=True, help='file of the text whose words are replaced')
  parser.add_argument('--tokenizer', required=True, help='tokenizer of the runs')
  parser.add_argument('--documents', type=int, default=100, help='of the text, to count (100)')
  parser.add_argument('--source', default='en', help='language of the words (en)')
  parser.add_argument('--target', default='', help='language of the translations, such as tr')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  try:
    lexicon = Lexicon.load(args.lexicon, source=args.source, target=args.target)
    tokenizer = Tokenizer(args.tokenizer)
    texts = (found.text for found in sources.read_documents(args.text))
    counts = count_sources(lexicon, itertools.islice(texts, args.documents))

    def size(word: str) -> int:
      return len(tokenizer.encode(f' {word}'))

    pairs = shuffled(lexicon, size, counts, args.seed)
    true = [target for targets in lexicon.entries.values() for target in targets]
    unlike = sum(
      kind(one, size) != kind(other, size) for one, (_, other) in zip(true, pairs, strict=True)
    )
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
  print(
    f'{args.out}: {len(pairs):,} pairs of {len(lexicon.entries):,} words; {unlike:,} have a target of another '
    'kind, of whose own there were too few'
  )
  return 0


if __name__ == '__main__':
  sys.exit(main())
