"""A run's directory as training leaves it, made in a moment: fresh parameters, a real tokenizer and meta."""

import dataclasses
import json
import os
import pathlib

import jax

from jaxlink import config, mesh, step
from jaxlink.checkpoint import CheckpointConfig, Keeper
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.mesh import MeshConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.optimizer import OptimizerConfig, make_optimizer
from jaxlink.stage import DataConfig, Run, Stage

TOKENIZER = pathlib.Path(__file__).parents[2] / 'tasks/sample/tokenizer.model'
SIZE = 8192
VOCABULARY = 8320  # padded


def make(folder: pathlib.Path, **model) -> step.TrainState:
  """Writes a run of 30 steps, saved on a mesh of eight devices, and returns its state.

  Its parameters are twice the average of parameters that it keeps.
  """
  fields = {
    'layers': 2,
    'width': 16,
    'heads': 4,
    'kv_heads': 2,
    'feedforward': 24,
    'max_length': 64,
  }
  decoder = DecoderConfig(**{**fields, **model})
  optimizer = OptimizerConfig(ema_decay=0.9)
  run = Run(
    directory=str(folder),
    modules=('tasks.sample',),
    stages=(
      Stage(mixture='sample', tokens=30 * 512, batch=8, sequence_length=64, optimizer=optimizer),
    ),
    model=decoder,
    data=DataConfig(cache_dir=str(folder.parent / 'cache')),
  )
  devices = mesh.make_mesh(MeshConfig(data=1, fsdp=4, tensor=2), jax.devices())
  resolved = decoder.resolve(platform='cpu', vocabulary=VOCABULARY)
  transformation = make_optimizer(optimizer, 30, model=resolved)
  state = step.init_state(resolved, transformation, devices, 0)
  state = dataclasses.replace(state, params=jax.tree.map(lambda leaf: 2 * leaf, state.params))
  reading = {'orders': {}, 'epochs': 1, 'passed': '1', 'sequences': 240, 'tokens': 15_360}
  meta = {
    'step': 30, 'stage': 0, 'stage_name': 'pretrain', 'trained_tokens': 15_360,
    'accounts': {'sample_tr': {'tokens': 15_360, 'all_repetitions': 0.25}},
    'position': {'mixture': '', 'phase': 0, 'readings': {'sample_tr': reading}},
    'tokenizer': Tokenizer(str(TOKENIZER)).sha256, 'config': config.resolved(run),
  }  # fmt: skip
  keeper = Keeper(str(folder / 'checkpoints'), CheckpointConfig())
  keeper.save(30, state, meta)
  keeper.close()
  kept = {'tokenizer': {'path': os.path.relpath(TOKENIZER, run.data.cache_dir)}}
  (folder / 'stages.json').write_text(json.dumps(kept), encoding='utf-8')
  score = {'step': 30, 'bits_per_byte': {'sample_tr': 1.875}, 'lines': []}
  (folder / 'evaluations.jsonl').write_text(json.dumps(score) + '\n', encoding='utf-8')
  return state
