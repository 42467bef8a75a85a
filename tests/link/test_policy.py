"""What a policy allows, what its curves are worth at a time, and what its doses say."""

import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxlink.link import policy as policy_lib
from jaxlink.link.draws import Draws
from jaxlink.link.lexicon import load_words
from jaxlink.link.policy import (
  DOSE_FIELDS,
  Dose,
  LinkPolicy,
  Rendering,
  WordLists,
  curve_at,
  probability,
  stop_words_path,
)


def policy(**changes):
  return LinkPolicy(**({'lexicon': 'list.txt', 'language': 'de'} | changes))


# ── errors ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'word_ratio': 1.3}, r'LinkPolicy.word_ratio is 1.3: it is a probability, 0 to 1\.'),
    ({'doc_fraction': -0.5}, 'LinkPolicy.doc_fraction is -0.5: it is a probability'),
    ({'word_ratio': float('nan')}, 'LinkPolicy.word_ratio is nan'),
    ({'senses': 'per_doc'}, r"LinkPolicy.senses is 'per_doc'.*'per_document'"),
    ({'ratio_of': 'words'}, "LinkPolicy.ratio_of is 'words'.*'covered', 'all'"),
    ({'mode': 'replaced'}, "LinkPolicy.mode is 'replaced'.*'replace'"),
    ({'language_by': 'document'}, "LinkPolicy.language_by is 'document'.*'per_document'"),
    ({'regime': 'names'}, "LinkPolicy.regime is 'names'.*'entities'"),
    ({'language': 'German'}, "LinkPolicy.language is 'German': it is a code such as"),
    ({'lexicon': ''}, "LinkPolicy.lexicon is '': it is a registered lexicon"),
    ({'lexicon': ()}, r'LinkPolicy.lexicon is \(\): it is a registered lexicon'),
    ({'lexicon': ('a.tsv', '')}, r"LinkPolicy.lexicon is \('a.tsv', ''\): it is a registered"),
    ({'lexicon': {}, 'language': ''}, r'LinkPolicy.lexicon is \{\}: it is a registered lexicon'),
    ({'lexicon': {'tr': ()}, 'language': ''}, r"LinkPolicy.lexicon is \{'tr': \(\)\}: it is a"),
    ({'lexicon': {'tr': 'a.tsv'}}, "LinkPolicy.language is 'de': LinkPolicy.lexicon names its lang"),
    ({'lexicon': {'Turkish': 'a.tsv'}, 'language': ''}, "LinkPolicy.language is 'Turkish'"),
    ({'regime': 'content', 'stop_words': ''}, "LinkPolicy.stop_words is '': regime 'content' needs"),
    ({'regime': 'stop', 'stop_words': ''}, "LinkPolicy.stop_words is '': regime 'stop' needs"),
    ({'regime': 'domain'}, "LinkPolicy.word_list is '': regime 'domain' needs the path of a list"),
    ({'regime': 'non_domain'}, "LinkPolicy.word_list is '': regime 'non_domain' needs"),
    ({'regime': 'entities'}, "LinkPolicy.word_list is '': regime 'entities' needs"),
    ({'word_list': 'names.txt'}, "LinkPolicy.word_list is 'names.txt': regime 'uniform' reads none"),
    ({'regime': 'stop', 'word_list': 'a.txt'}, "'a.txt': regime 'stop' reads none"),
    ({'regime': 'entities', 'word_list': 'names.txt', 'ratio_of': 'all'},
     "LinkPolicy.ratio_of is 'all': with regime 'entities' the ratio is a share of the names"),
  ],
)  # fmt: skip
def test_errors_name_the_setting_and_what_is_allowed(changes, message):
  with pytest.raises(ValueError, match=message):
    policy(**changes)


@pytest.mark.parametrize('name', ['doc_fraction', 'word_ratio'])
@pytest.mark.parametrize(
  ('curve', 'message'),
  [
    ((), r'is \(\): it is a number, or points of \(tokens, number\)'),
    (((0, 0.1), (9, 1.5)), 'is 1.5: it is a probability, 0 to 1'),
    (((0, float('nan')),), 'is nan: it is a probability'),
    (((-1, 0.1), (9, 0.5)), r'has points at \[-1, 9\] tokens: they ascend from 0 or more'),
    (((9, 0.1), (3, 0.5)), r'has points at \[9, 3\] tokens: they ascend'),
    (
      ((3, 0.1), (3, 0.5), (3, 0.7)),
      r'has points at \[3, 3, 3\] tokens: .* two at one place are a',
    ),
  ],
)
def test_a_curve_that_cannot_be_drawn_is_refused_by_its_setting(name, curve, message):
  with pytest.raises(ValueError, match=f'LinkPolicy.{name} {message}'):
    policy(**{name: curve})


