import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxlink.data.sources import BadDocument, Document, expand, file_format, read_documents

PROVERBS = ['Damlaya damlaya göl olur.', 'Haba na haba\nhujaza kibaba.', 'দশের লাঠি একের বোঝা।']


def texts(path, **settings):
  return [document.text for document in read_documents(str(path), **settings)]


def jsonl(rows):
  return ''.join(json.dumps(row) + '\n' for row in rows).encode()


@pytest.mark.parametrize('suffix', ['', '.gz', '.bz2', '.xz'])
def test_json_lines_come_back_in_order_in_any_compression(tmp_path, suffix):
  path = tmp_path / f'corpus.jsonl{suffix}'
  compress = {'': bytes, '.gz': gzip.compress, '.bz2': bz2.compress, '.xz': lzma.compress}[suffix]
  path.write_bytes(compress(jsonl({'id': i, 'text': t} for i, t in enumerate(PROVERBS))))
  assert texts(path) == PROVERBS


@pytest.mark.parametrize('suffix', ['', '.gz', '.bz2', '.xz'])
def test_a_plain_text_is_parted_into_documents_by_blank_lines(tmp_path, suffix):
  path = tmp_path / f'corpus.txt{suffix}'
  compress = {'': bytes, '.gz': gzip.compress, '.bz2': bz2.compress, '.xz': lzma.compress}[suffix]
  text = '\n \n' + '\n\n'.join(PROVERBS[:2]) + '\n\t\n\n\n' + PROVERBS[2]
  path.write_bytes(compress(text.encode()))
  assert texts(path) == PROVERBS


def test_a_parquet_column_is_read(tmp_path):
  path = tmp_path / 'corpus.parquet'
  pa.parquet.write_table(pa.table({'id': [0, 1, 2], 'body': PROVERBS}), path, row_group_size=2)
  assert texts(path, text_key='body') == PROVERBS


def test_empty_files_hold_no_documents(tmp_path):
  for name in ('a.jsonl', 'a.txt'):
    (tmp_path / name).write_bytes(b'')
    assert texts(tmp_path / name) == []
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(b''))
  assert texts(tmp_path / 'a.jsonl.gz') == []
  pa.parquet.write_table(pa.table({'text': pa.array([], pa.string())}), tmp_path / 'a.parquet')
  assert texts(tmp_path / 'a.parquet') == []


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
  (tmp_path / 'a.txt').write_bytes('\ufeffGöl\n\nOlur\ufeff'.encode())
  assert texts(tmp_path / 'a.txt') == ['Göl', 'Olur\ufeff']
  (tmp_path / 'a.jsonl').write_bytes(b'\xef\xbb\xbf' + jsonl([{'text': 'a'}]))
  assert texts(tmp_path / 'a.jsonl') == ['a']


def test_windows_line_ends_part_documents_and_stay_inside_them(tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'one\r\ntwo\r\n\r\nthree\r\n')
  assert texts(tmp_path / 'a.txt') == ['one\r\ntwo', 'three']
  (tmp_path / 'a.jsonl').write_bytes(b'{"text": "a\\r\\nb"}\r\n\r\n{"text": "c"}\r\n')
  assert texts(tmp_path / 'a.jsonl') == ['a\r\nb', 'c']


def test_only_line_feeds_end_a_json_line(tmp_path):
  text = 'a\u2028b\u0085c\x0bd'
  (tmp_path / 'a.jsonl').write_text(json.dumps({'text': text}, ensure_ascii=False) + '\n')
  assert texts(tmp_path / 'a.jsonl') == [text]


