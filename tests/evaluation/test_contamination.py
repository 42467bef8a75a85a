"""Items that were planted into, or taken from, a run's training text are found, and no others."""

import json
import shutil

import numpy as np
import pytest

from jaxlink.data.blocks import Blocks
from jaxlink.evaluation import contamination
from jaxlink.evaluation.items import Choice, EvaluationSet, Question, Text


def training_lines(project, name='tr.txt'):
  lines = (project.folder / name).read_text(encoding='utf-8').splitlines()
  return [line for line in lines if len(line.split()) >= 20]


@pytest.fixture
def run(trained):
  return trained[0].folder / 'run'


@pytest.fixture
def cache(tmp_path):
  return str(tmp_path / 'cache')


def texts(*given, name='con_text'):
  items = tuple(Text(f't{k}', text) for k, text in enumerate(given))
  return EvaluationSet(name, 'text', 'tr', items)


def test_items_of_the_training_text_are_found_whatever_their_case_and_punctuation(
  trained, run, cache
):
  first, second = training_lines(trained[0])[3], training_lines(trained[0])[40]
  words = second.split()
  found = contamination.of_run(
    run,
    texts(
      'Bu cümle eğitim metninde yoktur ve orada hiç kimse onu bu biçimde yazmamıştır',
      first,
      'Başka bir şey: ' + ' '.join(words[2:17]).lower() + ' — ve sonu.',
      ' '.join(words[:7]),
      ' '.join([*words[:6], 'araya', 'giren', *words[6:12]]),
    ),
    cache,
  )
  assert found.ids == ('t1', 't2')
  assert found.to_json() == {'items': 2, 'compared': 4, 'n': 13}  # one has too few words


def test_the_right_option_and_the_prompt_are_looked_for(trained, run, cache):
  words = training_lines(trained[0])[5].split()
  context, right = ' '.join(words[:10]), ' '.join(words[10:16])
  wrong = 'başka bir cümle ile biten bambaşka bir metin'
  choices = (
    Choice('right', (context,), (wrong, right), 1),
    Choice('wrong', (context,), (wrong, right), 0),
  )
  given = EvaluationSet('con_choice', 'choice', 'tr', choices)
  assert contamination.of_run(run, given, cache).ids == ('right',)
  asked = (Question('q', ' '.join(words[:14]), ('üç',)),)
  given = EvaluationSet('con_question', 'question', 'tr', asked)
  assert contamination.of_run(run, given, cache).ids == ('q',)


def test_text_of_all_sources_counts_and_held_out_text_does_not(trained, run, cache):
  article = json.loads((trained[0].folder / 'en.jsonl').read_text().splitlines()[0])['text']
  (line, *_) = training_lines(trained[0], 'tr_held_out.txt')
  found = contamination.of_run(run, texts(' '.join(article.split()[30:60]), line), cache)
  assert found.ids == ('t0',)


def test_documents_of_a_cache_are_those_that_went_into_it_however_it_is_read(
  trained, run, monkeypatch
):
  text = contamination._training_text(str(run))
  whole = list(contamination._documents(text))
  monkeypatch.setattr(contamination, '_CHUNK', 97)
  assert list(contamination._documents(text)) == whole
  counts = [Blocks(folder).manifest['documents'] for folder in text.caches]
  assert len(whole) == sum(counts)
  assert sum(map(len, whole)) > 0
  for folder in text.caches:
    parts = list(contamination._split(Blocks(folder)))
    blocks = Blocks(folder)
    np.testing.assert_array_equal(np.concatenate(parts), blocks.read(0, blocks.tokens)[0])


def test_a_second_call_reads_no_text_and_another_set_or_text_is_another_question(
  trained, run, cache, monkeypatch, tmp_path
):
  line = training_lines(trained[0])[3]
  one, other = texts(line), texts(line, name='con_other')
  first = contamination.of_run(run, one, cache, beside=[one, other])
  monkeypatch.setattr(contamination, '_look', None)
  assert contamination.of_run(run, one, cache) == first
  assert contamination.of_run(run, other, cache).ids == first.ids  # of the same pass
  with pytest.raises(TypeError):
    contamination.of_run(run, texts(line, line + ' ve'), cache)
  # A cache of another fingerprint is other text.
  copy = tmp_path / 'run'
  shutil.copytree(run, copy)
  config = json.loads((copy / 'config.json').read_text())
  folder = tmp_path / 'caches'
  shutil.copytree(config['data']['cache_dir'], folder)
  config['data']['cache_dir'] = str(folder)
  (copy / 'config.json').write_text(json.dumps(config))
  assert contamination.of_run(copy, one, cache) == first
  (manifest,) = folder.glob('tiny_tr/train-*/manifest.json')
  about = json.loads(manifest.read_text())
  manifest.write_text(json.dumps({**about, 'fingerprint': 'another'}))
  with pytest.raises(TypeError):
    contamination.of_run(copy, one, cache)


def test_text_that_an_earlier_run_was_trained_on_counts(trained, run, cache, tmp_path):
  line = training_lines(trained[0])[3]
  later = tmp_path / 'later'
  shutil.copytree(run, later)
  stages = json.loads((later / 'stages.json').read_text())
  sources = stages['stages'][0]['sources']
  stages['stages'][0]['sources'] = [s for s in sources if s['task'] == 'tiny_en']
  (later / 'stages.json').write_text(json.dumps(stages))
  assert contamination.of_run(later, texts(line), cache).ids == ()
  stages['stages'][0]['origin'] = {'directory': str(run), 'step': 5, 'digest': ''}
  (later / 'stages.json').write_text(json.dumps(stages))
  assert contamination.of_run(later, texts(line), cache).ids == ('t0',)


def test_a_run_without_its_caches_is_not_judged_and_that_is_said_once(run, cache, tmp_path, capsys):
  copy = tmp_path / 'run'
  shutil.copytree(run, copy)
  config = json.loads((copy / 'config.json').read_text())
  config['data']['cache_dir'] = str(tmp_path / 'nowhere')
  (copy / 'config.json').write_text(json.dumps(config))
  for _ in range(2):
    assert contamination.of_run(copy, texts('Galler Meclisi'), cache) is None
  told = capsys.readouterr().err
  assert told.count('contamination was not looked for: the training text of') == 1
  (copy / 'stages.json').unlink()
  assert contamination.of_run(copy, texts('Galler Meclisi'), cache) is None
  assert 'stages.json is not there' in capsys.readouterr().err
