import gzip
import json
import math
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxlink.data.sources import (
  PLACES,
  BadDocument,
  Reading,
  Rejections,
  check_max_bad,
  describe,
  expand,
  file_format,
  read_documents,
)
from jaxlink.data.sources.opening import Bad
from tests.data.sources.files import (
  COMPRESS,
  PROVERBS,
  jsonl,
  skipping,
  texts,
  write_records,
)


@pytest.mark.parametrize('suffix', COMPRESS)
def test_json_lines_come_back_in_order_in_any_compression(tmp_path, suffix):
  path = tmp_path / f'corpus.jsonl{suffix}'
  path.write_bytes(COMPRESS[suffix](jsonl({'id': i, 'text': t} for i, t in enumerate(PROVERBS))))
  assert texts(path) == PROVERBS


@pytest.mark.parametrize('suffix', COMPRESS)
def test_a_plain_text_is_parted_into_documents_by_blank_lines(tmp_path, suffix):
  path = tmp_path / f'corpus.txt{suffix}'
  text = '\n \n' + '\n\n'.join(PROVERBS[:2]) + '\n\t\n\u3000\n\n' + PROVERBS[2]
  path.write_bytes(COMPRESS[suffix](text.encode()))
  assert texts(path) == PROVERBS


def test_a_plain_text_may_be_one_document_or_one_for_each_line(tmp_path):
  path = tmp_path / 'corpus.txt'
  path.write_bytes(b'\n\r\n one\r\ntwo\r\n\r\n\nthree\r\n\n')
  assert texts(path, documents='file') == [' one\r\ntwo\r\n\r\n\nthree']
  assert texts(path, documents='line') == [' one', 'two', 'three']
  assert [d.number for d in read_documents(str(path), documents='line')] == [3, 4, 7]
  assert [d.number for d in read_documents(str(path))] == [3, 7]


@pytest.mark.parametrize('suffix', [s for s in COMPRESS if s])
def test_several_compressed_streams_in_a_file_are_all_read(tmp_path, suffix):
  path = tmp_path / f'corpus.jsonl{suffix}'
  padding = b'\0' * 8 if suffix in ('.gz', '.xz') else b''
  path.write_bytes(padding.join(COMPRESS[suffix](jsonl([{'text': t}])) for t in PROVERBS) + padding)
  assert texts(path) == PROVERBS
  path.write_bytes(path.read_bytes() + b'and then something else')
  found, rejected = skipping(path)
  assert found == PROVERBS
  assert rejected['by_reason'] == {'broken file': 1}


def test_empty_files_hold_no_documents(tmp_path):
  for name in ('a.jsonl', 'a.txt'):
    (tmp_path / name).write_bytes(b'')
    assert texts(tmp_path / name) == []
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(b''))
  assert texts(tmp_path / 'a.jsonl.gz') == []
  pa.parquet.write_table(pa.table({'text': pa.array([], pa.string())}), tmp_path / 'a.parquet')
  assert texts(tmp_path / 'a.parquet') == []
  write_records(tmp_path / 'a.array_record', [])
  assert texts(tmp_path / 'a.array_record', records='text') == []


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


def test_bad_lines_are_counted_by_reason_and_named(tmp_path):
  good = b'{"text": "good"}'
  path = tmp_path / 'a.jsonl'
  path.write_bytes(b'\n'.join([good, b'', *BAD_LINES, b'{"text": ""}', *BAD_LINES]))
  found, rejected = skipping(path)
  assert found == ['good', '']
  assert rejected['read'] == 2 + 2 * len(BAD_LINES)
  assert rejected['total'] == 2 * len(BAD_LINES)
  assert rejected['by_reason'] == {
    'not JSON': 4, 'no field': 2, 'not text': 4, 'not an object': 2, 'lone surrogate': 2,
    'not UTF-8': 2,
  }  # fmt: skip
  places = [(p['unit'], p['number']) for p in rejected['places']]
  first, again = 3, 4 + len(BAD_LINES)
  lines = [*range(first, first + len(BAD_LINES)), *range(again, again + len(BAD_LINES))]
  assert places == [('line', n) for n in lines]
  for place, message in zip(rejected['places'], [*BAD_LINES.values()] * 2, strict=True):
    assert place['file'] == str(path)
    assert message in place['detail']
  assert f'not UTF-8: 2 ({path}, line 9: not UTF-8 (byte 10 is 0xff); ' in describe(rejected)


