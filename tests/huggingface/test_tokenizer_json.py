import json
import pathlib
import random

import pytest
import tokenizers

from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer, train_byte_level
from jaxlink.huggingface import tokenizer_json

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'


@pytest.fixture(scope='module')
def texts() -> list[str]:
  """A piece of the sample's text of each language."""
  found = []
  for name in ('tr.validation.txt.gz', 'en.validation.jsonl.gz'):
    for _, document in zip(range(8), sources.read_documents(str(SAMPLE / name)), strict=False):
      found.append(document.text[:4000])
  return found


@pytest.fixture(scope='module', params=['sentencepiece', 'byte level', 'bytes'])
def ours(request, texts, tmp_path_factory) -> Tokenizer:
  """Each kind of tokenizer of ours."""
  if request.param == 'sentencepiece':
    return Tokenizer(str(SAMPLE / 'tokenizer.model'))
  path = str(tmp_path_factory.mktemp('tokenizer') / 'tokenizer.json')
  if request.param == 'byte level':
    train_byte_level(texts, 700, path)
  else:
    pathlib.Path(path).write_text('{"type": "bytes", "extra_ids": 3}', encoding='utf-8')
  return Tokenizer(path)


def _written(tokenizer, folder):
  opening = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
  path = folder / 'tokenizer.json'
  made = tokenizer_json.make(tokenizer, opening)
  path.write_text(json.dumps(made, ensure_ascii=False), encoding='utf-8')
  return str(path), opening


def test_ids_are_the_same_for_text_and_for_noise_and_texts_come_back(ours, texts, tmp_path):
  path, opening = _written(ours, tmp_path)
  there = tokenizers.Tokenizer.from_file(path)
  there.encode_special_tokens = True  # what split_special_tokens does
  draw = random.Random(0)
  letters = " \n\t▁_-'’.,;1234aâaabBcçdeéğhıİijkşöüñ\u0301\u200d猫हक्ত€😀<>/s\x00\ufffd"
  noise = [''.join(draw.choices(letters, k=draw.randrange(1, 40))) for _ in range(1000)]
  for text in (*texts, *noise):
    ids = there.encode(text).ids
    assert ids == [opening, *ours.encode(text)]
    assert there.decode(ids) == text
  assert tokenizer_json.difference(ours, path, texts) == ''
  assert there.get_vocab_size() == ours.size


def test_names_of_special_tokens_in_a_text_are_text(ours, tmp_path):
  path, opening = _written(ours, tmp_path)
  settings = tokenizer_json.settings(ours, opening, 128)
  assert settings['split_special_tokens'] is True
  assert settings['bos_token'] == ('<s>' if ours.bos_id is not None else '</s>')
  assert settings['eos_token'] == '</s>'
  assert settings['pad_token'] == '<pad>'
  there = tokenizers.Tokenizer.from_file(path)
  there.encode_special_tokens = True
  assert len(there.encode('a</s>b', add_special_tokens=False).ids) >= 6


def test_a_foreign_file_is_kept_but_for_what_cuts_texts_short(texts, tmp_path):
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=600, special_tokens=['<|endoftext|>'], show_progress=False,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
  )  # fmt: skip
  made.train_from_iterator(texts, trainer)
  made.enable_truncation(8)
  made.save(str(tmp_path / 'foreign.json'))
  ours = Tokenizer(str(tmp_path / 'foreign.json'))
  path, _ = _written(ours, tmp_path)
  assert tokenizer_json.difference(ours, path, texts) == ''
  ids = tokenizers.Tokenizer.from_file(path).encode(texts[0]).ids
  assert ids == [ours.eos_id, *ours.encode(texts[0])]  # no BOS: the end of a text opens one
  assert len(ids) > 8


def test_a_foreign_sentencepiece_model_is_refused(texts, tmp_path):
  import sentencepiece

  with open(tmp_path / 'foreign.model', 'wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts), model_writer=file, vocab_size=500, minloglevel=2,
      hard_vocab_limit=False,
    )  # fmt: skip
  with pytest.raises(ValueError, match=r"another program's SentencePiece model: .*--no_tokenizer"):
    tokenizer_json.make(Tokenizer(str(tmp_path / 'foreign.model')), 1)


def test_another_tokenizer_is_told_by_a_text(ours, texts, tmp_path):
  train_byte_level(texts[8:], 700, str(tmp_path / 'other.json'))
  other = Tokenizer(str(tmp_path / 'other.json'))
  path, _ = _written(other, tmp_path)
  how = 'it has 700 ids' if ours.size > 700 else ' with one and '
  assert how in tokenizer_json.difference(ours, path)
  small = tokenizers.Tokenizer(tokenizers.models.BPE({'a': 0}, []))
  small.save(str(tmp_path / 'small.json'))
  assert tokenizer_json.difference(ours, str(tmp_path / 'small.json')).startswith('it has 1 ids')
