"""The study's text: a fixed part of the sample's Turkish, whoever reads it."""

import pytest
import seqio

import tasks.study_tr  # noqa: F401


def texts(task, split, readers=1):
  source = seqio.TaskRegistry.get(task).source
  return [d.text for k in range(readers) for d in source.documents(split, k, readers)]


@pytest.mark.parametrize(
  ('task', 'split', 'documents', 'size'),
  [('study_tr', 'train', 321, 758_563), ('study_tr', 'validation', 29, 67_184),
   ('study_en', 'validation', 3, 45_135)],
)  # fmt: skip
def test_a_part_of_the_text_is_kept(task, split, documents, size):
  found = texts(task, split)
  assert (len(found), sum(len(text.encode()) for text in found)) == (documents, size)


def test_any_number_of_readers_keeps_the_same_documents():
  assert sorted(texts('study_tr', 'train', readers=3)) == sorted(texts('study_tr', 'train'))


def test_what_is_kept_is_a_setting_of_the_source():
  # Caches are named by it: another part is another cache.
  assert seqio.TaskRegistry.get('study_tr').source.settings()['one_of'] == {
    'train': 10, 'validation': 5}  # fmt: skip
