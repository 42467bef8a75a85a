import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import sys
import types
from fractions import Fraction

import numpy as np
import pytest

from jaxlink import cache
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.resolve import DataError, Source
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.table import LinkTable
from jaxlink.optimizer import OptimizerConfig
from jaxlink.stage import Stage
from tests.data.conftest import SAMPLE, sample_text

pytestmark = pytest.mark.usefixtures('forget_tasks')

TASKS = """
from jaxlink.data.register import register_corpus, register_language
import tensorflow as tf

def clean(dataset):
  return dataset.map(lambda e: {'text': tf.strings.lower(e['text'])})

register_corpus('res_en', {'train': 'en.txt', 'validation': 'en.txt'}, language='en',
                tokenizer='t.json', preprocessors=[clean])
register_language('res_tr', {'train': 'tr.txt'}, language='tr', tokenizer='t.json',
                  auxiliary='res_en', lexicon='en-tr.tsv', share='1/3')
"""


@pytest.fixture
def request_(tmp_path, tiny_tokenizers, monkeypatch):
  """A request for a small mixture, in a folder with its files."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  (tmp_path / 'res_tasks.py').write_text(TASKS)
  (tmp_path / 'en.txt').write_text(sample_text('en')[:2000])
  (tmp_path / 'tr.txt').write_text(sample_text('tr')[:2000])
  shutil.copy(tiny_tokenizers['byte_level'], 't.json')
  shutil.copy(SAMPLE / 'en-tr.tsv', 'en-tr.tsv')
  stage = {'mixture': 'res_en_res_tr', 'rates_needed': True, 'link': {}, 'link_route': 'load'}
  return {
    'modules': ['res_tasks'], 'stages': [stage], 'seed_link': 0,
    'evaluation_split': 'validation', 'shards': 2, 'block': 128,
  }  # fmt: skip


@pytest.fixture(autouse=True)
def child(request, monkeypatch):
  """Runs the child's command in this process, as fresh as can be; returns the list of its calls."""
  import linecache

  import seqio

  from jaxlink.data import registry

  calls = []
  path = list(sys.path)

  def run(command, *, input, text, env, check):
    assert command[1:3] == ['-m', 'jaxlink.cache']
    assert env['CUDA_VISIBLE_DEVICES'] == ''
    calls.append(command)
    sys.modules.pop('res_tasks', None)
    importlib.invalidate_caches()
    linecache.clearcache()
    for table in (seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY):
      for name in [n for n in table if n.startswith('res_')]:
        del table[name]
    registry.RATES.clear()
    assert command[-2:] == ['--parent', str(os.getpid())]  # which is not this process's parent
    monkeypatch.setattr(sys, 'argv', command[2:-2])
    monkeypatch.setattr(sys, 'stdin', io.StringIO(input))
    try:
      cache.main()
    except SystemExit as end:
      return types.SimpleNamespace(returncode=1 if end.code else 0)
    return types.SimpleNamespace(returncode=0)

  monkeypatch.setattr(resolve.subprocess, 'run', run)
  yield calls
  sys.modules.pop('res_tasks', None)
  sys.path[:] = path


def test_a_request_is_answered_once_and_then_read(request_, child, capfd):
  first = resolve.resolve(request_, 'cache', processes=1)
  assert 'first time for this recipe' in capfd.readouterr().out
  (stage,) = first.stages
  assert {s.task: (s.language, Fraction(s.rate)) for s in stage} == {
    'res_en': ('en', Fraction(2, 3)), 'res_tr': ('tr', Fraction(1, 3)),
  }  # fmt: skip
  assert [(s.task, s.language) for s in first.evaluations] == [('res_en', 'en')]
  for source in (*stage, *first.evaluations):
    assert isinstance(source, Source)
    assert Blocks(source.folder).name == source.task
  assert first.tokenizer['bos'] == 2
  assert os.path.isfile(first.tokenizer['path'])
  assert first.tokenizer['sha256'] == Blocks(stage[0].folder).manifest['tokenizer']['sha256']

  assert resolve.resolve(request_, 'cache') == first
  assert len(child) == 1
  assert resolve.stale(request_, 'cache') is None


