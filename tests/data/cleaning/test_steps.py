import pytest
import seqio
import tensorflow as tf

from jaxlink.data import cleaning
from tests.data.cleaning.texts import counts, english, run, turkish

pytestmark = pytest.mark.usefixtures('forget_tasks')


def test_a_document_is_counted_under_its_first_reason_in_any_order_of_the_steps():
  short_russian, russian = 'Короткое предложение.', 'Длинное предложение по-русски. ' * 30
  texts = [short_russian, russian, turkish()[0]]
  length, script = cleaning.filter_length(), cleaning.keep_script(language='tr')
  assert counts(texts, length, script) == {'removed:too_few_words': 1, 'removed:script': 1}
  assert counts(texts, script, length) == {'removed:script': 2}
  assert run(texts, length, script)[2] == (turkish()[0], '')


def test_a_removed_text_is_emptied_and_no_example_is_lost():
  assert run(['Zu kurz.', 'Auch das.'], cleaning.filter_length()) == [('', 'too_few_words')] * 2


def test_an_empty_document_is_no_business_of_any_step():
  steps = [
    cleaning.normalize_unicode(), cleaning.keep_script(language='tr'), cleaning.filter_length(),
    cleaning.filter_repetition(), cleaning.filter_quality(), cleaning.remove_duplicates(),
    cleaning.remove_contamination(texts=english()[:1]),
  ]  # fmt: skip
  assert counts(['', ''], *steps) == {}
  assert run(['', ''], *steps) == [('', '')] * 2


def test_the_steps_work_in_a_plain_seqio_pipeline_and_drop_removed_ends_it():
  texts = [turkish()[0], 'Kısa.', turkish()[1], turkish()[0], '']

  def dataset_fn(split, shuffle_files, seed=None):
    return tf.data.Dataset.from_tensor_slices({'targets': texts, 'number': list(range(5))})

  seqio.TaskRegistry.add(
    'plain_clean',
    source=seqio.FunctionDataSource(dataset_fn, splits=['train']),
    preprocessors=[
      cleaning.filter_length(text_key='targets'),
      cleaning.remove_duplicates(text_key='targets'),
      cleaning.drop_removed(),
      seqio.CacheDatasetPlaceholder(),  # SeqIO repeats what comes before it
    ],
    output_features={
      'targets': seqio.Feature(seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0)
    },
  )
  for epochs in (1, 2):
    dataset = seqio.get_mixture_or_task('plain_clean').get_dataset(
      None, split='train', shuffle=False, num_epochs=epochs
    )
    found = list(dataset.as_numpy_iterator())
    assert [e['number'] for e in found] == [0, 2, 4] * epochs
    assert all(sorted(e) == ['number', 'targets'] for e in found)


def test_drop_removed_leaves_a_dataset_without_cleaning_as_it_is():
  dataset = tf.data.Dataset.from_tensor_slices({'text': ['a', 'b']})
  assert cleaning.drop_removed()(dataset) is dataset


def test_a_missing_feature_is_an_error_that_names_those_there_are():
  dataset = tf.data.Dataset.from_tensor_slices({'content': ['a']})
  with pytest.raises(
    ValueError, match=r"text_key='text', which its examples lack. Features: content"
  ):
    cleaning.filter_length()(dataset)
