"""Tokenizers: text to ids and back, with the place of every word, without TensorFlow.

*Ours* (`native`) are lossless and encode by chunks: a text is cut into chunks
(`jaxlink.link.words.chunk`: a word with its leading space, or what lies between), each chunk is
encoded on its own, and encodings are remembered. So a word has the same tokens wherever it stands,
and replacing a word's tokens equals replacing the word and tokenising. They are SentencePiece BPE
with byte fallback (`.model`) or byte-level BPE (`.json`), trained by tools/train_tokenizer.py.

A byte vocabulary (a `.json` of `tokenizer_files.Bytes`) is native too: it has no model to train.

*Foreign* ones (any SentencePiece model; any `tokenizer.json` with BPE or unigram) encode a text in
whole, as they were trained to. A word whose tokens depend on what stands beside it is marked
UNSPLICEABLE, to be left alone (`jaxlink.data.foreign`).

Easy to get wrong: a foreign normaliser changes the text before its words are marked. Substitution
is done on `normalize(text)`, whose marks are those of the text.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlink.data import foreign, tokenizer_files
from jaxlink.data.tokenizer_files import BOS, EOS, PAD, SPECIALS, UNK
from jaxlink.link import words

MEMO_CHUNKS = 2_000_000  # remembered encodings; about 300 bytes each
MEMO_LENGTH = 64  # characters; a longer chunk is rare and not worth remembering
LONGEST_WORD = 0xFFFF  # tokens: what a cache has room for

# What a normaliser makes of it, and what decoding leaves, tell whether a file keeps every text.
_TRIAL = ' ﬁ  Å e\u0301\t½\n\n 猫\u200d👩\U0010fffe "x" \'s , . '


class Marked(NamedTuple):
  """A tokenised text and where its words are."""

  ids: np.ndarray  # int32 [T]
  words: np.ndarray  # int32 [N, 4]: first token, tokens (leading space included), flags, type
  types: list[str]  # casefold(NFC(word)) of each type, in order of first appearance


class Tokenizer:
  """Encodes and marks; see the module's docstring.

  Attributes:
    path: the file it was loaded from.
    size: number of ids, specials included (unpadded V).
    sha256: of the file's bytes; it is in every cache and checkpoint.
    native: whether it is one of ours, which encodes by chunks: no word is unspliceable for what
      stands beside it.
    eos_id: ends a text.
    bos_id: begins a text; None where the vocabulary has no such token.
    pad_id: fills a row; the end of a text where the vocabulary has no token for it.
    pads: whether the vocabulary has a token for padding alone.
    unk_id: stands for what the vocabulary can't spell; None where it spells everything.
  """

  def __init__(self, path: str):
    self.path = os.fspath(path)
    try:
      with open(self.path, 'rb') as file:
        self.sha256 = hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
      raise FileNotFoundError(
        f'No tokenizer {self.path!r}. tools/train_tokenizer.py trains one.'
      ) from None
    kinds = {'.model': tokenizer_files.SentencePiece, '.json': tokenizer_files.open_json}
    suffix = os.path.splitext(self.path)[1]
    if suffix not in kinds:
      raise ValueError(f'{self.path}: a tokenizer is a .model (SentencePiece) or a .json file.')
    try:
      self._model: tokenizer_files.Model = kinds[suffix](self.path)
    except tokenizer_files.UnsupportedError:
      raise
    except Exception as error:  # `tokenizers` raises no class of its own
      raise ValueError(f'{self.path}: not a tokenizer file ({error}).') from error
    self.size, self.native = self._model.size, self._model.native
    roles = self._model.roles
    self.eos_id, self.bos_id, self.unk_id = roles.eos, roles.bos, roles.unk
    self.pad_id = roles.eos if roles.pad is None else roles.pad
    self.pads = roles.pad is not None
    # chunk: its ids, and `length | flags << 32 | type << 40` in one integer; type 0 is no word.
    self._memo: dict[str, tuple[list[int], int]] = {}
    self._types: dict[str, int] = {}
    self._keys: list[str] = []  # the same, by type - 1

  def __reduce__(self):
    return (Tokenizer, (self.path,))

  @functools.cached_property
  def lossless(self) -> bool:
    """Whether decoding gives every text back, but for SentencePiece's own '▁'; found by trial."""
    return self.normalize(_TRIAL) == _TRIAL and self.decode(self.encode(_TRIAL)) == _TRIAL

  def normalize(self, text: str) -> str:
    """Returns what the tokenizer makes of a text before it cuts it; the text itself if native.

    The normaliser is applied until it changes nothing more, so that a text that is built of
    normalised parts is encoded as it stands.

    Raises:
      ValueError: it does not settle.
    """
    if self.native:
      return text
    for _ in range(8):
      before, text = text, self._model.normalize(text)
      if text == before:
        return text
    raise ValueError(f'{self.path}: its normaliser still changes {text[:80]!r} after 8 rounds.')

  def encode(self, text: str, cuts: Sequence[int] = ()) -> list[int]:
    """Returns the ids of a text, without BOS or EOS; `cuts` as in `encode_marked`."""
    if self.native:
      return list(itertools.chain.from_iterable(ids for ids, _ in self._entries(text, cuts)))
    parts = enumerate(self._foreign_parts(text, cuts))
    encoded = (self._model.encode(part, start=i == 0) for i, part in parts)
    return list(itertools.chain.from_iterable(encoded))

  def encode_marked(self, text: str, cuts: Sequence[int] = ()) -> Marked:
    """Returns the ids of a text, the mark of each of its words, and its word types.

    A word of more than 65,535 tokens is UNSPLICEABLE, and its mark has 65,535.
    With a foreign tokenizer: the ids are those of its library for the text in whole; the words are
    those of `normalize(text)`; a token that belongs to two words is the first one's, so that a mark
    may have no tokens; the first word of a text is UNSPLICEABLE where the tokenizer puts a space
    before it that is not in the text.

    Args:
      text: the text.
      cuts: ascending positions, in characters, at which the text is cut in addition: each part is
        encoded by itself, so that no word spans a cut. (A foreign tokenizer encodes the parts after
        the first as they go in the middle of a text.)

    Raises:
      ValueError: a cut lies outside the text, or before the one that it follows; there are cuts and
        the text is not as `normalize` leaves it.
    """
    if not self.native:
      return self._encode_in_context(text, cuts)
    entries = self._entries(text, cuts)
    ids = np.fromiter(itertools.chain.from_iterable(ids for ids, _ in entries), np.int32)
    packed = np.fromiter((packed for _, packed in entries), np.int64, len(entries))
    length = packed & 0xFFFFFFFF
    start = np.cumsum(length) - length
    is_word = packed >> 40 > 0
    return self._marked(ids, start[is_word], length[is_word], packed[is_word])

  def encode_piece(self, text: str) -> list[int]:
    """Returns the ids of a piece such as " hund" as it goes in the middle of a text."""
    return self.encode(text) if self.native else self._model.encode(text)

  def splices(self, piece: str) -> bool:
    """Tells whether a piece has the ids of `encode_piece` wherever it takes a spliceable word's place.

    A piece that begins with a space takes the place of a word that has one. Not covered, for a
    foreign tokenizer: a piece that touches a letter or another piece without a space between.
    """
    return self.native or self._context.splices(piece)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of ids; specials and padding are left out.

    Bytes of no character become '�'; with a byte vocabulary they are left out.
    """
    special, size = self._model.special, self.size
    return self._model.decode([i for i in map(int, ids) if 0 <= i < size and i not in special])

  def decode_piece(self, ids: Sequence[int]) -> str:
    """Returns the text of ids in the middle of a text; where they begin one, a space may be lost."""
    if self.native:
      return self.decode(ids)
    before = self.encode_piece('x')
    return self.decode([*before, *ids])[len(self.decode(before)) :]

  @functools.cached_property
  def _context(self) -> foreign.Context:
    return foreign.Context(self._model)

  def _encode_in_context(self, text: str, cuts: Sequence[int]) -> Marked:
    self._bound_memory()
    all_ids, all_first, all_length, all_packed, taken = [], [], [], [], 0
    for i, part in enumerate(self._foreign_parts(text, cuts)):
      ids = np.array(self._model.encode(part, start=i == 0), np.int32)
      spans = [(a - (part[a - 1 : a] == ' '), b) for a, b in words.find_words(part)]
      entries = [self._memo.get(part[a:b]) or self._look(part[a:b]) for a, b in spans]
      chunks_N2 = np.array(spans, np.int64).reshape(-1, 2)
      first, length, spliceable = self._context.locate(
        part, ids, chunks_N2, [alone for alone, _ in entries], start=i == 0
      )
      packed = np.fromiter((packed for _, packed in entries), np.int64, len(entries))
      all_ids.append(ids)
      all_first.append(first + taken)
      all_length.append(length)
      all_packed.append(np.where(spliceable, packed, packed | words.UNSPLICEABLE << 32))
      taken += len(ids)
    return self._marked(*map(np.concatenate, (all_ids, all_first, all_length, all_packed)))

  def _foreign_parts(self, text: str, cuts: Sequence[int]) -> list[str]:
    normalized = self.normalize(text)
    if not len(cuts):
      return [normalized]
    if normalized != text:
      raise ValueError(
        f'cuts are positions in a normalised text, and {text[:80]!r} is none: '
        'apply Tokenizer.normalize first.'
      )
    return _parts(text, cuts)

  def _marked(
    self, ids: np.ndarray, start: np.ndarray, length: np.ndarray, packed: np.ndarray
  ) -> Marked:
    # Types in the order in which the text has them: what was encoded before must not matter.
    serials, first, inverse = np.unique(packed >> 40, return_index=True, return_inverse=True)
    order = np.argsort(first)
    type_ = np.argsort(order)[inverse]
    flags = packed >> 32 & 0xFF
    if length.max(initial=0) > LONGEST_WORD:
      flags = np.where(length > LONGEST_WORD, flags | words.UNSPLICEABLE, flags)
      length = np.minimum(length, LONGEST_WORD)
    words_N4 = np.stack(
      [start, length, flags, type_], axis=1, dtype=np.int32,
      casting='unsafe',
    )  # fmt: skip
    return Marked(ids, words_N4, [self._keys[s - 1] for s in serials[order].tolist()])

  def _entries(self, text: str, cuts: Sequence[int]) -> list[tuple[list[int], int]]:
    self._bound_memory()
    memo = self._memo
    if not len(cuts):
      return [memo.get(chunk) or self._look(chunk) for chunk in words.chunk(text)]
    chunks = itertools.chain.from_iterable(words.chunk(part) for part in _parts(text, cuts))
    return [memo.get(chunk) or self._look(chunk) for chunk in chunks]

  def _bound_memory(self) -> None:
    if len(self._types) >= MEMO_CHUNKS:
      self._memo.clear()
      self._types.clear()
      self._keys.clear()

  def _look(self, chunk: str) -> tuple[list[int], int]:
    ids = self._model.encode(chunk)
    packed = len(ids)
    word = chunk.removeprefix(' ')
    if word and words.is_word(word):
      flags = words.case_class(word) | (words.LEADING_SPACE if word != chunk else 0)
      key = words.key(word)
      serial = self._types.setdefault(key, len(self._types) + 1)
      if serial > len(self._keys):
        self._keys.append(key)
      packed |= flags << 32 | serial << 40
    if len(chunk) <= MEMO_LENGTH and len(self._memo) < MEMO_CHUNKS:
      self._memo[chunk] = ids, packed
    return ids, packed


def _parts(text: str, cuts: Sequence[int]) -> list[str]:
  edges = [0, *cuts, len(text)]
  if any(start > end for start, end in itertools.pairwise(edges)):
    raise ValueError(
      f'cuts is {list(cuts)} for a text of {len(text)} characters: they ascend, from 0 to its length.'
    )
  return [text[start:end] for start, end in itertools.pairwise(edges)]


def padded_size(size: int, multiple: int = 128) -> int:
  """Returns V padded to a multiple that any mesh and any accelerator's lanes divide."""
  return -(-size // multiple) * multiple


def train_sentencepiece(texts: Sequence[str], size: int, path: str) -> None:
  """Trains a lossless SentencePiece BPE model of `size` ids and writes it to `path`."""
  import sentencepiece

  with open(path, 'wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=file,
      model_type='bpe',
      vocab_size=size,
      byte_fallback=True,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      add_dummy_prefix=False,
      split_digits=True,
      character_coverage=0.9999,
      max_sentence_length=1 << 20,
      user_defined_symbols=['\n', '\t'],
      pad_id=PAD,
      eos_id=EOS,
      bos_id=BOS,
      unk_id=UNK,
      num_threads=os.cpu_count(),
      minloglevel=2,
    )


def train_byte_level(texts: Sequence[str], size: int, path: str) -> None:
  """Trains a byte-level BPE of `size` ids with the same chunks as pre-tokenizer; writes `path`."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers, trainers

  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = tokenizer_files.native_pre_tokenizer()
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    special_tokens=SPECIALS,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  if tokenizer.get_vocab_size() < size:
    raise ValueError(
      f'The text supports {tokenizer.get_vocab_size():,} tokens, not the {size:,} asked for.'
    )
  tokenizer.save(path)
