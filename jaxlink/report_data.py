"""What a run says of its data: sources, repetitions, the LINK dose.

Plain text, every number with its unit.

Easy to get wrong: repetitions. "In all" counts what earlier stages, and the run that a stage starts from,
read of a source, in passes over the source as it is now.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlink import accounts, report
from jaxlink.data import link_sample, mixing
from jaxlink.data.blocks import Blocks
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.windows import Windows
from jaxlink.link.formats import languages
from jaxlink.stage import Stage
from jaxlink.stage_data import RunData, StageData

_SENTENCES = 3  # rewritten sentences that are shown
_SHOWN = 40  # sources of a table
_IN_A_LINE = 3  # sources in the progress line


def describe_sources(part: StageData) -> str:
  """A table: each source's size, share, and what the stage will read of it."""
  account = part.account(part.stage.steps)
  mixture = part.batches.mixture
  sequences = part.stage.steps * part.stage.batch
  opening = mixture.shares_at(part.batches.phase)
  closing = mixture.shares_at(part.batches.phase + max(0, sequences - 1))
  lines = [
    'source           unique tokens             share    tokens read   repetitions    in all'
  ]
  for n, (name, blocks) in enumerate(zip(mixture.names, part.blocks, strict=True)):
    if n == _SHOWN:
      lines.append(f'… and {len(mixture.names) - n:,} more sources')
      break
    share = f'{float(opening[n]):.2%}'
    if opening[n] != closing[n]:
      share += f' to {float(closing[n]):.2%}'
    entry = account[name]
    lines.append(
      f'{name:<16} {blocks.tokens:>13,} {share:>17} {entry["tokens"]:>14,} '
      f'{entry["repetitions"]:>13,.2f} {entry["all_repetitions"]:>9,.2f}'
    )
  notes = [*part.shares.notes, *_late_points(part.stage)]
  return '\n'.join([*lines, *(f'  {note}' for note in notes)])


def _late_points(stage: Stage) -> list[str]:
  """A line for each curve with a point that the stage does not reach."""
  curves = {f'Stage.rates[{task!r}]': rate for task, rate in stage.rates.items()}
  for task, policy in stage.link.items():
    curves[f'LinkPolicy.doc_fraction of {task}'] = policy.doc_fraction
    curves[f'LinkPolicy.word_ratio of {task}'] = policy.word_ratio
  budget = stage.steps * stage.tokens_per_step
  return [
    f'warning: {name} has a point at {curve[-1][0]:,} tokens, and the stage ends after {budget:,}: curves '
    'count the tokens of their stage'
    for name, curve in curves.items()
    if isinstance(curve, tuple) and curve[-1][0] > budget
  ]


def describe_forecast(data: RunData) -> str:
  """How often each source will have been read by the end of the run, with a warning where it is too often."""
  final: dict[str, float] = {}  # the most, where stages branch
  for part in data.stages:
    ends = part.ends
    for name, blocks in zip(part.batches.mixture.names, part.blocks, strict=True):
      final[name] = max(final.get(name, 0.0), float(ends.repetitions(name, blocks.tokens)))
  often = sorted(final.items(), key=lambda item: -item[1])
  shown = ', '.join(f'{name} {value:,.1f}' for name, value in often[:_SHOWN])
  more = f' and {len(often) - _SHOWN:,} more' if len(often) > _SHOWN else ''
  warnings = mixing.warnings_of(final)
  return '\n'.join(
    [f'repetitions by the end of the run: {shown}{more}', *(f'warning: {w}' for w in warnings)]
  )


def describe_repetitions(part: StageData, steps: int) -> str:
  """The repetitions so far of the sources that are read most often, for the progress line."""
  now = part.position(steps)
  found = {b.name: float(now.repetitions(b.name, b.tokens)) for b in part.blocks}
  often = sorted(found.items(), key=lambda item: -item[1])[:_IN_A_LINE]
  return ', '.join(f'{name} ×{value:.2f}' for name, value in often)


def describe_accounts(stages: Sequence[Mapping[str, Any]]) -> str:
  """A table of what was read of each source in each stage and in all; stages as they are frozen."""
  lines = ['stage            source              sequences         tokens   repetitions    in all']
  for entry in stages:
    for n, (name, account) in enumerate(entry['account'].items()):
      if n == _SHOWN:
        lines.append(f'{"":<16} … and {len(entry["account"]) - n:,} more sources')
        break
      lines.append(
        f'{entry["config"]["name"] if not n else "":<16} {name:<16} {account["sequences"]:>12,} '
        f'{account["tokens"]:>14,} {account["repetitions"]:>13,.2f} {account["all_repetitions"]:>9,.2f}'
      )
  return '\n'.join(lines)


def describe_counts(
  stages: Sequence[str], counts: Sequence[Mapping[str, Mapping[str, int]]]
) -> list[str]:
  """The LINK dose that sources had, a line for each stage and source."""
  several = len(stages) > 1
  return [
    (f'stage {stage}: ' if several else '') + describe_realised(name, dose)
    for stage, sources in zip(stages, counts, strict=True)
    for name, dose in sources.items()
  ]


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
    lines += [
      f'  before: {report.clip(example["original"])}',
      f'  after:  {report.clip(example["substituted"])}',
    ]
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
    lines += [f'  before: {report.clip(before)}', f'  after:  {report.clip(after)}']
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