# ── curves ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ('curve', 'expected'),
  [
    (0.3, {0: 0.3, 10**15: 0.3}),
    (((5, 0.4),), {0: 0.4, 5: 0.4, 9: 0.4}),
    (((10, 0.0), (20, 1.0)), {0: 0.0, 10: 0.0, 15: 0.5, 19: 0.9, 20: 1.0, 99: 1.0}),
    (((0, 0.2), (8, 0.2), (8, 0.6)), {7: 0.2, 8: 0.6, 99: 0.6}),  # a jump has the value after it
    (((4, 0.9), (4, 0.1)), {3: 0.9, 4: 0.1, 5: 0.1}),
    (((0, 1.0), (4, 0.5), (8, 0.5), (16, 0.0)), {2: 0.75, 4: 0.5, 6: 0.5, 8: 0.5, 12: 0.25}),
  ],
)
def test_between_points_a_curve_is_straight_and_outside_it_is_level(curve, expected):
  assert {tokens: curve_at(curve, tokens) for tokens in expected} == expected


POINTS = st.lists(
  st.tuples(st.integers(0, 10**13), st.floats(0, 1)), min_size=1, max_size=6,
  unique_by=lambda point: point[0],
).map(lambda points: tuple(sorted(points)))  # fmt: skip


@hypothesis.given(POINTS, st.integers(0, 2 * 10**13))
def test_a_curve_goes_through_its_points_and_never_leaves_what_lies_between_two(points, tokens):
  assert [curve_at(points, at) for at, _ in points] == [value for _, value in points]
  before = [value for at, value in points if at <= tokens][-1:] or [points[0][1]]
  after = [value for at, value in points if at > tokens][:1] or [points[-1][1]]
  low, high = sorted(before + after)
  assert low - 1e-12 <= curve_at(points, tokens) <= high + 1e-12


def test_a_policy_tells_its_dose_at_a_time_and_whether_that_changes():
  asked = policy(doc_fraction=((0, 0.0), (100, 1.0)), word_ratio=0.3)
  assert asked.scheduled
  assert [asked.at(tokens) for tokens in (0, 50, 200)] == [(0.0, 0.3), (0.5, 0.3), (1.0, 0.3)]
  assert policy(word_ratio=((7, 0.3),)).scheduled
  assert not policy().scheduled


# ── names ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({}, {'de': ('list.txt',)}),
    ({'lexicon': ('a.tsv', 'b.tei')}, {'de': ('a.tsv', 'b.tei')}),
    ({'lexicon': {'zh-Hant': 'a.tsv', 'sw': ('b.tsv', 'a.tsv')}, 'language': ''},
     {'zh-Hant': ('a.tsv',), 'sw': ('b.tsv', 'a.tsv')}),
  ],
)  # fmt: skip
def test_lexicons_are_by_language_in_the_order_that_was_given(changes, expected):
  found = policy(**changes).lexicons
  assert found == expected
  assert list(found) == list(expected)


def test_a_rendering_is_what_a_table_depends_on_and_no_draw():
  drawn = {
    'doc_fraction': 1.0, 'word_ratio': 1.0, 'ratio_of': 'all', 'senses': 'first', 'redraw': True,
    'language_by': 'per_word',
  }  # fmt: skip
  assert policy(**drawn).rendering == policy().rendering
  rendered = {
    'mode': 'annotate', 'regime': 'content', 'match_case': False, 'join': 'space',
    'multi_word': False, 'lemmas': 'en',
  }  # fmt: skip
  assert rendered.keys() == set(Rendering._fields)
  for name, value in rendered.items():
    assert policy(**{name: value}).rendering == policy().rendering._replace(**{name: value})


def test_draws_differ_by_epoch_only_if_redrawn():
  assert policy().draws(1, 'en', 4) == Draws(1, 'en', 0)
  assert policy(redraw=True).draws(1, 'en', 4) == Draws(1, 'en', 4)


# ── lists of words ──────────────────────────────────────────────────────────────


def test_the_list_of_english_stop_words_is_shipped_and_holds_function_words():
  path = pathlib.Path(stop_words_path('en'))
  assert path.parent.parent == pathlib.Path(policy_lib.__file__).parent
  assert LinkPolicy.__dataclass_fields__['stop_words'].default == 'en'
  keys = load_words(path)
  assert {'the', 'of', 'and', 'is', "don't", 'because'} <= keys
  assert not {'water', 'house', 'run', 'good'} & keys


def test_a_list_of_ones_own_is_known_by_its_path(tmp_path, monkeypatch):
  (tmp_path / 'mine.txt').write_text('the\n')
  assert stop_words_path(str(tmp_path / 'mine.txt')) == str(tmp_path / 'mine.txt')
  monkeypatch.chdir(tmp_path)
  assert stop_words_path('mine.txt') == 'mine.txt'
  (tmp_path / 'en').write_text('the\n')
  assert stop_words_path('en').endswith('stop_words/en.txt')  # a file does not shadow a code


