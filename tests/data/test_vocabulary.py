import pickle
import shutil

import numpy as np
import pytest
import tensorflow as tf

from jaxlink.data.vocabulary import ChunkedVocabulary
from tests.data.conftest import sample_text
from tests.data.test_tokenizer import HOSTILE

TEXTS = [*HOSTILE, *sample_text('bn').split('\n')[:20], *sample_text('tr').split('\n')[:20]]


@pytest.fixture(scope='module', params=['sentencepiece', 'byte_level'])
def vocabulary(request, tiny_tokenizers):
  return ChunkedVocabulary(tiny_tokenizers[request.param])


def test_ids_and_texts_are_the_same_in_python_and_in_tensorflow(vocabulary):
  for text in TEXTS:
    ids = vocabulary.encode(text)
    assert ids == vocabulary.tokenizer.encode(text)
    assert vocabulary.encode_tf(tf.constant(text)).numpy().tolist() == ids
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == text


def test_both_ways_stop_at_the_end_of_a_text_and_pass_over_what_is_no_text(vocabulary):
  ids = [vocabulary.bos_id, *vocabulary.encode('Bir elin nesi var'), vocabulary.eos_id, 77, 0, 0]
  assert vocabulary.decode(ids) == 'Bir elin nesi var'
  assert vocabulary.decode_tf(tf.constant(ids)).numpy().decode() == 'Bir elin nesi var'


def test_rows_of_ids_are_decoded_each(vocabulary):
  rows = [vocabulary.encode(t) for t in ('Haba na haba', 'bir')]
  ids = np.zeros((2, max(map(len, rows))), np.int32)
  for i, row in enumerate(rows):
    ids[i, : len(row)] = row
  found = vocabulary.decode_tf(tf.constant(ids)).numpy().tolist()
  assert [t.decode() for t in found] == ['Haba na haba', 'bir']


def test_it_works_inside_a_dataset(vocabulary):
  dataset = tf.data.Dataset.from_tensor_slices(TEXTS).map(vocabulary.encode_tf)
  assert dataset.element_spec.shape.as_list() == [None]
  assert [ids.tolist() for ids in dataset.as_numpy_iterator()] == list(
    map(vocabulary.encode, TEXTS)
  )


def test_ids_of_specials_follow_seqio(vocabulary):
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id, vocabulary.unk_id) == (
    0,
    1,
    2,
    3,
  )
  assert vocabulary.vocab_size == vocabulary.tokenizer.size == 1000


def test_equality_is_that_of_the_files_bytes(tiny_tokenizers, tmp_path):
  path = tiny_tokenizers['sentencepiece']
  copy = shutil.copy(path, tmp_path / 'copy.model')
  one, same = ChunkedVocabulary(path), ChunkedVocabulary(copy)
  other = ChunkedVocabulary(tiny_tokenizers['byte_level'])
  assert one == same
  assert hash(one) == hash(same)
  assert one != other
  assert one != path
  assert pickle.loads(pickle.dumps(one)) == one


def test_a_file_is_read_when_it_is_needed_only(tmp_path):
  vocabulary = ChunkedVocabulary(tmp_path / 'missing.model')
  with pytest.raises(FileNotFoundError, match=r'missing\.model'):
    vocabulary.encode('text')
