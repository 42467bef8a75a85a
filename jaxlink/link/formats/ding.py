"""Ding lists: `abandon {v} (to give up) :: छोड़ देना /choṛ denā/, त्यागना`, as on ftp.tu-chemnitz.de.

In: lines of `left :: right`. Both sides may hold variants in the same order, parted by `|`
('Haus {n} | Häuser {pl} :: house | houses'), and synonyms parted by `;`. Out: a `Reading`.

Easy to get wrong: commas part senses on the right side of the lists made from Wiktionary, whose left
side is a headword and may hold a comma that parts nothing ('easy come, easy go').
"""

import collections
import pathlib

import regex

from jaxlink.link.formats import languages
from jaxlink.link.formats.reading import Entry, Reading, text_lines

_SEPARATOR = regex.compile(r'\s::(?:\s|$)')
_LANGUAGES = regex.compile(r'#\s*(\p{L}+) :: (\p{L}+)')


def is_ding(text: str) -> bool:
  """Tells whether the first line that is no comment has the separator."""
  for _, line in text_lines(text[:1_000_000]):
    if line.strip() and not line.startswith('#'):
      return _SEPARATOR.search(line) is not None
  return False


def read_ding(path: pathlib.Path, text: str) -> Reading:
  """Reads a Ding list; its languages come from a comment such as '# English :: Hindi dictionary'.

  Raises:
    ValueError: a line has no separator, or several.
  """
  counts = collections.Counter()
  entries = []
  left = right = ''
  for number, line in text_lines(text):
    if not line.strip():
      counts['blank_lines'] += 1
    elif line.startswith('#'):
      counts['comment_lines'] += 1
      declared = _LANGUAGES.match(line)
      if declared and all(languages.is_known(side) for side in declared.groups()):
        left, right = (languages.code(side) for side in declared.groups())
    else:
      sides = _SEPARATOR.split(line)
      if len(sides) != 2:
        raise ValueError(f"{path}:{number}: {len(sides) - 1} separators ' :: ' in a Ding list.")
      variants = [side.split(' | ') for side in sides]
      if len(variants[0]) != len(variants[1]):
        counts['unpaired_variants'] += max(map(len, variants)) - 1
        variants = [side[:1] for side in variants]
      entries += [Entry((a,), (b,)) for a, b in zip(*variants, strict=True)]
  return Reading(entries, [path], left, right, False, ';', ';,/', counts)
