"""What `xz -9e` needs for the sample's held-out text: alone, and given the training text.

  python tools/bench/xz_reference.py

Bits per byte of text. "Given" is the size of training and held-out text compressed together, less that of
the training text alone: what a compressor that has read the training text still pays.
"""

import lzma

from jaxlink.data import sources

FILES = {'tr': 'tasks/sample/tr.{}.txt.gz', 'en': 'tasks/sample/en.{}.jsonl.gz'}


def size(text: bytes) -> int:
  """Returns the compressed size in bytes."""
  return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
  print('language   held-out bytes   alone   given the training text')
  for language, pattern in FILES.items():
    train, held_out = (
      '\n'.join(d.text for d in sources.read_documents(pattern.format(split))).encode() + b'\n'
      for split in ('train', 'validation')
    )
    alone = 8 * size(held_out) / len(held_out)
    given = 8 * (size(train + held_out) - size(train)) / len(held_out)
    print(f'{language:<10} {len(held_out):>14,} {alone:>7.3f} {given:>25.3f}')


if __name__ == '__main__':
  main()
