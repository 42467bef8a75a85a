import collections
import random

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlink.data import cleaning, register
from jaxlink.data.cleaning import compared, duplicates, grams
from jaxlink.link.draws import key_of
from tests.data.cleaning.texts import counts, english, run, turkish

pytestmark = pytest.mark.usefixtures('forget_tasks')


def edited(text, share, seed=0):
  """A copy with a share of its words exchanged for others of its own."""
  words = text.split(' ')
  chance = random.Random(seed)
  for at in chance.sample(range(len(words)), round(share * len(words))):
    words[at] = chance.choice(words)
  return ' '.join(words)


def jaccard(one, other):
  """The overlap of two texts' 5-word shingles, counted in full."""
  shingles = []
  for text in (one, other):
    words = grams.find_words(text)
    shingles.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
  return len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


def test_of_equal_texts_one_stays_wherever_they_stand():
  texts = list(turkish()[:30])
  texts[7] = texts[21] = texts[3]
  found = run(texts, cleaning.remove_duplicates(near=False))
  assert [i for i, (_, reason) in enumerate(found) if reason] == [7, 21]
  assert counts(texts, cleaning.remove_duplicates(near=False)) == {'removed:exact_duplicate': 2}


def test_real_articles_and_sentences_are_no_duplicates_of_one_another():
  assert counts([*english(), *turkish()[:300]], cleaning.remove_duplicates()) == {}


def test_near_copies_go_and_texts_that_only_share_some_stay():
  texts = [t for t in english() if len(t.split()) > 400]
  near = [edited(t, 0.01, i) for i, t in enumerate(texts)]
  far = [edited(t, 0.3, i) for i, t in enumerate(texts)]
  assert min(map(jaccard, texts, near)) > 0.88
  assert max(map(jaccard, texts, far)) < 0.3
  found = run([*texts, *near, *far], cleaning.remove_duplicates())
  for at, (one, other) in enumerate(zip(texts, near, strict=True)):
    loser = max((one, other), key=key_of)
    expected = ['' if text != loser else 'near_duplicate' for text in (one, other)]
    assert [found[at][1], found[at + len(texts)][1]] == expected
  assert {reason for _, reason in found[2 * len(texts) :]} == {''}


def test_near_duplicates_are_found_as_often_as_the_bands_promise():
  chance = np.random.default_rng(0)
  for similarity, least, most in ((0.5, 0.02, 0.10), (0.75, 0.70, 0.84), (0.9, 0.99, 1.0)):
    hits, pairs, size = 0, 300, 200
    for _ in range(pairs):
      common = round(2 * size * similarity / (1 + similarity))
      words = chance.integers(0, 1 << 62, 2 * size - common)
      bands = []
      for part in (words[:size], words[size - common :]):
        text = ' '.join(''.join(chr(97 + int(d)) for d in str(w)) for w in part)
        bands.append(duplicates._band_keys(text, key_of(text), 1, 14, 8))
      hits += bool((bands[0] == bands[1]).any())
    assert least <= hits / pairs <= most, similarity


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_which_text_stays_depends_neither_on_order_nor_on_parts(data):
  few = turkish()[:4]
  pool = [*few, *(edited(t, 0.01) for t in few)]
  texts = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=14))
  step = cleaning.remove_duplicates()

  def outcome(parts):
    table = step.decide([step.index(part) for part in parts], [])
    kept, reasons = [], collections.Counter()
    for number, part in enumerate(parts):
      seen = set()
      for text in part:
        reason = table.judge(key_of(text), number, seen)
        reasons[reason] += 1
        kept += [text] if not reason else []
    return sorted(kept), reasons

  expected = outcome([texts])
  shuffled = data.draw(st.permutations(texts))
  count = data.draw(st.integers(1, 4))
  assert outcome([shuffled[i::count] for i in range(count)]) == expected
  groups = {pool.index(text) % len(few) for text in texts}
  assert len(expected[0]) == len(groups)


def test_held_out_text_wins_whatever_its_key_and_is_never_cleaned_against_itself():
  held_out, training = turkish('validation')[:6], turkish()[:10]
  copies = [held_out[0], edited(held_out[1], 0.01), held_out[0]]
  for name, texts in (('held', held_out), ('train', [*training, *copies])):
    source = seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None, texts=texts: tf.data.Dataset.from_tensor_slices(
        {'text': list(texts)}
      ),
      splits=['all'],
    )
    seqio.TaskRegistry.add(f'dup_{name}', source=source, preprocessors=[], output_features={})
  step = cleaning.remove_duplicates(against=['dup_held:all'])
  assert counts([*training, *copies], step) == {'removed:held_out_copy': 3}
  assert counts(held_out, step) == {}
  assert counts(held_out[2:4], step) == {}  # a reader's part of it
  # In order of priority: a split loses to those before it only.
  both = cleaning.remove_duplicates(against=['dup_held:all', 'dup_train:all'])
  assert counts([*training, *copies], both) == {'removed:held_out_copy': 3}
  assert both.competitors('dup_train:all') == ('dup_held:all',)
  assert both.competitors('dup_held:all') == ()
  assert both.competitors('other:train') == ('dup_held:all', 'dup_train:all')


def test_case_punctuation_and_layout_make_no_difference_to_near_duplicates():
  text = english()[0]
  other = text.upper().replace('.', '!').replace(' ', '\n')
  assert sorted(r for _, r in run([text, other], cleaning.remove_duplicates())) == [
    '',
    'near_duplicate',
  ]
  assert counts([text, other], cleaning.remove_duplicates(near=False)) == {}


def test_texts_without_words_are_compared_to_the_letter():
  assert counts(['1 2 3', '4 5 6', '1 2 3'], cleaning.remove_duplicates()) == {
    'removed:exact_duplicate': 1
  }


def test_a_dataset_may_be_read_again():
  dataset = cleaning.remove_duplicates()(
    tf.data.Dataset.from_tensor_slices({'text': [turkish()[0], turkish()[0]]})
  )
  for _ in range(2):
    found = [e['removed'] for e in dataset.as_numpy_iterator()]
    assert found == [b'', b'exact_duplicate']


def test_an_endless_dataset_is_an_error():
  dataset = tf.data.Dataset.from_tensor_slices({'text': ['Bir metin.']}).repeat()
  with pytest.raises(tf.errors.OpError, match='repeated endlessly'):
    next(iter(cleaning.remove_duplicates()(dataset)))


def test_settings_that_make_no_sense_are_errors(tmp_path, tiny_tokenizers):
  with pytest.raises(ValueError, match=r'remove_duplicates\(bands=0\)'):
    cleaning.remove_duplicates(bands=0)
  with pytest.raises(ValueError, match="'validation' is no 'task:split'"):
    cleaning.remove_duplicates(against=['validation'])
  (tmp_path / 'a.txt').write_text('Bir metin.')
  register.register_corpus(
    'dup_there', {'test': tmp_path / 'a.txt'}, language='tr',
    tokenizer=tiny_tokenizers['byte_level'],
  )  # fmt: skip
  with pytest.raises(ValueError, match=r"no task 'dup_ther' is registered. Nearest: 'dup_there'"):
    compared.find('dup_ther:test')
  with pytest.raises(ValueError, match=r"no split 'tset'. Nearest: 'test'"):
    compared.find('dup_there:tset')
  assert list(compared.texts_of('dup_there:test')) == ['Bir metin.']
