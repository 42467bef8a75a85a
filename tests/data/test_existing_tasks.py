"""Task modules as T5X, mT5 and ByT5 users write them: their ids, document by document, and LINK by one line."""

import collections
import functools
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import seqio
import tensorflow as tf

from jaxlink.data import existing, linking, registry
from jaxlink.data.blocks import MANIFEST
from jaxlink.data.caching import build, cache_plan, publish, rewriting
from jaxlink.data.fingerprint import Inputs
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation import held_out
from jaxlink.link.draws import key_of
from jaxlink.link.policy import LinkPolicy
from tests import tiny_project
from tests.data.conftest import SAMPLE, sample_text
from tests.data.test_foreign import train_sentencepiece

SETTINGS = cache_plan.CacheSettings(shards=2, block=256)
TASKS = ('mt5_tr', 'mt5_en', 'byt5_tr', 'byt5_en')

# Two modules of the same task names may be loaded in one process, so each test's has its own name.
_MODULE = '''
"""Turkish and English for mT5 and ByT5."""
import functools

import seqio
import tensorflow as tf

DATA = {folder!r}
MT5 = seqio.SentencePieceVocabulary(DATA + '/spm.model', extra_ids=100)
BYT5 = seqio.ByteVocabulary(extra_ids=125)


def features(vocabulary):
  return {{
    'inputs': seqio.Feature(vocabulary=vocabulary, add_eos=True, required=False),
    'targets': seqio.Feature(vocabulary=vocabulary, add_eos=True),
  }}


@seqio.map_over_dataset
def as_text(line):
  return {{'text': line}}


@seqio.map_over_dataset
def straight_quotes(example):
  return {{**example, 'text': tf.strings.regex_replace(example['text'], '[“”]', '"')}}


def long_enough(dataset, least=20):
  return dataset.filter(lambda example: tf.strings.length(example['text']) >= least)


def proverbs(split, shuffle_files):
  del shuffle_files
  return tf.data.TextLineDataset(DATA + '/tr_' + split + '.txt')


seqio.TaskRegistry.add(
  'mt5_tr',
  source=seqio.TextLineDataSource(
    {{'train': DATA + '/tr_train*.txt', 'validation': DATA + '/tr_validation.txt'}},
    num_input_examples={{'train': 40, 'validation': 8}},
  ),
  preprocessors=[
    as_text,
    long_enough,
    functools.partial(seqio.preprocessors.rekey, key_map={{'inputs': None, 'targets': 'text'}}),
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos_after_trim,
  ],
  output_features=features(MT5),
)
seqio.TaskRegistry.add(
  'mt5_en',
  source=seqio.TFExampleDataSource(
    {{'train': DATA + '/en_train.tfrecord', 'validation': DATA + '/en_validation.tfrecord'}},
    feature_description={{'text': tf.io.FixedLenFeature([], tf.string)}},
    num_input_examples={{'train': 60, 'validation': 8}},
  ),
  preprocessors=[
    straight_quotes,
    functools.partial(seqio.preprocessors.rekey, key_map={{'targets': 'text'}}),
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(required=True),
    seqio.preprocessors.append_eos,
  ],
  output_features=features(MT5),
)
seqio.TaskRegistry.add(
  'byt5_tr',
  source=seqio.FunctionDataSource(proverbs, splits=['train', 'validation']),
  preprocessors=[
    as_text,
    functools.partial(seqio.preprocessors.rekey, key_map={{'targets': 'text'}}),
    seqio.preprocessors.tokenize_and_append_eos,
  ],
  output_features={{'targets': seqio.Feature(BYT5, add_eos=True)}},
)
seqio.TaskRegistry.add(
  'byt5_en',
  source=seqio.TfdsDataSource('articles:1.0.0', tfds_data_dir=DATA, splits=['train', 'validation']),
  preprocessors=[
    functools.partial(seqio.preprocessors.rekey, key_map={{'targets': 'text'}}),
    functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
    seqio.preprocessors.append_eos,
  ],
  output_features={{'targets': seqio.Feature(BYT5, add_eos=True)}},
)
seqio.MixtureRegistry.add(
  'mt5_all',
  [('mt5_tr', functools.partial(seqio.mixing_rate_num_examples, temperature=2.0)),
   ('mt5_en', lambda task: task.num_input_examples('train') / 40)],
)
seqio.MixtureRegistry.add('byt5_all', ['byt5_tr', 'byt5_en'], default_rate=1)
'''


