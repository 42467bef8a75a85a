"""HTML as a tree: what is text cannot become markup, whatever a corpus or lexicon holds.

Easy to get wrong: characters that a browser does not show. Control characters are put as their pictures, so
that what is wrong with a line can be seen.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable

Child = str | int | ET.Element | None | Iterable['Child']

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in '\t\n\r'}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0x2426)


def tag(
  name: str, /, *children: Child, **attributes: str | int | float | bool | None
) -> ET.Element:
  """Returns an element.

  Args:
    name: of the element.
    *children: elements, text, numbers, or lists of these; None is left out.
    **attributes: `class_` is class and `http_equiv` is http-equiv; None is left out.

  >>> to_html(tag('p', 'a < b', tag('b', 1), class_='x'))
  '<p class="x">a &lt; b<b>1</b></p>'
  """
  element = ET.Element(name, {
    key.rstrip('_').replace('_', '-'): _visible(str(value))
    for key, value in attributes.items() if value is not None
  })  # fmt: skip
  for child in _flat(children):
    if isinstance(child, ET.Element):
      element.append(child)
    elif len(element):
      element[-1].tail = (element[-1].tail or '') + _visible(str(child))
    else:
      element.text = (element.text or '') + _visible(str(child))
  return element


def bdi(text: str, language: str | None = None) -> ET.Element:
  """Text of a corpus or lexicon, whose direction stays its own."""
  return tag('bdi', text, lang=language)


def to_html(element: ET.Element) -> str:
  """Serialises an element as HTML."""
  return ET.tostring(element, encoding='unicode', method='html')


def _flat(children: Iterable[Child]) -> Iterable[str | int | ET.Element]:
  for child in children:
    if isinstance(child, str | int | ET.Element):
      yield child
    elif child is not None:
      yield from _flat(child)


def _visible(text: str) -> str:
  return text.translate(_PICTURES)
