"""Whether a run keeps to a language: openings of two sets continued, and judged by its own training words.

In: a run, and two sets of texts in the languages that it was trained on. Out: two records, one for each
language it is prompted in. What is measured is in `jaxlink.evaluation.adherence`; here is what it needs of
a run: which words its training text has in either language.

Easy to get wrong: whose words. A source that LINK rewrites is read as it was before: its words are English.
"""

import collections
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.evaluation import adherence
from jaxlink.evaluation.items import EvaluationSet
from jaxlink.evaluation.records import Record
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.link.casing import base_language
from jaxlink.link.formats import languages as languages_lib
from jaxlink.run_model import RunModel

TOKENS = 32  # of a continuation


class Mixing(NamedTuple):
  """What a run wrote after openings in one language.

  Attributes:
    record: named 'adherence_' and the set, without step and tokens. 'true' has what the true continuations get.
    lines: for each opening its id, 'prompt', what was 'written', and the 'language' of it ('own', 'other' or
      'unknown').
  """

  record: Record
  lines: list[dict[str, str]]


def words_by_language(directory: str | os.PathLike) -> dict[str, Mapping[str, int]]:
  """How often each word occurs in the training text of a run, by language.

  Raises:
    FileNotFoundError: the run has no stages, or a cache of it is not on this machine.
  """
  run = pathlib.Path(directory)
  stages = json.loads((run / 'stages.json').read_text(encoding='utf-8'))
  cache_dir = json.loads((run / 'config.json').read_text(encoding='utf-8'))['data']['cache_dir']
  found: dict[str, collections.Counter[str]] = {}
  sources = [
    resolve.Source.from_json(entry, cache_dir)
    for stage in stages['stages'] for entry in stage['sources']
  ]  # fmt: skip
  for source in {source.folder: source for source in sources}.values():
    if not os.path.isdir(source.folder):
      raise FileNotFoundError(
        f'language adherence needs the words of the training text, and {source.folder} is not here.'
      )
    blocks = Blocks(source.folder)
    counts = found.setdefault(_code(source.language), collections.Counter())
    for shard in range(len(blocks.manifest['shards'])):
      counts.update(blocks.read_types(shard))
  return found


def sampler_of(model: RunModel) -> Sampler:
  """Draws from the model's own probabilities; it keeps its compiled programs, whatever the parameters."""
  return Sampler(
    model.config, model.mesh, eos=model.eos, vocabulary=model.tokenizer.size, sampling=Sampling(),
  )  # fmt: skip


def _code(language: str) -> str:
  return languages_lib.code(base_language(language))


def identities(sets: Sequence[EvaluationSet]) -> dict[str, str]:
  """The names of the records that two sets make, and what makes them comparable: the items, and the other language.

  Raises:
    ValueError: there are not two sets in two languages.
  """
  languages = [_code(found.language) for found in sets]
  if len(sets) != 2 or languages[0] == languages[1]:
    raise ValueError(
      f'{", ".join(found.name for found in sets)}: language adherence is measured by two sets, in two languages.'
    )
  return {
    f'adherence_{found.name}': f'{found.identity}-{other}-{TOKENS}'
    for found, other in zip(sets, languages[::-1], strict=True)
  }


def measure(
  model: RunModel,
  directory: str | os.PathLike,
  sets: Sequence[EvaluationSet],
  progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
  sampler: Sampler | None = None,
) -> list[Mixing]:
  """Prompts a run in two languages.

  Args:
    model: of the run.
    directory: of the run.
    sets: texts of the one and of the other.
    progress: wraps the batches.
    sampler: to be used again; see `sampler_of`.

  Returns:
    What came out in each language, in the order of the sets.

  Raises:
    ValueError: there are not two sets in two languages, or the run was not trained on one of them.
  """
  names = identities(sets)
  languages = [_code(found.language) for found in sets]
  known = words_by_language(directory)
  for found, language in zip(sets, languages, strict=True):
    if language not in known:
      raise ValueError(
        f'{found.name} is in {found.language!r}, and {directory} was trained on {", ".join(sorted(known))}.'
      )
  words = adherence.tell_apart(*(known[language] for language in languages))
  sampler = sampler or sampler_of(model)
  made = []
  for (name, identity), found, own, other, mine in zip(
    names.items(), sets, languages, languages[::-1], (words, words.turned), strict=True
  ):
    given = adherence.openings(found)
    judged = adherence.adherence(
      model, given, adherence.identifier(own, other, mine), mine,
      tokens=TOKENS, progress=progress, sampler=sampler,
    )  # fmt: skip
    record = {
      'set': name, 'kind': 'adherence', 'language': found.language, 'identity': identity,
      'items': len(judged.texts), 'cut': 0, 'contaminated': None, **judged.to_json(),
    }  # fmt: skip
    lines = [
      {'id': one.id, 'prompt': one.prompt, 'written': text, 'language': which}
      for one, text, which in zip(given, judged.texts, judged.identified, strict=True)
    ]
    made.append(Mixing(record, lines))
  return made
