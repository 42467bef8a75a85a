import functools
import gzip
import json
import math

import pytest
import seqio

from jaxlink.evaluation import reading, register, registry
from jaxlink.evaluation.items import BadItem, Choice
from jaxlink.evaluation.reading import json_lines
from jaxlink.evaluation.register import register_evaluation

pytestmark = pytest.mark.usefixtures('forget_sets')

ROWS = [
  {'context': 'Yolcular sınıra ulaştı bu yüzden', 'choices': ['ajan yolculara baktı.', 'ajan kaçtı.'], 'label': 0},
  {'context': '', 'choices': ['Su aktı.', 'Su akan.', 'Su aktık.'], 'label': 2},
]  # fmt: skip


def rows(found=ROWS):
  return iter([dict(row) for row in found])


def add(name='reg_set', items=rows, **settings):
  return register_evaluation(name, items, **{'kind': 'choice', 'language': 'tr', **settings})


def decoded(dataset):
  keys = ('inputs_pretokenized', 'targets_pretokenized')
  return [tuple(e[k].decode() for k in keys) for e in dataset.as_numpy_iterator()]


def test_a_set_is_a_seqio_task_with_an_example_for_each_request():
  add()
  task = seqio.get_mixture_or_task('reg_set')
  dataset = task.get_dataset(sequence_length=None, split='test', shuffle=False)
  examples = list(dataset.as_numpy_iterator())
  items = register.read_task('reg_set').items
  assert decoded(dataset) == [request for item in items for request in item.requests]
  assert [e['idx'].tolist() for e in examples] == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]
  assert [bool(e['is_correct']) for e in examples] == [True, False, False, False, True]
  vocabulary = seqio.ByteVocabulary()
  for example in examples:  # ids, as any model of SeqIO reads them
    assert (
      vocabulary.decode(example['targets'].tolist()) == example['targets_pretokenized'].decode()
    )
    assert json.loads(example['item'])['id'] == str(example['idx'][0])


def test_the_vocabulary_of_any_model_can_be_put_in_as_seqio_does_it():
  add()
  vocabulary = seqio.ByteVocabulary(extra_ids=7)
  seqio.helpers.mixture_or_task_with_new_vocab('reg_set', 'reg_other', new_vocab=vocabulary)
  task = seqio.TaskRegistry.get('reg_other')
  assert task.output_features['targets'].vocabulary is vocabulary
  found = task.get_dataset(sequence_length=None, split='test', shuffle=False)
  assert len(decoded(found)) == 5


@pytest.mark.parametrize(
  ('kind', 'fields', 'requests'),
  [
    ('text', {'text': 'Galler Meclisi'}, [('', 'Galler Meclisi')]),
    ('label', {'text': 'Koşu', 'label': 1}, [('Koşu', 'spor')]),
    ('question', {'prompt': 'Soru:', 'answers': ['üç', '3']}, [('Soru:', ' üç')]),
  ],
)
def test_every_kind_has_requests(kind, fields, requests):
  labels = ('seyahat', 'spor') if kind == 'label' else ()
  add(items=functools.partial(rows, [fields]), kind=kind, labels=labels)
  task = seqio.get_mixture_or_task('reg_set')
  found = task.get_dataset(sequence_length=None, split='test', shuffle=False)
  assert decoded(found) == requests
  assert register.read_task('reg_set').items == registry.read('reg_set').items


def test_items_of_a_labelled_set_are_in_their_splits():
  given = [{'text': s, 'label': 0, 'split': s} for s in ('test', 'train', 'validation', 'train')]
  add(items=functools.partial(rows, given), kind='label', labels=('a', 'b'))
  task = seqio.TaskRegistry.get('reg_set')
  counts = {s: len(list(task.source.get_dataset(s))) for s in task.source.splits}
  assert counts == {'train': 2, 'validation': 1, 'test': 1}
  assert len(register.read_task('reg_set').items) == 4


def make_evaluator():
  """What SeqIO's own evaluator finds for a model that gives each example a score, or ids."""
  evaluator = seqio.Evaluator(
    'reg_set', feature_converter=seqio.EncDecFeatureConverter(pack=False), eval_split='test'
  )

  def evaluate(model):
    of = lambda dataset: [(i, model(e)) for i, e in dataset.as_numpy_iterator()]  # noqa: E731
    found, _ = evaluator.evaluate(compute_metrics=True, predict_fn=of, score_fn=of)
    return dict(found.result()['reg_set'])

  return evaluate


def ids(example):
  return [i for i in example['decoder_target_tokens'].tolist() if i]


def test_seqios_evaluator_finds_the_accuracy_of_a_model():
  add()
  evaluate = make_evaluator()
  # The right options are the longest; a tie goes to the first.
  assert evaluate(lambda e: len(ids(e))) == {'accuracy': 1.0}
  assert evaluate(lambda e: -len(ids(e))) == {'accuracy': 0.0}
  assert evaluate(lambda e: 0.0) == {'accuracy': 0.5}


def test_seqios_evaluator_finds_bits_per_byte():
  add(items=functools.partial(rows, [{'text': 'Gül'}, {'text': 'Yağmur'}]), kind='text')
  found = make_evaluator()(lambda e: -2.0)
  assert found == pytest.approx({'bits_per_byte': 4 / math.log(2) / 11})


def test_seqios_evaluator_finds_exact_matches():
  given = [{'prompt': 'Kaç?', 'answers': [a, 'dört']} for a in ('üç', 'beş')]
  add(items=functools.partial(rows, given), kind='question')
  written = seqio.ByteVocabulary().encode(' üç ')
  assert make_evaluator()(lambda e: written) == {'exact_match': 0.5}


