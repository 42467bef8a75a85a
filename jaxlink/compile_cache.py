"""JAX's persistent compile cache: on by default, a directory per host CPU, mended at start.

Out: compiled programs under `$JAXLINK_CACHE`, else `$XDG_CACHE_HOME`, else `~/.cache`, in
`jaxlink/xla/<CPU and jaxlib>`; a restart of a run then skips minutes of compiling.

Easy to get wrong: JAX writes an entry in place and never replaces one. What a kill leaves torn is
read at each later start, fails, is compiled again and is never written again: measured with jax
0.10.2 on CPU, a warning and no hit, for good. `enable` therefore removes torn entries. Programs for
another CPU's instructions crash or are refused, hence the directory's name: home directories are
often shared. Who sets JAX's own `JAX_COMPILATION_CACHE_DIR` gets that directory as it is.
"""

import hashlib
import os
import pathlib
import platform
import time
import warnings

import jax
import jaxlib
from jax._src import compilation_cache

_STAMP = 'checked'  # its time: entries older than this have been read whole once


def enable(directory: str | None = None) -> pathlib.Path:
  """Turns the cache on, for what is compiled from here on, and removes torn entries.

  Entries are read through once: at a start, those that are newer than the last start's look.

  Args:
    directory: the cache's root in place of the one from the environment, the same for the life of
      the process; `xla/<key>` goes below it.

  Returns:
    The directory in use.
  """
  folder = _folder(directory)
  folder.mkdir(parents=True, exist_ok=True)
  _remove_torn(folder)
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Small programs too: a run compiles dozens, and each costs more to compile than to read.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  jax.config.update('jax_raise_persistent_cache_errors', False)
  return folder


def _folder(directory: str | None) -> pathlib.Path:
  chosen = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  if directory is None and chosen:
    return pathlib.Path(chosen).expanduser().absolute()
  if directory is None:
    base = os.environ.get('JAXLINK_CACHE') or os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    directory = os.path.join(base, 'jaxlink')
  return pathlib.Path(directory).expanduser().absolute() / 'xla' / host_key()


def host_key() -> str:
  """jaxlib's version and a hash of the CPU's model and flags: 'jaxlib-0.10.2-x86_64-1f0c…'."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:  # not Linux
    lines = [f'model name: {platform.processor()}']
  # One line of each: the first core speaks for all. 'Features' is what ARM calls flags.
  names = ('vendor_id', 'cpu family', 'model', 'model name', 'flags', 'CPU part', 'Features')
  cpu = {}
  for line in lines:
    name, _, value = line.partition(':')
    if name.strip() in names:
      cpu.setdefault(name.strip(), ' '.join(sorted(value.split())))
  digest = hashlib.sha256(repr(sorted(cpu.items())).encode()).hexdigest()[:12]
  return f'jaxlib-{jaxlib.version.__version__}-{platform.machine()}-{digest}'


def _remove_torn(folder: pathlib.Path) -> None:
  stamp = folder / _STAMP
  checked = stamp.stat().st_mtime if stamp.exists() else 0.0
  now = time.time()
  torn = [
    entry
    for entry in folder.glob('*-cache')
    if entry.stat().st_mtime >= checked and not _is_whole(entry)
  ]
  for entry in torn:
    entry.unlink(missing_ok=True)
  if torn:
    warnings.warn(f'removed {len(torn)} torn entries from the compile cache {folder}', stacklevel=3)
  stamp.touch()
  os.utime(stamp, (now, now))


def _is_whole(entry: pathlib.Path) -> bool:
  try:
    # zlib or zstd, as JAX chose; either tells a torn stream from a whole one.
    return bool(compilation_cache.decompress_executable(entry.read_bytes()))
  except Exception:  # the two libraries' error types have no common base
    return False
