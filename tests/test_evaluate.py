"""Sets are scored in the loop and by the command alike; what was measured is not measured again."""

import argparse
import gzip
import json
import shutil

import pytest

from jaxlink import evaluate, run_model, stage_data
from jaxlink.data import sources
from jaxlink.evaluation import items, prepare, records
from jaxlink.link import words
from tests import tiny_project
from tests.evaluation.models import turkish

MODULE = """
import functools, json
from pathlib import Path
from jaxlink.evaluation.register import register_evaluation
def read(kind):
  for line in open(Path(__file__).parent / f'{kind}.jsonl', encoding='utf-8'):
    yield json.loads(line)
for kind in ('choice', 'text', 'label', 'question'):
  register_evaluation(f'tiny_{kind}', functools.partial(read, kind), kind=kind, language='tr',
                      labels=('long', 'short') if kind == 'label' else (), tokens=4)
for language in ('tr', 'en', 'de'):
  register_evaluation(f'words_{language}', functools.partial(read, f'words_{language}'), kind='text', language=language)
"""


def _openable(project: tiny_project.Project, language: str) -> list[str]:
  """Training texts, of known words, whose first eight leave a model of 64 tokens room to write."""
  name = {'tr': 'tr.txt', 'en': 'en.jsonl'}[language]
  documents = sources.read_documents(str(project.folder / name))
  texts = [line for document in documents for line in document.text.split('\n')]
  return [text for text in texts if len(text.split()) > 24 and len(text[:50].split()) > 8][:20]


def _items(kind: str) -> list[dict]:
  lines = [line for line in turkish() if 5 < len(line.split()) < 20][:40]
  found = []
  for n, line in enumerate(lines):
    words = line.split()
    begin, end = ' '.join(words[:3]), ' '.join(words[3:5])
    other = ' '.join(lines[n - 1].split()[3:5])
    found.append({
      'choice': {'context': begin, 'choices': [end, other][:: 1 - 2 * (n % 2)], 'label': n % 2,
                 'group': 'ab'[n % 3 == 0]},
      'text': {'text': line},
      'label': {'text': line, 'label': int(len(words) < 12),
                'split': ('train', 'train', 'validation', 'test')[n % 4]},
      'question': {'prompt': begin, 'answers': [end]},
    }[kind] | {'id': str(n)})  # fmt: skip
  return found


@pytest.fixture(scope='module')
def run(trained, tmp_path_factory):
  """A run that judged four sets in its loop, in a project of its own."""
  project, _ = trained
  for kind in ('choice', 'text', 'label', 'question'):
    lines = (json.dumps(item, ensure_ascii=False) + '\n' for item in _items(kind))
    (project.folder / f'{kind}.jsonl').write_text(''.join(lines), encoding='utf-8')
  for language, name in (('tr', 'tr'), ('en', 'en'), ('en', 'de')):
    texts = enumerate(_openable(project, language))
    lines = (json.dumps({'id': str(n), 'text': text}) + '\n' for n, text in texts)
    (project.folder / f'words_{name}.jsonl').write_text(''.join(lines), encoding='utf-8')
  (project.folder / 'tiny_sets.py').write_text(MODULE)
  directory = tmp_path_factory.mktemp('judged') / 'run'
  said = project.train(
    directory, "Run.modules = ['tiny_tasks', 'tiny_sets']", "EvaluationConfig.sets = ('tiny_*',)",
    'EvaluationConfig.set_items = 30', 'CheckpointConfig.keep = 9',
  )  # fmt: skip
  return project, directory, said


def _evaluate(run, capsys, *arguments: str, **changes):
  project, directory, _ = run
  args = {
    'model': [str(directory)], 'sets': ['tiny_choice'], 'adherence': [], 'all_steps': False, 'modules': ['tiny_sets'],
    'limit': 0, 'write': False, 'contamination': False, 'json': False, 'batch_tokens': 0, 'fsdp': 1,
    'tensor': 1, 'tokenizer': '', 'cache_dir': str(project.folder / 'cache'),
  }  # fmt: skip
  found = evaluate.evaluate(argparse.Namespace(**{**args, **changes}))
  return found, capsys.readouterr()


def test_the_loop_judges_every_kind_of_set(run):
  """As EvaluationConfig.sets and EvaluationConfig.set_items of the run ask for."""
  _, directory, said = run
  found = records.read_evaluations(directory)
  assert sorted(found) == [0, 10, 20]
  for record in found.values():
    assert sorted(record['scores']) == ['tiny_choice', 'tiny_label', 'tiny_question', 'tiny_text']
    assert record['scores']['tiny_choice']['items'] == 30
  first, last = (found[step]['scores']['tiny_text']['scores']['bits_per_byte'] for step in (0, 20))
  assert last['high'] < first['low']
  assert 'tiny_choice accuracy 0.' in said
  lines = [json.loads(s) for s in (directory / 'metrics.jsonl').read_text().splitlines()]
  scores = [line['accuracy/tiny_choice'] for line in lines if 'accuracy/tiny_choice' in line]
  assert scores == [
    found[step]['scores']['tiny_choice']['scores']['accuracy']['value'] for step in found
  ]


def test_the_command_gives_the_scores_of_the_loop(run, capsys):
  _, directory, _ = run
  in_loop = records.read_evaluations(directory)
  found, _ = _evaluate(run, capsys, sets=['tiny_choice', 'tiny_text'], limit=30, all_steps=True)
  assert {record['step'] for record in found} == {5, 10, 15, 20}
  for record in found:
    if record['step'] in in_loop:
      same = in_loop[record['step']]['scores'][record['set']]
      assert record['identity'] == same['identity']
      assert record['trained_tokens'] == in_loop[record['step']]['trained_tokens']
      for name, score in record['scores'].items():
        assert score['value'] == pytest.approx(same['scores'][name]['value'], rel=1e-5, abs=1e-5)


