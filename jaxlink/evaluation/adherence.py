"""Language adherence: does a model keep writing a language when it is prompted in it?

  tr, en = openings(turkish_set), openings(english_set)
  words = tell_apart(turkish_counts, english_counts)
  forth = adherence(model, tr, identifier('tr', 'en', words), words)     prompted in Turkish
  back = adherence(model, en, identifier('en', 'tr', words), words.turned)    does Turkish leak into English?

Two measures. The first is of free continuation, which a small model can do: it is given the first words of
held-out texts and draws a continuation of each. Scores are shares of the texts:

  adherence        in the prompt's language, as a whole
  other_language   in the other one
  unknown          neither can be told: no language, too few words, or no clear answer
  mixed            words of both: of those known to be of one language, 2 or more, and a tenth or more, are of each
  words_other      mean over texts, of the words known to be of one language, those of the other one
  words_unseen     mean over texts, of all words, those that neither training text has

A text's language is told by py3langid (BSD, its model is in the package) between the two languages and 'no
language', and is unknown where fewer than half of the words are words: a model that draws tokens at random is
Turkish to any identifier. A word is of one language if its share among that language's training words is 10 times
its share among the other's: names and numbers count for neither. All of this errs. So the true continuations of
the same openings are judged the same way, and what comes out stands beside the scores as `true`:
1 − true['adherence'] is the identifier's own error, and true['mixed'] what real text has of names and quotations.

Where no spaces are between words, a run of letters is one: ask for openings of fewer; of the scores the first three
hold.

The second is CoCo-CoLa, "correct concept, correct language" (Rahmati, Ziabari and Dehghani, arXiv 2502.12476; code
at github.com/elnazrahmati/CoCo-CoLa): of questions in language L whose answers in L and in English differ (their
case aside), with A the share that is answered in L and E the share that is answered in English,

  coco_cola_ratio = A / (A + E)      cumulative_accuracy = A + E

Their answers are greedy, of 20 tokens, and count where they contain the right one, or are contained in it; here
only where they contain it, for an empty answer is contained in every one. It says how a known answer is worded, and
nothing of a model that knows none: hence the first measure, which has no counterpart in the paper.

Easy to get wrong: comparing models by texts of other lengths or another temperature. Adherence falls with both.
"""

import copy
import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlink.evaluation import measures
from jaxlink.evaluation.items import EvaluationSet
from jaxlink.evaluation.measures import Score
from jaxlink.generation import text as text_lib
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.link import casing
from jaxlink.link import words as words_lib
from jaxlink.link.formats import languages
from jaxlink.run_model import RunModel

_LEAST = 3  # words of a text whose language can be told
_SURE = 0.8  # probability of a language that is told
_SEEN = 0.5  # share of words, of a text whose language can be told
_TIMES = 10  # as often in one language as in the other is a word of it
_MIXED = (2, 0.1)  # words, and share of the known ones, that both languages have in a mixed text
_SHARES = ('adherence', 'other_language', 'unknown', 'mixed', 'words_other', 'words_unseen')

Identify = Callable[[str], str]  # text → 'own', 'other' or 'unknown'


class Opening(NamedTuple):
  """The beginning of a held-out text.

  Attributes:
    id: of the text.
    prompt: its first words; ends where the last of them does.
    rest: how it went on, for as many words as there are, at most as many as asked.
    group: of the text.
  """

  id: str
  prompt: str
  rest: str
  group: str = ''


class Words(NamedTuple):
  """Words of two languages, by `jaxlink.link.words.key`.

  Attributes:
    own: those of the language that is asked for, and not of the other.
    other: those of the other one alone.
    both: those that are of neither alone.
  """

  own: frozenset[str]
  other: frozenset[str]
  both: frozenset[str]

  @property
  def turned(self) -> 'Words':
    """With the languages exchanged."""
    return Words(self.other, self.own, self.both)


@dataclasses.dataclass(frozen=True)
class Adherence:
  """What a model wrote, judged.

  Attributes:
    scores: by name; of each text's continuation.
    true: the same names' values for the true continuations of the openings.
    texts: what was written after each opening.
    identified: of each, 'own', 'other' or 'unknown'.
  """

  scores: dict[str, Score]
  true: dict[str, float]
  texts: list[str]
  identified: list[str]

  def to_json(self) -> dict[str, Any]:
    """Plain JSON for a record: 'scores', and 'true' to read them by."""
    return {
      'scores': {name: score.to_json() for name, score in self.scores.items()},
      'true': self.true,
    }


