"""Which side is the source: what a file declares, its scripts, its words; and when that is claimed."""

import pathlib

import pytest

from jaxlink.link.formats.direction import decide
from jaxlink.link.formats.reading import Entry, Reading
from jaxlink.link.lexicon import Lexicon

EXCERPTS = pathlib.Path(__file__).parent / 'dictionaries'
HINDI = [('dog', 'कुत्ता'), ('water', 'पानी'), ('house', 'घर'), ('red', 'लाल')]
SWAHILI = [('dog', 'mbwa'), ('water', 'maji'), ('with', 'na'), ('which', 'gani'), ('the', 'hiyo'),
           ('from', 'kutoka'), ('why', 'kwa nini'), ('they', 'wao')]  # fmt: skip


def listed(pairs, turned=False, **fields):
  entries = [Entry((b,), (a,)) if turned else Entry((a,), (b,)) for a, b in pairs]
  return Reading(entries, [], **fields)


def direction(pairs, source='en', target='', turned=False, name='list.tsv', **fields):
  return decide(listed(pairs, turned, **fields), source, target, pathlib.Path(name))


@pytest.mark.parametrize('target', ['hi', 'hin', ''])
def test_the_script_decides(target):
  assert direction(HINDI, 'en', target) == 'forward'
  assert direction(HINDI, 'en', target, turned=True) == 'inverted'


@pytest.mark.parametrize('target', ['sw', 'swh', '', 'xyz'])
def test_in_one_script_english_function_words_decide(target):
  assert direction(SWAHILI, 'en', target) == 'forward'
  assert direction(SWAHILI, 'en', target, turned=True) == 'inverted'


def test_with_english_as_the_target_they_decide_the_other_way():
  assert direction(SWAHILI, 'sw', 'en') == 'inverted'
  assert direction(SWAHILI, 'sw', 'en', turned=True) == 'forward'


def test_identity_pairs_are_no_evidence():
  same = [(word, word) for word in ('the', 'with', 'which', 'from', 'why', 'they', 'who')]
  assert direction(SWAHILI + same, turned=True) == 'inverted'


def test_the_file_name_decides_where_nothing_else_does():
  few = [('mbwa', 'dog'), ('maji', 'water')]
  assert direction(few, 'en', 'sw') == 'forward'
  assert direction(few, 'en', 'sw', name='swh-eng.tsv') == 'inverted'
  assert direction(few, 'en', 'sw', name='eng-swh.tsv') == 'forward'


def test_what_the_file_declares_decides_before_its_words():
  assert direction(SWAHILI, 'en', 'sw', left='sw', right='en') == 'inverted'
  assert direction(SWAHILI, 'en', '', left='en', right='sw') == 'forward'


@pytest.mark.parametrize(
  ('source', 'target', 'message'),
  [
    ('en', 'tr', r"declares Swahili \('sw'\) to English \('en'\); wanted English .* and Turkish"),
    ('fr', '', r"declares Swahili .* wanted French \('fr'\) and any language"),
    ('fr', 'sw', r'declares Swahili'),
  ],
)
def test_a_file_that_declares_other_languages_is_an_error(source, target, message):
  with pytest.raises(ValueError, match=rf'list\.tsv: the file {message}'):
    direction(SWAHILI, source, target, left='sw', right='en')


def test_a_list_in_the_script_of_another_language_is_an_error():
  with pytest.raises(ValueError, match=r"list\.tsv: .*Turkish \('tr'\).*right: 100% Devanagari"):
    direction(HINDI, 'en', 'tr')
  with pytest.raises(ValueError, match=r'no side is in the script of the target, Hindi .*Devanag'):
    direction(SWAHILI, 'en', 'hi')
  with pytest.raises(ValueError, match=r'no side is in the script of the source, Russian'):
    direction(HINDI, 'ru', '')


def test_a_long_list_without_an_english_word_is_not_english():
  pairs = [(f'hund{"x" * n}', f'chien{"y" * n}') for n in range(1000)]
  with pytest.raises(ValueError, match=r"neither side looks like the source, English \('en'\)"):
    direction(pairs, 'en', 'fr')
  assert direction(pairs[:999], 'en', 'fr') == 'forward'  # too few to claim anything
  assert direction(pairs, 'de', 'fr') == 'forward'


def test_a_long_list_with_a_trace_of_english_is_not_refused():
  terms = [(f'benzen{"e" * (n % 50)}', f'benzeni{"x" * (n % 50)}') for n in range(990)]
  assert direction(terms + [('the smelling', 'kunusa')] * 20, 'en', 'sw') == 'forward'


def test_rarer_words_are_known_by_their_endings():
  # Of the English-German MUSE list, ranks 5000 to 6500: no function word is among them.
  rare = [('contestants', 'kandidaten'), ('harvested', 'geerntet'), ('lighting', 'beleuchtung'),
          ('heights', 'höhen'), ('barely', 'kaum'), ('stadium', 'stadion')]  # fmt: skip
  pairs = [(a + b, c + d) for a, c in rare for b, d in rare] * 30
  assert direction(pairs, 'en', 'de') == 'forward'
  assert direction(pairs, 'en', 'de', turned=True) == 'inverted'


def test_function_words_are_looked_for_in_the_whole_of_a_long_list():
  pairs = [(f'hund{"x" * (n % 97)}', f'chien{n % 89 * "y"}') for n in range(50_000)]
  pairs[12_345:12_349] = [('le', 'the'), ('avec', 'with'), ('pourquoi', 'why'), ('ils', 'they')]
  assert direction(pairs, 'en', 'fr') == 'inverted'


def test_of_an_unknown_language_nothing_is_claimed():
  assert direction(HINDI, 'en', 'xyz') == 'forward'
  assert direction(HINDI, 'xyz', '') == 'forward'


def test_a_list_read_both_ways_gives_the_same_entries(tmp_path):
  turned = tmp_path / 'list.tsv'
  rows = (EXCERPTS / 'en_om.tsv').read_text(encoding='utf-8').splitlines()
  turned.write_text(''.join('\t'.join(row.split('\t')[::-1]) + '\n' for row in rows), 'utf-8')
  there, back = Lexicon.load(EXCERPTS / 'en_om.tsv'), Lexicon.load(turned)
  assert (there.direction, back.direction) == ('forward', 'inverted')
  assert there.entries == back.entries


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'target': 'Oromo'}, r"target is 'Oromo': a language is a code .* Nearest: 'om'"),
    ({'target': 'OM'}, r"target is 'OM'"),
    ({'source': ''}, r"source is ''"),
    ({'source': 'en-US'}, r"source is 'en-US'"),
  ],
)
def test_a_language_is_a_code(arguments, message):
  with pytest.raises(ValueError, match=message):
    Lexicon.load(EXCERPTS / 'en_om.tsv', **arguments)
