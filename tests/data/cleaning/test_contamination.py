import json

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlink.data import cleaning
from jaxlink.data.cleaning import compared, grams
from tests.data.cleaning.texts import counts, english, run, turkish

pytestmark = pytest.mark.usefixtures('forget_tasks')

ITEMS = [max(t.split('\n'), key=len) for t in turkish('validation')[:8]]  # a long sentence each


def test_a_planted_item_is_found_and_only_it():
  texts = list(turkish()[:40])
  texts[5] += '\n' + ITEMS[3].replace(',', ' –').replace(' ', '\n')
  found = cleaning.overlap(cleaning.ngram_index(ITEMS), texts)
  assert found.documents == 40
  assert found.touched == 1
  assert found.contaminated.tolist() == [3]
  assert found.shares[3] == 1
  sentence = english()[0].split('. ')[0]
  assert cleaning.overlap(cleaning.ngram_index([sentence]), [sentence.upper()]).shares[0] == 1


def test_the_share_of_an_item_is_that_of_its_n_grams():
  words = grams.find_words(english()[0])[:33]  # 21 n-grams of 13 words
  index = cleaning.ngram_index([' '.join(words)])
  for taken in (12, 13, 20, 33):
    found = cleaning.overlap(index, [' '.join(words[:taken])])
    assert found.shares.tolist() == [max(0, taken - 12) / 21]
  halves = cleaning.overlap(index, [' '.join(words[:13]), ' '.join(words[-14:])])
  assert halves.shares.tolist() == [3 / 21]
  assert halves.touched == 2


def test_short_items_count_as_a_whole_and_very_short_ones_not_at_all():
  words = grams.find_words(english()[0])
  items = [' '.join(words[:7]), ' '.join(words[20:28]), '']
  index = cleaning.ngram_index(items)
  assert (index.items, index.too_short, index.lengths.tolist()) == (3, 2, [8])
  found = cleaning.overlap(index, [' '.join(words)])
  assert np.isnan(found.shares).tolist() == [True, False, True]
  assert found.contaminated.tolist() == [1]
  assert cleaning.overlap(index, [' '.join(words[20:27])]).touched == 0
  assert cleaning.overlap(cleaning.ngram_index(items, least=7), [' '.join(words)]).shares[0] == 1


@settings(deadline=None)
@given(
  st.lists(st.lists(st.sampled_from('ab'), max_size=8), max_size=5),
  st.lists(st.lists(st.sampled_from('ab'), max_size=9), max_size=4),
  st.integers(1, 5),
)
def test_shares_are_those_of_a_plain_count(items, texts, n):
  least = 2
  found = cleaning.overlap(
    cleaning.ngram_index(map(' '.join, items), n, least=least), map(' '.join, texts)
  )

  def windows(words, length):
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

  expected = []
  for item in items:
    length = min(n, len(item))
    own = windows(item, length) if len(item) >= least else set()
    seen = set().union(*(windows(text, length) for text in texts))
    expected.append(len(own & seen) / len(own) if own else np.nan)
  np.testing.assert_array_equal(found.shares, expected)


def test_contaminated_documents_go_or_are_only_counted():
  texts = list(turkish()[:20])
  texts[5] += '\n' + ITEMS[3]
  texts[9] = ITEMS[3] + '\n' + ITEMS[6]
  step = cleaning.remove_contamination(texts=ITEMS)
  assert [i for i, (_, reason) in enumerate(run(texts, step)) if reason == 'contaminated'] == [5, 9]
  items = {'noted:overlap:texts:3': 2, 'noted:overlap:texts:6': 1}
  assert counts(texts, step) == {'removed:contaminated': 2, **items}
  only = cleaning.remove_contamination(texts=ITEMS, remove=False)
  assert counts(texts, only) == {'noted:contaminated': 2, **items}
  assert run(texts, only) == [(text, '') for text in texts]


