import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlink.data import cleaning
from jaxlink.data.cleaning import grams, repetition
from tests.data.cleaning.texts import english, run, turkish

NO_GRAMS = {'top_grams': {}, 'repeated_grams': {}}
LINES = turkish()[0].split('\n')


def judge(text, **limits):
  return cleaning.filter_repetition(**limits).judge(text).removed


def test_articles_stay_and_boilerplate_goes():
  menu = '\n'.join(['Ana sayfa | Haberler | İletişim'] * 8 + LINES[:4])
  slogan = ' '.join(['Hemen üye olun ve fırsatları kaçırmayın!'] * 9 + LINES[:2])
  found = run([*english(), menu, slogan], cleaning.filter_repetition())
  assert [reason for _, reason in found] == [''] * len(english()) + ['repeated_lines', 'top_2gram']


def test_repeated_lines_at_the_limit_stay():
  text = '\n'.join([*LINES[:7], *['Aynı satır.'] * 4])  # 3 of 11 came before
  assert judge(text, lines=3 / 11, line_characters=None, **NO_GRAMS) == ''
  assert judge(text, lines=0.272, line_characters=None, **NO_GRAMS) == 'repeated_lines'


def test_characters_of_repeated_lines_at_the_limit_stay():
  text = '\n'.join(['abcde', 'abcde', 'fghij', '12345'])
  assert judge(text, lines=None, line_characters=0.25, **NO_GRAMS) == ''
  assert judge(text, lines=None, line_characters=0.24, **NO_GRAMS) == 'repeated_line_characters'


def test_paragraphs_are_judged_only_if_asked():
  text = '\n\n'.join([LINES[0], LINES[1], LINES[0]])
  other = {'lines': None, 'line_characters': None, **NO_GRAMS}
  assert judge(text, **other) == ''
  assert judge(text, paragraphs=1 / 3, **other) == ''
  assert judge(text, paragraphs=0.33, **other) == 'repeated_paragraphs'
  share = len(LINES[0]) / len(text)
  assert judge(text, paragraph_characters=share, **other) == ''
  assert judge(text, paragraph_characters=share - 1e-9, **other) == 'repeated_paragraph_characters'


def test_the_top_gram_at_the_limit_stays_and_one_that_occurs_once_is_none():
  text = 'kara deniz ve kara deniz kıyısı'  # 'kara deniz' twice: 20 of 31 characters
  other = {'lines': None, 'line_characters': None, 'repeated_grams': {}}
  assert judge(text, top_grams={2: 20 / 31}, **other) == ''
  assert judge(text, top_grams={2: 0.64}, **other) == 'top_2gram'
  assert judge('bir iki', top_grams={2: 0.0}, **other) == ''


def test_repeated_grams_at_the_limit_stay():
  text = 'a b c d e, a b c d e; f'  # five letters come again, of 23 characters
  other = {'lines': None, 'line_characters': None, 'top_grams': {}}
  assert judge(text, repeated_grams={5: 5 / 23}, **other) == ''
  assert judge(text, repeated_grams={5: 0.217}, **other) == 'repeated_5gram'


@settings(deadline=None)
@given(st.lists(st.sampled_from(['kara', 'deniz', 've', 'kıyı']), max_size=40), st.integers(1, 5))
def test_repeated_letters_are_those_of_a_plain_count(words, n):
  ends = np.cumsum([0, *map(len, words)])
  found = (*repetition._recurring(grams.word_keys(words), n, np.arange(len(words))), ends, n)
  seen, letters, at = set(), 0, 0
  while at + n <= len(words):
    gram = tuple(words[at : at + n])
    letters += sum(map(len, gram)) if gram in seen else 0
    at += n if gram in seen else 1
    seen.add(gram)
  assert repetition._repeated_grams(*found) == letters
  times = {}
  for at in range(len(words) - n + 1):
    gram = ' '.join(words[at : at + n])
    times[gram] = times.get(gram, 0) + 1
  most = max(times.values(), default=0)
  longest = max((len(g) * most for g, t in times.items() if t == most), default=0)
  assert repetition._top_gram(*found) == (longest if most > 1 else 0)


def test_settings_that_make_no_sense_are_errors():
  with pytest.raises(ValueError, match=r'filter_repetition\(lines=…\) is 3: it is a share'):
    cleaning.filter_repetition(lines=3)
  with pytest.raises(ValueError, match=r'top_grams\[2\]=…\) is 20'):
    cleaning.filter_repetition(top_grams={2: 20})
  with pytest.raises(ValueError, match='an n-gram of 0 words'):
    cleaning.filter_repetition(repeated_grams={0: 0.1})
