"""Where words are: the one definition that lexicon, substitution, tokenizer and cache share.

A word is a maximal run of letters and combining marks, joined by single inner apostrophes
("don't" is one word, "well-known" two, "B2" is the word "B" and a digit). A *chunk* is what a
tokenizer encodes at a time: an optional single space and a word, or the text between two such
chunks. Chunks concatenate to the text exactly.

Easy to get wrong: `\\w` and `str.isalpha` leave out combining marks, and so cut Bengali and
Hindi words in two.
"""

import unicodedata

import regex

LETTERS = r'[\p{L}\p{M}]+'
WORD_PATTERN = rf"{LETTERS}(?:['’]{LETTERS})*"
# The second branch runs up to the next chunk of the first kind, and never takes its space along.
CHUNK_PATTERN = rf' ?{WORD_PATTERN}|(?:(?! ?[\p{{L}}\p{{M}}])[\s\S])+'

_WORD = regex.compile(WORD_PATTERN)
_SPLIT = regex.compile(f'({WORD_PATTERN})')
_CHUNK = regex.compile(CHUNK_PATTERN)


def find_words(text: str) -> list[tuple[int, int]]:
  """Returns (start, end) of every word, in characters, in order and not overlapping."""
  return [match.span() for match in _WORD.finditer(text)]


def split_words(text: str) -> list[str]:
  """Cuts a text into rest, word, rest, …, word, rest: words at odd indices, rests may be empty."""
  return _SPLIT.split(text)


def chunk(text: str) -> list[str]:
  """Cuts a text into chunks: `''.join(chunk(text)) == text`."""
  return _CHUNK.findall(text)


# Flags of a word mark: whether its chunk begins with a space, the case of its letters, and whether
# its tokens may be exchanged for those of another word.
LEADING_SPACE = 1
TITLE = 2  # first letter upper, or a single capital: a replacement gets its first letter raised
UPPER = 4  # two letters or more, all upper: a replacement is put in capitals
UNSPLICEABLE = 8  # its tokens in context are not those of its chunk: both routes leave it alone


def is_word(text: str) -> bool:
  """Tells whether the whole of a text is one word."""
  return _WORD.fullmatch(text) is not None


def key(word: str) -> str:
  """Returns what a word is looked up by: casefold(NFC(word))."""
  return unicodedata.normalize('NFC', word).casefold()


def case_class(word: str) -> int:
  """Returns UPPER, TITLE or 0 for a word."""
  if not word[0].isupper() and not word[0].istitle():
    return 0
  letters = [c for c in word if c.isalpha()]
  if len(letters) > 1 and word.isupper():
    return UPPER
  return TITLE
