"""The cache on disk: a source's tokens and word marks in blocks that are read at random.

A cache is a folder: `manifest.json` and, for each shard, `tokens-*.array_record` and
`words-*.array_record`. A shard is a stream of documents, each `BOS tokens EOS`, cut into blocks of
`block` tokens (its last block may be shorter). Record i of either file belongs to block i:

  tokens record   counts (tokens, documents that start here) | their offsets | the tokens
  words record    counts (words, documents that start here) | key of the document that runs at the
                  block's start | how many of its words were before | keys of the documents that start
                  here | for each word the hash of its key | offsets of the documents | for each word:
                  offset, length, flags

So all that is known of a token range lies beside it: no table grows with the corpus. Words are
listed in the block of their first token. What a lexicon is asked for is a word's key, casefold(NFC(
word)): its 64-bit hash stands beside the word, and the keys themselves, with how often each occurs, in
the shard's `types-*.tsv`. The manifest is written last and the folder then renamed into place, so a
folder with this name is a whole cache.

Easy to get wrong: a fragment may start in the middle of a document; only `starts` says where a
document begins, for a foreign vocabulary may have no BOS of its own.
"""

import dataclasses
import functools
import json
import os
import resource
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module

from jaxlink.link.draws import key_of
from jaxlink.link.words import UNSPLICEABLE

FORMAT = 3  # raised when files of an older version can no longer be read
MANIFEST = 'manifest.json'


class Words(NamedTuple):
  """The words that start in a range of tokens, in order, and the documents that it is of."""

  start: np.ndarray  # int64: first token, counted from the range's start
  length: np.ndarray  # int64: tokens
  hash: np.ndarray  # uint64: of casefold(NFC(word))
  index: np.ndarray  # int64: the word's place in its document, from 0
  flags: np.ndarray  # uint8: those of jaxlink.link.words
  fragment: np.ndarray  # int64: the range's first token, and those at which documents start
  document: np.ndarray  # uint64: key of the document that each of them is of


@dataclasses.dataclass(frozen=True)
class Encoded:
  """One document as it goes into a shard; arrays over N words."""

  key: int  # 64 bits
  tokens: np.ndarray  # int32, without BOS and EOS
  words: np.ndarray  # int32 [N, 4]: start, length, flags, type (a line of `types`)
  types: list[str]


_WORD = np.dtype([('start', '<i8'), ('hash', '<u8'), ('length', '<u2'), ('flags', 'u1')])


