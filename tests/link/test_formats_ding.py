"""Ding lists: variants, synonyms, and lines that are none."""

import pytest

from jaxlink.link.lexicon import Lexicon


@pytest.fixture
def load(tmp_path):
  def load_text(text, **arguments):
    path = tmp_path / 'list.txt'
    path.write_text(text, encoding='utf-8')
    return Lexicon.load(path, **arguments)

  return load_text


def test_variants_belong_together_in_order(load):
  lexicon = load(
    '# German :: English\nHaus {n} [constr.] | Häuser {pl} :: house; home | houses\n', target='de'
  )
  assert lexicon.direction == 'inverted'
  assert lexicon.entries == {'house': ('Haus',), 'home': ('Haus',), 'houses': ('Häuser',)}


def test_synonyms_of_a_headword_are_keys(load):
  lexicon = load('to run; to jog {v} (fast) :: kimbia, enda mbio\n', target='sw')
  assert lexicon.entries == {'run': ('kimbia', 'enda mbio'), 'jog': ('kimbia', 'enda mbio')}


def test_variants_without_a_partner_are_counted(load):
  lexicon = load('house | houses | housing :: nyumba\n', target='sw')
  assert lexicon.entries == {'house': ('nyumba',)}
  assert lexicon.counts['unpaired_variants'] == 2


@pytest.mark.parametrize(
  ('line', 'message'), [('dog', '0 separators'), ('dog :: mbwa :: x', '2 separators')]
)
def test_a_line_without_one_separator_is_named(load, line, message):
  with pytest.raises(ValueError, match=rf"list\.txt:2: {message} ' :: '"):
    load(f'water :: maji\n{line}\n')
