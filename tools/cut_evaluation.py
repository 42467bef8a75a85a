"""Cuts published evaluation files down to what tasks/evaluation ships (their sources: its README.md).

  python tools/cut_evaluation.py DATA --out tasks/evaluation

DATA is a folder with the files as their repositories have them: xcopa/tr/test.tr.jsonl, blimp/BLiMP.zip and so
on. Kept of a file are lines at equal distances, the first among them, so that nothing is chosen; of files that
are parallel over languages the same lines. Output is the same bytes on every run.

Easy to get wrong: taking a cut set's score for the set's. Its identity differs, and its interval is wide.
"""

import argparse
import gzip
import io
import json
import zipfile
from pathlib import Path

EVERY = 0  # of `keep`: all lines
FILES = {  # file: lines to keep
  **{f'xcopa/{code}/test.{code}.jsonl': EVERY for code in ('tr', 'vi', 'sw')},
  **{
    f'sib200/{folder}/{split}.tsv': EVERY
    for folder in ('eng_Latn', 'swh_Latn', 'tur_Latn', 'vie_Latn') for split in ('train', 'dev', 'test')
  },
  **{f'flores200/{code}_Latn.devtest': 300 for code in ('eng', 'swh', 'tur', 'vie')},
  **{f'ntrex128/newstest2019-{name}.txt': 200 for name in ('src.eng', 'ref.swa', 'ref.tur', 'ref.vie')},
  **{f'mgsm/mgsm_{code}.tsv': 100 for code in ('en', 'sw')},
}  # fmt: skip
TABLES = 60  # pairs of each TurBLiMP file
PAIRS = 20  # of each BLiMP paradigm
SENTENCES = 60  # of each language of XWinograd
PARAGRAPHS = 24  # of XQuAD
WHOLE = ('exams/crosslingual.dev_tr.jsonl.tar.gz', 'exams/crosslingual.dev_vi.jsonl.tar.gz')


def keep(found: list, count: int) -> list:
  """Returns `count` entries at equal distances; all for EVERY."""
  return [found[k * len(found) // count] for k in range(count)] if count else found


def lines_of(path: Path) -> list[bytes]:
  """Returns the lines of a file, packed or not."""
  packed = path.with_name(path.name + '.gz')
  data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
  return data.splitlines(keepends=True)


def write(path: Path, data: bytes, *, pack: bool = True) -> None:
  """Writes a file, packed by gzip without a time."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if pack:
    path, data = path.with_name(path.name + '.gz'), gzip.compress(data, 9, mtime=0)
  path.write_bytes(data)
  print(f'{path}: {len(data):,} bytes')


def cut_blimp(source: Path) -> bytes:
  """Returns BLiMP.zip with some pairs of each paradigm."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(source) as old, zipfile.ZipFile(buffer, 'w') as new:
    for name in sorted(old.namelist()):
      if name.startswith('data/') and name.endswith('.jsonl'):
        data = b''.join(keep(old.read(name).splitlines(keepends=True), PAIRS))
        new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)
  return buffer.getvalue()


def cut_xquad(source: Path) -> bytes:
  """Returns an XQuAD file with some paragraphs, whatever their articles."""
  articles = json.loads(b''.join(lines_of(source)))['data']
  paragraphs = keep([p for article in articles for p in article['paragraphs']], PARAGRAPHS)
  return json.dumps({'data': [{'paragraphs': paragraphs}]}, ensure_ascii=False).encode()


def cut_xwinograd(source: Path) -> bytes:
  """Returns the XWinograd file with some sentences of each language."""
  found: dict[bytes, list[bytes]] = {}
  for line in lines_of(source):
    found.setdefault(line.split(b'\t')[0], []).append(line)
  return b''.join(
    line for lines in found.values() for line in keep(lines, min(SENTENCES, len(lines)))
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('data', type=Path, help='folder with the published files')
  parser.add_argument('--out', type=Path, default=Path('tasks/evaluation'))
  args = parser.parse_args()
  for name, count in FILES.items():
    write(args.out / name, b''.join(keep(lines_of(args.data / name), count)))
  for path in sorted(args.data.glob('turblimp/*.csv*')):
    header, *rows = lines_of(path)
    write(args.out / 'turblimp' / path.name, b''.join([header, *keep(rows, TABLES)]))
  write(args.out / 'blimp/BLiMP.zip', cut_blimp(args.data / 'blimp/BLiMP.zip'), pack=False)
  for language in ('en', 'tr', 'vi'):
    name = f'xquad/xquad.{language}.json'
    write(args.out / name, cut_xquad(args.data / name))
  write(args.out / 'xwinograd/dataset.tsv', cut_xwinograd(args.data / 'xwinograd/dataset.tsv'))
  for name in WHOLE:
    write(args.out / name, (args.data / name).read_bytes(), pack=False)


if __name__ == '__main__':
  main()