class ShardWriter:
  """Writes one shard's files, block by block.

  Args:
    folder: where the files go; it exists.
    shard: index of this shard, in the files' names.
    block: tokens in a block.
    size: number of ids of the vocabulary; up to 65,536 they are stored in 16 bits.
    bos, eos: ids put around each document; None for a vocabulary that has no such id.
  """

  def __init__(
    self, folder: str, shard: int, *, block: int, size: int, bos: int | None, eos: int | None
  ):
    self._block = block
    self._dtype = np.dtype('<u2' if size <= 1 << 16 else '<u4')
    self._before = np.array([] if bos is None else [bos], self._dtype)
    self._after = np.array([] if eos is None else [eos], self._dtype)
    names = shard_files(shard)
    self._types_path = os.path.join(folder, names['types'])
    self._token_file = array_record_module.ArrayRecordWriter(
      os.path.join(folder, names['tokens']), 'group_size:1,uncompressed'
    )
    self._word_file = array_record_module.ArrayRecordWriter(
      os.path.join(folder, names['words']), 'group_size:1,snappy'
    )
    self._lines: dict[str, list[int]] = {}  # type: its hash, and how often it occurs
    # What has not filled a block yet.
    self._tokens: list[np.ndarray] = []
    self._held = 0
    self._starts: list[int] = []
    self._start_keys: list[int] = []
    self._words: list[np.ndarray] = []
    # Of the document that runs at the start of what is held.
    self._running_key, self._running_words = 0, 0
    self.counts = dict.fromkeys(
      ('documents', 'tokens', 'words', 'unspliceable_words', 'types', 'blocks'), 0
    )

  def add(self, document: Encoded) -> None:
    """Appends a document."""
    words = np.empty(len(document.words), _WORD)
    if len(words):
      start, length, flags, type_ = document.words.T
      words['start'] = start + self._held + len(self._before)
      words['length'], words['flags'] = length, flags
      lines = [self._lines.get(t) or self._line(t) for t in document.types]
      for line, times in zip(lines, np.bincount(type_, minlength=len(lines)).tolist(), strict=True):
        line[1] += times
      words['hash'] = np.array([line[0] for line in lines], np.uint64)[type_]
    self._starts.append(self._held)
    self._start_keys.append(document.key)
    self._words.append(words)
    tokens = np.concatenate([self._before, document.tokens.astype(self._dtype), self._after])
    self._tokens.append(tokens)
    self._held += len(tokens)
    self.counts['documents'] += 1
    self.counts['words'] += len(words)
    self.counts['unspliceable_words'] += int(np.count_nonzero(words['flags'] & UNSPLICEABLE))
    if self._held >= self._block:
      self._flush(whole=False)

  def close(self) -> dict[str, int]:
    """Writes what is left and returns the shard's counts."""
    self._flush(whole=True)
    self._token_file.close()
    self._word_file.close()
    with open(self._types_path, 'w', encoding='utf-8', newline='\n') as file:
      file.writelines(f'{times}\t{key}\n' for key, (_, times) in self._lines.items())
    self.counts['types'] = len(self._lines)
    return self.counts

  def _line(self, key: str) -> list[int]:
    self._lines[key] = [key_of(key), 0]
    return self._lines[key]

  def _flush(self, whole: bool) -> None:
    tokens = np.concatenate(self._tokens) if self._tokens else np.empty(0, self._dtype)
    words = np.concatenate(self._words) if self._words else np.empty(0, _WORD)
    starts = np.array(self._starts, np.int64)
    keys = np.array(self._start_keys, np.uint64)
    end = len(tokens) if whole else len(tokens) // self._block * self._block
    for first in range(0, end, self._block):
      last = min(first + self._block, end)
      docs = slice(*np.searchsorted(starts, (first, last)))
      here = slice(*np.searchsorted(words['start'], (first, last)))
      self._write(tokens[first:last], starts[docs] - first, keys[docs], words[here], first)
      if docs.stop > docs.start:
        self._running_key, self._running_words = int(keys[docs.stop - 1]), 0
        here = slice(np.searchsorted(words['start'], starts[docs.stop - 1]), here.stop)
      self._running_words += here.stop - here.start
      self.counts['blocks'] += 1
    self.counts['tokens'] += end
    rest = words[np.searchsorted(words['start'], end) :].copy()
    rest['start'] -= end
    later = np.searchsorted(starts, end)
    self._tokens, self._held = [tokens[end:]], len(tokens) - end
    self._starts, self._start_keys = (starts[later:] - end).tolist(), keys[later:].tolist()
    self._words = [rest]

  def _write(
    self, tokens: np.ndarray, starts: np.ndarray, keys: np.ndarray, words: np.ndarray, first: int
  ) -> None:
    self._token_file.write(
      np.array([len(tokens), len(starts)], '<u4').tobytes()
      + starts.astype('<u4').tobytes()
      + tokens.tobytes()
    )
    self._word_file.write(
      np.array([len(words), len(starts)], '<u4').tobytes()
      + np.array([self._running_key, self._running_words], '<u8').tobytes()
      + keys.astype('<u8').tobytes()
      + words['hash'].tobytes()
      + starts.astype('<u4').tobytes()
      + (words['start'] - first).astype('<u4').tobytes()
      + words['length'].tobytes()
      + words['flags'].tobytes()
    )


def shard_files(shard: int) -> dict[str, str]:
  """Returns the names of a shard's files."""
  return {
    'tokens': f'tokens-{shard:05d}.array_record',
    'words': f'words-{shard:05d}.array_record',
    'types': f'types-{shard:05d}.tsv',
  }