def paragraphs(language, count):
  return [p.strip() for p in sample_text(language).split('\n') if len(p) > 80][:count]


def write_tfds(folder, texts):
  import tensorflow_datasets as tfds

  data = folder / 'articles/1.0.0'
  data.mkdir(parents=True)
  features = tfds.features.FeaturesDict({'text': tfds.features.Text()})
  infos = []
  for split, part in texts.items():
    rows = [features.serialize_example({'text': text}) for text in part]
    with tf.io.TFRecordWriter(str(data / f'articles-{split}.tfrecord-00000-of-00001')) as file:
      for row in rows:
        file.write(row)
    template = tfds.core.ShardedFileTemplate(
      dataset_name='articles', data_dir=data, split=split, filetype_suffix='tfrecord'
    )
    infos.append(
      tfds.core.SplitInfo(
        name=split, shard_lengths=[len(rows)], num_bytes=sum(map(len, rows)),
        filename_template=template,
      )
    )  # fmt: skip
  tfds.folder_dataset.write_metadata(
    data_dir=data, features=features, split_infos=infos, check_data=False
  )


@pytest.fixture(scope='module')
def texts():
  """Of each language and split; each ends as a line of a file does."""
  found = {}
  for language in ('tr', 'en'):
    every = paragraphs(language, 68 if language == 'en' else 48)
    # A line that their filter leaves out, and one twice.
    train = [*every[8:], every[9]] + (['Kısa.'] if language == 'tr' else [])
    found[language] = {'train': train, 'validation': every[:8]}
  return found


@pytest.fixture(scope='module')
def folder(texts, tmp_path_factory):
  """Their module and its data."""
  folder = tmp_path_factory.mktemp('theirs')
  half = len(texts['tr']['train']) // 2
  for name, part in (
    ('train', texts['tr']['train'][:half]), ('train_2', texts['tr']['train'][half:]),
    ('validation', texts['tr']['validation']),
  ):  # fmt: skip
    (folder / f'tr_{name}.txt').write_text('\n'.join(part) + '\n', encoding='utf-8')
  for split, part in texts['en'].items():
    with tf.io.TFRecordWriter(str(folder / f'en_{split}.tfrecord')) as file:
      for text in part:
        value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
        features = tf.train.Features(feature={'text': value})
        file.write(tf.train.Example(features=features).SerializeToString())
  write_tfds(folder, texts['en'])
  lines = [t for part in texts.values() for t in part['train']]
  train_sentencepiece(
    folder / 'spm.model', lines, vocab_size=1200, model_type='unigram', pad_id=0, eos_id=1,
    unk_id=2, bos_id=-1,
  )  # fmt: skip
  (folder / 'their_tasks.py').write_text(_MODULE.format(folder=str(folder)), encoding='utf-8')
  return folder


@pytest.fixture(scope='module')
def caches(tmp_path_factory):
  """A cache folder of the tasks as they stand: each cache is built by the first test that opens it."""
  return tmp_path_factory.mktemp('caches')


@pytest.fixture
def theirs(folder, monkeypatch, forget_tasks):
  """Their tasks, registered."""
  monkeypatch.syspath_prepend(str(folder))
  sys.modules.pop('their_tasks', None)
  yield importlib.import_module('their_tasks')
  sys.modules.pop('their_tasks', None)


def plan_of(task, folder, split='train', **more):
  return cache_plan.make_plan(
    task, split, cache_dir=str(folder), inputs=Inputs(), settings=SETTINGS, **more
  )


def cached(task, folder, split='train', **more):
  return build.build(plan_of(task, folder, split, **more), processes=1, progress=False)


def as_seqio_has_them(task, split):
  """What a SeqIO pipeline of one's own reads."""
  found = seqio.TaskRegistry.get(task)
  steps = [s for s in found.preprocessors if not isinstance(s, seqio.CacheDatasetPlaceholder)]
  free = found.replace(preprocessors=steps)
  return list(free.get_dataset(None, split, shuffle=False).as_numpy_iterator())


