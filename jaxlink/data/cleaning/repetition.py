"""Repetition inside a document: lines, paragraphs and word n-grams that come back.

In: text. Out: a verdict. The rules are Gopher's (Rae et al. 2021, arXiv 2112.11446, table A1) with FineWeb2's
changes (arXiv 2506.20920 and its pipeline): paragraphs are not judged, and repeated lines may hold 10 %
of the characters.

Easy to get wrong: the defaults are those for English. FineWeb2 tunes them for each language (Turkish
.094 for the top 2-gram, Swahili .396); `fineweb2_filters` reads its files. And words are runs of
letters: Thai, Chinese and others that write no spaces have few and long ones, so that n-gram rules
say little there.
"""

import functools
from collections.abc import Mapping

import numpy as np
import regex

from jaxlink.data.cleaning import grams
from jaxlink.data.cleaning.steps import Step, Verdict, check_share

_LINES = regex.compile(r'\n+')
_PARAGRAPHS = regex.compile(r'\n{2,}')

TOP_GRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_GRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def filter_repetition(
  *,
  lines: float | None = 0.3,
  line_characters: float | None = 0.1,
  paragraphs: float | None = None,
  paragraph_characters: float | None = None,
  top_grams: Mapping[int, float] | None = None,
  repeated_grams: Mapping[int, float] | None = None,
  text_key: str = 'text',
) -> Step:
  """Removes documents that repeat themselves.

  A document goes if one of its shares is over the limit; at the limit it stays. None: no limit.

  Args:
    lines: lines that stood in the document before, of all lines.
    line_characters: the characters in them, of all but line ends.
    paragraphs: the same of paragraphs, parted by blank lines; Gopher 0.3.
    paragraph_characters: the characters in them, of all; Gopher 0.2.
    top_grams: n → characters in all places of the most frequent n-gram of words that occurs twice
      or more, of all; default `TOP_GRAMS`.
    repeated_grams: n → letters of words in n-grams that occurred before, each word counted once, of
      all characters; default `REPEATED_GRAMS`.
    text_key: the feature that holds the text.

  Counts:
    removed 'repeated_lines', 'repeated_line_characters', 'repeated_paragraphs',
    'repeated_paragraph_characters', 'top_{n}gram', 'repeated_{n}gram': the first that holds.

  Raises:
    ValueError: a limit is no share, or an n less than 1.

  Source: Rae et al. 2021, table A1; FineWeb2, arXiv 2506.20920. An n-gram that occurs once is no
    repetition here; datatrove counts it, and so drops texts of a few words.
  """
  top = tuple(sorted((TOP_GRAMS if top_grams is None else top_grams).items()))
  repeated = tuple(sorted((REPEATED_GRAMS if repeated_grams is None else repeated_grams).items()))
  for name, limit in (
    ('lines', lines), ('line_characters', line_characters), ('paragraphs', paragraphs),
    ('paragraph_characters', paragraph_characters),
    *((f'top_grams[{n}]', limit) for n, limit in top),
    *((f'repeated_grams[{n}]', limit) for n, limit in repeated),
  ):  # fmt: skip
    check_share(f'filter_repetition({name}=…)', limit)
  for n, _ in (*top, *repeated):
    if not isinstance(n, int) or n < 1:
      raise ValueError(f'filter_repetition: an n-gram of {n!r} words; n is 1 or more.')
  return Step(
    functools.partial(
      _judge,
      lines=(lines, line_characters),
      paragraphs=(paragraphs, paragraph_characters),
      top=top,
      repeated=repeated,
    ),
    text_key,
  )


def _judge(
  text: str,
  *,
  lines: tuple[float | None, float | None],
  paragraphs: tuple[float | None, float | None],
  top: tuple[tuple[int, float], ...],
  repeated: tuple[tuple[int, float], ...],
) -> Verdict:
  for name, pieces, characters, (share, share_of_characters) in (
    ('paragraph', _PARAGRAPHS.split(text.strip()), len(text), paragraphs),
    ('line', _LINES.split(text.strip()), len(text) - text.count('\n'), lines),
  ):
    times, letters = _repeats(pieces)
    if share is not None and times / len(pieces) > share:
      return Verdict(removed=f'repeated_{name}s')
    if share_of_characters is not None and letters / max(characters, 1) > share_of_characters:
      return Verdict(removed=f'repeated_{name}_characters')
  words = grams.find_words(text)
  keys = grams.word_keys(words)
  ends = np.concatenate([[0], np.cumsum([len(word) for word in words], dtype=np.int64)])
  for kind, limits, measure in (
    ('top', top, _top_gram),
    ('repeated', repeated, _repeated_grams),
  ):
    places = np.arange(len(words))
    for n, limit in limits:
      # An n-gram that comes back begins with a shorter one that does: ever fewer places are left.
      places, found = _recurring(keys, n, places)
      if measure(places, found, ends, n) / len(text) > limit:
        return Verdict(removed=f'{kind}_{n}gram')
  return Verdict(text)


def _repeats(pieces: list[str]) -> tuple[int, int]:
  """Returns how many pieces came before, and their characters."""
  seen: set[str] = set()
  times = characters = 0
  for piece in pieces:
    if piece in seen:
      times += 1
      characters += len(piece)
    seen.add(piece)
  return times, characters


def _recurring(keys_N: np.ndarray, n: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns those places at which an n-gram begins that begins at another of them too, with its key."""
  places = places[places + n <= len(keys_N)]
  if len(places) < 2:
    return places[:0], keys_N[:0]
  found = grams.gram_keys(keys_N, n)[places]
  order = np.sort(found)
  again = np.unique(order[1:][order[1:] == order[:-1]])
  at = np.searchsorted(again, found)
  back = (
    again[np.minimum(at, len(again) - 1)] == found if len(again) else np.zeros(len(found), bool)
  )
  return places[back], found[back]


def _top_gram(places: np.ndarray, found: np.ndarray, ends: np.ndarray, n: int) -> int:
  """Returns the characters in all places of the most frequent n-gram, the longest of those.

  Args:
    places: where the n-grams begin that recur, in words.
    found: their keys.
    ends: letters up to each word of the text.
    n: words of an n-gram.
  """
  if not len(places):
    return 0
  _, first, times = np.unique(found, return_index=True, return_counts=True)
  most = places[first[times == times.max()]]
  return int((ends[most + n] - ends[most] + n - 1).max() * times.max())


def _repeated_grams(places: np.ndarray, found: np.ndarray, ends: np.ndarray, n: int) -> int:
  """Returns the letters of words in n-grams that occurred before, from left to right without overlap.

  Args: as of `_top_gram`.
  """
  seen: set[int] = set()
  letters = until = 0
  for place, key in zip(places.tolist(), found.tolist(), strict=True):
    if place < until:
      continue
    if key in seen:
      letters += int(ends[place + n] - ends[place])
      until = place + n
    else:
      seen.add(key)
  return letters
