"""Damaged files, made by seed from the sample: a short run of tools/fuzz_sources.py."""

import contextlib
import json

import pytest

from jaxlink.data import sources
from jaxlink.data.sources import lines as source_lines
from jaxlink.data.sources import opening as source_bytes
from jaxlink.data.sources import records as source_records
from tools import fuzz_sources

SEEDS = 500


@pytest.fixture(scope='module')
def sample():
  return fuzz_sources.load_sample()


def run(seeds, sample, folder):
  for seed in seeds:
    with fuzz_sources.bounded(fuzz_sources.SECONDS):
      yield fuzz_sources.fuzz(seed, sample, folder)


@pytest.fixture(scope='module')
def outcomes(sample, tmp_path_factory):
  """The file and the kind of each seed, or what went wrong."""
  folder, found = tmp_path_factory.mktemp('damaged'), {}
  for seed in range(SEEDS):
    try:
      (found[seed],) = run([seed], sample, folder)
    except Exception as error:
      found[seed] = repr(error)
  return found


def test_nothing_in_a_damaged_file_is_dropped_uncounted(outcomes):
  assert {seed: error for seed, error in outcomes.items() if isinstance(error, str)} == {}


def test_the_files_are_of_every_format_and_damaged_in_every_way(outcomes):
  kinds = {
    kind: {n for n, k in outcomes.values() if k == kind} for kind in ('read', 'counted', 'broken')
  }
  assert kinds['read'] == kinds['counted'] == set(fuzz_sources.FORMATS)
  plain = {'en.jsonl', 'tr.txt', 'line.txt'}  # nothing breaks these
  assert kinds['broken'] == set(fuzz_sources.FORMATS) - plain


def ends_quietly(file, codec):
  stream = codec.make()
  with contextlib.suppress(Exception):
    while data := file.read(codec.piece):
      yield stream.decompress(data, *codec.limit)


def forgets_the_last_line(path, limit, lines=source_lines._lines):
  before = None
  for line in lines(path, limit):
    if before:
      yield before
    before = line


def forgets_what_is_broken(path, reading, items):
  return (item for item in items(path, reading) if not isinstance(item[1], source_bytes.Bad))


def takes_any_json(number, line, reading):
  del number, reading
  try:
    return str(json.loads(line)['text']), []
  except (ValueError, KeyError, TypeError, RecursionError):
    return None, []


@pytest.mark.parametrize(
  ('module', 'name', 'fault'),
  [
    (source_bytes, '_inflate', ends_quietly),
    (source_lines, '_lines', forgets_the_last_line),
    (source_lines, '_is_blank', lambda line: not line.strip()),
    (sources, '_READERS', {
      **sources._READERS,
      'jsonl': (source_lines.json_lines, takes_any_json),
    }),
    *(
      (sources, '_READERS', {
        **sources._READERS,
        kind: (lambda *a, items=items: forgets_what_is_broken(*a, items), decode),
      })
      for kind, (items, decode) in sources._READERS.items() if kind in ('parquet', 'array_record')
    ),
    (source_records, 'decode_line', lambda number, text, reading: (text.decode(errors='replace'), [])),
  ],
  ids=['stream', 'last line', 'blank', 'json', 'row group', 'records', 'replaced'],
)  # fmt: skip
def test_a_fault_of_the_reader_is_found(module, name, fault, sample, tmp_path, monkeypatch):
  monkeypatch.setattr(module, name, fault)
  with pytest.raises(AssertionError):
    list(run(range(1000), sample, tmp_path))