def documents(blocks):
  """The cache's documents as they lie there, BOS and EOS included."""
  tokens, starts = blocks.read(0, blocks.tokens)
  assert starts[0]
  return [tuple(d.tolist()) for d in np.split(tokens, np.flatnonzero(starts)[1:])]


@pytest.mark.parametrize('split', ['train', 'validation'])
@pytest.mark.parametrize('task', TASKS)
def test_a_cache_has_the_tasks_own_ids_document_by_document_with_one_eos(
  theirs, caches, task, split
):
  blocks = cached(task, caches, split)
  examples = as_seqio_has_them(task, split)
  expected = [tuple(e['targets'].tolist()) for e in examples]
  assert all(ids[-1] == 1 and ids.count(1) == 1 for ids in expected)
  found = documents(blocks)
  assert collections.Counter(found) == collections.Counter(expected)
  assert found != expected  # they are shuffled
  manifest = blocks.manifest
  assert manifest['marked'] is False
  assert manifest['words'] == 0
  assert manifest['documents'] == len(expected)
  assert manifest['tokens'] == sum(map(len, expected))
  assert manifest['decoded_documents'] == 0
  vocabulary = theirs.MT5 if task.startswith('mt5') else theirs.BYT5
  assert manifest['tokenizer']['size'] == vocabulary.vocab_size
  assert manifest['tokenizer']['bos'] is None


def test_steps_that_ask_for_nothing_special_keep_their_own_tasks_as_they_were(theirs, tmp_path):
  before = {name: list(seqio.TaskRegistry.get(name).preprocessors) for name in TASKS}
  for task in TASKS:
    plan_of(task, tmp_path).get_task()
  assert before == {name: list(seqio.TaskRegistry.get(name).preprocessors) for name in TASKS}
  with pytest.raises(ValueError, match='requires caching'):
    seqio.TaskRegistry.get('mt5_en').get_dataset(None, 'train', shuffle=False)


@pytest.mark.parametrize('task', TASKS)
def test_the_trainers_tokenizer_reads_the_ids_as_seqio_does(theirs, caches, task):
  blocks = cached(task, caches, 'validation')
  copied = Tokenizer(os.path.join(blocks.folder, blocks.manifest['tokenizer']['path']))
  vocabulary = theirs.MT5 if task.startswith('mt5') else theirs.BYT5
  assert copied.size == vocabulary.vocab_size
  assert (copied.pad_id, copied.eos_id, copied.unk_id) == (0, 1, vocabulary.unk_id)
  for text in [*paragraphs('en', 10), *paragraphs('tr', 10), *paragraphs('bn', 5), '  a  b ']:
    assert copied.encode(text) == list(vocabulary.encode(text))
    known = [i for i in vocabulary.encode(text) if i != 2]  # SeqIO shows the unknown as ' ⁇ '
    assert copied.decode(vocabulary.encode(text)) == vocabulary.decode(known)
  for document in documents(blocks):
    known = [i for i in document if i != 2]
    assert copied.decode(document) == vocabulary.decode(known)


@pytest.mark.parametrize('task', TASKS)
def test_bytes_are_those_of_the_text_that_was_tokenised(theirs, caches, texts, task):
  expected = [t.replace('“', '"').replace('”', '"') if task == 'mt5_en' else t
              for t in texts[task[-2:]]['validation']]  # fmt: skip
  blocks = cached(task, caches, 'validation')
  assert blocks.manifest['bytes'] == sum(len(t.encode()) for t in expected)
  scored = held_out.read_held_out(blocks, length=128, batch=4)
  assert scored.bytes == blocks.manifest['bytes']
  assert scored.tokens == blocks.manifest['tokens'] - blocks.manifest['documents']  # but EOS
  first = scored.batches[0]
  assert first['tokens'][0, 0] == 1  # EOS opens a text where there is no BOS


