"""A lexicon with its targets dealt out anew: the same words at the same dose, and none by its translation."""

import collections
import pathlib

import pytest

from jaxlink.data import sources
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.substitute import substitute
from tools import shuffle_lexicon

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'


@pytest.fixture(scope='module')
def true():
  return Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')


@pytest.fixture(scope='module')
def shuffled():
  return Lexicon.load(SAMPLE / 'en-tr.shuffled.tsv', target='tr')


def test_the_shipped_list_is_what_the_tool_makes(true):
  pairs = shuffle_lexicon.shuffled(true, seed=0)
  text = ''.join(f'{source}\t{target}\n' for source, target in pairs)
  assert text == (SAMPLE / 'en-tr.shuffled.tsv').read_text(encoding='utf-8')
  assert pairs != shuffle_lexicon.shuffled(true, seed=1)


def test_sources_and_targets_are_the_same_and_no_pair_is_left(true, shuffled):
  assert {k: len(v) for k, v in true.entries.items()} == {
    k: len(v) for k, v in shuffled.entries.items()
  }
  targets = [
    collections.Counter(t for v in one.entries.values() for t in v) for one in (true, shuffled)
  ]
  assert targets[0] == targets[1]
  assert not any(
    set(true.entries[source]) & set(found) for source, found in shuffled.entries.items()
  )


def test_the_same_words_of_a_text_are_replaced_by_other_ones(true, shuffled):
  policy = LinkPolicy(lexicon='x', language='tr', doc_fraction=1.0, word_ratio=0.3)
  article = next(iter(sources.read_documents(str(SAMPLE / 'en.validation.jsonl.gz')))).text
  draws = policy.draws(0, 'study_en', 0)
  one, other = (
    substitute(article, {'tr': lexicon}, policy, draws, document=1) for lexicon in (true, shuffled)
  )
  assert one.dose.replaced > 500
  assert (one.dose.words, one.dose.eligible, one.dose.replaced) == (
    other.dose.words, other.dose.eligible, other.dose.replaced)  # fmt: skip
  assert one.text != other.text


def test_a_lexicon_that_cannot_be_shuffled_is_refused():
  with pytest.raises(ValueError, match='1 of 1 pairs found no other target'):
    shuffle_lexicon.shuffled(Lexicon.from_pairs([('dog', 'köpek')]), seed=0)
