"""A trained run, exported by the real command, in transformers and in lm-evaluation-harness."""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation.records import read_evaluations
from jaxlink.huggingface import weights
from tests import tiny_project

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope='module')
def exported(project) -> tuple[tiny_project.Project, pathlib.Path]:
  """A run whose vocabulary is padded, trained on four devices, and its export."""
  folder = project.folder
  project.train(
    folder / 'padded', 'DecoderConfig.kv_heads = 1',
    'Run.mesh = @MeshConfig()', 'MeshConfig.data = 2', 'MeshConfig.fsdp = 2', devices=4,
  )  # fmt: skip
  command(project, folder / 'padded', '--to', folder / 'hf')
  return project, folder / 'hf'


def command(project, *arguments) -> str:
  """Runs the export command and returns what it printed."""
  done = subprocess.run(
    [sys.executable, '-m', 'jaxlink.export', *map(str, arguments)],
    env=project.environment(), cwd=project.folder, text=True, timeout=300, check=False,
    capture_output=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stdout


def _model(folder):
  return transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager'
  ).eval()


def _log_likelihoods(model, tokens, labels):
  with torch.no_grad():
    logits = model(torch.tensor([tokens])).logits[0].double()
  log_p = torch.log_softmax(logits, -1)
  return log_p[torch.arange(len(labels)), torch.tensor(labels)].numpy()


def test_it_scores_held_out_text_as_the_run_did(exported):
  project, folder = exported
  model = _model(folder)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  assert (
    not model.config.tie_word_embeddings or model.lm_head.weight is model.model.embed_tokens.weight
  )
  recorded = read_evaluations(project.folder / 'padded')[20]['bits_per_byte']
  for task, name in (('tiny_tr', 'tr_held_out.txt'), ('tiny_en', 'en_held_out.jsonl')):
    nats, size = 0.0, 0
    for document in sources.read_documents(str(project.folder / name)):
      bos, *ids = tokenizer(document.text)['input_ids']
      assert bos == tokenizer.bos_token_id == 2
      size += len(document.text.encode())
      for first in range(0, len(ids), 64):
        window = ids[first : first + 64]
        nats -= _log_likelihoods(model, [bos, *window[:-1]], window).sum()
    assert nats / math.log(2) / size == pytest.approx(recorded[task], rel=1e-5)


def test_autotokenizer_encodes_and_decodes_the_whole_text_as_the_tokenizer_does(exported):
  project, folder = exported
  ours = Tokenizer(str(project.folder / 'tokenizer.model'))
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  assert theirs.is_fast
  assert len(theirs) == ours.size
  names = ('tr.txt', 'en.jsonl', 'more.txt')
  texts = [d.text for n in names for d in sources.read_documents(str(project.folder / n))]
  for text in (*texts, ' a  b\n\tc ', 'x</s>y<s> <pad>', '▁ 猫\u200d👩 e\u0301 don’t'):
    ids = theirs(text)['input_ids']
    assert ids == [2, *ours.encode(text)]
    assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids) == text
  assert theirs('a', 'b')['input_ids'] == [2, *ours.encode('a'), *ours.encode('b')]
  assert (theirs.eos_token_id, theirs.pad_token_id, theirs.unk_token_id) == (1, 0, 3)


def test_it_generates_with_its_own_settings(exported):
  _, folder = exported
  model, tokenizer = _model(folder), transformers.AutoTokenizer.from_pretrained(folder)
  assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (2, 1)
  prompt = tokenizer('Türkiye', return_tensors='pt')
  out = model.generate(**prompt, max_new_tokens=8, do_sample=False)
  assert out.shape[1] > prompt['input_ids'].shape[1]


def test_files_of_a_few_kilobytes_hold_what_one_file_holds(exported):
  project, folder = exported
  printed = command(project, project.folder / 'padded@15', '--to', 'one@15')
  assert "from_pretrained('one@15')" in printed
  command(project, project.folder / 'padded', '--to', 'many', '--shard_size', '20KB')
  assert len(weights.weight_files(str(project.folder / 'many'))) > 3
  one, many = _model(folder).state_dict(), _model(project.folder / 'many').state_dict()
  assert all(torch.equal(one[name], many[name]) for name in one)
  earlier = _model(project.folder / 'one@15').state_dict()
  assert not torch.equal(one['model.norm.weight'], earlier['model.norm.weight'])


