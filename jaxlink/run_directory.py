"""The run's directory: what is recorded there, and whether a command may go on in it.

  lock               held by process 0 of the run that is going on, with its process id
  config.json        the resolved configuration; another one is refused
  starts.jsonl       a line for each start: versions, git revision, mesh, command, step, LINK dose
  metrics.jsonl, tensorboard/, evaluations.jsonl, checkpoints/

Easy to get wrong: what may change when a run goes on. Where it runs and how often it reports may;
anything that changes a batch or an update may not.

And who looks: on several hosts, what is read here decides which collectives follow, while process 0
writes. So process 0 decides and tells the others (`first_decides`).
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlink import config, report
from jaxlink.checkpoint import Keeper
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.windows import Windows
from jaxlink.evaluation import held_out
from jaxlink.evaluation.in_loop import read_records
from jaxlink.stage import Run

_MAY_CHANGE = (
  'directory', 'mesh', 'data', 'checkpoint', 'evaluation', 'compile_cache', 'max_skipped',
  'wandb_project',
)  # fmt: skip
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'gin-config')
_XZ_LIMIT = 8 << 20  # bytes of held-out text: xz takes about a second a megabyte


def first_decides(decide: Callable[[], bool]) -> bool:
  """Returns on every host what `decide` returns on process 0, the only one that calls it.

  Raises:
    ValueError: on the other hosts, where `decide` raised on process 0.
  """
  if jax.process_count() == 1:
    return decide()
  answer, error = 0, None
  if jax.process_index() == 0:
    try:
      answer = int(decide())
    except Exception as caught:  # told to the others first, who would wait for ever
      answer, error = -1, caught
  answer = int(multihost_utils.broadcast_one_to_all(np.int32(answer)))
  if answer < 0:
    raise error or ValueError("process 0 refused the run's directory; its output says why.")
  return bool(answer)


@contextlib.contextmanager
def claim(directory: pathlib.Path) -> Iterator[None]:
  """Holds the directory against a second run in it; called alike on all hosts.

  The lock ends with the process, however that ends.

  Raises:
    ValueError: another process holds it.
  """
  with contextlib.ExitStack() as stack:
    first_decides(lambda: stack.enter_context(_locked(directory)))
    yield


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[bool]:
  directory.mkdir(parents=True, exist_ok=True)
  with open(directory / 'lock', 'a+', encoding='utf-8') as file:
    try:
      # Unlike flock: a worker process that outlives a kill for a moment does not inherit it.
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
      file.seek(0)
      raise ValueError(
        f'another run writes in {directory}: process {file.read().strip() or "unknown"}. '
        'Wait for it, stop it, or give Run.directory another name.'
      ) from None
    except OSError as error:
      print(f'{directory} cannot be locked ({error.strerror}): let no second run write there.')
    file.truncate(0)
    file.write(f'{os.getpid()} on {platform.node()}\n')
    file.flush()
    yield True


def check_config(run: Run, directory: pathlib.Path) -> None:
  """Raises ValueError where the directory holds a run of another configuration."""
  path = directory / 'config.json'
  if not path.exists():
    return
  old, new = json.loads(path.read_text(encoding='utf-8')), config.resolved(run)
  for name in _MAY_CHANGE:
    old.pop(name, None), new.pop(name, None)
  if changes := config.differences(old, new):
    raise ValueError(
      f'{directory} holds a run with another configuration: {"; ".join(changes)}. '
      'Give Run.directory another name, or the recipe its old values.'
    )


def check_data(meta: dict[str, Any], batches: Batches) -> None:
  """Raises ValueError where a checkpoint was made with other batches than these."""
  if meta['batches'] == batches.fingerprint:
    return
  now = {w.blocks.name: w.blocks.fingerprint for w in batches.windows}
  changed = [name for name, old in meta['caches'].items() if now.get(name) != old]
  raise ValueError(
    f'the data has changed since the checkpoint of step {meta["step"]:,}'
    + (f': {", ".join(changed)} has another fingerprint' if changed else '')
    + '. A run goes on with the data that it began with; give Run.directory another name.'
  )


def record_start(
  run: Run, directory: pathlib.Path, mesh: jax.sharding.Mesh, step: int, batches: Batches
) -> dict[str, Any]:
  """Writes the configuration, adds a line on this start, and returns what that line holds."""
  path = directory / 'config.json'
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(config.resolved(run), indent=1), encoding='utf-8')
  partial.replace(path)
  start = {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'step': step,
    'command': sys.argv,
    'git': _git_revision(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in _PACKAGES},
    'mesh': dict(mesh.shape),
    'device': mesh.devices.flat[0].device_kind,
    'hosts': jax.process_count(),
    'dose': {w.blocks.name: dose for w in batches.windows if (dose := _dose(w))},
  }  # fmt: skip
  with open(directory / 'starts.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps(start, ensure_ascii=False) + '\n')
  return start


def _dose(window: Windows | LinkedWindows) -> dict[str, Any] | None:
  """What is known of a source's LINK before the run: counts of all its text, or of a sample."""
  if isinstance(window, LinkedWindows):
    return {
      'sample': window.sample.counts,
      'probability': window.probability(0),
      'stride': str(window.stride),
      'lexicons': window.table.meta['lexicons'],
    }
  return window.blocks.manifest['dose']


