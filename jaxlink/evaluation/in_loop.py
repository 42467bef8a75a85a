"""Evaluation while a run trains: bits per byte of held-out text, scores of evaluation sets, generated lines.

Everything is compiled once, when the evaluator is made. Scores go to the run's metrics and, with the generated
lines, to `evaluations.jsonl`, one JSON object for each evaluated step.

Records of sets have no contamination: `python -m jaxlink.evaluate` looks for it.

Easy to get wrong: an evaluation that a killed run left behind. On resume, lines after the restored step
go, and an evaluation that was due at that step and is not there is made up for.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink import metrics
from jaxlink import step as step_lib
from jaxlink.data.blocks import Blocks
from jaxlink.evaluation import held_out, items, judging, records
from jaxlink.evaluation.scoring import Scorer
from jaxlink.generation import text as text_lib
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.model.shape import DecoderConfig
from jaxlink.run_model import RunModel
from jaxlink.stage import Run
from jaxlink.stage_data import RunData

_SAID = ('accuracy', 'gap', 'bits_per_byte')  # on the line of an evaluation


class Evaluator:
  """Scores a run's parameters; called alike on all hosts.

  Args:
    run: the recipe.
    model: resolved.
    mesh: of the run.
    params: abstract, with shardings.
    data: with the held-out caches and the tokenizer.
    start: finished updates; what was recorded after them is removed.
    writer: whether this process keeps the records.

  Raises:
    ValueError: a prompt and its continuation are longer than the model allows.
  """

  def __init__(
    self, run: Run, *, model: DecoderConfig, mesh: jax.sharding.Mesh, params: Any,
    data: RunData, start: int, writer: bool,
  ):  # fmt: skip
    self._settings, self._run_config, self._seed = run.evaluation, run, run.seed_init
    self._tokenizer, self._bos = data.tokenizer, held_out.opening(data.special)
    self._path = pathlib.Path(run.directory) / 'evaluations.jsonl'
    self._writer = writer
    length = run.evaluation_length
    # A batch that the mesh can split, whatever was asked.
    ways = mesh_lib.batch_ways(mesh)
    batch = -(-self._settings.batch // ways) * ways
    self.texts = {
      source.task: held_out.read_held_out(Blocks(source.folder), length=length, batch=batch)
      for source in data.evaluations
    }
    if self.texts:
      abstract = step_lib.abstract_batch(batch, length, mesh)
      step = step_lib.make_eval_step(model, mesh, loss_config=run.loss)
      self._score = step_lib.compile_eval_step(step, params, abstract)
      self._sharding = mesh_lib.batch_sharding(mesh)
    if self._settings.prompts:
      self._sampler = Sampler(
        model, mesh, eos=data.special['eos'], vocabulary=data.tokenizer.size,
        sampling=Sampling(self._settings.temperature), batch=len(self._settings.prompts),
      )  # fmt: skip
      lengths = self._lengths(model.max_length)
      self._sampler.prepare(params, lengths, self._settings.generate_tokens)
    self._judges = self._prepare_sets(model, mesh, params, data)
    if writer:
      metrics.cut_back(self._path, start)

  def due(self, step: int) -> bool:
    """Whether the state after `step` updates is evaluated: at the start, after each stage, and between."""
    run, every = self._run_config, self._settings.every_tokens
    if step in {run.first_step(k) for k in range(len(run.stages) + 1)}:
      return True
    return every > 0 and run.tokens_at(step) // every > run.tokens_at(step - 1) // every

  def __call__(
    self, step: int, params: Any, log: metrics.Metrics, stopped: Callable[[], bool]
  ) -> dict[str, float] | None:
    """Scores the parameters after `step` updates, and records it.

    Returns:
      Bits per byte of each task, and the main scores of each set; None where `stopped` became true on the
      way.
    """
    scores = {}
    with jax.transfer_guard('allow'):
      for task, text in self.texts.items():
        score = held_out.bits_per_byte(text, functools.partial(self._run, params), stopped)
        if score is None:
          return None
        scores[task] = score
      judged = {}
      for judge in self._judges:
        verdict = judge(params, stopped=stopped)
        if verdict is None:
          return None
        judged[judge.set.name] = records.make_record(judge.set, verdict)
      lines = self._generate(params, step)
    values = {f'bits_per_byte/{task}': score for task, score in scores.items()}
    for name, record in judged.items():
      values |= {f'{score}/{name}': entry['value'] for score, entry in record['scores'].items()}
    log.write(step, {name: value for name, value in values.items() if value is not None})
    if self._writer:
      with open(self._path, 'a', encoding='utf-8') as file:
        values, odd = metrics.split_nonfinite(scores)
        record = {'step': step, 'trained_tokens': self._run_config.tokens_at(step)}
        record |= {'bits_per_byte': values, 'lines': lines}
        record |= {'scores': judged} if judged else {}
        record |= {'nonfinite': odd} if odd else {}
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + '\n')
    return scores | {
      f'{name} {score}': judged[name]['scores'][score]['value']
      for name in judged for score in _SAID if score in judged[name]['scores']
    }  # fmt: skip

  def _prepare_sets(self, model, mesh, params, data) -> list[judging.Judge]:
    """A judge of each evaluation set, with all that it needs compiled."""
    if not data.set_folders:
      return []
    loaded = RunModel(
      model, params, data.tokenizer, self._bos, data.special['eos'], mesh, description=''
    )
    scorer = Scorer(loaded)
    judges = [
      judging.Judge(scorer, judging.limited(items.read(f), self._settings.set_items), write=False)
      for f in data.set_folders.values()
    ]
    for judge in judges:
      judge.prepare(params)
    return judges

  def _run(self, params: Any, batch: held_out.Batch) -> dict[str, jax.Array]:
    def put(array: np.ndarray) -> jax.Array:
      return jax.make_array_from_callback(array.shape, self._sharding, lambda index: array[index])

    return self._score(params, {name: put(array) for name, array in batch.items()})

  def _generate(self, params: Any, step: int) -> list[str]:
    if not self._settings.prompts:
      return []
    found = text_lib.generate(
      self._sampler, params, self._tokenizer, self._settings.prompts, opening=self._bos,
      tokens=self._settings.generate_tokens, seed=self._seed, step=step,
    )  # fmt: skip
    return [p + one.text for p, (one,) in zip(self._settings.prompts, found, strict=True)]

  def _lengths(self, longest: int) -> list[int]:
    """Tokens of each prompt."""
    settings = self._settings
    lengths = [len(text_lib.encode(self._tokenizer, self._bos, p)) for p in settings.prompts]
    if max(lengths) + settings.generate_tokens > longest:
      prompt = settings.prompts[lengths.index(max(lengths))]
      raise ValueError(
        f'EvaluationConfig.generate_tokens is {settings.generate_tokens}, and of '
        f'EvaluationConfig.prompts {prompt!r} has {max(lengths)} tokens with its BOS: together '
        f'{max(lengths) + settings.generate_tokens}, and DecoderConfig.max_length allows {longest}.'
      )
    return lengths
