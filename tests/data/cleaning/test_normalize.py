import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlink.data import cleaning
from tests.data.cleaning.texts import counts, run, turkish

PERSIAN = 'می\u200cخواهم'  # 'I want': without the ZWNJ it is misspelt
KHMER = 'ភាសា\u200bខ្មែរ'  # a ZWSP parts its words
SINHALA = 'ශ්\u200dරී'


@given(st.text(), st.sampled_from(['NFC', 'NFD', 'NFKC', 'NFKD']))
def test_any_text_gets_the_form_and_doing_it_again_changes_nothing(text, form):
  judge = cleaning.normalize_unicode(form).judge
  once = judge(text).text
  assert unicodedata.is_normalized(form, once)
  assert judge(once).text == once
  assert judge(once).noted == ()


@pytest.mark.parametrize('text', [PERSIAN, KHMER, SINHALA, 'a\tb\r\nc\n', '\u200fעברית\u200f'])
def test_characters_that_languages_need_stay(text):
  assert cleaning.normalize_unicode().judge(text).text == unicodedata.normalize('NFC', text)


def test_what_no_reader_sees_goes_and_a_letter_finds_its_mark():
  text = '\ufeffSöz\u00adlük\x00 e\u2060\u0301 iki\u200bkelime \ufffe'
  assert run([text], cleaning.normalize_unicode()) == [('Sözlük é ikikelime ', '')]
  kept = cleaning.normalize_unicode(remove_junk=False).judge(text)
  assert kept.text == text


def test_changed_documents_are_counted_and_others_are_not_touched():
  texts = [turkish()[0], unicodedata.normalize('NFD', turkish()[1]), turkish()[2] + '\x07']
  assert counts(texts, cleaning.normalize_unicode()) == {
    'noted:normalized': 1, 'noted:junk_removed': 1,
  }  # fmt: skip
  assert [text for text, _ in run(texts, cleaning.normalize_unicode())] == list(turkish()[:3])


def test_an_unknown_form_is_an_error():
  with pytest.raises(ValueError, match=r"normalize_unicode\(form='nfc'\): 'NFC'"):
    cleaning.normalize_unicode('nfc')
