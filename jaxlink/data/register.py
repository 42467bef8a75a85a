"""Registering text: one call makes a language's corpus, lexicon and mixture known.

A module in tasks/ calls `register_corpus` for the auxiliary language (English, as a rule) and
`register_language` for the target. Both make ordinary SeqIO tasks and mixtures, which work in any
SeqIO pipeline; what SeqIO has no place for (language, lexicon, exact rates) is kept in
`registry`.

Easy to get wrong: registering must cost nothing. Tokenizers and lexicons are read when used.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from jaxlink.data import preprocessors as prep
from jaxlink.data import sources
from jaxlink.data.mixture import parse_rate
from jaxlink.data.registry import AUXILIARIES, LANGUAGES, LEXICONS, RATES, RegisteredLexicon
from jaxlink.data.vocabulary import ChunkedVocabulary
from jaxlink.names import nearest

Files = str | os.PathLike | Sequence[str | os.PathLike]


class TextSource(seqio.DataSource):
  """Documents of JSONL, plain text, Parquet or ArrayRecord files as a SeqIO source.

  Args:
    splits: files of each split: paths or globs.
    on_bad: 'raise', or 'skip' to pass over bad lines, rows, records and the rest of a broken file,
      which are then counted.
    max_bad: how much may be skipped before it is an error after all: a share below 1, or a number
      from 1 on; see `sources.check_max_bad`.
    **reading: settings of `sources.Reading`: `text_key`, `documents`, `records`,
      `max_document_bytes`.

  Examples have 'text'. Any number of readers may share a file: each parses its own items alone, and
  counts what is bad among them. The counts are not in the examples, of which a preprocessor may drop
  some: `rejected` has those of one reader, and `gather` adds up all readers' and looks at `max_bad`.
  """

  def __init__(
    self,
    splits: Mapping[str, Files],
    *,
    on_bad: sources.OnBad = 'raise',
    max_bad: float = 0.01,
    **reading,
  ):
    if on_bad not in ('raise', 'skip'):
      raise ValueError(f"on_bad is {on_bad!r}: 'raise' or 'skip'.")
    sources.check_max_bad(max_bad)
    self._files = {split: _paths(files) for split, files in splits.items()}
    self._on_bad = on_bad
    self._max_bad = max_bad
    self._reading = sources.Reading(**reading)
    self._rejected: dict[tuple[str, int, int], sources.Rejections] = {}
    super().__init__(splits=tuple(self._files))

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> Sequence[str]:
    return sources.expand(self._files[split])

  def patterns(self, split: str) -> list[str]:
    """Returns the paths and globs of a split as they were given."""
    return self._files[split]

  def settings(self) -> dict[str, Any]:
    """What the documents depend on beside the files' bytes."""
    return {**dataclasses.asdict(self._reading), 'on_bad': self._on_bad}

  def get_dataset(
    self,
    split: str = 'train',
    shuffle: bool = False,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    **unused,
  ) -> tf.data.Dataset:
    index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)

    def examples() -> Iterator[dict]:
      for document in self.documents(split, index, count):
        yield {'text': document.text.encode()}

    dataset = tf.data.Dataset.from_generator(
      examples, output_signature={'text': tf.TensorSpec([], tf.string)}
    )
    return dataset.shuffle(seqio.SHUFFLE_BUFFER_SIZE, seed=seed) if shuffle else dataset

  def documents(self, split: str, index: int = 0, count: int = 1) -> Iterator[sources.Document]:
    """Yields the documents of a split that fall to reader `index` of `count`, in order."""
    rejected = sources.Rejections() if self._on_bad == 'skip' else None
    for file, one, of in _portion(self.list_shards(split), index, count):
      yield from sources.read_documents(
        file, rejected=rejected, index=one, count=of, **dataclasses.asdict(self._reading)
      )
    if rejected is not None:
      self._rejected[split, index, count] = rejected

  def rejected(self, split: str, index: int = 0, count: int = 1) -> dict[str, Any]:
    """Returns what a reader passes over, as `sources.Rejections.as_dict` has it.

    It is known where this process has read that part to its end; otherwise the part is read now.
    """
    if self._on_bad == 'raise':
      return sources.Rejections().as_dict()
    if (split, index, count) not in self._rejected:
      collections.deque(self.documents(split, index, count), maxlen=0)
    return self._rejected[split, index, count].as_dict()

  def gather(self, split: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds up what all readers of a split passed over.

    Raises:
      BadDocument: it is more than `max_bad` allows; the first places are named.
    """
    merged = sources.Rejections.merge(parts, self.list_shards(split))
    merged.check(self._max_bad)
    return merged.as_dict()


def _portion(files: Sequence[str], index: int, count: int) -> Iterator[tuple[str, int, int]]:
  """What reader `index` of `count` reads: files, and its share of each (which reader, of how many).

  Whole files where there are enough for all readers, so that each file is opened once; else a file has
  the readers whose number leaves its own as the remainder.
  """
  for number, file in enumerate(files):
    if len(files) >= count:
      if number % count == index:
        yield file, 0, 1
    elif index % len(files) == number:
      yield file, index // len(files), (count - number - 1) // len(files) + 1


def register_corpus(
  name: str,
  splits: Mapping[str, Files] | seqio.DataSource,
  *,
  language: str,
  tokenizer: str | os.PathLike,
  text_key: str = 'text',
  preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
  **reading,
) -> seqio.Task:
  """Registers a corpus as a SeqIO task.

  Args:
    name: of the task.
    splits: the files of 'train' and 'validation' (JSONL, text, Parquet or ArrayRecord; compressed or
      not; local, gs:// or s3://; globs), or a SeqIO source such as `seqio.TfdsDataSource`.
    language: code of the text's language, such as 'tr'.
    tokenizer: file of the tokenizer.
    text_key: the field that holds the text.
    preprocessors: cleaning steps, before the text is tokenised.
    **reading: more settings of `TextSource`: `on_bad` and `max_bad` for lines that are not valid,
      `documents` of plain text, `records` of ArrayRecord, `max_document_bytes`.

  Returns:
    The task.

  Raises:
    ValueError: a setting is wrong, or is about files where a SeqIO source is given.
  """
  if isinstance(splits, seqio.DataSource):
    if reading:
      raise ValueError(f'{name}: {", ".join(reading)}: a SeqIO source has no such setting.')
    source, key = splits, text_key
  else:
    source, key = TextSource(splits, text_key=text_key, **reading), 'text'
  task = seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[
      *preprocessors,
      functools.partial(prep.tokenize_marked, text_key=key),
    ],
    output_features={
      'targets': seqio.Feature(ChunkedVocabulary(os.fspath(tokenizer)), add_eos=False)
    },
  )
  LANGUAGES[name] = language
  return task


def register_language(
  name: str,
  splits: Mapping[str, Files] | seqio.DataSource,
  *,
  language: str,
  tokenizer: str | os.PathLike,
  auxiliary: str,
  lexicon: Files,
  share: float | str = 0.5,
  mixture: str = '',
  **corpus,
) -> seqio.Task:
  """Registers a target language: its corpus, its lexicon and its mixture with an auxiliary corpus.

  Args:
    name: of the task, and of the lexicon in `LinkPolicy.lexicon`.
    splits: as in `register_corpus`.
    language: code of the language; it decides how replacements are cased and joined.
    tokenizer: file of the tokenizer, the same as the auxiliary corpus has.
    auxiliary: task of the text in the abundant language; registered before.
    lexicon: file of word pairs or dictionary, or several, of which the first has priority; see
      `jaxlink.link.lexicon.Lexicon.load` for the formats.
    share: of the mixture's tokens that come from this language; '1/3' is allowed.
    mixture: its name; '' stands for '{auxiliary}_{name}'.
    **corpus: more arguments of `register_corpus`.

  Returns:
    The task.
  """
  target = parse_rate(share, name)
  if not 0 < target < 1:
    raise ValueError(f'{name}: share is {share!r}: it is more than 0 and less than 1.')
  task = register_corpus(name, splits, language=language, tokenizer=tokenizer, **corpus)
  AUXILIARIES[name] = auxiliary
  LEXICONS[name] = RegisteredLexicon(tuple(_paths(lexicon)), language)
  register_mixture(mixture or f'{auxiliary}_{name}', {name: target, auxiliary: 1 - target})
  return task


def register_mixture(name: str, rates: Mapping[str, object]) -> seqio.Mixture:
  """Registers a mixture with exact rates: floats are read by their shortest decimal, '1/3' works.

  The members are tasks, or mixtures, which share their rate out among their own members.
  """
  exact = {task: parse_rate(rate, task) for task, rate in rates.items()}
  known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  for task in exact:
    if task not in known:
      raise ValueError(f'Mixture {name!r}: no task {task!r} is registered.{nearest(task, known)}')
  mixture = seqio.MixtureRegistry.add(name, [(task, float(rate)) for task, rate in exact.items()])
  RATES[name] = {task: str(rate) for task, rate in exact.items()}
  return mixture


def _paths(files: Files) -> list[str]:
  return [os.fspath(f) for f in ([files] if isinstance(files, str | os.PathLike) else files)]
