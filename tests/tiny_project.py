"""A project small enough for tests that run the real commands: text, tokenizer, tasks and a recipe.

The text is the beginning of the sample's, so words, scripts and lexicon are real.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from jaxlink import config, stage_data
from jaxlink.data import sources, tokenizer
from jaxlink.stage import Run

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = ROOT / 'tasks/sample'

_MODULE = """
from pathlib import Path
from jaxlink.data.register import register_corpus, register_language, register_mixture
HERE = Path({folder!r})
register_corpus('tiny_en', {{'train': HERE / 'en.jsonl', 'validation': HERE / 'en_held_out.jsonl'}},
                language='en', tokenizer=HERE / 'tokenizer.model')
register_language('tiny_tr', {{'train': HERE / 'tr.txt', 'validation': HERE / 'tr_held_out.txt'}},
                  language='tr', tokenizer=HERE / 'tokenizer.model', auxiliary='tiny_en',
                  lexicon=HERE / 'en-tr.tsv', share=0.5, mixture='tiny')
register_corpus('tiny_more', {{'train': HERE / 'more.txt'}}, language='en',
                tokenizer=HERE / 'tokenizer.model')
register_mixture('tiny_three', {{'tiny_en': 0.5, 'tiny_tr': 0.2, 'tiny_more': 0.3}})
"""

_RECIPE = """
Run.directory = {run!r}
Run.modules = ['tiny_tasks']
Run.model = @DecoderConfig()
Run.stages = [@Stage()]
Run.data = @DataConfig()
Run.checkpoint = @CheckpointConfig()
Run.evaluation = @EvaluationConfig()
DecoderConfig.layers = 2
DecoderConfig.width = 32
DecoderConfig.heads = 2
DecoderConfig.feedforward = 64
DecoderConfig.max_length = 64
DataConfig.cache_dir = {cache!r}
DataConfig.shards = 2
Stage.mixture = 'tiny'
Stage.rates = {{'tiny_tr': 0.7, 'tiny_en': 0.3}}
Stage.link = {{'tiny_en': @LinkPolicy()}}
Stage.tokens = 10_240
Stage.batch = 8
Stage.sequence_length = 64
Stage.optimizer = @OptimizerConfig()
OptimizerConfig.learning_rate = 1e-2
LinkPolicy.lexicon = 'tiny_tr'
LinkPolicy.language = 'tr'
CheckpointConfig.every_steps = 5
EvaluationConfig.every_tokens = 5_120
EvaluationConfig.batch = 8
EvaluationConfig.prompts = ('Türkiye',)
EvaluationConfig.generate_tokens = 4
"""


@dataclasses.dataclass(frozen=True)
class Project:
  """Paths of a tiny project, and its commands."""

  folder: pathlib.Path

  @property
  def recipe(self) -> str:
    """The gin file."""
    return str(self.folder / 'tiny.gin')

  def command(
    self, run: pathlib.Path | str, *bindings: str, arguments: Sequence[str] = ()
  ) -> list[str]:
    """The command that trains the recipe in another run directory."""
    command = [sys.executable, '-m', 'jaxlink.train', f'--gin_file={self.recipe}', *arguments]
    return command + [f'--gin_bindings={b}' for b in (f"Run.directory = '{run}'", *bindings)]

  def environment(self, devices: int = 1) -> dict[str, str]:
    """The environment of the commands; compiled steps are kept beside the project."""
    return {
      **os.environ,
      'PYTHONPATH': str(self.folder),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      'JAXLINK_CACHE': str(self.folder / 'compiled'),
    }

  def start(self, run: pathlib.Path | str, *bindings: str, devices: int = 1) -> subprocess.Popen:
    """Starts the real command in a process group of its own."""
    return subprocess.Popen(
      self.command(run, *bindings),
      env=self.environment(devices), cwd=self.folder, text=True, start_new_session=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip

  def train(
    self, run: pathlib.Path | str, *bindings: str, devices: int = 1, code: int = 0,
    arguments: Sequence[str] = (),
  ) -> str:  # fmt: skip
    """Runs the real command to its end and returns what it printed."""
    done = subprocess.run(
      self.command(run, *bindings, arguments=arguments),
      env=self.environment(devices), cwd=self.folder, text=True, timeout=300, check=False,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def make(folder: pathlib.Path) -> Project:
  """Writes a tiny project into an empty folder."""
  turkish = _beginning('tr.train.txt.gz', 60_000)
  english = _beginning('en.train.jsonl.gz', 60_000)
  more = _beginning('en.train.jsonl.gz', 100_000)[len(english) :]
  (folder / 'tr.txt').write_text('\n\n'.join(turkish[:-2]), encoding='utf-8')
  (folder / 'more.txt').write_text('\n\n'.join(more), encoding='utf-8')
  (folder / 'tr_held_out.txt').write_text('\n\n'.join(turkish[-2:]), encoding='utf-8')
  # Articles are long; paragraphs make enough documents to draw from.
  paragraphs = [p for article in english for p in article.split('\n\n') if p]
  for name, part in (('en', paragraphs[:-5]), ('en_held_out', paragraphs[-5:])):
    lines = [json.dumps({'text': text}, ensure_ascii=False) for text in part]
    (folder / f'{name}.jsonl').write_text('\n'.join(lines), encoding='utf-8')
  (folder / 'en-tr.tsv').write_bytes((SAMPLE / 'en-tr.tsv').read_bytes())
  tokenizer.train_sentencepiece(turkish + paragraphs, 700, str(folder / 'tokenizer.model'))
  (folder / 'tiny_tasks.py').write_text(_MODULE.format(folder=str(folder)), encoding='utf-8')
  recipe = _RECIPE.format(run=str(folder / 'run'), cache=str(folder / 'cache'))
  (folder / 'tiny.gin').write_text(recipe, encoding='utf-8')
  return Project(folder)


QUIET = ("EvaluationConfig.split = ''", 'EvaluationConfig.prompts = ()')


def parse(project: Project, directory: pathlib.Path | str, *bindings: str) -> Run:
  """The recipe's run in another directory; `QUIET` among the bindings evaluates nothing."""
  return config.parse(Run, [project.recipe], [f"Run.directory = '{directory}'", *bindings])


def metrics_of(directory: pathlib.Path | str) -> list[dict]:
  """The lines of a run's metrics that have a loss."""
  text = (pathlib.Path(directory) / 'metrics.jsonl').read_text(encoding='utf-8')
  return [line for line in map(json.loads, text.splitlines()) if 'loss' in line]


def open_stage(run: Run) -> stage_data.StageData:
  """The data of a run's first stage, its caches built if they are not there."""
  return stage_data.open_stages(run).stages[0]


def _beginning(name: str, size: int) -> list[str]:
  texts, taken = [], 0
  for document in sources.read_documents(str(SAMPLE / name)):
    texts.append(document.text)
    taken += len(document.text.encode())
    if taken >= size:
      return texts
  raise AssertionError(f'{name} is too short')
