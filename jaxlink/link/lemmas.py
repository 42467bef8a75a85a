"""Base forms of inflected words ("houses" → "house"), for words that a lexicon does not have.

Easy to get wrong: a lemma is a guess. It is asked only for a word that the lexicon has in no form, the
word itself included.
"""

import functools

from jaxlink.link.lexicon import Lexicon


def targets_of(lexicon: Lexicon, key: str, language: str) -> tuple[str, tuple[str, ...]]:
  """Returns under which key a lexicon has a word, and its targets; ('', ()) if under none.

  Args:
    lexicon: of the word's language.
    key: casefold(NFC(word)), or the words of a source of several.
    language: code of the word's language for simplemma ('en'); '' looks up the word alone.

  Raises:
    ValueError: simplemma has no lemmas of the language.
  """
  if found := lexicon.entries.get(key):
    return key, found
  if language and ' ' not in key and key not in lexicon.identity_only:
    base = lemma(key, language)
    if base != key and (found := lexicon.entries.get(base)):
      return base, found
  return '', ()


@functools.lru_cache(maxsize=1 << 20)
def lemma(key: str, language: str) -> str:
  """Returns the lemma of a word, in lower case; the word itself where none is known."""
  import simplemma

  try:
    return simplemma.lemmatize(key, lang=language).casefold()
  except ValueError as error:
    raise ValueError(
      f"LinkPolicy.lemmas is {language!r}: it is a code of simplemma, such as 'en' ({error})."
    ) from None
