"""Coverage of the tiny project against counts made anew from its text, in plain Python."""

import collections
import dataclasses
import json
import os
import re
import unicodedata
from typing import NamedTuple

import pytest

from jaxlink.data import fingerprint, linking
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import substitute
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon, load_words
from jaxlink.link.policy import Dose, LinkPolicy, stop_words_path


def find_words(text: str) -> list[tuple[int, int]]:
  """Start and end of each run of letters and marks, an apostrophe between two of them included."""
  marked = ''.join('x' if unicodedata.category(c)[0] in 'LM' else c for c in text)
  return [match.span() for match in re.finditer("x+(?:['’]x+)*", marked)]


class Plain(NamedTuple):
  """Counts of running words, and of words by what they are."""

  words: int
  tokens: int
  covered: int
  covered_tokens: int
  phrases: int
  identity: int
  stop_words: int
  covered_stop_words: int
  senses: collections.Counter
  types: collections.Counter
  missing: collections.Counter


@pytest.fixture(scope='module')
def texts(prepared) -> list[str]:
  with open(os.path.join(prepared.folder, 'en.jsonl'), encoding='utf-8') as file:
    return [json.loads(line)['text'] for line in file]


@pytest.fixture(scope='module')
def lexicon(prepared) -> Lexicon:
  return Lexicon.load(os.path.join(prepared.folder, 'en-tr.tsv'), source='en', target='tr')


@pytest.fixture(scope='module')
def plain(prepared, texts, lexicon) -> Plain:
  """Walks over the words from the left, the longest source of the lexicon first."""
  tokenizer = Tokenizer(os.path.join(prepared.folder, 'tokenizer.model'))
  stop_words = load_words(stop_words_path('en'))
  n = collections.Counter()
  senses, types, missing = (collections.Counter() for _ in range(3))
  for text in texts:
    spans = find_words(text)
    keys = [unicodedata.normalize('NFC', text[a:b]).casefold() for a, b in spans]
    sizes = [len(tokenizer.encode(text[a - (text[a - 1 : a] == ' ') : b])) for a, b in spans]
    types.update(keys)
    n['words'] += len(keys)
    n['tokens'] += sum(sizes)
    n['stop_words'] += sum(key in stop_words for key in keys)
    i = 0
    while i < len(keys):
      length = 1
      for longer in range(lexicon.max_words, 1, -1):
        gaps = [
          text[b:a] for (_, b), (a, _) in zip(spans[i:], spans[i + 1 : i + longer], strict=False)
        ]
        if gaps == [' '] * (longer - 1) and ' '.join(keys[i : i + longer]) in lexicon.entries:
          length = longer
          break
      here = slice(i, i + length)
      if targets := lexicon.entries.get(' '.join(keys[here])):
        n['covered'] += length
        n['covered_tokens'] += sum(sizes[here])
        n['phrases'] += length if length > 1 else 0
        n['covered_stop_words'] += sum(key in stop_words for key in keys[here])
        senses[min(8, len(targets))] += length
      elif keys[i] in lexicon.identity_only:
        n['identity'] += 1
      else:
        missing[keys[i]] += 1
      i += length
  return Plain(*(n[field] for field in Plain._fields[:8]), senses, types, missing)


@pytest.fixture(scope='module')
def coverage(audit):
  (link,) = audit.links
  (coverage,) = link.coverages
  return coverage


def table_of(prepared, **changes):
  inputs = fingerprint.Inputs(os.path.join(prepared.cache_dir, 'hashes.json'))
  policy = linking.resolve_policy(dataclasses.replace(prepared.policy, **changes))
  return linking.make_table(policy, 'en', prepared.blocks, prepared.cache_dir, inputs)


def test_words_and_tokens_by_what_is_known_of_them_equal_a_plain_count(coverage, plain):
  assert plain.covered > 1000
  assert plain.phrases > 10
  assert (coverage.all.words, coverage.all.tokens) == (plain.words, plain.tokens)
  assert (coverage.covered.words, coverage.covered.tokens) == (plain.covered, plain.covered_tokens)
  assert coverage.eligible == coverage.covered
  assert coverage.phrases.words == plain.phrases
  assert coverage.identity.words == plain.identity
  assert coverage.stop_words.words == plain.stop_words
  assert coverage.covered_stop_words.words == plain.covered_stop_words
  assert coverage.unspliceable.words == 0


def test_senses_and_missing_words_equal_a_plain_count(coverage, plain):
  assert coverage.senses == [plain.senses[n] for n in range(1, 9)]
  assert {m.word: m.count for m in coverage.missing}.items() <= plain.missing.items()
  assert [m.count for m in coverage.missing] == [
    count for _, count in plain.missing.most_common(len(coverage.missing))
  ]


def test_bands_are_those_of_the_ranked_words(coverage, plain):
  ranked = [count for _, count in plain.types.most_common()]
  assert [(b.first, b.last) for b in coverage.bands] == [(1, 100), (101, 1000), (1001, len(ranked))]
  assert [b.words for b in coverage.bands] == [
    sum(ranked[b.first - 1 : b.last]) for b in coverage.bands
  ]
  assert sum(b.covered for b in coverage.bands) == plain.covered
  assert sum(b.identity for b in coverage.bands) == plain.identity


def test_the_ceiling_is_what_a_run_counts_and_what_the_reference_replaces(
  audit, prepared, texts, lexicon
):
  (link,) = audit.links
  policy = LinkPolicy(lexicon='any', language='tr', doc_fraction=1.0, word_ratio=1.0)
  draws = policy.draws(0, 'tiny_en', 0)
  dose = sum(
    (substitute.substitute(t, lexicon, policy, draws, document=key_of(t)).dose for t in texts), Dose()
  )  # fmt: skip
  counted = linking.count_source(prepared.blocks, table_of(prepared), 'per_document')
  assert link.counts == counted
  assert counted == {
    name: getattr(dose, name) for name in ('words', 'covered_any', 'covered', 'eligible')
  }
  assert link.counts['eligible'] == dose.replaced == link.coverages[0].eligible.words
  assert link.ceiling == dose.replaced / dose.words


@pytest.mark.parametrize('regime', ['uniform', 'content', 'stop'])
def test_the_ceiling_of_each_regime_is_that_of_its_own_table(audit, prepared, regime):
  counts = linking.count_source(prepared.blocks, table_of(prepared, regime=regime), 'per_document')
  assert audit.links[0].ceilings[regime] == pytest.approx(
    counts['eligible'] / counts['words'], abs=1e-15
  )


def test_what_lemmas_would_add_is_what_a_table_with_lemmas_has_more(coverage, prepared):
  counts = linking.count_source(prepared.blocks, table_of(prepared, lemmas='en'), 'per_document')
  assert coverage.lemma_language == 'en'
  assert coverage.lemma_words == counts['covered'] - coverage.covered.words > 100


def test_tokens_by_word_are_those_of_the_marks(audit, plain):
  english = next(c for c in audit.corpora if c.task == 'tiny_en')
  assert (english.words, english.word_tokens) == (plain.words, plain.tokens)
  assert sum(english.lengths) == plain.words
  assert english.types == len(plain.types)


def test_bytes_are_counted_for_each_token_of_the_text(audit, texts, prepared):
  english = next(c for c in audit.corpora if c.task == 'tiny_en')
  tokenizer = Tokenizer(os.path.join(prepared.folder, 'tokenizer.model'))
  tokens = sum(len(tokenizer.encode(text)) for text in texts)
  assert english.bytes == sum(len(text.encode()) for text in texts)
  assert english.bytes_per_token == english.bytes / tokens
