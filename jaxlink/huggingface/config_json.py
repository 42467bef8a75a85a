"""A decoder's shape as a Hugging Face `config.json`, and back: Llama, or Qwen3 with `qk_norm`.

`to_json` refuses what neither can express, `fields` what the decoder cannot; both name the setting.
Nothing is dropped in silence: a model that loads and computes something else is worse than an error.

Easy to get wrong: the base of RoPE's angles. transformers 5 reads `rope_parameters`, version 4 and most
other programs read `rope_theta` and would take 10,000 without a word. Both are written.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlink.model.shape import DecoderConfig

_ARCHITECTURES = {'llama': 'LlamaForCausalLM', 'qwen3': 'Qwen3ForCausalLM'}
# What a config.json leaves out, by model type.
_DEFAULTS = {
  'llama': {'max_position_embeddings': 2048},
  'qwen3': {'max_position_embeddings': 32768, 'head_dim': 128, 'num_key_value_heads': 32},
}
# True, or any value but nothing, changes what is computed.
_UNSUPPORTED = (
  'attention_bias', 'mlp_bias', 'use_sliding_window', 'quantization_config', 'auto_map',
  'attn_logit_softcapping', 'final_logit_softcapping',
)  # fmt: skip


_OFF = {'window': 0, 'soft_cap': 0, 'mup': None}


class TextIds(NamedTuple):
  """Ids that generation needs: what opens a text, ends it, and fills a row (None for no such id)."""

  bos: int
  eos: int
  pad: int | None


def check_expressible(config: DecoderConfig) -> None:
  """Raises ValueError, naming the setting, where neither Llama nor Qwen3 computes what the decoder does."""
  for name, what in (
    ('window', 'a sliding window'),
    ('soft_cap', 'a soft cap of attention scores'),
  ):
    if value := getattr(config, name):
      raise ValueError(
        f'DecoderConfig.{name} is {value}: Hugging Face Llama and Qwen3 have no {what.split(" ", 1)[1]}, '
        f'so a model that was trained with {what} cannot be exported. Only DecoderConfig.{name} = 0 can.'
      )
  if not config.qk_norm and config.width % config.heads:
    raise ValueError(
      f'DecoderConfig.heads is {config.heads}: Hugging Face Llama takes a number that divides the width, '
      f'{config.width}, whatever head_size is. (Qwen3, for models with qk_norm, takes any.)'
    )


def to_json(config: DecoderConfig, ids: TextIds, *, dtype: str) -> dict[str, Any]:
  """The `config.json` of a decoder.

  Args:
    config: its vocabulary is that of the exported embedding.
    ids: of the tokenizer.
    dtype: of the exported tensors, 'float32' or 'bfloat16'.

  Raises:
    ValueError: a setting that neither Llama nor Qwen3 has, by name.
  """
  check_expressible(config)
  kind = 'qwen3' if config.qk_norm else 'llama'
  described = {
    'architectures': [_ARCHITECTURES[kind]],
    'model_type': kind,
    'vocab_size': config.vocabulary,
    'hidden_size': config.width,
    'intermediate_size': config.feedforward,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.G,
    'head_dim': config.K,
    'hidden_act': 'silu',
    'max_position_embeddings': config.max_length,
    'rms_norm_eps': config.norm_epsilon,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': config.rope_theta},
    'rope_theta': config.rope_theta,
    'tie_word_embeddings': config.tied_embeddings,
    'attention_bias': False,
    'attention_dropout': 0.0,
    'bos_token_id': ids.bos,
    'eos_token_id': ids.eos,
    'pad_token_id': ids.pad,
    'dtype': dtype,
    'torch_dtype': dtype,
    'use_cache': True,
  }
  if kind == 'llama':
    return described | {'mlp_bias': False}
  return described | {'use_sliding_window': False, 'sliding_window': None}


def fields(described: Mapping[str, Any], where: str) -> dict[str, Any]:
  """The fields of `DecoderConfig` that a `config.json` says; `vocabulary` is the rows of the embedding.

  Args:
    described: the contents of the file.
    where: its folder, for errors.

  Raises:
    ValueError: a model or a feature that the decoder does not have, by name; a size that is not there.
  """
  kind = described.get('model_type')
  if kind not in _DEFAULTS:
    raise ValueError(
      f'{where}: model_type is {kind!r}, and the decoder is a Llama, or a Qwen3. '
      f'Supported: {", ".join(_DEFAULTS)}.'
    )
  described = {**_DEFAULTS[kind], **{k: v for k, v in described.items() if v is not None}}
  ropes = [described.get(name) or {} for name in ('rope_scaling', 'rope_parameters')]
  rope = {**ropes[0], **ropes[1]}
  refused = [name for name in _UNSUPPORTED if described.get(name)]
  refused += ['sliding_window'] if kind == 'llama' and described.get('sliding_window') else []
  if kind == 'qwen3' and set(described.get('layer_types', ())) - {'full_attention'}:
    refused.append('layer_types')
  if described.get('hidden_act', 'silu') != 'silu':
    refused.append('hidden_act')
  if refused:
    said = ', '.join(f'{name} {described[name]!r}' for name in refused)
    raise ValueError(f'{where}: the decoder has no {said}, which its config.json asks for.')
  for part in ropes:
    if (type_ := part.get('rope_type', part.get('type', 'default'))) != 'default':
      raise ValueError(
        f"{where}: rope_type is {type_!r}, and the decoder's RoPE is not scaled: it is 'default'."
      )
  if odd := [k for k in ropes[0] if k in ropes[1] and ropes[0][k] != ropes[1][k]]:
    raise ValueError(f'{where}: rope_scaling and rope_parameters disagree on {", ".join(odd)}.')
  if rope.get('partial_rotary_factor', described.get('partial_rotary_factor', 1)) != 1:
    raise ValueError(f'{where}: partial_rotary_factor is not 1: the decoder turns whole heads.')
  try:
    heads, width = described['num_attention_heads'], described['hidden_size']
    return {
      'layers': described['num_hidden_layers'],
      'width': width,
      'heads': heads,
      'kv_heads': described.get('num_key_value_heads', heads),
      'head_size': described.get('head_dim', width // heads),
      'feedforward': described['intermediate_size'],
      'vocabulary': described['vocab_size'],
      'max_length': described['max_position_embeddings'],
      'rope_theta': float(rope.get('rope_theta', described.get('rope_theta', 10_000.0))),
      'norm_epsilon': described.get('rms_norm_eps', 1e-6),
      'qk_norm': kind == 'qwen3',
      'tied_embeddings': bool(described.get('tie_word_embeddings', False)),
    }
  except KeyError as error:
    raise ValueError(f'{where}: config.json has no {error}.') from None


def check_same(config: DecoderConfig, there: Mapping[str, Any], where: str) -> None:
  """Raises ValueError where a run's decoder is not that of a checkpoint, with every value to set.

  The vocabulary may be another, and rows may be shorter than the checkpoint allows.

  Args:
    config: of the run.
    there: from `fields`.
    where: the checkpoint's folder.
  """
  here = {name: getattr(config, name) for name in there} | {
    'kv_heads': config.G,
    'head_size': config.K,
  }
  settings = [
    f'DecoderConfig.{name} = {value!r} (is {here[name]!r})'
    for name, value in there.items()
    if name not in ('vocabulary', 'max_length') and here[name] != value
  ]
  if here['max_length'] > there['max_length']:
    settings.append(f'DecoderConfig.max_length = {there["max_length"]} (is {here["max_length"]})')
  for name in _OFF:
    if getattr(config, name):
      settings.append(f'DecoderConfig.{name} = {_OFF[name]} (is {getattr(config, name)!r})')
  if settings:
    raise ValueError(
      f'the model of {where} is another than the recipe says: {"; ".join(settings)}.'
    )
