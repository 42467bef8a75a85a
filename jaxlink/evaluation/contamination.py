"""Evaluation items in a run's training text: which share 13 words in a row with it.

In: a run's directory and a set. Out: a `Contaminated`, which is kept in the cache folder under the fingerprints
of the run's caches and the set's identity, so that all checkpoints and all runs on the same text have it from
one pass. The text is what the caches decode to: all documents of the sources of all stages, also of the runs
that the first stage starts from, whether the run came to read them or not. Held-out text is not among it.

Easy to get wrong: what n-grams can't find. Translated items, or text about the same questions, share no 13
words; and LINK writes words of the target language into text at load time, which is not looked at.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from jaxlink.data import fingerprint, resolve
from jaxlink.data.blocks import MANIFEST, Blocks
from jaxlink.data.cleaning.contamination import ngram_index, overlap
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation.items import EvaluationSet

N = 13
FORMAT = 1  # of what is kept
_CHUNK = 1 << 20  # tokens that are read at once


@dataclasses.dataclass(frozen=True)
class Contaminated:
  """What of a set stands in training text.

  Attributes:
    ids: of the items that share an n-gram with it, in the set's order.
    compared: items that were looked for; those of fewer than 8 words were not.
    n: words in a row; items of 8 to n words are looked for as a whole.
  """

  ids: tuple[str, ...]
  compared: int
  n: int = N

  def to_json(self) -> dict[str, int]:
    """As a score's record has it."""
    return {'items': len(self.ids), 'compared': self.compared, 'n': self.n}


def of_run(
  directory: str | os.PathLike,
  found: EvaluationSet,
  cache_dir: str,
  *,
  beside: Sequence[EvaluationSet] = (),
) -> Contaminated | None:
  """Looks for a set's items in the text that a run was trained on.

  Args:
    directory: of the run.
    found: the set.
    cache_dir: where results are kept; the run's own caches are where its recipe says.
    beside: further sets that will be asked for: what is not known of them is looked for in the same pass.

  Returns:
    None where the run's caches are not on this machine, which is said once.
  """
  text = _training_text(os.fspath(directory))
  if text is None:
    return None
  path = _path(found, text, cache_dir)
  if not path.is_file():
    paths = [(one, _path(one, text, cache_dir)) for one in beside if one.name != found.name]
    _look([(found, path), *((one, p) for one, p in paths if not p.is_file())], text)
  kept = json.loads(path.read_text(encoding='utf-8'))
  return Contaminated(tuple(kept['ids']), kept['compared'], kept['n'])


@dataclasses.dataclass(frozen=True)
class _TrainingText:
  """Caches of a run: folder → fingerprint, with the tokenizer of each."""

  caches: dict[str, str]
  tokenizers: dict[str, str]


def _training_text(directory: str) -> _TrainingText | None:
  caches, tokenizers = {}, {}
  for run, stages in _runs(directory):
    cache_dir = json.loads((run / 'config.json').read_text(encoding='utf-8'))['data']['cache_dir']
    for stage in stages['stages']:
      for entry in stage['sources']:
        folder = resolve.Source.from_json(entry, cache_dir).folder
        manifest = pathlib.Path(folder, MANIFEST)
        if not manifest.is_file():
          _say(f'contamination was not looked for: the training text of {run} is not in {folder}')
          return None
        caches[folder] = json.loads(manifest.read_text(encoding='utf-8'))['fingerprint']
        tokenizers[folder] = os.path.join(cache_dir, stages['tokenizer']['path'])
  return _TrainingText(caches, tokenizers) if caches else None


def _runs(directory: str) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
  """Yields a run and those that it goes on from, with what is frozen of their stages."""
  run = pathlib.Path(directory)
  frozen = run / 'stages.json'
  if not frozen.is_file():
    _say(f'contamination was not looked for in all text: {frozen} is not there')
    return
  stages = json.loads(frozen.read_text(encoding='utf-8'))
  yield run, stages
  for stage in stages['stages']:
    if stage['origin']:
      yield from _runs(stage['origin']['directory'])


@functools.cache
def _say(text: str) -> None:
  print(text, file=sys.stderr)


def _path(found: EvaluationSet, text: _TrainingText, cache_dir: str) -> pathlib.Path:
  key = fingerprint.digest([FORMAT, N, found.name, found.identity, sorted(text.caches.values())])
  return pathlib.Path(cache_dir, 'evaluation', 'contamination', f'{found.name}-{key[:16]}.json')


def _look(sets: Sequence[tuple[EvaluationSet, pathlib.Path]], text: _TrainingText) -> None:
  """Compares sets with all documents and keeps what is found of each."""
  tested = {
    one.name: [i for i in one.items if getattr(i, 'split', 'test') == 'test'] for one, _ in sets
  }
  items = [(one, item) for one, _ in sets for item in tested[one.name]]
  index = ngram_index([item.text for _, item in items], N)
  shares = overlap(index, _documents(text)).shares
  for one, path in sets:
    own = np.array([owner is one for owner, _ in items])
    ids = [
      item.id
      for item, share in zip(tested[one.name], shares[own].tolist(), strict=True)
      if share > 0
    ]
    kept = {
      'set': one.name, 'identity': one.identity, 'caches': text.caches, 'n': N,
      'compared': int(np.isfinite(shares[own]).sum()), 'ids': ids,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f'.{os.getpid()}')
    partial.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding='utf-8')
    partial.replace(path)


def _documents(text: _TrainingText) -> Iterable[str]:
  """Yields the documents of all caches as text, behind a progress bar over their tokens."""
  opened = [(Blocks(folder), Tokenizer(text.tokenizers[folder])) for folder in text.caches]
  total = sum(blocks.tokens for blocks, _ in opened)
  with tqdm.tqdm(
    total=total, desc='evaluation items in training text', unit='tok', unit_scale=True, leave=False,
    disable=None,
  ) as bar:  # fmt: skip
    for blocks, tokenizer in opened:
      outside = {blocks.manifest['tokenizer'][name] for name in ('bos', 'eos')}
      for tokens in _split(blocks):
        yield tokenizer.decode([t for t in tokens.tolist() if t not in outside])
        bar.update(len(tokens))


def _split(blocks: Blocks) -> Iterator[np.ndarray]:
  """Yields the tokens of each document, BOS and EOS included."""
  begun: list[np.ndarray] = []
  for first in range(0, blocks.tokens, _CHUNK):
    tokens, starts = blocks.read(first, min(_CHUNK, blocks.tokens - first))
    head, *rest = np.split(tokens, np.flatnonzero(starts))
    begun.append(head)
    for document in rest:
      if any(map(len, begun)):  # nothing is before the first
        yield np.concatenate(begun)
      begun = [document]
  yield np.concatenate(begun)
