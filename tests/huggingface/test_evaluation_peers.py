"""Our scores beside transformers' and lm-evaluation-harness's, item by item, on real sets; by `make test-peers`."""

import math
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxlink import run_model
from jaxlink.evaluation import answers, items, judging, measures, prepare
from jaxlink.evaluation.scoring import Scorer
from jaxlink.huggingface import write
from tests import tiny_project
from tests.huggingface import runs
from tools import harness_tasks

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
lm_eval = pytest.importorskip('lm_eval')
datasets = pytest.importorskip('datasets')

from jaxlink.evaluation import harness  # noqa: E402 (needs lm_eval)

MODELS = ('llama', 'qwen3', 'trained')
SETS = {'xcopa_tr': 40, 'blimp': 67, 'exams_tr': 30}  # items of each
# Ours → the harness's.
ACCURACIES = {
  'accuracy': 'acc', 'accuracy_char': 'acc_norm', 'accuracy_byte': 'acc_bytes', 'accuracy_pmi': 'acc_mutual_info',
}  # fmt: skip
NEW = 12  # tokens that are written


class Made(NamedTuple):
  """A model of ours, and its export."""

  model: run_model.RunModel
  run: str
  folder: pathlib.Path


@pytest.fixture(scope='module', params=MODELS)
def made(request, tmp_path_factory) -> Made:
  folder = tmp_path_factory.mktemp(request.param)
  if request.param == 'trained':
    # The harness ends at an option that is longer than the model.
    project = request.getfixturevalue('project')
    project.train(folder / 'run', 'DecoderConfig.max_length = 192', *tiny_project.QUIET)
    run = f'{folder}/run@20'
  else:
    run = str(folder / 'run')
    qwen3 = request.param == 'qwen3'
    runs.make(folder / 'run', width=32, max_length=128, qk_norm=qwen3, tied_embeddings=not qwen3)
  write.export(run, str(folder / 'hf'))
  return Made(run_model.load(run), run, folder / 'hf')


@pytest.fixture(scope='module')
def sets(tmp_path_factory) -> dict[str, items.EvaluationSet]:
  """Items from all over each set. TensorFlow is left to the child that prepares them: PyTorch does not bear it."""
  modules = ('tasks.xcopa', 'tasks.blimp', 'tasks.exams')
  folders = prepare.prepared(tuple(SETS), modules, str(tmp_path_factory.mktemp('sets')))
  return {name: judging.limited(items.read(folders[name]), count) for name, count in SETS.items()}


@pytest.fixture(scope='module')
def theirs(made):
  return transformers.AutoModelForCausalLM.from_pretrained(
    made.folder, dtype=torch.float32, attn_implementation='eager'
  ).eval()


def log_p(theirs, ids: list[int]) -> np.ndarray:
  """Of each id but the first, after all before it."""
  with torch.no_grad():
    logits = theirs(torch.tensor([ids[:-1]])).logits[0].double()
  return torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def test_log_likelihoods_equal_those_of_transformers(made, theirs, sets):
  requests = [r for name in SETS for item in sets[name].items[:12] for r in item.requests]
  encode = transformers.AutoTokenizer.from_pretrained(made.folder).encode
  room = made.model.config.max_length + 1
  found = Scorer(made.model).log_likelihoods(requests)
  for (context, continuation), one in zip(requests, found, strict=True):
    whole, before = encode(context + continuation), encode(context.rstrip())
    expected = log_p(theirs, whole[-room:])[-(len(whole) - len(before)) :]
    assert one.nats == pytest.approx(expected.sum(), abs=1e-4)
    assert one.tokens == len(whole) - len(before)
    assert one.cut == (len(whole) > room)


# ── lm-evaluation-harness ────────────────────────────────────────────────────


@pytest.fixture(scope='module')
def tasks(tmp_path_factory, sets) -> pathlib.Path:
  """Task files, as tools/harness_tasks.py writes them."""
  folder = tmp_path_factory.mktemp('tasks')
  for found in sets.values():
    harness_tasks.write(found, folder)
  questions = [item.contexts[0] for item in sets['exams_tr'].items[:6]]
  texts = [*questions, '\n\n'.join(questions), sets['blimp'].items[0].choices[0]]
  whole = tuple(items.Text(str(n), text) for n, text in enumerate(texts))
  harness_tasks.write(items.EvaluationSet('whole', 'text', 'tr', whole), folder)
  prompts = [*(item.contexts[0] for item in sets['xcopa_tr'].items[:9]), 'Türkiye', texts[6]]
  harness_tasks.write(asked(prompts), folder)
  datasets.config.HF_DATASETS_CACHE = folder / 'cache'
  return folder


def asked(prompts: list[str]) -> items.EvaluationSet:
  """Questions whose answers do not matter."""
  of_set = tuple(items.Question(str(n), prompt, ('18',)) for n, prompt in enumerate(prompts))
  return items.EvaluationSet('asked', 'question', 'tr', of_set, stop=('\n', '.'), tokens=NEW)