def test_evaluation_text_comes_from_files_and_from_tasks_whatever_their_features(tmp_path):
  file = tmp_path / 'exam.jsonl'
  file.write_text(''.join(json.dumps({'text': item}) + '\n' for item in ITEMS[:2]))
  questions = {'question': ITEMS[2:4], 'choices': [[ITEMS[4], 'evet'], ['hayır', ITEMS[5]]]}
  source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(questions),
    splits=['test'],
  )
  seqio.TaskRegistry.add('exam', source=source, preprocessors=[], output_features={})
  step = cleaning.remove_contamination(evaluation=[file, 'exam:test'], texts=ITEMS[6:7])
  assert step.make_sets(step.competitors('exam:test')).sizes() == [
    ('exam.jsonl', 2, 0), ('texts', 1, 0),
  ]  # fmt: skip
  found = counts(ITEMS, step)
  assert found['removed:contaminated'] == 7
  assert {k.removeprefix('noted:overlap:') for k in found if 'overlap' in k} == {
    'exam.jsonl:0', 'exam.jsonl:1', 'exam:test:0', 'exam:test:1', 'exam:test:3', 'exam:test:5',
    'texts:0',
  }  # fmt: skip


def test_an_evaluation_split_is_not_cleaned_against_itself():
  source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices({'text': ITEMS}),
    splits=['test'],
  )
  seqio.TaskRegistry.add('itself', source=source, preprocessors=[], output_features={})
  step = cleaning.remove_contamination(evaluation=['itself:test'])
  assert counts(ITEMS, step) == {}
  assert counts([*ITEMS, turkish()[0]], step)['removed:contaminated'] == len(ITEMS)


def test_the_index_of_a_builder_finds_the_same(tmp_path):
  step = cleaning.remove_contamination(texts=ITEMS)
  found = step.make_sets(())
  found.save(str(tmp_path / 'table.npz'))
  again = type(found).load(str(tmp_path / 'table.npz'))
  assert again.sizes() == found.sizes() == [('texts', 8, 0)]
  assert again.find('\n'.join(ITEMS[2:4])) == found.find('\n'.join(ITEMS[2:4])) == [
    ('texts', 2), ('texts', 3),
  ]  # fmt: skip


def test_settings_that_make_no_sense_are_errors(tmp_path, monkeypatch):
  (tmp_path / 'exam.jsonl').write_text('')
  monkeypatch.chdir(tmp_path)
  for settings_, message in (
    ({}, 'give evaluation=… or texts=…'),
    ({'evaluation': ['exams.jsonl']}, "'exams.jsonl' is no file .* Nearest: 'exam.jsonl'"),
    ({'texts': 'Bir metin.'}, 'a list of texts'),
    ({'texts': ITEMS, 'n': 0}, r'n=0'),
  ):
    with pytest.raises(ValueError, match=message):
      cleaning.remove_contamination(**settings_)
  assert compared.split_names('x', 'a:b') == ('a:b',)


def test_a_file_that_is_the_text_itself_is_no_evaluation_set_of_it(tmp_path):
  paths = [tmp_path / 'a.jsonl', tmp_path / 'b.jsonl']
  for path, text in zip(paths, ITEMS, strict=False):
    path.write_text(json.dumps({'text': text}) + '\n', encoding='utf-8')
  step = cleaning.remove_contamination(evaluation=paths)
  assert step.without([str(paths[0])]).files == (str(paths[1]),)
  own = tf.data.Dataset.from_tensor_slices({'text': [ITEMS[0]]})
  assert [e['removed'] for e in step(own).as_numpy_iterator()] == [b'']
  other = tf.data.Dataset.from_tensor_slices({'text': [ITEMS[0] + ' ' + ITEMS[2], ITEMS[3]]})
  assert [bool(e['removed']) for e in step(other).as_numpy_iterator()] == [True, False]


def test_two_sets_of_one_name_are_refused(tmp_path):
  paths = [tmp_path / folder / 'test.jsonl' for folder in ('a', 'b')]
  for path in paths:
    path.parent.mkdir()
    path.write_text('{"text": "one"}\n', encoding='utf-8')
  with pytest.raises(ValueError, match=r"two evaluation sets are called 'test\.jsonl'"):
    cleaning.remove_contamination(evaluation=paths)
