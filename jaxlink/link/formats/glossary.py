"""What PyGlossary reads: StarDict, dictd and DSL.

In: the path of a dictionary: .ifo or a tar of its folder, .index or .dict of dictd, .dsl or .dsl.dz.
Out: a `Reading`: headwords, and the glosses that stand in their definitions.

Easy to get wrong: PyGlossary unpacks beside the file and gives definitions as HTML. So it gets a copy
in a temporary folder, and the glosses are taken out of the HTML by the habits of each format.
"""

import collections
import contextlib
import logging
import pathlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator

import regex

from jaxlink.link.formats import languages, markup
from jaxlink.link.formats.reading import Entry, Reading, read_bytes, require


def _import() -> type:
  """PyGlossary's class, initialised; it may replace neither the hook for errors nor the loggers."""
  hook, logger = sys.excepthook, logging.getLoggerClass()
  try:
    from pyglossary.glossary_v2 import Glossary

    Glossary.init()
  finally:
    sys.excepthook = hook
    logging.setLoggerClass(logger)
  return Glossary


_Glossary = _import()


def read_stardict(path: pathlib.Path) -> Reading:
  """Reads a StarDict dictionary: its .ifo beside the other files, or a tar of the folder."""
  require(path)
  if path.suffix == '.ifo':
    files = sorted(p for p in path.parent.iterdir() if p.name.startswith(path.stem + '.'))
  else:
    files = [path]
  with tempfile.TemporaryDirectory() as folder:
    if path.suffix == '.ifo':
      _copy(files, folder)
    else:
      try:
        with tarfile.open(path) as tar:
          tar.extractall(folder, filter='data')
      except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f'{path}: broken tar file ({error}).') from None
    found = sorted(pathlib.Path(folder).rglob('*.ifo'))
    if len(found) != 1:
      raise ValueError(f'{path}: holds {len(found)} .ifo files; one StarDict dictionary has one.')
    return _read(found[0], path, files, 'Stardict', _stardict_glosses)


def read_dictd(path: pathlib.Path) -> Reading:
  """Reads a dictd database, given its .index, .dict or .dict.dz beside the other one."""
  stem = path.name.removesuffix('.dz').removesuffix('.dict').removesuffix('.index')
  index = path.with_name(stem + '.index')
  require(index)
  data = next((p for e in ('.dict.dz', '.dict') if (p := path.with_name(stem + e)).is_file()), None)
  require(data or path.with_name(stem + '.dict'))
  with tempfile.TemporaryDirectory() as folder:
    _copy([index, data], folder)
    inside = pathlib.Path(folder) / index.name
    return _read(inside, path, [index, data], 'DictOrg', _dictd_glosses)


def read_dsl(path: pathlib.Path) -> Reading:
  """Reads an ABBYY Lingvo dictionary, .dsl or .dsl.dz; it declares its languages."""
  with tempfile.TemporaryDirectory() as folder:
    plain = pathlib.Path(folder) / (path.name.removesuffix('.dz').removesuffix('.gz'))
    plain.write_bytes(read_bytes(path))
    return _read(plain, path, [path], 'ABBYYLingvoDSL', _html_glosses)


def _copy(files: list[pathlib.Path], folder: str) -> None:
  for file in files:
    shutil.copyfile(file, pathlib.Path(folder) / file.name)


class _Errors(logging.Handler):
  """Counts what PyGlossary logs as errors: entries that it could not read and went past."""

  def __init__(self):
    super().__init__(logging.ERROR)
    self.count = 0

  def emit(self, record: logging.LogRecord) -> None:
    self.count += 1


@contextlib.contextmanager
def _counted_errors() -> Iterator[_Errors]:
  handler, logger = _Errors(), logging.getLogger('pyglossary')
  logger.addHandler(handler)
  try:
    yield handler
  finally:
    logger.removeHandler(handler)


def _read(
  inside: pathlib.Path,
  path: pathlib.Path,
  files: list[pathlib.Path],
  format_name: str,
  glosses: Callable[[str, str, collections.Counter], list[str]],
) -> Reading:
  """Lets PyGlossary read `inside`, the copy of `path`; `glosses(headword, definition, counts)`."""
  glossary = _Glossary(ui=None)
  counts = collections.Counter()
  read = []
  with _counted_errors() as errors:
    try:
      glossary.directRead(str(inside), formatName=format_name)
      for entry in glossary:
        if entry.isData():
          counts['notes'] += 1  # a picture or a sound
        else:
          read.append((tuple(entry.l_term), entry.defi))
      title = glossary.getInfo('name')
      declared = glossary.sourceLangName, glossary.targetLangName
    except Exception as error:  # of a broken file, its readers raise errors of any kind
      raise ValueError(f'{path}: PyGlossary cannot read it as {format_name} ({error}).') from error
    finally:
      glossary.cleanup()
      glossary.clear()
  counts['unread_entries'] = errors.count
  entries = []
  for terms, definition in read:
    if terms[0].startswith(('00database', '00-database')):  # what dictd says of itself
      title += f' {definition}'
    else:
      entries.append(Entry(terms, tuple(glosses(terms[0], definition, counts))))
  if not entries:
    raise ValueError(f'{path}: no entries ({format_name}, {errors.count} errors of PyGlossary).')
  if all(languages.is_known(side) for side in declared):
    left, right = map(languages.code, declared)
  else:
    left, right = languages.pair_of(title)
  return Reading(entries, files, left, right, False, '', ';,/', counts)


# ── definitions to glosses ──────────────────────────────────────────────────────

_LABELLED = regex.compile(
  r'\s*(?:notes?|usage|synonyms?|antonyms?|see(?: also)?|related|plural|example)s?:', regex.I
)
_DICTD_BREAK = regex.compile(r'<br ?/?>')
_NUMBER = regex.compile(r'^\s*\d+[.)]\s*')


def _html_glosses(headword: str, definition: str, counts: collections.Counter) -> list[str]:
  return markup.html_glosses(definition, counts)


def _stardict_glosses(headword: str, definition: str, counts: collections.Counter) -> list[str]:
  if '<' in definition:
    return markup.html_glosses(definition, counts)
  return _plain_glosses(headword, definition, counts)


def _dictd_glosses(headword: str, definition: str, counts: collections.Counter) -> list[str]:
  # Of the HTML only breaks and links are PyGlossary's; '<masc>' stands in the dictionary.
  text = _DICTD_BREAK.sub('\n', regex.sub(r'</?a\b[^>]*>', '', definition))
  found = []
  for part in regex.split(r'<hr ?/?>', text):
    found += _plain_glosses(headword, part, counts)
  return found


def _plain_glosses(headword: str, text: str, counts: collections.Counter) -> list[str]:
  """Lines of a plain definition, without the headword's own line, notes and examples."""
  glosses = []
  for number, line in enumerate(line for line in text.split('\n') if line.strip()):
    own = line.casefold().startswith(headword.casefold())
    if (
      (
        number == 0
        and own
        and regex.fullmatch(r'\s*(?:/[^/]*/|\[[^\]]*\]|<[^>]*>|,|\s)*', line[len(headword) :])
      )
      or _LABELLED.match(line)
      or line.lstrip().startswith('"')
    ):
      counts['notes'] += 1
    else:
      glosses.append(_NUMBER.sub('', line).strip())
  return glosses
