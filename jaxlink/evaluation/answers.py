"""Written answers: what a model writes after each prompt, and whether it is right.

  written = generate_answers(run_model.load('runs/mine'), found)     greedily, up to a stop text
  mark(found, written.texts)                                         {'exact_match': […], 'f1': […]}

Texts are compared as SQuAD v1.1 does (arXiv 1606.05250), for several languages: lower case, punctuation taken
out, white space made one space; a prediction has its best score over the right answers. As in MLQA (arXiv
1910.07475) punctuation is all of Unicode's, and scripts that are written without spaces count by the character.
MLQA takes articles out, and what stands for them, in six languages; here English ones alone are, and from English
answers only. Of Chinese answers MLQA keeps the punctuation; here it goes as elsewhere.

Numbers are compared by value: the last one that was written (MGSM, arXiv 2210.03057), in any script's digits, with
or without separators of thousands.

Easy to get wrong: 80.000. A single separator before exactly three digits is one of thousands, whatever the
language, unless a 0 stands before it: 80.000 and 80,000 are 80000, 0.125 is an eighth, and 1.125 is 1125.
"""

import collections
import decimal
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import regex

from jaxlink.evaluation.items import EvaluationSet
from jaxlink.generation import text as text_lib
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.link.casing import base_language
from jaxlink.run_model import RunModel

_SLICE = 4  # batches between two steps of the progress

_ARTICLES = regex.compile(r'\b(?:a|an|the)\b')
_PUNCTUATION = regex.compile(rf'[\p{{P}}{regex.escape(string.punctuation)}]')
_UNSPACED = r'\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}'
# A character with its marks where no spaces are between words, else all up to a space.
_PIECES = regex.compile(rf'[{_UNSPACED}]\p{{M}}*|[^\s{_UNSPACED}]+')
_DOTTED_I = frozenset({'tr', 'tur', 'az', 'aze', 'azj'})  # languages where I is no capital of i

_SPACES = ' \u00a0\u2009\u202f'
# With spaces only where three digits follow each and one to three come first: '80 000', not '7 1200'.
_NUMBER = regex.compile(
  rf'(?P<minus>(?<![\p{{L}}\p{{N}}.,)])[-−]\p{{Sc}}?)?'
  rf'(?P<digits>(?<![0-9.,])[1-9][0-9]{{0,2}}(?:[{_SPACES}][0-9]{{3}})+(?:[.,٫][0-9]+)?(?![0-9])'
  r"|[0-9]+(?:[.,٬٫'’][0-9]+)*)"
)
_THOUSANDS = regex.compile(rf"[{_SPACES}٬'’]")


class Written(NamedTuple):
  """What a model wrote.

  Attributes:
    texts: after each prompt, without what ended it.
    cut: prompts that the model had no room for, whose beginning was left out.
  """

  texts: list[str]
  cut: int


def greedy_sampler(model: RunModel, batch: int = 32) -> Sampler:
  """A sampler that takes the likeliest token; it keeps its compiled programs, whatever the parameters."""
  return Sampler(
    model.config, model.mesh, eos=model.eos, vocabulary=model.tokenizer.size,
    sampling=Sampling(temperature=0.0), batch=batch,
  )  # fmt: skip


def generate_answers(
  model: RunModel, found: EvaluationSet, *, batch: int = 32, sampler: Sampler | None = None,
  progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Written:  # fmt: skip
  """Lets a model answer questions, greedily.

  Args:
    model: with its tokenizer.
    found: a set of kind 'question'; its `stop` and `tokens` end an answer.
    batch: most prompts at a time.
    sampler: of `greedy_sampler`, to be used again; by default one is made.
    progress: wraps the slices that are worked through, such as `tqdm.tqdm`.

  Raises:
    ValueError: the set is of another kind, or the model has no room for a prompt beside the answer.
  """
  if found.kind != 'question':
    raise ValueError(f"{found.name} is of kind {found.kind!r}: answers are to a 'question'.")
  sampler = greedy_sampler(model, batch) if sampler is None else sampler
  room = model.config.max_length - found.tokens
  if room < 2:
    raise ValueError(
      f'{found.name} asks for {found.tokens} tokens: DecoderConfig.max_length of this model is '
      f'{model.config.max_length}, which leaves no room for a prompt.'
    )
  prompts = [fit(model, item.prompt, room) for item in found.items]
  order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i][0]), prompts[i][0]))
  texts = [''] * len(prompts)
  size = _SLICE * batch
  for first in progress(range(0, len(order), size)):
    part = order[first : first + size]
    made = text_lib.generate(
      sampler, model.params, model.tokenizer, [prompts[i][0] for i in part],
      opening=model.opening, tokens=found.tokens, seed=0, stop=found.stop,
    )  # fmt: skip
    for i, (one,) in zip(part, made, strict=True):
      texts[i] = one.text
  return Written(texts, sum(cut for _, cut in prompts))


