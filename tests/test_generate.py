"""The command prints what the model continues, as text or JSON, and names what is wrong."""

import io
import json
import re
import subprocess
import sys

import pytest

from jaxlink import generate
from tests import tiny_project


@pytest.fixture
def command(trained, monkeypatch, capsys):
  """Runs the command in this process on the trained project; gives its output, errors and exit code."""
  project, _ = trained

  def run(*arguments, stdin='', model=None):
    monkeypatch.setattr(sys, 'argv', ['generate', str(model or project.folder / 'run'), *arguments])
    monkeypatch.setattr(sys, 'stdin', io.StringIO(stdin))
    code = 0
    try:
      generate.main()
    except SystemExit as stop:
      code = stop.code
    out, err = capsys.readouterr()
    return out, err, code

  return run


SHORT = '--tokens', '6'


def test_help_teaches_and_needs_no_jax():
  script = "import sys, runpy; sys.argv = ['g', '--help']\n"
  script += "try: runpy.run_module('jaxlink.generate', run_name='__main__')\n"
  script += "except SystemExit: assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
  done = subprocess.run(
    [sys.executable, '-c', script],
    capture_output=True,
    text=True,
    cwd=tiny_project.ROOT,
    check=True,
  )
  assert 'python -m jaxlink.generate runs/quickstart --prompt "Türkiye" --samples 3' in done.stdout


def test_text_goes_to_standard_output_and_the_rest_to_standard_error(command):
  out, err, code = command('--prompt', 'Türkiye', '--prompt', 'The city', '--samples', '2', *SHORT)
  assert code == 0
  texts = out.removesuffix('\n').split('\n\n')
  assert len(texts) == 4
  assert [text[:7] for text in texts] == ['Türkiye', 'Türkiye', 'The cit', 'The cit']
  assert texts[0] != texts[1]
  assert 'run, step 20: ' in err
  assert 'tokens/s; compiling' in err


def test_json_has_a_line_for_each_sample_and_the_seed_repeats_it(command, tmp_path):
  file = tmp_path / 'prompts.jsonl'
  prompts = ['Türkiye', 'iki\nsatır', 'The']
  file.write_text('\n'.join(json.dumps({'prompt': p}) for p in prompts), encoding='utf-8')
  arguments = '--prompts_file', str(file), '--json', '--samples', '2', *SHORT
  out, _, _ = command(*arguments)
  found = [json.loads(line) for line in out.splitlines()]
  assert [(f['index'], f['sample'], f['prompt']) for f in found] == [
    (i, k, p) for i, p in enumerate(prompts) for k in range(2)
  ]
  assert all(f['tokens'] == 6 and f['ended'] == 'length' for f in found if f['ended'] != 'eos')
  assert command(*arguments)[0] == out
  assert command(*arguments, '--batch', '1')[0] == out  # another batch, another slice
  assert command(*arguments, '--seed', '1')[0] != out


def test_prompts_come_from_standard_input_a_line_each(command):
  greedy = '--greedy', *SHORT
  out, _, _ = command(*greedy, stdin='Türkiye\n\nAnkara\n')
  assert out == command(*greedy, '--prompt', 'Türkiye', '--prompt', 'Ankara')[0]
  assert out == command('--temperature', '0', *SHORT, stdin='Türkiye\nAnkara')[0]
  assert len(out.split('\n\n')) == 2


def test_at_a_terminal_prompts_are_asked_for_and_text_is_shown_as_it_grows(command, monkeypatch):
  asked = iter(['Türkiye', 'a ' * 200, 'Türkiye'])
  monkeypatch.setattr(generate, '_at_terminal', lambda: True)
  monkeypatch.setattr('builtins.input', lambda _: next(asked, None) or _end())
  out, err, code = command(*SHORT)
  assert code == 0
  before, first, second = out.split('Türkiye')  # nothing of the one that was too long
  assert before == ''
  assert first.rstrip('\n') != second.rstrip('\n')  # another turn, other draws
  assert 'error: a prompt has' in err


def _end():
  raise EOFError


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('--temperature', '-1'), 'error: temperature is -1.0: it is 0.0001 or more'),
    (('--top_p', '0'), 'error: top_p is 0.0'),
    (('--prompt', 'a ' * 200), 'error: a prompt has 202 tokens, .*max_length of this model is 64'),
    (('--prompt', 'a', '--tokens', '63'), 'error: a prompt has 2 tokens, .* leaves room for 62'),
    (('--tensor', '3'), 'error: MeshConfig'),
    (('--seed', '-2'), 'error: seed is -2'),
    (('--prompts_file', 'absent.txt'), "error: .*absent.txt'"),
    ((), 'error: standard input has no prompts'),
  ],
)
def test_mistakes_are_one_line(command, arguments, message):
  given = (
    arguments if {'--prompt', '--prompts_file'} & {*arguments} else (*arguments, '--prompt', 'a')
  )
  _, _, code = command(*(given if arguments else ()))
  assert re.match(message, code), code
  assert '\n' not in code


def test_an_unknown_step_and_a_broken_file_are_named(command, trained, tmp_path):
  project, _ = trained
  _, _, code = command('--prompt', 'a', model=f'{project.folder / "run"}@3')
  assert code.startswith('error: ')
  assert 'no checkpoint of step 3. There are: 15, 20.' in code
  (tmp_path / 'a.jsonl').write_text('{"prompt": "a"}\n{"text": "b"}\n')
  _, _, code = command('--prompts_file', str(tmp_path / 'a.jsonl'))
  assert 'a.jsonl, line 2: it is an object with a string "prompt"' in code


def test_flags_that_exclude_each_other_and_counts_below_1_are_refused(command):
  for arguments in (
    ('--greedy', '--top_p', '0.9'),
    ('--prompt', 'a', '--prompts_file', 'b'),
    ('--prompt', 'a', '--tokens', '0'),
    ('--prompt', 'a', '--samples', '0'),
  ):
    assert command(*arguments)[2] == 2
