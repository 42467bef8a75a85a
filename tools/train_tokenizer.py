"""Trains a tokenizer on several languages, with the same number of bytes of each.

  python tools/train_tokenizer.py --kind sentencepiece --size 8192 \\
      --text en=tasks/sample/en.train.jsonl.gz --text tr=tasks/sample/tr.train.txt.gz \\
      --out tasks/sample/tokenizer.model

Documents are taken in an order fixed by --seed until a language has given --bytes. A language with
less text is read again, up to four times: without that, the language that needs short tokenizations
most would get the fewest merges of its own. The result has byte fallback and loses nothing.
"""

import argparse
import random

from jaxlink.data import sources, tokenizer

MAX_REPEATS = 4


def balanced(texts: dict[str, list[str]], budget: int, seed: int) -> list[str]:
  """Returns documents of every language, about `budget` bytes of each, and prints the shares."""
  sample = []
  for language, documents in texts.items():
    order = documents.copy()
    random.Random(seed).shuffle(order)
    size = sum(len(d.encode()) for d in order)
    if not size:
      raise ValueError(f'The text of {language!r} is empty.')
    taken = 0
    for document in order * min(MAX_REPEATS, -(-budget // size)):
      if taken >= budget:
        break
      sample.append(document)
      taken += len(document.encode())
    print(f'{language}: {size:,} bytes of text, {taken:,} used ({taken / size:.2f} times)')
  return sample


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kind', choices=['sentencepiece', 'byte_level'], default='sentencepiece')
  parser.add_argument('--size', type=int, default=32_768, help='number of ids, specials included')
  parser.add_argument(
    '--text', action='append', required=True, metavar='LANGUAGE=PATH',
    help='.jsonl, .txt or .parquet, compressed or not (.gz, .bz2, .xz, .zst); a glob is allowed; repeat for each language',
  )  # fmt: skip
  parser.add_argument('--text_key', default='text', help='the field that holds the text')
  parser.add_argument('--bytes', type=int, default=20_000_000, help='bytes taken of each language')
  parser.add_argument('--seed', type=int, default=0, help='of the order of documents')
  parser.add_argument('--out', required=True, help='.model for sentencepiece, .json for byte_level')
  args = parser.parse_args()

  texts: dict[str, list[str]] = {}
  for pair in args.text:
    language, equals, pattern = pair.partition('=')
    if not equals:
      parser.error(f'--text {pair}: write LANGUAGE=PATH, such as tr=turkish.txt.gz')
    for path in sources.expand(pattern):
      documents = sources.read_documents(path, text_key=args.text_key)
      texts.setdefault(language, []).extend(d.text for d in documents)

  train = {
    'sentencepiece': tokenizer.train_sentencepiece,
    'byte_level': tokenizer.train_byte_level,
  }[args.kind]
  train(balanced(texts, args.bytes, args.seed), args.size, args.out)
  trained = tokenizer.Tokenizer(args.out)
  print(f'{args.out}: {trained.size:,} ids, sha256 {trained.sha256[:16]}')
  for language, documents in texts.items():
    held = documents[-50:]
    ids = sum(len(trained.encode(d)) for d in held)
    lost = sum(trained.decode(trained.encode(d)) != d for d in held)
    print(f'{language}: {sum(len(d.encode()) for d in held) / ids:.2f} bytes per token, {lost} texts changed by a round trip')  # fmt: skip
    if lost:
      raise SystemExit(f'{args.out} loses text of {language!r}.')


if __name__ == '__main__':
  main()
