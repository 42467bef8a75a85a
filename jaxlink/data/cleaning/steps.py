"""What every cleaning step is: a judge of one text, run over a dataset, its verdicts kept and counted.

In: a `tf.data.Dataset` of dicts with a text. Out: the same examples, in the same order and number, with
'removed' (a reason, '' if the document stays) and 'noted' (what else is to be counted, a line each).

Easy to get wrong: dropping an example. A reader that never sees it cannot count it. Its text is emptied
instead, which makes later steps, LINK and the tokenizer pass it over, and the cache leaves it out.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

REMOVED, NOTED = 'removed', 'noted'  # features of the examples, and prefixes of the counts


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a step decided about a text.

  Attributes:
    text: as it shall be; unused for a document that is removed.
    removed: the reason, a fixed code for each rule; '' if the document stays.
    noted: more to be counted of this document, whether it stays or not.
  """

  text: str = ''
  removed: str = ''
  noted: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
  """A SeqIO preprocessor that judges each text by itself.

  Attributes:
    judge: a text's verdict. `functools.partial` of a function with plain values, so that a cache's
      fingerprint has its code and its settings.
    text_key: the feature that holds the text.
  """

  judge: Callable[[str], Verdict]
  text_key: str = 'text'

  def __call__(self, dataset: Any) -> Any:
    return run(dataset, lambda text: self.judge(text), self.text_key)


def run(
  dataset: Any,
  judge: Callable[[str], Verdict],
  text_key: str,
  begin: Callable[[], None] | None = None,
) -> Any:
  """Runs a judge over a dataset; texts that are empty or removed already are not shown to it.

  Args:
    dataset: examples with a text, UTF-8.
    judge: a text's verdict.
    text_key: the feature that holds the text.
    begin: called before the first example of each pass, for judges that remember.

  Raises:
    ValueError: the examples have no such feature.
  """
  import tensorflow as tf

  if text_key not in dataset.element_spec:
    raise ValueError(
      f'A cleaning step has text_key={text_key!r}, which its examples lack. Features: '
      f'{", ".join(dataset.element_spec)}.'
    )

  def rewrite(place: Any, text: bytes, removed: bytes, noted: bytes) -> tuple[bytes, bytes, bytes]:
    if begin and not place:
      begin()
    if removed or not text:
      return text, removed, noted
    verdict = judge(text.decode())
    lines = [*filter(None, noted.decode().split('\n')), *verdict.noted]
    text = b'' if verdict.removed else verdict.text.encode()
    return text, verdict.removed.encode(), '\n'.join(lines).encode()

  def rewrite_example(example: dict[str, Any], place: Any = 1) -> dict[str, Any]:
    none = tf.constant('')
    found = tf.numpy_function(
      rewrite,
      [place, example[text_key], example.get(REMOVED, none), example.get(NOTED, none)],
      [tf.string] * 3,
      stateful=begin is not None,
    )
    for tensor in found:
      tensor.set_shape([])
    text, removed, noted = found
    return {**example, text_key: text, REMOVED: removed, NOTED: noted}

  if not begin:
    return dataset.map(rewrite_example)
  return dataset.enumerate().map(lambda place, example: rewrite_example(example, place))


def drop_removed() -> Callable[[Any], Any]:
  """A last step for SeqIO pipelines of one's own: drops what was removed, and the steps' features.

  A cache needs it not and must not have it: what is dropped before it is read cannot be counted.
  """
  return _drop_removed


def _drop_removed(dataset: Any) -> Any:
  if REMOVED not in dataset.element_spec:
    return dataset
  kept = dataset.filter(lambda example: example[REMOVED] == '')
  return kept.map(lambda example: {k: v for k, v in example.items() if k not in (REMOVED, NOTED)})


def texts(dataset: Any, text_key: str) -> Iterator[str]:
  """Yields the texts of a dataset that are neither empty nor removed."""
  for example in dataset.as_numpy_iterator():
    if example[text_key] and not example.get(REMOVED):
      yield example[text_key].decode()


def count(example: Mapping[str, Any]) -> dict[str, int]:
  """Returns an example's counts: 'removed:{reason}' and 'noted:{code}'; {} of one not cleaned."""
  found: collections.Counter[str] = collections.Counter()
  if reason := example.get(REMOVED):
    found[f'{REMOVED}:{reason.decode()}'] = 1
  for line in filter(None, example.get(NOTED, b'').decode().split('\n')):
    found[f'{NOTED}:{line}'] += 1
  return dict(found)


def check_share(where: str, value: float | None) -> None:
  """Raises ValueError unless a setting is None or a share."""
  if value is not None and not 0 <= value <= 1:
    raise ValueError(f'{where} is {value!r}: it is a share, 0 to 1, or None for no limit.')
