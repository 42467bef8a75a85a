"""A model as training begins knows nothing of the shipped sets: beyond what lengths give, it is at chance."""

import dataclasses
import importlib

import numpy as np
import pytest

from jaxlink.evaluation import judging
from jaxlink.evaluation.scoring import Scorer
from tests.evaluation.models import random_model
from tests.evaluation.test_judging import binomial

pytestmark = pytest.mark.slow
SETS = ('xcopa_tr', 'xcopa_sw', 'turblimp', 'blimp', 'exams_tr', 'xwinograd_en')


@pytest.fixture(scope='module')
def sets():

  from jaxlink.evaluation import registry

  for module in ('xcopa', 'turblimp', 'blimp', 'exams', 'xwinograd'):
    importlib.import_module(f'tasks.{module}')
  return {name: judging.limited(registry.read(name), 500) for name in SETS}


@pytest.mark.parametrize('name', SETS)
def test_a_model_without_training_is_at_what_lengths_give(sets, name):
  for seed in (0, 1):
    scorer = Scorer(random_model(scale=1.0, seed=seed))
    verdict = judging.Judge(scorer, sets[name])()
    for score_name in ('accuracy', 'accuracy_token'):
      score = verdict.measured.scores[score_name]
      low, high = binomial(len(sets[name].items), score.uniform)
      assert low <= score.value <= high, (seed, score_name, score)


@pytest.mark.parametrize('name', ['xcopa_tr', 'turblimp'])
def test_with_shuffled_labels_any_model_is_at_chance(sets, name):
  labels = np.random.default_rng(1).integers(2, size=len(sets[name].items))
  items = tuple(
    dataclasses.replace(item, label=int(label))
    for item, label in zip(sets[name].items, labels, strict=True)
  )
  found = dataclasses.replace(sets[name], items=items)
  verdict = judging.Judge(Scorer(random_model()), found)()
  for score_name in ('accuracy', 'accuracy_token', 'accuracy_byte'):
    score = verdict.measured.scores[score_name]
    low, high = binomial(len(items), score.chance)
    assert low <= score.value <= high, (score_name, score)