def test_bytes_of_texts_that_are_not_kept_are_those_of_the_decoded_tokens_and_counted(
  theirs, tmp_path, capsys
):
  from jaxlink import cache

  task = seqio.TaskRegistry.get('mt5_tr')
  forget = seqio.map_over_dataset(lambda e: {'targets': e['targets'][:12]})
  task = seqio.TaskRegistry.add(
    'mt5_short', source=task.source, output_features={'targets': task.output_features['targets']},
    preprocessors=[*task.preprocessors[:-1], forget, task.preprocessors[-1]],
  )  # fmt: skip
  blocks = cached('mt5_short', tmp_path, 'validation')
  expected = [e['targets'].tolist() for e in as_seqio_has_them('mt5_short', 'validation')]
  assert sorted(documents(blocks)) == sorted(map(tuple, expected))
  known = [[i for i in e if i != 2] for e in expected]
  assert blocks.manifest['bytes'] == sum(len(theirs.MT5.decode(e).encode()) for e in known)
  assert blocks.manifest['decoded_documents'] == 8
  cache._tell_losses(blocks)
  assert 'bytes of 8 of 8 documents are those of their decoded tokens' in capsys.readouterr().out


def test_a_documents_key_is_that_of_its_ids_whatever_else_the_example_holds(theirs, tmp_path):
  plan = plan_of('mt5_tr', tmp_path)
  keys = {}
  for example in cache_plan.examples_of(plan.get_task(), plan, 1, 0):
    document, _ = cache_plan.encode(example)
    keys.setdefault(document.key, set()).add(tuple(document.tokens.tolist()))
  assert all(len(ids) == 1 for ids in keys.values())
  assert len(keys) == 40  # one of the 41 twice


def test_equal_vocabularies_are_one_tokenizer_marked_or_not(theirs, tmp_path):
  plain = plan_of('mt5_tr', tmp_path).get_vocabulary()
  existing.mark_words('mt5_en', language='en')
  assert plan_of('mt5_en', tmp_path).get_vocabulary() == plain
  assert plan_of('byt5_en', tmp_path).get_vocabulary() != plain
  # A model that SeqIO leaves as it is goes by its own file, as `register_corpus` would have it.
  as_it_is = seqio.SentencePieceVocabulary(str(SAMPLE / 'tokenizer.model'))
  task = seqio.TaskRegistry.get('mt5_en')
  seqio.TaskRegistry.add(
    'own_model', source=task.source, preprocessors=task.preprocessors,
    output_features={'targets': seqio.Feature(as_it_is)},
  )  # fmt: skip
  assert plan_of('own_model', tmp_path).tokenizer == str(SAMPLE / 'tokenizer.model')


def test_with_a_vocabulary_that_has_a_bos_the_cache_puts_its_own(theirs, tmp_path):
  task = seqio.TaskRegistry.get('mt5_en')
  vocabulary = seqio.SentencePieceVocabulary(str(SAMPLE / 'tokenizer.model'))
  with_bos = seqio.map_over_dataset(
    lambda e: {**e, 'targets': tf.concat([[vocabulary.bos_id], e['targets']], 0)}
  )
  for name, steps in (('without_bos', []), ('with_bos', [with_bos])):
    seqio.TaskRegistry.add(
      name, source=task.source, preprocessors=[*task.preprocessors, *steps],
      output_features={'targets': seqio.Feature(vocabulary, add_eos=True)},
    )  # fmt: skip
  expected = {tuple(e['targets'].tolist()) for e in as_seqio_has_them('with_bos', 'train')}
  for name in ('without_bos', 'with_bos'):
    blocks = cached(name, tmp_path)
    assert set(documents(blocks)) == expected
    assert blocks.manifest['decoded_documents'] == 0


# ── LINK ──────────────────────────────────────────────────────────────────────────


POLICY = linking.resolve_policy(
  LinkPolicy(lexicon=str(SAMPLE / 'en-tr.tsv'), language='tr', doc_fraction=1.0, word_ratio=1.0)
)


@pytest.mark.parametrize('task', ['mt5_en', 'byt5_en'])
def test_marked_words_change_no_id_and_are_the_words_of_the_text(
  theirs, caches, tmp_path, texts, task
):
  plain = cached(task, caches)
  existing.mark_words(task, language='en')
  plan = plan_of(task, tmp_path)
  assert plan.fingerprint != plain.fingerprint
  blocks = build.build(plan, processes=1, progress=False)
  assert sorted(documents(blocks)) == sorted(documents(plain))
  for name in ('documents', 'tokens', 'bytes', 'empty_documents'):
    assert blocks.manifest[name] == plain.manifest[name]
  assert blocks.manifest['marked'] is True
  assert blocks.manifest['language'] == 'en'
  assert blocks.manifest['words'] > 3000
  expected = [t.replace('“', '"').replace('”', '"') if task == 'mt5_en' else t
              for t in texts['en']['train']]  # fmt: skip
  assert set(blocks.read_words(0, blocks.tokens).document.tolist()) == set(map(key_of, expected))
  if task == 'byt5_en':
    assert blocks.manifest['unspliceable_words'] == 0
    tokens, _ = blocks.read(0, blocks.tokens)
    words = blocks.read_words(0, blocks.tokens)
    read = plan.get_vocabulary().tokenizer.decode
    spelled = [
      read(tokens[s : s + n]).removeprefix(' ')
      for s, n in zip(words.start.tolist(), words.length.tolist(), strict=True)
    ]
    assert [key_of(w.casefold()) for w in spelled[:500]] == words.hash[:500].tolist()


