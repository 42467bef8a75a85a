"""What an evaluation set consists of: checked items of four kinds, and the files that hold them.

  choice     a context and options, one of them right: minimal pairs, multiple choice, classification by
             the label's words. The model's likelihood of each option decides.
  text       a text whose bits per byte count: held-out and parallel text.
  label      a text and its class, for a probe on hidden states; some items train the probe.
  question   a prompt and its right answers: the model writes one, and the likelihood of the first is known.

`jaxlink.evaluation.register` makes SeqIO tasks of such items; `jaxlink.evaluation.prepare` writes a task's
items to a folder, once, which is all that the process with the model reads.

Easy to get wrong: what is scored. An option is scored as `context + delimiter + option`, where the delimiter
is a part of what has a likelihood and none of what lengths are taken of; after an empty context there is
none.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from jaxlink.names import nearest

Kind = Literal['choice', 'text', 'label', 'question']
FORMAT = 1  # of the files
_ITEMS, _MANIFEST = 'items.jsonl', 'set.json'


class BadItem(ValueError):
  """An item is not what its kind asks for; the message names the set and the item."""


@dataclasses.dataclass(frozen=True)
class Choice:
  """One right option among K.

  Attributes:
    id: unique in its set.
    contexts: one for all options, or one for each.
    choices: texts of the options, K of them, 2 or more.
    label: index of the right one.
    group: what scores are broken down by, such as a grammatical phenomenon or a school subject.
    delimiter: between context and option.
  """

  kind: ClassVar[Kind] = 'choice'
  id: str
  contexts: tuple[str, ...]
  choices: tuple[str, ...]
  label: int
  group: str = ''
  delimiter: str = ' '

  def __post_init__(self):
    if len(self.choices) < 2:
      raise ValueError(f'it has {len(self.choices)} choices: 2 or more.')
    for k, choice in enumerate(self.choices):
      if not choice.strip():
        raise ValueError(f'choice {k} is {choice!r}: an empty option has no likelihood.')
    if not 0 <= self.label < len(self.choices):
      raise ValueError(f'label is {self.label}: it is 0 to {len(self.choices) - 1}.')
    if len(self.contexts) not in (1, len(self.choices)):
      raise ValueError(
        f'it has {len(self.contexts)} contexts: one, or one for each of its {len(self.choices)} choices.'
      )

  @property
  def requests(self) -> list[tuple[str, str]]:
    """(context, continuation) of each option; the delimiter is the continuation's."""
    contexts = self.contexts * (len(self.choices) if len(self.contexts) == 1 else 1)
    return [
      (context, (self.delimiter if context else '') + choice)
      for context, choice in zip(contexts, self.choices, strict=True)
    ]

  @property
  def text(self) -> str:
    """What training text may have held: the context and the right option."""
    context, continuation = self.requests[self.label]
    return context + continuation


@dataclasses.dataclass(frozen=True)
class Text:
  """A text to be predicted.

  Attributes:
    id: unique in its set; equal for the same text in two languages.
    text: not empty.
    group: what scores are broken down by.
  """

  kind: ClassVar[Kind] = 'text'
  id: str
  text: str
  group: str = ''

  def __post_init__(self):
    if not self.text.strip():
      raise ValueError(f'text is {self.text!r}: an empty text has no bits per byte.')


@dataclasses.dataclass(frozen=True)
class Label:
  """A text of a class.

  Attributes:
    id: unique in its set.
    text: not empty.
    label: number of its class, from 0; the set names the classes.
    split: 'train' for the probe, 'validation' for its regularisation, 'test' for its score.
    group: what scores are broken down by.
  """

  kind: ClassVar[Kind] = 'label'
  id: str
  text: str
  label: int
  split: str = 'test'
  group: str = ''

  def __post_init__(self):
    if not self.text.strip():
      raise ValueError(f'text is {self.text!r}: an empty text has no class.')
    if self.label < 0:
      raise ValueError(f'label is {self.label}: it is 0 or more.')
    if self.split not in ('train', 'validation', 'test'):
      raise ValueError(f"split is {self.split!r}: 'train', 'validation' or 'test'.")


@dataclasses.dataclass(frozen=True)
class Question:
  """A prompt that asks for a short text.

  Attributes:
    id: unique in its set.
    prompt: ends where the answer begins.
    answers: all that are right, one or more; the likelihood is that of the first.
    group: what scores are broken down by.
    delimiter: between prompt and answer, part of the answer's likelihood.
  """

  kind: ClassVar[Kind] = 'question'
  id: str
  prompt: str
  answers: tuple[str, ...]
  group: str = ''
  delimiter: str = ' '

  def __post_init__(self):
    if not self.prompt.strip():
      raise ValueError('its prompt is empty.')
    if not self.answers:
      raise ValueError('it has no answers: one or more.')
    for k, answer in enumerate(self.answers):
      if not answer.strip():
        raise ValueError(f'answer {k} is {answer!r}: an empty answer has no likelihood.')

  @property
  def requests(self) -> list[tuple[str, str]]:
    """(prompt, continuation) of the first answer."""
    return [(self.prompt, self.delimiter + self.answers[0])]

  @property
  def text(self) -> str:
    """What training text may have held."""
    return self.prompt + self.delimiter + self.answers[0]


