"""The run's directory: what is recorded there, and whether a command may go on in it.

  lock               held by process 0 of the run that is going on, with its process id
  config.json        the resolved configuration; another one is refused
  stages.json        what each stage reads, frozen: caches, shares, positions
  starts.jsonl       a line for each start: versions, git revision, mesh, command, step, LINK dose
  metrics.jsonl, tensorboard/, evaluations.jsonl, checkpoints/

Easy to get wrong: what may change when a run goes on. Where it runs and how often it reports may, and
stages that have not begun; anything that changes a batch or an update that was made may not.
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
from collections.abc import Iterator
from typing import Any

import jax

from jaxlink import config, hosts, report, report_data, stage_data
from jaxlink.checkpoint import Keeper
from jaxlink.data.blocks import Blocks
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.windows import Windows
from jaxlink.evaluation import held_out
from jaxlink.evaluation.records import read_evaluations
from jaxlink.stage import Run
from jaxlink.stage_data import RunData

_MAY_CHANGE = (
  'directory', 'mesh', 'data', 'checkpoint', 'evaluation', 'compile_cache', 'max_skipped',
  'wandb_project',
)  # fmt: skip
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'gin-config')
_XZ_LIMIT = 8 << 20  # bytes of held-out text: xz takes about a second a megabyte


@contextlib.contextmanager
def claim(directory: pathlib.Path) -> Iterator[None]:
  """Holds the directory against a second run in it; called alike on all hosts.

  The lock ends with the process, however that ends.

  Raises:
    ValueError: another process holds it.
  """
  with contextlib.ExitStack() as stack:
    hosts.first_decides(lambda: stack.enter_context(locked(directory)))
    yield


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[bool]:
  """As `claim`, for a process that asks no other host."""
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
  """Raises ValueError where the directory holds a run of another configuration.

  Stages that have not begun may be another, more or fewer.
  """
  path = directory / 'config.json'
  if not path.exists():
    return
  old, new = json.loads(path.read_text(encoding='utf-8')), config.resolved(run)
  for name in _MAY_CHANGE:
    old.pop(name, None), new.pop(name, None)
  begun, done = 1, last_checkpoint(directory) or 0
  steps = 0
  for k, stage in enumerate(old['stages']):
    begun = k + 1 if steps < done or k == 0 else begun
    steps += -(-stage['tokens'] // (stage['batch'] * stage['sequence_length']))
  ended = steps <= done and len(old['stages']) == begun
  if left_out := [stage['name'] for stage in old['stages'][len(new['stages']) : begun]]:
    raise ValueError(
      f'{directory} holds a run of which stage {left_out[0]!r} has begun, and the recipe has no such stage. '
      'Add it to the recipe, or give Run.directory another name.'
    )
  old['stages'], new['stages'] = old['stages'][:begun], new['stages'][:begun]
  if changes := config.differences(old, new):
    more = ''
    if ended and any('.tokens' in change for change in changes):
      more = ' To train on, add a stage to Run.stages.'
    raise ValueError(
      f'{directory} holds a run with another configuration: {"; ".join(changes)}. '
      f'Give Run.directory another name, or the recipe its old values.{more}'
    )


def record_start(
  run: Run, directory: pathlib.Path, mesh: jax.sharding.Mesh, step: int, data: RunData
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
    'dose': {
      part.stage.name: {w.blocks.name: dose for w in part.batches.windows if (dose := _dose(w))}
      for part in data.stages
    },
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
  path = directory / 'config.json'
  if not path.exists():
    return False
  old = json.loads(path.read_text(encoding='utf-8'))
  if config.differences(old['stages'], config.resolved(run)['stages']):
    return False  # stages were added or left out
  return run.steps in read_evaluations(directory) and last_checkpoint(directory) == run.steps


def summary(run: Run, directory: pathlib.Path) -> str:
  """Returns what came out of a complete run; called alike on all hosts."""
  folder = directory / 'checkpoints'
  records = read_evaluations(directory)
  keeper = Keeper(str(folder), run.checkpoint, writer=False)
  meta = keeper.read_meta(run.steps)
  keeper.close()
  kept = stage_data.read(directory)
  first, last = records.get(0, {}).get('bits_per_byte', {}), records[run.steps]
  scores = last['bits_per_byte']
  skipped = report.describe_skipped(meta['skipped'], meta['skipped_in_a_row'], run.steps)
  lines = [
    f'complete: {run.steps:,} steps, {run.tokens_at(run.steps):,} tokens',
    report_data.describe_accounts(kept['stages']),
    *([skipped] if skipped else []),
    *report_data.describe_counts([stage.name for stage in run.stages], meta['counts']),
    *([report.describe_scores(first, scores, _xz(kept, run.data.cache_dir))] if scores else []),
    *(f'  generated: {report.clip(line)}' for line in last['lines']),
    f'checkpoint: {folder / str(run.steps)}',
    f'curves: tensorboard --logdir {directory}; every number: {directory / "metrics.jsonl"}',
    'next: give the recipe your own text and lexicon (README.md, "Your language").',
  ]
  return '\n'.join(lines)


def _xz(kept: dict[str, Any], cache_dir: str) -> dict[str, float]:
  from jaxlink.data.tokenizer import Tokenizer

  folders = {s['task']: os.path.join(cache_dir, s['folder']) for s in kept['evaluations']}
  caches = {task: Blocks(folder) for task, folder in folders.items() if os.path.isdir(folder)}
  if not caches:
    return {}
  tokenizer = Tokenizer(os.path.join(cache_dir, kept['tokenizer']['path']))
  return {
    task: held_out.xz_bits_per_byte(blocks, tokenizer.decode)
    for task, blocks in caches.items()
    if blocks.manifest['bytes'] <= _XZ_LIMIT
  }


def _git_revision() -> str:
  """The project's revision; '-dirty' where files differ from it, '-untracked' where it has code that git does not know."""
  here = pathlib.Path(__file__)

  def git(*words: str) -> str:
    done = subprocess.run(
      ['git', '-C', str(here.parent), *words],
      capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip
    return done.stdout.strip()

  try:
    # Installed, it may lie in somebody else's repository.
    git('ls-files', '--error-unmatch', here.name)
    revision = git('describe', '--always', '--dirty')
  except (OSError, subprocess.SubprocessError):
    return ''
  try:
    code = git('ls-files', '--others', '--exclude-standard', ':/*.py', ':/*.gin')
  except (OSError, subprocess.SubprocessError):  # many files on a slow disk: the revision is known
    return revision
  return revision + ('-untracked' if code else '')