@pytest.mark.parametrize('name', ['eng', 'tr', 'lost.txt'])
def test_a_list_that_is_not_there_is_an_error_with_those_that_are(name):
  message = rf"LinkPolicy\.stop_words: no file '{name}'\..* Shipped: en\."
  with pytest.raises(FileNotFoundError, match=message):
    stop_words_path(name)


STOP = frozenset({'the', 'of', 'free', 'as soon as'})
LISTED = frozenset({'atom', 'force', 'new york', 'river'})


@pytest.mark.parametrize(
  ('regime', 'allowed'),
  [
    (
      'uniform',
      {'the', 'atom', 'dog', 'free of', 'as soon as', 'new york', 'atom force', 'of atom'},
    ),
    ('content', {'atom', 'dog', 'new york', 'atom force', 'of atom'}),
    ('stop', {'the', 'free of', 'as soon as'}),
    ('domain', {'atom', 'new york', 'atom force'}),
    ('non_domain', {'the', 'dog', 'free of', 'as soon as', 'of atom'}),
    ('entities', {'atom', 'new york'}),  # a name is what is listed, not what is made of names
  ],
)
def test_a_regime_allows_what_its_list_says_of_one_word_and_of_several(regime, allowed):
  lists = WordLists(STOP, LISTED)
  keys = {'the', 'atom', 'dog', 'free of', 'as soon as', 'new york', 'atom force', 'of atom'}
  assert {key for key in keys if lists.allows(regime, key)} == allowed


def test_stop_words_of_several_words_are_those_listed_and_those_made_of_stop_words():
  lists = WordLists(STOP)
  stop = {'the', 'free of', 'of the', 'as soon as'}
  assert {key for key in stop | {'as', 'soon', 'of atom', ''} if lists.is_stop(key)} == stop


@pytest.mark.parametrize(
  ('regime', 'lists', 'message'),
  [
    ('content', WordLists(listed=LISTED), "stop_words is empty: regime 'content' needs those of "
     'LinkPolicy.stop_words'),
    ('stop', WordLists(), "stop_words is empty: regime 'stop'"),
    ('domain', WordLists(STOP), "listed is empty: regime 'domain' needs those of "
     'LinkPolicy.word_list'),
    ('non_domain', WordLists(), "listed is empty: regime 'non_domain'"),
    ('entities', WordLists(), "listed is empty: regime 'entities'"),
  ],
)  # fmt: skip
def test_a_regime_without_its_list_is_refused(regime, lists, message):
  needs = regime in ('domain', 'non_domain', 'entities')
  asked = policy(regime=regime, word_list='list.txt' if needs else '')
  with pytest.raises(ValueError, match=message):
    lists.check(asked)
  WordLists(STOP, LISTED).check(asked)
  WordLists().check(policy())


# ── doses and probabilities ─────────────────────────────────────────────────────


def test_doses_add_up_and_tell_their_ratios():
  one = Dose(
    documents=1, documents_rewritten=1, words_seen=11, words=11, covered_any=10, covered=9,
    eligible=8, replaced=4, stop_replaced=1,
  )  # fmt: skip
  none = Dose(documents=1, words_seen=11)
  total = sum([one, none, one], Dose())
  assert total == Dose(3, 2, 33, 22, 20, 18, 16, 8, 2)
  assert (total.realised_all, total.realised_covered) == (8 / 22, 0.5)
  assert total.identity_dropped == 2
  assert (none.realised_all, none.realised_covered, none.shortfall(0.5)) == (0, 0, 0)
  assert (one.shortfall(0.5), one.shortfall(1)) == (0, pytest.approx(3 / 11))
  assert tuple(vars(one)) == DOSE_FIELDS


def test_doses_add_up_with_nothing_else():
  with pytest.raises(TypeError):
    Dose() + 1


def test_probabilities_of_the_two_readings():
  assert probability('covered', 0.3, 11, 9) == (0.3, 0.0)
  p, shortfall = probability('all', 0.3, 11, 9)
  assert p == pytest.approx(0.366667, abs=5e-7)
  assert p * 9 == pytest.approx(3.3)
  assert shortfall == 0
  p, shortfall = probability('all', 0.9, 11, 9)
  assert p == 1
  assert shortfall == pytest.approx(0.0818, abs=5e-5)


def test_probability_of_a_source_without_words_or_without_sites():
  assert probability('all', 0.3, 0, 0) == (0.3, 0.0)
  assert probability('all', 0.3, 10, 0) == (1.0, 0.3)
  assert probability('all', 0.0, 10, 0) == (0.0, 0.0)


@pytest.mark.parametrize(('words', 'eligible'), [(3, 4), (3, -1), (-1, -1)])
def test_counts_that_cannot_be_are_refused(words, eligible):
  with pytest.raises(ValueError, match=f'{eligible} eligible of {words} words'):
    probability('covered', 0.3, words, eligible)
