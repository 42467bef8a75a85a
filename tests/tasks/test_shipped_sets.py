"""The evaluation data in tasks/evaluation: what it holds, and that every item of it is one."""

import collections
import importlib
import pathlib

import pytest

from jaxlink.evaluation import registry

MODULES = (
  'blimp',
  'turblimp',
  'xcopa',
  'exams',
  'xwinograd',
  'sib200',
  'xquad',
  'mgsm',
  'parallel',
)
FOLDER = pathlib.Path(__file__).parents[2] / 'tasks/evaluation'

# Items and identity. Whoever changes what a set asks raises its version, and this.
SHIPPED = {
  'blimp': (1340, '1-2c41d8d8fe06'),
  'turblimp': (957, '1-51827f5789bd'),
  'xcopa_sw': (500, '1-9abf53160b44'),
  'xcopa_tr': (500, '1-847d674b38b8'),
  'xcopa_vi': (500, '1-9681d92f296a'),
  'exams_tr': (392, '1-f8f6da9a84ea'),
  'exams_vi': (488, '1-3a3c3fd3afa7'),
  'xwinograd_en': (60, '1-01637e4929b1'),
  'xwinograd_fr': (60, '1-b6722b87b483'),
  'xwinograd_jp': (60, '1-e7297e3fd8dc'),
  'xwinograd_pt': (60, '1-3ef219e119c4'),
  'xwinograd_ru': (60, '1-ea02bbd4f630'),
  'sib200_en': (204, '1-ab4bffabf6c0'),
  'sib200_sw': (204, '1-9184f7d8aecd'),
  'sib200_tr': (204, '1-63c54b43e00f'),
  'sib200_vi': (204, '1-8ae2b5ebb865'),
  'sib200_probe_en': (1004, '1-c23ad2c8c85f'),
  'sib200_probe_sw': (1004, '1-c4f9c5ddb09b'),
  'sib200_probe_tr': (1004, '1-6d17faaba307'),
  'sib200_probe_vi': (1004, '1-315f93d92d5e'),
  'xquad_en': (133, '1-86628d19be67'),
  'xquad_tr': (133, '1-1bc64df841b0'),
  'xquad_vi': (133, '1-6730def3e3d0'),
  'mgsm_en': (100, '1-04ec8bae9f0b'),
  'mgsm_sw': (100, '1-b6a5f4f58b9d'),
  'flores_en': (300, '1-9ca7037838d2'),
  'flores_sw': (300, '1-c829686fd296'),
  'flores_tr': (300, '1-27c89545d006'),
  'flores_vi': (300, '1-1d10a111622b'),
  'ntrex_en': (200, '1-ee5011f11a7f'),
  'ntrex_sw': (200, '1-2751e4b5718b'),
  'ntrex_tr': (200, '1-419ed4607607'),
  'ntrex_vi': (200, '1-df3e782c38c7'),
}


@pytest.fixture(scope='module', autouse=True)
def modules():
  return {name: importlib.import_module(f'tasks.{name}') for name in MODULES}


def of_tasks(modules):
  """The sets of these modules, whatever else is registered."""
  return {
    name: found for name, found in registry.SETS.items()
    if getattr(found.items, 'func', found.items).__module__.removeprefix('tasks.') in modules
  }  # fmt: skip


def test_all_that_is_shipped_is_read_and_asks_what_it_asked(modules):
  found = {}
  for name in of_tasks(modules):
    try:
      read = registry.read(name)
    except FileNotFoundError:
      continue
    found[name] = (len(read.items), read.identity)
  assert found == SHIPPED


def test_a_file_that_is_not_shipped_is_named_with_its_folder_and_where_it_is_published(
  modules, tmp_path, monkeypatch
):
  for module in modules.values():
    monkeypatch.setattr(module, 'DATA', tmp_path)
  sets = of_tasks(modules)
  assert len(sets) == 125
  for name, found in sets.items():
    with pytest.raises(FileNotFoundError) as error:
      registry.read(name)
    assert str(tmp_path) in str(error.value)
    assert 'JAXLINK_EVALUATION' in str(error.value)
    assert found.source.split(',')[0].split('. ')[0] in str(error.value)
    assert found.licence


@pytest.mark.parametrize(('language', 'causes'), [('sw', 213), ('tr', 199), ('vi', 250)])
def test_xcopa_is_balanced_and_asked_with_connecting_words(language, causes):
  found = registry.read(f'xcopa_{language}').items
  assert collections.Counter(item.label for item in found) == {0: 250, 1: 250}
  assert collections.Counter(item.group for item in found) == {
    'cause': causes,
    'effect': 500 - causes,
  }