@pytest.mark.parametrize('task', ['mt5_en', 'byt5_en'])
def test_a_marked_tasks_text_is_rewritten_before_it_is_tokenised(theirs, tmp_path, task):
  existing.mark_words(task, language='en')
  plan = plan_of(task, tmp_path, link=cache_plan.Link(POLICY, 3))
  blocks = build.build(plan, processes=1, progress=False)
  assert blocks.manifest['dose']['replaced'] > 500
  results = [result for _, result in rewriting.rewritten(plan, None)]
  assert len(results) == blocks.manifest['documents']
  encode = plan.get_vocabulary().tokenizer.encode
  expected = [(*encode(r.text, r.cuts), 1) for r in results]
  assert sorted(documents(blocks)) == sorted(expected)
  assert publish.publish(plan, str(tmp_path / 'text'))['dose']['replaced'] == sum(
    r.dose.replaced for r in results
  )


def test_link_on_a_task_without_marks_is_an_error_that_shows_the_line(theirs, caches, tmp_path):
  line = r"has no word marks.*: jaxlink\.data\.existing\.mark_words\('mt5_en', language='en'\)"
  with pytest.raises(ValueError, match=line):
    plan_of('mt5_en', tmp_path, link=cache_plan.Link(POLICY, 0))
  blocks = cached('mt5_en', caches)
  with pytest.raises(ValueError, match=line):
    linking.make_table(POLICY, 'en', blocks, str(tmp_path), Inputs())
  plan = plan_of('mt5_en', tmp_path)
  with pytest.raises(ValueError, match=line):
    next(rewriting.texts(plan))


def test_words_are_marked_of_tasks_that_are_registered_and_tokenise(theirs):
  with pytest.raises(ValueError, match=r"no task 'mt5_eng' is registered\. .*'mt5_en'"):
    existing.mark_words('mt5_eng', language='en')
  task = seqio.TaskRegistry.get('mt5_en')
  seqio.TaskRegistry.add(
    'ids_only', source=task.source, output_features=task.output_features, preprocessors=[]
  )
  with pytest.raises(ValueError, match=r'none of its steps is seqio\.preprocessors\.tokenize'):
    existing.mark_words('ids_only', language='en')
  assert not {'mt5_eng', 'ids_only'} & set(registry.LANGUAGES)


# ── what is refused ───────────────────────────────────────────────────────────────


def variant(name, *, after=(), before=(), source=None, **features):
  """'mt5_en' with more steps, after its EOS or before it is tokenised, and other features."""
  task = seqio.TaskRegistry.get('mt5_en')
  return seqio.TaskRegistry.add(
    name, source=source or task.source,
    preprocessors=[*task.preprocessors[:2], *before, *task.preprocessors[2:], *after],
    output_features={**task.output_features, **features},
  )  # fmt: skip


def put(*ids, front=False):
  parts = (lambda e: [list(ids), e['targets']]) if front else (lambda e: [e['targets'], list(ids)])
  return seqio.map_over_dataset(lambda e: {**e, 'targets': tf.concat(parts(e), 0)})


