import functools
import hashlib
import importlib
import json
import linecache
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jaxlink.data.fingerprint import Inputs, changed, describe, difference, digest
from tests.data.conftest import SAMPLE

ROOT = Path(__file__).parents[2]

MODULES = {
  'fp_main.py': '''
    """Cleaning steps."""
    import functools
    import re
    import numpy as np
    import fp_helpers
    import fp_package.deep
    from fp_helpers import strip

    LIMIT = 3
    LONG = re.compile('abc' * 100 + 'x')
    LEAST, MOST = 2, 9
    TABLE = np.arange(5000) + (np.arange(5000) == 2500)
    NAMES = {'göl', 'damla', 'haba', 'kibaba'}

    def inner(text):
      """Says what it does."""
      # A reason.
      return fp_helpers.fold(text)[:LIMIT] + LONG.pattern + str(TABLE) + str(NAMES)

    def late(text):
      import fp_late
      import fp_package.later as later
      from fp_package import latest
      def inside(text):
        from fp_late import clean as cleaned
        return cleaned(text)
      return fp_late.turn(later.go(latest.end(inside(text))))

    def clean(text, least=LEAST, *, most=MOST):
      return fp_package.deep.dig(strip(inner(text)))[least:most]

    def make(suffix):
      return lambda text: clean(text) + suffix

    def stop():
      return open('STOP_FILE').read()

    class Step:
      """A step with settings."""
      WIDTH = LIMIT + 1

      def __init__(self, by):
        self.by = by

      def __call__(self, text):
        return self.cut(fp_helpers.fold(text))

      @functools.cached_property
      def cached(self):
        return 1

      @staticmethod
      def cut(text):
        return text[1:]

    steps = [
      functools.partial(clean, least=1),
      make('!'),
      Step(4),
      stop,
      late,
      lambda text: (text +
                    'z'),  # a lambda in a list
    ]
  ''',
  'fp_helpers.py': """
    def fold(text):
      return lower(text)

    def lower(text):
      return text.lower()

    def strip(text):
      return text.strip()

    def unused(text):
      return text
  """,
  'fp_late.py': """
    def clean(text):
      return text.title()

    def turn(text):
      return text[::-1]

    def unused(text):
      return text + text
  """,
  'fp_package/later.py': """
    def go(text):
      return deeper(text)

    def deeper(text):
      from . import deep
      return deep.STEP + text
  """,
  'fp_package/latest.py': """
    def end(text):
      return text + '.'
  """,
  'fp_package/__init__.py': '',
  'fp_package/deep.py': """
    DEPTH = 2
    STEP = 'one'

    def dig(text):
      return text * DEPTH
  """,
}


def write_modules(folder, edits=()):
  """Writes the modules with edits (file, old, new), each of which has to fit once."""
  (folder / 'stop.txt').write_text('the\nof\n')
  for name, source in MODULES.items():
    source = textwrap.dedent(source).replace('STOP_FILE', str(folder / 'stop.txt'))
    for file, old, new in edits:
      if file == name:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(source)


@pytest.fixture
def steps_of(tmp_path, monkeypatch):
  """Returns a function from edits to the digest of `fp_main.steps` after them."""
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)

  def forget():
    for name in [n for n in sys.modules if n.startswith('fp_')]:
      del sys.modules[name]
    importlib.invalidate_caches()
    linecache.clearcache()

  def steps(*edits):
    write_modules(tmp_path, edits)
    forget()
    return digest(describe(importlib.import_module('fp_main').steps, Inputs()))

  yield steps
  forget()


