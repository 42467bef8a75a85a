import pickle
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tokenizers import pre_tokenizers

from jaxlink.data.vocabulary import ChunkedVocabulary
from tests.data.conftest import sample_text
from tests.data.test_foreign import train_byte_level, train_sentencepiece
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


@pytest.fixture(scope='module')
def foreign(tmp_path_factory):
  folder = tmp_path_factory.mktemp('foreign')
  pattern = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
  train_byte_level(folder / 'gpt2.json', TEXTS, pattern, ['<|endoftext|>'])
  train_sentencepiece(
    folder / 't5.model', TEXTS, vocab_size=800, model_type='unigram', pad_id=0, eos_id=1, unk_id=2,
    bos_id=-1,
  )  # fmt: skip
  return {kind: ChunkedVocabulary(folder / kind) for kind in ('gpt2.json', 't5.model')}


@pytest.mark.parametrize(
  ('kind', 'specials'), [('gpt2.json', (0, 0, None, None)), ('t5.model', (0, 1, None, 2))]
)
def test_a_foreign_tokenizer_keeps_its_own_ids(foreign, kind, specials):
  vocabulary = foreign[kind]
  found = vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id, vocabulary.unk_id
  assert found == specials
  for text in TEXTS:
    ids = vocabulary.encode(text)
    assert ids == vocabulary.tokenizer.encode(text)
    assert vocabulary.encode_tf(tf.constant(text)).numpy().tolist() == ids
    decoded = vocabulary.decode([*ids, vocabulary.eos_id, 77, vocabulary.pad_id])
    assert decoded == vocabulary.tokenizer.decode(ids)
    padded = tf.constant([*ids, vocabulary.eos_id, 77], tf.int32)
    assert vocabulary.decode_tf(padded).numpy().decode() == decoded
    assert decoded == text or kind == 't5.model' or '▁' in text


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
