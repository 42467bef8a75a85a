"""Tokenizers: text to ids and back, without loss and without TensorFlow.

A text is cut into chunks (`jaxlink.link.words.chunk`: a word with its leading space, or what lies
between), each chunk is encoded on its own, and encodings are remembered. So a word has the same
tokens wherever it stands, and replacing a word's tokens equals replacing the word and tokenising.

Two kinds, told apart by the file: SentencePiece BPE with byte fallback (`.model`) and byte-level
BPE (`.json`, of the `tokenizers` library). Both are trained by tools/train_tokenizer.py.

Easy to get wrong: text may spell a special token ("<s>"); it must be encoded as the letters it is.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jaxlink.link import words

MEMO_CHUNKS = 2_000_000  # remembered encodings; about 300 bytes each
MEMO_LENGTH = 64  # characters; a longer chunk is rare and not worth remembering

# The specials' ids follow SeqIO (padding 0, end 1); byte fallback leaves <unk> without a use.
PAD, EOS, BOS, UNK = 0, 1, 2, 3
SPECIALS = ['<pad>', '</s>', '<s>', '<unk>']


class Marked(NamedTuple):
  """A tokenised text and where its words are."""

  ids: np.ndarray  # int32 [T]
  words: np.ndarray  # int32 [N, 4]: first token, tokens (leading space included), flags, type
  types: list[str]  # casefold(NFC(word)) of each type, in order of first appearance


class _Model(Protocol):
  """What a library's tokenizer must offer."""

  size: int

  def encode(self, chunk: str) -> list[int]: ...
  def decode(self, ids: list[int]) -> str: ...


class _SentencePiece:
  def __init__(self, path: str):
    import sentencepiece

    self._processor = sentencepiece.SentencePieceProcessor(model_file=path)
    self.size = self._processor.vocab_size()
    # '▁' is SentencePiece's space, so the character itself goes by its bytes.
    self._lower_one_eighth = [self._processor.piece_to_id(f'<0x{b:02X}>') for b in '▁'.encode()]
    if self._processor.unk_id() in self._lower_one_eighth:
      raise ValueError(f'{path}: this SentencePiece model has no byte fallback, so it loses text.')
    found = [getattr(self._processor, f'{name}_id')() for name in ('pad', 'eos', 'bos', 'unk')]
    _check_specials(path, found)

  def encode(self, chunk: str) -> list[int]:
    if '▁' not in chunk:
      return self._processor.encode(chunk)
    ids = self._processor.encode(chunk.split('▁'))
    return functools.reduce(lambda left, right: left + self._lower_one_eighth + right, ids)

  def decode(self, ids: list[int]) -> str:
    return self._processor.decode(ids)


class _ByteLevel:
  def __init__(self, path: str):
    import tokenizers

    self._tokenizer = tokenizers.Tokenizer.from_file(path)
    self._tokenizer.encode_special_tokens = True
    self.size = self._tokenizer.get_vocab_size()
    _check_specials(path, [self._tokenizer.token_to_id(t) for t in SPECIALS])

  def encode(self, chunk: str) -> list[int]:
    return self._tokenizer.encode(chunk, add_special_tokens=False).ids

  def decode(self, ids: list[int]) -> str:
    return self._tokenizer.decode(ids, skip_special_tokens=True)


def _check_specials(path: str, found: list[int | None]) -> None:
  if found != [PAD, EOS, BOS, UNK]:
    raise ValueError(
      f'{path}: the ids of {", ".join(SPECIALS)} are {found}: they are {[PAD, EOS, BOS, UNK]} in a '
      'tokenizer of tools/train_tokenizer.py.'
    )


class Tokenizer:
  """Encodes by chunks; see the module's docstring.

  Attributes:
    path: the file it was loaded from.
    size: number of ids, specials included (unpadded V).
    sha256: of the file's bytes; it is in every cache and checkpoint.
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
    kinds = {'.model': _SentencePiece, '.json': _ByteLevel}
    suffix = os.path.splitext(self.path)[1]
    if suffix not in kinds:
      raise ValueError(f'{self.path}: a tokenizer is a .model (SentencePiece) or a .json file.')
    try:
      self._model: _Model = kinds[suffix](self.path)
    except ValueError:
      raise
    except Exception as error:  # `tokenizers` raises no class of its own
      raise ValueError(f'{self.path}: not a tokenizer file ({error}).') from error
    self.size = self._model.size
    # chunk: its ids, and `length | flags << 32 | type << 40` in one integer; type 0 is no word.
    self._memo: dict[str, tuple[list[int], int]] = {}
    self._types: dict[str, int] = {}
    self._keys: list[str] = []  # the same, by type - 1

  def __reduce__(self):
    return (Tokenizer, (self.path,))

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without BOS or EOS."""
    return list(itertools.chain.from_iterable(ids for ids, _ in self._entries(text)))

  def encode_marked(self, text: str) -> Marked:
    """Returns the ids of a text, the mark of each of its words, and its word types."""
    entries = self._entries(text)
    ids = np.fromiter(itertools.chain.from_iterable(ids for ids, _ in entries), np.int32)
    packed = np.fromiter((packed for _, packed in entries), np.int64, len(entries))
    length = packed & 0xFFFFFFFF
    start = np.cumsum(length) - length
    is_word = packed >> 40 > 0
    # Types in the order in which the text has them: what was encoded before must not matter.
    serials, first, inverse = np.unique(
      packed[is_word] >> 40, return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    type_ = np.argsort(order)[inverse]
    words_N4 = np.stack(
      [start[is_word], length[is_word], packed[is_word] >> 32 & 0xFF, type_], axis=1, dtype=np.int32,
      casting='unsafe',
    )  # fmt: skip
    return Marked(ids, words_N4, [self._keys[s - 1] for s in serials[order].tolist()])

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of ids; specials and padding are left out, bytes of no character become '�'."""
    return self._model.decode([i for i in map(int, ids) if UNK < i < self.size])

  def _entries(self, text: str) -> list[tuple[list[int], int]]:
    if len(self._types) >= MEMO_CHUNKS:
      self._memo.clear()
      self._types.clear()
      self._keys.clear()
    memo = self._memo
    return [memo.get(chunk) or self._look(chunk) for chunk in words.chunk(text)]

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
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(words.CHUNK_PATTERN), behavior='isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
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
