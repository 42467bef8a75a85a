"""Formats of bilingual dictionaries: `read` finds the format of a file and reads it.

In: a path. Out: a `Reading`: entries as they stand in the file, and the languages it declares.

Easy to get wrong: the name decides where a format has one (.tei, .dsl, .ifo, .dix, .jsonl, .index);
every other file is text, and its first line decides between a Ding list, a table of HTML definitions
and columns. A new format is a module with a function that returns a `Reading`, and a line here.
"""

import importlib
import pathlib
import types

from jaxlink.link.formats import ding, pairs, wiktextract
from jaxlink.link.formats.reading import Entry, Reading, read_text

__all__ = ['Entry', 'Reading', 'read']

# Endings of names, without those of compression -> module and function; lxml is imported by need.
_READERS = {
  '.tei': ('tei', 'read_tei'),
  '.xml': ('tei', 'read_tei'),
  '.ifo': ('glossary', 'read_stardict'),
  '.tar': ('glossary', 'read_stardict'),
  '.tgz': ('glossary', 'read_stardict'),
  '.dsl': ('glossary', 'read_dsl'),
  '.index': ('glossary', 'read_dictd'),
  '.dict': ('glossary', 'read_dictd'),
  '.dix': ('apertium', 'read_dix'),
}


def read(path: pathlib.Path, source: str, target: str) -> Reading:
  """Reads a dictionary of any format.

  Args:
    path: the file; of several files that belong together, any one that the format's reader names.
    source, target: codes of the languages; only a dump of many languages needs them here.

  Raises:
    FileNotFoundError: there is no such file, or one that belongs to it is missing.
    ImportError: the format needs a package that is not installed.
    ValueError: the file is not what it should be; the file, and where there is one the line, is named.
  """
  name = path.name.lower()
  for packed in ('.gz', '.xz', '.dz', '.bz2'):
    name = name.removesuffix(packed)
  for ending, (module, function) in _READERS.items():
    if name.endswith(ending):
      return getattr(_module(module, path), function)(path)
  if name.endswith(('.jsonl', '.json')):
    return wiktextract.read_wiktextract(path, source, target)
  if pairs.is_aligned(path):
    return pairs.read_aligned(path)
  text = read_text(path)
  if ding.is_ding(text):
    return ding.read_ding(path, text)
  if pairs.has_html(text):
    return _module('markup', path).read_html_table(path, text)
  return pairs.read_columns(path, text)


def _module(name: str, path: pathlib.Path) -> types.ModuleType:
  try:
    return importlib.import_module(f'jaxlink.link.formats.{name}')
  except ImportError as error:
    raise ImportError(
      f"{path}: this format needs {error.name}; install it with pip install 'jaxlink[lexicons]'."
    ) from error
