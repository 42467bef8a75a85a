import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

from jaxlink.data.sources import (
  BadDocument,
)
from tests.data.sources.files import (
  ENCODE_RECORD,
  PROVERBS,
  example,
  skipping,
  texts,
  write_records,
)


def test_a_parquet_column_is_read(tmp_path):
  path = tmp_path / 'corpus.parquet'
  pa.parquet.write_table(pa.table({'id': [0, 1, 2], 'body': PROVERBS}), path, row_group_size=2)
  assert texts(path, text_key='body') == PROVERBS


def test_parquet_text_may_be_of_any_type_of_text(tmp_path):
  path = tmp_path / 'corpus.parquet'
  for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
    pa.parquet.write_table(pa.table({'text': pa.array(PROVERBS, kind)}), path)
    assert texts(path) == PROVERBS


@pytest.mark.parametrize('records', ENCODE_RECORD)
@pytest.mark.parametrize('name', ['corpus.arrayrecord', 'c-train.array_record-00000-of-00001'])
def test_records_are_text_json_or_examples(tmp_path, records, name):
  write_records(tmp_path / name, map(ENCODE_RECORD[records], PROVERBS))
  assert texts(tmp_path / name, records=records) == PROVERBS


def test_what_records_are_must_be_said(tmp_path):
  write_records(tmp_path / 'a.array_record', map(str.encode, PROVERBS))
  with pytest.raises(ValueError, match=r"records='text'.*'json'.*'example'"):
    texts(tmp_path / 'a.array_record')


def test_a_bad_record_is_named_or_counted(tmp_path):
  path = tmp_path / 'a.array_record'
  bad = {
    'text': {b'\xff': 'not UTF-8'},
    'json': {b'{': 'not JSON', b'{"title": ""}': 'no field', b'\xff': 'not UTF-8'},
    'example': {
      b'no such thing': 'not an Example', example(title=b'a'): 'no field',
      example(text=b'\xff'): 'not UTF-8',
      tf.train.Example(features=tf.train.Features(feature={
        'text': tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
      })).SerializeToString(): 'not text',
    },
  }  # fmt: skip
  for records, rows in bad.items():
    good = ENCODE_RECORD[records]('Göl olur.')
    write_records(path, [good, *rows, good])
    with pytest.raises(BadDocument, match=r'a\.array_record, record 2: '):
      texts(path, records=records)
    found, rejected = skipping(path, records=records)
    assert found == ['Göl olur.'] * 2
    assert [(p['number'], p['reason']) for p in rejected['places']] == list(
      enumerate(rows.values(), 2)
    )
    assert rejected['read'] == len(rows) + 2


def test_a_bad_parquet_row_is_named_or_counted(tmp_path):
  path = tmp_path / 'a.parquet'
  pa.parquet.write_table(pa.table({'text': ['a', None, 'b', None]}), path)
  with pytest.raises(BadDocument, match=r"a\.parquet, row 2: field 'text' is a NoneType"):
    texts(path)
  found, rejected = skipping(path)
  assert found == ['a', 'b']
  assert [(p['unit'], p['number'], p['reason']) for p in rejected['places']] == [
    ('row', 2, 'not text'), ('row', 4, 'not text'),
  ]  # fmt: skip
  with pytest.raises(BadDocument, match=r"no column 'body'\. Columns: text"):
    texts(path, text_key='body')
  assert skipping(path, text_key='body')[1]['by_reason'] == {'no field': 4}
  pa.parquet.write_table(pa.table({'text': [b'a', b'\xff\xfe', b'b']}), path)
  assert skipping(path)[1]['places'][0]['detail'] == 'not UTF-8 (byte 0 is 0xff)'
