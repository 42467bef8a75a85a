"""Wiktextract dumps (kaikki.org, one JSON object a line): translations, or glosses turned round.

In: records `{"word", "lang_code", "senses": [{"glosses"}], "translations": [{"lang_code", "word"}]}`.
Out: a `Reading` of the records that concern the two languages.

Two kinds of records are used. A record of the source language (English) gives its `translations`
into the target language; in an edition of the target language ("lang": "Englisch") it gives its
glosses too. A record of the target language, in the English edition, has English glosses: it runs the
other way. The kind that gives more entries is the direction of the file; the other is counted.

Easy to get wrong: romanisations stand in fields of their own (`roman`, forms tagged "romanization"),
and never reach an entry. Vowel points and stress marks, which running text lacks, are taken off.
"""

import collections
import json
import pathlib

import regex

from jaxlink.link.formats import languages
from jaxlink.link.formats.reading import Entry, Reading, read_lines

# What an edition of Wiktionary calls English, and its language.
_ENGLISH_IN = {
  'Anglais': 'fr', 'Angielski': 'pl', 'Angličtina': 'cs', 'Angol': 'hu', 'Engels': 'nl',
  'Englisch': 'de', 'Inggris': 'id', 'Inglese': 'it', 'Inglés': 'es', 'Inglês': 'pt',
  'İngilizce': 'tr', 'Αγγλικά': 'el', 'Английский': 'ru', 'ภาษาอังกฤษ': 'th', '영어': 'ko',
  '英語': 'ja', '英语': 'zh', 'Bahasa Inggris': 'id', 'Inggeris': 'ms', 'Tiếng Anh': 'vi',
}  # fmt: skip
# Arabic vowel signs and tatweel, Hebrew points, the acute over a Cyrillic vowel.
_POINTS = regex.compile(
  r'[\u064b-\u0652\u0670\u0640\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7]'
  r'|(?<=\p{Cyrillic})\u0301'
)


def read_wiktextract(path: pathlib.Path, source: str, target: str) -> Reading:
  """Reads the records of a dump that translate between two languages.

  Args:
    path: JSON lines, plain or gzip.
    source: code of the language of the keys.
    target: code of the language to find; '' if all records are of one language other than `source`.

  Raises:
    ValueError: a line is no JSON object with a "word", no record is of the two languages, or the
      target is not given and the file holds several.
  """
  source, target = languages.code(source), languages.code(target)
  counts = collections.Counter()
  seen = collections.Counter()
  forward: list[tuple[str, Entry]] = []
  inverted: list[tuple[str, Entry]] = []
  for number, line in read_lines(path):
    if not line.strip():
      counts['blank_lines'] += 1
      continue
    record = _record(path, number, line)
    if record is None:
      counts['redirects'] += 1
      continue
    own = languages.code(record.get('lang_code', ''))
    seen[own] += 1
    if own == source:
      for language, entry in _translations(record, seen):
        if language == target or not target:
          forward.append((language, entry))
        else:
          counts['other_languages'] += 1
    elif own == target or not target:
      inverted += [(own, entry) for entry in _of_senses(record)]
    else:
      counts['other_languages'] += 1
  chosen = forward if len(forward) > len(inverted) else inverted
  counts['other_direction'] = len(forward) + len(inverted) - len(chosen)
  found = {language for language, _ in chosen}
  if len(found) != 1:
    held = ', '.join(f'{languages.name(code)} {n}' for code, n in seen.most_common(8))
    want = languages.name(target) if target else "one target language; give its code as 'target'"
    raise ValueError(f'{path}: wanted {want}, with {languages.name(source)}; found {held}.')
  (language,) = found
  entries = [entry for _, entry in chosen]
  if chosen is forward:
    return Reading(entries, [path], source, language, False, '', ';,/', counts)
  return Reading(entries, [path], language, source, False, '', ';,/', counts)


def _record(path: pathlib.Path, number: int, line: bytes) -> dict | None:
  """The record of a line; None for a redirect, which is a link to another page and has no entry."""
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}:{number}: no JSON object ({error}).') from None
  if isinstance(record, dict) and 'redirect' in record:
    return None
  if not isinstance(record, dict) or not isinstance(record.get('word'), str):
    raise ValueError(f'{path}:{number}: no Wiktextract record: a record has a "word".')
  return record


def _translations(record: dict, seen: collections.Counter) -> list[tuple[str, Entry]]:
  """(language, entry) of a record of the source language."""
  listed = list(record.get('translations', ()))
  for sense in record.get('senses', ()):
    listed += sense.get('translations', ())
  found = []
  for item in listed:
    language = languages.code(item.get('lang_code') or item.get('code') or '')
    seen[language] += 1
    found.append((language, Entry((record['word'],), (_plain(item.get('word') or ''),))))
  edition = _ENGLISH_IN.get(record.get('lang', ''))
  if edition:
    for entry in _of_senses(record):
      lowered = tuple(_lowered(gloss, edition) for gloss in entry.right)
      found.append((edition, entry._replace(right=lowered)))
  return found


def _of_senses(record: dict) -> list[Entry]:
  """The glosses of a record, of a sense the most special one; the words that it is a form of."""
  glosses, links = [], []
  for sense in record.get('senses', ()):
    found = sense.get('form_of') or sense.get('alt_of')
    if found:
      links.append(found[0].get('word', ''))
    else:
      glosses.append((sense.get('glosses') or ('',))[-1])
  entries = [] if links and not glosses else [Entry((record['word'],), tuple(glosses))]
  return entries + ([Entry((record['word'],), tuple(links), None, 'pointers')] if links else [])


def _lowered(gloss: str, edition: str) -> str:
  """A gloss written as a sentence ('Rápido, veloz.') without its capital; German has nouns."""
  sentence = gloss.endswith('.') and edition != 'de'
  return gloss[:1].lower() + gloss[1:] if sentence else gloss


def _plain(word: str) -> str:
  return _POINTS.sub('', word)
