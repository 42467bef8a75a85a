"""The case of a site and its replacement, by language; which replacements stand without a space."""

import unicodedata

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxlink.link import casing, words
from jaxlink.link.words import TITLE, UPPER


@pytest.mark.parametrize(
  ('surfaces', 'expected'),
  [
    (['dog'], 0), (['Dog'], TITLE), (['DOG'], UPPER), (['A'], TITLE), (['iPhone'], 0),
    (['McDonald'], TITLE), (['ǅip'], TITLE), (['কুকুর'], 0), (['狗'], 0), (['ძაღლი'], 0),
    (['FREE', 'OF', 'CHARGE'], UPPER), (['Free', 'of', 'charge'], TITLE),
    (['FREE', 'of'], TITLE), (['free', 'OF'], 0), (['A', 'DOG'], TITLE),
  ],
  ids=str,
)  # fmt: skip
def test_a_site_has_the_case_of_all_its_words_or_of_the_first(surfaces, expected):
  assert casing.case_of(surfaces) == expected


@pytest.mark.parametrize(
  ('language', 'target', 'title', 'upper'),
  [
    ('de', 'straße', 'Straße', 'STRASSE'),
    ('de', 'Hund', 'Hund', 'HUND'),
    ('tr', 'iş ışık', 'İş ışık', 'İŞ IŞIK'),
    ('tur', 'iğne', 'İğne', 'İĞNE'),
    ('tr-TR', 'ışık', 'Işık', 'IŞIK'),
    ('TR_tr', 'iş', 'İş', 'İŞ'),
    ('az', 'iş', 'İş', 'İŞ'),
    ('azj', 'ildırım', 'İldırım', 'İLDIRIM'),
    ('de', 'iş', 'Iş', 'IŞ'),
    ('trv', 'iş', 'Iş', 'IŞ'),  # Seediq is not Turkish
    ('fr', "l'école", "L'école", "L'ÉCOLE"),
    ('fr', '3 écoles', '3 Écoles', '3 ÉCOLES'),
    ('hr', 'ǆip', 'ǅip', 'ǄIP'),
    ('ka', 'ძაღლი', 'ძაღლი', 'ᲫᲐᲦᲚᲘ'),
    ('ur', 'کتا', 'کتا', 'کتا'),
    ('bn', 'কুকুর', 'কুকুর', 'কুকুর'),
    ('zh', '3月', '3月', '3月'),
    ('sw', '123', '123', '123'),
  ],
)
def test_a_target_takes_a_case_in_its_language(language, target, title, upper):
  assert casing.cased(target, 0, language) == target
  assert casing.cased(target, TITLE, language) == unicodedata.normalize('NFC', title)
  assert casing.cased(target, UPPER, language) == unicodedata.normalize('NFC', upper)


def test_capitals_that_fall_apart_are_put_together_again():
  raw = 'ΐ'.upper()
  assert not unicodedata.is_normalized('NFC', raw)
  assert casing.cased('ΐ', UPPER, 'el') == unicodedata.normalize('NFC', raw)


@hypothesis.given(
  st.text(st.characters(categories=['L', 'M', 'Nd', 'Pd', 'Po', 'Zs']), min_size=1),
  st.sampled_from([0, TITLE, UPPER]),
  st.sampled_from(['de', 'tr', 'el', 'zh']),
)
def test_a_cased_target_is_nfc_and_casing_it_again_changes_nothing(target, case, language):
  once = casing.cased(unicodedata.normalize('NFC', target), case, language)
  assert unicodedata.is_normalized('NFC', once)
  assert casing.cased(once, case, language) == once


@pytest.mark.parametrize('word', ['dog', 'Dog', 'DOG', 'A', 'iPhone', 'كلب', 'Éclair'])
def test_a_word_in_its_own_case_stays_as_it_is(word):
  assert casing.cased(word, words.case_class(word), 'en') == word


@pytest.mark.parametrize(
  ('code', 'base'),
  [('zh-Hant', 'zh'), ('ZH_tw', 'zh'), ('tr', 'tr'), ('cmn-Hans-CN', 'cmn'), ('', '')],
)
def test_the_base_of_a_code_is_its_language(code, base):
  assert casing.base_language(code) == base


@pytest.mark.parametrize(
  'language', ['zh', 'zho', 'zh-Hant', 'ZH_tw', 'ja', 'th', 'lo', 'km', 'my', 'bo']
)
def test_languages_without_spaces_take_the_one_before_away_unless_told_otherwise(language):
  assert casing.glues(language, 'replace', 'auto')
  assert casing.glues(language, 'restore', 'auto')
  assert not casing.glues(language, 'replace', 'space')
  assert not casing.glues(language, 'annotate', 'auto')


@pytest.mark.parametrize('language', ['tr', 'de', 'ko', 'vi', 'bn', 'hi', 'zhx', 'sw'])
def test_other_languages_keep_it(language):
  assert not casing.glues(language, 'replace', 'auto')