def linked_(request_, route='load', **policy):
  """The request with LINK on its English text."""
  policy = {'lexicon': 'res_tr', 'language': 'tr', **policy}
  stage = {**request_['stages'][0], 'link': {'res_en': policy}, 'link_route': route}
  return {**request_, 'stages': [stage]}


def test_rates_are_the_mixtures_where_they_are_needed_and_link_may_be_part_of_the_cache(request_):
  plain = resolve.resolve(request_, 'cache', processes=1)
  asked = linked_(request_, 'cache', doc_fraction=1.0)
  asked['stages'][0]['rates_needed'] = False
  linked = resolve.resolve(asked, 'cache', processes=1)
  rates = [{s.task: s.rate for s in r.stages[0]} for r in (plain, linked)]
  assert rates == [{'res_en': '2/3', 'res_tr': '1/3'}, {'res_en': '', 'res_tr': ''}]
  folders = [{s.task: s.folder for s in r.stages[0]} for r in (plain, linked)]
  assert folders[0]['res_tr'] == folders[1]['res_tr']
  assert folders[0]['res_en'] != folders[1]['res_en']
  assert Blocks(folders[1]['res_en']).manifest['dose']['replaced'] > 0
  assert linked.evaluations == plain.evaluations
  assert {(s.link, len(s.counts)) for s in linked.stages[0]} == {('', 0)}


def test_at_load_time_link_is_a_table_beside_the_same_cache(request_, child):
  plain = resolve.resolve(request_, 'cache', processes=1)
  linked = resolve.resolve(linked_(request_), 'cache', processes=1)
  sources = [{s.task: s for s in r.stages[0]} for r in (plain, linked)]
  assert [sources[0][t].folder for t in sources[0]] == [sources[1][t].folder for t in sources[0]]
  assert {s.link for s in plain.stages[0]} == {sources[1]['res_tr'].link} == {''}
  assert os.path.dirname(sources[1]['res_en'].link) == 'cache/link'
  table = LinkTable.open(sources[1]['res_en'].link)
  assert table.languages == ('tr',)
  assert len(table.hash_E) > 1000
  assert sources[1]['res_en'].counts == {}
  assert resolve.resolve(linked_(request_), 'cache') == linked
  assert len(child) == 2

  shutil.rmtree(table.folder)
  gone = os.path.relpath(table.folder, 'cache')
  assert resolve.stale(linked_(request_), 'cache') == f'the link table {gone} is gone'
  assert resolve.resolve(linked_(request_), 'cache', processes=1) == linked
  assert LinkTable.open(table.folder).meta == table.meta


@pytest.mark.parametrize('route', ['load', 'cache'])
def test_several_languages_and_lexicons_survive_the_way_to_the_child(request_, tmp_path, route):
  (tmp_path / 'en-de.tsv').write_text('the\tder\nand\tund\n')
  (tmp_path / 'more.tsv').write_text('and\tsowie\nof\tvon\n')
  policy = LinkPolicy(lexicon={'de': ('en-de.tsv', 'more.tsv'), 'tr': 'res_tr'})
  stage = Stage(
    mixture='res_en_res_tr', tokens=1, batch=1, sequence_length=1, optimizer=OptimizerConfig(),
    link={'res_en': policy}, link_route=route,
  )  # fmt: skip
  run = types.SimpleNamespace(
    modules=('res_tasks',), stages=(stage,), seed_link=3,
    evaluation=types.SimpleNamespace(split='validation'),
    data=types.SimpleNamespace(shards=2, block=128),
  )  # fmt: skip
  resolution = resolve.resolve(resolve.make_request(run), 'cache', processes=1)
  source = next(s for s in resolution.stages[0] if s.task == 'res_en')
  if route == 'load':
    lexicons = LinkTable.open(source.link).meta['lexicons']
  else:
    lexicons = Blocks(source.folder).manifest['dose']['lexicons']
  assert list(lexicons) == ['de', 'tr']
  assert lexicons['de']['entries'] == 3
  assert lexicons['de']['counts']['shadowed_pairs'] == 1


