"""FreeDict dictionaries in TEI: `<def>` and the `<quote>` of translations, without notes.

In: a .tei file, plain or packed. Out: a `Reading`, whose languages are those of the title.

Easy to get wrong: notes stand beside and inside definitions ("your <note>pl.</note>, yours"). So the
XML itself is read: in the HTML that PyGlossary makes of it, a definition and the note behind it run
together ('they arein an unspecified place'), and nothing could part them again.
"""

import collections
import pathlib

from lxml import etree

from jaxlink.link.formats import languages, markup
from jaxlink.link.formats.reading import Entry, Reading

_NOTES = ('note', 'usg', 'gramGrp')


def read_tei(path: pathlib.Path) -> Reading:
  """Reads a FreeDict dictionary; the languages come from its title.

  Raises:
    ValueError: the file is no XML, or has no entries.
  """
  root = markup.parse_xml(path)
  title = root.find('.//{*}titleStmt/{*}title')
  left, right = languages.pair_of(''.join(title.itertext()) if title is not None else '')
  counts = collections.Counter()
  entries = []
  for entry in root.iter('{*}entry'):
    forms = [
      orth.text or ''
      for form in entry.iter('{*}form')
      if form.get('type') != 'infl'
      for orth in form.iterfind('{*}orth')
    ]
    entries.append(_tei_entry(entry, tuple(forms) or ('',), counts))
  if not entries:
    raise ValueError(
      f'{path}: no <entry> under <{etree.QName(root).localname}>: no TEI dictionary.'
    )
  return Reading(entries, [path], left, right, False, '', ';,/', counts)


def _tei_entry(entry: etree._Element, forms: tuple[str, ...], counts: collections.Counter) -> Entry:
  """Takes <def> and the <quote> of translations; without any, a link to another entry."""
  found, links = [], []
  for element in entry.iter('{*}def', '{*}quote', '{*}note', '{*}xr', '{*}usg'):
    name = etree.QName(element).localname
    if name in ('def', 'quote') and {
      cit.get('type', 'trans') for cit in element.iterancestors('{*}cit')
    } <= {'trans', 'translation', 'idiom'}:
      found.append(_tei_text(element))
    else:
      counts['notes'] += 1
      if name == 'xr' or element.get('type') == 'def':  # 'See also: …', 'Plural of …'
        links.append(' '.join(''.join(element.itertext()).split()))
  if links and not found:
    return Entry(forms, tuple(links[:1]), None, 'pointers')
  return Entry(forms, tuple(found))


def _tei_text(element: etree._Element) -> str:
  """The text of an element without notes inside it."""
  text = element.text or ''
  for child in element:
    # The tag of an entity that was not resolved is no text.
    if isinstance(child.tag, str) and etree.QName(child).localname not in _NOTES:
      text += _tei_text(child)
    text += child.tail or ''
  return ' '.join(text.split())
