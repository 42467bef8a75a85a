"""The link table: what the load-time engine knows of a lexicon, as arrays on disk.

It is built once for (lexicons, rendering, lists, tokenizer), kept in a folder, and opened memory-mapped:
worker processes share its pages, and none of them needs a tokenizer. Entries are found by a 64-bit hash,
that of a word's key, or of the keys of a source of several words.

  hash_E         of each entry, ascending
  words_E        of the entry's source
  flags_E        COVERED_ANY | COVERED | ELIGIBLE | STOP | BEGINS
  identity_EG    whether language g maps the word to nothing but itself
  first_EG       index of its first target in language g
  count_EG       how many; 0 if language g has none
  sense_key_EG   what a sense drawn by document is keyed by
  cumulative_K   of each target, the weights up to and with it, of 1
  start_KV       where the token ids of each target begin, in each variant; one more at the end
  ids            of all targets
  pairs          whether the hash of two words, by its top bits, may begin a source of several
  bucket         the first entry of each value of a hash's top bits

Every array over E has one row more, for what is not found: hash 2⁶⁴ - 1, and zeros.

A variant is case class × 2 + leading space (`variant`). An annotation has the ids of ` (translation`.

Easy to get wrong: a target that a tokenizer encodes differently in context cannot be spliced. Those are
left out and counted; `keep_spliceable` gives the lexicon that is left, for the reference.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import tqdm

from jaxlink.link import casing, lemmas, senses, words
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import Rendering, WordLists

FORMAT = 1  # raised when a table of an older version can no longer be read

COVERED_ANY = 2  # a language has targets, if only the word itself
COVERED = 4  # a language has others
ELIGIBLE = 8  # covered, and the regime allows it
STOP = 64  # a stop word
BEGINS = 128  # a source of several words begins with it
CASES = (0, words.TITLE, words.UPPER)
VARIANTS = 2 * len(CASES)

_META = 'table.json'
_ARRAYS = (
  'hash_E', 'words_E', 'flags_E', 'identity_EG', 'first_EG', 'count_EG', 'sense_key_EG',
  'cumulative_K', 'start_KV', 'ids', 'pairs', 'bucket',
)  # fmt: skip
_PAIR_BITS = 20
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY = np.uint64(0xBF58476D1CE4E5B9)


class Encoder(Protocol):
  """What a tokenizer must offer.

  Attributes:
    native: whether every piece has the same ids everywhere.
  """

  native: bool

  def encode_piece(self, text: str) -> list[int]:
    """The ids of a piece of text that is put into the middle of another."""

  def splices(self, piece: str) -> bool:
    """Whether they are the same in any context."""


def extend_hash(hash_N: np.ndarray, next_N: np.ndarray) -> np.ndarray:
  """The hashes of runs of words, made longer by a word; uint64, wraps around."""
  return ((hash_N ^ (hash_N >> np.uint64(32))) * _GOLDEN + next_N) * _MULTIPLY


def pair_bit(hash_N: np.ndarray) -> np.ndarray:
  """The place in `pairs` of the hash of two words."""
  return (hash_N >> np.uint64(64 - _PAIR_BITS)).astype(np.intp)


def variant(case: np.ndarray | int, space: np.ndarray | int) -> np.ndarray | int:
  """The column of `start_KV`: case is 0, 1 (title) or 2 (upper), space 0 or 1."""
  return case * 2 + space


@dataclasses.dataclass(frozen=True, eq=False)
class LinkTable:
  """A table opened for reading; it can be pickled, and each process maps the same files.

  Attributes:
    folder: where it lies.
    languages: of the targets.
    mode: 'replace', 'annotate' or 'restore'.
    meta: what else was recorded: counts of each lexicon and its hash.
    max_words: words of the longest source.
  """

  folder: str
  languages: tuple[str, ...]
  mode: str
  meta: Mapping[str, Any]
  max_words: int

  @classmethod
  def open(cls, folder: str) -> 'LinkTable':
    """Opens a built table.

    Raises:
      FileNotFoundError: there is none.
      ValueError: another version built it.
    """
    with open(os.path.join(folder, _META), encoding='utf-8') as file:
      meta = json.load(file)
    if meta['format'] != FORMAT:
      raise ValueError(
        f'{folder} has table format {meta["format"]}, this version reads {FORMAT}: delete it.'
      )
    return cls(folder, tuple(meta['languages']), meta['mode'], meta, meta['max_words'])

  def __post_init__(self):
    for name in _ARRAYS:
      # A plain array over the mapped file: np.memmap's own slices are slow.
      mapped = np.load(os.path.join(self.folder, f'{name}.npy'), mmap_mode='r')
      object.__setattr__(self, name, np.asarray(mapped))
    bits = len(self.bucket).bit_length() - 1
    object.__setattr__(self, '_shift', np.uint64(64 - bits))

  def __reduce__(self):
    return LinkTable.open, (self.folder,)

  def find(self, hash_N: np.ndarray) -> np.ndarray:
    """Returns the entry of each hash, or -1, the row of what is not found; int64."""
    row_N = self.bucket[(hash_N >> self._shift).view(np.int64)]
    found_N = self.hash_E[row_N]
    behind = np.flatnonzero(found_N < hash_N)
    while len(behind):
      row_N[behind] += 1
      found_N[behind] = self.hash_E[row_N[behind]]
      behind = behind[found_N[behind] < hash_N[behind]]
    row_N[found_N != hash_N] = -1
    return row_N


def keep_spliceable(
  lexicon: Lexicon, language: str, rendering: Rendering, encoder: Encoder
) -> tuple[Lexicon, int]:
  """Leaves out the targets that a tokenizer does not encode alike everywhere, in any of their cases.

  Returns:
    The lexicon that is left (the same one if nothing goes), and how many targets went.
  """
  if encoder.native:
    return lexicon, 0
  kept, weights, gone = {}, {}, 0
  known: dict[str, bool] = {}
  for key, targets in lexicon.entries.items():
    stay = []
    for target in targets:
      pieces = set(_renderings(target, language, rendering))
      for piece in pieces:
        if piece not in known:
          known[piece] = encoder.splices(piece)
      stay.append(all(known[piece] for piece in pieces))
    gone += len(stay) - sum(stay)
    if any(stay):
      kept[key] = tuple(t for t, ok in zip(targets, stay, strict=True) if ok)
      if key in lexicon.weights:
        weights[key] = tuple(w for w, ok in zip(lexicon.weights[key], stay, strict=True) if ok)
  if not gone:
    return lexicon, 0
  return dataclasses.replace(lexicon, entries=kept, weights=weights), gone


def build(
  folder: str,
  lexicons: Mapping[str, Lexicon],
  rendering: Rendering,
  lists: WordLists,
  encoder: Encoder,
  *,
  keys: Iterable[str] = (),
  record: Mapping[str, Any] = {},
  progress: bool = True,
) -> LinkTable:
  """Builds a table, writes it, and opens it; one that is there already is opened.

  Args:
    folder: of the table; it appears whole or not at all.
    lexicons: language → its lexicon.
    rendering: of the policy.
    lists: the words that its regime asks for.
    encoder: the tokenizer.
    keys: words of the text, for `rendering.lemmas`: those that no lexicon has are looked up by lemma.
    record: to be kept in `meta`.
    progress: whether to draw a bar.

  Raises:
    ValueError: no target is left.
  """
  if os.path.exists(os.path.join(folder, _META)):
    return LinkTable.open(folder)
  unspliceable = {}
  for language, lexicon in lexicons.items():
    lexicons = {**lexicons}
    lexicons[language], unspliceable[language] = keep_spliceable(
      lexicon, language, rendering, encoder
    )
  arrays, aliases = _fill(lexicons, rendering, lists, encoder, keys, progress)
  if not arrays['count_EG'].any():
    raise ValueError(f'no target of the lexicons of {", ".join(lexicons)} can be spliced.')
  meta = {
    **record,
    'format': FORMAT,
    'languages': list(lexicons),
    'mode': rendering.mode,
    'max_words': int(arrays['words_E'].max()),
    'lexicons': {
      language: {
        'sha256': lexicon.sha256,
        'entries': len(lexicon.entries),
        'counts': dict(lexicon.counts),
        'unspliceable_targets': unspliceable[language],
      }
      for language, lexicon in lexicons.items()
    },
    'lemmas': aliases,
  }
  partial = f'{folder}.{os.getpid()}.partial'
  shutil.rmtree(partial, ignore_errors=True)
  os.makedirs(partial)
  for name, array in arrays.items():
    np.save(os.path.join(partial, f'{name}.npy'), array)
  with open(os.path.join(partial, _META), 'w', encoding='utf-8') as file:
    json.dump(meta, file, indent=1)
  try:
    os.rename(partial, folder)
  except OSError:
    shutil.rmtree(partial)
    if not os.path.exists(os.path.join(folder, _META)):
      raise  # else another process was faster, with the same content
  return LinkTable.open(folder)


def _fill(
  lexicons: Mapping[str, Lexicon],
  rendering: Rendering,
  lists: WordLists,
  encoder: Encoder,
  keys: Iterable[str],
  progress: bool,
) -> tuple[dict[str, np.ndarray], int]:
  """Returns the arrays, and how many words were found by their lemma."""
  languages = len(lexicons)
  names = dict.fromkeys(
    key for lexicon in lexicons.values() for key in (*lexicon.entries, *sorted(lexicon.identity_only))
    if ' ' not in key or (rendering.multi_word and key in lexicon.entries)
  )  # fmt: skip
  aliases = 0
  if rendering.lemmas:
    for key in keys:
      if key not in names and any(
        lemmas.targets_of(lexicon, key, rendering.lemmas)[1] for lexicon in lexicons.values()
      ):
        names[key] = None
        aliases += 1

  first_of: dict[tuple[int, str], int] = {}  # (language, key) → first target
  cumulative: list[float] = []
  starts: list[int] = []
  ids: list[int] = []
  encoded: dict[str, list[int]] = {}

  def place(g: int, language: str, lexicon: Lexicon, key: str) -> int:
    """Puts the targets of a key into the arrays, once."""
    if (g, key) not in first_of:
      first_of[g, key] = len(cumulative)
      cumulative.extend(senses.cumulative(lexicon, key))
      for target in lexicon.entries[key]:
        for piece in _renderings(target, language, rendering):
          if piece not in encoded:
            encoded[piece] = encoder.encode_piece(piece)
          starts.append(len(ids))
          ids.extend(encoded[piece])
    return first_of[g, key]

  begins = {key.partition(' ')[0] for key in names if ' ' in key}
  names.update(dict.fromkeys(sorted(begins - names.keys())))

  count = len(names)
  hash_E = np.full(count + 1, 2**64 - 1, np.uint64)
  words_E, flags_E = np.zeros(count + 1, np.uint32), np.zeros(count + 1, np.uint8)
  identity_EG = np.zeros((count + 1, languages), bool)
  first_EG = np.zeros((count + 1, languages), np.int64)
  count_EG = np.zeros((count + 1, languages), np.int32)
  sense_key_EG = np.zeros((count + 1, languages), np.uint64)
  pairs = np.zeros(1 << _PAIR_BITS, bool)
  bar = tqdm.tqdm(names, desc='link table', unit=' words', disable=None if progress else True,
                  delay=2, leave=False)  # fmt: skip
  for e, key in enumerate(bar):
    hash_E[e], pair = _hash(key)
    words_E[e] = key.count(' ') + 1
    if pair is not None:
      pairs[pair] = True
    for g, (language, lexicon) in enumerate(lexicons.items()):
      under, targets = lemmas.targets_of(lexicon, key, rendering.lemmas)
      identity_EG[e, g] = key in lexicon.identity_only
      if targets:
        first_EG[e, g] = place(g, language, lexicon, under)
        count_EG[e, g] = len(targets)
        sense_key_EG[e, g] = key_of(under)
    if count_EG[e].any():
      flags_E[e] = COVERED_ANY | COVERED
      flags_E[e] |= ELIGIBLE * lists.allows(rendering.regime, key) | STOP * lists.is_stop(key)
    elif identity_EG[e].any():
      flags_E[e] = COVERED_ANY
    flags_E[e] |= BEGINS * (key in begins)
  order = np.argsort(hash_E)  # the row of what is not found stays the last
  if len(np.unique(hash_E)) <= count:
    raise AssertionError('two sources have one 64-bit hash')
  arrays = {
    'hash_E': hash_E[order],
    'words_E': words_E[order],
    'flags_E': flags_E[order],
    'identity_EG': identity_EG[order],
    'first_EG': first_EG[order],
    'count_EG': count_EG[order],
    'sense_key_EG': sense_key_EG[order],
    'cumulative_K': np.array(cumulative),
    'start_KV': np.array([*starts, len(ids)], np.int64),
    'ids': np.array(ids, np.int32),
    'pairs': pairs,
    'bucket': _buckets(hash_E[order]),
  }
  return arrays, aliases


def _buckets(hash_E: np.ndarray) -> np.ndarray:
  """The first entry of each value of the top bits, so many that a search looks at one or two entries."""
  bits = max(10, int(np.ceil(np.log2(8 * len(hash_E)))))
  return np.searchsorted(hash_E[:-1], np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits))


def _renderings(target: str, language: str, rendering: Rendering) -> list[str]:
  """The pieces of text that a target can become, by variant."""
  cased = [
    casing.cased(target, case, language) if rendering.match_case else target for case in CASES
  ]
  if rendering.mode == 'annotate':
    return [f' ({text}' for text in cased for _ in range(2)]
  if casing.glues(language, rendering.mode, rendering.join):
    return [text for text in cased for _ in range(2)]
  return [piece for text in cased for piece in (text, f' {text}')]


def _hash(key: str) -> tuple[np.uint64, int | None]:
  """The hash of a source, and the place in `pairs` of its first two words if it has several."""
  parts = np.array([key_of(word) for word in key.split(' ')], np.uint64)
  hash_1, pair = parts[:1], None
  for n in range(1, len(parts)):
    hash_1 = extend_hash(hash_1, parts[n : n + 1])
    if n == 1:
      pair = int(pair_bit(hash_1)[0])
  return hash_1[0], pair