@pytest.mark.parametrize(
  ('step', 'message'),
  [
    (put(0, 0), r"task 'odd': padding \(id 0\) at place \d+ of 'targets'"),
    (put(1, 5), r"task 'odd': EOS \(id 1\) at place \d+ of 'targets', before its end"),
    (put(1), r"task 'odd': EOS \(id 1\)"),
    (
      put(1300, front=True),
      r"task 'odd': id 1300 at place 0 .*: its vocabulary has ids 0 to 1,299",
    ),
    (put(-3, front=True), r"task 'odd': id -3 at place 0"),
  ],
)
def test_ids_that_no_text_has_are_errors_that_name_the_task(theirs, tmp_path, step, message):
  variant('odd', after=[step])
  with pytest.raises(ValueError, match=message) as error:
    cached('odd', tmp_path)
  assert str(error.value).startswith('odd:train: ')
  assert '\n' not in str(error.value)


@seqio.map_over_dataset
def halves(example):
  half = tf.strings.length(example['targets']) // 2
  text = example['targets']
  return {'inputs': tf.strings.substr(text, 0, half), 'targets': tf.strings.substr(text, half, -1)}


@pytest.mark.parametrize('marked', [False, True])
def test_text_in_inputs_is_an_error_and_not_lost(theirs, tmp_path, marked):
  variant('pairs', before=[halves])
  if marked:
    existing.mark_words('pairs', language='en')
  with pytest.raises(
    ValueError, match=r"task 'pairs': an example has \d+ tokens in 'inputs', and a"
  ):
    cached('pairs', tmp_path)


def spans(dataset, sequence_length, output_features):
  length = sequence_length['inputs']
  return dataset.map(lambda e: {**e, 'inputs': e['targets'][:length]})


def test_a_step_that_needs_a_length_is_named(theirs, tmp_path):
  variant('corrupted', after=[spans])
  with pytest.raises(ValueError, match=r'corrupted:train: its steps cannot be set up \(TypeError: .*'
                     r'whole texts, so sequence_length is None: spans may need one'):  # fmt: skip
    cached('corrupted', tmp_path)


@pytest.mark.parametrize(
  ('step', 'message'),
  [
    (seqio.map_over_dataset(lambda e: {**e, 'targets': e['targets'][1:]}),
     r"task 'moved': a step after its tokenize changes the token ids"),
    (seqio.map_over_dataset(lambda e: {'targets': e['targets']}),
     r"Task 'moved': a step after its tokenize drops 'marked_targets', 'words'"),
  ],
)  # fmt: skip
def test_marks_are_never_those_of_other_ids(theirs, tmp_path, step, message):
  variant('moved', after=[step])
  existing.mark_words('moved', language='en')
  with pytest.raises(ValueError, match=message):
    cached('moved', tmp_path)


def test_a_filter_on_token_ids_works_marked_or_not(theirs, tmp_path):
  short = functools.partial(
    lambda ds, most: ds.filter(lambda e: tf.size(e['targets']) < most), most=180
  )
  variant('short', after=[short])
  plain = cached('short', tmp_path / 'plain')
  existing.mark_words('short', language='en')
  marked = cached('short', tmp_path / 'marked')
  assert sorted(documents(plain)) == sorted(documents(marked))
  assert 10 < plain.manifest['documents'] < 50


def test_other_vocabularies_and_kinds_of_targets_are_refused_by_name(theirs, tmp_path):
  odd = [
    (
      'words_only',
      seqio.Feature(seqio.UnigramVocabulary(['a'])),
      'is a UnigramVocabulary: it is a',
    ),
    ('table', seqio.Feature(theirs.MT5, rank=2), 'has rank 2 and type int32'),
    ('weights', seqio.Feature(theirs.MT5, dtype=tf.float32), 'has rank 1 and type float32'),
  ]
  for name, feature, message in odd:
    variant(name, targets=feature)
    with pytest.raises(ValueError, match=f"Task '{name}'.*{message}"):
      plan_of(name, tmp_path)


# ── what a cache depends on ───────────────────────────────────────────────────────


