"""XML and HTML of dictionaries, read safely: a tree of a file, the glosses of a definition.

In: a file, or a definition as PyGlossary or a table of definitions gives it. Out: an lxml tree, a list
of glosses, or the `Reading` of such a table.

Easy to get wrong: a file from the network may hold entities that expand without end or name other
files. They are not resolved, and no DTD is loaded.
"""

import collections
import pathlib

import regex
from lxml import etree
from lxml import html as lxml_html

from jaxlink.link.formats.reading import Entry, Reading, read_bytes, text_lines

# Labels, examples, transcriptions and links to other entries, by tag, class or colour.
_NOT_READ = (
  './/*[contains(concat(" ", @class, " "), " p ") or contains(concat(" ", @class, " "), " ex ")'
  ' or contains(concat(" ", @class, " "), " sec ") or @class="grammar" or @class="example"'
  ' or @color="gray" or self::sup or self::sub or self::s]'
)
_NO_XML = regex.compile(r'[\p{Cc}--[\t\n\r]]|[\ufffe\uffff]', regex.V1)
_NUMBER = regex.compile(r'^\s*(?:\d+|[a-z])[.)]\s+')


def parse_xml(path: pathlib.Path) -> etree._Element:
  """Returns the root of an XML file, plain or packed.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is empty or no well-formed XML; the line is named.
  """
  parser = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
  )
  try:
    return etree.fromstring(read_bytes(path), parser)
  except etree.XMLSyntaxError as error:
    raise ValueError(f'{path}:{error.lineno}: no well-formed XML ({error.msg}).') from None


def html_glosses(definition: str, counts: collections.Counter) -> list[str]:
  """Returns the glosses of an HTML definition: its list items, else its paragraphs, else its lines.

  Labels, examples, transcriptions and what stands outside the list (the part of speech) are left
  out; `counts['notes']` says how many such elements there were.
  """
  definition = _NO_XML.sub(' ', definition)
  if not definition.strip():
    return []
  root = lxml_html.fragment_fromstring(definition, create_parent='div')
  for element in root.xpath(_NOT_READ):
    if element.getparent() is not None:
      element.drop_tree()
      counts['notes'] += 1
  for line_break in root.iter('br'):
    line_break.tail = '\n' + (line_break.tail or '')
  # A bulleted list within a sense holds its examples, a numbered one its subsenses.
  blocks = root.xpath('.//li[not(parent::ul and ancestor::li)]') or root.xpath('.//p') or [root]
  if blocks != [root]:
    counts['notes'] += len(root.xpath('./i | ./b'))
  glosses = []
  for block in blocks:
    for nested in block.xpath('./ol | ./ul | ./dl | ./table | ./blockquote'):
      nested.drop_tree()
    glosses += [
      _NUMBER.sub('', line).strip() for line in block.text_content().split('\n') if line.strip()
    ]
  return glosses


def read_html_table(path: pathlib.Path, text: str) -> Reading:
  """Reads 'headword|other form TAB definition in HTML', one entry a line."""
  counts = collections.Counter()
  entries = []
  for number, line in text_lines(text):
    if not line.strip():
      counts['blank_lines'] += 1
      continue
    columns = line.split('\t')
    if len(columns) != 2:
      raise ValueError(f'{path}:{number}: {len(columns)} columns; a line is headwords and HTML.')
    glosses = html_glosses(columns[1], counts)
    entries.append(Entry(tuple(columns[0].split('|')), tuple(glosses)))
  return Reading(entries, [path], is_list=False, split_right=';,/', counts=counts)
