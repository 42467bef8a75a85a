"""Glosses of real dictionaries: what is a sense, what is none, and that nothing leaks or vanishes."""

import collections

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxlink.link.glosses import MARKUP, senses, tidy


def english(text):
  return senses(text, ';,/', english=True, gloss=True)


def kept(text):
  return [sense for sense, reason in english(text) if not reason]


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('to run; jog (informal)', ['run', 'jog']),
    ('to cost, be worth', ['cost', 'be worth']),
    ('a room.', ['room']),
    ('San Sebastián (a city and municipality of the Basque Country, Spain)', ['San Sebastián']),
    ('hello, farewell (a common greeting)', ['hello', 'farewell']),
    ('severe/enormous', ['severe', 'enormous']),
    ('minus, lack(ing)', ['minus', 'lack']),
    ('[I am / someone is] hungry', ['hungry']),
    ('indication, evidence', ['indication', 'evidence']),
    ('letter', ['letter']),
    ('shakes, or trembles', ['shakes', 'trembles']),
    ('to and fro', ['to and fro']),
    ('police‐station', ['police-station']),
    ('So!', ['So']),
  ],
)
def test_a_gloss_is_cut_into_senses(text, expected):
  assert kept(text) == expected
  assert [sense for sense, _ in english(text)] == expected


@pytest.mark.parametrize(
  ('text', 'expected', 'explained'),
  [
    ('executioner, an official person who carries out the capital punishment.', ['executioner'], 1),
    (
      'Reer Darwiish; a clan which predominates in Sool, Cayn, and Bookh district.',
      ['Reer Darwiish'],
      1,
    ),
    ('albino: person or animal; one afflicted with albinism.', ['albino'], 1),
    ('The first letter of the Hausa alphabet, written in the Latin script.', [], 1),
    ('A place for buying things.', [], 1),
    ('a beggar who sings praise songs', [], 1),
    ('Used to invite someone to eat or do something.', [], 1),
    ('a unisex given name meaning "Born a festival"', [], 1),
  ],
)
def test_an_explanation_is_dropped_as_a_whole(text, expected, explained):
  assert kept(text) == expected
  assert [reason for _, reason in english(text) if reason] == ['definitions'] * explained


@pytest.mark.parametrize(
  'text',
  [
    'plural of dog',
    'Plural of kifaa: implement',
    'Third-person singular (hark), taking third-person plural, present indicative form of izan.',
    'Alternative form of egbò (“root”)',
    'synonym of 瓜 (uri, “melon, gourd”)',
    'Rōmaji transcription of とらわれ',
    'short for 狸饂飩 (tanuki-udon)',
    'Contraction of ዐሥራ፡አምስት .',
    'See also: ahadi',
    'see dog',
  ],
)
def test_a_gloss_that_names_another_entry_is_a_pointer(text):
  assert [reason for _, reason in english(text)] == ['pointers']


@pytest.mark.parametrize('text', ['short of breath', 'seer', 'sea form', 'a person of colour'])
def test_a_gloss_with_a_word_of_pointers_is_none(text):
  assert [reason for _, reason in english(text)] == ['']


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('गिनतारा {m}', ['गिनतारा']),
    ('पीछ॓ की ओर [archaic], बोचक्क /bochakk/', ['पीछ॓ की ओर', 'बोचक्क']),
    ('नज़दीक /nazdīk/, ... के पास /... ke pās/', ['नज़दीक', 'के पास']),
    ('छोड़ देना, ...', ['छोड़ देना']),
    ('cân (斤)', ['cân']),
    ('tổng sản phẩm quốc nội', ['tổng sản phẩm quốc nội']),
    ('Mbwa <masc> [slang]', ['Mbwa']),
    ('کتاب، پستک', ['کتاب', 'پستک']),
    ('to', ['to']),
    ('the', ['the']),
  ],
)
def test_a_translation_loses_tags_and_transliterations(text, expected):
  assert senses(text, ';,', english=False, gloss=True) == [(sense, '') for sense in expected]


def test_gaps_and_what_no_bracket_closes_have_a_reason():
  found = senses('ne ... pas; người (a person; } dì', ';', english=False, gloss=True)
  assert [reason for _, reason in found] == ['placeholders', 'markup', 'markup']


def test_a_headword_keeps_its_articles_and_commas_and_loses_to():
  for text, expected in [
    ('to run', 'run'),
    ('the same', 'the same'),
    ('easy come, easy go', 'easy come, easy go'),
    (
      'give a man a fish and you feed him for a day',
      'give a man a fish and you feed him for a day',
    ),
  ]:
    assert senses(text, ';', english=True, gloss=False) == [(expected, '')]


@pytest.mark.parametrize('text', ['', '(informal)', '...', ' ; , ', '/bochakk/'])
def test_a_text_without_a_sense_is_an_empty_side(text):
  assert english(text) == [('', 'empty_side')]


def test_what_is_taken_out_is_counted():
  counts = collections.Counter()
  text = 'गिनतारा {m} /gintārā/ (old (very))'
  assert senses(text, ',', english=False, gloss=True, counts=counts) == [('गिनतारा', '')]
  assert counts == {'remarks': 3, 'transliterations': 1}


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('पालन \u200b\u200b करनाइ', 'पालन करनाइ'),
    ('\u200e\u202bکتاب\u202c', 'کتاب'),
    ('अत्यन्तम्\u200c', 'अत्यन्तम्'),
    ('می\u200cخواهم', 'می\u200cخواهم'),
    ('co\u00adope\u00adrate', 'cooperate'),
    ('a\u00a0b\tc\x0bd\x00', 'a b c d'),
    ('[[زبان|پنجابی زبان]]', 'پنجابی زبان'),
    ('[[پنجابی زبان]]', 'پنجابی زبان'),
    ('Groot‐Brittanje', 'Groot-Brittanje'),
    ('cafe\u0301', 'café'),
  ],
)
def test_tidy_takes_out_what_no_spelling_has(text, expected):
  assert tidy(text) == (expected, 0)


@hypothesis.given(
  st.text(alphabet='abé क्षि()[]{}<>;,/:. \u200b\u200d"~', max_size=30), st.booleans(), st.booleans()
)
def test_no_sense_is_empty_or_has_markup_without_a_reason(text, is_english, gloss):
  found = senses(text, ';,/', english=is_english, gloss=gloss)
  assert found
  for sense, reason in found:
    assert reason or (sense and sense == sense.strip() and not MARKUP.search(sense))
    assert sense or reason == 'empty_side'


@hypothesis.given(st.text(max_size=30))
def test_tidy_is_done_at_once(text):
  once, _ = tidy(text)
  assert tidy(once) == (once, 0)