CHANGES = {
  'a preprocessor': ('fp_main.py', '[least:most]', '[least:most + 1]'),
  'a helper one call down': ('fp_main.py', 'fold(text)[:LIMIT]', 'fold(text)[1:LIMIT]'),
  'a helper in another module': ('fp_helpers.py', 'return lower(text)', 'return lower(text) + "."'),
  'a helper two calls down': ('fp_helpers.py', 'text.lower()', 'text.casefold()'),
  'an imported name': ('fp_helpers.py', 'text.strip()', 'text.lstrip()'),
  'a helper in a package': ('fp_package/deep.py', 'text * DEPTH', 'DEPTH * text'),
  'a constant in a package': ('fp_package/deep.py', 'DEPTH = 2', 'DEPTH = 3'),
  'a name imported in the body': ('fp_late.py', 'text.title()', 'text.upper()'),
  'a module imported in the body': ('fp_late.py', '[::-1]', '[::-2]'),
  'a submodule imported in the body': ('fp_package/latest.py', "text + '.'", "text + '!'"),
  'what is imported in the body of a helper': (
    'fp_package/deep.py',
    "STEP = 'one'",
    "STEP = 'two'",
  ),
  'a default': ('fp_main.py', 'LEAST, MOST = 2', 'LEAST, MOST = 3'),
  'a keyword default': ('fp_main.py', 'MOST = 2, 9', 'MOST = 2, 8'),
  'a closure': ('fp_main.py', "make('!')", "make('?')"),
  'an argument of a partial': ('fp_main.py', 'least=1)', 'least=0)'),
  'a module constant': ('fp_main.py', 'LIMIT = 3', 'LIMIT = 4'),
  'the end of a long regex': ('fp_main.py', "+ 'x')", "+ 'y')"),
  'the flags of a regex': ('fp_main.py', "+ 'x')", "+ 'x', re.I)"),
  'the middle of a large array': ('fp_main.py', '== 2500', '== 2501'),
  'a set': ('fp_main.py', "'kibaba'}", "'kibabu'}"),
  'an attribute': ('fp_main.py', 'Step(4)', 'Step(5)'),
  'a method': ('fp_main.py', 'self.cut(fp_helpers', 'self.cut("" + fp_helpers'),
  'a static method': ('fp_main.py', 'text[1:]', 'text[2:]'),
  'a class constant': ('fp_main.py', 'LIMIT + 1', 'LIMIT + 2'),
  'a lambda': ('fp_main.py', "'z'),", "'Z'),"),
  'the order of steps': ('fp_main.py', "  make('!'),\n  Step(4),", "  Step(4),\n  make('!'),"),
}


@pytest.mark.parametrize('edit', CHANGES.values(), ids=CHANGES.keys())
def test_an_edit_of_what_is_done_changes_the_description(steps_of, edit):
  assert steps_of() != steps_of(edit)


SAME = {
  'a comment': ('fp_main.py', '# A reason.', '# Another one.'),
  'a docstring': ('fp_main.py', 'Says what it does', 'Says something else'),
  'the docstring of a class': ('fp_main.py', 'A step with settings', 'Cuts'),
  'the docstring of the module': ('fp_main.py', 'Cleaning steps', 'Steps'),
  'layout': (
    'fp_main.py',
    '(text, least=LEAST, *, most=MOST)',
    '(\n  text,\n  least = LEAST, *,\n  most=MOST)',
  ),
  'quotes': ('fp_main.py', "{'göl', 'damla',", '{"göl", "damla",'),
  'layout inside a lambda': ('fp_main.py', "(text +\n                'z'),", "(text + 'z'),"),
  'a comment behind a lambda': ('fp_main.py', '# a lambda in a list', '# one'),
  'the order of a set': ('fp_main.py', "'göl', 'damla'", "'damla', 'göl'"),
  'an unused function of a module imported in the body': ('fp_late.py', 'text + text', 'text'),
  'an unused function': ('fp_helpers.py', 'def unused(text):\n  return text', ''),
}


@pytest.mark.parametrize('edit', SAME.values(), ids=SAME.keys())
def test_an_edit_of_how_it_is_written_does_not(steps_of, edit):
  assert steps_of() == steps_of(edit)


def test_the_bytes_of_a_file_that_a_function_names_count(steps_of, tmp_path):
  before = steps_of()
  (tmp_path / 'stop.txt').write_text('the\nand\n')
  assert digest(describe(sys.modules['fp_main'].steps, Inputs())) != before


