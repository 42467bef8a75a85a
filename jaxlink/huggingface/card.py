"""The model card: a README.md that says what a model is, what it read, and how well it did.

Easy to get wrong: what a number is of. Scores are of held-out text at the exported step; tokens are input
positions of the whole run up to there.
"""

import json
from collections.abc import Mapping
from typing import Any


def write(
  *, config: Mapping[str, Any], meta: Mapping[str, Any], described: Mapping[str, Any],
  scores: Mapping[str, float], parameters: int, averaged: bool, folded: bool, name: str,
) -> str:  # fmt: skip
  """The text of a model card, in Markdown.

  Args:
    config: of the run, resolved.
    meta: beside the state in its checkpoint.
    described: the contents of config.json.
    scores: held-out bits per byte of each task.
    parameters: how many there are.
    averaged: whether they are a moving average.
    folded: whether muP's factors went into them.
    name: of the folder.
  """
  kind = {'llama': 'Llama', 'qwen3': 'Qwen3'}[described['model_type']]
  lines = [
    '---',
    'library_name: transformers',
    'pipeline_tag: text-generation',
    'tags:\n- jaxlink',
    '---',
    '',
    f'# {name}',
    '',
    f'A causal language model of {parameters:,} parameters in the {kind} architecture, '
    f'trained with jaxlink for {meta["step"]:,} steps ({meta["trained_tokens"]:,} tokens).'
    + (' The weights are a moving average over training.' if averaged else '')
    + (' It was trained with muP, whose factors are part of the weights.' if folded else ''),
    '',
    '```python',
    'from transformers import AutoModelForCausalLM, AutoTokenizer',
    '',
    f"tokenizer = AutoTokenizer.from_pretrained('{name}')",
    f"model = AutoModelForCausalLM.from_pretrained('{name}')",
    '```',
    '',
    '## Data',
    '',
    '| source | tokens | repetitions |',
    '| --- | ---: | ---: |',
    *_sources(meta),
    '',
    *_scores(scores),
    '## Model',
    '',
    '| layers | width | heads | key-value heads | feed-forward | vocabulary | positions |',
    '| ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    '| {num_hidden_layers} | {hidden_size} | {num_attention_heads} | {num_key_value_heads} '
    '| {intermediate_size} | {vocab_size:,} | {max_position_embeddings:,} |'.format(**described),
    '',
    f'A text begins with the token {described["bos_token_id"]}, which the tokenizer puts there: the model has '
    'seen none without it. The SHA-256 of the tokenizer that it was trained with begins with '
    f'`{meta["tokenizer"][:16]}`.',
    '',
    '## Training configuration',
    '',
    '```json',
    json.dumps(
      {key: config[key] for key in ('model', 'stages', 'seed_init', 'seed_order', 'seed_link')},
      ensure_ascii=False, indent=1,
    ),
    '```',
  ]  # fmt: skip
  return '\n'.join(lines) + '\n'


def _sources(meta):
  """A row for each source that was ever read; of those of earlier stages the size is not at hand."""
  for source, reading in meta['position']['readings'].items():
    account = meta['accounts'].get(source)
    repetitions = f'{account["all_repetitions"]:.2f}' if account else ''
    yield f'| {source} | {reading["tokens"]:,} | {repetitions} |'


def _scores(scores):
  if not scores:
    return []
  return [
    '## Held-out text',
    '',
    'Bits per byte: windows of the training length, each from the beginning token on, over the bytes of '
    'the original text.',
    '',
    '| text | bits per byte |',
    '| --- | ---: |',
    *(f'| {task} | {score:.4f} |' for task, score in scores.items()),
    '',
  ]