@pytest.mark.parametrize('route', ['load', 'cache'])
def test_the_order_of_languages_is_kept_since_draws_pick_by_it(request_, tmp_path, route):
  (tmp_path / 'en-de.tsv').write_text('the\tder\nand\tund\n')
  found = []
  for languages in (['de', 'tr'], ['tr', 'de']):
    lexicon = {language: {'de': 'en-de.tsv', 'tr': 'res_tr'}[language] for language in languages}
    asked = linked_(request_, route, lexicon=lexicon, language='')
    (stage,) = resolve.resolve(asked, 'cache', processes=1).stages
    source = next(s for s in stage if s.task == 'res_en')
    if route == 'load':
      assert list(LinkTable.open(source.link).languages) == languages
    else:
      assert list(Blocks(source.folder).manifest['dose']['lexicons']) == languages
    found.append((source.folder, source.link))
  assert found[0] != found[1]


def test_a_share_of_all_words_comes_with_the_counts_of_the_source(request_):
  asked = linked_(request_, ratio_of='all', word_ratio=0.1)
  resolution = resolve.resolve(asked, 'cache', processes=1)
  source = next(s for s in resolution.stages[0] if s.task == 'res_en')
  assert source.counts['words'] == Blocks(source.folder).manifest['words']
  assert 0 < source.counts['eligible'] < source.counts['words']
  assert source.counts['eligible'] == source.counts['covered'] <= source.counts['covered_any']


@pytest.mark.parametrize('file', ['en.txt', 'tr.txt', 't.json', 'res_tasks.py'])
def test_a_changed_file_makes_the_answer_stale_and_is_named(request_, child, file, tmp_path):
  first = resolve.resolve(request_, 'cache', processes=1)
  path = tmp_path / file
  path.write_text(path.read_text() + '\n')
  assert resolve.stale(request_, 'cache') == f'{path} has changed'
  second = resolve.resolve(request_, 'cache', processes=1)
  assert len(child) == 2
  assert (second == first) == (file == 'res_tasks.py')  # a blank line in code changes nothing
  assert resolve.stale(request_, 'cache') is None


@pytest.mark.parametrize('route', ['load', 'cache'])
@pytest.mark.parametrize('file', ['en-tr.tsv', 'stop.txt', 'domain.txt'])
def test_a_changed_lexicon_or_list_makes_the_answer_stale_and_another_table_or_cache(
  request_, tmp_path, route, file
):
  for name in ('stop.txt', 'domain.txt'):
    (tmp_path / name).write_text('the\nof\nyear\n')
  asked = linked_(request_, route, regime='domain', stop_words='stop.txt', word_list='domain.txt')

  def english():
    (stage,) = resolve.resolve(asked, 'cache', processes=1).stages
    return next(s for s in stage if s.task == 'res_en')

  first = english()
  assert resolve.stale(asked, 'cache') is None
  with open(file, 'a') as opened:
    opened.write('quux\tkuuks\n' if file == 'en-tr.tsv' else 'quux\n')
  assert resolve.stale(asked, 'cache') == f'{tmp_path}/{file} has changed'
  second = english()
  assert (second.link != first.link) == (route == 'load')
  assert (second.folder != first.folder) == (route == 'cache')


def test_an_edited_preprocessor_changes_the_cache_and_what_is_read_from_it(request_, tmp_path):
  def english(resolution):
    blocks = Blocks(next(s.folder for s in resolution.stages[0] if s.task == 'res_en'))
    return blocks.fingerprint, blocks.read(0, 64)[0]

  fingerprint, tokens = english(resolve.resolve(request_, 'cache', processes=1))
  module = tmp_path / 'res_tasks.py'
  module.write_text(TASKS.replace('# ', '').replace('tf.strings.lower', 'tf.strings.upper'))
  new_fingerprint, new_tokens = english(resolve.resolve(request_, 'cache', processes=1))
  assert new_fingerprint != fingerprint
  assert not np.array_equal(new_tokens, tokens)


