"""What a run says to the person who started it: its plan, its machine, its result.

Plain text, every number with its unit. Nothing here computes what is not known elsewhere. What it says of
its data is in `report_data`.
"""

from typing import Any

import jax

from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig, flops_per_token
from jaxlink.stage import Stage


def describe_model(config: DecoderConfig, length: int, reason: str = '') -> str:
  """Size, numbers and cost of the model.

  Args:
    config: resolved.
    length: of a row, which the cost depends on.
    reason: why attention is what it is, from `DecoderConfig.choose_attention` of the config as it was;
      '' where it is not known.
  """
  count = decoder.parameter_count(config)
  flops = flops_per_token(config, length)
  attention = config.attention
  if config.window:
    attention += f', window {config.window:,}'
  if config.soft_cap:
    attention += f', soft cap {config.soft_cap:g}'
  if reason:
    attention += f' ({reason})'
  return (
    f'model: {count.total:,} parameters ({count.without_embedding:,} without embeddings), '
    f'{config.layers} layers, width {config.width}, {config.heads} heads ({config.G} for keys and '
    f'values), feed-forward {config.feedforward}, vocabulary {config.vocabulary:,}, {config.dtype}, '
    f'attention {attention}, remat {config.remat}; {flops / 1e6:,.1f} Mflop per token'
  )


def describe_mesh(mesh: Any) -> str:
  """Axes and devices."""
  axes = ', '.join(f'{name} {size}' for name, size in mesh.shape.items())
  return f'mesh: {axes} ({mesh.size} devices on {jax.process_count()} hosts)'


def describe_start(start: dict[str, Any]) -> str:
  """Versions, git revision and devices of a start, as `run_directory.record_start` gives them."""
  versions = ', '.join(f'{name} {version}' for name, version in start['versions'].items())
  revision = start['git'] or 'unknown'
  return (
    f'start: git {revision}, Python {start["python"]}, {versions}; {start["device"]}, '
    f'{start["hosts"]} hosts'
  )


def describe_skipped(skipped: int, in_a_row: int, steps: int) -> str:
  """A line on updates that were skipped, or '' where there were none."""
  if not skipped:
    return ''
  last = f', among them the last {in_a_row}' if in_a_row else ''
  return f'skipped: {skipped:,} of {steps:,} updates, whose loss or gradient was not finite{last}'


def describe_stage(stage: Stage) -> str:
  """Budget of a stage."""
  optimizer = stage.optimizer
  return (
    f'stage {stage.name}: {stage.tokens:,} tokens = {stage.steps:,} steps of {stage.batch} sequences '
    f'of {stage.sequence_length} tokens; {optimizer.schedule}, peak learning rate '
    f'{optimizer.learning_rate:g}; mixing {stage.mixing.policy}'
  )


def describe_scores(
  first: dict[str, float | None], last: dict[str, float | None], xz: dict[str, float]
) -> str:
  """A table of bits per byte: before, after, and what a compressor needs; None is not finite."""
  number = lambda value: 'not finite' if value is None else f'{value:.4f}'  # noqa: E731
  lines = ['held-out text    bits per byte before     after     xz -9e alone']
  for name, value in last.items():
    before = number(first[name]) if name in first else '-'
    alone = number(xz[name]) if name in xz else '-'
    lines.append(f'{name:<16} {before:>20} {number(value):>9} {alone:>16}')
  return '\n'.join(lines)


def describe_scores_line(step: int, scores: dict[str, float | None] | None) -> str:
  """One line on an evaluation: bits per byte of tasks, and scores that are named 'set score'."""
  if scores is None:
    return f'step {step:,}: evaluation given up'
  known = {name: value for name, value in scores.items() if value is not None}
  parts = {name: f'{name} {value:.4f}' for name, value in known.items()}
  texts = ', '.join(part for name, part in parts.items() if ' ' not in name)
  sets = ', '.join(part for name, part in parts.items() if ' ' in name)
  return f'step {step:,}: ' + '; '.join(filter(None, [texts and f'bits per byte {texts}', sets]))


def clip(text: str, width: int = 160) -> str:
  """Returns a text on one line of at most `width` characters."""
  text = ' '.join(text.split())
  return text if len(text) <= width else text[: width - 1] + '…'
