"""What lm-evaluation-harness asks by the written tasks is what the items are; and its own conventions are ours."""

import importlib.util
import json
import os
import pathlib
import sys

import pytest

from jaxlink.evaluation import registry
from jaxlink.evaluation.items import Choice, EvaluationSet, Label, Question, Text

TOOL = pathlib.Path(__file__).parents[2] / 'tools/harness_tasks.py'
PREMISE = 'Ürün balonlu naylonla paketlenmişti bu yüzden'
NAMES = ('xcopa_tr', 'blimp', 'exams_tr', 'xwinograd_en', 'flores_tr', 'mgsm_sw', 'xquad_tr')


@pytest.fixture(scope='module')
def tool():
  spec = importlib.util.spec_from_file_location('harness_tasks', TOOL)
  module = importlib.util.module_from_spec(spec)
  sys.modules['harness_tasks'] = module
  spec.loader.exec_module(module)
  yield module
  del sys.modules['harness_tasks']


@pytest.fixture
def sets():
  for name in ('xcopa', 'blimp', 'exams', 'xwinograd', 'parallel', 'mgsm', 'xquad'):
    importlib.import_module(f'tasks.{name}')
  return {name: registry.read(name) for name in NAMES}


def make(*items, kind='choice'):
  return EvaluationSet('a', kind, 'tr', items, labels=('a', 'b') if kind == 'label' else ())


def test_lengths_do_not_count_the_delimiter_and_pairs_have_none(tool, tmp_path, sets):
  for name, delimiter, metrics in (
    ('xcopa_tr', ' ', ['acc', 'acc_norm', 'acc_bytes', 'acc_mutual_info']),
    ('blimp', '', ['acc', 'acc_norm', 'acc_bytes']),
    ('xwinograd_en', ' ', ['acc']),
  ):
    task = json.loads(tool.write(sets[name], tmp_path).read_text(encoding='utf-8'))
    assert (task['task'], task['target_delimiter']) == (f'{name}_local', delimiter)
    assert [metric['metric'] for metric in task['metric_list']] == metrics
    assert task['metadata']['version'] == sets[name].identity
    lines = pathlib.Path(task['dataset_kwargs']['data_files']['test']).read_text().splitlines()
    assert [json.loads(line)['id'] for line in lines] == [i.id for i in sets[name].items]


def test_items_that_one_task_cannot_ask_are_an_error(tool, tmp_path):
  one = Choice('0', (PREMISE,), ('kırılgandı.', 'küçüktü.'), 0)
  glued = Choice('1', (PREMISE,), ('kırılgandı.', 'küçüktü.'), 0, delimiter='')
  each = Choice('2', (PREMISE, 'Ürün'), ('kırılgandı.', 'kırılgandı.'), 0)
  both = Choice('3', (PREMISE, 'Ürün'), ('kırılgandı.', 'küçüktü.'), 0)
  for items in ((one, glued), (one, each)):
    with pytest.raises(ValueError, match='its items differ in delimiter, or in whether'):
      tool.write(make(*items), tmp_path)
  with pytest.raises(ValueError, match="item '3': its options differ in context and in text"):
    tool.write(make(both), tmp_path)


@pytest.mark.slow
def test_the_command_writes_what_is_shipped_and_says_what_it_leaves_out(
  tool, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(TOOL.parents[1])
  command = ['harness_tasks.py', 'sib200_*tr', '--modules', 'tasks.sib200']
  out = tmp_path / 'out'
  monkeypatch.setattr(sys, 'argv', [*command, '--out', str(out), '--cache_dir', str(tmp_path)])
  tool.main()
  told = capsys.readouterr()
  assert told.out == f'{out}/sib200_tr_local.yaml\n'
  assert 'sib200_probe_tr: of text and class, which the harness has no task for' in told.err
  monkeypatch.setattr(sys, 'argv', ['harness_tasks.py', 'sib20', *sys.argv[2:]])
  with pytest.raises(SystemExit, match=r"error: no evaluation set 'sib20' is registered"):
    tool.main()


@pytest.fixture
def manager(monkeypatch, tmp_path):
  """The harness's tasks in a folder."""
  monkeypatch.setenv('HF_DATASETS_OFFLINE', '1')
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path / 'datasets'))
  lm_eval = pytest.importorskip('lm_eval.tasks')
  return lambda folder: lm_eval.TaskManager(include_path=str(folder), include_defaults=False)


def load(manager, name):
  found = manager.load(name) if hasattr(manager, 'load') else manager.load_task_or_group(name)
  task = found.get('tasks', found)[name]
  task.build_all_requests(limit=None, rank=0, world_size=1)
  asked = {}
  for instance in task.instances:
    asked.setdefault(instance.doc_id, []).append(instance.args)
  return task, [asked[k] for k in range(len(asked))]


