import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlink import audit
from jaxlink.link.words import find_words

ROOT = Path(__file__).parents[1]

TASKS = """
from jaxlink.data.register import register_corpus, register_language

register_corpus('aud_en', {{'train': 'en.txt'}}, language='en', tokenizer={tokenizer!r})
for name, code in (('aud_tr', 'tr'), ('aud_de', 'de'), ('aud_de_2', 'de')):
  register_language(name, {{'train': 'tr.jsonl', 'validation': 'held.txt'}}, language=code,
                    tokenizer={tokenizer!r}, auxiliary='aud_en', lexicon='en-tr.tsv', on_bad='skip')
"""
ENGLISH = """The early bird catches the worm in the garden on Sunday, and <script>alert(1)</script> too.

A stitch in time saves nine, said the old cat to the dog of the house, and went away from it."""
LINES = [
  json.dumps({'text': text}, ensure_ascii=False)
  for text in ('Damlaya damlaya göl olur.', 'Damlaya damlaya göl olur.', 'Sakla samanı.\nGelir zamanı.',
               'bozuk \ufffd <script>x</script>\nПривет, мир', 'Held out, once')
]  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory, project):
  folder = tmp_path_factory.mktemp('audit_command')
  tokenizer = str(project.folder / 'tokenizer.model')
  (folder / 'aud_tasks.py').write_text(TASKS.format(tokenizer=tokenizer))
  (folder / 'en.txt').write_text(ENGLISH)
  (folder / 'tr.jsonl').write_text('\n'.join([*LINES, '{"text": ', 'no JSON']))
  (folder / 'held.txt').write_text('Held out, once')
  (folder / 'en-tr.tsv').write_text(
    'early\terken\nbird\tkuş\ncat\tkedi\ncat\tpisi\nold\teski\nin\tin\n'
  )
  return folder


@pytest.fixture(scope='module')
def done(folder):
  """The real command, once; what it printed and wrote."""
  command = [sys.executable, '-m', 'jaxlink.audit', '--modules', 'aud_tasks', '--language', 'tr',
             '--out', 'out']  # fmt: skip
  finished = subprocess.run(
    command, cwd=folder, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
    timeout=120, check=False,
  )  # fmt: skip
  assert finished.returncode == 0, finished.stderr
  return finished.stdout


@pytest.fixture
def fails(folder, monkeypatch):
  """Runs the command in this process and returns its error."""
  monkeypatch.chdir(folder)
  monkeypatch.setattr(sys, 'path', [str(folder), *sys.path])

  def run(*arguments):
    monkeypatch.setattr(sys, 'argv', ['audit', *arguments])
    with pytest.raises(SystemExit) as caught:
      audit.main()
    message = caught.value.code
    assert message.startswith('error: ')
    assert '\n' not in message
    return message

  return run


def test_the_command_finds_the_faults_that_were_put_in(done, folder):
  found = json.loads((folder / 'out/audit.json').read_text(encoding='utf-8'))
  turkish, english = found['corpora']
  assert (turkish['task'], turkish['role'], english['task']) == ('aud_tr', 'target', 'aud_en')
  assert turkish['rejected_lines'] == 2
  faults = turkish['faults']
  assert (faults['documents'], faults['duplicate_documents'], faults['held_out']) == (5, 1, 1)
  assert (faults['lines'], faults['duplicate_lines']) == (7, 1)
  assert faults['by_reason'] == {
    'replacement': 1, 'control': 0, 'no_letters': 0, 'other_script': 1, 'other_language': 0,
  }  # fmt: skip


