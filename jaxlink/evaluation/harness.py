"""lm-evaluation-harness on our checkpoints: `lm_eval` with a model that is a run, or an exported folder.

  python -m jaxlink.evaluation.harness --model jaxlink --model_args model=runs/mine@1500 \\
    --include_path my_tasks --tasks xcopa_tr_local --batch_size 32

takes what `lm_eval` takes, and adds the model 'jaxlink', which the harness itself has no way to find. From Python,
importing this module is enough for `lm_eval.simple_evaluate(model='jaxlink', model_args={'model': 'runs/mine'})`.

What `--model_args` may have: model (a run's directory, DIRECTORY@STEP or an exported folder), step, tokenizer (its
file, where the run's was moved), batch_tokens (most tokens of a scored batch, padding included). `--batch_size`
counts prompts that are continued at a time; scoring is batched by tokens. `--device` has no effect: JAX takes the
machine's devices (JAX_PLATFORMS).

Tokens are those of the harness's `hf` model on our exports, and so are log-likelihoods, whole-text windows and
greedy texts, but for rounding. Two things are ours: a prompt with no room for the new tokens loses its beginning
and keeps what opens a text, where `hf` loses that, too; and a text is opened also where an exported model's own
tokenizer opens none.

Easy to get wrong: BOS in whole-text tasks (loglikelihood_rolling). `hf` lets its tokenizer add one after the one
that it sets itself, and scores it; with add_bos_token=False it does as is done here.
"""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tqdm

try:
  # Registers the harness's own models, which it would do later only if it had none.
  import lm_eval.models  # noqa: F401
  from lm_eval.api.model import LM
  from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
  message = f"lm-evaluation-harness is not here ({error}): pip install 'jaxlink[harness]'"
  if __name__ == '__main__':
    sys.exit(f'error: {message}')
  raise ModuleNotFoundError(message, name=error.name) from None

from jaxlink import compile_cache, run_model
from jaxlink.evaluation import answers, scoring
from jaxlink.evaluation.scoring import Scorer
from jaxlink.generation import text as text_lib
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.model import decoder
from jaxlink.names import nearest

_TOKENS = 256  # new ones, where a task does not say: as the harness's own models
_BATCH = 32  # for --batch_size auto
# Names that tasks have for the same thing, first wins: as the harness reads them.
_TOKEN_NAMES = ('max_gen_toks', 'max_new_tokens', 'max_tokens', 'max_completion_tokens')
_SETTINGS = (*_TOKEN_NAMES, 'until', 'do_sample', 'temperature', 'top_p', 'top_k')

_log = logging.getLogger('lm_eval')


