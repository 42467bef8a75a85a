"""The cache on disk: a source's tokens and word marks in blocks that are read at random.

A cache is a folder: `manifest.json` and, for each shard, `tokens-*.array_record` and
`words-*.array_record`. A shard is a stream of documents, each `BOS tokens EOS`, cut into blocks of
`block` tokens (its last block may be shorter). Record i of either file belongs to block i:

  tokens record   counts (tokens, documents that start here) | their offsets | the tokens
  words record    counts (words, documents that start here) | key of the document that runs at the
                  block's start | offsets and keys of the documents that start here | for each word:
                  offset, type, index in its document, length, flags

So all that is known of a token range lies beside it: no table grows with the corpus. Words are
listed in the block of their first token. A word's type is a line of the shard's `types-*.txt`:
casefold(NFC(word)), what a lexicon is asked for. The manifest is written last and the folder then
renamed into place, so a folder with this name is a whole cache.

Easy to get wrong: a fragment may start in the middle of a document; only `starts` says where a
document begins, for a foreign vocabulary may have no BOS of its own.
"""

import dataclasses
import json
import os
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module

FORMAT = 1  # raised when files of an older version can no longer be read
MANIFEST = 'manifest.json'


class Words(NamedTuple):
  """The words that start in one block, in order; arrays over N words."""

  offset: np.ndarray  # int32: first token, counted from the block's start
  type: np.ndarray  # int32: line of the shard's list of types
  index: np.ndarray  # int32: the word's place in its document, from 0
  document: np.ndarray  # uint64: key of its document
  length: np.ndarray  # uint16: tokens
  flags: np.ndarray  # uint8: jaxlink.link.words.LEADING_SPACE | TITLE | UPPER


@dataclasses.dataclass(frozen=True)
class Encoded:
  """One document as it goes into a shard; arrays over N words."""

  key: int  # 64 bits
  tokens: np.ndarray  # int32, without BOS and EOS
  words: np.ndarray  # int32 [N, 4]: start, length, flags, type (a line of `types`)
  types: list[str]


class ShardWriter:
  """Writes one shard's files, block by block.

  Args:
    folder: where the files go; it exists.
    shard: index of this shard, in the files' names.
    block: tokens in a block.
    size: number of ids of the vocabulary; up to 65,536 they are stored in 16 bits.
    bos, eos: ids put around each document.
  """

  def __init__(self, folder: str, shard: int, *, block: int, size: int, bos: int, eos: int):
    self._block, self._bos, self._eos = block, bos, eos
    self._dtype = np.dtype('<u2' if size <= 1 << 16 else '<u4')
    names = shard_files(shard)
    self._types_path = os.path.join(folder, names['types'])
    self._token_file = array_record_module.ArrayRecordWriter(
      os.path.join(folder, names['tokens']), 'group_size:1'
    )
    self._word_file = array_record_module.ArrayRecordWriter(
      os.path.join(folder, names['words']), 'group_size:1'
    )
    self._types: dict[str, int] = {}
    # What has not filled a block yet.
    self._tokens: list[np.ndarray] = []
    self._held = 0
    self._starts: list[int] = []
    self._start_keys: list[int] = []
    self._words: list[np.ndarray] = []  # [N, 5]: offset, type, index, length, flags
    self._running_key = 0
    self.counts = {'documents': 0, 'tokens': 0, 'words': 0, 'types': 0, 'blocks': 0}

  def add(self, document: Encoded) -> None:
    """Appends a document."""
    count = len(document.words)
    lines = np.array(
      [self._types.setdefault(t, len(self._types)) for t in document.types], np.int32
    )
    words = np.empty((count, 5), np.int64)
    if count:
      start, length, flags, type_ = document.words.T
      words[:, 0] = start + self._held + 1
      words[:, 1] = lines[type_]
      words[:, 2] = np.arange(count)
      words[:, 3] = length
      words[:, 4] = flags
      if length.max() >= 1 << 16:
        raise ValueError(f'A word of {length.max():,} tokens: at most 65,535 can be marked.')
    self._starts.append(self._held)
    self._start_keys.append(document.key)
    self._words.append(words)
    tokens = np.empty(len(document.tokens) + 2, self._dtype)
    tokens[0], tokens[1:-1], tokens[-1] = self._bos, document.tokens, self._eos
    self._tokens.append(tokens)
    self._held += len(tokens)
    self.counts['documents'] += 1
    self.counts['words'] += count
    if self._held >= self._block:
      self._flush(whole=False)

  def close(self) -> dict[str, int]:
    """Writes what is left and returns the shard's counts."""
    self._flush(whole=True)
    self._token_file.close()
    self._word_file.close()
    with open(self._types_path, 'w', encoding='utf-8', newline='\n') as file:
      file.writelines(t + '\n' for t in self._types)
    self.counts['types'] = len(self._types)
    return self.counts

  def _flush(self, whole: bool) -> None:
    tokens = np.concatenate(self._tokens) if self._tokens else np.empty(0, self._dtype)
    words = np.concatenate(self._words) if self._words else np.empty((0, 5), np.int64)
    starts = np.array(self._starts, np.int64)
    keys = np.array(self._start_keys, np.uint64)
    end = len(tokens) if whole else len(tokens) // self._block * self._block
    for first in range(0, end, self._block):
      last = min(first + self._block, end)
      docs = slice(*np.searchsorted(starts, (first, last)))
      here = slice(*np.searchsorted(words[:, 0], (first, last)))
      self._write(tokens[first:last], starts[docs] - first, keys[docs], words[here], first)
      if docs.stop > docs.start:
        self._running_key = int(keys[docs.stop - 1])
      self.counts['blocks'] += 1
    self.counts['tokens'] += end
    rest = words[np.searchsorted(words[:, 0], end) :]
    rest[:, 0] -= end
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
      + np.array([self._running_key], '<u8').tobytes()
      + starts.astype('<u4').tobytes()
      + keys.astype('<u8').tobytes()
      + (words[:, 0] - first).astype('<u4').tobytes()
      + words[:, 1].astype('<u4').tobytes()
      + words[:, 2].astype('<u4').tobytes()
      + words[:, 3].astype('<u2').tobytes()
      + words[:, 4].astype('u1').tobytes()
    )


