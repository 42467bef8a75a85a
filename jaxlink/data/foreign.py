"""Foreign tokenizers: which words of a text may be exchanged token for token.

Such a tokenizer encodes a text in whole, so a word's tokens may depend on what stands beside it.
A word is spliceable where they do not and cannot: its tokens are those of its chunk alone, and no
token of the vocabulary joins a letter to the character on either side of the chunk. Whatever word
is put there then has a token edge at both ends, and inside it the tokens that it has alone.
A text to put in must have such edges too: `Context.splices`.

One thing is left to chance: SentencePiece's unigram model adds float32 scores up from the start of
a text, so an exchange may tip a later word whose two best encodings score the same (1 place in
24,000 exchanges of English words; none with the other kinds).

In: the text as the tokenizer's normaliser leaves it, its ids, the chunks of its words. Out: first
token, number of tokens and whether it is spliceable, for each word.

Easy to get wrong: offsets. Libraries count them in characters or bytes, of the text before or after
normalisation, with the leading space or without. Here they are sums of the bytes of each token.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import regex

from jaxlink.data import tokenizer_files
from jaxlink.link import words

_LETTER = regex.compile(words.LETTERS)
_CODE_POINTS = 0x110000
_NOTHING = _CODE_POINTS - 1  # beyond the ends of a text: Unicode gives it to no character

# What stands beside a piece when it is tried: after these one that begins with a space, after these
# one that does not, and what follows.
_BEFORE_SPACE = ['word', 'Äh', '(word)', 'a "', '12', 'end.', 'so,', '\n', '—', 'a_']
_BEFORE_WORD = ['(', 'a (', 'a "', '12', 'a\n', 'a-', '“', 'a/', '_', 'a\t']
_AFTER = [' word', ' 12', '.', ', a', ') a', '" a', '\n', '-a', '?', ': a', '_', "' a"]

# A unigram model sums float32 scores from the start of the text: of two encodings of a word whose
# scores differ by less, rounding chooses.
_LEAST_LEAD = 0.1


class Context:
  """What a vocabulary tells of the edges of words; computed once for each tokenizer."""

  def __init__(self, model: tokenizer_files.Model):
    self._model = model
    texts = model.texts
    self._bytes = np.fromiter(map(len, texts), np.int64, len(texts))
    pairs = _pairs(texts)
    # [code point]: whether some token joins it to a letter on its right, to a space on its right,
    # to a letter on its left; to anything on its right, to anything on its left.
    self._before_word = _table((a for a, b in pairs if _is_letter(b)), ends=True)
    self._before_space = _table((a for a, b in pairs if b == ' '), ends=True)
    self._after_word = _table((b for a, b in pairs if _is_letter(a)), ends=False)
    self._before_any = _table((a for a, _ in pairs), ends=True)
    self._after_any = _table((b for _, b in pairs), ends=False)
    self._beside_piece = {
      True: self._allowed(_BEFORE_SPACE, self._before_space, -1),
      False: self._allowed(_BEFORE_WORD, self._before_word, -1),
    }
    self._after_piece = [('', []), *self._allowed(_AFTER, self._after_word, 0)]

  def _allowed(
    self, texts: list[str], joined: np.ndarray, edge: int
  ) -> list[tuple[str, list[int]]]:
    """Returns the texts, with their ids, that may stand beside a spliceable word."""
    return [
      (text, self._model.encode(text))
      for text in texts
      if not joined[ord(text[edge])] and self._model.normalize(f'a{text}a') == f'a{text}a'
    ]

  def locate(
    self, text: str, ids: np.ndarray, chunks: np.ndarray, alone: Sequence[list[int]], *, start: bool
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the tokens of each word of a text.

    Args:
      text: as its normaliser leaves it.
      ids: int [T], of the text in whole.
      chunks: int [N, 2], start and end of each word's chunk, in characters, ascending.
      alone: the ids of each chunk by itself.
      start: whether the text was encoded with what the tokenizer puts at a start.

    Returns:
      First token int [N]; number of tokens int [N]: those that overlap the chunk, without what
      belongs to a word before it, so that it may be 0; spliceable bool [N]. Where the tokens do not
      spell the text, every word has no tokens and is not spliceable.
    """
    n = len(chunks)
    sizes = self._bytes[ids]
    if self._model.roles.unk is not None:
      unknown = np.flatnonzero(ids == self._model.roles.unk)
      if len(unknown):
        found = self._model.unknown(text, ids, start=start)
        sizes[unknown] = [len(piece.encode()) for piece in found]
    utf8 = np.frombuffer(text.encode(), np.uint8)
    ends = np.cumsum(sizes)
    prefix = (ends[-1] if len(ends) else 0) - len(utf8)  # the space at the start
    if not n or prefix not in (0, 1):
      return np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, bool)

    byte_of = np.append(np.flatnonzero((utf8 & 0xC0) != 0x80), len(utf8)) + prefix
    begin, end = byte_of[chunks[:, 0]], byte_of[chunks[:, 1]]
    starts = ends - sizes
    first = np.searchsorted(ends, begin, 'right')
    last = np.searchsorted(starts, end, 'left')  # exclusive
    same = (starts[first] == begin) & (ends[last - 1] == end)
    first[1:] = np.maximum(first[1:], np.maximum.accumulate(last)[:-1])
    length = np.maximum(last - first, 0)

    expected = np.fromiter(map(len, alone), np.int64, n)
    flat = np.fromiter(itertools.chain.from_iterable(alone), np.int64, expected.sum())
    at = np.repeat(first - (np.cumsum(expected) - expected), expected) + np.arange(len(flat))
    differs = flat != ids[np.minimum(at, len(ids) - 1)]
    same[np.repeat(np.arange(n), expected)[differs]] = False
    return first, length, same & ~self._joined(text, chunks, prefix=bool(prefix))

  def _joined(self, text: str, chunks: np.ndarray, *, prefix: bool) -> np.ndarray:
    """Tells for each chunk whether a token may join its word to what stands beside it."""
    ahead = ord(' ') if prefix else _NOTHING
    characters = np.frombuffer(text.encode('utf-32-le'), '<u4')
    codes = np.concatenate([[ahead], characters, [_NOTHING, _NOTHING]])
    begin, end = chunks[:, 0] + 1, chunks[:, 1] + 1
    before, after, onward = codes[begin - 1], codes[end], codes[end + 1]
    spaced = codes[begin] == ord(' ')
    left = np.where(spaced, self._before_space[before], self._before_word[before])
    # Patterns that take a combining mark for punctuation cut "ি.jpg" after the point and "i.jpg"
    # before it, and "ি\n \n" after the first line end: what follows must not hang on the last letter.
    blank, next_blank = (
      (codes_N == ord(' ')) | (codes_N == ord('\t')) for codes_N in (after, onward)
    )
    line_end = (after == ord('\n')) | (after == ord('\r'))
    follows = (self._before_word[after] & ~blank & _letters()[onward]) | (line_end & next_blank)
    return left | self._after_word[after] | follows

  def splices(self, piece: str) -> bool:
    """Tells whether a piece has its own tokens wherever a spliceable word may stand.

    Its ends are letters (a space may precede), or joined to nothing by the vocabulary; nothing in it
    is unknown; a unigram model prefers its encoding clearly; and it is tried beside words,
    punctuation, digits and line ends.
    """
    encode = self._model.encode
    ids = encode(piece)
    if not ids or self._model.roles.unk in ids:
      return False
    first, last = piece[0], piece[-1]
    if regex.match(r'\p{M}', piece.lstrip(' ')):  # a normaliser may join it to what precedes
      return False
    if first != ' ' and not _LETTER.match(first) and self._after_any[ord(first)]:
      return False
    if not _LETTER.match(last) and self._before_any[ord(last)]:
      return False
    lead = self._model.second_best(piece)
    if lead is not None and lead < _LEAST_LEAD:
      return False
    # Each text on the left once and each on the right once: the edges do not know each other.
    nothing: tuple[str, list[int]] = ('', [])
    sides = itertools.zip_longest(
      self._beside_piece[first == ' '], self._after_piece, fillvalue=nothing
    )
    return all(
      encode(left + piece + right) == [*before, *ids, *after]
      for (left, before), (right, after) in sides
    )


