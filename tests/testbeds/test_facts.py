"""Made-up facts: chance is chance whatever a model likes, and nothing asked is told in another language."""

import collections
import re

import pytest

from jaxlink.data import sources
from jaxlink.link import words
from jaxlink.testbeds import clone, facts, files
from tests.testbeds.conftest import documents, questions

CLONE_SETS = ('facts_clone', 'facts_clone_names', 'facts_clone_unstated', 'facts_clone_towns')
ENGLISH_SETS = ('facts_en', 'facts_en_unstated', 'facts_en_towns')
TURKISH_SETS = ('facts_tr', 'facts_tr_unstated', 'facts_tr_towns')


def found_in(texts, names):
  return set(names) & set(re.findall(r'[^\W\d_]+', '\n'.join(texts).casefold()))


@pytest.fixture(scope='module')
def world():
  return facts.make_world(('one', 'two'), stated=16, unstated=8, seed=3)


def test_a_seed_gives_one_world(world):
  again = facts.make_world(('one', 'two'), stated=16, unstated=8, seed=3)
  assert again == world
  assert facts.statements(again, rounds=3) == facts.statements(world, rounds=3)
  assert facts.make_world(('one', 'two'), stated=16, unstated=8, seed=4) != world


def test_names_are_new_words_and_nobody_shares_one(world):
  names = [p.name for p in world.people] + [t for towns in world.towns.values() for t in towns]
  assert len(set(names)) == len(names) == 2 * (16 + 8 + 8)
  assert all(words.is_word(name) and name.isascii() for name in names)
  avoided = {name.lower() for name in names}
  other = facts.make_world(('one', 'two'), stated=16, unstated=8, seed=3, avoid=avoided)
  assert not {p.name.lower() for p in other.people} & avoided


def test_numbers_of_people_are_multiples_of_eight():
  with pytest.raises(ValueError, match='stated is 12: it is a multiple of 8'):
    facts.make_world(('one',), stated=12, unstated=0)


@pytest.mark.parametrize('stated', [True, False])
@pytest.mark.parametrize('language', [facts.ENGLISH, facts.TURKISH])
def test_a_preference_for_options_is_right_as_often_as_chance(world, language, stated):
  found = facts.questions(world, language, stated=stated)
  for liked in (min, max, len, lambda option: option[::-1]):
    by = collections.defaultdict(list)
    for q in found:
      best = max(q.choices, key=lambda o: (liked(o), o))
      by[q.group].append(q.choices.index(best) == q.label)
    assert {relation: sum(right) / len(right) for relation, right in by.items()} == {
      'born': 0.25, 'home': 0.25, 'work': 0.25, 'colour': 0.25,
    }  # fmt: skip


