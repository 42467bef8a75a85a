"""Reads damaged files made from the sample corpus, and checks that nothing goes missing unsaid.

  python tools/fuzz_sources.py --seeds 10000

Each seed takes a few documents of tasks/sample, damages their lines, writes them in one of the formats
and compressions that are read, damages the bytes, and reads the file: once so that what is bad is an
error, twice so that it is counted, and once by three readers. What must hold:

- The error is a `BadDocument` that names the file, and comes exactly if something is counted.
- What is counted and what is read is all there is, by a count that knows nothing of the reader
  (`tools/fuzz_sources_counts.py`): the same texts in the same order for files made of lines, the
  same number for rows and records.
- Two readings are the same, and three readers find and count what one does, each thing once.
- It ends within the time for a case.

Prints a table of the formats, and each case that fails with its seed. Runs without a network.

Easy to get wrong: damage that is always found at once. Most of a packed file's damage breaks it, so
the lines are damaged too, before they are packed.
"""

import argparse
import bz2
import collections
import contextlib
import dataclasses
import faulthandler
import gzip
import json
import lzma
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from array_record.python import array_record_module

from jaxlink.data import sources
from jaxlink.data.sources import opening as source_bytes

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is there, not its parent
from tools import fuzz_sources_counts as counts

SAMPLE = Path(__file__).parents[1] / 'tasks/sample'
SECONDS = 20  # for a case
LIMIT = 20_000  # max_document_bytes
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
  '': bytes,
  '.gz': lambda data: gzip.compress(data, mtime=0),
  '.bz2': bz2.compress,
  '.xz': lzma.compress,
  '.zst': zstandard.ZstdCompressor(write_checksum=True).compress,
}
FORMATS = {
  **{f'en.jsonl{suffix}': {} for suffix in COMPRESS},
  **{f'tr.txt{suffix}': {} for suffix in COMPRESS},
  'line.txt': {'documents': 'line'},
  'file.txt.gz': {'documents': 'file'},
  'en.parquet': {},
  'tr.parquet': {},
  'text.array_record': {'records': 'text'},
  'json.array_record': {'records': 'json'},
  'example.array_record': {'records': 'example'},
}
# What has a meaning somewhere, to be put where it has none.
ODD = [
  b'\0', b'\n', b'\r\n', b'\r', b'\xef\xbb\xbf', b'\xff', b'\xc3', b'\xed\xa0\x80', b'\xe3\x80\x80',
  b'\xc2\x85', b'\x1c', b' ', b'"', b'\\', b'{', b'}', b'[' * 3000, b'{"text": ' * 1200, b'NaN',
  b'"text"', b'"text": "twice", ', b'\\ud800', b'9' * 5000, b'a' * 30_000, b'\n' * 50, b'PAR1',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sample:
  """Real text: Turkish paragraphs and English articles."""

  turkish: list[str]
  english: list[str]


def load_sample() -> Sample:
  """Reads the held-out part of the sample."""
  turkish = gzip.decompress((SAMPLE / 'tr.validation.txt.gz').read_bytes()).decode()
  lines = gzip.decompress((SAMPLE / 'en.validation.jsonl.gz').read_bytes()).splitlines()
  english = [p for line in lines for p in json.loads(line)['text'].split('\n') if p.strip()]
  return Sample([p[:600] for p in turkish.split('\n\n')], [p[:600] for p in english])


def fuzz(seed: int, sample: Sample, folder: Path) -> tuple[str, str]:
  """Makes the damaged file of a seed in a folder and checks how it is read.

  Returns:
    The file's name, and 'read', 'counted' (some of it is bad) or 'broken' (from some place on).

  Raises:
    AssertionError, or anything else: something does not hold.
  """
  draw = random.Random(seed)
  name = list(FORMATS)[seed % len(FORMATS)]
  settings = {**FORMATS[name], 'max_document_bytes': LIMIT}
  path = folder / name
  path.write_bytes(make(draw, name, sample))

  found, rejected = _read(path, settings)
  with mock.patch.object(
    source_bytes, '_CHUNK', draw.choice([1, 7, 1000])
  ):  # what is read at a time
    assert (found, rejected) == _read(path, settings), 'two readings differ'
  strict, error = _strict(path, settings)
  assert bool(error) == bool(rejected['total']), 'what is counted is no error, or the reverse'
  assert strict == found[: len(strict)] if error else strict == found
  assert not error or str(path) in error, 'the error does not name the file'
  parts = [_read(path, settings, index=i, count=3) for i in range(3)]
  merged = sources.Rejections.merge([r for _, r in parts], [str(path)]).as_dict()
  assert merged == rejected, 'three readers count otherwise'
  assert sorted(t for texts, _ in parts for t in texts) == sorted(found)
  counts.check(path, found, rejected, settings, {*sample.english, *sample.turkish})

  reasons = rejected['by_reason']
  kind = (
    'broken' if any(r.startswith('broken') for r in reasons) else 'counted' if reasons else 'read'
  )
  return name, kind


def _strict(path: Path, settings: dict[str, Any]) -> tuple[list[str], str]:
  """Returns the texts up to the first bad thing, and the error that it is."""
  texts = []
  try:
    for document in sources.read_documents(str(path), **settings):
      texts.append(document.text)
  except sources.BadDocument as error:
    return texts, str(error)
  return texts, ''


def _read(path: Path, settings: dict[str, Any], **share) -> tuple[list[str], dict[str, Any]]:
  rejected = sources.Rejections()
  texts = sources.read_documents(str(path), rejected=rejected, **settings, **share)
  return [d.text for d in texts], rejected.as_dict()


# ── damaged files ─────────────────────────────────────────────────────────────────────────────────


def make(draw: random.Random, name: str, sample: Sample) -> bytes:
  """Returns the bytes of a file of some real documents, damaged before and after it is packed."""
  texts = draw.sample(sample.turkish if 'tr' in name else sample.english, draw.randrange(1, 40))
  if 'parquet' in name:
    data = _parquet(draw, texts)
  elif 'array_record' in name:
    data = _records(draw, texts, name)
  else:
    if 'json' in name:
      lines = [
        json.dumps({'id': i, 'text': t}, ensure_ascii=i % 2 == 0) for i, t in enumerate(texts)
      ]
    else:
      lines = '\n\n'.join(texts).split('\n')
    data = _damage_lines(draw, [line.encode() for line in lines])
    data = COMPRESS[next(s for s in [*COMPRESS][::-1] if name.endswith(s))](data)
    if draw.random() < 0.1:
      data += data  # two streams
  if draw.random() < 0.6:
    data = _damage_bytes(draw, data)
  return data


def _damage_lines(draw: random.Random, lines: list[bytes]) -> bytes:
  for _ in range(draw.choice([0, 0, 1, 2, 5])):
    at, how = draw.randrange(len(lines)), draw.randrange(7)
    if how == 0:
      draw.shuffle(lines)
    elif how == 1:
      lines.insert(at, lines[draw.randrange(len(lines))])
    elif how == 2:
      lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
    elif how == 3:
      lines[at] = lines[at].replace(b'"text"', draw.choice([b'"title"', b'"text": 3, "x"', b'']))
    elif how == 4:
      lines[at] += draw.choice([b'\r', b' ', b'\t\r', b'}'])
    else:
      place = draw.randrange(len(lines[at]) + 1)
      lines[at] = lines[at][:place] + draw.choice(ODD) + lines[at][place:]
  return b'\n'.join(lines) + draw.choice([b'', b'\n', b'\r\n', b'\0' * 64])


def _damage_bytes(draw: random.Random, data: bytes) -> bytes:
  for _ in range(draw.choice([1, 1, 1, 2, 4])):
    # Most of a small ArrayRecord file is padding: half of the damage goes to what is before it.
    end = len(data[:65_536].rstrip(b'\0')) if draw.random() < 0.5 else len(data)
    low, high = sorted(draw.choices(range(end + 1), k=2))
    high = min(high, low + draw.choice([1, 4, 64, 1 << 20]))
    how = draw.randrange(8)
    if how == 0:
      data = data[:high]
    elif how == 1:
      flipped = bytearray(data)
      for at in draw.choices(range(end), k=draw.choice([1, 8]) if end else 0):
        flipped[at] ^= 1 << draw.randrange(8)
      data = bytes(flipped)
    elif how == 2:
      data = data[:low] + data[high:]
    elif how == 3:
      data = data[:high] + data[low:]
    elif how == 4:
      data = data[:low] + bytes(high - low) + data[high:]
    elif how == 5:
      data = data[:low] + draw.choice(ODD) + data[low:]
    elif how == 6:
      data = data[:low] + draw.randbytes(min(high - low, 4096)) + data[high:]
    else:
      data = data[high:] + data[low:high] + data[:low]
  return data


def _parquet(draw: random.Random, texts: list[str]) -> bytes:
  values: list[Any] = [None if draw.random() < 0.02 else t for t in texts]
  kind = pa.string()
  if draw.random() < 0.3:
    values, kind = [v and v.encode()[: draw.choice([50, 51, 10**6])] for v in values], pa.binary()
  sink = pa.BufferOutputStream()
  pq.write_table(
    pa.table({'id': range(len(values)), 'text': pa.array(values, kind)}), sink,
    row_group_size=draw.choice([3, 10, 100]), compression=draw.choice(['none', 'snappy', 'zstd']),
    use_dictionary=draw.random() < 0.5, write_page_checksum=draw.random() < 0.5,
    data_page_version=draw.choice(['1.0', '2.0']),
  )  # fmt: skip
  return sink.getvalue().to_pybytes()


def _records(draw: random.Random, texts: list[str], name: str) -> bytes:
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'records')
    packing = draw.choice(['uncompressed', 'zstd', 'brotli'])
    writer = array_record_module.ArrayRecordWriter(
      path, f'group_size:{draw.choice([1, 4])},{packing}'
    )
    for text in texts:
      record = text.encode()
      if name.startswith('json'):
        record = json.dumps({'text': text}).encode()
      elif name.startswith('example'):
        record = _example(record)
      writer.write(b'\xff' + record if draw.random() < 0.02 else record)
    writer.close()
    with open(path, 'rb') as file:
      return file.read()