@register_model('jaxlink')
class HarnessModel(LM):
  """A trained model, as the harness asks it.

  Args:
    model: what `run_model.load` takes.
    step: of a run, in place of one in `model`.
    tokenizer: its file, where it is no more where the run left it.
    batch_tokens: of scoring; 0 chooses by the device.
    batch_size: prompts that are continued at a time, or 'auto'.
    max_batch_size: not for this model.
    device: has no effect, as the harness always names one: JAX takes the machine's (JAX_PLATFORMS).

  Raises:
    FileNotFoundError: there is no such model.
    ValueError: a setting that this model does not have.
  """

  def __init__(
    self, model: str = '', *, step: int | None = None, tokenizer: str = '', batch_tokens: int = 0,
    batch_size: int | str = 1, max_batch_size: int | None = None, device: str | None = None, **others: Any,
  ):  # fmt: skip
    super().__init__()
    for name in others:
      known = ('model', 'step', 'tokenizer', 'batch_tokens')
      raise ValueError(
        f'--model_args has {name!r}.{nearest(name, known)} Known: {", ".join(known)}.'
      )
    if not model:
      raise ValueError('--model_args names no model: model=DIRECTORY, or model=DIRECTORY@STEP.')
    if max_batch_size is not None:
      raise ValueError(f'max_batch_size is {max_batch_size}: this model has batch_size alone.')
    del device
    compile_cache.enable()
    self._model = run_model.load(str(model), step, tokenizer=tokenizer)
    self._scorer = Scorer(self._model, batch_tokens=batch_tokens)
    self._batch = _BATCH if str(batch_size).startswith('auto') else int(batch_size)
    self._samplers: dict[Sampling, Sampler] = {}
    _log.info('%s', self._model.description)

  @property
  def tokenizer_name(self) -> str:
    """What the harness keeps prompts in a cache by."""
    return self._model.tokenizer.sha256

  def get_model_info(self) -> dict[str, Any]:
    """What the harness writes beside the results."""
    return {
      'model_num_parameters': decoder.parameter_count(self._model.config).total,
      'model_dtype': self._model.config.dtype,
      'model_description': self._model.description,
    }

  def loglikelihood(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[tuple[float, bool]]:
    """log p(continuation | context) in nats, and whether the continuation is the likeliest text."""
    pairs = [request.args for request in requests]
    found = self._scorer.log_likelihoods(pairs, _bar('loglikelihood', disable_tqdm))
    _warn('continuations', sum(one.cut for one in found), len(found))
    answers = [(one.nats, one.greedy) for one in found]
    for pair, answer in zip(pairs, answers, strict=True):
      self.cache_hook.add_partial('loglikelihood', pair, answer)
    return answers

  def loglikelihood_rolling(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[float]:
    """log p(text) in nats, in the harness's windows."""
    texts = [request.args[0] for request in requests]
    rows, parts = [], []
    for text in texts:
      mine = _windows(
        self._model.opening, self._model.tokenizer.encode(text), self._model.config.max_length
      )
      parts.append(list(range(len(rows), len(rows) + len(mine))))
      rows += mine
    plan = self._scorer.plan_rows(rows, parts)
    found = self._scorer.run(plan, progress=_bar('loglikelihood_rolling', disable_tqdm))
    for text, one in zip(texts, found, strict=True):
      self.cache_hook.add_partial('loglikelihood_rolling', (text,), one.nats)
    return [one.nats for one in found]

  def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    """What the model writes after each context, up to a stop text, which is left out."""
    texts: list[str] = [''] * len(requests)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, request in enumerate(requests):
      groups.setdefault(_settings(request.args[1]), []).append(i)
    cut = 0
    for (sampling, tokens, stop), members in groups.items():
      room = self._model.config.max_length - tokens
      if room < 1:
        raise ValueError(
          f'max_gen_toks is {tokens}: DecoderConfig.max_length of this model is '
          f'{self._model.config.max_length}, which leaves no room for a prompt. --gen_kwargs max_gen_toks=N'
        )
      prompts = {i: answers.fit(self._model, requests[i].args[0], room) for i in members}
      cut += sum(was_cut for _, was_cut in prompts.values())
      order = sorted(members, key=lambda i: -len(prompts[i][0]))
      sampler = self._sampler(sampling)
      bar = _bar('generate_until', disable_tqdm)
      for first in bar(range(0, len(order), self._batch)):
        part = order[first : first + self._batch]
        made = text_lib.generate(
          sampler, self._model.params, self._model.tokenizer, [prompts[i][0] for i in part],
          opening=self._model.opening, tokens=tokens, seed=0, stop=stop, first=first,
        )  # fmt: skip
        for i, (one,) in zip(part, made, strict=True):
          texts[i] = one.text
    _warn('prompts', cut, len(requests))
    for request, text in zip(requests, texts, strict=True):
      self.cache_hook.add_partial('generate_until', request.args, text)
    return texts

  def _sampler(self, sampling: Sampling) -> Sampler:
    if sampling not in self._samplers:
      self._samplers[sampling] = Sampler(
        self._model.config, self._model.mesh, eos=self._model.eos,
        vocabulary=self._model.tokenizer.size, sampling=sampling, batch=self._batch,
      )  # fmt: skip
    return self._samplers[sampling]


def _windows(opening: int, ids: Sequence[int], length: int) -> list[scoring.Row]:
  """Each token once, in windows of `length`; the first begins with what opens a text.

  Later ones begin with the token before them, and the last reaches back, so that it is as long as the others.
  """
  if not ids:
    return []
  all_ids = (opening, *ids)
  rows, done = [], 0
  while done < len(ids):
    end = min(done + length, len(ids))
    begin = max(end - length, 0)
    given, wanted = all_ids[begin:end], all_ids[begin + 1 : end + 1]
    rows.append(scoring.Row(given, wanted, done - begin))
    done = end
  return rows


def _settings(given: Mapping[str, Any]) -> tuple[Sampling, int, tuple[str, ...]]:
  """How a task wants a text: sampling, most new tokens, stop texts."""
  for name in given:
    if name not in _SETTINGS:
      raise ValueError(
        f'generation_kwargs has {name!r}.{nearest(name, _SETTINGS)} This model has: {", ".join(_SETTINGS)}.'
      )
  until = given.get('until') or ()
  stop = (until,) if isinstance(until, str) else tuple(until)
  tokens = next((int(given[name]) for name in _TOKEN_NAMES if given.get(name) is not None), _TOKENS)
  temperature = float(given.get('temperature') or 0.0)
  if not given.get('do_sample', temperature > 0):
    return Sampling(temperature=0.0), tokens, stop
  sampling = Sampling(
    temperature=temperature or 1.0, top_p=given.get('top_p', 1.0), top_k=given.get('top_k', 0)
  )
  return sampling, tokens, stop


def _bar(what: str, disable: bool) -> Any:
  def wrap(steps: Iterable[Any]) -> Iterable[Any]:
    return tqdm.tqdm(steps, desc=f'jaxlink {what}', unit='batch', disable=disable or None)

  return wrap


def _warn(what: str, cut: int, count: int) -> None:
  if cut:
    _log.warning(
      '%d of %d %s are longer than the model: their beginning was left out.', cut, count, what
    )


def main() -> None:
  """`lm_eval`, where 'jaxlink' is a model."""
  from lm_eval.__main__ import cli_evaluate

  try:
    cli_evaluate()
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
