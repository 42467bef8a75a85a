"""A sweep over LINK's ratio prepares nothing and compiles nothing after its first run."""

import json
import pathlib

import pytest

pytestmark = pytest.mark.slow


def _files(folder: pathlib.Path) -> dict[str, int]:
  """Every file under a folder and when it was written, but for locks and stamps of use."""
  return {
    str(path.relative_to(folder)): path.stat().st_mtime_ns
    for path in folder.rglob('*')
    if path.is_file()
    and path.suffix != '.lock'
    and path.name != 'checked'
    and not path.name.endswith('-atime')
  }


def _steps(folder: pathlib.Path) -> dict[str, int]:
  """The compiled steps; small programs are kept only where compiling them took long."""
  return {name: time for name, time in _files(folder).items() if 'jit_train_step-' in name}


def test_five_ratios_share_one_cache_and_one_executable(project):
  def train(ratio: float) -> tuple[str, dict[str, int]]:
    run = project.folder / f'sweep-{ratio}'
    printed = project.train(
      run, f'LinkPolicy.word_ratio = {ratio}', 'LinkPolicy.doc_fraction = 1.0',
      'Stage.tokens = 2_048', 'EvaluationConfig.every_tokens = 0',
    )  # fmt: skip
    (meta,) = [
      json.loads(line) for line in (run / 'starts.jsonl').read_text(encoding='utf-8').splitlines()
    ]
    return printed, meta['dose']['pretrain']['tiny_en']

  train(0.05)
  data, compiled = project.folder / 'cache', project.folder / 'compiled'
  before = _files(data), _steps(compiled)
  assert before[1]
  replaced = []
  for ratio in (0.15, 0.3, 0.5, 1.0):
    printed, dose = train(ratio)
    assert 'data: preparing' not in printed
    assert dose['probability'] == ratio
    (line,) = [line for line in printed.splitlines() if line.startswith('LINK on tiny_en: ')]
    replaced.append(int(line.split()[3].replace(',', '')))
  assert (_files(data), _steps(compiled)) == before
  assert replaced == sorted(replaced)
  assert replaced[0] < replaced[-1]
