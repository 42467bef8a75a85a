"""What is printed about a source's dose is what was asked and what came out, in the same unit."""

import types

import pytest

from jaxlink import report


def _blocks(**dose):
  policy = {'doc_fraction': 0.5, 'word_ratio': 0.3, 'ratio_of': 'covered'}
  policy |= {k: dose.pop(k) for k in list(dose) if k in policy}
  counts = {
    'documents': 10, 'documents_rewritten': 5, 'words': 1000, 'covered': 400, 'eligible': 400,
    'replaced': 120, 'tokens_before': 1500, 'tokens_after': 1600, 'shortfall': 0.0,
    'lexicon': {'entries': 7, 'counts': {'identity_pairs': 2}},
  }  # fmt: skip
  manifest = {'dose': counts | dose | {'policy': policy}, 'examples': []}
  return types.SimpleNamespace(name='en', manifest=manifest)


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({}, '30.0% of the eligible (asked 30%)'),
    ({'ratio_of': 'all', 'replaced': 290}, '29.0% of all words (asked 30%)'),
  ],
)
def test_the_realised_ratio_is_of_what_was_asked(changes, expected):
  text = report.describe_dose(_blocks(**changes))
  assert expected in text
  assert 'missing' not in text


def test_a_ratio_that_cannot_be_reached_is_said():
  text = report.describe_dose(_blocks(ratio_of='all', word_ratio=0.5, replaced=400, shortfall=0.1))
  assert '40.0% of all words (asked 50%)' in text
  assert '10.0% of all words are missing' in text


def test_a_source_without_link_has_nothing_to_say():
  assert report.describe_dose(types.SimpleNamespace(name='tr', manifest={'dose': None})) == ''