@pytest.mark.parametrize('package', ['seqio', 'tensorflow-text', 'numpy'])
def test_another_library_version_makes_the_answer_stale_and_is_named(
  request_, monkeypatch, package
):
  resolve.resolve(request_, 'cache', processes=1)
  real = importlib.metadata.version
  monkeypatch.setattr(importlib.metadata, 'version', lambda n: '0' if n == package else real(n))
  assert resolve.stale(request_, 'cache') == (
    f'{package} has another version, 0, not {real(package)}'
  )


def test_a_new_file_that_a_glob_matches_makes_the_answer_stale(request_, child, tmp_path):
  module = tmp_path / 'res_tasks.py'
  module.write_text(TASKS.replace("{'train': 'tr.txt'}", "{'train': 'tr*.txt'}"))
  first = resolve.resolve(request_, 'cache', processes=1)
  assert resolve.stale(request_, 'cache') is None
  (tmp_path / 'tr2.txt').write_text(sample_text('tr')[2000:4000])
  assert resolve.stale(request_, 'cache') == f'{tmp_path}/tr*.txt names other files'
  second = resolve.resolve(request_, 'cache', processes=1)
  tokens = [{s.task: Blocks(s.folder).tokens for s in r.stages[0]} for r in (first, second)]
  assert tokens[1]['res_tr'] > 1.5 * tokens[0]['res_tr']
  assert resolve.stale(request_, 'cache') is None


@pytest.mark.parametrize('same', [False, True], ids=['other text', 'same text'])
def test_two_projects_with_one_cache_folder_and_the_same_module_names_get_their_own_data(
  request_, child, tmp_path, monkeypatch, same
):
  shared = str(tmp_path / 'cache')
  first = resolve.resolve(request_, shared, processes=1)
  other = tmp_path / 'other'
  other.mkdir()
  for name in ('res_tasks.py', 'en.txt', 'tr.txt', 't.json', 'en-tr.tsv'):
    shutil.copy(tmp_path / name, other)
  if not same:
    (other / 'tr.txt').write_text(sample_text('tr')[3000:5000])
  monkeypatch.chdir(other)
  sys.modules.pop('res_tasks', None)
  assert resolve.stale(request_, shared) == 'module res_tasks is not the file that was prepared'
  assert 'res_tasks' not in sys.modules
  second = resolve.resolve(request_, shared, processes=1)
  assert (second == first) == same  # caches are found by what is in them


def test_relative_paths_tie_an_answer_to_the_working_directory(request_, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  resolve.resolve(request_, str(tmp_path / 'cache'), processes=1)
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  assert resolve.stale(request_, str(tmp_path / 'cache')) == f'paths were relative to {tmp_path}'


@pytest.mark.parametrize('name', ['JAXLINK_DATA', 'TFDS_DATA_DIR'])
def test_another_data_folder_in_the_environment_makes_the_answer_stale(request_, monkeypatch, name):
  monkeypatch.delenv(name, raising=False)
  resolve.resolve(request_, 'cache', processes=1)
  monkeypatch.setenv(name, '/other')
  assert resolve.stale(request_, 'cache') == f"${name} is '/other', not None"


def test_the_file_of_a_module_is_found_without_importing_it(tmp_path, monkeypatch):
  package = tmp_path / 'res_package'
  (package / 'deep').mkdir(parents=True)
  (package / '__init__.py').write_text('raise RuntimeError')
  (package / 'deep/tasks.py').write_text('raise RuntimeError')
  monkeypatch.chdir(tmp_path)
  assert resolve.origin('res_package.deep.tasks') == str(package / 'deep/tasks.py')
  assert resolve.origin('res_package') == str(package / '__init__.py')
  assert resolve.origin('res_package.no.tasks') is resolve.origin('res_nothing') is None


def test_a_torn_answer_or_a_cache_that_is_gone_is_made_again(request_, child):
  first = resolve.resolve(request_, 'cache', processes=1)
  path = resolve.kept_path(request_, 'cache')
  with open(path, 'r+') as file:
    file.truncate(100)
  assert resolve.stale(request_, 'cache') == f'{path} is torn'
  assert resolve.resolve(request_, 'cache', processes=1) == first

  shutil.rmtree(first.stages[0][0].folder)
  assert 'is gone' in resolve.stale(request_, 'cache')
  assert resolve.resolve(request_, 'cache', processes=1) == first
  assert len(child) == 3


def test_a_child_that_fails_is_an_error(request_):
  request_['stages'][0]['mixture'] = 'res_en_res_tt'
  with pytest.raises(DataError, match=r'preparing the data failed \(exit code 1\)'):
    resolve.resolve(request_, 'cache')
  assert resolve.stale(request_, 'cache') == 'first time for this recipe'


def without_seqio(monkeypatch):
  find, version = importlib.util.find_spec, importlib.metadata.version

  def missing(name):
    if name == 'seqio':
      raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name: None if name == 'seqio' else find(name)
  )
  monkeypatch.setattr(importlib.metadata, 'version', missing)


