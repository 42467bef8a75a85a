"""Makes the sample corpus in tasks/sample from public files (their sources: tasks/sample/README.md).

  python tools/make_sample.py --english enwiki2019_sample.part1.jsonl.gz \\
      --turkish exams_wikipedia_sentences.txt.gz --lexicon eng-tur.turkish.tsv

Turkish comes as sentences without documents, in the order in which a retrieval for exam questions
found them, so neighbours share words: held out is a contiguous block, with a gap on both sides that
is dropped, and held-out sentences that share a word 8-gram with the training text are dropped too.
English holds out whole articles, and drops their paragraphs with a shared 8-gram.
"""

import argparse
import gzip
import json
import re
import shutil
from pathlib import Path

SENTENCES_PER_DOCUMENT = 20
HELD_OUT = range(34_000, 36_500)  # sentences, about 290 kB
GAP = 1_000  # sentences dropped on each side of the block
ENGLISH_TRAIN_BYTES = 6_000_000
ENGLISH_HELD_OUT_BYTES = 250_000
NGRAM = 8


def ngrams(text: str) -> set[tuple[str, ...]]:
  words = re.findall(r'\w+', text.casefold())
  return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def write_gz(path: Path, lines: list[str]) -> None:
  with gzip.GzipFile(path, 'wb', compresslevel=9, mtime=0) as file:
    file.write('\n'.join([*lines, '']).encode())
  print(f'{path}: {path.stat().st_size:,} bytes')


def make_turkish(source: Path, out: Path) -> None:
  sentences = gzip.decompress(source.read_bytes()).decode().split('\n')
  sentences = [s.strip() for s in sentences if s.strip()]
  train = sentences[: HELD_OUT.start - GAP] + sentences[HELD_OUT.stop + GAP :]
  seen = set().union(*map(ngrams, train))
  held_out = [s for s in sentences[HELD_OUT.start : HELD_OUT.stop] if seen.isdisjoint(ngrams(s))]
  print(f'Turkish: {len(train):,} sentences to train on, {len(held_out):,} held out; '
        f'{len(HELD_OUT) - len(held_out)} dropped for a shared {NGRAM}-gram')  # fmt: skip
  for name, part in (('train', train), ('validation', held_out)):
    lines = []
    for start in range(0, len(part), SENTENCES_PER_DOCUMENT):
      lines += [*part[start : start + SENTENCES_PER_DOCUMENT], '']
    write_gz(out / f'tr.{name}.txt.gz', lines[:-1])


def make_english(source: Path, out: Path) -> None:
  articles = [json.loads(line) for line in gzip.decompress(source.read_bytes()).splitlines()]
  size = lambda article: len(article['text'].encode())  # noqa: E731
  held_out: list[dict] = []
  while sum(map(size, held_out)) < ENGLISH_HELD_OUT_BYTES:
    held_out.append(articles.pop())
  train: list[dict] = []
  while sum(map(size, train)) < ENGLISH_TRAIN_BYTES:
    train.append(articles.pop(0))
  seen = set().union(*(ngrams(a['text']) for a in train))
  dropped = 0
  for article in held_out:
    paragraphs = article['text'].split('\n\n')
    kept = [p for p in paragraphs if seen.isdisjoint(ngrams(p))]
    dropped += len(paragraphs) - len(kept)
    article['text'] = '\n\n'.join(kept)
  print(f'English: {len(train)} articles to train on, {len(held_out)} held out; '
        f'{dropped} paragraphs dropped for a shared {NGRAM}-gram')  # fmt: skip
  for name, part in (('train', train), ('validation', held_out)):
    rows = [{key: article[key] for key in ('title', 'url', 'text')} for article in part]
    write_gz(out / f'en.{name}.jsonl.gz', [json.dumps(r, ensure_ascii=False) for r in rows])


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--english', type=Path, required=True)
  parser.add_argument('--turkish', type=Path, required=True)
  parser.add_argument('--lexicon', type=Path, required=True)
  parser.add_argument('--out', type=Path, default=Path(__file__).parents[1] / 'tasks/sample')
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  make_turkish(args.turkish, args.out)
  make_english(args.english, args.out)
  shutil.copyfile(args.lexicon, args.out / 'en-tr.tsv')


if __name__ == '__main__':
  main()
