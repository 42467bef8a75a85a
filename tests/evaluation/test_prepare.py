import importlib
import importlib.util
import json
import linecache
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from jaxlink.data.resolve import DataError
from jaxlink.evaluation import items, prepare, preparing

pytestmark = pytest.mark.usefixtures('forget_sets')

TASKS = """
import functools
from pathlib import Path
from jaxlink.evaluation import reading
from jaxlink.evaluation.reading import json_lines
from jaxlink.evaluation.register import register_evaluation

HERE = Path(__file__).parent

def read(language):
  for line in reading.lines(reading.find(reading.folder(HERE), f'{language}.txt', 'github.com/a/b')):
    yield {'text': line}

register_evaluation('prep_choice', json_lines(HERE / 'choice.jsonl'), kind='choice', language='tr')
for code in ('tr', 'vi', 'sw'):
  register_evaluation(f'prep_text_{code}', functools.partial(read, code), kind='text', language=code)
"""
LINES = [
  {'context': 'Yolcular sınıra ulaştı', 'choices': ['ajan baktı.', 'ajan kaçtı.'], 'label': 1},
  {'context': 'Su aktı', 'choices': ['bardak doldu.', 'bardak boşaldı.'], 'label': 0},
]
MODULES = ['prep_tasks']


@pytest.fixture
def project(tmp_path, monkeypatch):
  """A folder with a module that registers sets, and their files but one."""
  (tmp_path / 'prep_tasks.py').write_text(TASKS)
  write_lines(tmp_path, LINES)
  (tmp_path / 'tr.txt').write_text('Galler Meclisi\nUnvanları değişecek\n')
  (tmp_path / 'vi.txt').write_text('Nghị viện xứ Wales\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  monkeypatch.delenv('JAXLINK_EVALUATION', raising=False)
  return tmp_path


def write_lines(folder, lines):
  (folder / 'choice.jsonl').write_text('\n'.join(map(json.dumps, lines)))


@pytest.fixture(autouse=True)
def child(monkeypatch):
  """Runs the child in this process, as fresh as can be; returns the list of what it was asked."""
  import seqio

  from jaxlink.evaluation import registry

  calls, path = [], list(sys.path)

  def run(command, *, input, env, text, capture_output, check):
    assert command[1:] == ['-m', 'jaxlink.evaluation.preparing', str(os.getpid())]
    assert env['CUDA_VISIBLE_DEVICES'] == ''
    calls.append(json.loads(input)['names'])
    sys.modules.pop('prep_tasks', None)
    importlib.invalidate_caches()
    linecache.clearcache()
    for table in (seqio.TaskRegistry._REGISTRY, registry.SETS):
      table.clear()
    try:
      kept = preparing.prepare_sets(**json.loads(input))
    except (ValueError, OSError) as error:
      return types.SimpleNamespace(returncode=1, stdout='', stderr=f'noise\nerror: {error}\n')
    return types.SimpleNamespace(returncode=0, stdout=f'noise\n{json.dumps(kept)}\n', stderr='')

  monkeypatch.setattr(prepare.subprocess, 'run', run)
  yield calls
  sys.modules.pop('prep_tasks', None)
  sys.path[:] = path


def test_a_set_is_written_once_and_then_read(project, child, capsys):
  first = prepare.prepared(['prep_choice'], MODULES, 'cache')
  assert 'preparing prep_choice (first time for these modules)' in capsys.readouterr().err
  found = items.read(first['prep_choice'])
  assert first == {'prep_choice': f'cache/evaluation/prep_choice-{found.identity}'}
  assert [(i.choices[i.label], i.id) for i in found.items] == [
    ('ajan kaçtı.', '1'), ('bardak doldu.', '2')
  ]  # fmt: skip
  assert (found.kind, found.language) == ('choice', 'tr')
  assert prepare.prepared(['prep_choice'], MODULES, 'cache') == first
  assert len(child) == 1
  assert prepare.prepared([], MODULES, 'cache') == {}


def test_other_sets_of_the_same_modules_are_added(project, child):
  first = prepare.prepared(['prep_choice'], MODULES, 'cache')
  assert prepare.stale(['prep_text_tr'], MODULES, 'cache') == 'first time for prep_text_tr'
  second = prepare.prepared(['prep_text_tr', 'prep_text_vi'], MODULES, 'cache')
  assert list(second) == ['prep_text_tr', 'prep_text_vi']
  names = ['prep_text_vi', 'prep_choice', 'prep_text_tr']
  assert prepare.stale(names, MODULES, 'cache') is None
  both = prepare.prepared(names, MODULES, 'cache')
  assert (both, list(both)) == ({**first, **second}, names)
  assert len(child) == 2


def test_a_pattern_names_the_sets_whose_files_are_there(project, child, capsys):
  found = prepare.prepared(['prep_text_*'], MODULES, 'cache')
  assert list(found) == ['prep_text_tr', 'prep_text_vi']
  assert 'without prep_text_sw, whose files are not there' in capsys.readouterr().err
  assert prepare.prepared(['prep_text_*'], MODULES, 'cache') == found
  assert len(child) == 1
  (project / 'sw.txt').write_text('Bunge la Wales\n')
  assert list(prepare.prepared(['prep_*'], MODULES, 'cache')) == [
    'prep_choice', 'prep_text_sw', 'prep_text_tr', 'prep_text_vi'
  ]  # fmt: skip


def test_a_missing_file_of_a_named_set_is_an_error_that_says_where_it_is_published(project):
  message = r"No file 'sw.txt' in .*github.com/a/b; \$JAXLINK_EVALUATION names the folder"
  with pytest.raises(DataError, match=message):
    prepare.prepared(['prep_text_sw'], MODULES, 'cache')
  prepare.prepared(['prep_text_*'], MODULES, 'cache')
  with pytest.raises(DataError, match=message):
    prepare.prepared(['prep_text_sw'], MODULES, 'cache')
  with pytest.raises(DataError, match=message):
    prepare.prepared(['prep_text_s*'], MODULES, 'cache')


@pytest.mark.parametrize('file', ['choice.jsonl', 'prep_tasks.py'])
def test_a_changed_file_makes_a_set_stale_and_is_named(project, child, file):
  names = ['prep_choice', 'prep_text_tr']
  first = prepare.prepared(names, MODULES, 'cache')
  if file == 'choice.jsonl':
    write_lines(project, LINES[::-1])
  else:
    source = (project / file).read_text()
    (project / file).write_text(source.replace("kind='choice'", "kind='choice', version=2"))
  assert prepare.stale(names, MODULES, 'cache') == f'{project / file} has changed'
  # What is not of the file is as it was; a module may change all.
  only = prepare.stale(['prep_text_tr'], MODULES, 'cache')
  assert only == (None if file == 'choice.jsonl' else f'{project / file} has changed')
  second = prepare.prepared(names, MODULES, 'cache')
  assert second['prep_choice'] != first['prep_choice']
  assert second['prep_text_tr'] == first['prep_text_tr']
  assert len(child) == 2


def test_a_packed_file_beside_the_plain_one_is_noticed_when_that_comes(project):
  shutil.move('vi.txt', 'plain.txt')
  import gzip

  (project / 'vi.txt.gz').write_bytes(gzip.compress('Quốc hội\n'.encode()))
  first = prepare.prepared(['prep_text_vi'], MODULES, 'cache')
  shutil.move('plain.txt', 'vi.txt')
  assert prepare.stale(['prep_text_vi'], MODULES, 'cache') == f'{project}/vi.txt names other files'
  assert prepare.prepared(['prep_text_vi'], MODULES, 'cache') != first


def test_another_folder_of_data_makes_a_set_stale(project, monkeypatch):
  prepare.prepared(['prep_text_tr'], MODULES, 'cache')
  other = project / 'other'
  other.mkdir()
  (other / 'tr.txt').write_text('Başka bir metin\n')
  monkeypatch.setenv('JAXLINK_EVALUATION', str(other))
  reason = prepare.stale(['prep_text_tr'], MODULES, 'cache')
  assert reason == f'$JAXLINK_EVALUATION is {str(other)!r}, not None'
  folder = prepare.prepared(['prep_text_tr'], MODULES, 'cache')['prep_text_tr']
  assert items.read(folder).items[0].text == 'Başka bir metin'


def test_a_module_of_the_same_name_in_another_project_is_another(project, monkeypatch):
  prepare.prepared(['prep_text_tr'], MODULES, str(project / 'cache'))
  other = project / 'other'
  other.mkdir()
  shutil.copy('prep_tasks.py', other)
  monkeypatch.chdir(other)
  reason = prepare.stale(['prep_text_tr'], MODULES, str(project / 'cache'))
  assert reason == 'module prep_tasks is not the file that was read'


def test_a_folder_that_is_gone_is_written_again(project, child):
  first = prepare.prepared(['prep_choice'], MODULES, 'cache')
  shutil.rmtree(first['prep_choice'])
  assert prepare.stale(['prep_choice'], MODULES, 'cache').endswith('is gone')
  assert prepare.prepared(['prep_choice'], MODULES, 'cache') == first
  assert items.read(first['prep_choice'])
  prepare.kept_path(MODULES, 'cache').write_text('{"torn')
  assert prepare.prepared(['prep_choice'], MODULES, 'cache') == first
  assert not [p for p in Path('cache/evaluation').rglob('*') if 'partial' in p.name]


def test_an_unknown_name_is_an_error_with_the_nearest_and_its_module(project, child):
  message = (
    r"no evaluation set 'prep_choise' is registered. Nearest: 'prep_choice' \(prep_tasks\). "
    'Registered by prep_tasks: prep_choice, prep_text_sw, prep_text_tr, prep_text_vi'
  )
  with pytest.raises(DataError, match=message):
    prepare.prepared(['prep_choise'], MODULES, 'cache')
  prepare.prepared(['prep_choice'], MODULES, 'cache')
  with pytest.raises(DataError, match=message):
    prepare.prepared(['prep_choise'], MODULES, 'cache')
  assert len(child) == 2  # the second error needs none
  with pytest.raises(DataError, match=r"no evaluation set 'zz_\*' is registered. Registered by"):
    prepare.prepared(['zz_*'], MODULES, 'cache')


def test_sets_are_listed_without_reading_their_files(project, child, monkeypatch):
  (project / 'choice.jsonl').unlink()
  rows = prepare.listed(MODULES, 'cache')
  assert rows[0] == ('prep_choice', 'choice', 'tr', '')
  assert [row[0] for row in rows[1:]] == ['prep_text_sw', 'prep_text_tr', 'prep_text_vi']
  assert prepare.listed(MODULES, 'cache') == rows
  assert child == [[]]
  without_seqio(monkeypatch)
  assert prepare.listed(MODULES, 'cache') == rows
  with pytest.raises(DataError, match='what they register is not known'):
    prepare.listed(['elsewhere'], 'cache')


def test_modules_that_register_sets_are_found_by_their_text(project):
  with pytest.raises(ValueError, match='no module in tasks/ registers an evaluation set'):
    prepare.modules_here()
  (project / 'tasks').mkdir()
  shutil.copy('prep_tasks.py', 'tasks/mine.py')
  (project / 'tasks/corpus.py').write_text('raise RuntimeError')
  assert prepare.modules_here() == ['tasks.mine']


def test_a_broken_item_or_module_is_an_error(project):
  write_lines(project, [{**LINES[0], 'choices': ['ajan baktı.', '']}])
  with pytest.raises(DataError, match="prep_choice, item '1': choice 1 is '': an empty option"):
    prepare.prepared(['prep_choice'], MODULES, 'cache')
  with pytest.raises(DataError, match="no module 'prep_task'"):
    prepare.prepared(['prep_choice'], ['prep_task'], 'cache')


def test_a_child_that_dies_is_an_error_with_what_it_said(project, monkeypatch):
  died = types.SimpleNamespace(returncode=-9, stdout='', stderr='out of memory')
  monkeypatch.setattr(prepare.subprocess, 'run', lambda *a, **k: died)
  with pytest.raises(DataError, match=r'failed \(exit code -9\):\nout of memory'):
    prepare.prepared(['prep_choice'], MODULES, 'cache')


def without_seqio(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec', lambda n: None if n == 'seqio' else find(n))


def test_without_seqio_prepared_folders_are_taken_as_they_are_and_that_is_said(
  project, child, monkeypatch, capsys
):
  first = prepare.prepared(['prep_choice', 'prep_text_tr'], MODULES, 'cache')
  shutil.move('cache', 'copied')
  os.remove('prep_tasks.py')
  without_seqio(monkeypatch)
  for modules in (MODULES, ['elsewhere']):
    copied = prepare.prepared(['prep_text_*', 'prep_choice'], modules, 'copied')
    assert list(copied) == ['prep_text_tr', 'prep_choice']
    assert copied['prep_choice'] == first['prep_choice'].replace('cache', 'copied')
    assert 'not verified, since SeqIO is not installed' in capsys.readouterr().err
  assert len(child) == 1
  with pytest.raises(
    DataError, match=r'prep_text_vi.*is not installed here: prepare it where it is'
  ):
    prepare.prepared(['prep_text_vi'], ['elsewhere'], 'copied')


def test_without_seqio_two_folders_of_one_set_are_told_apart_by_what_was_kept(project, monkeypatch):
  prepare.prepared(['prep_choice'], MODULES, 'cache')
  write_lines(project, LINES[:1])
  second = prepare.prepared(['prep_choice'], MODULES, 'cache')
  os.remove('prep_tasks.py')
  without_seqio(monkeypatch)
  assert prepare.prepared(['prep_choice'], MODULES, 'cache') == second
  with pytest.raises(DataError, match='two folders of one set'):
    prepare.prepared(['prep_choice'], ['elsewhere'], 'cache')


def test_a_reader_of_a_listed_folder_is_asked_again_when_a_file_is_added(project):
  (project / 'many').mkdir()
  (project / 'many/a.txt').write_text('bir')
  source = TASKS.replace(
    "reading.lines(reading.find(reading.folder(HERE), f'{language}.txt', 'github.com/a/b'))",
    "[p.read_text() for p in sorted((HERE / 'many').iterdir())]",
  )
  (project / 'prep_tasks.py').write_text(source)
  first = prepare.prepared(['prep_text_tr'], MODULES, 'cache')
  (project / 'many/b.txt').write_text('iki')
  reason = prepare.stale(['prep_text_tr'], MODULES, 'cache')
  assert reason == f'{project}/many/* names other files'
  assert prepare.prepared(['prep_text_tr'], MODULES, 'cache') != first


@pytest.mark.slow
def test_the_real_child_writes_sets_and_this_process_needs_no_tensorflow(project):
  code = (
    'import sys; from jaxlink.evaluation import prepare; '
    "found = prepare.prepared(['prep_choice'], ['prep_tasks'], 'cache'); "
    "assert not {'tensorflow', 'seqio', 'jax'} & set(sys.modules); print(found)"
  )
  command = [sys.executable, '-c', code]
  told = subprocess_run(command, capture_output=True, text=True, check=True, timeout=300).stdout
  assert 'prep_choice-1-' in told
  assert items.read(next(Path('cache/evaluation').glob('prep_choice-*'))).items


subprocess_run = subprocess.run  # the child's is replaced
