import dataclasses
import json

import pytest

from jaxlink.huggingface import config_json
from jaxlink.model.mup import MupConfig
from tests.huggingface import variants

IDS = config_json.TextIds(bos=2, eos=1, pad=0)


def test_a_llama_is_described_with_every_field_that_decides_what_it_computes():
  model = dataclasses.replace(variants.config('llama, grouped'), norm_epsilon=1e-5)
  described = config_json.to_json(model, IDS, dtype='bfloat16')
  assert described == {
    'architectures': ['LlamaForCausalLM'],
    'model_type': 'llama',
    'vocab_size': 200,
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 8,
    'hidden_act': 'silu',
    'max_position_embeddings': 64,
    'rms_norm_eps': 1e-5,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 500_000.0},
    'rope_theta': 500_000.0,  # what version 4 reads
    'tie_word_embeddings': True,
    'attention_bias': False,
    'mlp_bias': False,
    'attention_dropout': 0.0,
    'bos_token_id': 2,
    'eos_token_id': 1,
    'pad_token_id': 0,
    'dtype': 'bfloat16',
    'torch_dtype': 'bfloat16',
    'use_cache': True,
  }


def test_qk_norm_makes_it_a_qwen3():
  described = config_json.to_json(variants.config('qwen3, odd heads, padded'), IDS, dtype='float32')
  assert described['architectures'] == ['Qwen3ForCausalLM']
  assert described['model_type'] == 'qwen3'
  assert described['head_dim'] == 16
  assert (described['use_sliding_window'], described['sliding_window']) == (False, None)


@pytest.mark.parametrize(('setting', 'value'), [('window', 32), ('soft_cap', 30.0), ('heads', 3)])
def test_what_neither_can_express_is_refused_by_name(setting, value):
  changes = {setting: value, 'kv_heads': 1, 'head_size': 16}
  model = dataclasses.replace(variants.config('llama'), **changes)
  with pytest.raises(ValueError, match=rf'DecoderConfig\.{setting} is {value}'):
    config_json.to_json(model, IDS, dtype='float32')


@pytest.mark.parametrize('name', variants.VARIANTS)
def test_what_was_written_is_read_as_the_same_decoder(name):
  model = variants.config(name)
  described = json.loads(json.dumps(config_json.to_json(model, IDS, dtype='float32')))
  config_json.check_same(model, config_json.fields(described, 'there'), 'there')


def test_files_of_version_4_and_fields_that_are_left_out_are_understood():
  old = {
    'model_type': 'llama', 'vocab_size': 32000, 'hidden_size': 2048, 'intermediate_size': 5632,
    'num_hidden_layers': 22, 'num_attention_heads': 32, 'num_key_value_heads': 4,
    'rope_theta': 20_000, 'rope_scaling': None, 'rms_norm_eps': 1e-05, 'hidden_act': 'silu',
  }  # fmt: skip
  assert config_json.fields(old, 'there') == {
    'layers': 22, 'width': 2048, 'heads': 32, 'kv_heads': 4, 'head_size': 64, 'feedforward': 5632,
    'vocabulary': 32000, 'max_length': 2048, 'rope_theta': 20_000.0, 'norm_epsilon': 1e-5,
    'qk_norm': False, 'tied_embeddings': False,
  }  # fmt: skip
  assert config_json.fields({**old, 'model_type': 'qwen3'}, 'there')['head_size'] == 128


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'model_type': 'mistral'}, "model_type is 'mistral'"),
    ({'model_type': 'qwen2'}, "model_type is 'qwen2'"),
    ({'model_type': 'deepseek_v3'}, 'Supported: llama, qwen3'),
    ({'attention_bias': True}, 'no attention_bias True'),
    ({'mlp_bias': True}, 'no mlp_bias True'),
    ({'hidden_act': 'gelu'}, "no hidden_act 'gelu'"),
    ({'sliding_window': 4096}, 'no sliding_window 4096'),
    ({'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}}, "rope_type is 'llama3'"),
    ({'rope_scaling': {'type': 'linear', 'factor': 2.0}}, "rope_type is 'linear'"),
    ({'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 1e4}}, "rope_type is 'yarn'"),
    ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor is not 1'),
    ({'quantization_config': {'bits': 4}}, 'no quantization_config'),
    ({'auto_map': {'AutoModel': 'code.Model'}}, 'no auto_map'),
    ({'hidden_size': None}, "has no 'hidden_size'"),
  ],
)
def test_what_the_decoder_does_not_have_is_refused_by_name(changes, said):
  described = config_json.to_json(variants.config('llama'), IDS, dtype='float32') | changes
  with pytest.raises(ValueError, match=said):
    config_json.fields(described, 'there')


def test_a_qwen3_with_a_sliding_window_is_refused():
  described = config_json.to_json(variants.config('qwen3'), IDS, dtype='float32')
  with pytest.raises(ValueError, match='use_sliding_window True'):
    config_json.fields(described | {'use_sliding_window': True, 'sliding_window': 64}, 'there')
  with pytest.raises(ValueError, match='layer_types'):
    config_json.fields(described | {'layer_types': ['sliding_attention'] * 2}, 'there')
  config_json.fields(described | {'layer_types': ['full_attention'] * 2}, 'there')


def test_another_model_is_refused_with_every_value_to_set():
  there = config_json.fields(
    config_json.to_json(variants.config('llama, grouped'), IDS, dtype='float32'), 'there'
  )
  model = dataclasses.replace(
    variants.config('qwen3'), layers=3, max_length=128, mup=MupConfig(base_width=8), window=8
  )
  with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared)
    config_json.check_same(model, there, 'there')
  for setting in (
    'DecoderConfig.layers = 2 (is 3)', 'DecoderConfig.kv_heads = 2 (is 4)',
    'DecoderConfig.rope_theta = 500000.0 (is 10000.0)', 'DecoderConfig.qk_norm = False (is True)',
    'DecoderConfig.max_length = 64 (is 128)', 'DecoderConfig.window = 0 (is 8)',
    'DecoderConfig.mup = None (is ',
  ):  # fmt: skip
    assert setting in str(error.value)
  assert 'width' not in str(error.value).replace('base_width', '')
  shorter = dataclasses.replace(variants.config('llama, grouped'), max_length=32, vocabulary=256)
  config_json.check_same(shorter, there, 'there')
