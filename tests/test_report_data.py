"""What is printed about a source's dose is what was asked and what came out, in the same unit."""

import dataclasses
import types

import pytest

from jaxlink import config, report_data
from jaxlink.data import link_sample
from jaxlink.data.linked import LinkedWindows
from jaxlink.stage import Run
from tests import tiny_project


def _source(**dose):
  """A source whose text was rewritten before it was cached."""
  policy = {'doc_fraction': 0.5, 'word_ratio': 0.3, 'ratio_of': 'covered'}
  policy |= {k: dose.pop(k) for k in list(dose) if k in policy}
  counts = {
    'documents': 10, 'documents_rewritten': 5, 'words': 1000, 'covered': 400, 'eligible': 400,
    'replaced': 120, 'tokens_before': 1500, 'tokens_after': 1600, 'shortfall': 0.0,
    'lexicons': {
      'tr': {'entries': 7_000, 'counts': {'identity_pairs': 2}}, 'sw': {'entries': 3, 'counts': {}},
    },
  }  # fmt: skip
  manifest = {'dose': counts | dose | {'policy': policy}, 'examples': []}
  return types.SimpleNamespace(blocks=types.SimpleNamespace(name='en', manifest=manifest))


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({}, '30.0% of the eligible (asked 30%)'),
    ({'ratio_of': 'all', 'replaced': 290}, '29.0% of all words (asked 30%)'),
  ],
)
def test_the_realised_ratio_is_of_what_was_asked(changes, expected):
  text = report_data.describe_dose(_source(**changes), [])
  assert expected in text
  assert 'missing' not in text


def test_a_ratio_that_cannot_be_reached_is_said():
  source = _source(ratio_of='all', word_ratio=0.5, replaced=400, shortfall=0.1)
  text = report_data.describe_dose(source, [])
  assert '40.0% of all words (asked 50%)' in text
  assert '10.0% of all words are missing' in text


def test_every_lexicon_is_named_with_its_size():
  text = report_data.describe_dose(_source(), [])
  assert 'lexicon tr of 7,000 words, 2 identity pairs dropped' in text
  assert 'lexicon sw of 3 words, 0 identity pairs dropped' in text


def test_a_source_without_link_has_nothing_to_say():
  blocks = types.SimpleNamespace(name='tr', manifest={'dose': None})
  assert report_data.describe_dose(types.SimpleNamespace(blocks=blocks), []) == ''


def _drawn(trained, *bindings: str) -> tuple[LinkedWindows, str]:
  data = tiny_project.open_stage(config.parse(Run, [trained[0].recipe], list(bindings)))
  return data.batches.windows[0], report_data.describe_dose(data.batches.windows[0], data.blocks)


def test_what_will_be_drawn_is_told_from_a_sample_in_the_unit_that_was_asked(trained):
  source, text = _drawn(trained)
  sample = source.sample.counts
  eligible = sample['eligible'] / sample['words']
  for part in (
    'LINK on tiny_en, drawn as it is read: 50% of the documents, 30.0% of the eligible; mode replace',
    f'in a sample of {sample["words"]:,} words: covered {eligible:.1%}, eligible {eligible:.1%}',
    f'so {0.3 * eligible:.1%} of the words of a rewritten document are replaced, '
    f'{0.15 * eligible:.1%} of all',
    f'a row of 64 tokens is made of {float(source.stride):.1f} of the source',
    'have ids that the text in tr has',
    'lexicon tr of ',
  ):  # fmt: skip
    assert part in text
  assert text.count('before: ') == text.count('after:  ') == 3
  for line in text.splitlines():
    assert ('[' in line) == line.startswith('  after:')


def test_a_share_of_all_words_is_told_as_the_share_that_is_replaced(trained):
  source, text = _drawn(trained, "LinkPolicy.ratio_of = 'all'", 'LinkPolicy.word_ratio = 0.1')
  assert '50% of the documents, 10.0% of all words; mode' in text
  # The whole source is the sample here, so the ratio is met but for what two overlapping reads count.
  replaced = float(text.split('; so ')[1].split('%')[0])
  assert replaced == pytest.approx(10, abs=0.5)
  assert 0.1 < source.probability(0) < 1


def test_a_schedule_is_told_at_its_start(trained):
  _, text = _drawn(trained, 'LinkPolicy.doc_fraction = ((0, 0.25), (10_000, 1.0))')
  assert '25% of the documents, 30.0% of the eligible, at the start of its schedule; mode' in text


def test_a_dose_that_was_had_is_told_with_its_rates():
  dose = dict.fromkeys(('documents', 'documents_rewritten', 'words_seen'), 0) | {
    'words': 2_000, 'covered_any': 900, 'covered': 800, 'eligible': 500, 'replaced': 150,
    'stop_replaced': 0, 'tokens_read': 4_000, 'tokens_rewritten': 2_500, 'tokens_skipped': 40,
    'tokens_reread': 20, 'tokens_removed': 300, 'tokens_inserted': 500,
  }  # fmt: skip
  assert report_data.describe_realised('en', dose) == (
    'LINK on en: 150 of 2,000 words of rewritten documents replaced (30.0% of the eligible, 7.5% of '
    'all), inflation 1.050; skipped 1.0%, read twice 0.5%'
  )


def test_examples_are_of_the_policy(trained):
  source, _ = _drawn(trained)
  nothing = dataclasses.replace(source.policy, word_ratio=0.0)
  source.policy = nothing
  assert link_sample.examples(source, 3) == []
