"""From a policy's names to tables: what makes another table, and one dose for both routes."""

import dataclasses
import gzip
import json
import os
import pathlib

import numpy as np
import pytest

from jaxlink.data import fingerprint, linking, register, registry
from jaxlink.data.caching import build, cache_plan, publish, rewriting
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link.draws import key_of
from jaxlink.link.policy import LinkPolicy, probability
from jaxlink.link.substitute import substitute
from tests.data.conftest import SAMPLE
from tests.data.test_linked import whole
from tests.data.test_preprocessors import as_file, english

pytestmark = pytest.mark.usefixtures('forget_tasks')

FEW = 'the\tder\ncity\tStadt\nof\tvon\nwater\tWasser\n'


@pytest.fixture
def prepared(tmp_path, tiny_tokenizers, monkeypatch):
  """A cache of English paragraphs, and lexicons beside it."""
  monkeypatch.chdir(tmp_path)
  register.register_corpus(
    'linking_en', {'train': as_file(tmp_path, english(60))}, language='en',
    tokenizer=tiny_tokenizers['sentencepiece'],
  )  # fmt: skip
  pathlib.Path('de.tsv').write_text(FEW, encoding='utf-8')
  pathlib.Path('tr.tsv').write_bytes((SAMPLE / 'en-tr.tsv').read_bytes())
  inputs = fingerprint.Inputs('hashes.json')
  plan = cache_plan.make_plan(
    'linking_en', 'train', cache_dir='cache', inputs=inputs,
    settings=cache_plan.CacheSettings(2, 64),
  )  # fmt: skip
  return build.build(plan, processes=1, progress=False)


def policy(**changes) -> LinkPolicy:
  given = {'lexicon': {'tr': 'tr.tsv'}, 'doc_fraction': 1.0} | changes
  return linking.resolve_policy(LinkPolicy(**given))


def table_of(blocks, asked):
  return linking.make_table(asked, 'en', blocks, 'cache', fingerprint.Inputs('hashes.json'))


@pytest.mark.slow
def test_what_a_run_draws_is_no_part_of_its_table_and_all_else_is(prepared):
  same = [
    {}, {'word_ratio': 0.9}, {'doc_fraction': 0.1}, {'senses': 'first'}, {'redraw': True},
    {'ratio_of': 'all'},
  ]  # fmt: skip
  assert len({table_of(prepared, policy(**c)).folder for c in same}) == 1
  pathlib.Path('list.txt').write_text('city\n', encoding='utf-8')
  other = [
    {}, {'mode': 'annotate'}, {'match_case': False}, {'multi_word': False}, {'regime': 'content'},
    {'stop_words': ''}, {'regime': 'domain', 'word_list': 'list.txt'}, {'lemmas': 'en'},
    {'lexicon': {'de': 'de.tsv'}}, {'lexicon': {'tr': ('tr.tsv', 'de.tsv')}},
    {'lexicon': {'tr': 'tr.tsv', 'de': 'de.tsv'}}, {'lexicon': {'de': 'de.tsv', 'tr': 'tr.tsv'}},
  ]  # fmt: skip
  assert len({table_of(prepared, policy(**c)).folder for c in other}) == len(other)


def test_a_changed_lexicon_or_list_or_module_is_another_table(prepared, monkeypatch):
  pathlib.Path('list.txt').write_text('city\n', encoding='utf-8')
  asked = policy(lexicon={'de': 'de.tsv'}, regime='domain', word_list='list.txt')
  folders = [table_of(prepared, asked).folder]
  for name, text in (('de.tsv', FEW + 'dog\tHund\n'), ('list.txt', 'city\nwater\n')):
    pathlib.Path(name).write_text(text, encoding='utf-8')
    linking._lexicon.cache_clear(), linking._lists.cache_clear()
    folders.append(table_of(prepared, asked).folder)
  described = linking.describe_code(fingerprint.Inputs('hashes.json'))
  for name in ('link/policy.py', 'link/formats/tei.py', 'link/splice.py', 'data/foreign.py'):
    assert name in described['files']
    changed = {**described, 'files': {**described['files'], name: 'edited'}}
    monkeypatch.setattr(linking, 'describe_code', lambda inputs, changed=changed: changed)
    folders.append(table_of(prepared, asked).folder)
  assert len(set(folders)) == len(folders)


