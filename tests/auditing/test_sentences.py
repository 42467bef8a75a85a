import collections
import dataclasses
import os

import pytest

from jaxlink.auditing import sentences
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import substitute
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists

PAIRS = [
  ('the', 'der'), ('dog', 'hund'), ('dog', 'köter'), ('saw', 'sah'), ('berlin', 'Berlin'),
  ('cat', 'katze'), ('polar bear', 'eisbär'), ('in', 'in'),
]  # fmt: skip
LISTS = WordLists(stop_words=frozenset({'the', 'and', 'not', 'a', 'in'}))
TEXT = (
  'The DOG saw a polar bear in Berlin, and the cat ran away from the zoo. Then it was quiet there.'
)


@pytest.fixture(scope='module')
def tokenizer(project):
  return Tokenizer(os.path.join(project.folder, 'tokenizer.model'))


def explain(tokenizer, text=TEXT, probability=1.0, pairs=PAIRS, language='de', **policy):
  policy = LinkPolicy(lexicon='any', language=language, **policy)
  lexicons = {language: Lexicon.from_pairs(pairs)}
  draws = policy.draws(0, 'en', 0)
  found = sentences.explain(
    [text],
    lexicons,
    policy,
    draws,
    lists=LISTS,
    probability=probability,
    tokenizer=tokenizer,
    count=1,
  )
  return found, lexicons, policy, draws


def kinds(sentence):
  return {piece.text: piece.kind for piece in sentence if piece.kind}


def test_every_word_has_its_reason(tokenizer):
  (sentence,), *_ = explain(tokenizer, regime='content', senses='first')
  assert kinds(sentence) == {
    'The': 'stop_word', 'DOG': 'replaced', 'saw': 'replaced', 'a': 'no_entry', 'polar bear': 'replaced',
    'in': 'identity', 'Berlin': 'identity', 'and': 'no_entry', 'the': 'stop_word', 'cat': 'replaced',
    'ran': 'no_entry', 'away': 'no_entry', 'from': 'no_entry', 'zoo': 'no_entry',
  }  # fmt: skip
  (sentence,), *_ = explain(tokenizer, regime='stop')
  assert kinds(sentence)['DOG'] == 'not_stop_word'
  assert kinds(sentence)['The'] == 'replaced'


def test_a_replacement_says_its_sense_and_its_capitals(tokenizer):
  (sentence,), *_ = explain(tokenizer, senses='first')
  found = {piece.text: piece for piece in sentence if piece.kind == 'replaced'}
  assert found['DOG'] == sentences.Piece('DOG', 'replaced', 'HUND', 'de', 1, 2, 'upper')
  assert found['The'] == sentences.Piece('The', 'replaced', 'Der', 'de', 1, 1, 'title')
  assert found['cat'] == sentences.Piece('cat', 'replaced', 'katze', 'de', 1, 1)


def test_a_word_found_by_its_lemma_says_so(tokenizer):
  (sentence,), *_ = explain(tokenizer, text=TEXT.replace('cat', 'cats'), lemmas='en')
  found = {piece.text: piece for piece in sentence}
  assert (found['cats'].replacement, found['cats'].lemma) == ('katze', 'cat')


@pytest.mark.parametrize('mode', ['replace', 'annotate'])
@pytest.mark.parametrize('probability', [0.5, 1.0])
def test_the_sentence_is_that_of_the_reference_with_the_draws_of_a_run(
  tokenizer, mode, probability
):
  (sentence,), lexicons, policy, draws = explain(tokenizer, probability=probability, mode=mode)
  policy = dataclasses.replace(policy, doc_fraction=1.0)
  whole = substitute.substitute(
    TEXT, lexicons, policy, draws, document=key_of(TEXT), probability=probability, lists=LISTS
  )
  after = ''.join(piece.replacement or piece.text for piece in sentence)
  assert whole.text.startswith(after)
  assert TEXT.startswith(''.join(piece.text for piece in sentence))
  counted = collections.Counter(piece.kind for piece in sentence)
  assert counted['replaced'] == len(whole.sites)
  assert counted['replaced'] + counted['not_drawn'] == 7


def test_a_replacement_without_space_before_it_is_shown_so(tokenizer):
  pairs = [('black', '黑'), ('cat', '猫')]
  text = 'A black cat sat on the warm wall of the house for an hour and then it ran away.'
  (sentence,), *_ = explain(tokenizer, text=text, pairs=pairs, language='zh')
  assert ''.join(piece.replacement or piece.text for piece in sentence).startswith('A黑猫 sat on')


def test_sentences_without_a_replacement_are_not_shown(tokenizer):
  assert explain(tokenizer, probability=0.0)[0] == []
