"""The SeqIO face of tokenizers, and the tokenizer's face of SeqIO's vocabularies.

`ChunkedVocabulary` lets a SeqIO task use a tokenizer's file; `tokenizer_file` gives the file of a task's
vocabulary, so that a trainer without SeqIO reads the same ids.

Easy to get wrong: SeqIO changes a SentencePiece model as it loads it (extra ids, another normaliser). The
file is of the model as changed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from jaxlink.data import tokenizer, tokenizer_files


class ChunkedVocabulary(seqio.Vocabulary):
  """A `jaxlink.data.tokenizer.Tokenizer`, one of ours or a foreign one, as SeqIO vocabulary.

  Its special ids are the tokenizer's own: `bos_id` and `unk_id` are None where it has none, and
  `pad_id` is then as `Tokenizer.pad_id` says.

  Args:
    path: the tokenizer's file. It is read when first needed, so that registering many tasks is quick.
  """

  def __init__(self, path: str):
    super().__init__(extra_ids=0)
    self.path = str(path)
    self._tokenizer: tokenizer.Tokenizer | None = None

  @property
  def tokenizer(self) -> tokenizer.Tokenizer:
    """The tokenizer itself."""
    if self._tokenizer is None:
      self._tokenizer = tokenizer.Tokenizer(self.path)
    return self._tokenizer

  @property
  def pad_id(self) -> int:
    return self.tokenizer.pad_id

  @property
  def bos_id(self) -> int | None:
    return self.tokenizer.bos_id

  @property
  def eos_id(self) -> int:
    return self.tokenizer.eos_id

  @property
  def unk_id(self) -> int | None:
    return self.tokenizer.unk_id

  @property
  def _base_vocab_size(self) -> int:
    return self.tokenizer.size

  def _encode(self, s: str) -> Sequence[int]:
    return self.tokenizer.encode(s)

  def _decode(self, ids: Iterable[int]) -> str:
    return self.tokenizer.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    def encode(text: bytes | np.ndarray) -> np.ndarray:
      text = text.item() if isinstance(text, np.ndarray) else text  # an array if run eagerly
      return np.array(self.tokenizer.encode(text.decode()), np.int32)

    ids = tf.numpy_function(encode, [s], tf.int32, stateful=False)
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    def decode(row: np.ndarray) -> bytes:
      return self.tokenizer.decode(row).encode()

    if ids.shape.rank == 1:
      return tf.numpy_function(decode, [ids], tf.string, stateful=False)
    return tf.map_fn(self._decode_tf, ids, fn_output_signature=tf.string)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, ChunkedVocabulary) and self.tokenizer.sha256 == other.tokenizer.sha256

  def __hash__(self) -> int:
    return hash(self.tokenizer.sha256)

  def __repr__(self) -> str:
    return f'ChunkedVocabulary({self.path!r})'


def tokenizer_file(vocabulary: seqio.Vocabulary, folder: str) -> str:
  """Returns the path of a file from which `Tokenizer` reads a vocabulary's ids.

  Args:
    vocabulary: a `ChunkedVocabulary`, `seqio.SentencePieceVocabulary` or `seqio.ByteVocabulary`.
    folder: where a file is written, named by its content, for a vocabulary that has no local one of its own.

  Raises:
    ValueError: the vocabulary is of another kind.
  """
  if isinstance(vocabulary, ChunkedVocabulary):
    return vocabulary.path
  if isinstance(vocabulary, seqio.ByteVocabulary):
    spec = {'type': tokenizer_files.BYTES, 'extra_ids': vocabulary.extra_ids}
    return _write(json.dumps(spec).encode(), '.json', folder)
  if isinstance(vocabulary, seqio.SentencePieceVocabulary):
    path, model = vocabulary.sentencepiece_model_file, vocabulary.sp_model
    if os.path.isfile(path) and path.endswith('.model'):
      with open(path, 'rb') as file:
        if file.read() == model:
          return path
    return _write(model, '.model', folder)
  raise ValueError(
    f"the vocabulary of 'targets' is a {type(vocabulary).__name__}: it is a SentencePieceVocabulary or "
    'ByteVocabulary of SeqIO, or a ChunkedVocabulary.'
  )


def _write(content: bytes, suffix: str, folder: str) -> str:
  path = os.path.join(folder, hashlib.sha256(content).hexdigest()[:16] + suffix)
  if not os.path.exists(path):
    os.makedirs(folder, exist_ok=True)
    partial = f'{path}.{os.getpid()}'
    with open(partial, 'wb') as file:
      file.write(content)
    os.replace(partial, path)
  return path
