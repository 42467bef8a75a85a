"""Codes, scripts and titles of languages."""

import pytest
import regex

from jaxlink.link.formats import languages


def test_all_codes_and_names_of_a_language_are_one():
  for row in (('sw', 'swa', 'swh', 'Swahili'), ('zh', 'cmn', 'Chinese'), ('ht', 'Haitian Creole')):
    assert {languages.code(language) for language in row} == {row[0]}


def test_an_unknown_code_is_itself_and_nothing_is_known_of_it():
  assert languages.code('xyz') == 'xyz'
  assert languages.scripts('xyz') == ()
  assert languages.letters('xyz') is None
  assert languages.letters('') is None
  assert languages.name('xyz') == "'xyz'"


def test_scripts_are_those_of_running_text():
  assert languages.scripts('jpn') == ('Han', 'Hiragana', 'Katakana')
  assert languages.scripts('ko') == ('Hangul',)
  assert set(languages.scripts('sr')) == {'Latin', 'Cyrillic'}
  assert languages.letters('hi').search('KB फ़ाइल')
  assert not languages.letters('hi').search('KB')


def test_every_script_is_one_of_unicode():
  for script in languages.all_scripts():
    regex.compile(rf'\p{{{script}}}')


@pytest.mark.parametrize(
  ('title', 'pair'),
  [
    ('English-Swahili xFried/FreeDict Dictionary', ('en', 'sw')),
    ('Free English-Swahili Dictionary', ('en', 'sw')),
    ('English-Haitian Creole', ('en', 'ht')),
    ('Basque-English Wiktionary dictionary (eu-en)', ('eu', 'en')),
    ('English-Haitian Creole FreeDict Dictionary', ('en', 'ht')),
    ('apertium-eu-en.eu-en.dix.gz', ('eu', 'en')),
    ('eng-swh.tei', ('en', 'sw')),
    ('en_ak.tsv', ('en', 'ak')),
    ('Well-known words', ('', '')),
    ('muse.5000-6500.txt', ('', '')),
    ('dog-cat.txt', ('', '')),
  ],
)
def test_the_languages_of_a_title(title, pair):
  assert languages.pair_of(title) == pair