def test_another_process_with_another_hash_seed_describes_the_same(steps_of, tmp_path):
  here = steps_of()
  code = (
    'from jaxlink.data.fingerprint import Inputs, describe, digest\n'
    'import fp_main\nprint(digest(describe(fp_main.steps, Inputs())))'
  )
  for seed in ('1', '2'):
    environment = {'PYTHONHASHSEED': seed, 'PYTHONPATH': f'{ROOT}:{tmp_path}'}
    done = subprocess.run(
      [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


def test_a_file_counts_by_its_bytes_not_by_its_path(tmp_path):
  for name, content in (
    ('a.tsv', 'göl\tlake\n'),
    ('b.tsv', 'göl\tlake\n'),
    ('c.tsv', 'göl\tsea\n'),
  ):
    (tmp_path / name).write_text(content)
  step = lambda name: functools.partial(print, lexicon=str(tmp_path / name))  # noqa: E731
  found = {n: digest(describe(step(n), Inputs())) for n in ('a.tsv', 'b.tsv', 'c.tsv', 'd.tsv')}
  assert found['a.tsv'] == found['b.tsv']
  assert len(set(found.values())) == 3
  assert describe(tmp_path / 'a.tsv', Inputs()) == describe(str(tmp_path / 'b.tsv'), Inputs())


def test_a_function_without_source_is_known_by_its_code():
  made = []
  for source in (
    'lambda t: [c for c in t]',
    'lambda t: [c for c in t]',
    'lambda t: [c for d in t]',
  ):
    made.append(digest(describe(eval(source), Inputs())))
  assert made[0] == made[1] != made[2]


def test_a_function_that_calls_itself_is_described(tmp_path):
  def countdown(n):
    return countdown(n - 1) if n else 0

  assert json.dumps(describe(countdown, Inputs()))


def test_inputs_remember_hashes_and_notice_changes(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('göl')
  memory = str(tmp_path / 'hashes.json')
  inputs = Inputs(memory)
  first = inputs.sha256(str(path))
  inputs.save()
  assert changed(inputs.files) == []

  again = Inputs(memory)
  again._known[str(path)][2] = 'remembered'
  assert again.sha256(str(path)) == 'remembered'

  os.utime(path, ns=(1, 1))  # touched, with the same bytes
  assert changed(inputs.files) == []
  path.write_text('gol')
  assert Inputs(memory).sha256(str(path)) != first
  assert changed(inputs.files) == [str(path)]
  path.unlink()
  assert changed(inputs.files) == [str(path)]

  Path(memory).write_text('{"torn')
  assert Inputs(memory).files == {}


def test_remote_files_are_hashed_and_their_changes_are_noticed():
  import fsspec

  memory = fsspec.filesystem('memory')
  memory.pipe('/fp/a.txt', b'one')
  inputs = Inputs()
  inputs.watch('memory://fp/*.txt')
  assert inputs.sha256('memory://fp/a.txt') == hashlib.sha256(b'one').hexdigest()
  assert difference(inputs.kept()) is None
  assert inputs.kept()['folder'] is None
  memory.pipe('/fp/a.txt', b'two')
  assert difference(inputs.kept()) == 'memory://fp/a.txt has changed'
  memory.pipe('/fp/a.txt', b'one')
  assert difference(inputs.kept()) is None
  memory.pipe('/fp/b.txt', b'one')
  assert difference(inputs.kept()) == 'memory://fp/*.txt names other files'
  memory.rm('/fp/b.txt')
  memory.rm('/fp/a.txt')
  assert changed(inputs.files) == ['memory://fp/a.txt']


def test_versions_are_those_of_distributions_whatever_their_modules_are_called():
  import re
  from importlib.metadata import version

  inputs = Inputs()
  assert (
    inputs.version('tensorflow_text.python') == f'tensorflow-text=={version("tensorflow-text")}'
  )
  assert inputs.version('absl.logging') == f'absl-py=={version("absl-py")}'
  assert inputs.version('os.path') == 'python'
  describe(re.compile, inputs)
  describe(sys.modules['numpy'].linspace, inputs)
  assert inputs.kept()['packages'] == {
    name: version(name) for name in ('tensorflow-text', 'absl-py', 'numpy')
  }


def test_what_lies_among_the_libraries_without_a_version_is_known_by_its_source(
  tmp_path, monkeypatch
):
  from jaxlink.data import fingerprint

  (tmp_path / 'fp_dropped.py').write_text('')
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setattr(fingerprint, '_LIBRARIES', (f'{tmp_path}/', *fingerprint._LIBRARIES))
  importlib.import_module('fp_dropped')
  assert not fingerprint.is_library('fp_dropped')
  assert not fingerprint.is_library('tasks.sample')
  assert fingerprint.is_library('numpy')
  del sys.modules['fp_dropped']


# ── of a plan: what a cache is made from ──


@pytest.mark.slow
def test_each_ingredient_of_a_cache_changes_its_fingerprint(
  tmp_path, tiny_tokenizers, forget_tasks, monkeypatch
):
  import dataclasses
  import shutil

  import regex

  from jaxlink.data import linking, register
  from jaxlink.data.caching import cache_plan
  from jaxlink.link import words
  from jaxlink.link.policy import LinkPolicy

  (tmp_path / 'corpus.txt').write_text('A stitch in time.')
  for name in ('stop.txt', 'domain.txt'):
    (tmp_path / name).write_text(f'the\nin {name[:4]}\n')
  lexicon = shutil.copy(SAMPLE / 'en-tr.tsv', f'{tmp_path}/l.tsv')
  tokenizer = shutil.copy(tiny_tokenizers['byte_level'], tmp_path / 't.json')
  splits = dict.fromkeys(['train', 'validation'], tmp_path / 'corpus.txt')
  register.register_corpus('fp_en', splits, language='en', tokenizer=tokenizer)
  register.register_corpus('fp_skip', splits, language='en', tokenizer=tokenizer, on_bad='skip')
  policy = LinkPolicy(lexicon=lexicon, language='tr', regime='domain', stop_words=str(tmp_path / 'stop.txt'),
                      word_list=str(tmp_path / 'domain.txt'))  # fmt: skip

  def of(task='fp_en', split='train', seed=0, settings=None, link=True, **changes):
    changed_policy = linking.resolve_policy(dataclasses.replace(policy, **changes))
    return cache_plan.make_plan(
      task, split, cache_dir='cache', inputs=Inputs(),
      link=cache_plan.Link(changed_policy, seed) if link else None,
      settings=settings or cache_plan.CacheSettings(),
    ).fingerprint  # fmt: skip

  base = of()
  assert of() == base
  assert of(lexicon=shutil.copy(lexicon, f'{tmp_path}/copy.tsv')) == base
  for name, file in (('stop_words', 'stop.txt'), ('word_list', 'domain.txt')):
    assert of(**{name: shutil.copy(tmp_path / file, f'{tmp_path}/copy_{file}')}) == base
  different = [
    of(link=False), of(seed=1), of(split='validation'), of(task='fp_skip'),
    of(settings=cache_plan.CacheSettings(shards=9)), of(settings=cache_plan.CacheSettings(block=9)),
  ]  # fmt: skip
  changes = {
    'language': 'az', 'language_by': 'per_word', 'doc_fraction': 0.4, 'word_ratio': 0.4,
    'ratio_of': 'all', 'senses': 'first', 'regime': 'non_domain', 'mode': 'annotate',
    'match_case': False, 'join': 'space', 'multi_word': False, 'lemmas': 'en',
  }  # fmt: skip
  files = {'lexicon', 'stop_words', 'word_list'}
  refused = {'redraw'}  # by a text that is rewritten once
  assert changes.keys() | files | refused == {f.name for f in dataclasses.fields(LinkPolicy)}
  different += [of(**{name: value}) for name, value in changes.items()]
  # Which file is for what, and the order of lexicons and of languages.
  other = shutil.copy(lexicon, f'{tmp_path}/other.tsv')
  Path(other).write_text('stitch\tdikiş\n', encoding='utf-8')
  lists = [policy.stop_words, policy.word_list]
  different += [
    of(language='', lexicon={'tr': (lexicon, other), 'az': (lexicon,)}),
    of(language='', lexicon={'tr': (other, lexicon), 'az': (lexicon,)}),
    of(language='', lexicon={'tr': (lexicon,), 'az': (other, lexicon)}),
    of(language='', lexicon={'az': (lexicon,), 'tr': (lexicon, other)}),
    of(stop_words=lists[1]), of(stop_words=lists[1], word_list=lists[0]), of(word_list=lists[0]),
    of(stop_words=''), of(stop_words='en'),
  ]  # fmt: skip
  for name in ('l.tsv', 'stop.txt', 'domain.txt', 't.json', 'corpus.txt'):
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(before + b'\n')
    different.append(of())
    (tmp_path / name).write_bytes(before)
  monkeypatch.setattr(words, '_CHUNK', regex.compile('.'))  # how text is cut for the tokenizer
  different.append(of())
  monkeypatch.undo()
  monkeypatch.setattr(words, 'key', lambda word: word)
  different.append(of())
  monkeypatch.undo()
  assert of() == base
  assert len({base, *different}) == len(different) + 1


def test_the_function_behind_a_foreign_source_counts(forget_tasks):
  import seqio
  import tensorflow as tf

  from jaxlink.data.caching import cache_plan

  def of(text):
    def rows(split, shuffle_files, seed=None):
      return tf.data.Dataset.from_tensors({'text': text})

    source = seqio.FunctionDataSource(rows, splits=['train'])
    return digest(cache_plan._describe_source(source, 'train', Inputs()))

  assert of('a') == of('a')
  assert of('a') != of('b')
