import collections
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import seqio

from jaxlink.data import cleaning, linking, register
from jaxlink.data.caching import build, cache_plan, shards
from jaxlink.data.cleaning import duplicates
from jaxlink.data.fingerprint import Inputs
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link.policy import LinkPolicy
from tests.data.cleaning.texts import english, turkish
from tests.data.conftest import SAMPLE

pytestmark = pytest.mark.usefixtures('forget_tasks')

ROOT = Path(__file__).parents[3]
RUSSIAN = 'Это предложение написано кириллицей, и в турецком тексте ему не место. ' * 3


def edited(text):
  """A near copy: one word of the middle is another."""
  words = text.split(' ')
  words[len(words) // 2] = 'değiştirilmiş'
  return ' '.join(words)


HELD_OUT = list(turkish('validation')[:12])
CLEAN = list(turkish()[:62])
LEFT_OUT = CLEAN.pop()  # so that a sentence of its own can be planted

# What each step is there for, once or more, spread over the source.
PLANTED = {
  'script': [RUSSIAN],
  'too_few_words': ['Kısa bir cümle.', 'Bir tane daha.'],
  'repeated_lines': ['\n'.join([CLEAN[9].split('\n')[0]] * 12)],
  'exact_duplicate': [CLEAN[3], CLEAN[3], CLEAN[40], edited(CLEAN[20])],
  'near_duplicate': [edited(CLEAN[20]), edited(CLEAN[31])],
  'held_out_copy': [HELD_OUT[2], edited(HELD_OUT[5])],
  'contaminated': ['\n'.join([*LEFT_OUT.split('\n')[:6], max(HELD_OUT[8].split('\n'), key=len)])],
}
STEPS = [
  cleaning.normalize_unicode(),
  cleaning.keep_script(language='tr'),
  cleaning.filter_length(least_words=20),
  cleaning.filter_repetition(top_grams={}, repeated_grams={}),
  cleaning.remove_duplicates(against=['clean_tr:validation']),
  cleaning.remove_contamination(evaluation=['clean_tr:validation']),
]


def source():
  """The clean documents with the planted ones among them."""
  documents = list(CLEAN)
  for text in (text for texts in PLANTED.values() for text in texts):
    documents.insert(int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(CLEAN), text)
  return documents


def write(path, documents):
  """Writes a file of documents; worker processes, which register the task anew, leave it as it is."""
  text = ''.join(json.dumps({'text': d}) + '\n' for d in documents)
  if not path.exists() or path.read_text() != text:
    path.write_text(text)
  return str(path)


def register_clean(folder, tokenizer, preprocessors=STEPS):
  folder = Path(folder)
  register.register_corpus(
    'clean_tr',
    {
      'train': write(folder / 'train.jsonl', source()),
      'validation': write(folder / 'validation.jsonl', HELD_OUT),
    },
    language='tr',
    tokenizer=tokenizer,
    preprocessors=preprocessors,
  )


def plan_of(folder, tokenizer, preprocessors=STEPS, split='train', cache='cache', modules=()):
  if not modules:
    register_clean(folder, tokenizer, preprocessors)
  return cache_plan.make_plan(
    'clean_tr', split, cache_dir=str(folder / cache), inputs=Inputs(), modules=modules,
    settings=cache_plan.CacheSettings(shards=2, block=256),
  )  # fmt: skip


def texts_of(blocks, tokenizer):
  """The documents of a cache, as text."""
  ids, starts = blocks.read(0, blocks.tokens)
  pieces = np.split(ids, np.flatnonzero(starts)[1:])
  return [Tokenizer(tokenizer).decode(piece[1:-1]) for piece in pieces]


def digests(folder):
  return {
    name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
    for name in sorted(os.listdir(folder))
  }


def test_each_document_is_counted_under_the_rule_that_removed_it_and_the_rest_is_cached(
  tmp_path, tiny_tokenizers
):
  tokenizer = tiny_tokenizers['byte_level']
  blocks = build.build(plan_of(tmp_path, tokenizer), processes=1, progress=False)
  assert blocks.manifest['removed'] == {reason: len(texts) for reason, texts in PLANTED.items()}
  assert blocks.manifest['documents'] == len(CLEAN)
  assert blocks.manifest['empty_documents'] == 0
  found = collections.Counter(texts_of(blocks, tokenizer))
  # Of a document and its near copy one stays, whichever has the smaller key.
  for number in (20, 31):
    one = [t for t in (CLEAN[number], edited(CLEAN[number])) if t in found]
    assert len(one) == 1
    found[CLEAN[number]] = found.pop(one[0])
  assert found == collections.Counter(text.replace('\xad', '') for text in CLEAN)
  assert blocks.manifest['noted'] == {'junk_removed': sum('\xad' in text for text in CLEAN)}
  assert blocks.manifest['contamination'] == {
    'clean_tr:validation': {'items': 12, 'too_short': 0, 'found': [8]}
  }


def test_parts_do_not_change_a_byte_or_a_count(tmp_path, tiny_tokenizers, monkeypatch):
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'])
  build.build(plan, processes=1, progress=False)
  size = os.path.getsize(tmp_path / 'train.jsonl')
  read = []

  def read_part(job, part, original=shards.read_part):
    read.append(job.parts)
    yield from original(job, part)

  monkeypatch.setattr(shards, 'read_part', read_part)
  for parts in (3, 4):
    monkeypatch.setattr(build, '_PART', -(-size // parts))
    other = dataclasses.replace(plan, folder=str(tmp_path / f'{parts} parts'))
    build.build(other, processes=1, progress=False)
    assert digests(other.folder) == digests(plan.folder)
  assert read == [3] * 3 + [4] * 4
  assert not [name for name in os.listdir(plan.folder) if name.startswith('tmp-')]


MODULE = """
from tests.data.cleaning import test_building
test_building.register_clean({folder!r}, {tokenizer!r})
"""


@pytest.mark.slow
def test_processes_do_not_change_a_byte(tmp_path, tiny_tokenizers, monkeypatch):
  tokenizer = tiny_tokenizers['byte_level']
  (tmp_path / 'clean_tasks.py').write_text(MODULE.format(folder=str(tmp_path), tokenizer=tokenizer))
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
  __import__('clean_tasks')
  plan = plan_of(tmp_path, tokenizer, modules=('clean_tasks',))
  build.build(plan, processes=1, progress=False)
  other = dataclasses.replace(plan, folder=str(tmp_path / 'other'))
  monkeypatch.setattr(build, '_PART', os.path.getsize(tmp_path / 'train.jsonl') // 4)
  build.build(other, processes=3, progress=False)
  assert digests(other.folder) == digests(plan.folder)


def test_held_out_text_is_not_compared_with_itself(tmp_path, tiny_tokenizers):
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'], split='validation')
  manifest = build.build(plan, processes=1, progress=False).manifest
  assert manifest['documents'] == len(HELD_OUT)
  assert manifest['removed'] == {}


def test_without_cleaning_steps_nothing_is_removed_or_noted(tmp_path, tiny_tokenizers):
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'], preprocessors=())
  manifest = build.build(plan, processes=1, progress=False).manifest
  assert manifest['documents'] == len(source())
  assert [manifest[name] for name in ('removed', 'noted', 'contamination')] == [{}, {}, {}]


def test_a_build_goes_on_with_the_tables_that_a_killed_one_made(
  tmp_path, tiny_tokenizers, monkeypatch
):
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'])
  build.build(plan, processes=1, progress=False)
  other = dataclasses.replace(plan, folder=str(tmp_path / 'other'))
  monkeypatch.setattr(build, '_PART', -(-os.path.getsize(tmp_path / 'train.jsonl') // 3))

  class Killed(Exception):
    pass

  def die(*args):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(duplicates.Duplicates, 'decide', die)
    with pytest.raises(Killed):
      build.build(other, processes=1, progress=False)
  left = [name for name in os.listdir(other.work) if 'part' in name]
  assert len(left) == 3
  with monkeypatch.context() as patch:
    patch.setattr(duplicates, '_band_keys', counted := Counted(duplicates._band_keys))
    build.build(other, processes=1, progress=False)
  assert counted.calls == len(HELD_OUT)  # of the training text none again
  assert digests(other.folder) == digests(plan.folder)


class Counted:
  """A function that counts its calls."""

  def __init__(self, function):
    self.function, self.calls = function, 0

  def __call__(self, *args):
    self.calls += 1
    return self.function(*args)


def test_settings_and_compared_files_are_in_the_fingerprint(tmp_path, tiny_tokenizers):
  exam = tmp_path / 'exam.jsonl'
  exam.write_text(json.dumps({'text': HELD_OUT[0]}) + '\n')

  def fingerprint(**changes):
    settings = {'n': 13, 'least_words': 20, 'form': 'NFC', 'bands': 14, **changes}
    with Registered():
      return plan_of(
        tmp_path,
        tiny_tokenizers['byte_level'],
        [
          cleaning.normalize_unicode(settings['form']),
          cleaning.filter_length(least_words=settings['least_words']),
          cleaning.remove_duplicates(against=['clean_tr:validation'], bands=settings['bands']),
          cleaning.remove_contamination(evaluation=[exam], n=settings['n']),
        ],
      ).fingerprint

  before = fingerprint()
  assert fingerprint() == before
  found = {before}
  for change in ({'n': 12}, {'least_words': 21}, {'form': 'NFKC'}, {'bands': 13}):
    found.add(fingerprint(**change))
  exam.write_text(json.dumps({'text': HELD_OUT[1]}) + '\n')
  found.add(fingerprint())
  held_out = HELD_OUT.pop()
  found.add(fingerprint())  # the validation file, which training text is compared with
  HELD_OUT.append(held_out)
  assert len(found) == 7


class Registered:
  """Forgets the task afterwards."""

  def __enter__(self):
    return self

  def __exit__(self, *error):
    seqio.TaskRegistry.remove('clean_tr')


def test_link_counts_no_removed_document_in_its_dose(tmp_path, tiny_tokenizers):
  articles = [p for text in english() for p in text.split('\n') if len(p) > 300][:12]
  path = write(tmp_path / 'en.jsonl', [*articles, articles[0], 'Too short.', ''])
  register.register_corpus(
    'clean_en', {'train': path}, language='en', tokenizer=tiny_tokenizers['byte_level'],
    preprocessors=[cleaning.filter_length(least_words=20), cleaning.remove_duplicates()],
  )  # fmt: skip
  policy = LinkPolicy(lexicon=str(SAMPLE / 'en-tr.tsv'), language='tr', doc_fraction=1.0)
  plan = cache_plan.make_plan(
    'clean_en', 'train', cache_dir=str(tmp_path / 'cache'), inputs=Inputs(),
    link=cache_plan.Link(linking.resolve_policy(policy), 0),
  )  # fmt: skip
  manifest = build.build(plan, processes=1, progress=False).manifest
  assert manifest['documents'] == 12
  assert manifest['dose']['documents'] == 13  # with the empty one
  assert manifest['removed'] == {'exact_duplicate': 1, 'too_few_words': 1}
  assert manifest['empty_documents'] == 1


def as_targets(dataset):
  return dataset.map(lambda line: {'targets': line})


def test_a_task_that_tokenises_by_itself_is_cleaned_and_counted_too(tmp_path, tiny_tokenizers):
  documents = [*CLEAN[:3], CLEAN[1], 'Kısa.']
  path = tmp_path / 'lines.txt'
  path.write_text('\n'.join(d.replace('\n', ' ') for d in documents))
  seqio.TaskRegistry.add(
    'clean_own',
    source=seqio.TextLineDataSource({'train': str(path)}),
    preprocessors=[
      as_targets,
      cleaning.filter_length(least_words=20, text_key='targets'),
      cleaning.remove_duplicates(text_key='targets'),
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos,
    ],
    output_features={'targets': seqio.Feature(seqio.ByteVocabulary())},
  )
  plan = cache_plan.make_plan(
    'clean_own', 'train', cache_dir=str(tmp_path / 'cache'), inputs=Inputs()
  )
  manifest = build.build(plan, processes=1, progress=False).manifest
  assert manifest['documents'] == 3
  assert manifest['removed'] == {'exact_duplicate': 1, 'too_few_words': 1}


def test_comparing_texts_needs_no_tensorflow():
  code = (
    'import sys; from jaxlink.data import cleaning; '
    "found = cleaning.overlap(cleaning.ngram_index(['a b c'], 2, least=2), ['x b c']); "
    'assert found.shares.tolist() == [0.5]; '
    "assert not {'tensorflow', 'seqio', 'jax', 'datasketch'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