def fit(model: RunModel, prompt: str, room: int) -> tuple[str, bool]:
  """The longest end of a prompt that has at most `room` tokens with what opens a text; whether that is cut."""

  def fits(first: int) -> bool:
    return len(text_lib.encode(model.tokenizer, model.opening, prompt[first:])) <= room

  if fits(0):
    return prompt, False
  low, high = 0, len(prompt)  # the first does not fit, the second does
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if fits(middle) else (middle, high)
  return prompt[high:], True


def mark(found: EvaluationSet, texts: Sequence[str]) -> dict[str, list[float]]:
  """Tells which answers are right.

  Args:
    found: a set of kind 'question'.
    texts: what was written for each item, in its order.

  Returns:
    'exact_match' of each item, and 'f1' where answers are texts: 0 to 1.
  """
  pairs = list(zip(texts, (item.answers for item in found.items), strict=True))
  if found.answer == 'number':
    return {'exact_match': [float(same_number(text, answers)) for text, answers in pairs]}
  return {
    name: [
      max(score(text, answer, found.language) for answer in answers) for text, answers in pairs
    ]
    for name, score in (('exact_match', exact_match), ('f1', f1))
  }


def exact_match(prediction: str, answer: str, language: str) -> float:
  """1 where two texts are the same but for case, punctuation, spaces and English articles, else 0."""
  return float(pieces(prediction, language) == pieces(answer, language))


def f1(prediction: str, answer: str, language: str) -> float:
  """Harmonic mean of the shares of words (or characters) that two texts have in common."""
  ours, theirs = pieces(prediction, language), pieces(answer, language)
  if not ours or not theirs:
    return float(ours == theirs)
  same = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
  return 2 * same / (len(ours) + len(theirs))


def pieces(text: str, language: str) -> list[str]:
  """Words of a text, or characters where its script has no spaces, without what comparison ignores."""
  text = unicodedata.normalize('NFC', text)
  if base_language(language) in _DOTTED_I:
    text = text.replace('I', 'ı').replace('İ', 'i')
  text = _PUNCTUATION.sub('', text.lower())
  if base_language(language) in ('en', 'eng'):
    text = _ARTICLES.sub(' ', text)
  return _PIECES.findall(text)


def same_number(text: str, answers: Iterable[str]) -> bool:
  """Whether the last number of a text is that of one of the answers."""
  value = number(text)
  return value is not None and any(value == number(answer) for answer in answers)


def number(text: str) -> decimal.Decimal | None:
  """The last number of a text; None where it has none. Numbers in words do not count."""
  plain = ''.join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
  plain = plain.replace('，', ',').replace('．', '.')
  last = collections.deque(_NUMBER.finditer(plain), maxlen=1)
  if not last:
    return None
  value = _value(_THOUSANDS.sub('', last[0]['digits']))
  return -value if last[0]['minus'] else value


def _value(digits: str) -> decimal.Decimal:
  """Of digits with points, commas and ٫ between them."""
  marks = [c for c in digits if not c.isdecimal()]
  point = None
  if len(set(marks)) > 1:
    point = marks[-1]
  elif len(marks) == 1:
    head, _, tail = digits.partition(marks[0])
    thousands = len(tail) == 3 and len(head) <= 3 and not head.startswith('0')
    point = None if thousands and marks[0] != '٫' else marks[0]
  elif marks and len(digits.rpartition(marks[0])[2]) != 3:  # a date or a list: what stands last
    return decimal.Decimal(digits.rpartition(marks[0])[2])
  head, _, tail = digits.rpartition(point) if point else (digits, '', '')
  return decimal.Decimal(regex.sub(r'\D', '', head) + (f'.{tail}' if tail else ''))