def shard_files(shard: int) -> dict[str, str]:
  """Returns the names of a shard's files."""
  return {
    'tokens': f'tokens-{shard:05d}.array_record',
    'words': f'words-{shard:05d}.array_record',
    'types': f'types-{shard:05d}.txt',
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
    self._readers: dict[str, array_record_module.ArrayRecordReader] = {}

  def __getstate__(self):
    return {**self.__dict__, '_readers': {}}

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
    filled = 0
    position = start % self.tokens
    while filled < length:
      shard = int(np.searchsorted(self._ends, position, side='right'))
      shard_start = int(self._ends[shard - 1]) if shard else 0
      block, offset = divmod(position - shard_start, self.block)
      ids, documents = self.read_block(shard, block)
      take = min(len(ids) - offset, length - filled)
      tokens[filled : filled + take] = ids[offset : offset + take]
      here = documents.astype(np.int64) - offset
      starts[filled + here[(here >= 0) & (here < take)]] = True
      filled += take
      position = (position + take) % self.tokens
    return tokens, starts

  def read_block(self, shard: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a block's token ids and the offsets at which documents start."""
    record = self._record('tokens', shard, block)
    count, documents = np.frombuffer(record, '<u4', 2)
    starts = np.frombuffer(record, '<u4', documents, 8)
    return np.frombuffer(record, self._dtype, count, 8 + 4 * int(documents)), starts

  def read_words(self, shard: int, block: int) -> Words:
    """Returns the words that start in a block."""
    record = self._record('words', shard, block)
    count, documents = (int(n) for n in np.frombuffer(record, '<u4', 2))
    running = np.frombuffer(record, '<u8', 1, 8)
    columns = []
    at = 16
    for dtype, size in (
      ('<u4', documents), ('<u8', documents),
      ('<u4', count), ('<u4', count), ('<u4', count), ('<u2', count), ('u1', count),
    ):  # fmt: skip
      columns.append(np.frombuffer(record, dtype, size, at))
      at += size * np.dtype(dtype).itemsize
    starts, keys, offset, type_, index, length, flags = columns
    document = np.concatenate([running, keys])[np.searchsorted(starts, offset, side='right')]
    return Words(
      offset.astype(np.int32), type_.astype(np.int32), index.astype(np.int32),
      document.astype(np.uint64), length, flags,
    )  # fmt: skip

  def read_types(self, shard: int) -> list[str]:
    """Returns a shard's word types: casefold(NFC(word)) by line."""
    with open(os.path.join(self.folder, shard_files(shard)['types']), encoding='utf-8') as file:
      return file.read().split('\n')[:-1]

  def _record(self, kind: str, shard: int, block: int) -> bytes:
    name = shard_files(shard)[kind]
    if name not in self._readers:
      self._readers[name] = array_record_module.ArrayRecordReader(
        os.path.join(self.folder, name), 'readahead_buffer_size:0'
      )
    return self._readers[name].read([block])[0]
