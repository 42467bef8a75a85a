import collections
import dataclasses
import fcntl
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf

from jaxlink.data import linking, register
from jaxlink.data import preprocessors as prep
from jaxlink.data.blocks import Blocks
from jaxlink.data.caching import build, cache_plan, machine, shards
from jaxlink.data.fingerprint import Inputs
from jaxlink.data.tokenizer import BOS, EOS, Tokenizer
from jaxlink.link import substitute as substitute_lib
from jaxlink.link import words
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon, load_words
from jaxlink.link.policy import Dose, LinkPolicy, WordLists, probability, stop_words_path
from tests.data.conftest import SAMPLE, sample_text

pytestmark = pytest.mark.usefixtures('forget_tasks')

ROOT = Path(__file__).parents[3]
SETTINGS = cache_plan.CacheSettings(shards=3, block=256)
POLICY = linking.resolve_policy(  # as the command does with a recipe's
  LinkPolicy(lexicon=str(SAMPLE / 'en-tr.tsv'), language='tr', doc_fraction=0.8)
)


def english():
  """Documents, two of them alike."""
  paragraphs = [p.strip() for p in sample_text('en').split('\n') if len(p) > 80][:59]
  return [*paragraphs, paragraphs[3]]


def write_corpus(folder, files=2):
  """English documents in files, with two empty ones and three bad lines, one at a file's end."""
  lines = [json.dumps({'text': text}) for text in english()]
  lines[5:5] = ['{"text": ""}', 'not JSON', '{"text": ""}']
  lines += ['{"title": "no text"}', '["no text"]']
  size = -(-len(lines) // files)
  for i in range(files):
    (folder / f'c{i}.jsonl').write_text('\n'.join(lines[i * size : (i + 1) * size]))
  return {'train': f'{folder}/c*.jsonl'}


def plan_of(folder, tokenizer, *, link=None, name='build_en', modules=(), cache='cache', **task):
  if not modules:
    register.register_corpus(
      name, write_corpus(folder), language='en', tokenizer=tokenizer, on_bad='skip', **task
    )
  return cache_plan.make_plan(
    name, 'train', cache_dir=str(folder / cache), inputs=Inputs(), modules=modules, link=link,
    settings=SETTINGS,
  )  # fmt: skip


def elsewhere(plan, folder):
  """The same plan with another folder."""
  return dataclasses.replace(plan, folder=str(folder))


def digests(folder):
  """sha256 of each file of a cache."""
  return {
    name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
    for name in sorted(os.listdir(folder))
  }


def decoded(blocks, tokenizer):
  """The documents of a cache in order, as text."""
  ids, starts = blocks.read(0, blocks.tokens)
  assert starts.tolist() == (ids == BOS).tolist()
  pieces = np.split(ids, np.flatnonzero(starts)[1:])
  assert all(p[0] == BOS and p[-1] == EOS and (p[1:-1] > EOS + 2).all() for p in pieces)
  return [tokenizer.decode(p) for p in pieces]


@pytest.fixture
def built(tmp_path, tiny_tokenizers):
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'])
  return plan, build.build(plan, processes=1, progress=False)


def test_each_document_is_there_once_between_bos_and_eos_and_they_are_shuffled(
  built, tiny_tokenizers
):
  found = decoded(built[1], Tokenizer(tiny_tokenizers['sentencepiece']))
  assert collections.Counter(found) == collections.Counter(english())
  order = [english().index(text) for text in found]
  assert order != sorted(order)
  assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.4


def test_the_marks_of_a_cache_give_back_the_words_of_the_text(built, tiny_tokenizers):
  blocks, tokenizer = built[1], Tokenizer(tiny_tokenizers['sentencepiece'])
  by_key, marked = {key_of(text): text for text in english()}, collections.Counter()
  marks = blocks.read_words(0, blocks.tokens)
  keys = marks.document[np.searchsorted(marks.fragment, marks.start, side='right') - 1]
  columns = [*marks[:4], keys, marks.flags]
  columns = (column.tolist() for column in columns)
  for first, length, hash_, index, key, flags in zip(*columns, strict=True):
    ids, _ = blocks.read(first, length)
    start, end = words.find_words(by_key[key])[index]
    word = by_key[key][start:end]
    space = ' ' if flags & words.LEADING_SPACE else ''
    assert tokenizer.decode(ids) == space + word
    assert hash_ == key_of(words.key(word))
    assert flags & ~words.LEADING_SPACE == words.case_class(word)
    marked[key, index] += 1
  expected = collections.Counter(
    (key_of(t), i) for t in english() for i in range(len(words.find_words(t)))
  )
  assert marked == expected
  types = sum(
    (collections.Counter(blocks.read_types(s['shard'])) for s in blocks.manifest['shards']),
    collections.Counter(),
  )
  assert types == collections.Counter(
    words.key(t[a:b]) for t in english() for a, b in words.find_words(t)
  )


def test_counts_are_those_of_the_text(built, tiny_tokenizers):
  manifest, tokenizer = built[1].manifest, Tokenizer(tiny_tokenizers['sentencepiece'])
  texts = english()
  assert manifest['documents'] == len(texts)
  assert manifest['empty_documents'] == 2
  assert manifest['rejected_lines'] == 3
  assert manifest['bytes'] == sum(len(t.encode()) for t in texts)
  assert manifest['words'] == sum(len(words.find_words(t)) for t in texts)
  assert manifest['unspliceable_words'] == 0
  assert manifest['tokens'] == sum(len(tokenizer.encode(t)) + 2 for t in texts)
  assert manifest['tokens'] == built[1].tokens
  assert manifest['language'] == 'en'
  assert manifest['dose'] is None
  copy = Path(built[1].folder) / manifest['tokenizer']['path']
  assert Tokenizer(copy).sha256 == manifest['tokenizer']['sha256'] == tokenizer.sha256
  assert build.read_tokenizer(built[0])['path'] == str(copy)


def test_bad_lines_are_counted_even_if_a_step_drops_documents(tmp_path, tiny_tokenizers):
  plan = plan_of(
    tmp_path, tiny_tokenizers['byte_level'],
    preprocessors=[lambda dataset: dataset.filter(lambda e: e['text'] == english()[0])],
  )  # fmt: skip
  manifest = build.build(plan, processes=1, progress=False).manifest
  assert (manifest['documents'], manifest['rejected_lines']) == (1, 3)


@pytest.mark.parametrize(
  'changes',
  [
    {}, {'ratio_of': 'all', 'word_ratio': 0.2}, {'regime': 'content'}, {'mode': 'annotate'},
    {'lexicon': {'tr': (str(SAMPLE / 'en-tr.tsv'),), 'zh': ('zh.tsv',)}, 'language_by': 'per_word'},
  ],
  ids=['covered', 'all', 'content', 'annotate', 'two languages'],
)  # fmt: skip
def test_the_dose_is_the_sum_of_the_references(tmp_path, tiny_tokenizers, monkeypatch, changes):
  monkeypatch.chdir(tmp_path)
  Path('zh.tsv').write_text('the\t这个\nof\t的\nand\t和\nyear\t3月\nin\t在\n', encoding='utf-8')
  policy = dataclasses.replace(POLICY, **changes)
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'], link=cache_plan.Link(policy, 7))
  blocks = build.build(plan, processes=1, progress=False)
  tokenizer = Tokenizer(tiny_tokenizers['byte_level'])
  lexicons = {
    language: Lexicon.load(*paths, source='en', target=language)
    for language, paths in policy.lexicons.items()
  }
  lists = WordLists(load_words(stop_words_path('en')))
  texts = english()
  chance = None
  if policy.ratio_of == 'all':
    counted = sum((substitute_lib.count(t, lexicons, policy, lists) for t in texts), Dose())
    chance = probability('all', 0.2, counted.words, counted.eligible)[0]
  results = [
    substitute_lib.substitute(
      t, lexicons, policy, policy.draws(7, 'build_en', 0), document=key_of(t),
      probability=chance, lists=lists,
    )
    for t in texts
  ]  # fmt: skip
  total = sum((r.dose for r in results), Dose())
  dose = blocks.manifest['dose']
  # The two empty documents are documents for LINK too.
  fields = prep.DOSE_FIELDS[2:]
  assert {f: dose[f] for f in fields} == {f: getattr(total, f) for f in fields}
  assert dose['documents'] == len(texts) + 2
  assert total.replaced > 100
  assert total.stop_replaced > 0 or policy.regime == 'content'
  assert dose['tokens_before'] == sum(len(tokenizer.encode(t)) for t in texts)
  assert dose['tokens_after'] == sum(len(tokenizer.encode(r.text, r.cuts)) for r in results)
  assert collections.Counter(decoded(blocks, tokenizer)) == collections.Counter(
    r.text for r in results
  )
  shown = blocks.manifest['examples']
  assert len(shown) == 3
  assert all('[' in e['substituted'] and e['original'] != e['substituted'] for e in shown)
  assert {g: found['sha256'] for g, found in dose['lexicons'].items()} == {
    g: lexicon.sha256 for g, lexicon in lexicons.items()
  }
  assert dose['probability'] == (chance or policy.word_ratio)
  assert dose['shortfall'] == 0


def test_a_ratio_that_cannot_be_reached_leaves_its_shortfall_in_the_manifest(
  tmp_path, tiny_tokenizers
):
  policy = dataclasses.replace(POLICY, ratio_of='all', word_ratio=1.0)
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'], link=cache_plan.Link(policy, 7))
  dose = build.build(plan, processes=1, progress=False).manifest['dose']
  lexicons = linking.load_lexicons(policy)
  counts = [substitute_lib.count(t, lexicons, policy) for t in english()]
  eligible = sum(c.eligible for c in counts) / sum(c.words for c in counts)
  assert dose['probability'] == 1
  assert dose['shortfall'] == pytest.approx(1 - eligible)
  assert 0.1 < dose['shortfall'] < 0.9


@seqio.map_over_dataset
def to_targets(example):
  return {'targets': example['text']}


@seqio.map_over_dataset(num_seeds=1)
def random_case(example, seed):
  low = tf.random.stateless_uniform([], seed) < 0.5
  text = example['text']
  return {'text': tf.cond(low, lambda: tf.strings.lower(text), lambda: tf.strings.upper(text))}


@pytest.mark.parametrize('nested', [False, True])
def test_a_random_preprocessor_gives_the_same_bytes_each_time_and_with_any_size_of_parts(
  tmp_path, tiny_tokenizers, monkeypatch, nested
):
  steps = [lambda dataset: random_case(dataset)] if nested else [random_case]
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'], preprocessors=steps)
  blocks = build.build(plan, processes=1, progress=False)
  texts = decoded(blocks, Tokenizer(tiny_tokenizers['byte_level']))
  assert 10 < sum(text == text.lower() for text in texts) < 50
  again = elsewhere(plan, tmp_path / 'again')
  build.build(again, processes=1, progress=False)
  monkeypatch.setattr(build, '_SMALL', 0)
  monkeypatch.setattr(build, '_PART', 4000)
  parts = elsewhere(plan, tmp_path / 'parts')
  build.build(parts, processes=1, progress=False)
  assert digests(plan.folder) == digests(again.folder) == digests(parts.folder)


def test_a_preprocessor_that_draws_without_a_seed_is_refused(tmp_path, tiny_tokenizers):
  def unseeded(dataset):
    return dataset.map(lambda e: {'text': e['text'] + tf.as_string(tf.random.uniform([]))})

  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'], preprocessors=[unseeded])
  with pytest.raises(ValueError, match=r"'build_en': .* without a seed \(RandomUniform\)"):
    build.build(plan, processes=1, progress=False)


def test_a_part_is_one_file_however_many_shards_there_are(tmp_path, tiny_tokenizers):
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'])
  plan = dataclasses.replace(plan, settings=cache_plan.CacheSettings(shards=40, block=256))
  build._build(plan, 1, False, None)
  assert sorted(p.name for p in Path(plan.work).glob('tmp-part*')) == [
    'tmp-part-00000-of-00001.json', 'tmp-part-00000-of-00001.runs',
  ]  # fmt: skip
  build._commit(plan)
  found = decoded(Blocks(plan.folder), Tokenizer(tiny_tokenizers['byte_level']))
  assert collections.Counter(found) == collections.Counter(english())


def test_without_a_terminal_progress_is_a_plain_line_now_and_then(
  tmp_path, tiny_tokenizers, monkeypatch, capsys
):
  plan = plan_of(tmp_path, tiny_tokenizers['byte_level'])
  build.build(elsewhere(plan, tmp_path / 'quick'), processes=1)
  assert capsys.readouterr().err == ''
  monkeypatch.setattr(build, '_SAY_EVERY', 0)
  blocks = build.build(plan, processes=1)
  lines = capsys.readouterr().err.splitlines()
  pattern = r'caching build_en:train: [\d,]+ tokens, [\d,]+ a second(, [\d,]+ s left)?'
  assert len(lines) >= 2
  assert all(re.fullmatch(pattern, line) for line in lines)
  tokens = blocks.tokens - 2 * blocks.manifest['documents']
  assert f' {tokens:,} tokens' in lines[-1]


@pytest.mark.parametrize('link', [None, cache_plan.Link(POLICY, 0)], ids=['plain', 'link'])
def test_the_number_of_parts_does_not_change_a_byte(tmp_path, tiny_tokenizers, monkeypatch, link):
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'], link=link)
  build.build(plan, processes=1, progress=False)
  expected = digests(plan.folder)
  assert len(expected) == 3 * SETTINGS.shards + 2
  monkeypatch.setattr(build, '_SMALL', 0)
  for part in (9000, 4000):
    monkeypatch.setattr(build, '_PART', part)
    again = elsewhere(plan, tmp_path / f'parts{part}')
    build.build(again, processes=1, progress=False)
    assert digests(again.folder) == expected


def test_a_reader_that_holds_little_at_a_time_gives_the_same_bytes(
  tmp_path, tiny_tokenizers, monkeypatch
):
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'])
  build.build(plan, processes=1, progress=False)
  monkeypatch.setattr(shards, '_RUN', 60_000)
  monkeypatch.setattr(shards, '_FRAME', 10_000)
  most, runs, loaded = [], [], []
  add, load = shards._RunWriter.add, pickle.loads

  def add_and_look(self, document):
    add(self, document)
    most.append(sum(shards._size(d) for held in self._shards for _, d in held))
    runs.append(self.index)

  def load_and_look(data):
    frame = load(data)
    loaded.append(sum(shards._size(d) for _, d in frame[:-1]))
    return frame

  monkeypatch.setattr(shards._RunWriter, 'add', add_and_look)
  monkeypatch.setattr(shards.pickle, 'loads', load_and_look)
  again = elsewhere(plan, tmp_path / 'again')
  build.build(again, processes=1, progress=False)
  assert len(runs[-1]) > 5
  assert any(len(offsets) > 2 for run in runs[-1] for offsets in run)
  assert 30_000 < max(most) < 60_000
  assert 0 < max(loaded) < 10_000
  assert digests(again.folder) == digests(plan.folder)


def test_a_work_folder_in_a_bucket_gives_the_same_bytes_to_workers_without_the_tokenizers_file(
  tmp_path, tiny_tokenizers
):
  gone = tmp_path / 'gone.model'
  shutil.copy(tiny_tokenizers['sentencepiece'], gone)
  seqio.TaskRegistry.add(
    'build_plain',
    source=register.TextSource(write_corpus(tmp_path), on_bad='skip', max_bad=3),
    preprocessors=[to_targets, seqio.preprocessors.tokenize],
    output_features={'targets': seqio.Feature(seqio.SentencePieceVocabulary(str(gone)))},
  )
  plan = cache_plan.make_plan(
    'build_plain', 'train', cache_dir=str(tmp_path / 'cache'), inputs=Inputs(), settings=SETTINGS
  )
  build.build(plan, processes=1, progress=False)
  job = shards.Job(plan, 'memory://bucket/work', 2, None)
  shards.give_tokenizer(job)
  os.remove(plan.tokenizer)
  for function, count in ((shards.read_part, 2), (shards.cache_shard, SETTINGS.shards)):
    for number in range(count):
      collections.deque(function(job, number), maxlen=0)
  bucket = machine.Store(job.work)
  written = [name for name in bucket.names() if not name.startswith(shards.TEMPORARY)]
  assert len(written) == 3 * SETTINGS.shards
  for name in written:
    bucket.fetch(name, tmp_path / 'fetched')
    assert (tmp_path / 'fetched').read_bytes() == (Path(plan.folder) / name).read_bytes()
  bucket.delete()
  assert not bucket.exists(written[0])


def test_two_processes_build_the_same_bytes_and_report_what_went_wrong(
  tmp_path, tiny_tokenizers, monkeypatch
):
  monkeypatch.syspath_prepend(str(tmp_path))
  splits = write_corpus(tmp_path)
  (tmp_path / 'build_tasks.py').write_text(
    textwrap.dedent(f"""
    import os, signal
    import tensorflow as tf
    from jaxlink.data.register import register_corpus

    def kill(text):
      os.kill(os.getpid(), signal.SIGKILL)

    def killed(dataset):
      def step(example):
        text = tf.numpy_function(kill, [example['text']], tf.string)
        return {{'text': tf.ensure_shape(text, [])}}
      return dataset.map(step)

    for name, settings in (
      ('two_en', {{'on_bad': 'skip'}}), ('two_bad', {{}}), ('two_killed', {{'preprocessors': [killed]}}),
    ):
      register_corpus(
        name, {splits}, language='en', tokenizer={tiny_tokenizers['sentencepiece']!r}, **settings
      )
  """)
  )
  __import__('build_tasks')
  monkeypatch.setattr(build, '_SMALL', 0)
  monkeypatch.setattr(build, '_PART', 9000)
  plan = plan_of(tmp_path, '', name='two_en', modules=('build_tasks',))
  build.build(plan, processes=2, progress=False)
  alone = elsewhere(plan, tmp_path / 'alone')
  build.build(alone, processes=1, progress=False)
  assert digests(plan.folder) == digests(alone.folder)

  for name, error, message in (
    (
      'two_bad',
      ValueError,
      r'two_bad:train: BadDocument: .*\.jsonl, line \d+: (not JSON|no field|a JSON)',
    ),
    ('two_killed', machine.concurrent.futures.BrokenExecutor, 'terminated abruptly'),
  ):
    plan = plan_of(tmp_path, '', name=name, modules=('build_tasks',))
    with pytest.raises(error, match=message):
      build.build(plan, processes=2, progress=False)
    assert not plan.exists
  del sys.modules['build_tasks']


def test_a_bad_line_is_named_in_one_line(tmp_path, tiny_tokenizers):
  register.register_corpus(
    'build_bad', write_corpus(tmp_path), language='en', tokenizer=tiny_tokenizers['byte_level']
  )
  plan = cache_plan.make_plan('build_bad', 'train', cache_dir=str(tmp_path), inputs=Inputs())
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    build.build(plan, processes=1, progress=False)
  assert str(caught.value).startswith(
    f'build_bad:train: BadDocument: {tmp_path}/c0.jsonl, line 7: not JSON'
  )
  assert '\n' not in str(caught.value)


def test_a_source_without_text_is_an_error_and_leaves_nothing(tmp_path, tiny_tokenizers):
  (tmp_path / 'a.jsonl').write_text('{"text": ""}\nnot JSON\n')
  register.register_corpus(
    'build_empty', {'train': tmp_path / 'a.jsonl'}, language='en', on_bad='skip',
    tokenizer=tiny_tokenizers['byte_level'],
  )  # fmt: skip
  plan = cache_plan.make_plan(
    'build_empty', 'train', cache_dir=str(tmp_path / 'cache'), inputs=Inputs()
  )
  with pytest.raises(ValueError, match='holds no text: 1 files, 1 empty documents, 1 bad lines'):
    build.build(plan, processes=1, progress=False)
  left = [p for p in (tmp_path / 'cache').rglob('*') if p.is_file() and p.suffix != '.lock']
  assert left == []
  assert not os.path.exists(plan.folder)


def test_a_second_build_says_that_it_waits_and_then_opens_the_first_ones_cache(
  built, tmp_path, monkeypatch, capsys
):
  plan = built[0]
  os.rename(plan.folder, tmp_path / 'aside')
  result = []
  with open(plan.folder + '.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    thread = threading.Thread(
      target=lambda: result.append(build.build(plan, processes=1, progress=False))
    )
    monkeypatch.setattr(build, '_build', lambda *args: result.append('built again'))
    thread.start()
    said, deadline = '', time.monotonic() + 60
    while not said.endswith('\n') and time.monotonic() < deadline:
      time.sleep(0.02)
      said += capsys.readouterr().out
    assert said == f'data: waiting for another run that builds {plan.folder}\n'
    assert thread.is_alive()
    os.rename(tmp_path / 'aside', plan.folder)
  thread.join(30)
  assert [type(r) for r in result] == [Blocks]


def test_a_split_or_feature_that_is_not_there_is_an_error(built, tmp_path):
  with pytest.raises(ValueError, match=r"'build_en' has no split 'test'. Splits: train"):
    cache_plan.make_plan('build_en', 'test', cache_dir=str(tmp_path), inputs=Inputs())
  seqio.TaskRegistry.add(
    'build_other', source=seqio.TaskRegistry.get('build_en').source,
    output_features={'ids': seqio.Feature(seqio.ByteVocabulary())},
  )  # fmt: skip
  with pytest.raises(ValueError, match=r"no feature 'targets'\. Features: ids"):
    cache_plan.make_plan('build_other', 'train', cache_dir=str(tmp_path), inputs=Inputs())


def test_link_needs_a_task_that_tokenises_with_marks(built, tmp_path):
  seqio.TaskRegistry.add(
    'build_plain', source=seqio.TaskRegistry.get('build_en').source,
    output_features={'targets': seqio.Feature(seqio.ByteVocabulary())},
  )  # fmt: skip
  with pytest.raises(ValueError, match="'build_plain' has no word marks, which LINK needs"):
    cache_plan.make_plan(
      'build_plain', 'train', cache_dir=str(tmp_path), inputs=Inputs(),
      link=cache_plan.Link(POLICY, 0),
    )  # fmt: skip


def test_a_task_of_ones_own_may_tokenise_with_marks_without_settings(built, tmp_path):
  task = seqio.TaskRegistry.get('build_en')
  seqio.TaskRegistry.add(
    'build_own', source=task.source, preprocessors=[prep.tokenize_marked],
    output_features=task.output_features,
  )  # fmt: skip
  plan = cache_plan.make_plan(
    'build_own', 'train', cache_dir=str(tmp_path), inputs=Inputs(), link=cache_plan.Link(POLICY, 0),
    settings=SETTINGS,
  )  # fmt: skip
  blocks = build.build(plan, processes=1, progress=False)
  assert blocks.manifest['dose']['replaced'] > 100


@pytest.mark.parametrize('name', ['shards', 'block'])
def test_settings_below_one_are_errors(name):
  with pytest.raises(ValueError, match=f'CacheSettings.{name} is 0: it is 1 or more'):
    cache_plan.CacheSettings(**{name: 0})


# ── kills ──

DRIVER = '''
import hashlib, json, os, signal, sys
import seqio, tensorflow
from jaxlink.data import blocks
from jaxlink.data.caching import build, cache_plan, shards
from jaxlink.data.fingerprint import Inputs
from tests.data.caching import test_build

folder, tokenizer = sys.argv[1:]
build._SMALL, build._PART = 0, 9000
import pathlib
plan = test_build.plan_of(pathlib.Path(folder), tokenizer)

def child(target, kill_at):
  """Builds in a forked process that is killed at the n-th call of what touches the disk."""
  pid = os.fork()
  if pid:
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
  calls = [0]
  def counted(function):
    def call(*args, **kwargs):
      calls[0] += 1
      if calls[0] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
      return function(*args, **kwargs)
    return call
  for owner, name in (
    (os, 'rename'), (os, 'replace'), (os, 'makedirs'), (os, 'remove'), (build.shutil, 'rmtree'),
    (os, 'fsync'), (shards.pickle, 'dump'), (shards.pickle, 'loads'), (blocks.ShardWriter, 'close'),
    (blocks.ShardWriter, '_write'), (cache_plan, 'encode'), (build.shutil, 'copyfile'),
  ):
    setattr(owner, name, counted(getattr(owner, name)))
  examples = cache_plan.examples_of
  def logged(task, plan, parts, part):
    with open(folder + '/read.txt', 'a') as file:
      file.write(f'{part}\\n')
    return examples(task, plan, parts, part)
  cache_plan.examples_of = logged
  opened = blocks.ShardWriter.__init__
  def logging(self, folder_, shard, **settings):
    with open(folder + '/written.txt', 'a') as file:
      file.write(f'{shard}\\n')
    opened(self, folder_, shard, **settings)
  blocks.ShardWriter.__init__ = logging
  build.build(plan, processes=1, progress=False)
  os._exit(0)

assert not child(plan, 0)
expected = test_build.digests(plan.folder)
parts = len(open(folder + '/read.txt').readlines())
all_shards = len(open(folder + '/written.txt').readlines())
assert parts >= 3 and all_shards == test_build.SETTINGS.shards
kill_at, killed, step = 1, True, 1
moments, between_shards = 0, 0
while killed:
  build.shutil.rmtree(plan.folder, ignore_errors=True)
  build.shutil.rmtree(plan.work, ignore_errors=True)
  open(folder + '/read.txt', 'w').close()
  killed = child(plan, kill_at)
  if killed:
    assert not os.path.exists(plan.folder), kill_at
    names = os.listdir(plan.work) if os.path.exists(plan.work) else []
    whole = [n for n in names if n.endswith('.json')]
    done = sum(n.startswith('tmp-part') for n in whole)
    written = sum(n.startswith('tmp-shard') for n in whole)
    manifest = 'manifest.json' in names
    for name in ('read', 'written'):
      open(folder + f'/{name}.txt', 'w').close()
    assert not child(plan, 0)
    again = [len(open(folder + f'/{name}.txt').readlines()) for name in ('read', 'written')]
    assert again == ([0, 0] if manifest else [parts - done, all_shards - written]), (kill_at, again)
    between_shards += 0 < written < all_shards
    moments += 1
  assert test_build.digests(plan.folder) == expected, kill_at
  kill_at += 7
assert between_shards >= 3
print('moments', moments)
'''


@pytest.mark.slow
def test_killed_at_any_moment_a_build_leaves_no_cache_and_the_next_goes_on_to_the_same_bytes(
  tmp_path, tiny_tokenizers
):
  done = subprocess.run(
    [sys.executable, '-c', DRIVER, str(tmp_path), tiny_tokenizers['byte_level']],
    cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
    timeout=500, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  assert int(done.stdout.split()[-1]) > 10
