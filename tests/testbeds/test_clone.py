"""The clone is English in other letters: substitution of every word makes it, and it shares no word's ids."""

import itertools
import unicodedata

import pytest

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import words
from jaxlink.link.draws import Draws
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.substitute import substitute
from jaxlink.testbeds import clone
from tests.testbeds.conftest import documents, questions

PART = 12  # articles, where all 215 would take long
ALL = LinkPolicy(lexicon='clone', doc_fraction=1.0, word_ratio=1.0)


@pytest.fixture(scope='module')
def lexicon(clone_folder):
  return Lexicon.load(clone_folder / 'lexicon.tsv', target=clone.LANGUAGE)


@pytest.fixture(scope='module')
def tokenizer(clone_folder):
  return Tokenizer(str(clone_folder / 'tokenizer.model'))


@pytest.fixture(scope='module')
def english(clone_folder):
  return documents(clone_folder, 'en.train')


def all_words(texts):
  return {text[a:b] for text in texts for a, b in words.find_words(text)}


def test_every_letter_has_its_own_and_keeps_its_case():
  letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'
  cloned = clone.clone(letters)
  assert len(set(cloned)) == len(letters)
  assert not set(cloned) & set(letters)
  assert cloned[:26].upper() == cloned[26:]
  assert cloned[26:].lower() == cloned[:26]
  assert unicodedata.normalize('NFC', cloned) == cloned
  assert clone.clone('0 1,2.—"\n') == '0 1,2.—"\n'


def test_tidied_english_has_plain_letters_and_three_cases():
  assert clone.tidy("Goañv: McDonald's NASA iPhone Straße\n李存孝 was here\nB2.") == (
    "Goanv: Mcdonald's NASA iphone Strasse\nB2."
  )


def test_tidying_tidied_text_changes_nothing(english):
  assert [clone.tidy(text) for text in english[:20]] == english[:20]


def test_substituting_every_word_gives_the_clone_byte_for_byte(english, lexicon):
  for text in english[:PART]:
    found = substitute(text, lexicon, ALL, Draws(0, 'en'), document=0)
    assert found.text == clone.clone(text)
    assert found.dose.replaced == found.dose.words


@pytest.mark.slow
def test_the_seqio_preprocessor_gives_the_clone_byte_for_byte(english, clone_folder):
  tf = pytest.importorskip('tensorflow')
  from jaxlink.data.preprocessors import link_substitute

  policy = LinkPolicy(
    lexicon=str(clone_folder / 'lexicon.tsv'),
    language=clone.LANGUAGE,
    doc_fraction=1.0,
    word_ratio=1.0,
  )
  dataset = tf.data.Dataset.from_tensor_slices({'text': english[:5]})
  rewritten = link_substitute(dataset, policy=policy, source='en').as_numpy_iterator()
  assert [example['text'].decode() for example in rewritten] == [
    clone.clone(t) for t in english[:5]
  ]


def test_the_lexicon_has_every_word_but_the_names_that_stay(clone_folder, english, lexicon):
  told = documents(clone_folder, 'facts.train')
  keys = {words.key(word) for word in all_words([*english, *told])}
  missing = keys - lexicon.entries.keys()
  assert missing == names_that_stay(clone_folder)
  assert all(lexicon.entries[key] == (clone.clone(key),) for key in keys - missing)


def names_that_stay(folder):
  """Keys of people and towns whose facts are asked with their English names."""
  found = questions(folder, 'facts_clone_names')
  towns = [option for q in found if q.group in ('born', 'home') for option in q.choices]
  return {words.key(name) for name in [*towns, *(q.id.split('-')[0] for q in found)]}


def test_a_word_and_its_clone_share_no_id_but_those_of_space_and_apostrophe(english, tokenizer):
  shared = {id for sign in " '’" for id in tokenizer.encode(sign)}
  found = all_words(english[:PART])
  latin = set(itertools.chain.from_iterable(tokenizer.encode(f' {word}') for word in found))
  cloned = {id for w in found for id in tokenizer.encode(f' {clone.clone(w)}')}
  assert latin & cloned <= shared


def test_pieces_of_a_word_are_those_of_its_clone(english, tokenizer):
  for word in all_words(english[:PART]):
    pieces = [tokenizer.decode([id]) for id in tokenizer.encode(f' {word}')]
    cloned = [tokenizer.decode([id]) for id in tokenizer.encode(f' {clone.clone(word)}')]
    assert [clone.clone(piece) for piece in pieces] == cloned


def test_no_article_is_in_both_languages(clone_folder, english):
  cloned = documents(clone_folder, 'clone.train')
  lines = {clone.clone(line) for text in english for line in text.split('\n') if len(line) > 80}
  assert not lines & {line for text in cloned for line in text.split('\n')}


def test_held_out_text_is_the_same_in_both_and_in_no_training_text(clone_folder, english):
  held_out = documents(clone_folder, 'en.validation')
  assert documents(clone_folder, 'clone.validation') == [clone.clone(text) for text in held_out]
  cloned = documents(clone_folder, 'clone.train')
  lines = {line for text in [*english, *cloned] for line in text.split('\n') if len(line) > 80}
  long = [line for text in held_out for line in text.split('\n') if len(line) > 80]
  assert not lines & {*long, *map(clone.clone, long)}
