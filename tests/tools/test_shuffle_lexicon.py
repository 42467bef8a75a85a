"""A lexicon with its targets dealt out anew: the same words at the same dose, and none by its translation."""

import collections
import itertools
import pathlib

import pytest

from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import words
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.substitute import substitute
from tools import shuffle_lexicon

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'
POLICY = LinkPolicy(lexicon='x', language='tr', doc_fraction=1.0, word_ratio=0.6)


def first(name, n, skip=0):
  found = (one.text for one in sources.read_documents(str(SAMPLE / name)))
  return list(itertools.islice(found, skip, skip + n))


@pytest.fixture(scope='module')
def size():
  tokenizer = Tokenizer(str(SAMPLE / 'tokenizer.model'))
  return lambda word: len(tokenizer.encode(f' {word}'))


@pytest.fixture(scope='module')
def true():
  return Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')


@pytest.fixture(scope='module')
def shuffled():
  return Lexicon.load(SAMPLE / 'en-tr.shuffled.tsv', target='tr')


def test_the_shipped_list_is_what_the_tool_makes(true, size):
  counts = shuffle_lexicon.count_sources(true, first('en.train.jsonl.gz', 100))
  pairs = shuffle_lexicon.shuffled(true, size, counts, seed=0)
  text = ''.join(f'{source}\t{target}\n' for source, target in pairs)
  assert text == (SAMPLE / 'en-tr.shuffled.tsv').read_text(encoding='utf-8')


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


def test_what_goes_in_has_as_many_tokens_and_is_as_often_a_word_of_the_language(
  true, shuffled, size
):
  # Text that the list was not made from, read and rewritten as a run does it.
  articles = first('en.train.jsonl.gz', 60, skip=100)
  native = {
    words.key(word)
    for text in first('tr.train.txt.gz', 400)
    for word in words.split_words(text)[1::2]
  }
  tokens, attested, replaced = [], [], []
  for lexicon in (true, shuffled):
    inserted = collections.Counter(
      site[3]
      for k, text in enumerate(articles)
      for site in substitute(
        text, {'tr': lexicon}, POLICY, POLICY.draws(0, 'study_en', 0), document=k
      ).sites
    )
    replaced.append(inserted.total())
    tokens.append(sum(size(word) * n for word, n in inserted.items()) / inserted.total())
    known = sum(n for word, n in inserted.items() if words.key(word) in native)
    attested.append(known / inserted.total())
  assert replaced[0] == replaced[1] > 20_000
  assert tokens[1] == pytest.approx(tokens[0], rel=0.02)
  assert attested[1] == pytest.approx(attested[0], abs=0.05)
  assert attested[0] > 0.5  # so that agreeing says something


def test_the_same_words_of_a_text_are_replaced_by_other_ones(true, shuffled):
  article = first('en.validation.jsonl.gz', 1)[0]
  draws = POLICY.draws(0, 'study_en', 0)
  one, other = (
    substitute(article, {'tr': lexicon}, POLICY, draws, document=1) for lexicon in (true, shuffled)
  )
  assert one.dose.replaced > 500
  assert (one.dose.words, one.dose.eligible, one.dose.replaced) == (
    other.dose.words, other.dose.eligible, other.dose.replaced)  # fmt: skip
  assert [site[:3] for site in one.sites] == [site[:3] for site in other.sites]
  assert not any(a[3] == b[3] for a, b in zip(one.sites, other.sites, strict=True))


def test_a_source_of_several_words_is_counted_as_substitution_finds_it(true):
  counts = shuffle_lexicon.count_sources(true, ['Water as well, and WATER too; as well.'])
  assert (counts['as well'], counts['water'], counts['well']) == (2, 2, 0)


def test_a_lexicon_that_cannot_be_shuffled_is_refused():
  with pytest.raises(ValueError, match='1 of 1 pairs found no other target'):
    shuffle_lexicon.shuffled(Lexicon.from_pairs([('dog', 'köpek')]), len, {}, seed=0)
