"""Unicode normalisation, and removal of characters that no reader sees and no language needs.

In and out: text. NFC by default, as web and Wikipedia text mostly is; a tokenizer that is lossless takes
'é' in two code points for another word than 'é' in one.

Easy to get wrong: not all invisible characters are junk. U+200C and U+200D (ZWNJ, ZWJ) spell words of
Persian, Kurdish, Hindi, Bengali, Malayalam and Sinhala, U+200B (ZWSP) parts words of Thai, Lao, Khmer and Burmese,
and the marks of direction belong to Arabic and Hebrew: the first and the last stay, ZWSP beside
such letters too.
"""

import functools
import unicodedata
from typing import Literal

import regex

from jaxlink.data.cleaning.steps import Step, Verdict

Form = Literal['NFC', 'NFD', 'NFKC', 'NFKD']

# Controls but tab and line ends, noncharacters, byte order marks, soft hyphens, word joiners.
_JUNK = regex.compile(
  r'[\p{Cc}--[\t\n\r\x85]]|\p{Noncharacter_Code_Point}|[\ufeff\u00ad\u2060]'
  # ZWSP unless it stands between words of a script that is written without spaces.
  r'|(?<![\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Balinese}\p{Tai_Le}\p{Tai_Tham}])'
  r'\u200b'
  r'(?![\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Balinese}\p{Tai_Le}\p{Tai_Tham}])',
  regex.V1,
)


def normalize_unicode(
  form: Form | None = 'NFC', *, remove_junk: bool = True, text_key: str = 'text'
) -> Step:
  """Brings each text to one Unicode form.

  Args:
    form: 'NFC'; 'NFKC' also unites compatibility characters ('ﬁ', '２', '…'), which changes what the
      text says; None leaves the form alone.
    remove_junk: whether controls but tab and line ends, byte order marks, soft hyphens, word joiners,
      noncharacters and misplaced zero-width spaces go.
    text_key: the feature that holds the text.

  Counts:
    noted 'normalized': documents whose form changed; 'junk_removed': those that lost characters.

  Raises:
    ValueError: an unknown form.
  """
  if form not in (None, 'NFC', 'NFD', 'NFKC', 'NFKD'):
    raise ValueError(
      f"normalize_unicode(form={form!r}): 'NFC', 'NFD', 'NFKC', 'NFKD', or None for none."
    )
  return Step(functools.partial(_normalize, form=form, remove_junk=remove_junk), text_key)


def _normalize(text: str, *, form: Form | None, remove_junk: bool) -> Verdict:
  noted: tuple[str, ...] = ()
  if remove_junk:
    clean = _JUNK.sub('', text)
    if clean != text:
      text, noted = clean, ('junk_removed',)
  # Last: a removed character may have kept a letter and its mark apart.
  if form and not unicodedata.is_normalized(form, text):
    text, noted = unicodedata.normalize(form, text), ('normalized', *noted)
  return Verdict(text, noted=noted)
