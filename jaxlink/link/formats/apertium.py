"""Apertium bilingual dictionaries (`apertium-eu-en.eu-en.dix`): lemma pairs in XML.

In: `<e r="RL"><p><l>arte<s n="post"/></l><r>up<b/>to<s n="pr"/></r></p></e>`. Out: a `Reading`, left
side first, the languages from the file name, since the file itself has none.

Easy to get wrong: `r="LR"` and `r="RL"` restrict in which direction a machine translator takes a
pair. A lexicon wants both: they are the rarer and the more usual translation of the same word.
"""

import collections
import pathlib

from lxml import etree

from jaxlink.link.formats import languages, markup
from jaxlink.link.formats.reading import Entry, Reading


def read_dix(path: pathlib.Path) -> Reading:
  """Reads a .dix file, plain or packed.

  Raises:
    ValueError: the file is no XML, or no bilingual dictionary.
  """
  root = markup.parse_xml(path)
  if root.tag != 'dictionary':
    raise ValueError(f'{path}: the root is <{root.tag}>, not the <dictionary> of an Apertium file.')
  counts = collections.Counter()
  entries = []
  for entry in root.iterfind('.//section/e'):
    if entry.find('re') is not None or entry.find('par') is not None or len(entry) == 0:
      counts['patterns'] += 1  # numbers, addresses, roman ordinals: no words
      continue
    sides = [], []
    for child in entry:
      if child.tag == 'i':  # both sides are the same
        sides[0].append(_lemma(child))
        sides[1].append(_lemma(child))
      elif child.tag == 'p' and child.find('l') is not None and child.find('r') is not None:
        sides[0].append(_lemma(child.find('l')))
        sides[1].append(_lemma(child.find('r')))
    left, right = (''.join(side) for side in sides)
    entries.append(Entry((left,), (right,)))
  if not entries:
    raise ValueError(
      f'{path}: no <e> in a <section>: a bilingual .dix has entries with <l> and <r>.'
    )
  left, right = languages.pair_of(path.name)
  return Reading(entries, [path], left, right, counts=counts)


def _lemma(element: etree._Element) -> str:
  """The text of a side: <b/> is a space, as is '_'; <s/> a tag; <g> the part without inflection."""
  text = element.text or ''
  for child in element:
    if child.tag == 'b':
      text += ' '
    elif child.tag in ('g', 'a', 'j'):
      text += _lemma(child)
    text += child.tail or ''
  return text.replace('_', ' ')