def test_each_place_among_the_options_is_right_equally_often(world):
  for stated in (True, False):
    found = facts.questions(world, facts.ENGLISH, stated=stated)
    labels = collections.Counter(q.label for q in found)
    assert set(labels.values()) == {len(found) // 4}
  apart = collections.Counter(q.label for q in facts.towns_apart(world, facts.ENGLISH))
  assert apart[0] == apart[1]


def test_which_town_is_which_has_the_same_options_both_times(world):
  found = facts.towns_apart(world, facts.ENGLISH)
  asked = {q.id: q for q in found}
  for q in found:
    other = asked[
      q.id.replace('born', 'home') if q.group == 'born' else q.id.replace('home', 'born')
    ]
    assert q.choices == other.choices
    assert q.label != other.label


def test_nobody_lives_in_a_town_among_the_options_of_the_birthplace(world):
  for person in world.people:
    assert person.facts['home'] not in world.options(person, 'born')
    assert person.facts['born'] not in world.options(person, 'home')


def test_each_fact_is_told_once_in_a_round_and_all_wordings_take_turns(world):
  told = ' '.join(facts.statements(world, rounds=4))
  for person in world.people:
    assert told.count(person.name) == (16 if person.stated else 0)
    for relation, wordings in facts.STATEMENTS.items():
      for wording in wordings:
        said = wording.format(person.name, person.facts[relation])
        assert (said[0].upper() + said[1:] in told) == person.stated


def test_a_question_goes_on_as_a_statement_does(world):
  told = ' '.join(facts.statements(world, rounds=4))
  for q in facts.questions(world, facts.ENGLISH):
    assert q.text in told
    assert not any(f'{q.contexts[0]} {o}' in told for o in q.choices if o != q.choices[q.label])


def test_turkish_sentences_put_no_suffix_on_a_name_or_value(world):
  person = next(p for p in world.people if p.stated)
  found = [q for q in facts.questions(world, facts.TURKISH) if q.id.startswith(person.name)]
  value = facts.TURKISH.value
  assert all(
    value(q.group, person.facts[q.group]) in q.text.replace('.', '').split() for q in found
  )
  assert all(person.name in q.text.replace(',', '').split() for q in found)


# ── the files ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize('name', ENGLISH_SETS + CLONE_SETS)
def test_sets_of_the_clone_are_valid(clone_folder, name):
  found = questions(clone_folder, name)
  assert len({q.id for q in found}) == len(found) >= 32


def test_the_clone_is_asked_what_english_is_asked(clone_folder):
  english = {q.id: q for q in questions(clone_folder, 'facts_en')}
  listed = questions(clone_folder, 'facts_clone')
  assert all(q.text == clone.clone(english[q.id].text) for q in listed)
  for q in questions(clone_folder, 'facts_clone_names'):
    same = english[q.id]
    name = q.id.split('-')[0]
    assert q.contexts[0] == clone.clone(same.contexts[0]).replace(clone.clone(name), name)
    towns = q.group in ('born', 'home')
    assert q.choices == (same.choices if towns else tuple(map(clone.clone, same.choices)))


def test_no_name_is_in_any_text_but_the_statements(clone_folder):
  everything = [
    text
    for name in ('en.train', 'en.validation', 'clone.train', 'clone.validation')
    for text in documents(clone_folder, name)
  ]
  names = {
    words.key(q.id.split('-')[0]) for name in ENGLISH_SETS for q in questions(clone_folder, name)
  }
  assert len(names) == 32
  assert not found_in(everything, names)
  assert not found_in(everything, [clone.clone(name) for name in names])


def test_facts_never_stated_are_of_people_who_are_in_no_text(clone_folder):
  told = ' '.join(documents(clone_folder, 'facts.train')).split()
  lexicon = (clone_folder / 'lexicon.tsv').read_text(encoding='utf-8').split()
  for q in questions(clone_folder, 'facts_en_unstated'):
    name = q.id.split('-')[0]
    assert name not in told
    assert name.lower() not in lexicon


def test_names_in_turkish_questions_are_in_no_turkish_text(facts_folder):
  turkish = [
    d.text
    for split in ('train', 'validation')
    for d in sources.read_documents(str(files.SAMPLE / f'tr.{split}.txt.gz'))
  ]
  names = {
    words.key(q.id.split('-')[0]) for name in TURKISH_SETS for q in questions(facts_folder, name)
  }
  assert len(names) == 32
  assert not found_in(turkish, names)


@pytest.mark.parametrize('name', TURKISH_SETS)
def test_turkish_is_asked_what_english_is_asked(facts_folder, name):
  asked = {q.id: q.label for q in questions(facts_folder, name.replace('_tr', '_en'))}
  assert {q.id: q.label for q in questions(facts_folder, name)} == asked


def test_turkish_values_are_words_of_the_sample_and_its_lexicon(facts_folder):
  pairs = dict.fromkeys(
    tuple(line.split('\t')[:2])
    for line in (files.SAMPLE / 'en-tr.tsv').read_text(encoding='utf-8').splitlines()
  )
  values = facts.TURKISH.values
  assert set(values) == {*facts.WORK, *facts.COLOURS}
  assert not [(e, t) for e, t in values.items() if (e, t) not in pairs]