def test_lm_evaluation_harness_scores_it_as_the_definition_says(exported, tmp_path):
  pytest.importorskip('lm_eval')
  project, folder = exported
  model, tokenizer = _model(folder), transformers.AutoTokenizer.from_pretrained(folder)
  _write_items(tmp_path, project)
  for name in ('choice.yaml', 'rolling.yaml'):
    text = (HERE / 'lm_eval' / name).read_text(encoding='utf-8')
    (tmp_path / name).write_text(text.replace('FOLDER', str(tmp_path)), encoding='utf-8')
  # Of rolling tasks the harness gives the first token itself, and would score a second one.
  _evaluate(project, tmp_path, 'jaxlink_choice', f'pretrained={folder}')
  _evaluate(project, tmp_path, 'jaxlink_rolling', f'pretrained={folder},add_bos_token=False')
  choices = _samples(tmp_path, 'jaxlink_choice')
  assert len(choices) == 8
  for sample in choices:
    context, endings = sample['doc']['context'], sample['doc']['endings']
    for ending, response in zip(endings, sample['resps'], strict=True):
      ids = tokenizer(f'{context} {ending}')['input_ids']
      start = len(tokenizer(context)['input_ids'])
      ours = _log_likelihoods(model, ids[:-1], ids[1:])[start - 1 :].sum()
      assert float(response[0][0]) == pytest.approx(ours, rel=1e-4)
  texts = _samples(tmp_path, 'jaxlink_rolling')
  assert len(texts) == 6
  for sample in texts:
    ids = tokenizer(sample['doc']['text'])['input_ids']
    found = np.ravel(sample['resps'])[0]
    assert float(found) == pytest.approx(_rolling(model, ids), rel=1e-4)


def _write_items(folder, project):
  """Sentences of the held-out text with their own ending and another's; and whole paragraphs."""
  texts = [d.text for d in sources.read_documents(str(project.folder / 'tr_held_out.txt'))]
  words = [line.split() for text in texts for line in text.split('\n') if len(line.split()) > 8]
  items = [
    {'context': ' '.join(words[i][:5]), 'endings': [' '.join(w[5:8]) for w in (words[i], words[i + 1])],
     'answer': 0} for i in range(8)
  ]  # fmt: skip
  long = [d.text for d in sources.read_documents(str(project.folder / 'en_held_out.jsonl'))]
  rolling = [{'text': ' '.join(w[:20])} for w in words[:3]] + [{'text': text} for text in long[:3]]
  for name, lines in (('choice', items), ('rolling', rolling)):
    text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines)
    (folder / f'{name}.jsonl').write_text(text, encoding='utf-8')


def _evaluate(project, folder, task, arguments):
  done = subprocess.run(
    [sys.executable, '-m', 'lm_eval', '--model', 'hf', '--device', 'cpu', '--batch_size', '2',
     '--model_args', f'{arguments},dtype=float32,attn_implementation=eager', '--tasks', task,
     '--include_path', str(folder), '--log_samples', '--output_path', str(folder / 'out')],
    env={**project.environment(), 'HF_HUB_OFFLINE': '1', 'HF_DATASETS_OFFLINE': '1',
         'HF_HOME': str(folder / 'home')},
    text=True, timeout=600, check=False, capture_output=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]


def _samples(folder, task):
  (path,) = (folder / 'out').rglob(f'samples_{task}_*.jsonl')
  return [json.loads(line) for line in path.read_text(encoding='utf-8').split('\n') if line]


def _rolling(model, ids, length=64):
  """Each token once, in windows of `length` predictions; a later window is given the token before it.

  The last window reaches back, so that it is as long as the others.
  """
  first = min(length, len(ids) - 1)
  total, done = _log_likelihoods(model, ids[:first], ids[1 : first + 1]).sum(), first
  while done < len(ids) - 1:
    end = min(done + length, len(ids) - 1)
    begin = max(end - length, 0)
    scores = _log_likelihoods(model, ids[begin:end], ids[begin + 1 : end + 1])
    total, done = total + scores[done - begin :].sum(), end
  return total
