import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlink import cache
from jaxlink.data import register, resolve, seqio_side
from jaxlink.data.blocks import Blocks

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / 'tasks/sample/tokenizer.model'
LEXICON = ROOT / 'tasks/sample/en-tr.tsv'

TASKS = f"""
from jaxlink.data.register import register_corpus, register_language, register_mixture

register_corpus('cmd_en', {{'train': 'en.txt'}}, language='en', tokenizer={str(TOKENIZER)!r})
register_corpus('cmd_other', {{'train': 'en.txt'}}, language='en', tokenizer='other.model')
register_corpus('cmd_bad', {{'train': 'bad.jsonl'}}, language='en', tokenizer={str(TOKENIZER)!r})
register_corpus('cmd_skip', {{'train': 'skip.jsonl'}}, language='en', tokenizer={str(TOKENIZER)!r},
                on_bad='skip')
register_corpus('cmd_lost', {{'train': 'lost.txt'}}, language='en', tokenizer={str(TOKENIZER)!r})
register_language(
  'cmd_tr', {{'train': 'tr.txt', 'validation': 'tr.txt'}}, language='tr',
  tokenizer={str(TOKENIZER)!r}, auxiliary='cmd_en', lexicon={str(LEXICON)!r},
)
register_mixture('cmd_two_tokenizers', {{'cmd_tr': 1, 'cmd_other': 1}})
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cache_command')
  (folder / 'cmd_tasks.py').write_text(TASKS)
  (folder / 'en.txt').write_text('A stitch in time saves nine.\n\nThe early bird catches the worm.')
  (folder / 'tr.txt').write_text('Damlaya damlaya göl olur.\n\nSakla samanı, gelir zamanı.')
  (folder / 'bad.jsonl').write_text('{"text": "good"}\n{"text": \n')
  (folder / 'skip.jsonl').write_text('{"text": "good"}\n{"text": \n{"text": ""}\nnot JSON')
  return folder


@pytest.fixture
def fails(folder, monkeypatch, forget_command_tasks):
  """Runs the command in this process and returns its error."""
  monkeypatch.chdir(folder)
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)

  def run(arguments, request=None):
    monkeypatch.setattr(sys, 'argv', ['cache', *arguments, '--cache_dir', str(folder / 'cache')])
    monkeypatch.setattr(sys, 'stdin', io.StringIO(json.dumps(request)))
    with pytest.raises(SystemExit) as caught:
      cache.main()
    message = caught.value.code
    assert message.startswith('error: ')
    assert '\n' not in message
    return message

  return run


@pytest.fixture
def forget_command_tasks():
  import seqio

  from jaxlink.data import registry

  path = list(sys.path)
  yield
  sys.path[:] = path
  sys.modules.pop('cmd_tasks', None)
  for table in (
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY,
    registry.LANGUAGES, registry.LEXICONS, registry.AUXILIARIES, registry.RATES,
  ):  # fmt: skip
    for name in [n for n in table if n.startswith('cmd_')]:
      del table[name]


def command(folder, *arguments):
  return subprocess.run(
    [sys.executable, '-m', 'jaxlink.cache', *arguments], cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=120,
    check=False,
  )  # fmt: skip


def test_the_command_makes_caches_that_can_be_opened(folder):
  done = command(folder, '--modules', 'cmd_tasks', '--mixture', 'cmd_en_cmd_tr')
  assert done.returncode == 0, done.stderr
  found = {(b.name, b.manifest['split']) for b in map(Blocks, (folder / 'cache').glob('*/*-*[!k]'))}
  assert found == {('cmd_en', 'train'), ('cmd_tr', 'train'), ('cmd_tr', 'validation')}
  assert list((folder / 'cache/resolved').glob('*.json'))


def test_a_failing_command_ends_with_one_line_and_a_code(folder):
  done = command(folder, '--modules', 'cmd_tasks', '--mixture', 'cmd_bad')
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr
  errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
  assert len(errors) == 1
  assert 'bad.jsonl, line 2: not JSON' in errors[0]


def request(**stage):
  policy = stage.pop('policy', None)
  stage = {
    'mixture': 'cmd_en_cmd_tr',
    'rates_needed': True,
    'link': {},
    'link_route': 'load',
    **stage,
  }
  if policy is not None:
    stage['link'] = {
      policy.pop('task', 'cmd_en'): {'lexicon': 'cmd_tr', 'language': 'tr', **policy}
    }
  return {
    'modules': ['cmd_tasks'], 'stages': [stage], 'seed_link': 0, 'evaluation_split': 'validation',
    'shards': 2, 'block': 64,
  }  # fmt: skip


@pytest.mark.parametrize(
  ('stage', 'messages'),
  [
    ({'mixture': 'cmd_en_cmd_tt'}, ["no mixture or task 'cmd_en_cmd_tt'", "Nearest: 'cmd_en_cmd_tr'"]),
    ({'mixture': 'cmd_two_tokenizers'}, ['other.model']),
    ({'mixture': 'cmd_lost'}, ["No file 'lost.txt'"]),
    ({'policy': {'task': 'cmd_em'}}, ["Stage.link: 'cmd_em' is not in the mixture", "'cmd_en'"]),
    ({'policy': {'task': 'cmd_tr'}}, ["'cmd_tr' is text in 'tr', the language of the lexicon"]),
    ({'policy': {'task': 'cmd_tr', 'lexicon': str(LEXICON), 'language': 'tr-TR'}}, ["text in 'tr'"]),
    ({'policy': {'task': 'cmd_tr', 'lexicon': str(LEXICON), 'language': 'tur'}}, ["text in 'tr'"]),
    ({'policy': {'lexicon': 'cmd_tt'}}, ["no registered lexicon 'cmd_tt'", "Nearest: 'cmd_tr'"]),
    ({'policy': {'language': 'de'}}, ["LinkPolicy.language is 'de'", "registered for 'tr'"]),
    ({'policy': {'word_ratio': 1.3}}, ['LinkPolicy.word_ratio is 1.3']),
    ({'policy': {'stop_words': 'lost.txt'}}, ['lost.txt']),
    ({'policy': {'stop_words': 'eng'}}, ["LinkPolicy.stop_words: no file 'eng'", "Nearest: 'en'"]),
    ({'policy': {'regime': 'domain', 'word_list': 'lost.txt'}},
     ["LinkPolicy.word_list: no file 'lost.txt'"]),
    ({'policy': {'lexicon': {'de': str(LEXICON), 'tr': 'cmd_tt'}, 'language': ''}},
     ["no registered lexicon 'cmd_tt'", "Nearest: 'cmd_tr'"]),
    ({'policy': {'lexicon': {'de': 'cmd_tr'}, 'language': ''}},
     ["LinkPolicy.language is 'de'", "registered for 'tr'"]),
  ],
  ids=str,
)  # fmt: skip
@pytest.mark.parametrize('route', ['load', 'cache'])
def test_a_mistake_in_a_recipe_is_one_line_that_names_it(fails, route, stage, messages):
  error = fails(['--request', '-'], request(**copy.deepcopy(stage), link_route=route))
  for message in messages:
    assert message in error


# At load time alone: on the other route TensorFlow's threads find it, and outlive the test.
@pytest.mark.parametrize(
  ('policy', 'messages'),
  [
    ({'lexicon': str(LEXICON), 'language': 'bn'}, ['en-tr.tsv: no side is in the script']),
    ({'lemmas': 'xx'}, ["LinkPolicy.lemmas is 'xx'", "code of simplemma, such as 'en'"]),
  ],
)
def test_what_only_the_text_or_the_lexicon_shows_is_one_line_too(fails, policy, messages):
  error = fails(['--request', '-'], request(policy=policy))
  for message in messages:
    assert message in error


@pytest.mark.parametrize(
  ('policy', 'message'),
  [
    ({'redraw': True}, 'LinkPolicy.redraw is True: text is rewritten once'),
    ({'mode': 'restore'}, "LinkPolicy.mode is 'restore'"),
    ({'word_ratio': [[0, 0.1], [9, 0.3]]}, 'LinkPolicy.doc_fraction or word_ratio is a schedule'),
  ],
)
def test_what_only_load_time_can_do_is_refused_of_a_cache(fails, policy, message):
  assert message in fails(['--request', '-'], request(policy=policy, link_route='cache'))


def test_a_tokenizer_that_leaves_many_words_unspliceable_is_refused_at_load_time(
  fails, monkeypatch
):
  real = Blocks.__init__

  def opened(self, folder):
    real(self, folder)
    self.manifest['unspliceable_words'] = 1  # of 12, which is more than the limit of 5 %

  monkeypatch.setattr(Blocks, '__init__', opened)
  error = fails(['--request', '-'], request(policy={}))
  assert 'cmd_en: in 8.3% of its words the tokens depend on what stands beside them' in error
  assert "Stage.link_route = 'cache' replaces them in the text instead" in error


def test_an_evaluation_split_that_no_task_has_is_an_error(fails):
  error = fails(['--request', '-'], {**request(), 'evaluation_split': 'validaton'})
  assert "EvaluationConfig.split is 'validaton': no task of the stages has it." in error
  assert "Nearest: 'validation'" in error
  assert 'Splits: train, validation' in error


def test_no_evaluation_split_asks_for_no_evaluation(folder, monkeypatch, forget_command_tasks):
  monkeypatch.chdir(folder)
  asked = {**request(), 'evaluation_split': ''}
  cache.answer(asked, 'cache', processes=1)
  assert resolve.read(resolve.kept_path(asked, 'cache'), 'cache').evaluations == ()


def test_bad_lines_and_empty_documents_are_told_when_a_cache_is_built_and_when_it_is_opened(
  folder, monkeypatch, forget_command_tasks, capsys
):
  monkeypatch.chdir(folder)
  asked = {**request(mixture='cmd_skip'), 'evaluation_split': ''}
  for _ in range(2):
    cache.answer(asked, 'cache', processes=1)
    first, second = capsys.readouterr().out.splitlines()
    assert first == 'data: cmd_skip:train: 2 bad lines and 1 empty documents left out'
    assert second.startswith('data: cmd_skip:train: not JSON: 2 (')
    assert [f'skip.jsonl, line {n}: not JSON' in second for n in (2, 4)] == [True, True]
  cache.answer({**request(), 'evaluation_split': ''}, 'cache', processes=1)
  assert capsys.readouterr().out == ''


def test_rates_of_mixtures_inside_mixtures_are_exact(forget_command_tasks):
  import seqio

  for task in 'abc':
    register.register_corpus(f'cmd_{task}', {'train': 'x.txt'}, language='en', tokenizer='t.model')
  register.register_mixture('cmd_inner', {'cmd_a': 1, 'cmd_b': 2})
  register.register_mixture('cmd_outer', {'cmd_inner': '1/7', 'cmd_c': '5/7', 'cmd_a': '1/7'})
  seqio.MixtureRegistry.add('cmd_floats', [('cmd_inner', 0.1), ('cmd_c', lambda task: 0.9)])

  def rates(mixture, needed=True):
    return cache._rates({'mixture': mixture, 'rates_needed': needed})

  assert rates('cmd_inner') == {'cmd_a': '1', 'cmd_b': '2'}
  assert rates('cmd_outer') == {'cmd_a': '4/21', 'cmd_b': '2/21', 'cmd_c': '5/7'}
  assert rates('cmd_floats') == {'cmd_a': '1/30', 'cmd_b': '1/15', 'cmd_c': '9/10'}
  assert rates('cmd_outer', needed=False) == {'cmd_a': '', 'cmd_b': '', 'cmd_c': ''}


def test_a_request_ends_with_the_process_that_made_it():
  child = 'import sys, time; from jaxlink import cache; cache.end_with(int(sys.argv[1])); '
  child += 'print("up", flush=True); time.sleep(100)'
  parent = 'import os, subprocess, sys; '
  parent += 'subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])'
  process = subprocess.Popen(
    [sys.executable, '-c', parent, child], stdout=subprocess.PIPE, text=True, cwd=ROOT
  )
  assert process.stdout.readline() == 'up\n'
  process.kill()
  # The child holds the other end of the pipe: this ends when it does.
  assert process.communicate(timeout=30)[0] == ''


def test_tensorflow_is_kept_off_the_accelerators(monkeypatch):
  import tensorflow as tf

  hidden = []
  monkeypatch.setattr(tf.config, 'set_visible_devices', lambda *args: hidden.append(args))
  seqio_side.import_tensorflow()
  assert hidden == [([], 'GPU')]


def test_tasks_with_different_tokenizers_do_not_mix(fails, folder):
  (folder / 'other.model').write_bytes(TOKENIZER.read_bytes() + b'\0')
  try:
    import sentencepiece

    with open(folder / 'other.model', 'wb') as file:
      sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((folder / 'tr.txt').read_text().split('\n')), model_writer=file,
        model_type='bpe', vocab_size=300, byte_fallback=True, hard_vocab_limit=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, minloglevel=2,
      )  # fmt: skip
    error = fails(['--request', '-'], request(mixture='cmd_two_tokenizers'))
    assert 'have different tokenizers' in error
    assert "'cmd_tr'" in error
    assert "'cmd_other'" in error
  finally:
    (folder / 'other.model').unlink()


def test_an_unknown_module_is_named(fails):
  error = fails(['--modules', 'cmd_taks', '--mixture', 'cmd_en_cmd_tr'])
  assert "Run.modules: no module 'cmd_taks'" in error


def test_nothing_to_do_is_a_usage_error(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['cache'])
  with pytest.raises(SystemExit) as caught:
    cache.main()
  assert caught.value.code == 2
  assert 'give --gin_file, or --modules and --mixture' in capsys.readouterr().err
