import gzip
import tracemalloc

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxlink.data.sources import (
  BadDocument,
)
from jaxlink.data.sources import lines as source_lines
from tests.data.sources.files import COMPRESS, PROVERBS, jsonl, skipping, texts, write_records


@pytest.mark.parametrize(
  'name', [*(f'a.txt{s}' for s in COMPRESS if s), 'a.parquet', 'a.array_record']
)
def test_a_file_of_no_bytes_is_broken_where_its_format_has_some(tmp_path, name):
  (tmp_path / name).touch()
  with pytest.raises(BadDocument, match=rf'{name}: broken file'):
    texts(tmp_path / name, records='text')


@pytest.mark.parametrize('suffix', ['.bz2', '.xz', '.zst'])
def test_what_unpacks_without_end_is_given_up_and_not_held_in_memory(tmp_path, monkeypatch, suffix):
  monkeypatch.setattr(source_lines, '_MOST_BLANK', 1 << 20)
  path = tmp_path / f'a.jsonl{suffix}'
  for filler, wrong in ((b'a', 'a line of'), (b' ' * 1023 + b'\n', 'bytes of blank lines')):
    bomb = COMPRESS[suffix](b'{"text": "good"}\n' + filler * ((1 << 26) // len(filler)))
    path.write_bytes(bomb)
    assert len(bomb) < 20_000
    tracemalloc.start()
    found, rejected = skipping(path, max_document_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ['good']
    assert rejected['by_reason'] == {'broken file': 1}
    assert wrong in rejected['places'][0]['detail']
    assert peak < 1 << 26


@pytest.mark.parametrize('suffix', [s for s in COMPRESS if s])
def test_of_a_compressed_file_that_breaks_what_comes_before_is_kept(tmp_path, suffix):
  rows = [f'{i} {PROVERBS[i % 3]}' for i in range(20_000)]
  path = tmp_path / f'a.jsonl{suffix}'
  whole = COMPRESS[suffix](jsonl({'text': r} for r in rows))
  path.write_bytes(whole[: len(whole) // 2])
  found, rejected = skipping(path)
  assert found == rows[: len(found)]
  assert rejected['by_reason'] == {'broken file': 1}
  assert rejected['read'] == len(found) + 1
  with pytest.raises(BadDocument, match=rf'{path}: broken file'):
    texts(path)
  if suffix != '.bz2' or len(whole) > 1_800_000:  # a block of bzip2 is 900 kB
    assert len(found) > 5000
    assert f'after line {len(found)} (' in rejected['places'][0]['detail']
  path.write_bytes(b'this is no compressed file')
  found, rejected = skipping(path)
  assert (found, rejected['total']) == ([], 1)


def test_a_text_is_not_kept_that_the_file_breaks_off_in(tmp_path):
  whole = gzip.compress('\n\n'.join(PROVERBS * 50).encode())
  (tmp_path / 'a.txt.gz').write_bytes(whole[:-9])  # all of the text, and not its checksum
  for documents, kept in (('paragraphs', 149), ('file', 0), ('line', 199)):
    found, rejected = skipping(tmp_path / 'a.txt.gz', documents=documents)
    assert len(found) == kept
    assert rejected['by_reason'] == {'broken file': 1}


def test_a_broken_row_group_is_counted_by_rows_and_the_others_are_read(tmp_path):
  path, rows = tmp_path / 'a.parquet', [f'{i} {PROVERBS[i % 3]}' for i in range(300)]
  pa.parquet.write_table(
    pa.table({'text': rows}), path, row_group_size=100, use_dictionary=False,
    write_page_checksum=True,
  )  # fmt: skip
  meta = pa.parquet.read_metadata(path).row_group(1).column(0)
  data = bytearray(path.read_bytes())
  data[meta.data_page_offset + meta.total_compressed_size // 2] ^= 1
  path.write_bytes(data)
  found, rejected = skipping(path)
  assert found == rows[:100] + rows[200:]
  assert rejected['by_reason'] == {'broken row group': 100}
  assert rejected['read'] == 300
  (place,) = rejected['places']
  assert place['number'] == 101
  assert place['detail'].startswith('row group 2 of 3 is broken (')
  with pytest.raises(BadDocument, match=r'a\.parquet, row 101: row group 2 of 3 is broken'):
    texts(path)
  path.write_bytes(b'this is no table')
  assert skipping(path)[1]['by_reason'] == {'broken file': 1}


def test_broken_records_are_counted_one_by_one_and_the_others_are_read(tmp_path):
  path, rows = tmp_path / 'a.array_record', [f'{i} {PROVERBS[i % 3]}' for i in range(22)]
  write_records(path, map(str.encode, rows), 'group_size:4,uncompressed')
  data = bytearray(path.read_bytes())
  for row in (rows[5], rows[21]):  # in the second chunk, and in the last, which is short
    data[data.index(row.encode())] ^= 1
  path.write_bytes(data)
  found, rejected = skipping(path, records='text')
  assert found == rows[:4] + rows[8:20]
  assert rejected['by_reason'] == {'broken record': 6}
  assert rejected['read'] == 22
  assert [p['number'] for p in rejected['places']] == [5, 21]
  with pytest.raises(BadDocument, match=r'record 5: 4 records from here on are broken'):
    texts(path, records='text')
  path.write_bytes(data[:70_000])
  assert skipping(path, records='text')[1]['by_reason'] == {'broken file': 1}


def test_a_failure_to_read_is_not_taken_for_a_bad_file(tmp_path, monkeypatch):
  path = tmp_path / 'a.jsonl.gz'
  path.write_bytes(gzip.compress(jsonl({'text': t} for t in PROVERBS)))

  def fail(self, size=-1):
    raise TimeoutError('no answer')

  for name in ('a.jsonl.gz', 'a.parquet', 'a.txt', 'a.jsonl.zst', 'a.array_record'):
    fsspec.filesystem('memory').pipe(f'/broken/{name}', b'0123456789' * 100)
    monkeypatch.setattr('fsspec.implementations.memory.MemoryFile.read', fail)
    with pytest.raises(OSError, match=rf'memory://broken/{name}: cannot be read \(no answer\)'):
      skipping(f'memory://broken/{name}', records='text')
    monkeypatch.undo()
  with pytest.raises(FileNotFoundError):
    skipping(tmp_path / 'nowhere.jsonl')
