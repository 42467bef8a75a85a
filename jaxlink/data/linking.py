"""From a policy's names to what LINK works with: lexicons, lists, and the link table of a cache.

Runs where SeqIO runs: names are looked up in the registry. The trainer opens the finished table.

Easy to get wrong: what a table depends on. Its folder is named by the hash of all of it, so that a changed
lexicon, list, tokenizer or rendering is another table, and the old one is never opened.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tqdm

from jaxlink.data import fingerprint, registry
from jaxlink.data.blocks import Blocks
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import casing, sites, table
from jaxlink.link.formats import languages
from jaxlink.link.lexicon import Lexicon, load_words
from jaxlink.link.policy import LinkPolicy, WordLists, shipped_stop_words, stop_words_path
from jaxlink.names import nearest

_LIBRARIES = ('regex', 'simplemma', 'pyglossary', 'lxml', 'sentencepiece', 'tokenizers')
UNSPLICEABLE_LIMIT = 0.05  # share of a source's words, over which a tokenizer is refused
_COUNT_BLOCKS = 16  # read at a time when a source is counted


def resolve_policy(policy: LinkPolicy) -> LinkPolicy:
  """Returns the policy with paths in place of registered names, under the languages of its lexicons.

  Raises:
    FileNotFoundError: there is no such lexicon or list.
    ValueError: a registered lexicon has another language, or a path has none.
  """
  found: dict[str, tuple[str, ...]] = {}
  for language, names in policy.lexicons.items():
    paths: list[str] = []
    for name in names:
      if name in registry.LEXICONS:
        entry = registry.LEXICONS[name]
        if language not in ('', entry.language):
          raise ValueError(
            f'LinkPolicy.language is {language!r}: lexicon {name!r} is registered for '
            f'{entry.language!r}.'
          )
        language = entry.language
        paths += entry.paths
      elif os.path.isfile(name):
        paths.append(name)
      else:
        known = sorted(registry.LEXICONS)
        raise FileNotFoundError(
          f'LinkPolicy.lexicon: no file and no registered lexicon {name!r}.{nearest(name, known)} '
          f'Registered: {", ".join(known) or "none"}.'
        )
    if not language:
      raise ValueError(
        f"LinkPolicy.language is '': a lexicon given by its path needs a code such as 'tr' ({paths[0]})."
      )
    found[language] = tuple(paths)
  if policy.word_list and not os.path.isfile(policy.word_list):
    raise FileNotFoundError(f'LinkPolicy.word_list: no file {policy.word_list!r}.')
  stop_words = stop_words_path(policy.stop_words) if policy.stop_words else ''
  return dataclasses.replace(policy, lexicon=found, language='', stop_words=stop_words)


def no_marks(task: str) -> str:
  """Says what a task without word marks needs for LINK."""
  return (
    f'Task {task!r} has no word marks, which LINK needs: it tokenises by itself. One line in a module of '
    f"Run.modules, after the task's own, adds them: jaxlink.data.existing.mark_words({task!r}, language='en')"
  )


def check_stop_words(policy: LinkPolicy, source: str) -> None:
  """Raises ValueError if a regime asks a list that comes with jaxlink for text in another language."""
  shipped = next((n for n, path in shipped_stop_words().items() if path == policy.stop_words), None)
  if shipped and policy.regime in ('content', 'stop') and not languages.same(shipped, source):
    raise ValueError(
      f'LinkPolicy.stop_words is {shipped!r}, and the text is in {source!r}: regime {policy.regime!r} needs '
      'the path of a list in its language.'
    )


def check_text_route(policy: LinkPolicy) -> None:
  """Raises ValueError for what cannot be done in a text that is rewritten once, before it is cached."""
  if policy.scheduled:
    raise ValueError(
      'LinkPolicy.doc_fraction or word_ratio is a schedule: text is rewritten once, so it is a number.'
    )
  if policy.redraw:
    raise ValueError(
      'LinkPolicy.redraw is True: text is rewritten once, before it is cached, so every epoch reads '
      'the same draws. Set it False.'
    )
  if policy.mode == 'restore':
    raise ValueError(
      "LinkPolicy.mode is 'restore': its labels are made when tokens are read, not in the text. Load-time "
      "LINK (Stage.link_route = 'load') has it."
    )


def describe_files(policy: LinkPolicy, inputs: fingerprint.Inputs) -> dict[str, Any]:
  """Returns the hashes of the files that a resolved policy names, by what they are for."""
  return {
    'lexicons': [  # a list: a draw picks a language by its place
      [language, [inputs.sha256(path) for path in paths]]
      for language, paths in policy.lexicons.items()
    ],
    'stop_words': inputs.sha256(policy.stop_words) if policy.stop_words else '',
    'word_list': inputs.sha256(policy.word_list) if policy.word_list else '',
  }


def describe_code(inputs: fingerprint.Inputs) -> dict[str, Any]:
  """Returns the hashes of all modules that lexicons, policies and tokens depend on, and of libraries.

  Whole files: a dictionary's reader is found by its format, and no look at the functions would find it.
  """
  folder = pathlib.Path(__file__).parents[1]
  names = ('tokenizer.py', 'tokenizer_files.py', 'foreign.py')
  files = [*sorted((folder / 'link').rglob('*.py')), *(folder / 'data' / name for name in names)]
  return {
    'files': {str(path.relative_to(folder)): inputs.sha256(str(path)) for path in files},
    'libraries': [inputs.version(name) for name in _LIBRARIES],
  }


def load_lexicons(policy: LinkPolicy, source: str = 'en') -> dict[str, Lexicon]:
  """Reads the lexicons of a resolved policy, those of a language merged; `source` is that of the text."""
  return {
    language: _lexicon(paths, source, language) for language, paths in policy.lexicons.items()
  }


@functools.lru_cache(maxsize=32)
def _lexicon(paths: tuple[str, ...], source: str, target: str) -> Lexicon:
  codes = {'source': casing.base_language(source), 'target': casing.base_language(target)}
  loaded = [Lexicon.load(path, **codes) for path in paths]
  return loaded[0] if len(loaded) == 1 else Lexicon.merge(loaded)


def load_lists(policy: LinkPolicy) -> WordLists:
  """Reads the lists of a resolved policy."""
  return _lists(policy.stop_words, policy.word_list)


@functools.lru_cache(maxsize=32)
def _lists(stop_words: str, word_list: str) -> WordLists:
  return WordLists(
    load_words(stop_words) if stop_words else frozenset(),
    load_words(word_list) if word_list else frozenset(),
  )


def make_table(
  policy: LinkPolicy, source: str, blocks: Blocks, cache_dir: str, inputs: fingerprint.Inputs
) -> table.LinkTable:
  """Opens the link table of a resolved policy for a cache, building it first if it is not there.

  Args:
    policy: resolved.
    source: language of the cache's text.
    blocks: the cache; its tokenizer encodes the targets, and its words are looked up by lemma.
    cache_dir: folder of all caches.
    inputs: gathers the files that the table depends on.

  Raises:
    ValueError: the cache has no word marks, or the tokenizer leaves more words unspliceable than can be
      overlooked.
  """
  if not blocks.manifest.get('marked', True):
    raise ValueError(no_marks(blocks.name))
  share = blocks.manifest['unspliceable_words'] / max(1, blocks.manifest['words'])
  if share > UNSPLICEABLE_LIMIT:
    raise ValueError(
      f'{blocks.name}: in {share:.1%} of its words the tokens depend on what stands beside them, so they '
      f'cannot be replaced as tokens (the limit is {UNSPLICEABLE_LIMIT:.0%}). '
      "Stage.link_route = 'cache' replaces them in the text instead."
    )
  if not blocks.manifest['tokenizer']['native']:
    glued = [g for g in policy.lexicons if casing.glues(g, policy.mode, policy.join)]
    if glued:
      raise ValueError(
        f"LinkPolicy.join is 'auto', which joins words of {', '.join(glued)}: the tokenizer of "
        f'{blocks.name} encodes a text in whole, so joined words have no tokens of their own. Set it '
        "'space', or take Stage.link_route = 'cache'."
      )
  ingredients = {
    'format': table.FORMAT,
    'rendering': policy.rendering._asdict(),
    'source': source,
    **describe_files(policy, inputs),
    'tokenizer': blocks.manifest['tokenizer']['sha256'],
    'words_of': blocks.fingerprint if policy.lemmas else '',
    'code': describe_code(inputs),
  }
  digest = fingerprint.digest(ingredients)
  return table.build(
    os.path.join(cache_dir, 'link', digest[:16]),
    load_lexicons(policy, source),
    policy.rendering,
    load_lists(policy),
    Tokenizer(os.path.join(blocks.folder, blocks.manifest['tokenizer']['path'])),
    keys=_keys(blocks) if policy.lemmas else (),
    record={'digest': digest, 'ingredients': ingredients},
  )


def count_source(
  blocks: Blocks, link_table: table.LinkTable, language_by: str, progress: bool = True
) -> dict[str, int]:
  """Counts words of a whole source, and those that a table can replace; kept beside the table.

  Returns:
    'words', 'covered_any', 'covered' and 'eligible'. Of several languages drawn by document, the mean.
  """
  path = os.path.join(link_table.folder, f'counts-{blocks.fingerprint[:16]}-{language_by}.json')
  if os.path.exists(path):
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  languages = len(link_table.languages) if language_by == 'per_document' else 1
  totals = np.zeros(4, np.int64)
  bits = (sites.REWRITTEN, table.COVERED_ANY, table.COVERED, table.ELIGIBLE)
  bar = tqdm.tqdm(total=blocks.tokens, desc=f'counting {blocks.name}', unit=' tokens', delay=2,
                  unit_scale=True, disable=None if progress else True, leave=False)  # fmt: skip
  with bar:
    for windows in read_source(blocks):
      for language in range(languages):
        *_, kind_W = sites.find(windows, link_table, language if languages > 1 else None)
        totals += [np.count_nonzero(kind_W & bit) for bit in bits]
      bar.update(len(windows.tokens_N))
  names = ('words', 'covered_any', 'covered', 'eligible')
  counts = dict(zip(names, (totals // languages).tolist(), strict=True))
  with open(f'{path}.{os.getpid()}', 'w', encoding='utf-8') as file:
    json.dump(counts, file)
  os.replace(f'{path}.{os.getpid()}', path)
  return counts


def read_source(blocks: Blocks) -> Iterator[sites.Windows]:
  """Yields the whole source in ranges that end where a shard or a document does."""
  for shard in blocks.manifest['shards']:
    begin = sum(s['tokens'] for s in blocks.manifest['shards'][: shard['shard']])
    end, at = begin + shard['tokens'], begin
    while at < end:
      length = min(_COUNT_BLOCKS * blocks.block, end - at)
      tokens, starts = blocks.read(at, length)
      while at + length < end and not starts[1:].any():  # a long document is read in one piece
        length = min(2 * length, end - at)
        tokens, starts = blocks.read(at, length)
      stop = length if at + length == end else int(np.flatnonzero(starts)[-1])
      words = blocks.read_words(at, stop)
      yield sites.Windows(tokens[:stop], starts[:stop], np.zeros(1, np.int64), *words)
      at += stop


def _keys(blocks: Blocks) -> Iterator[str]:
  for shard in blocks.manifest['shards']:
    yield from blocks.read_types(shard['shard'])
