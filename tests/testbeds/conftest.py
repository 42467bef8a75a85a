"""The testbeds' files, made once."""

import json
import pathlib

import pytest

from jaxlink.data import sources
from jaxlink.evaluation import items
from jaxlink.testbeds import files


@pytest.fixture(scope='session')
def clone_folder() -> pathlib.Path:
  return files.kept('clone')


@pytest.fixture(scope='session')
def facts_folder() -> pathlib.Path:
  return files.kept('facts')


def documents(folder: pathlib.Path, name: str) -> list[str]:
  return [d.text for d in sources.read_documents(str(folder / f'{name}.jsonl.gz'))]


def questions(folder: pathlib.Path, name: str) -> list[items.Choice]:
  lines = (folder / f'{name}.jsonl').read_text(encoding='utf-8').splitlines()
  return [items.parse(name, 'choice', json.loads(line)) for line in lines]
