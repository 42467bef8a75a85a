"""How a target looks in the place of its source: its capitals, and whether a space stays before it.

Easy to get wrong: the capital of i. It is İ in Turkish and Azerbaijani, and what `str.upper` makes of a
Turkish word is another word.
"""

import functools
import unicodedata
from collections.abc import Callable, Sequence

import regex

from jaxlink.link import words

# ISO 639-1 and 639-3 codes. Of languages written without spaces between words:
_UNSPACED = frozenset(
  {'zh', 'zho', 'cmn', 'yue', 'ja', 'jpn', 'th', 'tha', 'lo', 'lao'}
  | {'km', 'khm', 'my', 'mya', 'bo', 'bod'}
)
# Of languages whose capital of i is İ:
_DOTTED_I = frozenset({'tr', 'tur', 'az', 'aze', 'azj'})
_LETTER = regex.compile(r'\p{L}')


@functools.lru_cache(maxsize=1024)
def base_language(code: str) -> str:
  """The language code without script and region, in lower case."""
  return regex.split('[-_]', code)[0].lower()


def glues(language: str, mode: str, join: str) -> bool:
  """Whether a replacement takes away the space before it; an annotation never does."""
  return join == 'auto' and mode != 'annotate' and base_language(language) in _UNSPACED


def case_of(surfaces: Sequence[str]) -> int:
  """The case class of a site: UPPER if all words are, else whether the first one has a capital."""
  classes = [words.case_class(surface) for surface in surfaces]
  if all(case == words.UPPER for case in classes):
    return words.UPPER
  return words.TITLE if classes[0] else 0


def cased(target: str, case: int, language: str) -> str:
  """A target in the case of its source; NFC, which capitals can break."""
  if case == words.UPPER:
    target = _capital(target, str.upper, language)
  elif case == words.TITLE and (first := _LETTER.search(target)):
    # str.title: the capital of ǆ at the head of a word is ǅ, and Georgian has none there.
    at = first.start()
    target = target[:at] + _capital(target[at], str.title, language) + target[at + 1 :]
  return unicodedata.normalize('NFC', target)


def _capital(text: str, raise_case: Callable[[str], str], language: str) -> str:
  dotted = base_language(language) in _DOTTED_I
  return raise_case(text.replace('i', 'İ') if dotted else text)
