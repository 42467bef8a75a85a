import random

import pytest

from jaxlink.auditing import texts
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import load_words
from jaxlink.link.policy import stop_words_path

URDU = 'یہ ایک خوبصورت دن ہے۔\nہم سب گھر جا رہے ہیں۔'
TURKISH = 'Damlaya damlaya göl olur, derler eskiler.\nSakla samanı, gelir zamanı.'
ENGLISH = 'The early bird catches the worm, but the second mouse gets the cheese.'


def faults(documents, language='tr', **settings):
  return texts.read(documents, language, **settings)[0]


def test_documents_and_lines_that_come_again_are_counted_beyond_the_first():
  found = faults([TURKISH, 'bir\niki\n  bir  \n\n', TURKISH, TURKISH])
  assert (found.documents, found.duplicate_documents) == (4, 2)
  assert (found.lines, found.duplicate_lines) == (9, 5)
  assert found.repeated[0] == ('Damlaya damlaya göl olur, derler eskiler.', 3)
  assert ('bir', 2) in found.repeated
  assert ('iki', 1) not in found.repeated


def test_documents_of_the_held_out_split_are_found():
  assert faults([TURKISH, ENGLISH], held_out={key_of(ENGLISH), key_of('other')}).held_out == 1
  assert faults([TURKISH], held_out=()).held_out == 0


@pytest.mark.parametrize(
  ('line', 'reason'),
  [
    ('bozuk \ufffd harf', 'replacement'),
    ('zil \x07 çalar', 'control'),
    ('C1 \x85 burada', 'control'),
    ('1984 – 2024', 'no_letters'),
    ('Привет, мир', 'other_script'),
  ],
)
def test_a_faulty_line_is_counted_by_its_reason_and_shown(line, reason):
  found = faults([f'{TURKISH}\n{line}', TURKISH])
  assert {name: n for name, n in found.by_reason.items() if n} == {reason: 1}
  assert found.examples == {reason: [line]}


def test_tabs_and_joiners_are_no_control_characters():
  assert not any(faults(['یک\tدو', 'می\u200cخواهم'], 'fa').by_reason.values())


def test_english_lines_in_urdu_are_told_by_script_and_names_in_them_are_not():
  found = faults([f'{URDU}\n{ENGLISH}\nوہ IBM میں کام کرتا ہے', URDU], 'ur')
  assert found.scripts == ('Arabic',)
  assert found.by_reason['other_script'] == 1
  assert found.by_script == {'Latin': 1}
  assert found.examples['other_script'] == [ENGLISH]


def test_english_lines_in_turkish_are_told_by_stop_words_alone():
  stop_words = load_words(stop_words_path('en'))
  found = faults([f'{TURKISH}\n{ENGLISH}'], other_stop_words=stop_words)
  assert found.by_reason['other_script'] == 0
  assert found.by_reason['other_language'] == 1
  assert found.examples['other_language'] == [ENGLISH]
  assert 'other_language' not in faults([ENGLISH]).by_reason  # which nobody could judge


def test_a_language_whose_scripts_are_unknown_has_no_lines_of_other_scripts():
  found = faults([ENGLISH, URDU], 'xxx')
  assert found.scripts == ()
  assert 'other_script' not in found.by_reason


def test_the_sample_is_of_the_documents_and_not_of_their_order():
  documents = [f'document {n}' for n in range(100)]
  _, sample = texts.read(documents, 'en', sample=5)
  shuffled = [*documents, *documents[:50]]
  random.Random(1).shuffle(shuffled)
  assert texts.read(shuffled, 'en', sample=5)[1] == sample
  assert sample == sorted(documents, key=key_of)[:5]
  assert len(texts.read(documents[:3], 'en', sample=5)[1]) == 3


def test_no_text_at_all_is_counted_as_nothing():
  found = faults([])
  assert (found.documents, found.lines, found.duplicate_lines) == (0, 0, 0)
