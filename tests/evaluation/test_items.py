import dataclasses
import json

import pytest

from jaxlink.evaluation import items
from jaxlink.evaluation.items import BadItem, Choice, EvaluationSet, Label, Question, Text

PREMISE = 'Yolcular sınıra ulaştı bu yüzden'
OPTIONS = ('devriye ajanı pasaportlarını kontrol etti.', 'devriye ajanı onları suçladı.')
GOOD = {'id': '3', 'context': PREMISE, 'choices': OPTIONS, 'label': 0}


def make(kind='choice', **fields):
  """A set of one item, and the settings of a set."""
  made = {
    'choice': Choice('3', (PREMISE,), OPTIONS, 0, group='effect'),
    'text': Text('0', 'Galler Meclis Üyeleri "kukla gibi görünmek"ten korkuyor'),
    'label': Label('548', 'Çeyrek mil koşusunun yarım mil koşusuna dönüşmesi', 1),
    'question': Question('7', 'Soru: Kaç?\nCevap:', ('2125', 'iki bin')),
  }[kind]
  labels = ('travel', 'sports') if kind == 'label' else ()
  settings = {'name': 'a', 'kind': kind, 'language': 'tr', 'items': (made,), 'labels': labels}
  return EvaluationSet(**{**settings, **fields})


@pytest.mark.parametrize('kind', items.KINDS)
def test_a_set_comes_back_from_its_folder_as_it_was_written(tmp_path, kind):
  found = make(kind, version=3, stop=('\n', '.'), tokens=5, licence='CC BY 4.0', source='here')
  items.write(found, tmp_path / 'a')
  assert items.read(tmp_path / 'a') == found
  assert items.read(tmp_path / 'a').identity == found.identity


def test_the_delimiter_has_a_likelihood_and_stands_after_no_empty_context():
  item = Choice('0', (PREMISE,), OPTIONS, 0)
  assert item.requests == [(PREMISE, ' ' + option) for option in OPTIONS]
  assert item.text == f'{PREMISE} {OPTIONS[0]}'
  assert Choice('0', ('',), OPTIONS, 1).requests == [('', option) for option in OPTIONS]
  each = Choice('0', ('Kupa', ''), ('büyük.', 'büyük.'), 1, delimiter='')
  assert each.requests == [('Kupa', 'büyük.'), ('', 'büyük.')]
  assert Question('0', 'Soru:', ('3', 'üç')).requests == [('Soru:', ' 3')]


def test_the_identity_is_of_items_and_of_what_answers_are_held_against():
  identities = [
    make().identity,
    make(version=2).identity,
    make(items=(Choice('3', (PREMISE,), OPTIONS, 1, group='effect'),)).identity,
    make(items=(Choice('3', (PREMISE,), OPTIONS[::-1], 0, group='effect'),)).identity,
    make('question').identity,
    make('question', answer='number').identity,
    make('question', stop=('.',)).identity,
  ]
  assert len(set(identities)) == len(identities)
  assert make(licence='x', source='y', name='b').identity == make().identity


BROKEN = [
  ({'choices': None}, "item '3': choices is None: it is a list of texts"),
  ({'choices': 'evet'}, "choices is 'evet': it is a list of texts"),
  ({'choices': ['evet']}, 'it has 1 choices: 2 or more'),
  ({'choices': ['evet', ' ']}, "choice 1 is ' ': an empty option has no likelihood"),
  ({'label': 2}, 'label is 2: it is 0 to 1'),
  ({'label': -1}, 'label is -1: it is 0 to 1'),
  ({'label': '0'}, "label is '0': it is a whole number"),
  ({'label': True}, 'label is True: it is a whole number'),
  (
    {'contexts': ['a', 'b', 'c'], 'context': ...},
    'it has 3 contexts: one, or one for each of its 2',
  ),
  ({'context': None}, 'contexts is .None.: it is a list of texts'),
  ({'choices': ...}, "'choices' is missing, which an item of kind 'choice' has"),
  ({'label': ...}, "'label' is missing"),
  ({'id': ...}, "a, item 'without id': 'id' is missing"),
  ({'lable': 0}, "unknown field 'lable'. Nearest: 'label'"),
]


@pytest.mark.parametrize(('change', 'message'), BROKEN)
def test_a_broken_choice_is_an_error_that_names_set_and_item(change, message):
  fields = {k: v for k, v in {**GOOD, **change}.items() if v is not ...}
  with pytest.raises(BadItem, match=message):
    items.parse('a', 'choice', fields)


@pytest.mark.parametrize(
  ('kind', 'fields', 'message'),
  [
    ('text', {'text': '\n'}, 'an empty text has no bits per byte'),
    ('label', {'text': ' ', 'label': 0}, 'an empty text has no class'),
    ('label', {'text': 'Spor', 'label': -1}, 'label is -1: it is 0 or more'),
    ('label', {'text': 'Spor', 'label': 0, 'split': 'dev'}, "split is 'dev': 'train'"),
    ('question', {'prompt': '', 'answers': ['3']}, 'its prompt is empty'),
    ('question', {'prompt': 'Kaç?', 'answers': []}, 'it has no answers'),
    ('question', {'prompt': 'Kaç?', 'answers': ['3', '']}, "answer 1 is '': an empty answer"),
  ],
)
def test_a_broken_item_of_another_kind_is_an_error(kind, fields, message):
  with pytest.raises(BadItem, match=message):
    items.parse('a', kind, {'id': '0', **fields})


def test_a_broken_set_is_an_error():
  with pytest.raises(ValueError, match=r"kind is 'choise'. Nearest: 'choice'"):
    EvaluationSet('a', 'choise', 'tr', make().items)
  with pytest.raises(BadItem, match='a has no items'):
    make(items=())
  with pytest.raises(BadItem, match="two items have the id '3'"):
    make(items=make().items * 2)
  with pytest.raises(BadItem, match='label is 2, and the set names 2 classes: 0 to 1'):
    make('label', items=(Label('0', 'Spor', 2),))


def test_files_that_were_changed_by_hand_are_noticed(tmp_path):
  items.write(make(), tmp_path)
  path = tmp_path / 'items.jsonl'
  changed = json.loads(path.read_text())
  changed['label'] = 1
  path.write_text(json.dumps(changed))
  with pytest.raises(BadItem, match='not those that were written there: remove the folder'):
    items.read(tmp_path)
  about = json.loads((tmp_path / 'set.json').read_text())
  (tmp_path / 'set.json').write_text(json.dumps({**about, 'format': 99}))
  with pytest.raises(BadItem, match='of format 99'):
    items.read(tmp_path)


def test_parsing_what_was_written_gives_the_same_item():
  for kind in items.KINDS:
    (item,) = make(kind).items
    assert items.parse('a', kind, json.loads(json.dumps(dataclasses.asdict(item)))) == item