def openings(found: EvaluationSet, *, words: int = 8, rest: int = 24) -> list[Opening]:
  """The beginnings of a set's texts; those that do not go on for half of `rest` are left out.

  Args:
    found: a set of kind 'text'.
    words: of a prompt.
    rest: most words of a true continuation, about as many as the model will write.

  Raises:
    ValueError: the set is of another kind, or all its texts are too short.
  """
  if found.kind != 'text':
    raise ValueError(f"{found.name} is of kind {found.kind!r}: openings are of 'text'.")
  made = []
  for item in found.items:
    spans = words_lib.find_words(item.text)
    if len(spans) >= words + max(_LEAST, rest // 2):
      cut, end = spans[words - 1][1], spans[: words + rest][-1][1]
      made.append(Opening(item.id, item.text[:cut], item.text[cut:end], item.group))
  if not made:
    raise ValueError(
      f'{found.name} has no text of {words + max(_LEAST, rest // 2)} words: ask for shorter prompts.'
    )
  return made


def tell_apart(own: Mapping[str, int], other: Mapping[str, int]) -> Words:
  """Tells which words are of one language, from how often each occurs in text of either.

  Args:
    own: key of a word → times, such as the types of a cache of training text (`Blocks.read_types`).
    other: the same of the other language.

  Raises:
    ValueError: a language has no words.
  """
  for name, counts in (('own', own), ('other', other)):
    if not counts:
      raise ValueError(f'the {name} language has no words: none can be told from the other.')
  sizes = sum(own.values()), sum(other.values())

  def of(mine, size, theirs, their_size):
    return frozenset(
      word
      for word, times in mine.items()
      if times * their_size >= _TIMES * theirs.get(word, 0) * size
    )

  mine, theirs = of(own, sizes[0], other, sizes[1]), of(other, sizes[1], own, sizes[0])
  return Words(mine, theirs, frozenset((own.keys() | other.keys()) - mine - theirs))


def count_words(texts: Iterable[str]) -> dict[str, int]:
  """How often each word occurs, by key."""
  counts: dict[str, int] = {}
  for text in texts:
    for begin, end in words_lib.find_words(text):
      key = words_lib.key(text[begin:end])
      counts[key] = counts.get(key, 0) + 1
  return counts


def identifier(own: str, other: str, words: Words) -> Identify:
  """What tells a text's language.

  Args:
    own: code of the language that is asked for ('tr', 'tur', 'tur_Latn').
    other: code of the one that may come instead.
    words: of both; where py3langid does not know a language, the one that has twice as many of a text's.

  Raises:
    ModuleNotFoundError: py3langid is not installed.
    ValueError: the two are one language.
  """
  codes = [languages.code(casing.base_language(code)) for code in (own, other)]
  if codes[0] == codes[1]:
    raise ValueError(f'{own!r} and {other!r} are one language: adherence is to one of two.')
  library = copy.copy(_library())
  known = set(codes) <= set(library.labels)
  if known:
    library.set_languages([*codes, 'zxx'])  # zxx is no language
  names = {codes[0]: 'own', codes[1]: 'other', 'zxx': 'unknown'}
  spaced = not any(casing.glues(code, 'replace', 'auto') for code in codes)

  def identify(text: str) -> str:
    mine, theirs, unseen, count = _counts(text, words)
    if spaced and (count < _LEAST or unseen > (1 - _SEEN) * count):
      return 'unknown'
    if known:
      code, sure = library.classify(text)
      return names[code] if sure >= _SURE else 'unknown'
    if mine + theirs < _LEAST or theirs < 2 * mine < 4 * theirs:
      return 'unknown'
    return 'own' if mine > theirs else 'other'

  return identify


def library_version() -> str:
  """The version of what tells languages; '' where it is not installed."""
  try:
    return importlib.metadata.version('py3langid')
  except importlib.metadata.PackageNotFoundError:
    return ''


@functools.cache
def _library() -> Any:
  try:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier
  except ModuleNotFoundError:
    raise ModuleNotFoundError(
      "language adherence needs py3langid: pip install 'jaxlink[adherence]'", name='py3langid'
    ) from None
  return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def adherence(
  model: RunModel, given: Sequence[Opening], identify: Identify, words: Words, *, tokens: int = 32,
  sampling: Sampling | None = None, seed: int = 0, batch: int = 32, sampler: Sampler | None = None,
  progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Adherence:  # fmt: skip
  """Lets a model continue openings, and judges what it writes.

  Args:
    model: with its tokenizer.
    given: one or more.
    identify: of `identifier`, for the openings' language.
    words: the same languages'.
    tokens: of a continuation, fewer where the model has no room for more.
    sampling: by default from the model's own probabilities, temperature 1.
    seed: of the draws.
    batch: most texts at a time.
    sampler: to be used again, with its compiled programs; `sampling` and `batch` are then its own.
    progress: wraps the batches, such as `tqdm.tqdm`.

  Raises:
    ValueError: there are no openings, or one is too long for the model.
  """
  if not given:
    raise ValueError('there are no openings to be continued.')
  if sampler is None:
    sampler = Sampler(
      model.config, model.mesh, eos=model.eos, vocabulary=model.tokenizer.size,
      sampling=sampling or Sampling(), batch=batch,
    )  # fmt: skip
  longest = max(len(text_lib.encode(model.tokenizer, model.opening, one.prompt)) for one in given)
  tokens = max(1, min(tokens, model.config.max_length - longest))
  texts = []
  for first in progress(range(0, len(given), batch)):
    made = text_lib.generate(
      sampler, model.params, model.tokenizer, [one.prompt for one in given[first : first + batch]],
      opening=model.opening, tokens=tokens, seed=seed, first=first,
    )  # fmt: skip
    texts += [one.text for (one,) in made]
  return judge(given, texts, identify, words)


def judge(
  given: Sequence[Opening], texts: Sequence[str], identify: Identify, words: Words
) -> Adherence:
  """Judges continuations of openings, and the true ones; see `adherence`."""
  identified, values = _values(texts, identify, words)
  _, true = _values([one.rest for one in given], identify, words)
  measured = measures.measure_means(given, values, dict.fromkeys(_SHARES))
  scores = {
    name: dataclasses.replace(score, better='higher' if name == 'adherence' else 'lower')
    for name, score in measured.scores.items()
  }
  means = {name: float(np.mean(each)) for name, each in true.items()}
  return Adherence(scores, means, list(texts), identified)


def coco_cola(
  texts: Sequence[str], own: Sequence[Sequence[str]], other: Sequence[Sequence[str]]
) -> dict[str, Score]:
  """In which language right answers are given: 'coco_cola_ratio' and 'cumulative_accuracy'.

  Args:
    texts: what was written for each question.
    own: the right answers in the question's language, of each.
    other: those in the other language.

  Raises:
    ValueError: no question has other answers in the other language.
  """
  hits = []
  for text, mine, theirs in zip(texts, own, other, strict=True):
    mine, theirs = ({answer.strip().casefold() for answer in each} for each in (mine, theirs))
    if not mine & theirs:
      said = text.casefold()
      hits.append([any(answer in said for answer in each) for each in (mine, theirs)])
  if not hits:
    raise ValueError('all answers are the same in both languages: none tells them apart.')
  own_N, other_N = np.array(hits, float).T
  right_N = own_N + other_N
  ((value, low, high),) = measures.means(right_N[:, None])
  found = {'cumulative_accuracy': Score(value, low, high, 0.0, 'higher')}
  if right_N.any():
    with np.errstate(invalid='ignore'):  # draws without a right answer: there is no interval then
      found['coco_cola_ratio'] = Score(*measures.ratio(own_N, right_N), None, 'higher')
  return found


def _values(texts, identify, words) -> tuple[list[str], dict[str, list[float]]]:
  """Of each text, what it is taken for, and what it adds to each share."""
  identified, values = [], {name: [] for name in _SHARES}
  for text in texts:
    own, other, unseen, count = _counts(text, words)
    which = identify(text)
    identified.append(which)
    added = (
      which == 'own',
      which == 'other',
      which == 'unknown',
      min(own, other) >= max(_MIXED[0], _MIXED[1] * (own + other)),
      other / max(1, own + other),
      unseen / max(1, count),
    )
    for name, value in zip(_SHARES, added, strict=True):
      values[name].append(float(value))
  return identified, values


def _counts(text: str, words: Words) -> tuple[int, int, int, int]:
  """How many words of a text are of the one language, of the other, of no training text; and of all."""
  keys = [words_lib.key(text[begin:end]) for begin, end in words_lib.find_words(text)]
  own, other, both = (sum(key in some for key in keys) for some in words)
  return own, other, len(keys) - own - other - both, len(keys)
