"""Word n-grams as 64-bit keys: what duplicates, repetition and contamination are found by.

In: text. Out: uint64 arrays. Words are those of the project's pattern, NFC and casefolded, so that case,
punctuation, digits and layout make no difference.

Easy to get wrong: keys of another n are other keys, and equal on every machine; `hash` would not be.
"""

import functools

import numpy as np
import regex

from jaxlink.link import draws, words

_WORD = regex.compile(words.WORD_PATTERN)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a word is lost
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # of splitmix64


def find_words(text: str) -> list[str]:
  """Returns the words of a text, NFC and casefolded."""
  return _WORD.findall(words.key(text))


def word_keys(found: list[str]) -> np.ndarray:
  """Returns the keys of words, uint64 [N]."""
  return np.fromiter(map(_key, found), np.uint64, len(found))


def gram_keys(keys_N: np.ndarray, n: int) -> np.ndarray:
  """Returns the keys of all n-grams of N words, uint64 [N - n + 1], empty if there are fewer words."""
  number = len(keys_N) - n + 1
  if number < 1:
    return np.zeros(0, np.uint64)
  found = np.full(number, n, np.uint64)
  for i in range(n):
    found *= _MULTIPLIER
    found += keys_N[i : i + number]
  return mix(found)


def mix(values: np.ndarray) -> np.ndarray:
  """Returns 64-bit values with their bits stirred, one to one."""
  for shift, factor in _MIX:
    values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
  return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=1 << 20)
def _key(word: str) -> int:
  return draws.key_of(word)