# A character, or a part of one: the bytes that follow a lead byte, or a lead byte and what it has.
_CHARACTER = regex.compile(
  '[\udc80-\udcbf]+|[\udcc0-\udcff][\udc80-\udcbf]*|[^\udc80-\udcff]', regex.DOTALL
)


def _pairs(texts: Iterable[bytes]) -> set[tuple[str | bytes, str | bytes]]:
  """Returns the characters that stand side by side in a token.

  A byte-level token may begin or end inside a character. That part goes by its bytes, and by 'a' as
  well if a letter has such a part.
  """
  pairs: set[tuple[str | bytes, str | bytes]] = set()
  for token in texts:
    try:
      pairs.update(itertools.pairwise(token.decode()))
    except UnicodeDecodeError:
      text = token.decode(errors='surrogateescape')
      characters = [_readings(part) for part in _CHARACTER.findall(text)]
      for left, right in itertools.pairwise(characters):
        pairs.update(itertools.product(left, right))
  return pairs


def _readings(part: str) -> list[str | bytes]:
  if not '\udc80' <= part[0] <= '\udcff':
    return [part]
  raw = part.encode(errors='surrogateescape')
  return [raw, 'a'] if raw in _parts_of_letters() else [raw]


def _is_letter(character: str | bytes) -> bool:
  return isinstance(character, str) and _letters()[ord(character)]