def test_xcopa_drops_the_full_stop_and_makes_the_options_go_on():
  item = registry.read('xcopa_tr').items[0]
  assert item.requests == [
    ('Ürün balonlu naylonla paketlenmişti bu yüzden', ' kırılgandı.'),
    ('Ürün balonlu naylonla paketlenmişti bu yüzden', ' küçüktü.'),
  ]


def test_minimal_pairs_are_whole_sentences_that_differ_by_phenomenon():
  for name, groups, each in (('blimp', 13, None), ('turblimp', 16, 60)):
    found = registry.read(name).items
    assert all(c == '' for item in found for c in item.contexts)
    assert all(item.label == 0 and item.choices[0] != item.choices[1] for item in found)
    counts = collections.Counter(item.group for item in found)
    assert len(counts) == groups
    assert each is None or set(counts.values()) <= {each - 2, each - 1, each}
  paradigms = collections.Counter(i.id.split(':')[0] for i in registry.read('blimp').items)
  assert (len(paradigms), set(paradigms.values())) == (67, {20})


def test_xwinograd_scores_the_same_text_after_either_candidate():
  item = registry.read('xwinograd_en').items[0]
  assert item.contexts == (
    'The city councilmen refused the demonstrators a permit because The city councilmen',
    'The city councilmen refused the demonstrators a permit because the demonstrators',
  )
  assert item.choices == ('feared violence.',) * 2
  assert item.label == 0
  for code in ('en', 'fr', 'jp', 'pt', 'ru'):
    for item in registry.read(f'xwinograd_{code}').items:
      assert len(set(item.choices)) == 1
      assert item.contexts[0] != item.contexts[1]


def test_parallel_text_has_the_same_ids_in_all_languages():
  for names in (('flores_en', 'flores_sw', 'flores_tr', 'flores_vi'), ('ntrex_en', 'ntrex_tr')):
    ids = [[item.id for item in registry.read(name).items] for name in names]
    assert all(other == ids[0] for other in ids)


def test_topics_are_the_same_in_all_languages_and_both_forms():
  for code in ('en', 'sw', 'tr', 'vi'):
    choices = {i.id: i for i in registry.read(f'sib200_{code}').items}
    classes = registry.read(f'sib200_probe_{code}')
    splits = collections.Counter(item.split for item in classes.items)
    assert splits == {'train': 701, 'validation': 99, 'test': 204}
    assert len(classes.labels) == 7
    for item in classes.items:
      if item.split == 'test':
        assert choices[item.id].label == item.label
        assert choices[item.id].contexts[0].startswith(item.text + '\n')
    assert len({item.choices for item in choices.values()}) == 1


def test_questions_end_where_the_answer_begins():
  asked = registry.read('mgsm_sw')
  assert asked.answer == 'number'
  for item in asked.items:
    assert item.prompt.startswith('Swali: ')
    assert item.prompt.endswith('\nAnswer:')
    assert item.answers[0].isdigit()
  for code, word in (('en', 'Answer:'), ('tr', 'Cevap:'), ('vi', 'Trả lời:')):
    for item in registry.read(f'xquad_{code}').items:
      assert item.prompt.endswith('\n\n' + word)
      assert '\ufeff' not in item.prompt
      assert item.answers[0] in item.prompt


def test_examinations_say_for_whom_they_are_no_evaluation():
  warned = [name for name, one in registry.SETS.items() if 'No evaluation for' in one.note]
  assert sorted(warned) == ['exams_tr', 'exams_tr_train']
  item = registry.read('exams_tr').items[0]
  assert item.contexts[0].startswith('Soru: ')
  assert item.contexts[0].endswith('\nCevap:')


def test_the_data_is_small_and_its_readme_has_licence_and_source_of_each_folder(modules):
  files = [path for path in FOLDER.rglob('*') if path.is_file()]
  assert max(path.stat().st_size for path in files) < 300_000
  assert sum(path.stat().st_size for path in files) < 1_200_000
  readme = (FOLDER / 'README.md').read_text(encoding='utf-8')
  rows = [line.split('|') for line in readme.splitlines() if line.startswith('| `')]
  folders = {path.name for path in FOLDER.iterdir() if path.is_dir()}
  assert {row[1].split('`')[1].split('/')[0] for row in rows} == folders
  for row in rows:
    assert 'github.com/' in row[4]
    assert 'commit ' in row[4]
    assert 'CC BY' in row[5] or 'Apache' in row[5]
