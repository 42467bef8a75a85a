"""A tokenizer as files that `transformers.AutoTokenizer` loads: the same ids for every text, BOS before them.

  SentencePiece, ours     → BPE with byte fallback over the same chunks, its pieces spelled with spaces
  byte-level BPE, ours    → the file itself
  a foreign .json         → the file itself, without what cuts a text short
  a byte vocabulary       → a BPE without merges

Whatever comes out is compared with the tokenizer itself before anything is exported (`difference`).

Easy to get wrong: the names of special tokens in a text. Here '</s>' in a text is four characters;
`split_special_tokens` says so to transformers, which would else end the text there.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from jaxlink.data import tokenizer_files
from jaxlink.data.tokenizer import Tokenizer

# Scripts, digits, spaces, marks, what looks like special tokens, and SentencePiece's own space.
_TRIAL = (
  'Bir varmış, bir yokmuş; evvel zaman içinde 1.234 devenin tellâlı pireydi.',
  "It's a well-known fact: the quick brown fox doesn't jump over   3 lazy dogs (or 12,5 of them).",
  'घर में पानी नहीं था। বাংলা ভাষা। ελληνικά, русский язык, עברית, العربية, 日本語 한국어',
  'a\tb\n\n  c \r\n e\u0301 é ﬁ ½ ▁x▁▁ y \u200d👩🏽\u200d🚀 \U0010fffe \x00 </s> <s> <pad> <unk> <0x41>',
  ' leading', 'trailing ', '', ' ', '\n', 'aaaaaaaaaaaaaaaaaaaaaa  bababababababab',
)  # fmt: skip
_PIECES = 2000  # of the vocabulary, looked at one by one


def make(tokenizer: Tokenizer, opening: int) -> dict[str, Any]:
  """The contents of `tokenizer.json`.

  Args:
    tokenizer: as trained with.
    opening: the id before every text.

  Raises:
    ValueError: a foreign SentencePiece model, which `tokenizers` does not read in every detail.
  """
  model = tokenizer._model
  if isinstance(model, tokenizer_files.Bytes):
    made = _of_bytes(model)
  elif isinstance(model, tokenizer_files.HuggingFace):
    with open(tokenizer.path, encoding='utf-8') as file:
      made = json.load(file)
  elif tokenizer.native:
    made = _of_sentencepiece(tokenizer.path, tokenizer.size)
  else:
    raise ValueError(
      f"{tokenizer.path} is another program's SentencePiece model: there is no exact tokenizer.json for it. "
      '--no_tokenizer exports the weights alone; copy the tokenizer files of the model that it is from.'
    )
  text = {token['id']: token['content'] for token in made['added_tokens']}[opening]
  one, two = ({'Sequence': {'id': which, 'type_id': 0}} for which in 'AB')
  begin = {'SpecialToken': {'id': text, 'type_id': 0}}
  made['post_processor'] = {
    'type': 'TemplateProcessing',
    'single': [begin, one],
    'pair': [begin, one, two],
    'special_tokens': {text: {'id': text, 'ids': [opening], 'tokens': [text]}},
  }
  return {**made, 'truncation': None, 'padding': None}


def settings(tokenizer: Tokenizer, opening: int, max_length: int) -> dict[str, Any]:
  """The contents of `tokenizer_config.json`.

  Args:
    tokenizer: as trained with.
    opening: the id before every text.
    max_length: of a row, in tokens.
  """
  names = {token['id']: token['content'] for token in make(tokenizer, opening)['added_tokens']}
  roles = {
    'bos_token': opening,
    'eos_token': tokenizer.eos_id,
    'pad_token': tokenizer.pad_id if tokenizer.pads else None,
    'unk_token': tokenizer.unk_id,
  }
  return {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_max_length': max_length,
    'clean_up_tokenization_spaces': False,
    'split_special_tokens': True,
    **{role: names[id_] for role, id_ in roles.items() if id_ in names},
  }


def difference(tokenizer: Tokenizer, path: str, texts: Iterable[str] = ()) -> str:
  """How a tokenizer file differs from a tokenizer; '' if it does not.

  Compared are ids of texts in many scripts, and of what the tokens of the vocabulary stand for.

  Args:
    tokenizer: the one to equal.
    path: of the file: a `tokenizer.json`, as transformers would use it, or a `.model`.
    texts: to compare as well.
  """
  size, encode = _opened(path)
  if size < tokenizer.size:
    return f'it has {size:,} ids, and not {tokenizer.size:,}'
  every = -(-tokenizer.size // _PIECES)
  pieces = (tokenizer.decode([id_]) for id_ in range(0, tokenizer.size, every))
  for text in (*_TRIAL, *texts, *pieces):
    ours, theirs = tokenizer.encode(text), encode(text)
    if ours != theirs:
      at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
      return f'{text[:60]!r} is {ours[: at + 5]} with one and {theirs[: at + 5]} with the other'
  return ''


def _opened(path: str) -> tuple[int, Callable[[str], list[int]]]:
  """The size of a vocabulary, and what encodes with it."""
  if path.endswith('.model'):
    there = Tokenizer(path)
    return there.size, there.encode
  import tokenizers

  as_is = tokenizers.Tokenizer.from_file(path)
  as_is.encode_special_tokens = True
  return as_is.get_vocab_size(), lambda text: as_is.encode(text, add_special_tokens=False).ids


def _of_sentencepiece(path: str, size: int) -> dict[str, Any]:
  """Our SentencePiece BPE for `tokenizers`.

  Pieces are spelled with the space that '▁' stands for: then '▁' in a text is a character like others
  that the vocabulary does not have, and goes by its bytes, as it does here.
  """
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_file=path)
  pieces = [processor.id_to_piece(id_) for id_ in range(size)]
  no_text = {
    id_ for id_ in range(size)
    if processor.is_control(id_) or processor.is_unknown(id_) or processor.is_byte(id_)
  }  # fmt: skip
  spelled = [p if i in no_text else p.replace('▁', ' ') for i, p in enumerate(pieces)]
  known = {piece for i, piece in enumerate(spelled) if i not in no_text}
  ranks = sorted(
    (i for i in range(size) if i not in no_text and len(spelled[i]) > 1),
    key=lambda i: (-processor.get_score(i), i),
  )
  merges = [
    [piece[:cut], piece[cut:]]
    for piece in (spelled[i] for i in ranks)
    for cut in range(1, len(piece))
    if piece[:cut] in known and piece[cut:] in known
  ]
  model = {
    'type': 'BPE', 'dropout': None, 'unk_token': pieces[tokenizer_files.UNK],
    'continuing_subword_prefix': None, 'end_of_word_suffix': None, 'fuse_unk': True,
    'byte_fallback': True, 'ignore_merges': False,
    'vocab': {piece: id_ for id_, piece in enumerate(spelled)}, 'merges': merges,
  }  # fmt: skip
  steps = json.loads(tokenizer_files.native_pre_tokenizer().__getstate__())['pretokenizers']
  chunks = next(step for step in steps if step['type'] == 'Split')
  decoder = {'type': 'Sequence', 'decoders': [{'type': 'ByteFallback'}, {'type': 'Fuse'}]}
  return _file(model, chunks, decoder, dict(enumerate(pieces[: tokenizer_files.UNK + 1])))


def _of_bytes(model: tokenizer_files.Bytes) -> dict[str, Any]:
  letters = tokenizer_files._byte_alphabet()
  special = {0: '<pad>', 1: '</s>', 2: '<unk>'}
  special |= {i: f'<extra_id_{i}>' for i in sorted(model.special) if i > 2}
  vocabulary = {text: id_ for id_, text in special.items()}
  vocabulary |= {letters[texts[0]]: id_ for id_, texts in enumerate(model.texts) if texts}
  bpe = {'type': 'BPE', 'vocab': dict(sorted(vocabulary.items(), key=lambda x: x[1])), 'merges': []}
  step = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False}
  return _file(bpe, step, step, special)


def _file(
  model: dict[str, Any], pre_tokenizer: dict[str, Any], decoder: dict[str, Any],
  special: dict[int, str],
) -> dict[str, Any]:  # fmt: skip
  flags = dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False)
  return {
    'version': '1.0',
    'added_tokens': [
      {'id': id_, 'content': text, **flags, 'special': True} for id_, text in special.items()
    ],
    'normalizer': None,
    'pre_tokenizer': pre_tokenizer,
    'decoder': decoder,
    'model': model,
  }
