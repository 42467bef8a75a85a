"""Glosses to senses: "to run; jog (informal)" is `run` and `jog`, "plural of dog" is a pointer.

In: the text of one side of a dictionary entry. Out: its senses, each with '' or the reason why it is
no translation; nothing disappears without a reason.

Easy to get wrong: a definition must go as a whole. "a group in Oyo State, Nigeria, some towns" holds
commas too: from the first part that is too long to be a translation, the rest explains it.

Two-column lists are not cut: there an entry is what stands in the file, and `tidy` alone is applied.
"""

import collections
import functools
import unicodedata

import regex

from jaxlink.link import words

# A translation has at most this many words; what has more explains. In Wiktionary's glosses of
# Basque, Hausa, Indonesian and Yoruba, those of five words are mostly phrases, those of six not.
MAX_GLOSS_WORDS = 5
MAX_TARGET_WORDS = 8  # languages that write syllables apart ('tổng sản phẩm quốc nội') need more

# What no text should get: brackets that nothing closed, tags, entities, web addresses.
MARKUP = regex.compile(r'[<>{}\[\]()（）@|#\\*_=^]| \+ |&#?\w+;|::|https?:')
# Where a word goes: 'ne ... pas', 'biro ~'.
GAP = regex.compile(r'\.\.|…|~')

# Signs of no spelling. The joiners U+200C and U+200D belong to one, but never at its edges.
_INVISIBLE = regex.compile(r'[\p{Cf}--[\u200c\u200d]]', regex.V1)
_DIRTY = regex.compile(
  r'[()\[\]{}<>（\u2010\u2011\u2028\u2029]|\p{Cf}|\p{Cc}|^\s|\s$|\s\s|[^\S ]', regex.V1
)
_HYPHENS = str.maketrans('\u2010\u2011', '--')
_LINK = regex.compile(r'\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]')
_REMARK = regex.compile(r'\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|<[^<>]*>|（[^（）]*）')
_TRANSLITERATION = regex.compile(r'(?<=\s|^)/[^/;]+/(?=[\s,;)]|$)')

_WIDE = {',': ',，、،', ';': ';；؛', '/': '/／'}
_EDGES = ' \t.,;:!?…·•"“”„‟«»。．，、；：！？।॥؟،؛'
_LOOSE_DASH = regex.compile(r'^[-–—]\s+|\s+[-–—]$')

_POINTER = regex.compile(
  r"""(?:^|.*\b)(?:
      forms?|plural|singular|(?:mis)?spelling|inflection|participle|tense|infinitive|gerund
    | imperative|comparative|superlative|diminutive|augmentative|vocative|genitive|accusative|dative
    | nominative|ablative|locative|construct|causative|passive|reciprocal|applicative|possessed
    | feminine|masculine|neuter|abbreviation|initialism|acronym|clipping|contraction|ellipsis
    | synonym|antonym|equivalent|variant|eye\ dialect|r[oō]m(?:aji|aniz|anis)\w*(?:\ transcription)?
    )(?:\ (?:form|case|spelling))?\ (?:of|for)\b
    | (?:^|.*\b)short\ for\b
    | (?:see|see\ also|cf\.?|compare|same\ as)[\s:]""",
  regex.I | regex.X,
)
_USAGE = regex.compile(
  r"""(?:used|indicat(?:es|ing)|denot(?:es|ing)|express(?:es|ing)|refer(?:s|ring))\ .*\ .
    | said\ of\b
    | (?:the\ |another\ )?(?:name|title|(?:[\w-]+\ )?letter)\ (?:of|for)\b
    | (?:a|an|the)\ (?:.*\ )?(?:given\ name|surname|suffix|prefix|particle|type\ of|kind\ of)\b""",
  regex.I | regex.X,
)
_COLON = regex.compile(r'(?<=\w): ')
_SENTENCE = regex.compile(r'\s*(?:An?|The) |.*\.\s*$')
_TO = regex.compile(r'to (?!(?:and|be or|boot|date|do list|go|wit)\b)(?=\p{L})', regex.I)
_ARTICLE = regex.compile(r'(?:an?|the) (?=\p{L})', regex.I)
_OR = regex.compile(r'(?:or|and) (?=\p{L})')


