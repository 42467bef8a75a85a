"""Length and quality of a document, by counts of words, lines and symbols.

In: text. Out: a verdict. The rules are Gopher's (Rae et al. 2021, arXiv 2112.11446, appendix A.1) and FineWeb's
line rules with FineWeb2's changes (arXiv 2506.20920 and its pipeline).

Easy to get wrong: the defaults are those for English. A Turkish word is longer than an English one,
and Thai ends no line with a full stop: FineWeb2 publishes limits for a thousand languages, which
`fineweb2_filters` reads. Words are runs of letters, so languages that write no spaces have few and
long ones: set the limits of `filter_length` and `word_length` to what you see there.
"""

import functools
import os
from collections.abc import Collection
from typing import Any

import regex

from jaxlink.data.cleaning import grams
from jaxlink.data.cleaning.repetition import filter_repetition
from jaxlink.data.cleaning.steps import Step, Verdict, check_share
from jaxlink.names import nearest

# A mark that ends a sentence in any script, and what may close a quotation behind it.
_END = regex.compile(r'[\p{Sentence_Terminal}…][\p{Pe}\p{Pf}"\']*\s*$')
_LETTER = regex.compile(r'\p{L}')
_BULLETS = ('•', '-')
_ELLIPSES = ('...', '…')


def filter_length(
  *, least_words: int = 50, most_words: int | None = 100_000, text_key: str = 'text'
) -> Step:
  """Removes documents with too few or too many words; at a limit a document stays.

  Args:
    least_words: Gopher's and FineWeb2's 50; documents of sentences or paragraphs want fewer.
    most_words: None for no limit.
    text_key: the feature that holds the text.

  Counts:
    removed 'too_few_words', 'too_many_words'.

  Raises:
    ValueError: limits that no document meets.
  """
  if least_words < 0 or (most_words is not None and most_words < least_words):
    raise ValueError(
      f'filter_length(least_words={least_words}, most_words={most_words}): 0 or more, and the most '
      'not below the least.'
    )
  return Step(functools.partial(_judge_length, least=least_words, most=most_words), text_key)


def _judge_length(text: str, *, least: int, most: int | None) -> Verdict:
  words = len(grams.find_words(text))
  if words < least:
    return Verdict(removed='too_few_words')
  if most is not None and words > most:
    return Verdict(removed='too_many_words')
  return Verdict(text)


def filter_quality(
  *,
  word_length: tuple[float, float] | None = (3, 10),
  symbols: float | None = 0.1,
  bullet_lines: float | None = 0.9,
  ellipsis_lines: float | None = 0.3,
  words_with_letters: float | None = 0.8,
  ended_lines: float | None = 0.12,
  short_lines: float | None = None,
  newlines: float | None = 0.3,
  stop_words: Collection[str] = (),
  least_stop_words: int = 2,
  text_key: str = 'text',
) -> Step:
  """Removes documents that do not look like running text.

  A document goes if one of its figures is beyond the limit; at the limit it stays. None: no limit.

  Args:
    word_length: smallest and largest mean number of characters of a word.
    symbols: '#', or ellipses, for each word.
    bullet_lines: share of lines that begin with '•' or '-'. Blank lines count nowhere.
    ellipsis_lines: share of lines that end with '...' or '…'.
    words_with_letters: least share of what stands between white space that holds a letter.
    ended_lines: least share of lines that end with a sentence mark of any script.
    short_lines: share of lines of 30 characters or fewer; FineWeb 0.67, off in FineWeb2.
    newlines: line ends for each word.
    stop_words: frequent words of the language, of which a text has some; none: not judged.
    least_stop_words: the least number of stop words, repeated ones counted.
    text_key: the feature that holds the text.

  Counts:
    removed 'word_length', 'symbols', 'bullet_lines', 'ellipsis_lines', 'words_without_letters',
    'lines_without_end', 'short_lines', 'newlines', 'few_stop_words': the first that holds.

  Raises:
    ValueError: a limit out of its range.
  """
  for name, limit in (
    ('bullet_lines', bullet_lines), ('ellipsis_lines', ellipsis_lines), ('ended_lines', ended_lines),
    ('words_with_letters', words_with_letters), ('short_lines', short_lines),
  ):  # fmt: skip
    check_share(f'filter_quality({name}=…)', limit)
  for name, limit in (('symbols', symbols), ('newlines', newlines)):
    if limit is not None and limit < 0:
      raise ValueError(f'filter_quality({name}={limit}): 0 or more, or None for no limit.')
  if word_length is not None and not 0 <= word_length[0] <= word_length[1]:
    raise ValueError(f'filter_quality(word_length={word_length}): the smallest, then the largest.')
  if isinstance(stop_words, str):
    raise ValueError(f'filter_quality(stop_words={stop_words!r}): a list of words.')
  folded = frozenset(word for text in stop_words for word in grams.find_words(text))
  return Step(
    functools.partial(
      _judge_quality,
      word_length=word_length,
      symbols=symbols,
      bullet_lines=bullet_lines,
      ellipsis_lines=ellipsis_lines,
      words_with_letters=words_with_letters,
      ended_lines=ended_lines,
      short_lines=short_lines,
      newlines=newlines,
      stop_words=folded,
      least_stop_words=least_stop_words if folded else 0,
    ),
    text_key,
  )


