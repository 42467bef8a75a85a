import itertools
import pickle
import subprocess
import sys
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxlink.data import tokenizer as tokenizer_lib
from jaxlink.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, padded_size
from jaxlink.link import words
from tests.data.conftest import SAMPLE, sample_text

KINDS = ('sentencepiece', 'byte_level')
LANGUAGES = ('en', 'tr', 'bn')

HOSTILE = [
  '', ' ', '  ', '\t', '\n\n', '\r\n', '\0', 'a\0b\0', '▁', '▁▁ ▁a', ' ▁', 'a▁b ▁ c',
  '<s>', '</s>', ' <s> </s><pad><unk>', '<0x41><0xE2>', '[UNK]', '<|endoftext|>', 'Ġthe Ċ',
  '\u2028\u2029\x85\x0b\x0c', '0123456789' * 30, '3.14159265358979', 'don’t can\'t \'\'a\'',
  'e\u0301e\u0302\u0323', '\u0301', ' \u0301\u0301', 'İIıi İSTANBUL', 'ﬁ ½ Å \u212b',
  '👩‍👩‍👧‍👦 🇹🇷 👍🏽', '\u200d\u200d', '\u202eabc\u202c \u2066x\u2069', '\ufeffbom\ufeff',
  'দেশের ভাষা ক্ষুদ্র', 'क्ष त्र ज्ञ', 'ภาษาไทย', '中文，日本語', '한국어', '\U0010ffff\ue000\ufffd',
]  # fmt: skip

hostile_text = st.lists(
  st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=['Cs']), max_size=12),
    st.text('aeıİ \t\n\u0301\u0323▁<>/s', max_size=12),
  ),
  max_size=8,
).map(''.join)


@pytest.fixture(scope='module')
def both(tiny_tokenizers):
  return {kind: Tokenizer(path) for kind, path in tiny_tokenizers.items()}


@pytest.fixture(scope='module')
def of_the_sample():
  return Tokenizer(SAMPLE / 'tokenizer.model')


def words_by_marks(tokenizer, text, cuts=()):
  """What `encode_marked` says of each word of a text: as spelt, flags, key."""
  marked = tokenizer.encode_marked(text, cuts)
  return [
    (tokenizer.decode(marked.ids[start : start + length]), flags, marked.types[type_])
    for start, length, flags, type_ in marked.words.tolist()
  ]


def words_by_definition(text):
  found = []
  for start, end in words.find_words(text):
    word = text[start:end]
    space = start > 0 and text[start - 1] == ' '
    flags = words.case_class(word) | (words.LEADING_SPACE if space else 0)
    found.append((' ' * space + word, flags, unicodedata.normalize('NFC', word).casefold()))
  return found


# ── lossless ──


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('text', HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_survives_a_round_trip(both, kind, text):
  assert both[kind].decode(both[kind].encode(text)) == text


@settings(max_examples=150, deadline=None)
@given(hostile_text, st.sampled_from(KINDS))
def test_any_text_survives_and_its_words_are_marked(both, text, kind):
  tokenizer = both[kind]
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert min(ids, default=UNK + 1) > UNK
  assert max(ids, default=0) < tokenizer.size
  assert tokenizer.encode_marked(text).ids.tolist() == ids
  assert words_by_marks(tokenizer, text) == words_by_definition(text)


@settings(max_examples=100, deadline=None)
@given(hostile_text, st.sampled_from(KINDS))
def test_a_text_is_encoded_chunk_by_chunk(both, text, kind):
  alone = [i for chunk in words.chunk(text) for i in both[kind]._model.encode(chunk)]
  assert both[kind].encode(text) == alone


MEGABYTE = """
import sys
from jaxlink.data.tokenizer import Tokenizer
tokenizer, text = Tokenizer(sys.argv[1]), 'ab' * 500_000
assert tokenizer.decode(tokenizer.encode(text)) == text
assert text not in tokenizer._memo
"""


@pytest.mark.parametrize('kind', KINDS)
def test_a_word_of_a_megabyte_survives(tiny_tokenizers, kind):
  # In a process of its own: beside TensorFlow, SentencePiece takes 16 seconds for such a word.
  subprocess.run([sys.executable, '-c', MEGABYTE, tiny_tokenizers[kind]], check=True, timeout=60)


@pytest.mark.parametrize('language', LANGUAGES)
def test_chunks_encode_as_the_library_encodes_the_whole_text(both, of_the_sample, language):
  text = sample_text(language)
  for tokenizer in (*both.values(), of_the_sample):
    assert tokenizer.encode(text) == tokenizer._model.encode(text)


def test_spelt_special_tokens_are_letters(both):
  for tokenizer in both.values():
    assert len(tokenizer._model.encode('<s>')) > 1
    ids = tokenizer.encode('<pad></s><s><unk> <s>')
    assert not {PAD, EOS, BOS, UNK} & set(ids)
    assert tokenizer.decode([BOS, *ids, EOS, PAD, tokenizer.size, tokenizer.size + 5]) == (
      '<pad></s><s><unk> <s>'
    )


# Of tasks/sample/tokenizer.model: caches and checkpoints hold such ids.
PINNED = {
  'Bir elin nesi var, iki elin sesi var.': [
    1111,
    501,
    262,
    336,
    466,
    615,
    7827,
    932,
    501,
    262,
    272,
    466,
    615,
    7826,
  ],
  'The “İstanbul” of 1453\n\tcafe\u0301 ▁ ক্ষ 3rd': [
    634,
    1715,
    7871,
    2374,
    7900,
    300,
    7803,
    7836,
    7867,
    7866,
    7865,
    4,
    5,
    7819,
    541,
    7804,
    8046,
    7803,
    232,
    156,
    135,
    7803,
    230,
    172,
    155,
    230,
    173,
    147,
    230,
    172,
    189,
    7803,
    7865,
    7808,
    7813,
  ],
}


@pytest.mark.parametrize('text', PINNED)
def test_ids_stay_what_they_were(of_the_sample, text):
  assert of_the_sample.encode(text) == PINNED[text]
  assert of_the_sample.encode_marked(text).ids.tolist() == PINNED[text]


def test_a_tokenizer_of_ours_is_native_lossless_and_splices_anything(both, of_the_sample):
  for tokenizer in (*both.values(), of_the_sample):
    assert tokenizer.native
    assert tokenizer.lossless
    assert tokenizer.normalize(' ﬁ  e\u0301\n') == ' ﬁ  e\u0301\n'
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id) == (
      PAD, EOS, BOS, UNK,
    )  # fmt: skip
    for piece in (' hund', 'das Haus', ' (hund', ''):
      assert tokenizer.splices(piece)
      assert tokenizer.encode_piece(piece) == tokenizer.encode(piece)


