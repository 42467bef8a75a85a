"""LINK in a cache that is built: the task with substitution in it, its dose, and sentences to show.

Easy to get wrong: `ratio_of='all'`. Its probability comes from a count of the whole source, so the source
is read once before it is rewritten.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from jaxlink.data import linking, registry
from jaxlink.data import preprocessors as prep
from jaxlink.data.caching import cache_plan
from jaxlink.link import draws, substitute
from jaxlink.link import policy as policy_lib
from jaxlink.link.policy import DOSE_FIELDS, Dose

_SENTENCES = 3  # rewritten sentences kept in the manifest, to be shown


def linked_task(plan: cache_plan.Plan, probability: float | None) -> seqio.Task:
  """Returns the task with `link_substitute` before its tokenisation, or the task as it is."""
  task = plan.get_task()
  if not plan.link:
    return task
  at = cache_plan.tokenization_step(task)
  step = functools.partial(
    prep.link_substitute,
    policy=plan.link.policy,
    source=plan.task,
    seed=plan.link.seed,
    probability=probability,
    text_key=cache_plan.text_key(task),
  )
  return seqio.Task(
    plan.task,
    source=task.source,
    output_features=task.output_features,
    preprocessors=[*task.preprocessors[:at], step, *task.preprocessors[at:]],
  )


def probability(plan: cache_plan.Plan) -> tuple[float | None, float]:
  """Returns the probability that reaches a ratio of *all* words, and by how much it falls short.

  It needs a count of the source; None and 0 for the ratios that do not.
  """
  if not plan.link or plan.link.policy.ratio_of != 'all':
    return None, 0.0
  policy, lists = plan.link.policy, linking.load_lists(plan.link.policy)
  lexicons = linking.load_lexicons(policy, registry.source_language(plan.task))
  ways = [(lexicons, policy)]
  if policy.language_by == 'per_document':  # a document has one language: the mean of all
    ways = [
      (
        {language: words},
        dataclasses.replace(policy, lexicon={language: policy.lexicons[language]}),
      )
      for language, words in lexicons.items()
    ]
  normalize = prep.normalizer(plan.get_task().output_features)
  dose = Dose()
  for text in map(normalize, texts(plan)):
    for lexicon, one in ways:
      dose += substitute.count(text, lexicon, one, lists)
  words, eligible = dose.words // len(ways), dose.eligible // len(ways)
  return policy_lib.probability('all', policy.word_ratio, words, eligible)


def count_dose(
  plan: cache_plan.Plan,
  dose: np.ndarray,
  counts: dict[str, int],
  probability: float | None,
  shortfall: float,
) -> dict[str, Any]:
  """What is kept of the dose of a rewritten source."""
  return {
    **dict(zip(DOSE_FIELDS, dose.tolist(), strict=True)),
    'tokens_before': counts['tokens_before'],
    'tokens_after': counts['tokens'],
    'probability': plan.link.policy.word_ratio if probability is None else probability,
    'shortfall': shortfall,
    **describe_link(plan),
  }


def describe_link(plan: cache_plan.Plan) -> dict[str, Any]:
  """The policy, seed and lexicons of a plan, as plain JSON; files by their names and hashes."""
  policy = plan.link.policy
  described = dataclasses.asdict(policy)
  for name in ('lexicon', 'language'):
    del described[name]
  described |= {name: os.path.basename(described[name]) for name in ('stop_words', 'word_list')}
  return {
    'policy': described,
    'seed': plan.link.seed,
    'lexicons': {
      language: {
        'files': [os.path.basename(path) for path in policy.lexicons[language]],
        'sha256': words.sha256,
        'entries': len(words.entries),
        'counts': dict(words.counts),
      }
      for language, words in linking.load_lexicons(
        policy, registry.source_language(plan.task)
      ).items()
    },
  }


def rewritten(
  plan: cache_plan.Plan, probability: float | None
) -> Iterator[tuple[int, substitute.Substituted]]:
  """Yields the key of each document of a plan with LINK, and what became of its text."""
  policy = plan.link.policy
  lexicons, lists = (
    linking.load_lexicons(policy, registry.source_language(plan.task)),
    linking.load_lists(policy),
  )
  keyed = policy.draws(plan.link.seed, plan.task, 0)
  normalize = prep.normalizer(plan.get_task().output_features)
  for text in texts(plan):
    key = draws.key_of(text)
    yield (
      key,
      substitute.substitute(
        normalize(text), lexicons, policy, keyed, document=key, probability=probability, lists=lists
      ),
    )


def show_sentences(plan: cache_plan.Plan, probability: float | None) -> list[dict[str, str]]:
  """Returns a few rewritten sentences, as they were and as they are."""
  found: list[dict[str, str]] = []
  for _, result in rewritten(plan, probability):
    if result.sites:
      found.append(_sentence(result.original, result.sites))
    if len(found) == _SENTENCES:
      break
  return found


def texts(plan: cache_plan.Plan) -> Iterator[str]:
  """Yields the source's texts as LINK gets them: cleaned, not yet tokenised."""
  task = plan.get_task()
  at = cache_plan.tokenization_step(task)
  key = cache_plan.text_key(task)
  untokenized = seqio.Task(
    plan.task,
    source=task.source,
    output_features={key: seqio.Feature(seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0)},
    preprocessors=task.preprocessors[:at],
  )
  for example in cache_plan.examples_of(untokenized, plan, 1, 0):
    if not example.get('removed'):  # by a cleaning step
      yield example[key].decode()


def _sentence(text: str, sites: Sequence[tuple[int, int, str, str]]) -> dict[str, str]:
  """Cuts the sentence of the first site out of a text, before and after, replacements in brackets."""
  begin, end = sites[0][:2]
  full_stop = text.rfind('. ', 0, begin)
  start = max(text.rfind('\n', 0, begin) + 1, full_stop + 2 if full_stop >= 0 else 0)
  stop = text.find('. ', end) + 1 or len(text)
  pieces, at = [], start
  for begin, end, original, replacement in sites:
    if start <= begin and end <= stop:
      space = ' ' if original.startswith(' ') and replacement.startswith(' ') else ''
      pieces += [text[at:begin], space, f'[{replacement.strip()}]']
      at = end
  return {'original': text[start:stop], 'substituted': ''.join([*pieces, text[at:stop]])}
