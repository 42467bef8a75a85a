"""Tokenizers trained once for the session, and the text they are tried on."""

import gzip
import json
from pathlib import Path

import pytest

from jaxlink.data import tokenizer

SAMPLE = Path(__file__).parents[2] / 'tasks/sample'


def sample_text(language: str) -> str:
  """About 40 kB of real text: English ('en'), Turkish ('tr') or Bengali ('bn')."""
  if language == 'bn':
    return (Path(__file__).parent / 'bengali.txt').read_text(encoding='utf-8')
  if language == 'tr':
    return gzip.decompress((SAMPLE / 'tr.validation.txt.gz').read_bytes()).decode()[:40_000]
  lines = gzip.decompress((SAMPLE / 'en.validation.jsonl.gz').read_bytes()).splitlines()
  return '\n\n'.join(json.loads(line)['text'] for line in lines)[:40_000]


@pytest.fixture(scope='session')
def tiny_tokenizers(tmp_path_factory) -> dict[str, str]:
  """Paths of a tokenizer of 1,000 ids of each kind, trained on three languages."""
  folder = tmp_path_factory.mktemp('tokenizers')
  texts = [line for code in ('en', 'tr', 'bn') for line in sample_text(code).split('\n') if line]
  paths = {
    'sentencepiece': str(folder / 'tiny.model'),
    'byte_level': str(folder / 'tiny.json'),
  }
  tokenizer.train_sentencepiece(texts, 1000, paths['sentencepiece'])
  tokenizer.train_byte_level(texts, 1000, paths['byte_level'])
  return paths


@pytest.fixture
def forget_tasks():
  """Removes from SeqIO's registries, and from ours, what a test registers."""
  import seqio

  from jaxlink.data import registry

  tables = [
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY,
    registry.LANGUAGES, registry.LEXICONS, registry.AUXILIARIES, registry.RATES,
  ]  # fmt: skip
  before = [dict(table) for table in tables]
  yield
  for table, old in zip(tables, before, strict=True):
    table.clear()
    table.update(old)