def test_the_harness_asks_what_the_items_ask(tool, tmp_path, manager, sets):
  for found in sets.values():
    tool.write(found, tmp_path / 'tasks')
  tasks = manager(tmp_path / 'tasks')
  for name, found in sets.items():
    task, asked = load(tasks, f'{name}_local')
    if found.kind == 'choice':
      assert [
        [tuple(args) for args in each[: len(item.choices)]]
        for each, item in zip(asked, found.items, strict=True)
      ] == [item.requests for item in found.items]
      docs = list(task.test_docs())
      gold = task.doc_to_text if task.multiple_input else task.doc_to_target
      assert [gold(doc) for doc in docs] == [item.label for item in found.items]
    elif found.kind == 'text':
      assert [each[0][0] for each in asked] == [item.text for item in found.items]
      assert [task.doc_to_target(doc) for doc in task.test_docs()] == [i.text for i in found.items]
    else:
      assert [each[0][0] for each in asked] == [item.prompt for item in found.items]
      settings = asked[0][0][1]
      assert (settings['until'], settings['max_gen_toks']) == (list(found.stop), found.tokens)


def test_the_harness_compares_written_answers_as_is_said(tool, tmp_path, manager):
  given = EvaluationSet(
    'numbers', 'question', 'sw', (Question('0', 'Ngapi?', ('2125',)),), answer='number'
  )
  words = EvaluationSet(
    'words', 'question', 'en', (Question('0', 'Who?', ('Josh Norman', 'Norman')),)
  )
  for found in (given, words):
    tool.write(found, tmp_path / 'tasks')
  tasks = manager(tmp_path / 'tasks')
  for name, answer, right in (
    ('numbers', ' 3 + 4 ... ni 2,125.', 1.0),
    ('numbers', ' 2126', 0.0),
    ('words', ' norman.', 1.0),
    ('words', ' Josh Norman', 1.0),
    ('words', ' Kawann', 0.0),
  ):
    task, _ = load(tasks, f'{name}_local')
    for instance in task.instances:
      instance.resps.append(answer)
    task.apply_filters()
    (instance,) = task.instances
    scored = task.process_results(instance.doc, [instance.filtered_resps['answer']])
    assert float(scored['exact_match']) == right, (name, answer)


def test_items_are_verbalised_as_the_harness_does_it(sets):
  pytest.importorskip('lm_eval.tasks')
  from lm_eval.tasks.xcopa import utils as xcopa

  from jaxlink.evaluation import reading
  from tasks import xcopa as ours

  assert set(ours.CONNECTORS) == {
    name.removeprefix('doc_to_text_') for name in vars(xcopa) if name.startswith('doc_to_text_')
  }
  for code, words in ours.CONNECTORS.items():
    connector = getattr(xcopa, f'doc_to_text_{code}').keywords['connector']
    assert (connector['cause'], connector['effect']) == words
  path = reading.find(ours.DATA, 'xcopa/tr/test.tr.jsonl', '')
  docs = [json.loads(line) for line in reading.lines(path)]
  for item, doc in zip(sets['xcopa_tr'].items, docs, strict=True):
    assert item.contexts == (xcopa.doc_to_text_tr(doc),)
    assert list(item.choices) == xcopa.doc_to_choice(doc)


def test_prompts_of_questions_are_the_harness_s():
  lm_eval = pytest.importorskip('lm_eval.tasks')
  import yaml

  from tasks import mgsm, xquad

  folder = pathlib.Path(os.path.dirname(lm_eval.__file__))
  for code, (context, question, answer) in xquad.WORDS.items():
    theirs = yaml.safe_load((folder / f'xquad/xquad_{code}.yaml').read_text())['doc_to_text']
    ours = f'{context}: {{{{context}}}}\n\n{question}: {{{{question}}}}\n\n{answer}:'
    assert ours == theirs
  for code, prompt in mgsm.PROMPTS.items():
    path = folder / f'mgsm/direct/mgsm_direct_{code}.yaml'
    theirs = yaml.safe_load(path.read_text())['doc_to_text']
    before, after = prompt.split('{}')
    assert f'{{{{"{before}"+question+"{after}"}}}}'.replace('\n', '\\n') in theirs


def test_a_probe_has_no_task_and_a_text_is_rolled(tool, tmp_path):
  path = tool.write(make(Text('0', 'Galler Meclisi'), kind='text'), tmp_path)
  assert json.loads(path.read_text())['output_type'] == 'loglikelihood_rolling'
  with pytest.raises(KeyError):
    tool.write(make(Label('0', 'Koşu', 1), kind='label'), tmp_path)
