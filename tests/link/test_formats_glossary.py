"""StarDict, dictd and DSL: notes, examples and labels stay out; broken files are errors."""

import gzip
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from jaxlink.link.formats import glossary
from jaxlink.link.lexicon import Lexicon

EXCERPTS = pathlib.Path(__file__).parent / 'dictionaries'


def test_stardict_is_read_from_a_tar_without_touching_its_folder(tmp_path):
  path = tmp_path / 'hau-eng.tar.gz'
  with tarfile.open(path, 'w:gz') as tar:
    for ending in ('ifo', 'idx', 'dict', 'syn'):
      tar.add(EXCERPTS / f'hau-eng.{ending}', f'Hausa/hau-eng.{ending}')
  assert Lexicon.load(path).entries == Lexicon.load(EXCERPTS / 'hau-eng.ifo').entries
  assert list(tmp_path.iterdir()) == [path]


def test_the_hash_is_of_all_files_of_a_dictionary(tmp_path):
  for ending in ('ifo', 'idx', 'dict', 'syn'):
    shutil.copy(EXCERPTS / f'hau-eng.{ending}', tmp_path)
  before = Lexicon.load(tmp_path / 'hau-eng.ifo')
  (tmp_path / 'hau-eng.syn').write_bytes((tmp_path / 'hau-eng.syn').read_bytes() + b'x\0\0\0\0\1')
  assert Lexicon.load(tmp_path / 'hau-eng.ifo').sha256 != before.sha256


def test_a_stardict_without_its_index_is_an_error(tmp_path):
  shutil.copy(EXCERPTS / 'hau-eng.ifo', tmp_path)
  with pytest.raises(ValueError, match=r'hau-eng\.ifo: PyGlossary cannot read it as Stardict'):
    Lexicon.load(tmp_path / 'hau-eng.ifo')


def test_a_tar_without_a_dictionary_is_an_error(tmp_path):
  with tarfile.open(tmp_path / 'x.tar', 'w') as tar:
    tar.add(EXCERPTS / 'en_om.tsv', 'en_om.tsv')
  with pytest.raises(ValueError, match=r'x\.tar: holds 0 \.ifo files'):
    Lexicon.load(tmp_path / 'x.tar')
  (tmp_path / 'y.tar.gz').write_bytes(gzip.compress(b'no tar'))
  with pytest.raises(ValueError, match=r'y\.tar\.gz: broken tar file'):
    Lexicon.load(tmp_path / 'y.tar.gz')


def test_half_a_dictd_database_is_an_error(tmp_path):
  shutil.copy(EXCERPTS / 'eng-swh.index', tmp_path)
  with pytest.raises(FileNotFoundError, match=r'eng-swh\.dict: no such file\. Nearest'):
    Lexicon.load(tmp_path / 'eng-swh.index')


def test_dictd_notes_examples_and_links_are_not_read():
  reading = glossary.read_dictd(EXCERPTS / 'eng-swh.dict')
  assert {entry.left[0]: entry.right for entry in reading.entries} == {
    'be broken': ('vunjika',),
    'dog': ('mbwa <masc>',),
    'go': ('enda', 'ondoka [informal]'),
    'house': ('nyumba; banda',),
  }
  assert (reading.left, reading.right) == ('en', 'sw')


def test_subsenses_are_read_and_bulleted_examples_are_not(tmp_path):
  senses = (
    '<ol><li>dog<ul><li>The dog barks.</li></ul></li><li>big<ol><li>large</li></ol></li></ol>'
  )
  path = tmp_path / 'hau-eng.tsv'
  path.write_text(f'kare\t<i>noun</i><br>{senses}\n', encoding='utf-8')
  lexicon = Lexicon.load(path, target='ha')
  assert lexicon.entries == {'dog': ('kare',), 'big': ('kare',), 'large': ('kare',)}


def test_dsl_labels_examples_and_transcriptions_are_not_read(tmp_path):
  card = (
    '#NAME "English-Hindi"\n#INDEX_LANGUAGE "English"\n#CONTENTS_LANGUAGE "Hindi"\n\n'
    'search\n\t[b]~[/b] [p]v[/p] [i](to look for)[/i]\n'
    '\t[m1]1) [trn]खोजना[/trn] [c gray]/khojnā/[/c], ढूँढना [p]m[/p][/m]\n'
    '\t[m2][*][ex]वह खोजता है — he searches[/ex][/*][/m]\n'
  )
  path = tmp_path / 'en-hi.dsl'
  path.write_text(card, encoding='utf-8')
  assert Lexicon.load(path, target='hi').entries == {'search': ('खोजना', 'ढूँढना')}


def test_a_dictionary_without_pyglossary_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pyglossary.glossary_v2', None)
  monkeypatch.delitem(sys.modules, 'jaxlink.link.formats.glossary', raising=False)
  with pytest.raises(ImportError, match=r"needs pyglossary\S*; .*'jaxlink\[lexicons\]'"):
    Lexicon.load(EXCERPTS / 'hau-eng.ifo')


def test_pyglossary_leaves_the_process_as_it_was():
  program = (
    'import logging, os, sys\n'
    'before = sys.excepthook, logging.getLoggerClass(), os.getcwd(), list(sys.path)\n'
    'from jaxlink.link.lexicon import Lexicon\n'
    'assert not {"lxml", "pyglossary", "jax", "tensorflow"} & set(sys.modules)\n'
    f'Lexicon.load({str(EXCERPTS / "hau-eng.ifo")!r})\n'
    'assert before == (sys.excepthook, logging.getLoggerClass(), os.getcwd(), list(sys.path))\n'
  )
  subprocess.run([sys.executable, '-c', program], check=True, timeout=60)