def tidy(text: str) -> tuple[str, int]:
  """Returns a text in NFC without remarks and invisible characters, and how many remarks it had.

  Remarks stand in brackets of any kind: '(informal)', '{n}', '[archaic]', '<adj>'. A wiki link is
  its text. White space of any kind becomes one space; none is left at the edges.
  """
  if not unicodedata.is_normalized('NFC', text):
    text = unicodedata.normalize('NFC', text)
  if not _DIRTY.search(text):
    return text, 0
  text = _INVISIBLE.sub('', text).translate(_HYPHENS)
  text = _LINK.sub(r'\1', text)
  remarks, found = 0, 1
  while found:  # from the inside out
    text, found = _REMARK.subn('', text)
    remarks += found
  text = ' '.join(regex.sub(r'\p{Cc}', ' ', text).split())
  return unicodedata.normalize('NFC', text.strip('\u200c\u200d ')), remarks


def senses(
  text: str,
  separators: str,
  *,
  english: bool,
  gloss: bool,
  counts: collections.Counter | None = None,
) -> list[tuple[str, str]]:
  """Cuts one side of a dictionary entry into senses.

  Args:
    text: as the dictionary has it, without markup of its format.
    separators: characters that part senses, such as ';,/'.
    english: the side is English: 'to ' before verbs goes, pointers and usage notes are known.
    gloss: the side explains the other one (and is no headword): articles go, and a text of too many
      words is a definition.
    counts: where 'remarks' and 'transliterations' that were taken out are counted.

  Returns:
    (sense, reason) for every sense in order; the reason is '' or a name of the lexicon's `COUNTS`:
    'pointers' (plural of dog), 'definitions', 'placeholders' (as … as), 'markup', and 'empty_side'
    for a text without any sense.

  >>> senses('to run; jog (informal)', ';,/', english=True, gloss=True)
  [('run', ''), ('jog', '')]
  """
  if words.is_word(text) and unicodedata.is_normalized('NFC', text):
    return [(text, '')]
  text, transliterations = _TRANSLITERATION.subn('', text)
  text, remarks = tidy(text)
  if counts is not None:
    counts['remarks'] += remarks
    counts['transliterations'] += transliterations
  parts = _cut(text, ';') if ';' in separators else [text]
  found = []
  for number, part in enumerate(parts, 1):
    if english and gloss and _POINTER.match(part):
      found.append((part.strip(), 'pointers'))
      continue
    # 'albino: person or animal …' names first and explains then.
    part, *explained = _COLON.split(part, maxsplit=1) if english and gloss else [part]
    found += _part(_cut(part, separators.replace(';', '')), english, gloss)
    if explained:
      found.append((';'.join(explained + parts[number:]).strip(), 'definitions'))
      break
  return found or [('', 'empty_side')]


@functools.cache
def _separator(separators: str) -> regex.Pattern:
  wide = ''.join(_WIDE.get(sign, sign) for sign in separators)
  return regex.compile(f'[{regex.escape(wide)}]')


def _cut(text: str, separators: str) -> list[str]:
  return _separator(separators).split(text) if separators else [text]


def _part(pieces: list[str], english: bool, gloss: bool) -> list[tuple[str, str]]:
  """Judges the pieces between two semicolons; from a definition on, the rest belongs to it."""
  limit = MAX_GLOSS_WORDS if english else MAX_TARGET_WORDS
  found = []
  for number, piece in enumerate(pieces):
    sense = _LOOSE_DASH.sub('', piece.strip()).strip(_EDGES)
    if not sense:
      continue  # '...' after a comma; a text of nothing else is an empty side
    length = 1 + sense.count(' ')
    sentence = english and length > 3 and _SENTENCE.match(piece)
    if gloss and (length > limit or sentence or (english and _USAGE.match(sense))):
      found.append((','.join(pieces[number:]).strip(), 'definitions'))
      break
    if english:
      sense = _OR.sub('', sense, count=1) if gloss and number and _OR.match(sense) else sense
      sense = _TO.sub('', sense, count=1) if _TO.match(sense) else sense
      sense = _ARTICLE.sub('', sense, count=1) if gloss and _ARTICLE.match(sense) else sense
    reason = 'placeholders' if GAP.search(sense) else 'markup' if MARKUP.search(sense) else ''
    found.append((sense, reason))
  return found