class Blocks:
  """A cache opened for reading; it can be pickled, and each process opens its own files.

  Attributes:
    name: the task it was made from.
    tokens: U, the number of tokens, BOS and EOS included.
    fingerprint: hash of all that determined the cache's content.
    manifest: what else was recorded: counts, dose, tokenizer.
  """

  def __init__(self, folder: str):
    self.folder = os.fspath(folder)
    path = os.path.join(self.folder, MANIFEST)
    try:
      with open(path, encoding='utf-8') as file:
        self.manifest: dict[str, Any] = json.load(file)
    except FileNotFoundError:
      raise FileNotFoundError(f'{self.folder} is no cache: it has no {MANIFEST}.') from None
    if self.manifest['format'] != FORMAT:
      raise ValueError(
        f'{self.folder} has cache format {self.manifest["format"]}, this version reads {FORMAT}.'
      )
    self.name: str = self.manifest['task']
    self.fingerprint: str = self.manifest['fingerprint']
    self.block: int = self.manifest['block']
    self._dtype = np.dtype('<u2' if self.manifest['tokenizer']['size'] <= 1 << 16 else '<u4')
    self._ends = np.cumsum([s['tokens'] for s in self.manifest['shards']])
    self.tokens = int(self._ends[-1]) if len(self._ends) else 0
    if not self.tokens:
      raise ValueError(f'{self.folder}: the cache of {self.name} holds no tokens.')

  def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads tokens of the endless repetition of the source.

    Args:
      start: first token; it may exceed the source's tokens.
      length: how many.

    Returns:
      tokens_N int32, and starts_N bool: whether a document begins there.
    """
    tokens = np.empty(length, np.int32)
    starts = np.zeros(length, bool)
    for shard, block, offset, filled in self._spans(start, length):
      ids, documents = self.read_block(shard, block)
      take = min(len(ids) - offset, length - filled)
      tokens[filled : filled + take] = ids[offset : offset + take]
      here = documents.astype(np.int64) - offset
      starts[filled + here[(here >= 0) & (here < take)]] = True
    return tokens, starts

  def read_words(self, start: int, length: int) -> Words:
    """Returns the words that start in a range of tokens; arguments as those of `read`.

    The last one may run over its end.
    """
    parts = []
    for shard, block, offset, filled in self._spans(start, length):
      words, runs_on = self._part_words(shard, block, offset, offset + length - filled)
      move = filled - offset
      words = words._replace(start=words.start + move, fragment=words.fragment + move)
      if parts and runs_on:  # the same document as before
        words = words._replace(fragment=words.fragment[1:], document=words.document[1:])
      parts.append(words)
    return parts[0] if len(parts) == 1 else Words(*map(np.concatenate, zip(*parts, strict=True)))

  def read_block(self, shard: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a block's token ids and the offsets at which documents start."""
    record = self._record('tokens', shard, block)
    count, documents = np.frombuffer(record, '<u4', 2)
    starts = np.frombuffer(record, '<u4', documents, 8)
    return np.frombuffer(record, self._dtype, count, 8 + 4 * int(documents)), starts

  def read_block_words(self, shard: int, block: int) -> Words:
    """Returns the words that start in a block, counted from its first token."""
    return self._part_words(shard, block, 0, self.block)[0]

  def _part_words(self, shard: int, block: int, begin: int, end: int) -> tuple[Words, bool]:
    """The words that start in a part of a block, and whether a document from before runs at its start."""
    record = self._record('words', shard, block)
    count, documents = np.frombuffer(record, '<u4', 2).tolist()
    running = np.frombuffer(record, '<u8', 2, 8)
    columns = []
    at = 24
    for dtype, size in (
      ('<u8', documents), ('<u8', count), ('<u4', documents), ('<u4', count), ('<u2', count),
      ('u1', count),
    ):  # fmt: skip
      columns.append(np.frombuffer(record, dtype, size, at))
      at += size * np.dtype(dtype).itemsize
    keys, hash_, starts, offset, length, flags = columns
    low, high = offset.searchsorted((begin, end)).tolist()
    index = np.arange(low, high) + int(running[1])
    for first in offset.searchsorted(starts).tolist():
      if first < high:  # this document's words, until the next one begins
        here = max(0, first - low)
        index[here:] = np.arange(low + here - first, high - first)
    first, last = starts.searchsorted((begin, end)).tolist()
    fragment, document = starts[first:last].astype(np.int64), keys[first:last]
    runs_on = not (first < last and fragment[0] == begin)
    if runs_on:
      fragment = np.append(begin, fragment)
      document = np.append(keys[first - 1] if first else running[0], document)
    here = slice(low, high)
    return Words(
      offset[here].astype(np.int64), length[here].astype(np.int64), hash_[here], index, flags[here],
      fragment, document,
    ), runs_on  # fmt: skip

  def read_types(self, shard: int) -> dict[str, int]:
    """Returns a shard's word types, casefold(NFC(word)), and how often each occurs."""
    with open(os.path.join(self.folder, shard_files(shard)['types']), encoding='utf-8') as file:
      lines = (line.split('\t') for line in file.read().split('\n')[:-1])
      return {key: int(times) for times, key in lines}

  def _spans(self, start: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """The parts of blocks that make up a range: shard, block, offset in it, tokens before it."""
    filled = 0
    position = start % self.tokens
    while filled < length:
      shard = int(np.searchsorted(self._ends, position, side='right'))
      first = int(self._ends[shard - 1]) if shard else 0
      block, offset = divmod(position - first, self.block)
      yield shard, block, offset, filled
      end = min(first + (block + 1) * self.block, int(self._ends[shard]))
      filled += end - position
      position = end % self.tokens

  def _record(self, kind: str, shard: int, block: int) -> bytes:
    name = shard_files(shard)[kind]
    reader, lock = _open_file(self, name)
    with lock:
      try:
        reader.seek(block)
        return reader.read()
      except Exception as error:
        _open_file.cache_clear()  # a reader that failed once fails at every block
        error.add_note(f'in block {block} of {os.path.join(self.folder, name)}')
        raise


def _most_open_files() -> int:
  """How many files of caches a process holds open: half of what it may, for it opens others too."""
  soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
  return 2048 if soft == resource.RLIM_INFINITY else max(16, min(2048, soft // 2))


@functools.lru_cache(maxsize=_most_open_files())
def _open_file(
  blocks: Blocks, name: str
) -> tuple[array_record_module.ArrayRecordReader, threading.Lock]:
  """A file of a cache, and who may move in it; those that were read longest ago are closed.

  One block is had by seeking. `read([block])` of array_record 0.8 walks over an index of the whole file
  (0.2 ms of a shard of 100,000 blocks), and without `max_parallelism` a seek reads ahead in threads.
  """
  reader = array_record_module.ArrayRecordReader(
    os.path.join(blocks.folder, name), 'readahead_buffer_size:0,max_parallelism:1'
  )
  return reader, threading.Lock()