def test_the_first_places_of_each_reason_are_named(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(b'{}\n' * 50 + b'[]\n' * 3)
  rejected = skipping(tmp_path / 'a.jsonl')[1]
  assert rejected['by_reason'] == {'no field': 50, 'not an object': 3}
  numbers = [p['number'] for p in rejected['places']]
  assert numbers == [*range(1, PLACES + 1), 51, 52, 53]


def test_bad_lines_of_plain_text_are_named_or_left_out_and_counted(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'one\ntwo \xc3\nthree\n\nfour\n\xa9\nf\0i\0v\0e\0\n\n\xff\n')
  with pytest.raises(BadDocument, match=r'a\.txt, line 2: not UTF-8 \(byte 4 is 0xc3\)'):
    texts(path)
  for documents, expected in (
    ('paragraphs', ['one\nthree', 'four']), ('file', ['one\nthree\n\nfour']),
    ('line', ['one', 'three', 'four']),
  ):  # fmt: skip
    found, rejected = skipping(path, documents=documents)
    assert [f.rstrip() for f in found] == expected
    assert rejected['by_reason'] == {'not UTF-8': 3, 'NUL byte': 1}
    assert [p['number'] for p in rejected['places']] == [2, 6, 7, 9]
  path.write_bytes(b'\xef\xbb\xbfab\xff')  # after a byte order mark
  with pytest.raises(BadDocument, match='is 0xff'):
    texts(path)


def test_odd_but_valid_json_is_read(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(
    b'{"text": "first", "text": "last"}\n'
    b'{"n": NaN, "m": -Infinity, "text": "a\\u0000b \\ud83d\\ude00"}\n'
    b' \t{"text": "in white space"} \r\n'
    b'{"deep": ' + b'[' * 500 + b']' * 500 + b', "text": "deep"}\n'
  )
  assert texts(path) == ['last', 'a\0b 😀', 'in white space', 'deep']


def test_json_that_is_nested_without_end_is_bad_and_quick(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(b'{"text": ' + b'[' * 5_000_000 + b'\n{"text": "a"}\n' + b'\0' * 4096)
  found, rejected = skipping(path)
  assert found == ['a']
  assert rejected['by_reason'] == {'not JSON': 2}  # zeros: what a crash leaves at a file's end


def test_a_document_that_is_too_long_is_counted_and_not_kept(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(jsonl([{'text': 'a' * 88}, {'text': 'a' * 89}, {'text': 'b'}]))
  found, rejected = skipping(tmp_path / 'a.jsonl', max_document_bytes=100)
  assert found == ['a' * 88, 'b']
  assert [(p['number'], p['reason']) for p in rejected['places']] == [(2, 'too long')]
  with pytest.raises(BadDocument, match=r'line 2: a line of more than max_document_bytes=100'):
    texts(tmp_path / 'a.jsonl', max_document_bytes=100)

  text = 'four\nfour\n\nfour\nfive!\n\n' + 'x' * 11 + '\n\nlast'
  (tmp_path / 'a.txt').write_text(text)
  found, rejected = skipping(tmp_path / 'a.txt', max_document_bytes=9)
  assert found == ['four\nfour', 'last']
  assert [p['number'] for p in rejected['places']] == [4, 7]
  found, rejected = skipping(tmp_path / 'a.txt', max_document_bytes=9, documents='file')
  assert (found, rejected['total']) == ([], 1)
  found, rejected = skipping(tmp_path / 'a.txt', max_document_bytes=9, documents='line')
  assert found == ['four', 'four', 'four', 'five!', 'last']

  pa.parquet.write_table(pa.table({'text': ['göl', 'göle']}), tmp_path / 'a.parquet')
  assert skipping(tmp_path / 'a.parquet', max_document_bytes=4)[0] == ['göl']
  write_records(tmp_path / 'a.array_record', ['göl'.encode(), 'göle'.encode()])
  assert skipping(tmp_path / 'a.array_record', max_document_bytes=4, records='text')[0] == ['göl']


def test_a_line_of_a_hundred_megabytes_is_read(tmp_path):
  path = tmp_path / 'a.txt.gz'
  path.write_bytes(gzip.compress(b'gol' * 33_000_000, 1))
  (text,) = texts(path)
  assert text == 'gol' * 33_000_000


@pytest.mark.parametrize('readers', [2, 3, 7])
def test_readers_of_a_file_share_its_documents_and_what_is_bad_in_it(tmp_path, readers):
  lines = [b'{"text": "%d"}' % i if i % 5 else b'bad %d' % i for i in range(200)]
  whole = gzip.compress(b'\n'.join(lines))
  (tmp_path / 'a.jsonl.gz').write_bytes(whole[:-9])
  pa.parquet.write_table(
    pa.table({'text': [None if i % 5 == 0 else str(i) for i in range(200)]}), tmp_path / 'a.parquet'
  )
  (tmp_path / 'a.txt').write_bytes(b'\n'.join(b'%d\n\xff\n' % i for i in range(20)))
  write_records(tmp_path / 'a.array_record', lines)
  for name in ('a.jsonl.gz', 'a.parquet', 'a.txt', 'a.array_record'):
    whole_text, whole_bad = skipping(tmp_path / name, records='json')
    parts = [
      skipping(tmp_path / name, records='json', index=i, count=readers) for i in range(readers)
    ]
    assert sorted(t for found, _ in parts for t in found) == sorted(whole_text)
    assert max(len(found) for found, _ in parts) - min(len(found) for found, _ in parts) <= 40
    merged = Rejections.merge([r for _, r in parts], [str(tmp_path / name)]).as_dict()
    assert merged == whole_bad
    assert merged['total'] >= 20


@pytest.mark.parametrize(
  ('most', 'read', 'bad'),
  [(0, 10, 1), (0.01, 100, 11), (0.01, 5000, 51), (3, 10**6, 4), (1, 10, 2), (0.5, 4000, 2001)],
)
def test_more_bad_lines_than_allowed_are_an_error_with_the_first_places(most, read, bad):
  rejected = Rejections()
  rejected.read = read
  for number in range(bad - 1):
    rejected.add('a.jsonl', Bad('not JSON', number + 1, 'not JSON (it is not)'))
  rejected.check(most)
  rejected.add('a.jsonl', Bad('not UTF-8', read, 'not UTF-8'))
  with pytest.raises(
    BadDocument, match=rf'max_bad={most} allows.*not UTF-8: 1 \(a.jsonl, line {read}'
  ):
    rejected.check(most)
  rejected.check(math.inf)


@pytest.mark.parametrize('scheme', ['memory://sources', 'file://{}'])
def test_each_format_is_read_from_remote_places(tmp_path, scheme):
  folder = scheme.format(tmp_path)
  rows = jsonl({'text': t} for t in PROVERBS)
  contents = {f'a.jsonl{s}': compress(rows) for s, compress in COMPRESS.items()}
  contents['a.txt.xz'] = COMPRESS['.xz']('\n\n'.join(PROVERBS).encode())
  pa.parquet.write_table(pa.table({'text': PROVERBS}), tmp_path / 'table')
  contents['a.parquet'] = (tmp_path / 'table').read_bytes()
  write_records(tmp_path / 'records', map(str.encode, PROVERBS))
  contents['a.array_record-00000-of-00001'] = (tmp_path / 'records').read_bytes()
  for name, content in contents.items():
    with fsspec.open(f'{folder}/{name}', 'wb') as file:
      file.write(content)
    (path,) = expand(f'{folder}/{name[:-1]}?')
    assert path.startswith(scheme.partition('://')[0] + '://')
    assert texts(path, records='text') == PROVERBS


@pytest.mark.parametrize(('scheme', 'package'), [('gs', 'gcsfs'), ('s3', 's3fs')])
def test_a_missing_driver_is_an_error_that_names_the_package(monkeypatch, scheme, package):
  monkeypatch.setitem(sys.modules, package, None)
  monkeypatch.setattr(sys.modules['fsspec.registry'], '_registry', {})
  for call in (expand, lambda path: list(read_documents(path))):
    with pytest.raises(ValueError, match=rf'{scheme}://.*: pip install {package}'):
      call(f'{scheme}://bucket/a.jsonl.gz')


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
  assert file_format('c4-train.00000-of-00512.json.gz') == 'jsonl'
  assert file_format('c4-train.jsonl.zst-00000-of-00512') == 'jsonl'
  for path in ('a.csv', 'a.gz', 'a', 'txt'):
    with pytest.raises(ValueError, match=rf'{path}: cannot tell the format.*\.jsonl.*\.parquet'):
      file_format(path)
  with pytest.raises(ValueError, match=r'a\.parquet\.gz: a \.parquet file is compressed inside'):
    file_format('a.parquet.gz')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'documents': 'paragraph'}, "documents is 'paragraph'.*Nearest: 'paragraphs'"),
    ({'records': 'jsonl'}, "records is 'jsonl'.*Nearest: 'json'"),
    ({'max_document_bytes': 0}, 'max_document_bytes is 0: it is an integer, 1 or more'),
    ({'max_document_bytes': 1e6}, 'max_document_bytes is 1000000.0'),
  ],
)
def test_settings_are_checked(settings, message):
  with pytest.raises(ValueError, match=message):
    Reading(**settings)


@pytest.mark.parametrize('most', [-1, math.nan, True, '1', None])
def test_the_bound_is_checked(most):
  with pytest.raises(ValueError, match='max_bad is '):
    check_max_bad(most)


def test_a_file_that_two_patterns_name_is_an_error(tmp_path):
  (tmp_path / 'a.txt').write_text('Haba na haba.', encoding='utf-8')
  with pytest.raises(ValueError, match=r'a\.txt is named more than once'):
    expand([str(tmp_path / '*.txt'), str(tmp_path / 'a.txt')])