def _example(text: bytes) -> bytes:
  import tensorflow as tf

  value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
  return tf.train.Example(features=tf.train.Features(feature={'text': value})).SerializeToString()


# ── the tool ──────────────────────────────────────────────────────────────────────────────────────


class Hang(Exception):
  """A case takes too long."""


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
  """Raises Hang after a time; ends the process, with a trace, if that does not help."""

  def stop(*unused):
    raise Hang(f'it takes more than {seconds} seconds')

  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  faulthandler.dump_traceback_later(3 * seconds, exit=True)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    faulthandler.cancel_dump_traceback_later()


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--seeds', type=int, default=10_000, help='how many cases')
  parser.add_argument('--first', type=int, default=0, help='the first seed')
  args = parser.parse_args()
  faulthandler.enable()
  sample, kinds, slowest, failed = load_sample(), collections.Counter(), (0.0, 0), 0
  with tempfile.TemporaryDirectory() as folder:
    for seed in range(args.first, args.first + args.seeds):
      Path(folder, 'seed').write_text(str(seed))
      started = time.monotonic()
      try:
        with bounded(SECONDS):
          kinds[fuzz(seed, sample, Path(folder))] += 1
      except Exception as error:
        failed += 1
        print(f'seed {seed}: {type(error).__name__}: {str(error)[:300]}', flush=True)
      slowest = max(slowest, (time.monotonic() - started, seed))
  columns = ('read', 'counted', 'broken')
  print(f'{"file":24}' + ''.join(f'{kind:>9}' for kind in columns))
  for name in FORMATS:
    print(f'{name:24}' + ''.join(f'{kinds[name, kind]:9}' for kind in columns))
  print(
    f'{args.seeds} seeds, {failed} failed; the slowest took {slowest[0]:.2f} s (seed {slowest[1]})'
  )
  sys.exit(failed > 0)


if __name__ == '__main__':
  main()