def test_the_command_counts_the_dose(done, folder):
  (link,) = json.loads((folder / 'out/audit.json').read_text(encoding='utf-8'))['links']
  words = len(re.findall('[a-z]+', ENGLISH, re.I))
  # early, bird, old, cat; 'in' is mapped to itself, twice.
  assert link['counts'] == {'words': words, 'covered_any': 6, 'covered': 4, 'eligible': 4}
  assert link['coverages'][0]['senses'] == [3, 1, 0, 0, 0, 0, 0, 0]
  assert 'in' not in {missing['word'] for missing in link['coverages'][0]['missing']}
  assert link['coverages'][0]['identities'] == [
    {'word': 'in', 'count': 2, 'stop_word': True, 'lemma': ''}
  ]


def test_the_command_prints_what_it_writes_as_text(done, folder):
  assert (folder / 'out/audit.txt').read_text(encoding='utf-8') in done
  assert 'aud_tr' in done
  assert '4  ' in done


def test_hostile_text_reaches_the_page_as_text(done, folder):
  page = (folder / 'out/audit.html').read_text(encoding='utf-8')
  assert page.startswith('<!DOCTYPE html>')
  assert '<script' not in page
  assert 'bozuk \ufffd &lt;script&gt;x&lt;/script&gt;' in page


def test_an_unknown_language_names_the_nearest(fails):
  error = fails('--modules', 'aud_tasks', '--language', 'aud_tx')
  assert "--language 'aud_tx': no such language is registered. Nearest: 'aud_tr'." in error
  assert 'Registered: ' in error


def test_a_corpus_without_lexicon_is_told_from_an_unknown_language(fails):
  error = fails('--modules', 'aud_tasks', '--language', 'aud_en')
  assert "--language 'aud_en' is a corpus without lexicon" in error


def test_a_code_of_several_languages_names_them(fails):
  error = fails('--modules', 'aud_tasks', '--language', 'de')
  assert "--language 'de' is registered more than once: aud_de, aud_de_2." in error


def test_an_unknown_module_is_named(fails):
  assert "no module 'aud_taks'" in fails('--modules', 'aud_taks', '--language', 'aud_tr')


def test_a_recipe_without_link_has_nothing_to_audit(fails, project, tmp_path):
  lines = Path(project.recipe).read_text(encoding='utf-8').splitlines()
  recipe = tmp_path / 'no_link.gin'
  recipe.write_text('\n'.join(line for line in lines if 'LinkPolicy' not in line))
  error = fails('--gin_file', str(recipe))
  assert 'Stage.link is {} in every stage' in error


@pytest.mark.parametrize(
  'arguments', [[], ['--language', 'x'], ['--gin_file', 'x', '--language', 'y']]
)
def test_arguments_that_do_not_go_together_are_a_usage_error(arguments, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['audit', *arguments])
  with pytest.raises(SystemExit) as caught:
    audit.main()
  assert caught.value.code == 2
  assert '--modules and --language' in capsys.readouterr().err


def test_a_recipe_is_audited_with_its_own_policy_even_if_its_ratio_cannot_be_reached(
  project, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    sys, 'argv',
    ['audit', '--gin_file', project.recipe, '--out', str(tmp_path), '--gin_bindings',
     "LinkPolicy.regime = 'content'", '--gin_bindings', "LinkPolicy.ratio_of = 'all'",
     '--gin_bindings', 'LinkPolicy.word_ratio = 0.9', '--gin_bindings', "Stage.link_route = 'cache'"],
  )  # fmt: skip
  monkeypatch.chdir(project.folder)
  audit.main()
  assert 'written: ' in capsys.readouterr().out
  found = json.loads((tmp_path / 'audit.json').read_text(encoding='utf-8'))
  (link,) = found['links']
  with open(project.folder / 'en.jsonl', encoding='utf-8') as file:
    in_text = sum(len(find_words(json.loads(line)['text'])) for line in file)
  assert link['counts']['words'] == in_text  # of the text as it is, not as a cache would have it
  ceiling = link['counts']['eligible'] / link['counts']['words']
  assert link['policy']['regime'] == 'content'
  assert link['probability'] == 1.0
  assert link['shortfall'] == pytest.approx(0.9 - ceiling)
