"""The commands for TPUs are those of gcloud and xpk; the loop that starts a run again is run for real.

Where gcloud is installed, its own parser reads each command; nothing is sent to a cloud.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from jaxlink import xla_flags
from tests.tiny_project import ROOT

FOLDER = ROOT / 'tools/tpu'
ZONE = '--zone=us-east5-a'
TRAIN = ('--', '--gin_file=gin/1b_link.gin', "--gin_bindings=Run.directory = '/home/u/bucket/run'")
QUEUED = 'gcloud compute tpus queued-resources'


@pytest.fixture(scope='module')
def tpu():
  """The script as a module."""
  sys.path.insert(0, str(FOLDER))
  try:
    import tpu

    yield tpu
  finally:
    sys.path.remove(str(FOLDER))


def _printed(tpu, capsys, *argv):
  """The commands that it prints, as lists."""
  assert tpu.main(argv) == 0
  return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def _refused(tpu, capsys, *argv):
  assert tpu.main(argv) == 1
  said = capsys.readouterr()
  assert not said.out
  return said.err.splitlines()[-1]


def test_machines_are_asked_for_by_gclouds_command(tpu, capsys):
  one = _printed(tpu, capsys, 'create', 'one', ZONE, '--accelerator=v6e-8')
  assert one == [
    f'{QUEUED} create one {ZONE} --accelerator-type=v6e-8 --runtime-version=v2-alpha-tpuv6e --node-id=one'.split()
  ]
  pod = _printed(
    tpu,
    capsys,
    'create',
    'pod',
    ZONE,
    '--project=mine',
    '--accelerator=v5p-64',
    '--spot',
    '--valid_until=6h',
  )
  assert pod == [
    f'{QUEUED} create pod {ZONE} --project=mine --accelerator-type=v5p-64 --runtime-version=v2-alpha-tpuv5 '
    '--node-id=pod --spot --valid-until-duration=6h'.split()
  ]
  slices = _printed(tpu, capsys, 'create', 'two', ZONE, '--accelerator=v5litepod-256', '--slices=2')
  assert slices == [
    f'{QUEUED} create two {ZONE} --accelerator-type=v5litepod-256 --runtime-version=v2-alpha-tpuv5-lite '
    '--node-count=2 --node-prefix=two'.split()
  ]
  assert _printed(tpu, capsys, 'delete', 'two', ZONE) == [
    f'{QUEUED} delete two {ZONE} --force --quiet'.split()
  ]


def test_what_every_host_needs_goes_to_every_host(tpu, capsys):
  lines = [
    *_printed(tpu, capsys, 'setup', 'pod', ZONE, '--cache=gs://mine/cache', '--bucket=mine'),
    *_printed(tpu, capsys, 'launch', 'pod', ZONE, *TRAIN),
    *_printed(tpu, capsys, 'stop', 'pod', ZONE),
  ]
  remote = [line for line in lines if line[0] == 'gcloud']
  assert len(remote) == 6
  assert all({'--node=all', '--worker=all', ZONE} <= set(line) for line in remote)
  assert lines[0][:2] == ['git', 'archive']
  followed = _printed(tpu, capsys, 'follow', 'pod', ZONE)[0]
  assert {'--node=0', '--worker=0'} <= set(followed)


def test_the_training_arguments_arrive_as_they_were_given(tpu, capsys):
  launch = _printed(tpu, capsys, 'launch', 'pod', ZONE, '--tries=3', *TRAIN)[0][-1]
  words = shlex.split(launch.removeprefix('--command='))
  given = ['-m', 'jaxlink.train', *TRAIN[1:], '--distributed']
  assert words[words.index('tools/tpu/keep_running.sh') + 1] == '3'
  assert words[words.index('-m') : words.index('>>')] == given
  workload = _printed(
    tpu, capsys, 'xpk', 'job', ZONE, '--cluster=c', '--accelerator=v5p-64', '--slices=2', '--image=IMAGE',
    '--storage=runs', *TRAIN,
  )[0]  # fmt: skip
  assert workload[:3] == ['xpk', 'workload', 'create']
  assert {
    '--tpu-type=v5p-64', '--num-slices=2', '--max-restarts=10', '--restart-on-exit-codes=1', '--storage=runs',
  } <= set(workload)  # fmt: skip
  (command,) = (word for word in workload if word.startswith('--command='))
  assert shlex.split(command.removeprefix('--command=')) == ['python', *given]


@pytest.mark.skipif(not shutil.which('gcloud'), reason='gcloud is not installed')
def test_gclouds_own_parser_takes_each_command(tpu, capsys, tmp_path):
  lines = [
    line
    for argv in (
      (
        'watch',
        'pod',
        ZONE,
        '--accelerator=v5p-64',
        '--spot',
        '--cache=gs://mine/c',
        '--bucket=mine',
        *TRAIN,
      ),
      (
        'create',
        'two',
        ZONE,
        '--accelerator=v6e-64',
        '--slices=2',
        '--reserved',
        '--valid_until=2d',
      ),
      ('follow', 'pod', ZONE),
      ('stop', 'pod', ZONE, '--project=mine'),
    )
    for line in _printed(tpu, capsys, *argv)
    if line[0] == 'gcloud'
  ]
  lines.append([*lines[0], '--no-such-flag'])
  listed = tmp_path / 'commands.json'
  listed.write_text(json.dumps([{'command_string': shlex.join(line)} for line in lines]))
  # Without a configuration or account of this machine; it reads, and sends nothing.
  environment = os.environ | {
    'CLOUDSDK_CONFIG': str(tmp_path), 'CLOUDSDK_CORE_DISABLE_USAGE_REPORTING': '1',
  }  # fmt: skip
  done = subprocess.run(
    ['gcloud', 'meta', 'lint-gcloud-commands', f'--commands-file={listed}'],
    env=environment, capture_output=True, text=True, check=True, timeout=300,
  )  # fmt: skip
  verdicts = json.loads(done.stdout)
  assert len(verdicts) == len(lines) == 12
  assert [one['error_message'] for one in verdicts if not one['success']] == [
    verdicts[-1]['error_message']
  ]


def test_what_a_name_counts_is_known(tpu):
  sizes = {
    'v5p-8': (4, 1), 'v5p-64': (32, 8), 'v5p-256': (128, 32), 'v5litepod-8': (8, 1),
    'v5litepod-16': (16, 4), 'v5litepod-256': (256, 64), 'v6e-1': (1, 1), 'v6e-8': (8, 1), 'v6e-64': (64, 16),
  }  # fmt: skip
  assert {name: (one.chips, one.hosts) for name in sizes if (one := tpu.Accelerator(name))} == sizes


def test_each_generation_has_its_compiler_flags(tpu):
  import accelerators

  flags = {one.xla_flags for one in accelerators.GENERATIONS.values()}
  assert flags == set(xla_flags.PLATFORMS) - {'gpu'}


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (('create', 'p', ZONE, '--accelerator=v5e-16'), "'v5e-16': it is .* Nearest: 'v5litepod-16'"),
    (('create', 'p', ZONE, '--accelerator=v5p-32x'), "'v5p-32x': it is v5litepod, v5p, v6e, a dash and a size"),
    (('create', 'p', ZONE, '--accelerator=v5p-48'), 'no v5p of 48 TensorCores. Nearest: v5p-32 and v5p-64'),
    (('create', 'p', '--zone=us-east5', '--accelerator=v5p-8'), "--zone is 'us-east5': a region, a dash"),
    (('create', 'Pod', ZONE, '--accelerator=v5p-8'), "the name is 'Pod': small letters"),
    (('create', 'p', ZONE, '--accelerator=v5p-8', '--slices=0'), '--slices is 0: 1 or more'),
    (('create', 'p', ZONE, '--accelerator=v5p-8', '--valid_until=soon'), "--valid_until is 'soon'"),
    (('setup', 'p', ZONE, '--bucket=gs://b'), "--bucket is 'gs://b': a name without gs://"),
    (('setup', 'p', ZONE, '--cache=b/cache'), "--cache is 'b/cache': gs://, a bucket"),
    (('setup', 'p', ZONE, '--cache=gs://b/c;rm'), "--cache is 'gs://b/c;rm'"),
    (('launch', 'p', ZONE), 'after -- come the arguments'),
    (('stop', 'p', ZONE, *TRAIN), 'stop takes nothing after --'),
    (
      ('xpk', 'p', ZONE, '--accelerator=v6e-64', '--cluster=c', '--image=i', *TRAIN, '--xla_flags=v5p'),
      '--xla_flags is v5p, and v6e-64 takes v6e or none',
    ),
  ],
)  # fmt: skip
def test_a_value_that_the_cloud_would_refuse_is_refused_here(tpu, capsys, argv, said):
  line = _refused(tpu, capsys, *argv)
  assert line.startswith('error: ')
  assert re.search(said, line), line


# ── watch ───────────────────────────────────────────────────────────────────────


class Cloud:
  """A cloud of one request: a list of (state, status of the run), one for each look."""

  def __init__(self, *looks):
    self.looks, self.ran = list(looks), []

  def ask(self, command):
    if 'describe' in command:
      self.now = self.looks.pop(0)
      return self.now[0]
    return self.now[1]

  def run(self, command):
    self.ran.append(
      'launch' if 'keep_running' in command[-1] else command[4] if command[0] == 'gcloud' else ''
    )


def _watch(tpu, cloud, *more):
  args = tpu._arguments(['watch', 'pod', ZONE, '--accelerator=v5p-64', '--spot', *more, *TRAIN])
  tpu.watch(args, run=cloud.run, ask=cloud.ask, sleep=lambda seconds: None)
  return cloud.ran


_START = ['create', '', 'scp', 'ssh', 'launch']


def test_preempted_machines_are_asked_for_again_until_the_run_is_complete(tpu):
  cloud = Cloud(
    (None, None), ('WAITING_FOR_RESOURCES', None), ('ACTIVE', 'new'), ('ACTIVE', 'running'), ('ACTIVE', None),
    ('SUSPENDING', None), ('SUSPENDED', None), ('PROVISIONING', None), ('ACTIVE', 'new'), ('ACTIVE', '0'),
  )  # fmt: skip
  assert _watch(tpu, cloud) == [*_START, 'delete', *_START, 'delete']
  assert not cloud.looks


def test_a_watch_that_is_started_again_launches_nothing_twice(tpu):
  assert _watch(tpu, Cloud(('ACTIVE', 'running'), ('ACTIVE', '0'))) == ['delete']


def test_a_run_that_fails_on_machines_that_are_there_is_told_with_what_they_cost(tpu):
  with pytest.raises(
    ValueError, match=r'ended with code 1; its log: .*still there, and cost: .* delete pod'
  ):
    _watch(tpu, Cloud(('ACTIVE', '1')))


def test_requests_are_bounded(tpu):
  cloud = Cloud((None, None), ('FAILED', None), ('FAILED', None))
  with pytest.raises(ValueError, match='FAILED after 2 requests: --requests allows no more'):
    _watch(tpu, cloud, '--requests=2')
  assert cloud.ran == ['create', 'delete', 'create']


# ── on the host ─────────────────────────────────────────────────────────────────


def _keep_running(home, tries, program, **environment):
  environment = {'HOME': str(home), 'JAXLINK_PAUSE_SECONDS': '0', **environment}
  return subprocess.Popen(
    ['bash', str(FOLDER / 'keep_running.sh'), str(tries), 'bash', '-c', program],
    env=os.environ | environment, cwd=home, text=True, stderr=subprocess.PIPE,
  )  # fmt: skip


def _status(home):
  assert not (home / 'jaxlink.pid').exists()
  return (home / 'jaxlink.status').read_text().strip()


def test_a_command_that_fails_is_started_again_until_it_succeeds(tmp_path):
  program = 'echo >> starts; [ $(wc -l < starts) -ge 3 ] || exit 1'
  loop = _keep_running(tmp_path, 5, program)
  said = loop.communicate(timeout=30)[1]
  assert (loop.returncode, _status(tmp_path)) == (0, '0')
  assert re.search(r'code 1 after \d+ s, failure 1 of 5', said)
  assert 'failure 2 of 5' in said
  assert (tmp_path / 'starts').read_text() == '\n' * 3


def test_one_that_always_fails_ends_with_its_code(tmp_path):
  loop = _keep_running(tmp_path, 2, 'echo >> starts; exit 7')
  loop.communicate(timeout=30)
  assert (loop.returncode, _status(tmp_path)) == (7, '7')
  assert (tmp_path / 'starts').read_text() == '\n' * 2


def test_failures_after_a_long_time_are_not_counted(tmp_path):
  program = 'echo >> starts; [ $(wc -l < starts) -ge 4 ] || exit 1'
  loop = _keep_running(tmp_path, 2, program, JAXLINK_EARLY_SECONDS='0')
  loop.communicate(timeout=30)
  assert (loop.returncode, _status(tmp_path)) == (0, '0')


@pytest.mark.parametrize('code', [2, 130, 143])
def test_one_that_was_stopped_is_not_started_again(tmp_path, code):
  loop = _keep_running(tmp_path, 5, f'echo >> starts; exit {code}')
  loop.communicate(timeout=30)
  assert (loop.returncode, _status(tmp_path)) == (code, str(code))
  assert (tmp_path / 'starts').read_text() == '\n'


def test_a_signal_is_handed_on_and_the_command_may_finish(tmp_path):
  program = """trap 'sleep 0.5; echo saved > saved; exit 143' TERM; touch there; while true; do sleep 0.1; done"""
  loop = _keep_running(tmp_path, 5, program)
  while not (tmp_path / 'there').exists():
    assert loop.poll() is None
    time.sleep(0.05)
  assert int((tmp_path / 'jaxlink.pid').read_text()) == loop.pid
  assert (tmp_path / 'jaxlink.status').read_text() == 'running\n'
  second = _keep_running(tmp_path, 5, 'true')
  assert f'process {loop.pid} is running here already' in second.communicate(timeout=30)[1]
  assert second.returncode == 2
  loop.send_signal(signal.SIGTERM)
  loop.communicate(timeout=30)
  assert (loop.returncode, _status(tmp_path)) == (143, '143')
  assert (tmp_path / 'saved').read_text() == 'saved\n'


def test_the_bucket_is_mounted_once_and_its_names_are_not_remembered(tmp_path):
  for name, text in (
    ('gcsfuse', 'echo "$@" >> "$HOME/mounts"; touch "$HOME/mounted"'), ('mountpoint', '[ -e "$HOME/mounted" ]'),
  ):  # fmt: skip
    (tmp_path / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
    (tmp_path / name).chmod(0o755)
  environment = os.environ | {'HOME': str(tmp_path), 'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
  for _ in range(2):
    subprocess.run(
      ['bash', str(FOLDER / 'mount.sh'), 'mine', str(tmp_path / 'bucket')],
      env=environment,
      check=True,
      timeout=60,
    )
  assert (tmp_path / 'bucket').is_dir()
  assert (
    tmp_path / 'mounts'
  ).read_text() == f'--implicit-dirs --metadata-cache-ttl-secs=0 mine {tmp_path}/bucket\n'


# ── what is installed ───────────────────────────────────────────────────────────


def test_container_and_machines_install_the_trainer_as_the_constraints_say():
  for name in ('Dockerfile', 'install.sh'):
    text = (FOLDER / name).read_text(encoding='utf-8').replace('\\\n', ' ')
    installs = [line for line in text.splitlines() if re.search(r'pip install', line)]
    assert all('--constraint constraints.txt' in line or '--editable .' in line or line.endswith('uv')
               for line in installs), installs  # fmt: skip
    assert 'jax[tpu]' in text
    assert '--requirement trainer-requirements.txt' in text
    assert '3.11' in text
    assert not re.search(r'seqio|tensorflow-|--index-url|https?://', text)


def test_the_container_copies_what_the_trainer_needs_and_nothing_else():
  lines = (FOLDER / 'Dockerfile').read_text(encoding='utf-8').splitlines()
  copied = {name for line in lines if line.startswith('COPY') for name in line.split()[1:-1]}
  assert all((ROOT / name).exists() for name in copied)
  ignored = (FOLDER / 'Dockerfile.dockerignore').read_text(encoding='utf-8').splitlines()
  assert '*' in ignored
  assert {line[1:] for line in ignored if line.startswith('!')} == copied
  (first,) = (line for line in lines if line.startswith('FROM'))
  assert re.fullmatch(r'FROM python:3\.\d+-slim-\w+', first)


@pytest.mark.parametrize('name', ['install.sh', 'mount.sh', 'keep_running.sh'])
def test_bash_reads_the_scripts(name):
  subprocess.run(['bash', '-n', str(FOLDER / name)], check=True)
  if shutil.which('shellcheck'):
    subprocess.run(['shellcheck', '--severity=warning', str(FOLDER / name)], check=True)


def test_the_pages_commands_are_taken(tpu, capsys):
  page = (FOLDER / 'README.md').read_text(encoding='utf-8').replace('\\\n', ' ')
  capitals = {'ZONE': 'us-east5-a', 'BUCKET': 'mine', 'CLUSTER': 'mine', 'USER': 'u'}
  lines = [
    shlex.split(re.sub('|'.join(capitals), lambda found: capitals[found[0]], line), comments=True)
    for line in page.splitlines()
    if line.startswith('python tools/tpu/tpu.py')
  ]
  assert {line[2] for line in lines} == {
    'create', 'status', 'setup', 'launch', 'follow', 'stop', 'delete', 'watch', 'xpk', 'xpk_delete',
  }  # fmt: skip
  for line in lines:
    assert '--go' in line
    line.remove('--go')
    assert _printed(tpu, capsys, *line[2:]), line


def test_the_constraints_leave_libtpu_to_jax():
  # jax[tpu] names the libtpu of its release; another one would make it impossible to install.
  lines = (ROOT / 'constraints.txt').read_text().splitlines()
  assert not [line for line in lines if line.startswith('libtpu')]
