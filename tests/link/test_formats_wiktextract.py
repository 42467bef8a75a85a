"""Wiktextract dumps: both kinds of records, links, romanisations, broken lines."""

import json
import pathlib

import pytest

from jaxlink.link.formats import reading
from jaxlink.link.lexicon import Lexicon

EXCERPTS = pathlib.Path(__file__).parent / 'dictionaries'
WATER = {
  'word': 'water',
  'lang': 'English',
  'lang_code': 'en',
  'senses': [{'glosses': ['A liquid.'], 'translations': [{'lang_code': 'sw', 'word': 'maji'}]}],
  'translations': [
    {'lang_code': 'he', 'word': 'מַיִם', 'roman': 'máyim'},
    {'lang_code': 'ru', 'word': 'вода́', 'roman': 'vodá'},
    {'code': 'ar', 'word': 'مَاء', 'roman': 'māʔ'},
    {'lang_code': 'sw', 'note': 'no word'},
  ],
}


@pytest.fixture
def write(tmp_path):
  def write_file(*records):
    path = tmp_path / 'kaikki.jsonl'
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path

  return write_file


@pytest.mark.parametrize(
  ('target', 'word'),
  [('sw', 'maji'), ('swh', 'maji'), ('he', 'מים'), ('ru', 'вода'), ('ar', 'ماء')],
)
def test_a_translation_is_without_romanisation_points_and_stress(write, target, word):
  assert Lexicon.load(write(WATER), target=target).entries == {'water': (word,)}


def test_a_translation_without_a_word_is_counted(write):
  assert Lexicon.load(write(WATER), target='sw').counts['empty_side'] == 1


def test_definitions_in_english_are_no_translations(write):
  with pytest.raises(ValueError, match=r"wanted Tamil \('ta'\), with English.*found .*Swahili"):
    Lexicon.load(write(WATER), target='ta')


def test_links_are_counted_whatever_their_gloss_says(write):
  run = {'word': 'kimbia', 'lang_code': 'sw', 'senses': [{'glosses': ['to run']}]}
  form = {
    'word': 'kukimbia',
    'lang_code': 'sw',
    'senses': [{'glosses': ['infinitive'], 'form_of': [{'word': 'kimbia'}]}],
  }
  circle = {
    'word': 'kimbia',
    'lang_code': 'sw',
    'senses': [{'glosses': ['kukimbia'], 'alt_of': [{'word': 'kukimbia'}]}],
  }
  lexicon = Lexicon.load(
    write(run, form, circle, {'title': 'x', 'redirect': 'kimbia'}), target='sw'
  )
  assert lexicon.entries == {'run': ('kimbia',)}
  assert lexicon.counts['pointers'] == 2
  assert lexicon.counts['redirects'] == 1


def test_of_nested_glosses_the_most_special_one_translates():
  lexicon = Lexicon.load(EXCERPTS / 'ko-en-extract.jsonl', target='ko')
  assert set(lexicon.entries) == {'germany', 'read'}


def test_records_of_other_languages_are_counted(write):
  yoruba = {'word': 'omi', 'lang_code': 'yo', 'senses': [{'glosses': ['water']}]}
  swahili = {'word': 'maji', 'lang_code': 'sw', 'senses': [{'glosses': ['water']}]}
  lexicon = Lexicon.load(write(yoruba, swahili), target='sw')
  assert lexicon.entries == {'water': ('maji',)}
  assert lexicon.counts['other_languages'] == 1
  with pytest.raises(ValueError, match=r"give its code as 'target'.*Yoruba \('yo'\) 1"):
    Lexicon.load(write(yoruba, swahili))


def test_one_language_needs_no_name(write):
  swahili = {'word': 'maji', 'lang_code': 'sw', 'senses': [{'glosses': ['water']}]}
  assert Lexicon.load(write(swahili)).entries == {'water': ('maji',)}


def test_an_edition_of_the_target_language_gives_its_glosses():
  assert Lexicon.load(EXCERPTS / 'en-es-extract.jsonl').entries['fast'][:3] == (
    'rápido',
    'veloz',
    'adelantado',
  )
  with pytest.raises(ValueError, match=r'wanted Turkish .*found English'):
    Lexicon.load(EXCERPTS / 'en-es-extract.jsonl', target='tr')


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('{"word": "x"', r'kaikki\.jsonl:2: no JSON object'),
    ('["word"]', r'kaikki\.jsonl:2: no Wiktextract record'),
    ('{"title": "x"}', r'kaikki\.jsonl:2: no Wiktextract record'),
    ('[' * 100_000, r'kaikki\.jsonl:2: no JSON object'),
  ],
)
def test_a_broken_line_is_named(write, line, message):
  with pytest.raises(ValueError, match=message):
    Lexicon.load(write(WATER, line), target='sw')


def test_a_record_without_end_is_an_error_that_is_short(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, 'MAX_RECORD_BYTES', 1000)
  path = tmp_path / 'kaikki.jsonl'
  path.write_text(json.dumps(WATER) + '\n{"word": "' + 'x' * 2000 + '"}\n', encoding='utf-8')
  with pytest.raises(ValueError, match=r'kaikki\.jsonl:2: a line of more than 1,000 bytes'):
    Lexicon.load(path, target='sw')


def test_a_line_that_is_not_utf8_is_named(tmp_path):
  path = tmp_path / 'kaikki.jsonl'
  path.write_bytes(json.dumps(WATER).encode() + b'\n{"word": "\xe9t\xe9"}\n')
  with pytest.raises(ValueError, match=r'kaikki\.jsonl:2: no JSON object.*utf-8'):
    Lexicon.load(path, target='sw')