def last_checkpoint(directory: pathlib.Path) -> int | None:
  """Returns the last committed step, by the names in the directory, or None."""
  folders = (directory / 'checkpoints').glob('*')
  return max((int(f.name) for f in folders if f.name.isdigit()), default=None)


def complete(run: Run, directory: pathlib.Path) -> bool:
  """Whether the run is trained, evaluated and saved to its last step."""
  (stage,) = run.stages
  return stage.steps in read_records(directory) and last_checkpoint(directory) == stage.steps


def summary(run: Run, directory: pathlib.Path) -> str:
  """Returns what came out of a complete run; called alike on all hosts."""
  (stage,) = run.stages
  folder = directory / 'checkpoints'
  records = read_records(directory)
  meta = Keeper(str(folder), run.checkpoint, writer=False).read_meta(stage.steps)
  kept = resolve.kept_path(resolve.make_request(run), run.data.cache_dir)
  references = _xz(resolve.read(kept, run.data.cache_dir)) if pathlib.Path(kept).exists() else {}
  first, last = records.get(0, {}).get('bits_per_byte', {}), records[stage.steps]
  tokens = ', '.join(f'{name} {count:,}' for name, count in meta['tokens'].items())
  skipped = report.describe_skipped(meta['skipped'], meta['skipped_in_a_row'], stage.steps)
  lines = [
    f'complete: {stage.steps:,} steps; tokens read: {tokens}',
    *([skipped] if skipped else []),
    *(report.describe_realised(name, dose) for name, dose in meta.get('counts', {}).items()),
    report.describe_scores(first, last['bits_per_byte'], references),
    *(f'  generated: {report.clip(line)}' for line in last['lines']),
    f'checkpoint: {folder / str(stage.steps)}',
    f'curves: tensorboard --logdir {directory}; every number: {directory / "metrics.jsonl"}',
    'next: give the recipe your own text and lexicon (README.md, "Your language").',
  ]
  return '\n'.join(lines)


def _xz(data: resolve.Resolution) -> dict[str, float]:
  from jaxlink.data.tokenizer import Tokenizer

  tokenizer = Tokenizer(data.tokenizer['path'])
  caches = {source.task: Blocks(source.folder) for source in data.evaluations}
  return {
    task: held_out.xz_bits_per_byte(blocks, tokenizer.decode)
    for task, blocks in caches.items()
    if blocks.manifest['bytes'] <= _XZ_LIMIT
  }


def _git_revision() -> str:
  command = ['git', '-C', str(pathlib.Path(__file__).parent), 'describe', '--always', '--dirty']
  try:
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return result.stdout.strip()
