"""Language identification by script: documents whose letters are mostly of other scripts go.

In: text. Out: a verdict. The scripts of about 200 languages are those of `jaxlink.link.formats.languages`.

Easy to get wrong: it tells Turkish from Russian, not Turkish from English. A classifier such as GlotLID tells
those apart, where its labels have the language at all.
"""

import functools
from collections.abc import Sequence

import regex

from jaxlink.data.cleaning.steps import Step, Verdict, check_share
from jaxlink.link.formats import languages
from jaxlink.names import nearest

_LETTERS = regex.compile(r'\p{L}+')


def keep_script(
  *,
  language: str = '',
  scripts: Sequence[str] = (),
  least: float = 0.5,
  text_key: str = 'text',
) -> Step:
  """Removes documents with too small a share of letters in the expected scripts.

  Args:
    language: code or name, whose scripts are expected ('tr', 'swh', 'Bengali'); or
    scripts: names of Unicode scripts, such as ('Latin', 'Cyrillic').
    least: the smallest share of a document's letters; one at the limit stays. A document without a
      letter has share 0.
    text_key: the feature that holds the text.

  Counts:
    removed 'script'.

  Raises:
    ValueError: neither or both given, an unknown language or script, or `least` is no share.
  """
  check_share('keep_script(least=…)', least)
  if bool(language) == bool(scripts):
    raise ValueError(
      f'keep_script(language={language!r}, scripts={scripts!r}): give one of the two.'
    )
  if language and not languages.scripts(language):
    raise ValueError(
      f'keep_script(language={language!r}): its scripts are not known; name them, as in '
      "scripts=('Latin',)."
    )
  names = tuple(scripts) or languages.scripts(language)
  for name in names:
    try:
      regex.compile(rf'\p{{Script={name}}}')
    except regex.error:
      raise ValueError(
        f'keep_script(scripts=…): no Unicode script {name!r}.{nearest(name, languages.all_scripts())}'
      ) from None
  return Step(functools.partial(_judge, scripts=names, least=least), text_key)


def _judge(text: str, *, scripts: tuple[str, ...], least: float) -> Verdict:
  letters = sum(map(len, _LETTERS.findall(text)))
  expected = sum(map(len, _letters_of(scripts).findall(text)))
  if expected / max(letters, 1) < least:
    return Verdict(removed='script')
  return Verdict(text)


@functools.cache
def _letters_of(scripts: tuple[str, ...]) -> regex.Pattern:
  of_any = ''.join(rf'\p{{Script={name}}}' for name in scripts)
  return regex.compile(rf'[\p{{L}}&&[{of_any}]]+', regex.V1)
