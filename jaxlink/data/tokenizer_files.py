"""Tokenizer files as their libraries read them: one face for SentencePiece and `tokenizers`.

Told apart by the suffix: `.model` (SentencePiece, unigram or BPE) and `.json` (of the
`tokenizers` library: BPE or unigram). Either may be one of ours, trained by
tools/train_tokenizer.py (`native`), or foreign: Llama's, GPT-2's, T5's. A `.json` whose 'type' is
'bytes' has no model: every byte is a token, as in ByT5.

A foreign file may change a text (its normaliser) and may add a space at its start. Both are taken
out of the way here, so that a text is encoded as it stands: `normalize` is asked for apart, and
`encode` adds no space unless it is told that the text starts there.

Easy to get wrong: a normaliser that strips spaces must not do so in the middle of a text, where
" hund" and "hund" are two things.
"""

import functools
import json
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxlink.link import words

# Ours follow SeqIO (padding 0, end 1); byte fallback leaves <unk> without a use.
PAD, EOS, BOS, UNK = 0, 1, 2, 3
SPECIALS = ['<pad>', '</s>', '<s>', '<unk>']

# A `tokenizer.json` does not say what its special tokens are for: they go by their names.
_NAMES = {
  'pad': ['<pad>', '[PAD]', '<|pad|>', '<|padding|>', '<|finetune_right_pad_id|>'],
  'eos': ['</s>', '<|endoftext|>', '<|end_of_text|>', '<eos>', '<|eos|>', '[EOS]', '[SEP]'],
  'bos': ['<s>', '<|begin_of_text|>', '<bos>', '<|bos|>', '<|startoftext|>', '[BOS]', '[CLS]'],
  'unk': ['<unk>', '[UNK]', '<|unk|>'],
}


BYTES = 'bytes'  # 'type' of a file of `Bytes`


class UnsupportedError(ValueError):
  """A tokenizer file that is well formed, of a kind that is not supported."""


class Roles(NamedTuple):
  """Ids of the special tokens, None for what a vocabulary has not."""

  pad: int | None
  eos: int | None
  bos: int | None
  unk: int | None


class Model(Protocol):
  """What a tokenizer file offers.

  Attributes:
    size: number of ids.
    native: whether the file was trained by `jaxlink.data.tokenizer`.
    roles: the special tokens; `eos` is never None.
    special: ids that stand for no text.
    texts: the bytes of text that each id stands for; b'' where that depends on the text (unknown).
  """

  size: int
  native: bool
  roles: Roles
  special: frozenset[int]

  @property
  def texts(self) -> list[bytes]: ...
  def normalize(self, text: str) -> str: ...
  def encode(self, text: str, *, start: bool = False) -> list[int]: ...
  def unknown(self, text: str, ids: np.ndarray, *, start: bool) -> list[str]: ...
  def second_best(self, text: str) -> float | None: ...
  def decode(self, ids: list[int]) -> str: ...


class SentencePiece:
  """A `.model` file. Its '▁' is read as the space that it stands for."""

  def __init__(self, path: str):
    import sentencepiece

    as_trained = sentencepiece.SentencePieceProcessor(model_file=path)
    self.size = as_trained.vocab_size()
    self._as_trained = as_trained
    self._prefix = as_trained.normalize('a').startswith('▁')
    if as_trained.normalize('a').endswith('▁'):
      raise UnsupportedError(f'{path}: a model with spaces at the end of words is not supported.')
    self._processor = sentencepiece.SentencePieceProcessor(model_file=path)
    self._processor.override_normalizer_spec(add_dummy_prefix=False, remove_extra_whitespaces=False)

    found = [getattr(as_trained, f'{name}_id')() for name in Roles._fields]
    self.roles = Roles(*(None if id_ < 0 else id_ for id_ in found))
    if self.roles.eos is None:
      raise UnsupportedError(f'{path}: no token of this model ends a text (its eos_id is -1).')
    self.special = frozenset(
      id_ for id_ in range(self.size) if as_trained.is_control(id_) or as_trained.is_unknown(id_)
    )
    # '▁' is SentencePiece's space, so the character itself goes by its bytes in a model of ours.
    self._lower_one_eighth = [as_trained.piece_to_id(f'<0x{byte:02X}>') for byte in '▁'.encode()]
    raw = 'ﬁ  e\u0301\n '
    self.native = (
      self.roles == (PAD, EOS, BOS, UNK)
      and UNK not in self._lower_one_eighth
      and as_trained.normalize(raw) == raw.replace(' ', '▁')
    )
    try:
      as_trained.nbest_encode('a', nbest_size=2)
      self._unigram = True
    except RuntimeError:
      self._unigram = False

  @functools.cached_property
  def texts(self) -> list[bytes]:
    texts = []
    for id_ in range(self.size):
      piece = self._processor.id_to_piece(id_)
      if id_ in self.special:
        texts.append(b'')
      elif self._processor.is_byte(id_):
        texts.append(bytes([int(piece[3:5], 16)]))
      else:
        texts.append(piece.replace('▁', ' ').encode())
    return texts

  def normalize(self, text: str) -> str:
    return self._as_trained.normalize(text)[self._prefix :].replace('▁', ' ')

  def encode(self, text: str, *, start: bool = False) -> list[int]:
    if self.native and '▁' in text:
      ids = self._processor.encode(text.split('▁'))
      return functools.reduce(lambda left, right: left + self._lower_one_eighth + right, ids)
    return self._processor.encode(self._started(text) if start else text)

  def unknown(self, text: str, ids: np.ndarray, *, start: bool) -> list[str]:
    """Returns the text of each unknown token of `ids`, which `encode` gave, in order."""
    pieces = self._processor.encode(self._started(text) if start else text, out_type=str)
    return [pieces[i].replace('▁', ' ') for i in np.flatnonzero(ids == self.roles.unk)]

  def second_best(self, text: str) -> float | None:
    """Returns how far the second best encoding scores behind the best; None without scores."""
    if not self._unigram:
      return None
    found = self._processor.nbest_encode(text, nbest_size=2)
    scores = [sum(map(self._processor.get_score, ids)) for ids in found]
    return scores[0] - scores[1] if len(scores) > 1 else float('inf')

  def decode(self, ids: list[int]) -> str:
    return self._as_trained.decode(ids)

  def _started(self, text: str) -> str:
    return ' ' + text if self._prefix and text else text


