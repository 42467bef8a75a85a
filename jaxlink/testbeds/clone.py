"""A cloned language: English with letters of its own, and so with token ids of its own.

Each letter of English becomes one of Armenian, which has capitals; what is no word (spaces, digits,
punctuation, and the apostrophe inside a word) stays as it is and is shared, as it is between real languages.
Grammar, meaning and frequencies are those of English, and a lexicon of word pairs is perfect: what it does not
reach is no translation problem. So the clone bounds from above what substitution of words can carry over.

In: English text. Out: tidied English, its clone, and the lexicon between the two.

Easy to get wrong: capitals. Substitution knows three cases of a word (small, first letter, all) and the clone's
letters know more ("McDonald"), so the English is tidied to those three first; then cloning the letters and
substituting every word give the same bytes. A letter of the clone has two bytes where English has one: compare
bits per byte between arms, and not between the two languages.
"""

import unicodedata
from collections.abc import Iterable, Set

from jaxlink.link import casing, words

# ISO 639 keeps qaa to qtz for local use: no real language has this code.
LANGUAGE = 'qaa'

_SMALL, _CAPITAL = (''.join(chr(first + i) for i in range(26)) for first in (0x561, 0x531))
_ENGLISH = 'abcdefghijklmnopqrstuvwxyz'
# In the order of the alphabet: what sorts or breaks ties by letters treats both languages alike.
_LETTERS = str.maketrans(_ENGLISH + _ENGLISH.upper(), _SMALL + _CAPITAL)
# Letters that no decomposition turns into those of English.
_PLAIN = str.maketrans(
  {'ß': 'ss', 'æ': 'ae', 'Æ': 'Ae', 'œ': 'oe', 'Œ': 'Oe', 'ø': 'o', 'Ø': 'O', 'ł': 'l', 'Ł': 'L',
   'đ': 'd', 'Đ': 'D', 'ð': 'd', 'Ð': 'D', 'þ': 'th', 'Þ': 'Th', 'ı': 'i'}
)  # fmt: skip


def clone(text: str) -> str:
  """Returns tidied English in the cloned language; what is no letter stays."""
  return text.translate(_LETTERS)


def tidy(text: str) -> str:
  """Returns English of the letters a to z alone, each word in one of the three cases.

  Accents are taken off. A paragraph that holds letters of another script is left out.
  """
  kept = []
  for paragraph in text.split('\n'):
    plain = unicodedata.normalize('NFKD', paragraph.translate(_PLAIN))
    plain = ''.join(c for c in plain if not unicodedata.category(c).startswith('M'))
    if all(c.isascii() or not c.isalpha() for c in plain):
      kept.append(_recased(unicodedata.normalize('NFC', plain)))
  return '\n'.join(kept)


def lexicon(texts: Iterable[str], without: Set[str] = frozenset()) -> list[tuple[str, str]]:
  """Returns (English word, its clone) for every word of tidied texts, small and sorted.

  Args:
    texts: tidied.
    without: keys (`words.key`) of words to leave out, such as names that stay as they are.
  """
  found = {words.key(text[start:end]) for text in texts for start, end in words.find_words(text)}
  return [(word, clone(word)) for word in sorted(found - without)]


def _recased(text: str) -> str:
  pieces = words.split_words(text)
  for i in range(1, len(pieces), 2):
    pieces[i] = casing.cased(words.key(pieces[i]), words.case_class(pieces[i]), 'en')
  return ''.join(pieces)