def test_an_empty_text_is_a_document_of_its_own(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(jsonl([{'text': ''}, {'text': 'a'}]))
  assert texts(tmp_path / 'a.jsonl') == ['', 'a']


BAD_LINES = {
  b'{"text": "cut off': 'not JSON',
  b'{"title": "no text", "n": 1}': "no field 'text'. Fields: 'title', 'n'",
  b'{"text": 3}': "field 'text' is a int, not text",
  b'{"text": null}': "field 'text' is a NoneType, not text",
  b'["text"]': 'a JSON list, not an object',
  b'{"text": "\\ud800 alone"}': "field 'text' holds a lone surrogate",
  b'{"text": "\xff\xfe"}': 'not UTF-8 (byte 10 is 0xff)',
  b'{"text": "a", "n": ' + b'1' * 5000 + b'}': 'not JSON',
}


@pytest.mark.parametrize(('line', 'message'), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_a_bad_json_line_is_an_error_with_file_and_line(tmp_path, line, message):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(b'{"text": "good"}\n\n' + line + b'\n')
  with pytest.raises(BadDocument) as caught:
    texts(path)
  assert f'{path}, line 3: ' in str(caught.value)
  assert message in str(caught.value)


def test_bad_lines_are_counted_with_the_next_document_and_at_the_end(tmp_path):
  good = b'{"text": "good"}'
  lines = [good, *BAD_LINES, good, next(iter(BAD_LINES)), b'{"text": ""}', good, *BAD_LINES]
  (tmp_path / 'a.jsonl').write_bytes(b'\n'.join(lines))
  found = list(read_documents(str(tmp_path / 'a.jsonl'), on_bad='skip'))
  assert found == [
    Document('good'), Document('good', len(BAD_LINES)), Document('', 1), Document('good'),
    Document(None, len(BAD_LINES)),
  ]  # fmt: skip


def test_bytes_that_are_not_utf8_in_plain_text_are_named_or_counted(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'one\ntwo \xc3\nthree\n\nfour\n\xa9')
  with pytest.raises(BadDocument, match=r'a\.txt, line 2: not UTF-8 \(byte 4 is 0xc3\)'):
    texts(path)
  assert list(read_documents(str(path), on_bad='skip')) == [
    Document('one\nthree', 1), Document('four', 1),
  ]  # fmt: skip
  path.write_bytes(b'\xef\xbb\xbfab\xff')  # after a byte order mark
  with pytest.raises(BadDocument, match='is 0xff'):
    texts(path)


def test_a_bad_parquet_row_is_named_or_counted(tmp_path):
  path = tmp_path / 'a.parquet'
  pa.parquet.write_table(pa.table({'text': ['a', None, 'b', None]}), path)
  with pytest.raises(BadDocument, match=r"a\.parquet, row 2: field 'text' is a NoneType"):
    texts(path)
  assert list(read_documents(str(path), on_bad='skip')) == [
    Document('a'), Document('b', 1), Document(None, 1),
  ]  # fmt: skip
  with pytest.raises(BadDocument, match=r"no column 'body'\. Columns: text"):
    texts(path, text_key='body', on_bad='skip')


def test_a_broken_file_is_an_error_that_names_it_even_where_bad_lines_are_skipped(tmp_path):
  rows = jsonl({'text': f'{i} {PROVERBS[0]}'} for i in range(2000))
  for suffix, compress in (('gz', gzip.compress), ('bz2', bz2.compress), ('xz', lzma.compress)):
    path = tmp_path / f'a.jsonl.{suffix}'
    for broken in (compress(rows)[:-20], b'this is no compressed file'):
      path.write_bytes(broken)
      with pytest.raises(BadDocument, match=f'a.jsonl.{suffix}: broken file'):
        texts(path, on_bad='skip')
  (tmp_path / 'a.parquet').write_bytes(b'this is no table')
  with pytest.raises(BadDocument, match=r'a\.parquet: no Parquet file'):
    texts(tmp_path / 'a.parquet', on_bad='skip')


def test_globs_and_lists_are_expanded_in_order(tmp_path):
  for name in ('b.txt', 'a.txt', 'c.jsonl', 'odd[1].txt'):
    (tmp_path / name).touch()
  (tmp_path / 'folder.txt').mkdir()
  names = lambda files: [f.rsplit('/', 1)[1] for f in files]  # noqa: E731
  assert names(expand(f'{tmp_path}/?.txt')) == ['a.txt', 'b.txt']
  assert names(expand([f'{tmp_path}/*.jsonl', f'{tmp_path}/a.txt'])) == ['c.jsonl', 'a.txt']
  assert names(expand(f'{tmp_path}/odd[1].txt')) == ['odd[1].txt']
  assert names(expand(f'file://{tmp_path}/?.txt')) == ['a.txt', 'b.txt']


def test_a_missing_file_is_an_error_with_the_nearest_name(tmp_path):
  (tmp_path / 'turkish.txt.gz').touch()
  with pytest.raises(FileNotFoundError, match=r"Nearest: 'turkish\.txt\.gz'"):
    expand(f'{tmp_path}/turksh.txt.gz')
  with pytest.raises(FileNotFoundError, match=r'The folder holds: turkish\.txt\.gz'):
    expand(f'{tmp_path}/*.parquet')
  with pytest.raises(FileNotFoundError, match=r"there is no folder '.*/nowhere'"):
    expand(f'{tmp_path}/nowhere/a.txt')


def test_an_unknown_suffix_is_an_error_with_the_known_ones():
  assert file_format('gs://b/a.txt.xz') == 'text'
  for path in ('a.csv', 'a.gz', 'a', 'txt'):
    with pytest.raises(ValueError, match=rf'{path}: cannot tell the format.*\.jsonl.*\.parquet'):
      file_format(path)


def test_on_bad_is_checked(tmp_path):
  with pytest.raises(ValueError, match="on_bad is 'ignore': 'raise' or 'skip'"):
    texts(tmp_path / 'a.txt', on_bad='ignore')
