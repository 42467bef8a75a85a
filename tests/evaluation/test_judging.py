"""Every kind of set has a verdict; a model that knows nothing scores at chance; records are kept."""

import dataclasses
import gzip
import json
import math

import jax
import numpy as np
import pytest

from jaxlink.evaluation import judging, records
from jaxlink.evaluation.items import Choice, EvaluationSet, Label, Question, Text
from jaxlink.evaluation.scoring import Scorer
from tests.evaluation.models import random_model, turkish

LINES = [line for line in turkish() if 6 < len(line.split()) < 30]


def choice_set(count: int = 400) -> EvaluationSet:
  """A real continuation against one of another line, the right one first or second."""
  items = []
  for n in range(count):
    words, other = LINES[n].split(), LINES[n + count].split()
    options = (' '.join(words[3:6]), ' '.join(other[3:6]))
    label = n % 2
    items.append(Choice(str(n), (' '.join(words[:3]),), options[:: 1 - 2 * label], label))
  return EvaluationSet('continuations', 'choice', 'tr', tuple(items))


def judge(found: EvaluationSet, **model) -> judging.Verdict:
  return judging.Judge(Scorer(random_model(**model)), found, write=False)()


def binomial(n: int, p: float, level: float = 0.999) -> tuple[float, float]:
  """The central interval of the share of successes."""
  log_p = [
    math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    + k * math.log(p) + (n - k) * math.log(1 - p)
    for k in range(n + 1)
  ]  # fmt: skip
  below = np.cumsum(np.exp(log_p))
  low, high = np.searchsorted(below, [(1 - level) / 2, (1 + level) / 2])
  return low / n, high / n


@pytest.mark.parametrize('seed', [0, 1])
def test_a_random_model_scores_at_chance(seed):
  verdict = judge(choice_set(), seed=seed, scale=1.0)  # as training begins
  for name in ('accuracy', 'accuracy_byte', 'accuracy_token', 'accuracy_pmi'):
    score = verdict.measured.scores[name]
    low, high = binomial(400, score.uniform)  # of which chance is what is left without lengths
    assert low <= score.value <= high, name
  assert verdict.measured.scores['accuracy_token'].uniform == 0.5
  assert verdict.cut == 0


def test_shuffled_labels_are_at_chance_whatever_the_model():
  found = choice_set()
  labels = np.random.default_rng(0).integers(2, size=400)
  items = tuple(
    dataclasses.replace(item, label=int(label))
    for item, label in zip(found.items, labels, strict=True)
  )
  verdict = judge(dataclasses.replace(found, items=items))
  low, high = binomial(400, 0.5)
  assert low <= verdict.measured.scores['accuracy'].value <= high


def test_the_order_of_options_and_items_changes_no_bit():
  found = choice_set(60)
  turned = tuple(
    dataclasses.replace(item, choices=item.choices[::-1], label=1 - item.label)
    for item in found.items[::-1]
  )
  one, two = judge(found), judge(dataclasses.replace(found, items=turned))
  for name, values in one.measured.items.items():
    assert (values == two.measured.items[name][::-1]).all(), name


def test_long_items_are_counted_and_stay():
  found = choice_set(20)
  long = Choice('long', (' '.join(LINES[:20]),), ('evet', 'hayır'), 0)
  verdict = judge(dataclasses.replace(found, items=(*found.items, long)), max_length=64)
  assert verdict.cut == 1
  assert len(verdict.measured.items['accuracy']) == 21


def test_texts_questions_and_classes_have_their_scores():
  texts = EvaluationSet('t', 'text', 'tr', tuple(Text(str(n), LINES[n]) for n in range(10)))
  assert list(judge(texts).measured.scores) == ['bits_per_byte']
  questions = EvaluationSet('q', 'question', 'tr', (Question('0', 'Başkent?', ('Ankara',)),))
  assert list(judge(questions).measured.scores) == ['bits_per_byte']
  splits = ['train'] * 40 + ['validation'] * 20 + ['test'] * 40
  rng = np.random.default_rng(0)
  labels = rng.integers(2, size=100)
  items = tuple(Label(str(n), LINES[n], int(labels[n]), splits[n]) for n in range(100))
  verdict = judge(EvaluationSet('l', 'label', 'tr', items, labels=('a', 'b')))
  score = verdict.measured.scores['accuracy']
  assert len(verdict.measured.items['accuracy']) == 40
  assert score.chance == max(np.mean(labels[60:]), 1 - np.mean(labels[60:]))
  low, high = binomial(40, 0.5)
  assert low <= score.value <= high  # the classes are coin flips