# ── marks ──


@pytest.mark.parametrize('language', LANGUAGES)
def test_every_word_of_real_text_is_marked_with_its_spelling_flags_and_key(
  both, of_the_sample, language
):
  text = sample_text(language)
  expected = words_by_definition(text)
  assert len(expected) > 1000
  for tokenizer in (*both.values(), of_the_sample):
    assert words_by_marks(tokenizer, text) == expected
    marked = tokenizer.encode_marked(text)
    assert marked.ids.dtype == marked.words.dtype == np.int32
    assert len(set(marked.types)) == len(marked.types)
    assert set(marked.words[:, 3].tolist()) == set(range(len(marked.types)))
    assert (np.diff(marked.words[:, 0]) >= marked.words[:-1, 1]).all()


def test_marks_tell_capitals_and_the_space(both):
  found = words_by_marks(both['sentencepiece'], 'İstanbul  BÜYÜK bir\nŞehir, "değil" mi')
  assert [(word, flags) for word, flags, _ in found] == [
    ('İstanbul', words.TITLE),
    (' BÜYÜK', words.UPPER | words.LEADING_SPACE),
    (' bir', words.LEADING_SPACE),
    ('Şehir', words.TITLE),
    ('değil', 0),
    (' mi', words.LEADING_SPACE),
  ]


def test_types_come_in_the_order_of_the_text_whatever_was_encoded_before(tiny_tokenizers):
  path, text = tiny_tokenizers['sentencepiece'], 'Haba na haba hujaza kibaba'
  fresh, used = Tokenizer(path), Tokenizer(path)
  used.encode_marked('kibaba hujaza na')
  for tokenizer in (fresh, used):
    assert tokenizer.encode_marked(text).types == ['haba', 'na', 'hujaza', 'kibaba']
    assert tokenizer.encode_marked(text).words[:, 3].tolist() == [0, 1, 0, 2, 3]


def test_a_text_without_words_has_no_marks(both):
  marked = both['byte_level'].encode_marked('12, 34!')
  assert marked.words.shape == (0, 4)
  assert marked.types == []
  assert both['byte_level'].encode_marked('').ids.shape == (0,)


@pytest.mark.parametrize(
  ('letters', 'tokens', 'flag'), [(16_383, 65_532, 0), (16_384, 65_535, words.UNSPLICEABLE)]
)
def test_a_word_of_more_tokens_than_a_mark_can_count_is_unspliceable(both, letters, tokens, flag):
  word = '\U00020000' * letters  # four tokens each
  marked = both['byte_level'].encode_marked(f'bir\n{word} iki')
  assert marked.words[1, 1:3].tolist() == [tokens, flag]
  assert marked.words[2, 0] == marked.words[1, 0] + 4 * letters
  assert both['byte_level'].decode(marked.ids[marked.words[2, 0] :]) == ' iki'


# ── cuts ──


@settings(max_examples=100, deadline=None)
@given(hostile_text, st.lists(st.integers(0, 60), max_size=4), st.sampled_from(KINDS))
def test_a_cut_text_is_encoded_part_by_part(both, text, cuts, kind):
  tokenizer, cuts = both[kind], sorted(cut for cut in cuts if cut <= len(text))
  edges = [0, *cuts, len(text)]
  parts = [text[a:b] for a, b in itertools.pairwise(edges)]
  assert tokenizer.encode(text, cuts) == [i for part in parts for i in tokenizer.encode(part)]
  marked = tokenizer.encode_marked(text, cuts)
  assert marked.ids.tolist() == tokenizer.encode(text, cuts)
  assert words_by_marks(tokenizer, text, cuts) == [
    word for part in parts for word in words_by_marks(tokenizer, part)
  ]


