"""A lemma helps where a lexicon has a word in no form, and nowhere else."""

import subprocess
import sys

import pytest

from jaxlink.link import lemmas
from jaxlink.link.draws import Draws
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.substitute import count, substitute

LEXICON = Lexicon.from_pairs([
  ('house', 'ev'), ('house', 'konut'), ('run', 'koşmak'), ('running', 'koşu'), ('city', 'kent'),
  ('cities', 'cities'), ('free of charge', 'bedava'), ('charge', 'ücret'),
])  # fmt: skip


@pytest.mark.parametrize(
  ('key', 'expected'),
  [
    ('house', ('house', ('ev', 'konut'))),
    ('houses', ('house', ('ev', 'konut'))),
    ('running', ('running', ('koşu',))),  # its own entry, not that of its lemma
    ('ran', ('run', ('koşmak',))),
    ('cities', ('', ())),  # the lexicon has the word, as itself
    ('mice', ('', ())),
    ('free of charge', ('free of charge', ('bedava',))),
    ('free of charges', ('', ())),  # of several words there is no lemma
  ],
)
def test_a_word_is_looked_up_by_its_lemma_only_if_the_lexicon_has_it_in_no_form(key, expected):
  assert lemmas.targets_of(LEXICON, key, 'en') == expected


@pytest.mark.parametrize('key', ['houses', 'ran', 'mice', 'free of charges'])
def test_without_a_language_there_are_no_lemmas(key):
  assert lemmas.targets_of(LEXICON, key, '') == ('', ())


def test_a_lemma_is_in_lower_case_as_keys_are():
  assert lemmas.lemma('häuser', 'de') == 'haus'
  assert lemmas.lemma('houses', 'en') == 'house'
  assert lemmas.lemma('qwzrtp', 'en') == 'qwzrtp'


def test_a_language_without_lemmas_is_an_error_that_names_the_setting():
  with pytest.raises(ValueError, match=r"LinkPolicy\.lemmas is 'xx': it is a code of simplemma"):
    lemmas.targets_of(LEXICON, 'houses', 'xx')


def _policy(**changes):
  given = {'lexicon': 'x', 'language': 'tr', 'doc_fraction': 1.0, 'word_ratio': 1.0}
  return LinkPolicy(**(given | changes))


def test_inflected_words_are_covered_and_keep_their_case_and_the_sense_of_their_lemma():
  text = 'Houses, HOUSES and a house: cities ran.'
  plain = substitute(text, LEXICON, _policy(), Draws(0, 'en'), document=1)
  assert plain.text.startswith('Houses, HOUSES and a ')
  assert plain.dose.replaced == 1
  for document in range(8):
    result = substitute(text, LEXICON, _policy(lemmas='en'), Draws(0, 'en'), document=document)
    house = result.text.rpartition('and a ')[2].partition(':')[0]
    assert house in ('ev', 'konut')
    assert result.text == f'{house.title()}, {house.upper()} and a {house}: cities koşmak.'
  assert count(text, LEXICON, _policy(lemmas='en')).covered == 4


def test_simplemma_is_loaded_only_when_a_lemma_is_asked():
  code = 'import sys, jaxlink.link.substitute; print("simplemma" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout == 'False\n'


def test_no_lemma_is_asked_of_several_words_or_of_a_word_that_the_lexicon_has(monkeypatch):
  monkeypatch.setattr(lemmas, 'lemma', lambda key, language: pytest.fail(f'asked for {key}'))
  for key in ('free of charges', 'house', 'cities', 'free of charge'):
    lemmas.targets_of(LEXICON, key, 'en')
