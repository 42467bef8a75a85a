"""Which target and which language a number picks: the boundaries, and the shares in the long run."""

import bisect

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxlink.link import senses
from jaxlink.link.lexicon import Lexicon

LEXICON = Lexicon.from_pairs([
  ('dog', 'hund', 6.0), ('dog', 'köter', 3.0), ('dog', 'rüde', 1.0), ('cat', 'katze', 0.25),
  ('ran', 'lief', 1e-9), ('ran', 'rannte', 1.0),
])  # fmt: skip
PLAIN = Lexicon.from_pairs([('the', 'der'), ('the', 'die'), ('the', 'das'), ('not', 'nicht')])


def test_cumulative_weights_are_shares_that_end_at_one():
  assert senses.cumulative(LEXICON, 'dog') == [0.6, 0.9, 1.0]
  assert senses.cumulative(LEXICON, 'cat') == [1.0]
  assert senses.cumulative(LEXICON, 'ran')[1] == 1.0
  assert senses.cumulative(LEXICON, 'house') == senses.cumulative(PLAIN, '') == []


def test_targets_without_weights_are_equally_likely():
  assert senses.cumulative(PLAIN, 'the') == [1 / 3, 2 / 3, 1.0]
  assert senses.cumulative(PLAIN, 'not') == [1.0]


def _pick(lexicon, key, u):
  shares = np.array(senses.cumulative(lexicon, key))
  count = np.full(len(u), len(shares))
  return senses.pick_weighted(shares, np.zeros(len(u), np.int64), count, np.array(u)).tolist()


def test_a_number_picks_the_first_target_whose_share_exceeds_it():
  below = [np.nextafter(edge, 0) for edge in (0.6, 0.9, 1.0)]
  assert _pick(LEXICON, 'dog', [0.0, below[0], 0.6, below[1], 0.9, below[2]]) == [0, 0, 1, 1, 2, 2]
  assert _pick(LEXICON, 'cat', [0.0, below[2]]) == [0, 0]
  assert _pick(LEXICON, 'ran', [0.0, 1e-6, 0.5]) == [0, 1, 1]


RUNS = st.lists(
  st.tuples(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True)),
  max_size=20,
)  # fmt: skip


@hypothesis.given(RUNS)
def test_sites_of_many_sources_pick_as_each_would_alone(runs):
  cumulative, first, expected = [], [], []
  for weights, u in runs:
    lexicon = Lexicon.from_pairs([('dog', f'{"abcdef"[i]}und', w) for i, w in enumerate(weights)])
    shares = senses.cumulative(lexicon, 'dog')
    first.append(len(cumulative))
    cumulative += shares
    expected.append(bisect.bisect_right(shares, u))
  picked = senses.pick_weighted(
    np.array(cumulative), np.array(first, np.int64), np.array([len(w) for w, _ in runs], np.int64),
    np.array([u for _, u in runs]),
  )  # fmt: skip
  assert picked.tolist() == expected


def test_in_the_long_run_targets_have_the_shares_of_their_weights():
  u = (np.arange(10_000) + 0.5) / 10_000
  assert np.bincount(_pick(LEXICON, 'dog', u)).tolist() == [6_000, 3_000, 1_000]


def test_no_sites_pick_nothing():
  none = np.zeros(0, np.int64)
  assert senses.pick_weighted(np.zeros(0), none, none, np.zeros(0)).tolist() == []
  assert senses.pick_language(np.zeros((0, 3), bool), np.zeros(0)).tolist() == []


@pytest.mark.parametrize('has', [[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
def test_each_language_that_has_a_word_is_as_likely_and_the_others_are_never_picked(has):
  u = (np.arange(600) + 0.5) / 600
  picked = senses.pick_language(np.tile(np.array(has, bool), (600, 1)), u)
  assert np.bincount(picked, minlength=3).tolist() == [600 // sum(has) * one for one in has]
  assert picked.tolist() == sorted(picked.tolist())  # in the policy's order


def test_the_last_number_below_one_still_picks_a_language():
  has = np.array([[True, True, False]])
  assert senses.pick_language(has, np.array([np.nextafter(1, 0)])).tolist() == [1]