def test_registering_reads_nothing(tmp_path):
  add(items=json_lines(tmp_path / 'not_there.jsonl'))
  with pytest.raises(FileNotFoundError, match=r'not_there\.jsonl'):
    register.read_task('reg_set')


def test_fifteen_lines_make_a_set_of_any_jsonl(tmp_path):
  path = tmp_path / 'my.jsonl.gz'
  lines = [
    {'question': 'Mji mkuu?', 'options': ['Dodoma', 'Nairobi'], 'answer': 'Dodoma', 'note': 1},
    {'question': 'Mto?', 'options': ['Nile', 'Tana'], 'answer': 'B', 'note': 2},
    {'question': 'Ziwa?', 'options': ['Victoria', 'Tana'], 'answer': 1, 'note': 3},
    {
      'question': 'Mlima?',
      'options': {'text': ['Kenya', 'Meru'], 'label': ['1', '2']},
      'answer': '2',
    },
  ]
  path.write_bytes(gzip.compress('\n'.join(map(json.dumps, lines)).encode()))
  columns = {'question': 'context', 'options': 'choices', 'answer': 'label'}
  add(items=json_lines(path, **columns), language='sw')
  found = register.read_task('reg_set').items
  assert [item.label for item in found] == [0, 1, 1, 1]
  assert found[3] == Choice('4', ('Mlima?',), ('Kenya', 'Meru'), 1)


@pytest.mark.parametrize(
  ('line', 'columns', 'message'),
  [
    ('{"q": 1', {}, 'line 1: not JSON'),
    ('[1, 2]', {}, 'line 1: .* is not an object'),
    ('{"context": "a"}', {}, "'choices' is missing"),
    ('{"question": "a"}', {'questoin': 'context'}, "no column 'questoin'.*Nearest: 'question'"),
    ('{"context": "a", "choices": ["b", "c"], "label": "e"}', {}, "label is 'e': it is the number"),
    ('{"context": "a", "choices": ["b", "c"], "label": 2}', {}, 'label is 2: it is 0 to 1'),
    ('{"context": "a", "choices": ["b", ""], "label": 0}', {}, 'an empty option has no likelihood'),
    (
      '{"context": "a", "choices": ["b", "c"], "label": 0, "extra": 1}',
      {},
      "unknown field 'extra'",
    ),
  ],
)
def test_a_broken_line_is_an_error_that_names_its_place(tmp_path, line, columns, message):
  path = tmp_path / 'my.jsonl'
  path.write_text(line + '\n')
  add(items=json_lines(path, **columns))
  with pytest.raises(BadItem, match=message):
    register.read_task('reg_set')


def test_an_unknown_field_is_an_error_at_once():
  with pytest.raises(ValueError, match=r"no such field. Nearest: 'choices'"):
    json_lines('my.jsonl', options='choises')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'kind': 'choise'},
      r"kind is 'choise'. Nearest: 'choice'. Kinds: choice, text, label, question",
    ),
    ({'language': 'tt2'}, "unknown language 'tt2'"),
    ({'language': 'turkish'}, "unknown language 'turkish'. Nearest: 'tr'"),
    ({'language': 'xx'}, "unknown language 'xx'"),
    ({'language': ''}, "unknown language ''"),
    ({'name': 'a-b'}, 'letters, digits, underscores'),
    ({'items': ROWS}, 'items is list: give a function without arguments'),
    ({'labels': ('a', 'b')}, "a set of kind 'choice' names none"),
    ({'kind': 'label'}, "a set of kind 'label' names its classes, two or more"),
    ({'answer': 'numbre'}, "answer is 'numbre'. Nearest: 'number'"),
    ({'stop': '\n'}, 'a list of texts'),
    ({'tokens': 0}, 'tokens 0'),
  ],
)
def test_a_wrong_setting_is_an_error_and_registers_nothing(settings, message):
  before = set(seqio.TaskRegistry.names())
  with pytest.raises(ValueError, match=message):
    add(**settings)
  assert set(seqio.TaskRegistry.names()) == before
  assert 'reg_set' not in registry.SETS


@pytest.mark.parametrize('language', ['tr', 'tur', 'zh-CN', 'swh', 'qaa', 'x-clone'])
def test_codes_of_iso_639_and_made_up_languages_are_known(language):
  add(language=language)
  assert registry.SETS['reg_set'].language == language


def test_a_name_is_registered_once():
  add()
  with pytest.raises(ValueError, match='a task of this name is registered already'):
    add()


def test_a_table_is_read_without_quoting_and_checked(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes('\ufeffgood;bad\r\n"Su" aktı.;Su\u2028akan.\r\n'.encode())
  assert list(reading.table(path, ';')) == [{'good': '"Su" aktı.', 'bad': 'Su\u2028akan.'}]
  path.write_text('good;bad\na;b;c\n')
  with pytest.raises(BadItem, match=r'a\.csv, line 2: 3 columns, and it has 2'):
    list(reading.table(path, ';'))


def test_a_file_is_found_packed_or_not_and_a_missing_one_is_named(tmp_path):
  (tmp_path / 'tr').mkdir()
  (tmp_path / 'tr/test.jsonl.gz').write_bytes(gzip.compress(b'{}\n'))
  assert reading.find(tmp_path, 'tr/test.jsonl', 'there').name == 'test.jsonl.gz'
  assert reading.lines(tmp_path / 'tr/test.jsonl.gz') == ['{}']
  with pytest.raises(FileNotFoundError, match=r"No file 'tr/tset.jsonl' in .*Nearest: 'test.jsonl"):
    reading.find(tmp_path, 'tr/tset.jsonl', 'github.com/a/b')
