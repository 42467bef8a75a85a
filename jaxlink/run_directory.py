"""The run's directory: what is recorded there, and whether a command may go on in it.

  config.json        the resolved configuration; another one is refused
  starts.jsonl       a line for each start: versions, git revision, mesh, command, step
  metrics.jsonl, tensorboard/, evaluations.jsonl, checkpoints/

Easy to get wrong: what may change when a run goes on. Where it runs and how often it reports may;
anything that changes a batch or an update may not.
"""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

from jaxlink import config, report
from jaxlink.checkpoint import Keeper
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.loader import Batches
from jaxlink.evaluation import held_out
from jaxlink.evaluation.in_loop import read_records
from jaxlink.stage import Run

_MAY_CHANGE = (
  'directory', 'mesh', 'data', 'checkpoint', 'evaluation', 'compile_cache', 'max_skipped',
)  # fmt: skip
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'gin-config')
_XZ_LIMIT = 8 << 20  # bytes of held-out text: xz takes about a second a megabyte

evaluations = read_records


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


def record_start(run: Run, directory: pathlib.Path, mesh: jax.sharding.Mesh, step: int) -> None:
  """Writes the configuration and adds a line on this start."""
  directory.mkdir(parents=True, exist_ok=True)
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
  }
  with open(directory / 'starts.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps(start) + '\n')


def finished(run: Run, directory: pathlib.Path) -> str | None:
  """Returns the summary of a complete run, or None where there is something left to do."""
  (stage,) = run.stages
  folder = directory / 'checkpoints'
  records = read_records(directory)
  if stage.steps not in records or not folder.is_dir():
    return None
  keeper = Keeper(str(folder), run.checkpoint, writer=False)
  if keeper.latest() != stage.steps:
    return None
  meta = keeper.read_meta(stage.steps)
  kept = resolve.kept_path(resolve.make_request(run), run.data.cache_dir)
  references = _xz(resolve.read(kept, run.data.cache_dir)) if pathlib.Path(kept).exists() else {}
  first, last = records.get(0, {}).get('bits_per_byte', {}), records[stage.steps]
  tokens = ', '.join(f'{name} {count:,}' for name, count in meta['tokens'].items())
  lines = [
    f'complete: {stage.steps:,} steps; tokens read: {tokens}',
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
