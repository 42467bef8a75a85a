"""Words and chunks on the scripts and the hostile text that they have to survive."""

import unicodedata

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxlink.link import words

# Letters, marks, apostrophes, spaces and line ends; ZWJ, ZWNJ, emoji, bidi controls, a surrogate.
FRAGMENTS = [*"É\u0301'’ \n-2ßİ猫\u200d\u200c❤\ufe0f\u202e\u2066\u00a0\ud800"]
FRAGMENTS += ['dog', 'E\u0301', '  ', '\r\n', '👩\u200d👩\u200d👧', 'ক্ষ', 'ہے']
HOSTILE = st.lists(st.sampled_from(FRAGMENTS) | st.characters(), max_size=30).map(''.join)


def spans(text):
  return [text[start:end] for start, end in words.find_words(text)]


def test_words_are_letters_and_marks_joined_by_single_apostrophes():
  text = "Don't stop — it’s the dogs' B2B well-known 'cause rock''n'roll, naïve_x 3rd."
  assert ' | '.join(spans(text)) == (
    "Don't | stop | it’s | the | dogs | B | B | well | known | cause | rock | n'roll | naïve | x | rd"
  )


def test_spans_are_in_characters():
  assert words.find_words('a 👩 dog') == [(0, 1), (4, 7)]
  assert words.find_words('') == []


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('আমি বাংলায় গান গাই।', ['আমি', 'বাংলায়', 'গান', 'গাই']),
    ('یہ اُردو زبان ہے۔', ['یہ', 'اُردو', 'زبان', 'ہے']),
    ('हिन्दी में लिखना', ['हिन्दी', 'में', 'लिखना']),
    ('Việt Nam', ['Việt', 'Nam']),
    ('ภาษาไทย', ['ภาษาไทย']),
  ],
)
def test_a_word_with_combining_marks_stays_whole(text, expected):
  assert spans(text) == expected
  assert spans(unicodedata.normalize('NFD', text)) == [
    unicodedata.normalize('NFD', word) for word in expected
  ]


def test_a_chunk_is_a_word_with_one_space_or_what_lies_between():
  assert words.chunk('The dog, 2  cats\n ran.') == (
    ['The', ' dog', ', 2 ', ' cats', '\n', ' ran', '.']
  )


@hypothesis.given(HOSTILE)
def test_chunks_and_pieces_concatenate_to_the_text(text):
  assert ''.join(words.chunk(text)) == text
  pieces = words.split_words(text)
  assert ''.join(pieces) == text
  assert len(pieces) % 2 == 1


@hypothesis.given(HOSTILE)
def test_pieces_at_odd_indices_are_the_words(text):
  pieces = words.split_words(text)
  assert pieces[1::2] == spans(text)
  assert all(map(words.is_word, pieces[1::2]))
  assert not any(words.find_words(rest) for rest in pieces[0::2])


@hypothesis.given(HOSTILE)
def test_each_word_is_one_chunk_but_for_its_space(text):
  found = [chunk.removeprefix(' ') for chunk in words.chunk(text)]
  assert [chunk for chunk in found if words.is_word(chunk)] == spans(text)


def test_is_word_takes_the_whole_text():
  assert words.is_word("don't")
  assert not words.is_word('two words')
  assert not words.is_word("dog'")
  assert not words.is_word('')


def test_key_folds_case_and_composition():
  assert words.key('E\u0301TÉ') == 'été'
  assert words.key('STRASSE') == words.key('Straße') == 'strasse'


@pytest.mark.parametrize(
  ('word', 'case'),
  [
    ('dog', 0),
    ('Dog', words.TITLE),
    ('DOG', words.UPPER),
    ('A', words.TITLE),
    ('E\u0301', words.TITLE),
    ("DON'T", words.UPPER),
    ("Don't", words.TITLE),
    ('NASAs', words.TITLE),
    ('iPhone', 0),
    ('ǅ', words.TITLE),
    ('猫', 0),
    ('ہے', 0),
    ('\u0301', 0),
  ],
)
def test_case_class(word, case):
  assert words.case_class(word) == case


def test_flags_of_a_mark_are_bits_of_their_own():
  # They are in every cache: their values stay.
  flags = (words.LEADING_SPACE, words.TITLE, words.UPPER, words.UNSPLICEABLE)
  assert flags == (1, 2, 4, 8)
