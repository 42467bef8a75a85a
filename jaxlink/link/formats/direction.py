"""Which side of a dictionary is the source: by what the file declares, else by what it shows.

In: a `Reading` and the languages wanted. Out: 'forward' (left is the source) or 'inverted'.

Easy to get wrong: a guess that turns a good list round, or refuses it, is worse than none. So a claim
needs evidence; without any, the left side is the source.
"""

import pathlib
from collections.abc import Iterable

import regex

from jaxlink.link.formats import languages
from jaxlink.link.formats.reading import Reading

FORWARD, INVERTED = 'forward', 'inverted'

_SAMPLE = 5000  # entries looked at, spread over the file
_FIT = 0.5  # share of a side's texts that must have letters of a language's script
_MIN_LIST = 1000  # entries from which a list without English words is not English
_MIN_HITS = 4
# Words of the English side of lists end so in 4 to 15 %, of other languages in at most 2.4 %, but for
# Afrikaans (7 %). A list of rarer words, such as MUSE's ranks 5000 to 6500, has no function words.
_ENDINGS = ('ing', 'ed', 'ly', 'ness', 'ful', 'less', 'ght', 'ship')
_ENGLISH_ENDINGS = 0.035
_FOREIGN = 0.01
# English words that few other languages in Latin script spell the same way.
_FUNCTION_WORDS = frozenset(
  [
    'the',
    'of',
    'and',
    'with',
    'from',
    'which',
    'because',
    'when',
    'their',
    'they',
    'would',
    'should',
    'what',
    'where',
    'there',
    'these',
    'about',
    'between',
    'before',
    'after',
    'without',
    'through',
    'who',
    'how',
    'why',
    'was',
    'were',
    'been',
    'has',
    'your',
    'you',
    'this',
    'that',
  ]
)


def decide(reading: Reading, source: str, target: str, path: pathlib.Path) -> str:
  """Returns 'forward' or 'inverted'.

  The rule, in this order:
    1. the languages that the file declares (TEI title, DSL header, StarDict name, `lang_code`,
       comment of a Ding list, names of aligned files and of .dix files);
    2. script: the side at least half of whose texts have letters of a language's script;
    3. English words, if one of the languages is English: the side with more function words, in a
       list of rarer words the side with more English endings;
    4. the file name ('swh-eng.tsv'), a weak hint;
    5. the left side is the source.

  Raises:
    ValueError: the file declares other languages; or no side is in the script of the source or
      target; or neither side of a list of 1000 entries or more looks like the English source.
  """
  source, target = languages.code(source), languages.code(target)
  if reading.left and reading.right:
    return _by_declaration(reading, source, target, path)
  step = max(1, len(reading.entries) // _SAMPLE)
  sample = reading.entries[::step]
  sides = [[text for entry in sample for text in entry[side][:1]] for side in (0, 1)]
  possible = _by_script(sides, source, target, path)
  if len(possible) == 1:
    return possible[0]
  return _by_words(reading, source, target, path) or _by_name(path, source)


def _by_declaration(reading: Reading, source: str, target: str, path: pathlib.Path) -> str:
  for direction, (own, other) in (
    (FORWARD, (reading.left, reading.right)),
    (INVERTED, (reading.right, reading.left)),
  ):
    if own == source and other == (target or other):
      return direction
  raise ValueError(
    f'{path}: the file declares {languages.name(reading.left)} to {languages.name(reading.right)}; '
    f'wanted {_wanted(source, target)}.'
  )


def _by_script(sides: list[list[str]], source: str, target: str, path: pathlib.Path) -> list[str]:
  """The directions that the scripts allow."""
  fits = {
    language: [_share(side, languages.letters(language)) >= _FIT for side in sides]
    for language in (source, target)
  }
  for role, language in (('source', source), ('target', target)):
    if not any(fits[language]):
      raise ValueError(
        f'{path}: no side is in the script of the {role}, {languages.name(language)} '
        f'({", ".join(languages.scripts(language))}); left: {_described(sides[0])}; '
        f'right: {_described(sides[1])}.'
      )
  possible = []
  if fits[source][0] and fits[target][1]:
    possible.append(FORWARD)
  if fits[source][1] and fits[target][0]:
    possible.append(INVERTED)
  if not possible:
    raise ValueError(
      f'{path}: {_wanted(source, target)} do not share a pair of columns; '
      f'left: {_described(sides[0])}; right: {_described(sides[1])}.'
    )
  return possible


def _share(texts: Iterable[str], letters: regex.Pattern | None) -> float:
  """Share of the texts with letters that have letters of a language; 1 where nothing is known."""
  lettered = [text for text in texts if regex.search(r'\p{L}', text)]
  if letters is None or not lettered:
    return 1.0
  return sum(letters.search(text) is not None for text in lettered) / len(lettered)


def _by_words(reading: Reading, source: str, target: str, path: pathlib.Path) -> str | None:
  """The direction that English words show; None without evidence."""
  if 'en' not in (source, target):
    return None
  pairs = [
    (entry.left[0], entry.right[0]) for entry in reading.entries if entry.left and entry.right
  ]
  # A word kept as it is, as many names in MUSE lists are, says nothing about a side.
  pairs = [pair for pair in pairs if pair[0].casefold() != pair[1].casefold()]
  sides = [[word for pair in pairs for word in pair[n].casefold().split()] for n in (0, 1)]
  hits = [len(_FUNCTION_WORDS.intersection(side)) for side in sides]
  endings = [_share_of_english_endings(side) for side in sides]
  if max(hits) >= _MIN_HITS:
    english_left = hits[0] >= hits[1]
  elif max(endings) >= _ENGLISH_ENDINGS:
    english_left = endings[0] >= endings[1]
  elif len(pairs) >= _MIN_LIST and source == 'en' and max(hits) < 2 and max(endings) < _FOREIGN:
    raise ValueError(
      f'{path}: neither side looks like the source, {languages.name(source)}: of '
      f'{len(_FUNCTION_WORDS)} common words ("the", "and", "with" …) the left side of '
      f'{len(pairs):,} entries has {hits[0]} and the right side {hits[1]}; English endings '
      f'("-ing", "-ed", "-ly" …) have {endings[0]:.1%} and {endings[1]:.1%} of the words.'
    )
  else:
    return None
  return FORWARD if english_left == (source == 'en') else INVERTED


def _share_of_english_endings(words: list[str]) -> float:
  """Share of the longer words of the English alphabet that end as English ones do."""
  longer = [word for word in words if len(word) > 4 and word.isascii() and word.isalpha()]
  return sum(word.endswith(_ENDINGS) for word in longer) / len(longer) if longer else 0.0


def _by_name(path: pathlib.Path, source: str) -> str:
  left, right = languages.pair_of(path.name)
  return INVERTED if right == source != left else FORWARD


def _wanted(source: str, target: str) -> str:
  return f'{languages.name(source)} and {languages.name(target) if target else "any language"}'


def _described(texts: list[str]) -> str:
  """The script of most texts, and an example."""
  scripts = {
    script: _share(texts, regex.compile(rf'\p{{{script}}}')) for script in languages.all_scripts()
  }
  best = max(scripts, key=scripts.get)
  example = next((text for text in texts if regex.search(rf'\p{{{best}}}', text)), '')
  return f'{scripts[best]:.0%} {best} ({example[:40]!r})'