def test_no_word_spans_a_cut(both):
  found = words_by_marks(both['byte_level'], 'a黑猫 sleeps', [1, 4])
  assert [(word, flags) for word, flags, _ in found] == [('a', 0), ('黑猫', 0), ('sleeps', 0)]


@pytest.mark.parametrize('cuts', [[5], [3, 2], [-1]])
def test_a_cut_outside_the_text_or_out_of_order_is_an_error(both, cuts):
  with pytest.raises(ValueError, match=r'cuts is \[.* for a text of 4 characters'):
    both['sentencepiece'].encode('haba', cuts)


# ── memory ──


@pytest.mark.parametrize('bound', [1, 7, 100])
def test_a_small_memory_gives_the_same_output_and_stays_small(tiny_tokenizers, monkeypatch, bound):
  path = tiny_tokenizers['sentencepiece']
  free, bounded = Tokenizer(path), Tokenizer(path)
  for line in [line for line in sample_text('tr').split('\n') if line][:60]:
    monkeypatch.undo()
    expected = free.encode_marked(line)
    monkeypatch.setattr(tokenizer_lib, 'MEMO_CHUNKS', bound)
    found = bounded.encode_marked(line)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.types == expected.types
    assert found.words.tolist() == expected.words.tolist()
    assert len(bounded._memo) <= bound
    assert len(bounded._keys) == len(bounded._types) <= bound + len(words.find_words(line))


def test_a_tokenizer_is_pickled_by_its_path(both):
  for tokenizer in both.values():
    tokenizer.encode('to be remembered')
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert (copy.path, copy.sha256, copy.size) == (
      tokenizer.path, tokenizer.sha256, tokenizer.size,
    )  # fmt: skip
    assert copy.encode('Haba na haba') == tokenizer.encode('Haba na haba')


# ── files ──


def test_a_missing_file_names_the_tool_that_trains_one(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"No tokenizer '.*t\.model'.*train_tokenizer"):
    Tokenizer(tmp_path / 't.model')


def test_another_suffix_or_a_file_of_something_else_is_an_error(tmp_path):
  for name in ('t.txt', 't', 't.vocab'):
    (tmp_path / name).write_text('Bir elin nesi var')
    with pytest.raises(ValueError, match=r'a tokenizer is a \.model'):
      Tokenizer(tmp_path / name)
  for name in ('t.model', 't.json'):
    for content in ('Bir elin nesi var', '', '{}'):
      (tmp_path / name).write_text(content)
      with pytest.raises(ValueError, match='not a tokenizer file'):
        Tokenizer(tmp_path / name)


@pytest.mark.parametrize(
  'settings_',
  [
    {'unk_id': 3, 'byte_fallback': False},
    {'unk_id': 0, 'bos_id': 1, 'eos_id': 2, 'pad_id': -1, 'byte_fallback': True},
    {'unk_id': 3, 'byte_fallback': True, 'add_dummy_prefix': True},
    {'unk_id': 3, 'byte_fallback': True, 'normalization_rule_name': 'nfkc'},
    {'unk_id': 3, 'byte_fallback': True, 'remove_extra_whitespaces': True},
  ],
  ids=['no bytes', 'specials', 'prefix', 'normaliser', 'spaces'],
)
def test_a_sentencepiece_model_that_changes_text_or_has_other_specials_is_foreign(
  tmp_path, settings_
):
  import sentencepiece

  ours = {
    'pad_id': 0, 'eos_id': 1, 'bos_id': 2, 'normalization_rule_name': 'identity',
    'remove_extra_whitespaces': False, 'add_dummy_prefix': False,
  }  # fmt: skip
  with open(tmp_path / 't.model', 'wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(sample_text('tr').split('\n')[:200]), model_writer=file,
      model_type='bpe', vocab_size=400, minloglevel=2, **(ours | settings_),
    )  # fmt: skip
  assert not Tokenizer(tmp_path / 't.model').native


def test_a_byte_level_file_with_other_chunks_is_foreign(tmp_path, tiny_tokenizers):
  import tokenizers

  tokenizer = tokenizers.Tokenizer.from_file(tiny_tokenizers['byte_level'])
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.save(str(tmp_path / 't.json'))
  assert not Tokenizer(tmp_path / 't.json').native


def test_too_little_text_for_the_size_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='not the 5,000 asked for'):
    tokenizer_lib.train_byte_level(['Haba na haba'], 5000, str(tmp_path / 't.json'))


@pytest.mark.parametrize(('size', 'padded'), [(1, 128), (128, 128), (129, 256), (8192, 8192)])
def test_a_vocabulary_is_padded_to_whole_lanes(size, padded):
  assert padded_size(size) == padded