def samples(tasks, which: str, names: list[str], **arguments) -> dict[str, list[dict[str, Any]]]:
  """What the harness found, item by item."""
  from lm_eval.tasks import TaskManager

  done = lm_eval.simple_evaluate(
    model=which, model_args=arguments, tasks=names, batch_size=4, log_samples=True, bootstrap_iters=0,
    device='cpu',
    task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
  )  # fmt: skip
  return {name: sorted(done['samples'][name], key=lambda s: s['doc_id']) for name in names}


HF = {'dtype': 'float32', 'attn_implementation': 'eager'}


def test_choices_are_scored_and_chosen_as_the_harness_does(made, tasks, sets):
  names = [f'{name}_local' for name in SETS]
  of_hf = samples(tasks, 'hf', names, pretrained=str(made.folder), **HF)
  of_adapter = samples(tasks, 'jaxlink', names, model=made.run)
  scorer = Scorer(made.model)
  chosen = 0
  for name in SETS:
    found = sets[name]
    hf, adapter = of_hf[f'{name}_local'], of_adapter[f'{name}_local']
    ours = judging.Judge(scorer, found)().measured.items
    assert len(hf) == len(adapter) == len(found.items)
    for n, item in enumerate(found.items):
      K = len(item.choices)
      wanted = [one.nats for one in scorer.log_likelihoods(item.requests)]
      for sample in (hf[n], adapter[n]):
        assert sample['doc']['choices'] == list(item.choices)
        nats = [float(response[0][0]) for response in sample['resps'][:K]]
        assert nats == pytest.approx(wanted, abs=1e-4)
        for mine, metric in ACCURACIES.items():
          if mine in ours:
            credit = ours[mine][n]
            # EXAMS has questions with the same option twice, of which the harness takes the first.
            assert credit == sample[metric] or (0 < credit < 1 and len(set(item.choices)) < K), (
              name,
              item.id,
              mine,
            )
            chosen += 1
      greedy = [[bool(r[0][1]) for r in sample['resps']] for sample in (hf[n], adapter[n])]
      assert greedy[0] == greedy[1]
  assert chosen == 2 * (4 * (SETS['xcopa_tr'] + SETS['exams_tr']) + 3 * SETS['blimp'])


def test_whole_texts_have_the_harness_bits_per_byte(made, tasks):
  arguments = {'pretrained': str(made.folder), 'add_bos_token': False}
  hf = samples(tasks, 'hf', ['whole_local'], **arguments, **HF)['whole_local']
  adapter = samples(tasks, 'jaxlink', ['whole_local'], model=made.run)['whole_local']
  scorer = Scorer(made.model)
  windows = 0
  for theirs, ours in zip(hf, adapter, strict=True):
    text = ours['doc']['text']
    tokens = len(made.model.tokenizer.encode(text))
    nats = float(np.ravel(ours['resps'])[0])
    assert nats == pytest.approx(float(np.ravel(theirs['resps'])[0]), abs=2e-4)
    (own,) = scorer.rolling([text])
    if tokens <= made.model.config.max_length:  # in one window there is one way
      assert own.nats == pytest.approx(nats, abs=1e-4)
      (one,) = measures.measure_texts([items.Text('0', text)], [own]).items['bits']
      assert one / len(text.encode()) == pytest.approx(-nats / math.log(2) / len(text.encode()))
    windows += tokens > made.model.config.max_length
  assert windows


def test_what_is_written_is_what_transformers_writes(made, tasks):
  hf = samples(tasks, 'hf', ['asked_local'], pretrained=str(made.folder), **HF)['asked_local']
  adapter = samples(tasks, 'jaxlink', ['asked_local'], model=made.run)['asked_local']
  found = asked([one['doc']['prompt'] for one in adapter])
  written, cut = answers.generate_answers(made.model, found)
  room = made.model.config.max_length - NEW
  for n, (theirs, ours) in enumerate(zip(hf, adapter, strict=True)):
    assert written[n] == ours['resps'][0][0]
    if len(made.model.tokenizer.encode(found.items[n].prompt)) < room:
      assert ours['resps'][0][0] == theirs['resps'][0][0]
  assert any(written)
  assert cut == sum(len(made.model.tokenizer.encode(q.prompt)) >= room for q in found.items)


def test_the_command_is_lm_evals_with_our_model(made, tasks, tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'jaxlink.evaluation.harness', '--model', 'jaxlink', '--model_args',
     f'model={made.run}', '--tasks', 'xcopa_tr_local,asked_local', '--include_path', str(tasks),
     '--batch_size', '4', '--limit', '4', '--output_path', str(tmp_path / 'out')],
    env={**os.environ, 'HF_HUB_OFFLINE': '1'}, cwd=tiny_project.ROOT, text=True, timeout=600, check=False,
    capture_output=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'xcopa_tr_local' in done.stdout
  assert 'acc_mutual_info' in done.stdout


def test_settings_that_the_model_does_not_have_are_refused(made):
  with pytest.raises(ValueError, match=r"'modell'\. Nearest: 'model'"):
    harness.HarnessModel(modell=made.run)
  with pytest.raises(ValueError, match='--model_args names no model'):
    harness.HarnessModel()
  with pytest.raises(ValueError, match='max_batch_size is 8'):
    harness.HarnessModel(made.run, max_batch_size=8)
  with pytest.raises(FileNotFoundError, match='there is no directory'):
    harness.HarnessModel(str(made.folder / 'missing'))
