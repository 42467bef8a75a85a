"""Small source files of real text in each format, and how they are read in tests."""

import bz2
import gzip
import json
import lzma

import tensorflow as tf
import zstandard
from array_record.python import array_record_module

from jaxlink.data.sources import (
  Rejections,
  read_documents,
)

PROVERBS = ['Damlaya damlaya göl olur.', 'Haba na haba\nhujaza kibaba.', 'দশের লাঠি একের বোঝা।']


COMPRESS = {
  '': bytes, '.gz': gzip.compress, '.bz2': bz2.compress, '.xz': lzma.compress,
  '.zst': zstandard.ZstdCompressor(write_checksum=True).compress,
}  # fmt: skip


def texts(path, **settings):
  return [document.text for document in read_documents(str(path), **settings)]


def skipping(path, **settings):
  """Returns the texts of a file and the counts of what is bad in it."""
  rejected = Rejections()
  found = texts(path, rejected=rejected, **settings)
  return found, rejected.as_dict()


def jsonl(rows):
  return ''.join(json.dumps(row) + '\n' for row in rows).encode()


def write_records(path, records, options='group_size:4'):
  writer = array_record_module.ArrayRecordWriter(str(path), options)
  for record in records:
    writer.write(record)
  writer.close()


def example(**fields):
  values = {
    k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in fields.items()
  }
  return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()


ENCODE_RECORD = {
  'text': str.encode,
  'json': lambda text: json.dumps({'n': 1, 'text': text}).encode(),
  'example': lambda text: example(text=text.encode(), title=b'a proverb'),
}