def test_a_fingerprint_covers_source_steps_and_vocabulary(theirs, folder, tmp_path):
  first = {task: plan_of(task, tmp_path).fingerprint for task in TASKS}
  assert first == {task: plan_of(task, tmp_path).fingerprint for task in TASKS}
  assert len(set(first.values())) == len(TASKS)
  task = seqio.TaskRegistry.get('byt5_tr')

  def other(split, shuffle_files):
    return tf.data.TextLineDataset(f'{folder}/tr_validation.txt')

  changed = [
    {'source': seqio.FunctionDataSource(other, splits=['train'])},
    {'preprocessors': [*task.preprocessors[:2], seqio.preprocessors.tokenize]},
    {'preprocessors': [task.preprocessors[0], lambda ds: ds.take(5), *task.preprocessors[1:]]},
    {'output_features': {'targets': seqio.Feature(seqio.ByteVocabulary(), add_eos=True)}},
  ]
  found = {first['byt5_tr']}
  for change in changed:
    seqio.TaskRegistry.remove('byt5_tr')
    seqio.TaskRegistry.add_provider('byt5_tr', task.replace(**change))
    found.add(plan_of('byt5_tr', tmp_path).fingerprint)
  assert len(found) == 5
  # A file of a text source, and the model's file.
  line = (folder / 'tr_train.txt').read_text(encoding='utf-8')
  model = (folder / 'spm.model').read_bytes()
  try:
    (folder / 'tr_train.txt').write_text(line + 'Bir satır daha geldi buraya.\n', encoding='utf-8')
    assert plan_of('mt5_tr', tmp_path).fingerprint != first['mt5_tr']
  finally:
    (folder / 'tr_train.txt').write_text(line, encoding='utf-8')
  assert plan_of('mt5_tr', tmp_path).fingerprint == first['mt5_tr']
  copy = tmp_path / 'other.model'
  train_sentencepiece(copy, paragraphs('tr', 40), vocab_size=500, model_type='unigram', pad_id=0,
                      eos_id=1, unk_id=2, bos_id=-1)  # fmt: skip
  vocabulary = seqio.SentencePieceVocabulary(str(copy), extra_ids=100)
  task = seqio.TaskRegistry.get('mt5_tr')
  seqio.TaskRegistry.remove('mt5_tr')
  feature = seqio.Feature(vocabulary, add_eos=True)
  seqio.TaskRegistry.add_provider(
    'mt5_tr', task.replace(output_features={**task.output_features, 'targets': feature})
  )
  assert plan_of('mt5_tr', tmp_path).fingerprint != first['mt5_tr']
  assert model == (folder / 'spm.model').read_bytes()


def test_random_steps_draw_by_place_and_give_the_same_bytes_again(theirs, tmp_path):
  @seqio.map_over_dataset(num_seeds=1)
  def crop(example, seed):
    start = tf.random.stateless_uniform([], seed, 0, 20, tf.int32)
    return {**example, 'targets': tf.strings.substr(example['targets'], start, 200)}

  variant('cropped', before=[crop])
  plan = plan_of('cropped', tmp_path)
  assert cache_plan.draws_by_place(plan.get_task(), 'train')
  assert not cache_plan.draws_by_place(plan_of('mt5_en', tmp_path).get_task(), 'train')
  one, two = cached('cropped', tmp_path / 'one'), cached('cropped', tmp_path / 'two')
  assert documents(one) == documents(two)
  assert len({d[:3] for d in documents(one)}) > 10


# ── the commands ──────────────────────────────────────────────────────────────────


def test_rates_may_be_functions_and_those_that_fail_say_why(theirs):
  from jaxlink import cache

  rates = cache._mixture_rates(seqio.MixtureRegistry.get('mt5_all'))
  assert {n: float(r) for n, r in rates.items()} == {
    'mt5_tr': pytest.approx(40**0.5),
    'mt5_en': 1.5,
  }
  assert set(cache._mixture_rates(seqio.MixtureRegistry.get('byt5_all')).values()) == {1}
  bad = [
    (lambda task: task.get_cached_stats('train')['examples'], 'AssertionError: .*task cache dir'),
    (seqio.mixing_rate_num_examples, 'TypeError.*needs `num_input_examples` of the source'),
  ]
  for number, (rate, message) in enumerate(bad):
    mixture = seqio.MixtureRegistry.add(f'bad_{number}', [('byt5_tr', rate)])
    with pytest.raises(ValueError, match=f"'bad_{number}': the rate of 'byt5_tr' is a .*{message}"):
      cache._mixture_rates(mixture)


