import pytest

from jaxlink.data import cleaning
from tests.data.cleaning.texts import english, run, turkish

OFF = {
  'word_length': None, 'symbols': None, 'bullet_lines': None, 'ellipsis_lines': None,
  'words_with_letters': None, 'ended_lines': None, 'newlines': None,
}  # fmt: skip
LINES = turkish()[0].split('\n')
FINEWEB2 = """
dup_line_frac: 0.303
dup_n_grams: [[5, 0.168], [6, 0.151], [7, 0.135], [8, 0.123], [9, 0.116], [10, 0.107]]
language_score: 0.875
line_punct_thr: 0.2
max_avg_word_length: 21
max_non_alpha_words_ratio: 0.773
min_avg_word_length: 3
new_line_ratio: 0.273
stopwords: [ve, bir, olarak, bu, ile]
top_n_grams: [[2, 0.094], [3, 0.114], [4, 0.136]]
"""


def judge(text, **limits):
  return cleaning.filter_quality(**{**OFF, **limits}).judge(text).removed


def test_articles_stay():
  steps = [cleaning.filter_length(), cleaning.filter_quality()]
  assert [reason for _, reason in run(english(), *steps)] == [''] * len(english())


def test_length_at_its_limits():
  judge = cleaning.filter_length(least_words=3, most_words=5).judge
  found = [judge(' '.join(LINES[0].split()[:n])).removed for n in range(1, 8)]
  assert found == ['too_few_words'] * 2 + [''] * 3 + ['too_many_words'] * 2


@pytest.mark.parametrize(
  ('text', 'limit', 'removed'),
  [
    ('ab abcd', {'word_length': (3, 3)}, ''),  # 3 on average
    ('ab abc', {'word_length': (3, 10)}, 'word_length'),
    ('abcde abcdef', {'word_length': (3, 5)}, 'word_length'),
    ('# a b c d e f g h i j', {'symbols': 0.1}, ''),
    ('# a b c d e f g h i', {'symbols': 0.1}, 'symbols'),
    ('a... b c… d e f g h i', {'symbols': 0.2}, 'symbols'),
    ('• a\n- b\nc', {'bullet_lines': 2 / 3}, ''),
    ('• a\n- b\nc', {'bullet_lines': 0.66}, 'bullet_lines'),
    ('a...\nb…\n\nc\nd', {'ellipsis_lines': 0.5}, ''),
    ('a...\nb…\n\nc', {'ellipsis_lines': 0.5}, 'ellipsis_lines'),
    ('a b2 3 4', {'words_with_letters': 0.5}, ''),
    ('a 3 4', {'words_with_letters': 0.5}, 'words_without_letters'),
    ('Bitti.\nBitmedi', {'ended_lines': 0.5}, ''),
    ('Bitti.\nBitmedi\nBaşlık', {'ended_lines': 0.5}, 'lines_without_end'),
    ('«Bitti!»\n他来了。\nयह हुआ।\nانتهى؟', {'ended_lines': 1.0}, ''),
    (f'kısa\n{"u" * 31}', {'short_lines': 0.5}, ''),
    (f'{"k" * 30}\nkısa\n{"u" * 31}', {'short_lines': 0.5}, 'short_lines'),
    ('a b c d\n', {'newlines': 0.25}, ''),
    ('a b c\n', {'newlines': 0.3}, 'newlines'),
    ('Kedi VE köpek ve', {'stop_words': ['ve', 'bir']}, ''),
    ('Kedi ve köpek', {'stop_words': ['ve', 'bir']}, 'few_stop_words'),
  ],
)  # fmt: skip
def test_each_limit_holds_and_a_document_at_it_stays(text, limit, removed):
  assert judge(text, **limit) == removed
  assert judge(text) == ''


def test_a_file_of_fineweb2_sets_its_limits(tmp_path):
  path = tmp_path / 'tur_Latn.yml'
  path.write_text(FINEWEB2)
  repetition, length, quality = cleaning.fineweb2_filters(path)
  assert repetition.judge.keywords == {
    'lines': (0.303, 0.1),
    'paragraphs': (None, None),
    'top': ((2, 0.094), (3, 0.114), (4, 0.136)),
    'repeated': ((5, 0.168), (6, 0.151), (7, 0.135), (8, 0.123), (9, 0.116), (10, 0.107)),
  }
  assert length.judge.keywords == {'least': 50, 'most': 100_000}
  assert quality.judge.keywords['word_length'] == (3, 21)
  assert quality.judge.keywords['words_with_letters'] == 0.773
  assert quality.judge.keywords['ended_lines'] == 0.2
  assert quality.judge.keywords['newlines'] == 0.273
  assert quality.judge.keywords['stop_words'] == {'ve', 'bir', 'olarak', 'bu', 'ile'}
  path.write_text(FINEWEB2.replace('line_punct_thr', 'line_punkt_thr'))
  with pytest.raises(ValueError, match=r"unknown key 'line_punkt_thr'. Nearest: 'line_punct_thr'"):
    cleaning.fineweb2_filters(path)


def test_settings_that_make_no_sense_are_errors():
  with pytest.raises(ValueError, match=r'filter_length\(least_words=9, most_words=3\)'):
    cleaning.filter_length(least_words=9, most_words=3)
  with pytest.raises(ValueError, match=r'ended_lines=…\) is 12'):
    cleaning.filter_quality(ended_lines=12)
  with pytest.raises(ValueError, match=r'symbols=-1'):
    cleaning.filter_quality(symbols=-1)
  with pytest.raises(ValueError, match='the smallest, then the largest'):
    cleaning.filter_quality(word_length=(10, 3))
  with pytest.raises(ValueError, match='a list of words'):
    cleaning.filter_quality(stop_words='ve')