def test_a_probe_of_states_that_are_no_numbers_has_no_score_and_long_texts_are_counted():
  splits = ['train'] * 20 + ['validation'] * 10 + ['test'] * 20
  items = tuple(Label(str(n), ' '.join(LINES[n : n + 3]), n % 2, splits[n]) for n in range(50))
  found = EvaluationSet('l', 'label', 'tr', items, labels=('a', 'b'))
  model = random_model(max_length=32)
  verdict = judging.Judge(Scorer(model), found)(jax.tree.map(lambda x: x * np.nan, model.params))
  assert verdict.measured.scores['accuracy'].to_json()['value'] is None
  assert verdict.cut == 20


def test_a_probe_without_training_items_is_an_error():
  items = tuple(Label(str(n), LINES[n], n % 2) for n in range(4))
  with pytest.raises(ValueError, match='l has no items of split train, validation'):
    judge(EvaluationSet('l', 'label', 'tr', items, labels=('a', 'b')))


def test_a_part_of_a_set_for_a_probe_keeps_what_trains_it():
  splits = ['train'] * 4 + ['validation'] * 2 + ['test'] * 8
  items = tuple(Label(str(n), LINES[n], n % 2, splits[n]) for n in range(14))
  part = judging.limited(EvaluationSet('l', 'label', 'tr', items, labels=('a', 'b')), 2)
  assert [item.id for item in part.items] == ['0', '1', '2', '3', '4', '5', '6', '10']


def test_a_part_is_spread_over_the_set_and_is_another_set():
  found = choice_set(100)
  part = judging.limited(found, 10)
  assert [item.id for item in part.items] == [str(10 * n) for n in range(10)]
  assert part.identity != found.identity
  assert judging.limited(found, 0) is found
  assert judging.limited(found, 100) is found


def test_records_are_replaced_by_step_and_set_and_read_back(tmp_path):
  found = choice_set(10)
  record = {'step': 3, 'trained_tokens': 30, **records.make_record(found, judge(found))}
  records.write(tmp_path, [record])
  records.write(tmp_path, [{**record, 'cut': 7}, {**record, 'step': 1}])
  assert [(r['step'], r['cut']) for r in records.read(tmp_path)] == [(1, 0), (3, 7)]
  assert record['scores']['accuracy'].keys() == {
    'value', 'low', 'high', 'chance', 'better', 'uniform',
  }  # fmt: skip
  other = {**record, 'scores': {'f1': {'value': 1}}, 'contaminated': {'items': 2}}
  records.write(tmp_path, [other])
  records.write(tmp_path, [record])
  (both,) = [r for r in records.read(tmp_path) if r['step'] == 3]
  assert both['scores'].keys() == record['scores'].keys() | {'f1'}
  assert both['contaminated'] == {'items': 2}
  (tmp_path / records.FILE).write_text('{"step": 1\n')
  with pytest.raises(ValueError, match='line 1 is not a whole record'):
    records.read(tmp_path)


def test_what_was_measured_is_found_again_until_the_model_changes(tmp_path):
  model = tmp_path / 'model'
  model.mkdir()
  (model / 'weights').write_bytes(b'1')
  found = choice_set(4)
  verdict = judge(found)
  record = records.make_record(found, verdict)
  kept = records.Kept(tmp_path, records.model_key(model))
  assert kept.find(found.name, found.identity) is None
  path = kept.keep(record, records.item_lines(found, verdict))
  assert records.Kept(tmp_path, records.model_key(model)).find(found.name, found.identity) == record
  with gzip.open(path, 'rt', encoding='utf-8') as file:
    _, *lines = file.read().splitlines()
  assert [json.loads(line)['id'] for line in lines] == [item.id for item in found.items]
  assert [json.loads(line)['accuracy'] for line in lines] == verdict.measured.items[
    'accuracy'
  ].tolist()
  (model / 'weights').write_bytes(b'12')
  assert records.model_key(model) != kept._folder.name