_RECIPE = """
Run.directory = 'run'
Run.modules = ['their_tasks']
Run.model = @DecoderConfig()
Run.stages = [@Stage()]
Run.data = @DataConfig()
Run.checkpoint = @CheckpointConfig()
Run.evaluation = @EvaluationConfig()
DecoderConfig.layers = 1
DecoderConfig.width = 32
DecoderConfig.heads = 2
DecoderConfig.feedforward = 64
DecoderConfig.max_length = 64
DataConfig.cache_dir = 'cache'
DataConfig.shards = 2
Stage.mixture = 'mt5_all'
Stage.tokens = 1536
Stage.batch = 8
Stage.sequence_length = 64
Stage.optimizer = @OptimizerConfig()
OptimizerConfig.learning_rate = 1e-2
EvaluationConfig.batch = 8
EvaluationConfig.prompts = ('Göl', '')
EvaluationConfig.generate_tokens = 6
"""


@pytest.fixture(scope='module')
def project(folder):
  """A recipe for their module; a second module has the line that gives LINK."""
  (folder / 'tiny.gin').write_text(_RECIPE, encoding='utf-8')
  line = "mark_words('{}', language='en')\n"
  for task in ('mt5_en', 'byt5_en'):
    text = 'from jaxlink.data.existing import mark_words\n' + line.format(task)
    (folder / f'link_{task}.py').write_text(text, encoding='utf-8')
  return tiny_project.Project(folder)


def test_the_command_makes_caches_of_their_mixture(theirs, folder, tmp_path, monkeypatch, capsys):
  from jaxlink import cache

  monkeypatch.chdir(folder)
  command = ['cache', '--modules', 'their_tasks', '--mixture', 'byt5_all', '--cache_dir']
  monkeypatch.setattr(sys, 'argv', [*command, str(tmp_path / 'cache')])
  cache.main()
  found = {path.parent.parent.name: json.loads(path.read_text())
           for path in (tmp_path / 'cache').glob(f'byt5_*/train-*/{MANIFEST}')}  # fmt: skip
  assert {task: manifest['documents'] for task, manifest in found.items()} == {
    task: len(as_seqio_has_them(task, 'train')) for task in ('byt5_tr', 'byt5_en')
  }
  assert len({manifest['tokenizer']['sha256'] for manifest in found.values()}) == 1


def metrics_of(run):
  return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.slow
def test_their_mixture_trains_unchanged_with_rates_that_are_functions(project, tmp_path):
  output = project.train(tmp_path / 'run')
  last = [line for line in metrics_of(tmp_path / 'run') if 'loss' in line][-1]
  assert last['step'] == 3
  sequences = {task: last[f'tokens/{task}'] / 64 for task in ('mt5_tr', 'mt5_en')}
  assert sum(sequences.values()) == 24
  expected = 24 * 40**0.5 / (40**0.5 + 1.5)
  assert abs(sequences['mt5_tr'] - expected) < 2
  scores = [line for line in metrics_of(tmp_path / 'run') if 'bits_per_byte/mt5_tr' in line]
  assert [line['step'] for line in scores] == [0, 3]
  assert scores[-1]['bits_per_byte/mt5_en'] < scores[0]['bits_per_byte/mt5_en']
  assert 'generated: Göl' in output
  code = (
    'import sys, jaxlink.train; print([m for m in ("tensorflow", "seqio") if m in sys.modules])'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'


@pytest.mark.slow
@pytest.mark.parametrize('family', ['mt5', 'byt5'])
def test_one_more_line_gives_them_link(project, tmp_path, family):
  auxiliary = f'{family}_en'
  link = (
    f"Stage.mixture = '{family}_all'", f"Stage.link = {{'{auxiliary}': @LinkPolicy()}}",
    f"LinkPolicy.lexicon = '{SAMPLE}/en-tr.tsv'", "LinkPolicy.language = 'tr'",
    'LinkPolicy.doc_fraction = 1.0',
  )  # fmt: skip
  refused = project.train(tmp_path / 'none', *link, code=1)
  assert f"jaxlink.data.existing.mark_words('{auxiliary}', language='en')" in refused
  modules = f"Run.modules = ['their_tasks', 'link_{auxiliary}']"
  output = project.train(tmp_path / 'run', *link, modules)
  assert f'LINK on {auxiliary}' in output
  last = [line for line in metrics_of(tmp_path / 'run') if 'loss' in line][-1]
  assert last['step'] == 3
  replaced = [line for line in metrics_of(tmp_path / 'run') if f'link/{auxiliary}/replaced' in line]
  assert replaced[-1][f'link/{auxiliary}/replaced'] > 0
