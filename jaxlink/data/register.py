"""Registering text: one call makes a language's corpus, lexicon and mixture known.

A module in tasks/ calls `register_corpus` for the auxiliary language (English, as a rule) and
`register_language` for the target. Both make ordinary SeqIO tasks and mixtures, which work in any
SeqIO pipeline; what SeqIO has no place for (language, lexicon, exact rates) is kept in
`registry`.

Easy to get wrong: registering must cost nothing. Tokenizers and lexicons are read when used.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import seqio
import tensorflow as tf

from jaxlink.config import nearest
from jaxlink.data import preprocessors as prep
from jaxlink.data import sources
from jaxlink.data.mixture import parse_rate
from jaxlink.data.registry import AUXILIARIES, LANGUAGES, LEXICONS, RATES, RegisteredLexicon
from jaxlink.data.vocabulary import ChunkedVocabulary

Files = str | os.PathLike | Sequence[str | os.PathLike]


class TextSource(seqio.DataSource):
  """Documents of JSONL, plain text or Parquet files as a SeqIO source.

  Args:
    splits: files of each split: paths or globs.
    text_key: the field or column that holds the text.
    on_bad: 'raise', or 'skip' to pass over bad lines, which are then counted.

  Examples have 'text'. Any number of readers may share a file: each takes every n-th document. Bad
  lines are counted by `rejected`, not in the examples, of which a preprocessor may drop some.
  """

  def __init__(
    self, splits: Mapping[str, Files], *, text_key: str = 'text', on_bad: sources.OnBad = 'raise'
  ):
    self._files = {split: _paths(files) for split, files in splits.items()}
    self._text_key = text_key
    self._on_bad: sources.OnBad = on_bad
    super().__init__(splits=tuple(self._files))

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> Sequence[str]:
    return sources.expand(self._files[split])

  def patterns(self, split: str) -> list[str]:
    """Returns the paths and globs of a split as they were given."""
    return self._files[split]

  def settings(self) -> dict[str, str]:
    """What the documents depend on beside the files' bytes."""
    return {'text_key': self._text_key, 'on_bad': self._on_bad}

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
      texts = (d.text for d in self.documents(split) if d.text is not None)
      for text in itertools.islice(texts, index, None, count):
        yield {'text': text.encode()}

    dataset = tf.data.Dataset.from_generator(
      examples, output_signature={'text': tf.TensorSpec([], tf.string)}
    )
    return dataset.shuffle(seqio.SHUFFLE_BUFFER_SIZE, seed=seed) if shuffle else dataset

  def documents(self, split: str) -> Iterator[sources.Document]:
    """Yields all documents of a split, in order."""
    for file in self.list_shards(split):
      yield from sources.read_documents(file, text_key=self._text_key, on_bad=self._on_bad)

  def rejected(self, split: str) -> int:
    """Returns how many bad lines of a split are passed over; 0 if they are errors."""
    return 0 if self._on_bad == 'raise' else sum(d.rejected for d in self.documents(split))


def register_corpus(
  name: str,
  splits: Mapping[str, Files] | seqio.DataSource,
  *,
  language: str,
  tokenizer: str | os.PathLike,
  text_key: str = 'text',
  on_bad: sources.OnBad = 'raise',
  preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
) -> seqio.Task:
  """Registers a corpus as a SeqIO task.

  Args:
    name: of the task.
    splits: the files of 'train' and 'validation' (JSONL, text or Parquet; compressed or not; globs),
      or a SeqIO source such as `seqio.TfdsDataSource`.
    language: code of the text's language, such as 'tr'.
    tokenizer: file of the tokenizer.
    text_key: the field that holds the text.
    on_bad: what to do with lines that are not valid: 'raise', or 'skip' to count them.
    preprocessors: cleaning steps, before the text is tokenised.

  Returns:
    The task.
  """
  if isinstance(splits, seqio.DataSource):
    source, key = splits, text_key
  else:
    source, key = TextSource(splits, text_key=text_key, on_bad=on_bad), 'text'
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