def test_a_second_call_measures_nothing(run, capsys, monkeypatch):
  once, _ = _evaluate(run, capsys, sets=['tiny_choice', 'tiny_label'])
  monkeypatch.setattr(run_model, 'load', lambda *_, **__: pytest.fail('the model was loaded'))
  again, out = _evaluate(run, capsys, sets=['tiny_choice', 'tiny_label'])
  assert again == once
  assert 'tiny_label' in out.out
  kept = records.read(run[1])
  assert [r for r in kept if r['set'] == 'tiny_label' and r['items'] == 10]
  with gzip.open(once[0]['items_file'], 'rt', encoding='utf-8') as file:
    assert sum(1 for _ in file) == 1 + once[0]['items']


def test_adherence_is_kept_with_what_was_written(run, capsys, monkeypatch):
  once, _ = _evaluate(run, capsys, sets=[], adherence=['words_tr', 'words_en'])
  assert [record['set'] for record in once] == ['adherence_words_tr', 'adherence_words_en']
  for record in once:
    assert (record['step'], record['trained_tokens']) == (20, 10_240)
    scores = {name: score['value'] for name, score in record['scores'].items()}
    told = [scores[name] for name in ('adherence', 'other_language', 'unknown')]
    assert sum(told) == pytest.approx(1)
    assert record['true']['adherence'] > 0.8  # real text is in its language
    assert scores['adherence'] < 0.5  # and a model of 20 updates writes none
  monkeypatch.setattr(run_model, 'load', lambda *_, **__: pytest.fail('the model was loaded'))
  again, _ = _evaluate(run, capsys, sets=[], adherence=['words_tr', 'words_en'])
  assert again == once
  with gzip.open(once[0]['items_file'], 'rt', encoding='utf-8') as file:
    _, *lines = map(json.loads, file)
  assert len(lines) == once[0]['items'] > 2
  for line, text in zip(lines, _openable(run[0], 'tr'), strict=True):
    assert text.startswith(line['prompt'])
    assert len(words.find_words(line['prompt'])) == 8
    assert line['language'] in ('own', 'other', 'unknown')
  assert any(line['written'] for line in lines)


def test_adherence_is_to_one_of_two_languages_that_the_run_has_read(run, capsys):
  with pytest.raises(ValueError, match='two sets, in two languages'):
    _evaluate(run, capsys, sets=[], adherence=['words_tr', 'tiny_text'])
  with pytest.raises(ValueError, match=r"words_de is in 'de', and .* was trained on en, tr"):
    _evaluate(run, capsys, sets=[], adherence=['words_tr', 'words_de'])


def test_the_table_has_chance_and_intervals(run, capsys):
  found, out = _evaluate(run, capsys)
  score = found[0]['scores']['accuracy']
  (row,) = [line for line in out.out.splitlines() if 'accuracy ' in line]
  assert row.split() == [
    'tiny_choice', '40', 'accuracy', f'{score["value"]:.4f}', f'{score["low"]:.4f}', 'to',
    f'{score["high"]:.4f}', '0.5000', f'{score["uniform"]:.4f}',
  ]  # fmt: skip
  assert set(found[0]['groups']) == {'a', 'b'}


def test_what_is_not_there_is_named(run, capsys, tmp_path):
  with pytest.raises(
    ValueError, match=r"no evaluation set 'tiny_chioce' is registered.*tiny_choice"
  ):
    _evaluate(run, capsys, sets=['tiny_chioce'])
  with pytest.raises(FileNotFoundError, match='there is no directory'):
    _evaluate(run, capsys, model=[str(tmp_path / 'nothing')])
  with pytest.raises(FileNotFoundError, match='no checkpoint of step 7'):
    _evaluate(run, capsys, model=[f'{run[1]}@7'])


def test_a_checkpoint_without_its_tokenizer_is_named(run, capsys, tmp_path):
  project, directory, _ = run
  copy = tmp_path / 'copy'
  shutil.copytree(directory, copy)
  with pytest.raises(FileNotFoundError, match='tokenizer'):
    _evaluate(
      (project, copy, ''), capsys, tokenizer=str(tmp_path / 'gone.model'), sets=['tiny_text']
    )


def test_sets_are_frozen_with_the_run_and_need_no_child(run, monkeypatch):
  project, directory, _ = run
  bindings = ["Run.modules = ['tiny_tasks', 'tiny_sets']", "EvaluationConfig.sets = ('tiny_*',)"]
  recipe = tiny_project.parse(project, directory, *bindings)
  kept = stage_data.read(directory)
  monkeypatch.setattr(prepare, 'prepared', lambda *_: pytest.fail('a child was asked'))
  folders = stage_data.open_stages(recipe, kept).set_folders
  assert sorted(folders) == ['tiny_choice', 'tiny_label', 'tiny_question', 'tiny_text']
  assert all(items.read(folder).name == name for name, folder in folders.items())
  assert stage_data.open_if_prepared(recipe)[1] == ''
  other = tiny_project.parse(
    project, directory, bindings[0], "EvaluationConfig.sets = ('tiny_new',)"
  )
  monkeypatch.setattr(prepare, 'stale', lambda *_: 'first time for tiny_new')
  assert stage_data.open_if_prepared(other) == (None, 'evaluation sets: first time for tiny_new')
