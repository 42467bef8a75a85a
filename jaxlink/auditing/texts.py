"""What is wrong with a text: repeated documents and lines, broken characters, lines of other languages.

In: the documents of a source, one after another, read once. Out: `Faults`, and a sample of documents that
is the same for the same text. Memory: 8 bytes for each document and line.

Easy to get wrong: script tells languages apart only where their scripts differ. An English line in Turkish
text is told by English stop words instead, in lines that are long enough for it, and that is a guess.
"""

import array
import dataclasses
import functools
import heapq
from collections.abc import Collection, Iterable

import numpy as np
import regex

from jaxlink.link import words
from jaxlink.link.draws import key_of
from jaxlink.link.formats import languages

# The reasons for which a line is counted, in words; a line may have several.
REASONS = {
  'replacement': 'lines with U+FFFD, which stands where bytes were no text',
  'control': 'lines with control characters',
  'no_letters': 'lines without a letter',
  'other_script': "lines whose letters are mostly of another script than the language's",
  'other_language': 'lines whose words look like those of the auxiliary language',
}
EXAMPLES = 5  # lines kept for each reason
FOREIGN_WORDS = 6  # words from which on a line's language is judged by them,
FOREIGN_SHARE = 1 / 3  # and how many of them are stop words of the other language
_REMEMBERED = 200_000  # different lines whose text is kept, to show the most repeated ones
_LONGEST = 1000  # characters of such a line

_CONTROL = regex.compile(r'[\p{Cc}--[\t\n\r]]', regex.V1)
_LETTER = regex.compile(r'\p{L}')


@dataclasses.dataclass(frozen=True)
class Faults:
  """What was counted in a source.

  Attributes:
    documents: that hold text.
    lines: that are not blank.
    duplicate_documents: documents that were there before, letter by letter.
    duplicate_lines: lines that were there before, but for white space at their ends.
    held_out: documents that the held-out split has too.
    scripts: of the language; () if unknown, and then no line is of another.
    by_reason: lines for each of `REASONS`; a reason that could not be judged is missing.
    by_script: lines of other scripts, by script.
    examples: a few lines for each reason.
    repeated: the most repeated lines and how often each stands there.
  """

  documents: int
  lines: int
  duplicate_documents: int
  duplicate_lines: int
  held_out: int
  scripts: tuple[str, ...]
  by_reason: dict[str, int]
  by_script: dict[str, int]
  examples: dict[str, list[str]]
  repeated: list[tuple[str, int]]


def read(
  texts: Iterable[str],
  language: str,
  *,
  other_stop_words: Collection[str] = (),
  held_out: Collection[int] = (),
  sample: int = 0,
) -> tuple[Faults, list[str]]:
  """Reads documents once.

  Args:
    texts: the documents.
    language: code of their language.
    other_stop_words: keys of the stop words of a language that should not be here; () if that cannot
      be judged.
    held_out: keys of the documents of the held-out split.
    sample: how many documents to sample.

  Returns:
    The faults, and the sample: the documents with the lowest keys, of each kind one.
  """
  document_keys, line_keys = array.array('Q'), array.array('Q')
  remembered: dict[str, int] = {}
  judged = ['replacement', 'control', 'no_letters']
  scripts = languages.scripts(language)
  if scripts:
    judged.append('other_script')
  if other_stop_words:
    judged.append('other_language')
  by_reason, examples = dict.fromkeys(judged, 0), {reason: [] for reason in judged}
  by_script: dict[str, int] = {}
  lowest: list[tuple[int, str]] = []  # a heap whose first has the highest key
  sampled: set[int] = set()
  for text in texts:
    key = key_of(text)
    document_keys.append(key)
    if key not in sampled and (len(sampled) < sample or (lowest and key < -lowest[0][0])):
      sampled.add(key)
      heapq.heappush(lowest, (-key, text))
      if len(sampled) > sample:
        sampled.remove(-heapq.heappop(lowest)[0])
    foreign = _foreign(scripts).search(text) if scripts else None
    for line in filter(None, map(str.strip, text.split('\n'))):
      line_keys.append(key_of(line))
      if len(line) <= _LONGEST and (line in remembered or len(remembered) < _REMEMBERED):
        remembered[line] = remembered.get(line, 0) + 1
      found = _flaws(line)
      if foreign and (script := _other_script(line, scripts)):
        by_script[script] = by_script.get(script, 0) + 1
        found.append('other_script')
      if other_stop_words and _looks_foreign(line, other_stop_words):
        found.append('other_language')
      for reason in found:
        by_reason[reason] += 1
        if len(examples[reason]) < EXAMPLES:
          examples[reason].append(line)
  repeated = heapq.nlargest(EXAMPLES, remembered.items(), key=lambda pair: pair[1])
  keys = np.frombuffer(document_keys, np.uint64) if document_keys else np.zeros(0, np.uint64)
  faults = Faults(
    documents=len(document_keys),
    lines=len(line_keys),
    duplicate_documents=len(keys) - len(np.unique(keys)),
    duplicate_lines=len(line_keys) - len(np.unique(np.array(line_keys, np.uint64))),
    held_out=int(np.isin(keys, np.array(list(held_out), np.uint64)).sum()),
    scripts=scripts,
    by_reason=by_reason,
    by_script=dict(sorted(by_script.items(), key=lambda pair: -pair[1])),
    examples={reason: lines for reason, lines in examples.items() if lines},
    repeated=[(line, times) for line, times in repeated if times > 1],
  )
  return faults, [text for _, text in sorted(lowest, reverse=True)]


def _flaws(line: str) -> list[str]:
  found = []
  if '\ufffd' in line:
    found.append('replacement')
  if not line.isprintable() and _CONTROL.search(line):
    found.append('control')
  if not _LETTER.search(line):
    found.append('no_letters')
  return found


@functools.cache
def _foreign(scripts: tuple[str, ...]) -> regex.Pattern:
  """A letter of no such script; signs that many scripts share are of none in particular."""
  own = ''.join(rf'\p{{{script}}}' for script in scripts)
  return regex.compile(rf'[\p{{L}}--[{own}\p{{Common}}\p{{Inherited}}]]', regex.V1)


def _other_script(line: str, scripts: tuple[str, ...]) -> str:
  """The script that most letters of a line are of, if it is not one of these; else ''."""
  letters, strange = len(_LETTER.findall(line)), _foreign(scripts).findall(line)
  if 2 * len(strange) <= letters:
    return ''
  text = ''.join(strange)
  counts = {script: len(_script(script).findall(text)) for script in languages.all_scripts()}
  most = max(counts, key=counts.__getitem__)
  return most if counts[most] else 'other'


@functools.cache
def _script(script: str) -> regex.Pattern:
  return regex.compile(rf'\p{{{script}}}')


def _looks_foreign(line: str, stop_words: Collection[str]) -> bool:
  found = words.split_words(line)[1::2]
  if len(found) < FOREIGN_WORDS:
    return False
  return sum(words.key(word) in stop_words for word in found) >= FOREIGN_SHARE * len(found)
