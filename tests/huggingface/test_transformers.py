"""Against transformers itself; `make test-peers` runs it where that is installed."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlink.huggingface import config_json, read, weights
from jaxlink.model import decoder, mup
from jaxlink.model.shape import DecoderConfig
from tests.huggingface import variants

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

IDS = config_json.TextIds(2, 1, None)


def exported(folder, model, params, **kwargs):
  """Their model of our parameters."""
  plain = mup.fold(model, params)[0]
  described = config_json.to_json(
    dataclasses.replace(plain, vocabulary=variants.SIZE), IDS, dtype='float32'
  )
  (folder / 'config.json').write_text(json.dumps(described))
  variants.write_weights(folder, model, params, **kwargs)
  return _loaded(folder)


def _loaded(folder):
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager', output_loading_info=True
  )
  assert not any(info.values()), info
  return model.eval()


def run(model, rows):
  """The same; each fragment of a row is a row of its own."""
  logits = np.zeros((*rows['tokens'].shape, variants.SIZE), np.float32)
  model.zero_grad()
  weight = torch.tensor(variants.logit_weights(rows))
  for b, segments in enumerate(rows['segments']):
    for segment in set(segments.tolist()) - {0}:
      (here,) = np.nonzero(segments == segment)
      out = model(torch.tensor(rows['tokens'][b, here][None]).long()).logits[0]
      logits[b, here] = out.detach().numpy()
      (torch.log_softmax(out, -1) * weight[b, here]).sum().backward()
  return logits, {name: p.grad.numpy() for name, p in model.named_parameters()}


def _relative(a, b):
  return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize('name', variants.VARIANTS)
def test_logits_and_gradients_equal_those_of_transformers_packed_and_not(name, tmp_path):
  model = variants.config(name)
  params, rows = variants.params(model), variants.packed_rows()
  ours, gradients = variants.run(model, params, rows)
  theirs, their_gradients = run(exported(tmp_path, model, params), rows)
  real = rows['segments'] > 0
  np.testing.assert_allclose(
    ours[real], theirs[real], rtol=0, atol=1e-5 * np.abs(theirs[real]).max()
  )
  for where, gradient in variants.their_gradients(model, gradients):
    assert _relative(gradient, their_gradients[where]) < 1e-5, where


def test_a_model_with_mup_is_equal_without_it(tmp_path):
  model = dataclasses.replace(
    variants.config('llama, grouped'), mup=mup.MupConfig(base_width=8, base_layers=1)
  )
  params, rows = variants.params(model), variants.packed_rows()
  ours, _ = variants.run(model, params, rows)
  theirs, _ = run(exported(tmp_path, model, params), rows)
  real = rows['segments'] > 0
  np.testing.assert_allclose(
    ours[real], theirs[real], rtol=0, atol=1e-5 * np.abs(theirs[real]).max()
  )


@pytest.mark.parametrize('kind', ['Llama', 'Qwen3'])
@pytest.mark.parametrize('tied', [True, False])
def test_a_model_that_transformers_made_comes_back_bit_for_bit(kind, tied, tmp_path):
  torch.manual_seed(0)
  described = getattr(transformers, f'{kind}Config')(
    vocab_size=variants.SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
    rope_parameters={'rope_type': 'default', 'rope_theta': 5000.0}, tie_word_embeddings=tied,
  )  # fmt: skip
  theirs = getattr(transformers, f'{kind}ForCausalLM')(described)
  there, again = tmp_path / 'there', tmp_path / 'again'
  theirs.save_pretrained(there, max_shard_size='20KB')
  again.mkdir()
  fields = config_json.fields(json.loads((there / 'config.json').read_text()), str(there))
  assert fields['qk_norm'] == (kind == 'Qwen3')
  assert fields['rope_theta'] == 5000.0
  model = DecoderConfig(**{**fields, 'vocabulary': 256}, dtype='float32', attention='xla')
  read.check(str(there), model)
  _, shapes, _ = decoder.abstract_decoder(model)
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), shapes)
  params = read.params(str(there), model, abstract)
  assert not np.array(params['embed'][variants.SIZE :]).any()
  back = exported(again, model, params, shard_bytes=30_000)
  for name, tensor in theirs.state_dict().items():
    assert torch.equal(tensor, back.state_dict()[name]), name
  assert len(weights.weight_files(str(again))) > 2
  for name in ('hidden_size', 'num_key_value_heads', 'head_dim', 'rms_norm_eps', 'rope_parameters',
               'tie_word_embeddings', 'max_position_embeddings', 'vocab_size'):  # fmt: skip
    assert getattr(back.config, name) == getattr(described, name), name


def test_bfloat16_is_what_transformers_rounds_to(tmp_path):
  model = variants.config('llama, grouped')
  params = variants.params(model)
  whole, rounded = tmp_path / 'whole', tmp_path / 'rounded'
  whole.mkdir(), rounded.mkdir()
  theirs = exported(whole, model, params)
  back = exported(rounded, model, params, dtype='bfloat16')
  for name, tensor in theirs.state_dict().items():
    assert torch.equal(tensor.bfloat16().float(), back.state_dict()[name]), name
