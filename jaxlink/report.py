"""What a run says to the person who started it: its plan, its data, its result.

Plain text, every number with its unit. Nothing here computes what is not known elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax

from jaxlink import accounts
from jaxlink.data import link_sample
from jaxlink.data.blocks import Blocks
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.windows import Windows
from jaxlink.link.formats import languages
from jaxlink.model import decoder
from jaxlink.stage import Stage

_SENTENCES = 3  # rewritten sentences that are shown


def describe_model(config: decoder.DecoderConfig, length: int) -> str:
  """Size, numbers and cost of the model."""
  count = decoder.parameter_count(config)
  flops = decoder.flops_per_token(config, length)
  return (
    f'model: {count.total:,} parameters ({count.without_embedding:,} without embeddings), '
    f'{config.layers} layers, width {config.width}, {config.heads} heads ({config.G} for keys and '
    f'values), feed-forward {config.feedforward}, vocabulary {config.vocabulary:,}, {config.dtype}, '
    f'attention {config.attention}, remat {config.remat}; {flops / 1e6:,.1f} Mflop per token'
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
    f'{optimizer.learning_rate:g}'
  )


def describe_sources(batches: Batches, blocks: Sequence[Blocks], steps: int) -> str:
  """A table: each source's size, share, and what the run will read of it."""
  counts = batches.mixture.counts(steps * batches.batch)
  lines = ['source           unique tokens    share    tokens read   repetitions']
  for index, (name, share) in enumerate(
    zip(batches.mixture.names, batches.mixture.shares, strict=True)
  ):
    count = int(counts[index])
    lines.append(
      f'{name:<16} {blocks[index].tokens:>13,} {float(share):>8.2%} {count * batches.length:>14,} '
      f'{_decimal(batches.windows[index].repetitions(count)):>13}'
    )
  return '\n'.join(lines)


def describe_dose(source: Windows | LinkedWindows, others: Sequence[Blocks]) -> str:
  """What LINK does to a source, and a few of its sentences; '' for one without it.

  `others` are all sources: in those of the target language, inserted tokens are looked for.
  """
  if isinstance(source, LinkedWindows):
    return _describe_drawn(source, others)
  blocks = source.blocks
  dose = blocks.manifest['dose']
  if not dose:
    return ''
  policy = dose['policy']
  if policy['ratio_of'] == 'all':
    realised, asked = dose['replaced'] / max(1, dose['words']), 'of all words'
  else:
    realised, asked = dose['replaced'] / max(1, dose['eligible']), 'of the eligible'

  def share(part: str, whole: str) -> str:
    return f'{dose[part]:,} ({dose[part] / max(1, dose[whole]):.1%})'

  lines = [
    f'LINK on {blocks.name}: {share("documents_rewritten", "documents")} of {dose["documents"]:,} '
    f'documents rewritten (asked {policy["doc_fraction"]:.0%})',
    f'  of their {dose["words"]:,} words: covered {share("covered", "words")}, eligible '
    f'{share("eligible", "words")}, replaced {share("replaced", "words")}: '
    f'{realised:.1%} {asked} (asked {policy["word_ratio"]:.0%})',
    f'  tokens {dose["tokens_before"]:,} → {dose["tokens_after"]:,} '
    f'(inflation {dose["tokens_after"] / dose["tokens_before"]:.3f}); '
    + _describe_lexicons(dose['lexicons']),
  ]
  if dose['shortfall']:
    lines.append(
      f'  the lexicon cannot reach the ratio: every eligible word is replaced, and '
      f'{dose["shortfall"]:.1%} of all words are missing'
    )
  for example in blocks.manifest['examples']:
    lines += [f'  before: {clip(example["original"])}', f'  after:  {clip(example["substituted"])}']
  return '\n'.join(lines)


def _describe_drawn(source: LinkedWindows, others: Sequence[Blocks]) -> str:
  """LINK as it will be drawn, from what a sample of the source has."""
  policy, sample = source.policy, source.sample.counts
  words = max(1, sample['words'])
  fraction, ratio = policy.at(0)
  replaced = source.probability(0) * sample['eligible'] / words
  scheduled = ', at the start of its schedule' if policy.scheduled else ''
  of_what = 'all words' if policy.ratio_of == 'all' else 'the eligible'
  lines = [
    f'LINK on {source.blocks.name}, drawn as it is read: {fraction:.0%} of the documents, {ratio:.1%} of '
    f'{of_what}{scheduled}; mode {policy.mode}, regime {policy.regime}, senses {policy.senses}',
    f'  in a sample of {words:,} words: covered {sample["covered"] / words:.1%}, eligible '
    f'{sample["eligible"] / words:.1%}; so {replaced:.1%} of the words of a rewritten document are '
    f'replaced, {fraction * replaced:.1%} of all',
    f'  a row of {source.length:,} tokens is made of {float(source.stride):,.1f} of the source; '
    + _describe_lexicons(source.table.meta['lexicons']),
  ]
  if unspliceable := source.blocks.manifest['unspliceable_words']:
    share = unspliceable / source.blocks.manifest['words']
    lines.append(
      f'  {share:.2%} of the words are left alone: their tokens depend on what stands beside them'
    )
  for g, language in enumerate(source.table.languages):
    native = [b for b in others if languages.same(b.manifest['language'], language)]
    if native:
      lines.append(
        f'  of the inserted tokens, {link_sample.id_overlap(source.sample, g, native):.1%} have ids that the text in '
        f'{language} has'
      )
  for before, after in link_sample.examples(source, _SENTENCES):
    lines += [f'  before: {clip(before)}', f'  after:  {clip(after)}']
  return '\n'.join(lines)


def _describe_lexicons(lexicons: Mapping[str, Any]) -> str:
  return '; '.join(
    f'lexicon {language} of {lexicon["entries"]:,} words, '
    f'{lexicon["counts"].get("identity_pairs", 0):,} identity pairs dropped'
    + (
      f', {lexicon["unspliceable_targets"]:,} translations left out that the tokenizer cannot place'
      if lexicon.get('unspliceable_targets')
      else ''
    )
    for language, lexicon in lexicons.items()
  )


def describe_realised(name: str, dose: Mapping[str, int]) -> str:
  """The LINK dose that a source has had."""
  rates = accounts.rates(dose)
  return (
    f'LINK on {name}: {dose["replaced"]:,} of {dose["words"]:,} words of rewritten documents replaced '
    f'({rates["realised_covered"]:.1%} of the eligible, {rates["realised_all"]:.1%} of all), inflation '
    f'{rates["inflation"]:.3f}; skipped {rates["skipped"]:.1%}, read twice {rates["reread"]:.1%}'
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


def describe_scores_line(step: int, scores: dict[str, float] | None) -> str:
  """One line on an evaluation."""
  if scores is None:
    return f'step {step:,}: evaluation given up'
  parts = ', '.join(f'{name} {value:.4f}' for name, value in scores.items())
  return f'step {step:,}: bits per byte {parts}'


def _decimal(value: Fraction) -> str:
  return f'{float(value):,.2f}' if math.isfinite(value) else '-'


def clip(text: str, width: int = 160) -> str:
  """Returns a text on one line of at most `width` characters."""
  text = ' '.join(text.split())
  return text if len(text) <= width else text[: width - 1] + '…'
