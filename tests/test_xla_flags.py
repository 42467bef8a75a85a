"""The recommended flags: the installed compilers know each, and what a person has set wins.

The TPU compiler is not among the project's own packages: where it is, `make test-tpu` runs its test.
"""

import os
import re
import subprocess
import sys
import types

import pytest

from jaxlink import arguments, xla_flags
from tests.tiny_project import ROOT

_TOPOLOGIES = {'v5e': 'v5e:2x2', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:2x2'}

# The flags have to be read by a compiler that compiles: some values are looked at only then.
_COMPILE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
P, name = jax.sharding.PartitionSpec, sys.argv[1]
if name == 'here':
  devices = jax.devices()
else:
  devices = topologies.get_topology_desc(platform='tpu', topology_name=name).devices
mesh = jax.sharding.Mesh(np.array(devices).reshape(-1), ('fsdp',))
split = jax.sharding.NamedSharding(mesh, P('fsdp'))
x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=split)
jax.jit(lambda a, b: jnp.tanh(a @ b).sum()).lower(x, x).compile()
print('compiled')
"""


def _compile(where, environment):
  """Compiles a product in a process of its own and returns what it printed, errors included."""
  done = subprocess.run(
    [sys.executable, '-c', _COMPILE, where], text=True, timeout=120, check=False,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1'} | environment,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip
  assert (done.returncode == 0) == done.stdout.endswith('compiled\n'), done.stdout
  return done.stdout


def test_jaxlib_knows_the_flags_of_gpus_and_would_refuse_another():
  flags = xla_flags.environment('gpu')
  assert _compile('here', flags).endswith('compiled\n')
  said = _compile('here', {'XLA_FLAGS': flags['XLA_FLAGS'] + ' --xla_gpu_no_such_flag=true'})
  assert 'Unknown flag in XLA_FLAGS: --xla_gpu_no_such_flag=true' in said


@pytest.mark.parametrize('platform', _TOPOLOGIES)
def test_libtpu_knows_the_flags_of_tpus_and_would_refuse_another(platform):
  pytest.importorskip('libtpu')
  flags, where = xla_flags.environment(platform), _TOPOLOGIES[platform]
  assert _compile(where, flags).endswith('compiled\n')
  worse = {'LIBTPU_INIT_ARGS': flags['LIBTPU_INIT_ARGS'] + ' --xla_tpu_no_such_flag=true'}
  assert "Unknown command line flag 'xla_tpu_no_such_flag'" in _compile(where, worse)


def test_each_flag_says_where_why_since_when_and_by_whom():
  names = [flag.name for flag in xla_flags.FLAGS]
  assert len(set(names)) == len(names)
  for flag in xla_flags.FLAGS:
    assert flag.platforms
    assert set(flag.platforms) <= set(xla_flags.PLATFORMS)
    assert ('xla_gpu_' in flag.name) == (flag.platforms == ('gpu',))
    assert re.fullmatch(r'20\d\d-\d\d', flag.date)
    assert len(flag.reason) > 20
    assert len(flag.source) > 10
  for platform in xla_flags.PLATFORMS:
    ((variable, value),) = xla_flags.environment(platform).items()
    assert variable == ('XLA_FLAGS' if platform == 'gpu' else 'LIBTPU_INIT_ARGS')
    assert value.startswith('--xla_')


def test_what_a_person_has_set_wins():
  name = xla_flags.FLAGS[0].name
  environ = {'LIBTPU_INIT_ARGS': f'--{name}=false --xla_mine=1'}
  xla_flags.put('v5p', environ)
  flags = environ['LIBTPU_INIT_ARGS'].split()
  assert flags[:2] == [f'--{name}=false', '--xla_mine=1']
  assert flags[2:] == [
    str(flag) for flag in xla_flags.FLAGS if 'v5p' in flag.platforms and flag.name != name
  ]
  again = dict(environ)
  xla_flags.put('v5p', again)
  assert again == environ


def test_the_command_sets_them_before_jax_is_imported():
  program = (
    'import sys, os; from jaxlink import arguments; '
    "sys.argv = ['train', '--gin_file=a.gin', *sys.argv[1:]]; arguments.parse(''); "
    "print('jax' in sys.modules, os.environ.get('XLA_FLAGS'))"
  )

  def flags(*given):
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    done = subprocess.run(
      [sys.executable, '-c', program, *given], env=environment, cwd=ROOT, text=True, check=True,
      stdout=subprocess.PIPE,
    )  # fmt: skip
    return done.stdout.strip()

  assert flags() == 'False None'
  assert flags('--xla_flags=gpu') == f'False {xla_flags.environment("gpu")["XLA_FLAGS"]}'


def test_flags_of_another_device_are_refused(monkeypatch, capsys):
  def device(kind, platform):
    return types.SimpleNamespace(device_kind=kind, platform=platform)

  for platform, kind, group in (
    ('none', 'cpu', 'cpu'), ('v5e', 'TPU v5 lite', 'tpu'), ('v5p', 'TPU v5', 'tpu'),
    ('v6e', 'TPU v6 lite', 'tpu'), ('gpu', 'NVIDIA H200', 'gpu'),
  ):  # fmt: skip
    xla_flags.check(platform, device(kind, group))
  for platform, kind, group, allowed in (
    ('v5e', 'TPU v5', 'tpu', 'none or v5p'), ('gpu', 'cpu', 'cpu', 'none'),
    ('v5p', 'NVIDIA H200', 'gpu', 'none or gpu'),
  ):  # fmt: skip
    with pytest.raises(
      ValueError, match=rf'--xla_flags is {platform}, .* {kind}: give {allowed}\.'
    ):
      xla_flags.check(platform, device(kind, group))
  monkeypatch.setattr('sys.argv', ['train', '--gin_file=a.gin', '--xla_flags=v4'])
  with pytest.raises(SystemExit):
    arguments.parse('')
  assert "invalid choice: 'v4'" in capsys.readouterr().err


def test_the_page_shows_the_table():
  page = (ROOT / 'docs/performance.md').read_text(encoding='utf-8')
  assert xla_flags.table() in page