class Bytes:
  """The bytes of UTF-8 as tokens, with the ids of SeqIO's ByteVocabulary: byte + 3.

  The file is JSON: {"type": "bytes", "extra_ids": N}; the extra ids come last and stand for no text.
  Each word's bytes are its tokens wherever it stands, so it is `native`.
  """

  native = True
  roles = Roles(pad=0, eos=1, bos=None, unk=2)
  _FIRST = 3

  def __init__(self, path: str):
    with open(path, encoding='utf-8') as file:
      extra = json.load(file).get('extra_ids', 0)
    if not isinstance(extra, int) or isinstance(extra, bool) or extra < 0:
      raise UnsupportedError(f"{path}: 'extra_ids' is {extra!r}: it is 0 or more.")
    self.size = self._FIRST + 256 + extra
    self.special = frozenset([*range(self._FIRST), *range(self._FIRST + 256, self.size)])

  @property
  def texts(self) -> list[bytes]:
    letters = [bytes([byte]) for byte in range(256)]
    return [b''] * self._FIRST + letters + [b''] * (self.size - self._FIRST - 256)

  def normalize(self, text: str) -> str:
    return text

  def encode(self, text: str, *, start: bool = False) -> list[int]:
    return [byte + self._FIRST for byte in text.encode()]

  def unknown(self, text: str, ids: np.ndarray, *, start: bool) -> list[str]:
    return []  # every text has its bytes

  def second_best(self, text: str) -> float | None:
    return None

  def decode(self, ids: list[int]) -> str:
    """As SeqIO does: bytes of no character are left out."""
    return bytes(id_ - self._FIRST for id_ in ids).decode(errors='ignore')