def _table(chosen: Iterable[str | bytes], *, ends: bool) -> np.ndarray:
  """Returns bool [code points]: those chosen, and those that end (or begin) with chosen bytes.

  Letters are left out, but where they are named: what stands beside a word is none.
  """
  chosen = set(chosen)
  found = np.zeros(_CODE_POINTS, bool)
  found[[ord(c) for c in chosen if isinstance(c, str)]] = True
  parts = {c for c in chosen if isinstance(c, bytes)}
  if parts:
    for character, utf8 in _others():
      cut = [utf8[-i:] if ends else utf8[:i] for i in range(1, len(utf8))]
      if not parts.isdisjoint(cut):
        found[ord(character)] = True
  return found


@functools.cache
def _others() -> list[tuple[str, bytes]]:
  """Returns the characters beyond ASCII that are no letters, with their UTF-8."""
  everything = ''.join(chr(c) for c in range(0x80, _CODE_POINTS) if not 0xD800 <= c < 0xE000)
  return [(c, c.encode()) for c in regex.findall(r'[^\p{L}\p{M}\p{Cn}\p{Co}]', everything)]


@functools.cache
def _letters() -> np.ndarray:
  """Returns bool [code points]: letters and combining marks, as in a word."""
  found = np.zeros(_CODE_POINTS, bool)
  everything = ''.join(chr(c) for c in range(_CODE_POINTS) if not 0xD800 <= c < 0xE000)
  for match in _LETTER.finditer(everything):
    begin, end = match.span()
    found[ord(everything[begin]) : ord(everything[end - 1]) + 1] = True
  return found


@functools.cache
def _parts_of_letters() -> frozenset[bytes]:
  """Returns the beginnings and ends of the UTF-8 of all letters."""
  parts = set()
  for code in np.flatnonzero(_letters() & (np.arange(_CODE_POINTS) >= 0x80)).tolist():
    utf8 = chr(code).encode()
    parts.update(utf8[:i] for i in range(1, len(utf8)))
    parts.update(utf8[i:] for i in range(1, len(utf8)))
  return frozenset(parts)