def test_without_seqio_a_copied_cache_is_taken_as_prepared_and_that_is_said(
  request_, child, monkeypatch, capsys
):
  first = resolve.resolve(request_, 'cache', processes=1)
  shutil.move('cache', 'copied')
  without_seqio(monkeypatch)
  copied = resolve.resolve(request_, 'copied')
  assert 'not verified, since SeqIO is not installed here' in capsys.readouterr().out
  assert [s.task for s in copied.stages[0]] == [s.task for s in first.stages[0]]
  assert all(s.folder.startswith('copied/') for s in copied.stages[0])
  assert os.path.isfile(copied.tokenizer['path'])
  assert len(child) == 1


def test_without_seqio_and_without_a_cache_the_error_names_the_command(request_, monkeypatch):
  resolution = resolve.resolve(request_, 'cache', processes=1)
  shutil.rmtree(resolution.stages[0][0].folder)
  without_seqio(monkeypatch)
  with pytest.raises(DataError, match=r'is gone.*Run `python -m jaxlink\.cache`'):
    resolve.resolve(request_, 'cache')
  with pytest.raises(DataError, match=r'first time.*Run `python -m jaxlink\.cache`'):
    resolve.resolve(request_, 'elsewhere')


DRAWN = ('language_by', 'doc_fraction', 'word_ratio', 'senses', 'redraw', 'ratio_of')
COUNTED = ('language_by', 'ratio_of')  # decide what is counted of the source


@pytest.mark.parametrize(
  ('route', 'ratio_of', 'seed', 'free'),
  [
    ('cache', 'covered', 3, ()),
    ('load', 'covered', 0, DRAWN),
    ('load', 'all', 0, [name for name in DRAWN if name not in COUNTED]),
  ],
)
def test_a_request_is_the_part_of_a_run_that_data_depends_on(route, ratio_of, seed, free):
  policy = LinkPolicy(lexicon='res_tr', language='tr', ratio_of=ratio_of)
  stage = Stage(
    mixture='m', tokens=1, batch=1, sequence_length=1, optimizer=OptimizerConfig(),
    rates={'a': '1/3'}, link={'a': policy}, link_route=route,
  )  # fmt: skip
  run = types.SimpleNamespace(
    modules=('res_tasks',), stages=(stage,), seed_link=3,
    evaluation=types.SimpleNamespace(split='test'),
    data=types.SimpleNamespace(shards=5, block=77),
  )  # fmt: skip
  found = resolve.make_request(run)
  assert json.loads(json.dumps(found)) == found
  fields = {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}
  link = {name: value for name, value in fields.items() if name not in free}
  assert found == {
    'modules': ['res_tasks'], 'seed_link': seed, 'evaluation_split': 'test', 'shards': 5,
    'block': 77,
    'stages': [
      {'mixture': 'm', 'rates_needed': False, 'link_route': route, 'link': {'a': link}}
    ],
  }  # fmt: skip
