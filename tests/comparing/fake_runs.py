"""Run directories as `jaxlink.train` leaves them, with curves that are chosen: for tests of what reads them."""

import copy
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jaxlink import config
from jaxlink.data.mixing import MixingConfig
from jaxlink.link.policy import LinkPolicy
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig
from jaxlink.stage import Run, Stage

BATCH, LENGTH = 8, 128
GRID = tuple(range(0, 2_048_001, 128_000))
TOKENIZER = 'c3e3440d364a33290add382115c5c0293bd9b84c4d5aa0c32e1a756faf54859c'


def recipe(
  directory: pathlib.Path, seed: int = 0, *, tokens: int = GRID[-1], rate: float = 4e-3, link: float = 0.0,
  width: int = 64, languages: Sequence[str] = ('en', 'tr'),
) -> dict:  # fmt: skip
  """The resolved configuration of a run; `link` is its word ratio, 0 for none."""
  sources = [f'sample_{language}' for language in languages]
  policy = {'sample_en': LinkPolicy(lexicon='sample_tr', word_ratio=link)} if link else {}
  stage = Stage(
    mixture='_'.join(sources), tokens=tokens, batch=BATCH, sequence_length=LENGTH,
    optimizer=OptimizerConfig(learning_rate=rate, schedule='wsd'), link=policy, mixing=MixingConfig(),
  )  # fmt: skip
  run = Run(
    directory=str(directory), modules=('tasks.sample',), stages=(stage,),
    model=DecoderConfig(layers=2, width=width, heads=2, feedforward=96),
    seed_init=seed, seed_order=seed, seed_link=seed,
  )  # fmt: skip
  return json.loads(json.dumps(config.resolved(run)))


def make(
  directory: pathlib.Path, curves: Mapping[str, Callable[[int], float]], *, seed: int = 0,
  grid: Sequence[int] = GRID, unique: int = 2_045_895, tokenizer: str = TOKENIZER, text: str = '',
  records: Sequence[Mapping] = (), **changes,
) -> str:  # fmt: skip
  """Writes a run whose held-out bits per byte of each task are a function of trained tokens.

  Args:
    directory: of the run.
    curves: held-out task ('sample_tr') → tokens → bits per byte.
    seed: all three.
    grid: evaluated tokens.
    unique: tokens of the Turkish text.
    tokenizer: its SHA-256.
    text: changes the fingerprint of the training text.
    records: of evaluation sets, for scores.jsonl.
    **changes: to `recipe`.
  """
  directory.mkdir(parents=True)
  made = recipe(directory, seed, **changes)
  (directory / 'config.json').write_text(json.dumps(made, indent=1), encoding='utf-8')
  stage, trained = made['stages'][0], grid[-1]
  tasks = ['sample_' + name for name in stage['mixture'].removeprefix('sample_').split('_sample_')]
  sizes = {task: unique if task == 'sample_tr' else 1_828_185 for task in tasks}
  share = {task: trained // len(tasks) for task in tasks}

  def folder(task: str, split: str, of: str) -> str:
    return f'{task}/{split}-{hashlib.sha256(f"{task}{tokenizer}{of}".encode()).hexdigest()[:16]}'

  kept = {
    'format': 1,
    'tokenizer': {'path': 'tokenizer.model', 'sha256': tokenizer, 'size': 8192, 'bos': 2, 'eos': 1},
    'evaluations': [
      {'task': task, 'language': task[-2:], 'folder': folder(task, 'validation', ''), 'link': ''}
      for task in curves
    ],
    'stages': [{
      'config': stage,
      'sources': [
        {'task': task, 'language': task[-2:], 'folder': folder(task, 'train', text),
         'link': 'link/e6ee93e134cf686a' if task in stage['link'] else ''}
        for task in tasks
      ],
      'tokens': sizes,
      'account': {task: {'all_tokens': share[task], 'all_repetitions': share[task] / sizes[task]} for task in tasks},
    }],
  }  # fmt: skip
  (directory / 'stages.json').write_text(json.dumps(kept), encoding='utf-8')
  start = {
    'time': '2026-11-21T09:03:42+00:00', 'step': 0, 'git': 'de6a2dd', 'python': '3.11.7',
    'versions': {'jax': '0.10.2', 'numpy': '2.4.6'}, 'device': 'cpu',
  }  # fmt: skip
  _lines(directory / 'starts.jsonl', [start])
  last = {'step': trained // (BATCH * LENGTH), 'loss': 5.97, 'trained_tokens': trained}
  for task in tasks:
    last |= {f'tokens/{task}': share[task], f'repetitions/{task}': share[task] / sizes[task]}
  if stage['link']:
    last |= {
      'link/sample_en/words': 118_266, 'link/sample_en/replaced': 13_389,
      'link/sample_en/realised_all': 0.1132, 'link/sample_en/realised_covered': 0.298,
      'link/sample_en/inflation': 1.0426,
    }  # fmt: skip
  _lines(directory / 'metrics.jsonl', [{'step': 0, 'bits_per_byte/sample_tr': 3.4}, last])
  evaluations = [
    {
      'step': tokens // (BATCH * LENGTH), 'trained_tokens': tokens,
      'bits_per_byte': {task: curve(tokens) for task, curve in curves.items()}, 'lines': [],
    }
    for tokens in grid
  ]  # fmt: skip
  _lines(directory / 'evaluations.jsonl', evaluations)
  if records:
    _lines(directory / 'scores.jsonl', records)
  return str(directory)


@dataclasses.dataclass(frozen=True)
class Law:
  """Bits per byte over tokens: floor + drop · ((tokens · speed + late) / late)^-power + offset."""

  speed: float = 1.0
  offset: float = 0.0
  floor: float = 1.6
  drop: float = 1.8
  late: float = 200_000
  power: float = 0.6

  def __call__(self, tokens: int) -> float:
    return self.floor + self.offset + self.drop * ((tokens * self.speed + self.late) / self.late) ** -self.power  # fmt: skip


def record(step: int, name: str = 'xcopa_tr', accuracy: float = 0.55, **changes) -> dict:
  """A line of scores.jsonl, of 500 items with two choices."""
  half = 0.044
  made = {
    'step': step, 'trained_tokens': step * BATCH * LENGTH, 'set': name, 'kind': 'choice', 'language': 'tr',
    'identity': '1-131d3c8b2f5a', 'items': 500, 'cut': 0, 'contaminated': None,
    'scores': {
      'accuracy': {'value': accuracy, 'low': accuracy - half, 'high': accuracy + half, 'chance': 0.5, 'better': 'higher'},
      'accuracy_byte': {'value': accuracy, 'low': accuracy - half, 'high': accuracy + half, 'chance': 0.5, 'better': 'higher'},
      'gap': {'value': accuracy - 0.5, 'low': accuracy - 0.5 - half, 'high': accuracy - 0.5 + half, 'chance': 0.0, 'better': 'higher'},
    },
  }  # fmt: skip
  return copy.deepcopy(made | changes)


def _lines(path: pathlib.Path, records: Sequence[Mapping]) -> None:
  text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in records)
  path.write_text(text, encoding='utf-8')
