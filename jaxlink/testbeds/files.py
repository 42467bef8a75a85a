"""The files of the testbeds: made from the sample's English when they are first asked for, and kept.

  kept('clone')      the folder of the cloned language's testbed
  kept('facts')      that of facts asked in Turkish

A folder is named by what it was made of, this package's code and the sample's text: what changes makes
another. It is whole or not there, also where several processes ask at once.

Easy to get wrong: what the model may read. The clone's text comes from other articles than the English, and a
fact is in English files alone: only then is what the model knows in the other language carried over.
"""

import dataclasses
import functools
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxlink.data import sources, tokenizer
from jaxlink.evaluation.items import Choice
from jaxlink.link import words
from jaxlink.link.lexicon import Lexicon
from jaxlink.names import nearest
from jaxlink.testbeds import clone, facts

_ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = _ROOT / 'tasks' / 'sample'
FOLDER = _ROOT / 'cache' / 'testbeds'

# Every CLONED_EVERYth article is the clone's, and no others are. It must be scarce beside English: with text
# enough of its own, a language has little to gain.
ARTICLES, CLONED_EVERY, HELD_OUT = 220, 44, 3
VOCABULARY = 2048
ROUNDS = 48


@functools.cache
def kept(name: str) -> pathlib.Path:
  """Returns the folder of a testbed, 'clone' or 'facts', and makes it where it is missing.

  Raises:
    ValueError: there is no such testbed.
  """
  write = writer(name)
  folder = FOLDER / f'{name}-{_made_of()}'
  if not folder.is_dir():
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f'{name}-', suffix='.partial', dir=FOLDER))
    try:
      write(partial)
      partial.chmod(0o755)  # a temporary folder is its owner's alone
      os.replace(partial, folder)
    except OSError:
      if not folder.is_dir():  # else another process was quicker
        raise
    finally:
      shutil.rmtree(partial, ignore_errors=True)
  return folder


def writer(name: str) -> Callable[[pathlib.Path], None]:
  """Returns what writes a testbed's files to a folder.

  Raises:
    ValueError: there is no such testbed.
  """
  writers = {'clone': write_clone, 'facts': write_facts}
  if name not in writers:
    raise ValueError(
      f'no testbed {name!r}.{nearest(name, writers)} Testbeds: {", ".join(writers)}.'
    )
  return writers[name]


def write_clone(folder: pathlib.Path) -> None:
  """Writes the testbed of the cloned language.

  en.train, en.validation, facts.train, clone.train, clone.validation (.jsonl.gz); lexicon.tsv;
  tokenizer.model; and the evaluation sets (.jsonl), see `tasks/testbed_clone.py`.
  """
  articles = [clone.tidy(text) for text in _articles('en.train.jsonl.gz')[:ARTICLES]]
  held_out = [clone.tidy(text) for text in _articles('en.validation.jsonl.gz')[:HELD_OUT]]
  english = [text for n, text in enumerate(articles) if n % CLONED_EVERY]
  # Names keep clear of all words, also of those that are only cloned.
  known = {word for word, _ in clone.lexicon([*articles, *held_out])}
  world = facts.make_world(('listed', 'unlisted'), stated=8, unstated=8, avoid=known)
  told = facts.statements(world, rounds=ROUNDS)

  _write_documents(folder / 'en.train.jsonl.gz', english)
  _write_documents(folder / 'en.validation.jsonl.gz', held_out)
  _write_documents(folder / 'facts.train.jsonl.gz', told)
  _write_documents(folder / 'clone.train.jsonl.gz', map(clone.clone, articles[::CLONED_EVERY]))
  _write_documents(folder / 'clone.validation.jsonl.gz', map(clone.clone, held_out))
  unlisted = {words.key(name) for name in world.names('unlisted')}
  pairs = clone.lexicon([*english, *told], without=unlisted)
  (folder / 'lexicon.tsv').write_text(''.join(f'{a}\t{b}\n' for a, b in pairs), encoding='utf-8')
  # Each text beside its clone: then every merge of one language has its mirror image in the other.
  both = [text for document in english for text in (document, clone.clone(document))]
  tokenizer.train_sentencepiece(both, VOCABULARY, os.fspath(folder / 'tokenizer.model'))

  listed = facts.translated(clone.clone, names=True)
  unlisted = facts.translated(clone.clone, names=False)
  sets = {
    'facts_en': facts.questions(world, facts.ENGLISH),
    'facts_en_unstated': facts.questions(world, facts.ENGLISH, stated=False),
    'facts_en_towns': facts.towns_apart(world, facts.ENGLISH),
    'facts_clone': facts.questions(world, listed, 'listed'),
    'facts_clone_names': facts.questions(world, unlisted, 'unlisted'),
    'facts_clone_unstated': [
      *facts.questions(world, listed, 'listed', stated=False),
      *facts.questions(world, unlisted, 'unlisted', stated=False),
    ],
    'facts_clone_towns': facts.towns_apart(world, listed, 'listed'),
  }
  _write_sets(folder, sets)


def write_facts(folder: pathlib.Path) -> None:
  """Writes the testbed of facts asked in Turkish: facts.train (.jsonl.gz) and the evaluation sets (.jsonl)."""
  texts = [*_articles('en.train.jsonl.gz'), *_articles('en.validation.jsonl.gz')]
  for split in ('train', 'validation'):
    texts += [d.text for d in sources.read_documents(os.fspath(SAMPLE / f'tr.{split}.txt.gz'))]
  known = {words.key(text[a:b]) for text in texts for a, b in words.find_words(text)}
  known |= Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr').entries.keys()
  world = facts.make_world(('people',), stated=16, unstated=16, avoid=known)
  _write_documents(folder / 'facts.train.jsonl.gz', facts.statements(world, rounds=ROUNDS))
  sets = {
    f'facts_{code}{suffix}': ask(world, language, **more)
    for code, language in (('en', facts.ENGLISH), ('tr', facts.TURKISH))
    for suffix, ask, more in (
      ('', facts.questions, {}),
      ('_unstated', facts.questions, {'stated': False}),
      ('_towns', facts.towns_apart, {}),
    )
  }
  _write_sets(folder, sets)


def _articles(file: str) -> list[str]:
  return [document.text for document in sources.read_documents(os.fspath(SAMPLE / file))]


def _write_documents(path: pathlib.Path, texts: Iterable[str]) -> None:
  # Without a time in its header, the same text is the same file.
  with open(path, 'wb') as raw, gzip.GzipFile('', 'wb', fileobj=raw, mtime=0) as file:
    for text in texts:
      file.write((json.dumps({'text': text}, ensure_ascii=False) + '\n').encode())


def _write_sets(folder: pathlib.Path, sets: Mapping[str, Sequence[Choice]]) -> None:
  for name, items in sets.items():
    with open(folder / f'{name}.jsonl', 'w', encoding='utf-8') as file:
      for item in items:
        file.write(json.dumps(dataclasses.asdict(item), ensure_ascii=False) + '\n')


@functools.cache
def _made_of() -> str:
  """A digest of what the files are made of."""
  found = hashlib.sha256()
  code = sorted(pathlib.Path(__file__).parent.glob('*.py'))
  for path in (*code, *sorted(SAMPLE.glob('*.gz'))):
    found.update(hashlib.sha256(path.read_bytes()).digest())
  return found.hexdigest()[:12]
