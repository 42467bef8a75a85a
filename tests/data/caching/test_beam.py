import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlink.data.blocks import ShardWriter
from jaxlink.data.caching import beam, build, cache_plan, machine
from tests.data.caching.test_build import (
  POLICY,
  SETTINGS,
  digests,
  elsewhere,
  english,
  plan_of,
  write_corpus,
)

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures('forget_tasks')


@pytest.fixture
def direct():
  """Beam's own runner, in this process."""
  pytest.importorskip('apache_beam', reason='the extra `beam` has an environment of its own')
  return beam.Beam('DirectRunner')


@pytest.fixture
def parts(monkeypatch):
  """Makes the small corpora of these tests be read in several parts."""
  monkeypatch.setattr(build, '_PART', 4000)


# ── what is asked for ──


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (('DirectRuner',), r"--runner is 'DirectRuner'\. Nearest: 'DirectRunner'\. Allowed: local"),
    (('DataflowRunner',), r"--work_dir is '': workers of Dataflow share no disk"),
    (('DataflowRunner', (), '/mnt/work'), r"--work_dir is '/mnt/work': .*gs://bucket/work"),
  ],
)
def test_a_runner_that_cannot_work_is_an_error_that_says_what_can(settings, message):
  with pytest.raises(ValueError, match=message):
    beam.Beam(*settings)


def test_a_runner_without_beam_is_an_error_that_names_the_extra(monkeypatch):
  monkeypatch.setattr(beam.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'PrismRunner needs Apache Beam.*"jaxlink\[beam\]"'):
    beam.Beam('PrismRunner')


@pytest.mark.parametrize(
  ('option', 'message'),
  [
    ('--direct_num_worker=2', "no option '--direct_num_worker'. Nearest: '--direct_num_workers'"),
    ('--direct_num_workers=two', "argument --direct_num_workers: invalid int value: 'two'"),
    ('--runner=PrismRunner', '--runner goes before the --'),
  ],
)
def test_an_option_that_beam_would_pass_over_is_an_error(direct, option, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    beam.Beam('DirectRunner', (option,))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--', '--direct_num_workers=2'], '--runner is local, and --direct_num_workers=2 is of a Beam'),
    (['--work_dir', 'gs://b'], '--runner is local, and --work_dir gs://b is of a Beam pipeline'),
    (['--runner', 'DirectRunner', '--processes', '2'], '--processes is 2 and --runner DirectRunner'),
  ],
)  # fmt: skip
def test_the_command_refuses_settings_that_would_have_no_effect(monkeypatch, arguments, message):
  from jaxlink import cache

  monkeypatch.setattr(sys, 'argv', ['cache', '--mixture', 'any', *arguments])
  with pytest.raises(SystemExit, match=re.escape(message)):
    cache.main()


# ── what is built ──


@pytest.mark.parametrize('link', [None, cache_plan.Link(POLICY, 0)], ids=['plain', 'link'])
def test_a_pipeline_writes_the_bytes_that_processes_write_and_its_counters_are_the_manifests(
  tmp_path, tiny_tokenizers, monkeypatch, parts, direct, link
):
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'], link=link)
  build.build(plan, processes=1, progress=False)
  counters, run = [], beam.run
  monkeypatch.setattr(beam, 'run', lambda *args, **kwargs: counters.append(run(*args, **kwargs)))
  again = elsewhere(plan, tmp_path / 'again')
  manifest = build.build(again, progress=False, beam=direct).manifest
  assert digests(again.folder) == digests(plan.folder)
  assert counters == [{k: manifest[k] for k in ('documents', 'tokens', 'words', 'blocks')}]
  assert manifest['documents'] == len(english())


def test_a_pipeline_whose_workers_meet_in_a_bucket_leaves_the_cache_here_and_nothing_there(
  tmp_path, tiny_tokenizers, parts, direct
):
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'])
  build.build(plan, processes=1, progress=False)
  again = elsewhere(plan, tmp_path / 'again')
  build.build(again, progress=False, beam=beam.Beam('DirectRunner', (), 'memory://bucket/parts/'))
  assert digests(again.folder) == digests(plan.folder)
  left = machine.Store('memory://bucket/parts')
  assert left.names() == []
  left.delete()