class HuggingFace:
  """A `tokenizer.json` with a BPE or unigram model."""

  def __init__(self, path: str):
    import tokenizers

    self._spec = spec = json.loads(tokenizers.Tokenizer.from_file(path).to_str())
    model, added = spec['model'], spec['added_tokens']
    affixes = [k for k in ('continuing_subword_prefix', 'end_of_word_suffix') if model.get(k)]
    if model['type'] not in ('BPE', 'Unigram') or affixes:
      raise UnsupportedError(
        f'{path}: its model is {model["type"]}{" with " + affixes[0] if affixes else ""}: '
        'it is BPE or Unigram, without marks of word ends.'
      )
    # The file as it is, but for what cuts a text short or strips its spaces; and without the space
    # that it puts at a start.
    start = {
      **spec, 'normalizer': _rewritten(spec['normalizer'], _keep_spaces),
      'truncation': None, 'padding': None, 'post_processor': None,
    }  # fmt: skip
    inner = {
      **start, 'normalizer': _rewritten(start['normalizer'], _no_prefix),
      'pre_tokenizer': _rewritten(spec['pre_tokenizer'], _no_prefix),
    }  # fmt: skip
    self._start = self._inner = tokenizers.Tokenizer.from_str(json.dumps(start))
    if inner != start:
      self._inner = tokenizers.Tokenizer.from_str(json.dumps(inner))
    for tokenizer in (self._start, self._inner):
      tokenizer.encode_special_tokens = True
    self.size = max(self._start.get_vocab().values(), default=-1) + 1

    special = {token['content']: token['id'] for token in added if token['special']}
    found = [
      next((special[name] for name in _NAMES[role] if name in special), None)
      for role in Roles._fields
    ]
    self.roles = Roles(*found)
    if self.roles.eos is None:
      raise UnsupportedError(
        f'{path}: no special token ends a text: it is one of {", ".join(_NAMES["eos"])}.'
      )
    unknown = model.get('unk_id')  # of a unigram model; BPE has its name
    if model.get('unk_token') is not None:
      unknown = self._start.token_to_id(model['unk_token'])
    if unknown is not None:
      self.roles = self.roles._replace(unk=unknown)
    self.special = frozenset([*special.values(), *([] if unknown is None else [unknown])])

    self._byte_level = 'ByteLevel' in _types(spec['normalizer'], spec['pre_tokenizer'])
    ours = _flat(json.loads(native_pre_tokenizer().__getstate__()))
    self.native = (
      self.roles == (PAD, EOS, BOS, UNK)
      and not spec['normalizer']
      and _flat(spec['pre_tokenizer']) == ours
    )
    self._normalizer = None
    if normalizer := _rewritten(_rewritten(spec['normalizer'], _no_prefix), _plain):
      empty = {'type': 'BPE', 'vocab': {}, 'merges': []}
      only = {'version': '1.0', 'added_tokens': [], 'normalizer': normalizer, 'model': empty}
      self._normalizer = tokenizers.Tokenizer.from_str(json.dumps(only)).normalizer

  @functools.cached_property
  def texts(self) -> list[bytes]:
    texts = [b''] * self.size
    letters = {letter: byte for byte, letter in _byte_alphabet().items()}
    fallback = self._spec['model'].get('byte_fallback')
    for token, id_ in self._start.get_vocab(with_added_tokens=False).items():
      if id_ in self.special:
        continue
      if self._byte_level:
        texts[id_] = bytes(letters[letter] for letter in token)
      elif fallback and len(token) == 6 and token.startswith('<0x'):
        texts[id_] = bytes([int(token[3:5], 16)])
      else:
        texts[id_] = token.replace('▁', ' ').encode()
    for token in self._spec['added_tokens']:
      if not token['special']:
        texts[token['id']] = token['content'].encode()
    return texts

  def normalize(self, text: str) -> str:
    return self._normalizer.normalize_str(text) if self._normalizer else text

  def encode(self, text: str, *, start: bool = False) -> list[int]:
    tokenizer = self._start if start else self._inner
    return tokenizer.encode(text, add_special_tokens=False).ids

  def unknown(self, text: str, ids: np.ndarray, *, start: bool) -> list[str]:
    """Returns the text of each unknown token of `ids`, which `encode` gave, in order."""
    found = (self._start if start else self._inner).encode(text, add_special_tokens=False)
    offsets = found.offsets  # a list made anew by each access
    spans = [offsets[i] for i in np.flatnonzero(ids == self.roles.unk)]
    return [text[begin:end] for begin, end in spans]

  def second_best(self, text: str) -> float | None:
    return None  # a unigram model of this library sums its scores over a word alone

  def decode(self, ids: list[int]) -> str:
    return self._start.decode(ids, skip_special_tokens=True)


def open_json(path: str) -> Bytes | HuggingFace:
  """Reads a `.json` of either kind."""
  with open(path, encoding='utf-8') as file:
    spec = json.load(file)
  is_bytes = isinstance(spec, dict) and spec.get('type') == BYTES
  return Bytes(path) if is_bytes else HuggingFace(path)


def native_pre_tokenizer() -> Any:
  """Returns the pre-tokenizer of our byte-level BPE: the chunks of `jaxlink.link.words`."""
  import tokenizers
  from tokenizers import pre_tokenizers

  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(words.CHUNK_PATTERN), behavior='isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
  """Returns the steps of a normaliser or pre-tokenizer, sequences undone."""
  if not part:
    return []
  inner = part.get('normalizers', part.get('pretokenizers'))
  return [part] if inner is None else [step for each in inner for step in _flat(each)]


def _types(*parts: dict[str, Any] | None) -> set[str]:
  return {step['type'] for part in parts for step in _flat(part)}


def _rewritten(part: dict[str, Any] | None, rule: Any) -> dict[str, Any] | None:
  """Returns a normaliser or pre-tokenizer with `rule` applied to each step; None drops a step."""
  if not part:
    return None
  for key in ('normalizers', 'pretokenizers'):
    if key in part:
      steps = [step for each in part[key] if (step := _rewritten(each, rule))]
      return {**part, key: steps} if steps else None
  return rule(part)


def _keep_spaces(step: dict[str, Any]) -> dict[str, Any] | None:
  return None if step['type'] == 'Strip' else step


def _no_prefix(step: dict[str, Any]) -> dict[str, Any] | None:
  if step['type'] == 'Prepend':
    return None
  if step['type'] == 'ByteLevel':
    return {**step, 'add_prefix_space': False}
  if step['type'] == 'Metaspace':
    rest = {key: value for key, value in step.items() if key != 'add_prefix_space'}
    return {**rest, 'prepend_scheme': 'never'}
  return step


def _plain(step: dict[str, Any]) -> dict[str, Any] | None:
  """Leaves out of a normaliser what only spells spaces or bytes in another way."""
  if step['type'] == 'ByteLevel':
    return None
  if step['type'] == 'Replace':
    return {**step, 'content': step['content'].replace('▁', ' ')}
  return step


@functools.cache
def _byte_alphabet() -> dict[int, str]:
  """Returns the letter by which a byte-level vocabulary spells each byte (GPT-2's table)."""
  shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  hidden = [byte for byte in range(256) if byte not in shown]
  return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
