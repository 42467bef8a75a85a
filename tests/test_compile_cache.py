"""The compile cache: a second start hits it, also after a kill that left torn entries."""

import os
import pathlib
import subprocess
import sys

import pytest

from jaxlink import compile_cache

PROGRAM = """
import warnings
warnings.simplefilter('error')
import jax
import jax.numpy as jnp
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.rsplit('/', 1)[-1]))
jnp.ones(3).sum()  # something was compiled before
from jaxlink import compile_cache
with warnings.catch_warnings(record=True) as said:
  warnings.simplefilter('always')
  compile_cache.enable()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)  # this program is a small one
f = jax.jit(lambda x: jnp.tanh(x @ x.T).sum() + 3)
print(float(f(jnp.eye(4))), events.count('cache_hits') > 0, len(said))
"""


def start(cache: pathlib.Path) -> tuple[float, bool, int]:
  """Runs the program in a process of its own: its result, whether it hit the cache, warnings."""
  environment = os.environ | {'JAXLINK_CACHE': str(cache), 'JAX_PLATFORMS': 'cpu'}
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM], env=environment, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  value, hit, said = done.stdout.split()
  return float(value), hit == 'True', int(said)


def entries(cache: pathlib.Path) -> list[pathlib.Path]:
  return sorted((cache / 'jaxlink' / 'xla' / compile_cache.host_key()).glob('*-cache'))


def test_a_second_start_hits_and_torn_entries_are_mended(tmp_path):
  value, hit, said = start(tmp_path)
  assert (hit, said) == (False, 0)
  assert entries(tmp_path)
  assert start(tmp_path) == (value, True, 0)
  for share in (0.5, 0.0):  # a kill in the middle of a write, and just after the file was made
    whole = {entry: entry.read_bytes() for entry in entries(tmp_path)}
    for entry, data in whole.items():
      entry.write_bytes(data[: int(len(data) * share)])
    assert start(tmp_path) == (value, False, 1)  # right, and says what it removed
    assert start(tmp_path) == (value, True, 0)
    assert entries(tmp_path) == list(whole)


def test_whole_entries_stay_and_are_read_only_once(tmp_path, monkeypatch):
  from jax._src import compilation_cache  # as JAX writes them, with whichever library it finds

  good, torn = tmp_path / 'a-cache', tmp_path / 'b-cache'
  good.write_bytes(compilation_cache.compress_executable(b'program'))
  torn.write_bytes(good.read_bytes()[:-1])
  with pytest.warns(UserWarning, match='removed 1 torn entries'):
    compile_cache._remove_torn(tmp_path)
  assert good.exists()
  assert not torn.exists()
  os.utime(good, (1, 1))
  monkeypatch.setattr(compile_cache, '_is_whole', lambda entry: pytest.fail(f'read {entry} again'))
  compile_cache._remove_torn(tmp_path)


def test_the_key_names_jaxlib_and_the_cpu(monkeypatch):
  import jaxlib

  key = compile_cache.host_key()
  assert key == compile_cache.host_key()
  assert jaxlib.version.__version__ in key
  text = pathlib.Path('/proc/cpuinfo').read_text()
  other = text.replace('avx2', 'avx3').replace('asimd', 'asimx')
  assert other != text
  monkeypatch.setattr(pathlib.Path, 'read_text', lambda self: other)
  assert compile_cache.host_key() != key


def test_the_directory_comes_from_the_argument_then_from_the_environment(monkeypatch):
  key = compile_cache.host_key()
  for name in ('JAX_COMPILATION_CACHE_DIR', 'JAXLINK_CACHE', 'XDG_CACHE_HOME'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('HOME', '/home/ayse')
  assert compile_cache._folder(None) == pathlib.Path('/home/ayse/.cache/jaxlink/xla', key)
  monkeypatch.setenv('XDG_CACHE_HOME', '/xdg')
  assert compile_cache._folder(None) == pathlib.Path('/xdg/jaxlink/xla', key)
  monkeypatch.setenv('JAXLINK_CACHE', '/scratch')
  assert compile_cache._folder(None) == pathlib.Path('/scratch/jaxlink/xla', key)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/jax')
  assert compile_cache._folder(None) == pathlib.Path('/jax')
  assert compile_cache._folder('/mine') == pathlib.Path('/mine/xla', key)