def test_a_pipeline_does_only_what_an_earlier_one_or_a_process_left(
  tmp_path, tiny_tokenizers, monkeypatch, parts, direct
):
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'])
  build.build(plan, processes=1, progress=False)
  read, written = [], []
  examples, opened = cache_plan.examples_of, ShardWriter.__init__

  def reading(task, plan, parts, part):
    read.append(part)
    return examples(task, plan, parts, part)

  def writing(self, folder, shard, **settings):
    written.append(shard)
    if len(written) == 2:
      raise OSError('the disk is full')
    opened(self, folder, shard, **settings)

  monkeypatch.setattr(cache_plan, 'examples_of', reading)
  monkeypatch.setattr(ShardWriter, '__init__', writing)
  again = elsewhere(plan, tmp_path / 'again')
  with pytest.raises(ValueError, match=r'build_en:train: DirectRunner: .*the disk is full'):
    build.build(again, progress=False, beam=direct)
  number = len(read)
  assert sorted(read) == list(range(number))
  assert number >= 3
  assert not again.exists
  build.build(again, progress=False, beam=direct)
  assert len(read) == number
  assert sorted(written[2:]) == sorted(set(range(SETTINGS.shards)) - {written[0]})
  assert digests(again.folder) == digests(plan.folder)


def test_what_is_wrong_with_a_text_is_one_line_that_names_its_place(
  tmp_path, tiny_tokenizers, direct
):
  from jaxlink.data import fingerprint, register

  register.register_corpus(
    'build_bad', write_corpus(tmp_path), language='en', tokenizer=tiny_tokenizers['byte_level']
  )
  plan = cache_plan.make_plan(
    'build_bad', 'train', cache_dir=str(tmp_path), inputs=fingerprint.Inputs()
  )
  with pytest.raises(ValueError, match=r'c0\.jsonl, line 7: not JSON') as caught:
    build.build(plan, progress=False, beam=direct)
  assert '\n' not in str(caught.value)


def test_a_pipeline_says_now_and_then_what_is_done(
  tmp_path, tiny_tokenizers, monkeypatch, capsys, parts, direct
):
  monkeypatch.setattr(beam, '_SAY_EVERY', 0.01)
  plan = plan_of(tmp_path, tiny_tokenizers['sentencepiece'])
  build.build(plan, beam=direct)
  lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('caching')]
  found = [re.fullmatch(
    r'caching build_en:train: (\d+) of (\d+) parts read, (\d+) of 3 shards written, \d+ s', line
  ) for line in lines]  # fmt: skip
  assert len(found) > 3
  assert all(found)
  done = [int(f[1]) + int(f[3]) for f in found]
  assert done == sorted(done)
  assert done[-1] > done[0]


@pytest.mark.slow
def test_killed_in_either_half_a_pipeline_goes_on_where_it_was(tmp_path, tiny_tokenizers, direct):
  files = write_corpus(tmp_path, files=12)['train']
  (tmp_path / 'killed_tasks.py').write_text(f"""
import os, signal
from jaxlink.data import register
from jaxlink.data.caching import build, shards
build._PART = 4000
register.register_corpus('killed_en', {{'train': {files!r}}}, language='en', on_bad='skip', max_bad=3,
                         tokenizer={tiny_tokenizers['byte_level']!r})
write = shards.machine.Store.write_json
def killing(store, name, value):
  write(store, name, value)
  if os.environ['KILL_AFTER'] in name:
    os.kill(os.getpid(), signal.SIGKILL)
shards.machine.Store.write_json = killing
""")  # fmt: skip

  def command(folder, *arguments, kill_after='nothing'):
    return subprocess.run(
      [sys.executable, '-m', 'jaxlink.cache', '--modules', 'killed_tasks', '--mixture', 'killed_en',
       '--cache_dir', folder, *arguments],
      cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'KILL_AFTER': kill_after},
    )  # fmt: skip

  def there(pattern):
    return {
      p.name: p.stat().st_mtime_ns for p in tmp_path.glob(f'beam/killed_en/*.building/{pattern}')
    }

  assert command('local').returncode == 0
  pipeline = ('--runner', 'DirectRunner')
  assert command('beam', *pipeline, kill_after='part-00002').returncode < 0
  parts = there('tmp-part*.json')
  assert 'tmp-part-00002-of' in ''.join(parts)
  assert there('tmp-shard*.json') == {}
  assert command('beam', *pipeline, kill_after='shard-00001').returncode < 0
  assert parts.items() <= there('tmp-part*.json').items()
  written = there('tokens-*') | there('words-*')
  assert len(written) >= 2
  done = command('beam', *pipeline)
  assert done.returncode == 0, done.stderr
  (local,), (found,) = ([p for p in (tmp_path / f'{n}/killed_en').iterdir() if p.is_dir()]
                        for n in ('local', 'beam'))  # fmt: skip
  assert digests(found) == digests(local)
  for name, changed in written.items():
    if f'-{1:05d}' not in name:
      assert (found / name).stat().st_mtime_ns == changed