Item = Choice | Text | Label | Question
KINDS: dict[str, type[Item]] = {cls.kind: cls for cls in (Choice, Text, Label, Question)}


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """Items of one kind, as a model is judged by them.

  Attributes:
    name: of the SeqIO task.
    kind: of its items.
    language: of what is scored, such as 'tr'.
    items: in the set's order.
    version: raised by whoever changes what the items ask; part of `identity`.
    labels: names of the classes of a 'label' set.
    answer: how a written answer is compared: 'text' (SQuAD's exact match and F1) or 'number' (the last
      number).
    stop: texts that end a written answer.
    tokens: most of a written answer.
    licence: of the items.
    source: where they are from.
    note: what to know before its scores are believed; printed with them.
  """

  name: str
  kind: Kind
  language: str
  items: tuple[Item, ...]
  version: int = 1
  labels: tuple[str, ...] = ()
  answer: Literal['text', 'number'] = 'text'
  stop: tuple[str, ...] = ('\n',)
  tokens: int = 32
  licence: str = ''
  source: str = ''
  note: str = ''

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(
        f'{self.name}: kind is {self.kind!r}.{nearest(self.kind, list(KINDS))} Kinds: {", ".join(KINDS)}.'
      )
    if not self.items:
      raise BadItem(f'{self.name} has no items.')
    seen: set[str] = set()
    for item in self.items:
      if item.id in seen:
        raise BadItem(f'{self.name}: two items have the id {item.id!r}.')
      seen.add(item.id)
      if isinstance(item, Label) and item.label >= len(self.labels):
        raise BadItem(
          f'{self.name}, item {item.id!r}: label is {item.label}, and the set names '
          f'{len(self.labels)} classes: 0 to {len(self.labels) - 1}.'
        )

  @property
  def identity(self) -> str:
    """Version and a digest of all items: scores of another identity are of another set."""
    return f'{self.version}-{_digest(self)[:12]}'


def parse(name: str, kind: str, fields: Mapping[str, Any]) -> Item:
  """Makes an item of plain values, such as a line of JSON.

  Args:
    name: of the set, for messages.
    kind: of `KINDS`.
    fields: the item's; 'context' may stand for 'contexts' with one.

  Raises:
    BadItem: fields are missing, unknown, of a wrong type, or of values that the kind does not allow.
  """
  where = f'{name}, item {fields.get("id", "without id")!r}'
  values = dict(fields)
  if kind == 'choice' and 'context' in values:
    values['contexts'] = [values.pop('context')]
  known = {field.name: field for field in dataclasses.fields(KINDS[kind])}
  for field in values:
    if field not in known:
      raise BadItem(f'{where}: unknown field {field!r}.{nearest(field, list(known))}')
  for field in known.values():
    if field.default is dataclasses.MISSING and field.name not in values:
      raise BadItem(f'{where}: {field.name!r} is missing, which an item of kind {kind!r} has.')
  for field in values:
    values[field] = _typed(where, field, values[field], known[field].type)
  try:
    return KINDS[kind](**values)
  except ValueError as error:
    raise BadItem(f'{where}: {error}') from None


def _typed(where: str, field: str, value: Any, wanted: Any) -> Any:
  if wanted is int:
    right = isinstance(value, int) and not isinstance(value, bool)
  elif wanted is str:
    right = isinstance(value, str)
  else:  # tuple[str, ...]
    right = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    value = tuple(value) if right else value
  if not right:
    what = {int: 'a whole number', str: 'a text'}.get(wanted, 'a list of texts')
    raise BadItem(f'{where}: {field} is {value!r}: it is {what}.')
  return value


def write(found: EvaluationSet, folder: str | os.PathLike) -> None:
  """Writes a set to a folder, which `read` reads."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / _ITEMS).write_text(''.join(_lines(found.items)), encoding='utf-8')
  about = {f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.name != 'items'}
  about |= {'format': FORMAT, 'count': len(found.items), 'identity': found.identity}
  (folder / _MANIFEST).write_text(
    json.dumps(about, ensure_ascii=False, indent=2) + '\n', encoding='utf-8'
  )


def read(folder: str | os.PathLike) -> EvaluationSet:
  """Reads a set that `write` wrote.

  Raises:
    FileNotFoundError: there is none.
    BadItem: the items are not those that were written.
  """
  folder = pathlib.Path(folder)
  about = json.loads((folder / _MANIFEST).read_text(encoding='utf-8'))
  form, count, identity = (about.pop(key) for key in ('format', 'count', 'identity'))
  if form != FORMAT:
    raise BadItem(f'{folder} is of format {form}, and this version reads format {FORMAT}.')
  for key in ('labels', 'stop'):
    about[key] = tuple(about[key])
  name, kind = about['name'], about['kind']
  with open(folder / _ITEMS, encoding='utf-8') as file:
    items = tuple(parse(name, kind, json.loads(line)) for line in file)
  found = EvaluationSet(**about, items=items)
  if len(items) != count or found.identity != identity:
    raise BadItem(f'{folder}: its items are not those that were written there: remove the folder.')
  return found


def _lines(items: Iterable[Item]) -> Iterator[str]:
  for item in items:
    yield json.dumps(dataclasses.asdict(item), ensure_ascii=False, sort_keys=True) + '\n'


def _digest(found: EvaluationSet) -> str:
  settings = [found.kind, found.language, found.labels, found.answer, found.stop, found.tokens]
  known = hashlib.sha256(json.dumps(settings).encode())
  for line in _lines(found.items):
    known.update(line.encode())
  return known.hexdigest()