_SHORT = 30  # characters of a short line


def _judge_quality(text: str, **limit: Any) -> Verdict:
  words = grams.find_words(text)
  lines = [line for line in text.split('\n') if line.strip()]
  number = len(words)
  mean = sum(map(len, words)) / max(number, 1)

  def over(count: int, name: str, of: int) -> bool:
    return limit[name] is not None and count / max(of, 1) > limit[name]

  def under(count: int, name: str, of: int) -> bool:
    return limit[name] is not None and count / max(of, 1) < limit[name]

  if limit['word_length'] and not limit['word_length'][0] <= mean <= limit['word_length'][1]:
    return Verdict(removed='word_length')
  for count in (text.count('#'), sum(map(text.count, _ELLIPSES))):
    if over(count, 'symbols', number):
      return Verdict(removed='symbols')
  if over(sum(line.lstrip().startswith(_BULLETS) for line in lines), 'bullet_lines', len(lines)):
    return Verdict(removed='bullet_lines')
  if over(sum(line.rstrip().endswith(_ELLIPSES) for line in lines), 'ellipsis_lines', len(lines)):
    return Verdict(removed='ellipsis_lines')
  pieces = text.split()
  if under(sum(bool(_LETTER.search(p)) for p in pieces), 'words_with_letters', len(pieces)):
    return Verdict(removed='words_without_letters')
  if under(sum(bool(_END.search(line)) for line in lines), 'ended_lines', len(lines)):
    return Verdict(removed='lines_without_end')
  if over(sum(len(line) <= _SHORT for line in lines), 'short_lines', len(lines)):
    return Verdict(removed='short_lines')
  if over(text.count('\n'), 'newlines', number):
    return Verdict(removed='newlines')
  stops = limit['least_stop_words']
  if stops and sum(word in limit['stop_words'] for word in words) < stops:
    return Verdict(removed='few_stop_words')
  return Verdict(text)


# Keys of FineWeb2's files; the score is its language classifier's, which is not run here.
_FINEWEB2 = (
  'dup_line_frac', 'dup_n_grams', 'language_score', 'line_punct_thr', 'max_avg_word_length',
  'max_non_alpha_words_ratio', 'min_avg_word_length', 'new_line_ratio', 'stopwords', 'top_n_grams',
)  # fmt: skip


def fineweb2_filters(config: str | os.PathLike, *, text_key: str = 'text') -> list[Step]:
  """Returns FineWeb2's filters with its limits for one language, in its order.

  Args:
    config: a file of github.com/huggingface/fineweb-2, folder `configs`, such as 'tur_Latn.yml'.
    text_key: the feature that holds the text.

  Raises:
    ValueError: a key is missing or unknown.
  """
  import yaml  # of a file that few have

  with open(config, encoding='utf-8') as file:
    values = yaml.safe_load(file)
  for key in values:
    if key not in _FINEWEB2:
      raise ValueError(f'{config}: unknown key {key!r}.{nearest(key, _FINEWEB2)}')
  if missing := [key for key in _FINEWEB2 if key not in values and key != 'language_score']:
    raise ValueError(f'{config}: no {", ".join(missing)}.')
  return [
    filter_repetition(
      lines=values['dup_line_frac'],
      top_grams=dict(values['top_n_grams']),
      repeated_grams=dict(values['dup_n_grams']),
      text_key=text_key,
    ),
    filter_length(text_key=text_key),
    filter_quality(
      word_length=(values['min_avg_word_length'], values['max_avg_word_length']),
      words_with_letters=values['max_non_alpha_words_ratio'],
      ended_lines=values['line_punct_thr'],
      newlines=values['new_line_ratio'],
      stop_words=values['stopwords'],
      text_key=text_key,
    ),
  ]
