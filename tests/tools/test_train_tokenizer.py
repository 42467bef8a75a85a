import subprocess
import sys
from pathlib import Path

import pytest

from jaxlink.data.tokenizer import Tokenizer
from tools.train_tokenizer import MAX_REPEATS, balanced

ROOT = Path(__file__).parents[2]
TURKISH = ROOT / 'tasks/sample/tr.validation.txt.gz'
BENGALI = ROOT / 'tests/data/bengali.txt'


def size(texts):
  return sum(len(t.encode()) for t in texts)


def test_every_language_gives_the_same_number_of_bytes():
  texts = {'en': [f'{i:04} proverb' for i in range(5000)], 'bn': ['দশের লাঠি'] * 3000}
  sample = balanced(texts, 40_000, seed=0)
  english = [t for t in sample if t.endswith('proverb')]
  bengali = [t for t in sample if t in texts['bn']]
  assert len(english) + len(bengali) == len(sample)
  assert 40_000 <= size(english) < 40_100
  assert 40_000 <= size(bengali) < 40_100
  assert len(set(english)) == len(english)


def test_a_small_language_is_repeated_but_not_without_end():
  small = [f'{i:03} haba na haba' for i in range(100)]
  twice = balanced({'sw': small}, size(small) * 3 // 2, seed=0)
  assert size(twice) >= size(small) * 3 // 2
  assert {twice.count(t) for t in small} == {1, 2}
  assert size(balanced({'sw': small}, 1 << 30, seed=0)) == MAX_REPEATS * size(small)


def test_the_order_is_the_seeds():
  texts = {'sw': [f'{i:03} haba na haba' for i in range(100)]}
  assert balanced(texts, 500, seed=1) == balanced(texts, 500, seed=1)
  assert balanced(texts, 500, seed=1) != balanced(texts, 500, seed=2)


def test_a_language_without_text_is_an_error():
  with pytest.raises(ValueError, match="The text of 'sw' is empty"):
    balanced({'sw': ['', '']}, 100, seed=0)


@pytest.mark.parametrize(('kind', 'name'), [('sentencepiece', 't.model'), ('byte_level', 't.json')])
def test_the_command_trains_a_lossless_tokenizer_and_says_what_it_used(tmp_path, kind, name):
  done = subprocess.run(
    [sys.executable, 'tools/train_tokenizer.py', '--kind', kind, '--size', '600',
     '--text', f'tr={TURKISH}', '--text', f'bn={BENGALI}', '--bytes', '30000',
     '--out', str(tmp_path / name)],
    cwd=ROOT, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  tokenizer = Tokenizer(tmp_path / name)
  assert tokenizer.size == 600
  assert tokenizer.sha256[:16] in done.stdout
  assert 'bytes per token, 0 texts changed by a round trip' in done.stdout
  text = BENGALI.read_text(encoding='utf-8')
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_language_without_a_name_is_a_usage_error(tmp_path):
  done = subprocess.run(
    [sys.executable, 'tools/train_tokenizer.py', '--text', str(TURKISH), '--out', str(tmp_path / 't')],
    cwd=ROOT, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert done.returncode == 2
  assert 'write LANGUAGE=PATH' in done.stderr