@pytest.mark.parametrize('language_by', ['per_document', 'per_word'])
def test_a_share_of_all_words_is_the_same_in_both_routes(prepared, language_by):
  asked = policy(
    lexicon={'tr': 'tr.tsv', 'de': 'de.tsv'},
    language_by=language_by,
    ratio_of='all',
    word_ratio=0.1,
  )
  counts = linking.count_source(prepared, table_of(prepared, asked), language_by, progress=False)
  plan = cache_plan.make_plan(
    'linking_en', 'train', cache_dir='cache', inputs=fingerprint.Inputs('hashes.json'),
    link=cache_plan.Link(asked, 0),
  )  # fmt: skip
  expected = probability('all', 0.1, counts['words'], counts['eligible'])
  assert rewriting.probability(plan) == expected
  assert 0.1 < expected[0] < 1
  # Counted once, then kept.
  kept = [
    name for name in os.listdir(table_of(prepared, asked).folder) if name.startswith('counts-')
  ]
  assert len(kept) == 1


def test_a_code_with_a_script_or_region_is_read_by_its_language(prepared):
  asked = policy(lexicon={'tr-TR': 'tr.tsv'})
  assert table_of(prepared, asked).languages == ('tr-TR',)


def test_a_task_that_nobody_registered_is_taken_for_english():
  assert registry.source_language('somebodys_task') == 'en'


def test_a_tokenizer_that_leaves_many_words_alone_is_refused(prepared):
  prepared.manifest['unspliceable_words'] = prepared.manifest['words'] // 10
  with pytest.raises(ValueError, match=r"10\.0% of its words.*\n?.*link_route = 'cache'"):
    table_of(prepared, policy())


def test_what_is_published_is_what_a_run_reads(prepared, tiny_tokenizers):
  asked = policy(lexicon={'tr': 'tr.tsv'}, word_ratio=0.6)
  plan = cache_plan.make_plan(
    'linking_en', 'train', cache_dir='cache', inputs=fingerprint.Inputs('hashes.json'),
    link=cache_plan.Link(asked, 3),
  )  # fmt: skip
  manifest = publish.publish(plan, 'corpus')

  with gzip.open('corpus/linking_en.train.jsonl.gz', 'rt', encoding='utf-8') as file:
    lines = [json.loads(line) for line in file]
  lexicons = linking.load_lexicons(asked)
  results = [
    substitute(
      text, lexicons, asked, asked.draws(3, 'linking_en', 0), document=key_of(text),
      lists=linking.load_lists(asked),
    )
    for text in english(60)
  ]  # fmt: skip
  assert [line['text'] for line in lines] == [result.text for result in results]
  assert manifest['dose']['replaced'] == sum(line['replaced'] for line in lines) > 100
  assert json.loads(pathlib.Path('corpus/linking_en.train.json').read_text()) == manifest
  assert str(pathlib.Path.cwd()) not in json.dumps(manifest)  # names of files, not of this machine

  tokenizer = Tokenizer(tiny_tokenizers['sentencepiece'])
  source = LinkedWindows(
    prepared, 40, 0, table=table_of(prepared, asked), policy=asked, seed_link=3,
    stage_tokens=10_000, tokenizer=tokenizer,
  )  # fmt: skip

  spliced = whole(source, 1)
  starts = np.flatnonzero(spliced.starts_M).tolist()
  read = [
    tokenizer.decode(spliced.tokens_M[a:b].tolist())
    for a, b in zip(starts, [*starts[1:], len(spliced.tokens_M)], strict=True)
  ]
  assert sorted(read) == sorted(line['text'] for line in lines)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'redraw': True}, 'LinkPolicy.redraw is True'),
    ({'mode': 'restore'}, "mode is 'restore'"),
    ({'word_ratio': ((0, 0.0), (9, 0.3))}, 'is a schedule'),
    ({'word_ratio': ((0, 0.0), (9, 0.3)), 'ratio_of': 'all'}, 'is a schedule'),
  ],
)
def test_what_a_text_cannot_have_is_refused_before_anything_is_read(prepared, changes, message):
  asked = dataclasses.replace(policy(), **changes)
  with pytest.raises(ValueError, match=message):
    cache_plan.make_plan(
      'linking_en', 'train', cache_dir='cache', inputs=fingerprint.Inputs('hashes.json'),
      link=cache_plan.Link(asked, 0),
    )  # fmt: skip


def test_a_shipped_list_is_no_list_of_another_language(prepared):
  content = policy(regime='content')
  linking.check_stop_words(content, 'eng')
  with pytest.raises(ValueError, match="stop_words is 'en', and the text is in 'sw'"):
    linking.check_stop_words(content, 'sw')
  linking.check_stop_words(policy(), 'sw')  # there they are only counted


def test_a_torn_table_is_an_error_that_names_it(prepared):
  folder = pathlib.Path(table_of(prepared, policy()).folder)
  (folder / 'table.json').unlink()
  with pytest.raises(OSError, match=folder.name):
    table_of(prepared, policy())
  assert not list(folder.parent.glob('*.partial'))
