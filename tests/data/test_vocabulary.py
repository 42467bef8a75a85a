import json
import os
import pickle
import shutil

import numpy as np
import pytest
import seqio
import tensorflow as tf
from tokenizers import pre_tokenizers

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.vocabulary import ChunkedVocabulary, tokenizer_file
from jaxlink.link import words
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


# ── files of SeqIO's own vocabularies ─────────────────────────────────────────────


@pytest.mark.parametrize('extra_ids', [0, 125])
def test_a_byte_vocabularys_file_has_its_ids_specials_and_texts(tmp_path, extra_ids):
  theirs = seqio.ByteVocabulary(extra_ids=extra_ids)
  path = tokenizer_file(theirs, str(tmp_path))
  assert json.loads((tmp_path / os.path.basename(path)).read_text()) == {
    'type': 'bytes',
    'extra_ids': extra_ids,
  }
  read = pickle.loads(pickle.dumps(Tokenizer(path)))
  assert read.size == theirs.vocab_size == 259 + extra_ids
  assert (read.pad_id, read.eos_id, read.bos_id, read.unk_id) == (0, 1, None, 2)
  assert read.native
  assert read.lossless
  for text in TEXTS:
    ids = theirs.encode(text)
    assert read.encode(text) == ids
    assert read.decode(ids) == text == theirs.decode(ids)
  # Specials, extra ids, ids of no token and bytes of no character.
  odd = [0, 2, 3 + 0xE4, 3 + 0xB8, 3 + 0x41, 259, 1000]
  assert read.decode(odd) == theirs.decode(odd) == 'A'


def test_each_word_of_a_byte_vocabulary_is_its_own_bytes(tmp_path):
  read = Tokenizer(tokenizer_file(seqio.ByteVocabulary(), str(tmp_path)))
  for text in TEXTS:
    marked = read.encode_marked(text)
    assert marked.ids.tolist() == read.encode(text)
    assert not np.any(marked.words[:, 2] & words.UNSPLICEABLE)
    spelled = [read.decode(marked.ids[s : s + n]) for s, n, *_ in marked.words.tolist()]
    assert [s.removeprefix(' ') for s in spelled] == [text[a:b] for a, b in words.find_words(text)]


@pytest.mark.parametrize('extra', [-1, '5', True, None])
def test_a_byte_vocabularys_file_has_a_number_of_extra_ids(tmp_path, extra):
  (tmp_path / 'b.json').write_text(json.dumps({'type': 'bytes', 'extra_ids': extra}))
  with pytest.raises(ValueError, match=r"b\.json: 'extra_ids' is .*: it is 0 or more"):
    Tokenizer(tmp_path / 'b.json')


def test_a_sentencepiece_models_file_is_the_model_as_seqio_changes_it(tmp_path, foreign):
  path = str(foreign['t5.model'].path)
  assert tokenizer_file(seqio.SentencePieceVocabulary(path), str(tmp_path)) == path
  assert not list(tmp_path.iterdir())
  spec = seqio.vocabularies.sentencepiece_model_pb2.NormalizerSpec(remove_extra_whitespaces=False)
  changed = [
    seqio.SentencePieceVocabulary(path, extra_ids=100),
    seqio.SentencePieceVocabulary(path, extra_ids=100, reverse_extra_ids=False),
    seqio.SentencePieceVocabulary(path, normalizer_spec_overrides=spec),
  ]
  files = {tokenizer_file(vocabulary, str(tmp_path)) for vocabulary in changed}
  assert len(files) == 3
  for vocabulary in changed:
    read = Tokenizer(tokenizer_file(vocabulary, str(tmp_path)))
    assert read.size == vocabulary.vocab_size
    for text in [*TEXTS[-20:], 'Bir <extra_id_0> nesi <extra_id_99> var']:
      assert read.encode(text) == list(vocabulary.encode(text))
  assert len(list(tmp_path.iterdir())) == 3  # no more for the second time


def test_a_vocabulary_of_another_kind_has_no_file(tmp_path, foreign):
  assert tokenizer_file(foreign['gpt2.json'], str(tmp_path)) == foreign['gpt2.json'].path
  with pytest.raises(
    ValueError, match='is a PassThroughVocabulary: it is a SentencePieceVocabulary'
  ):
    tokenizer_file(seqio.PassThroughVocabulary(10), str(tmp_path))
