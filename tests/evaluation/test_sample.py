"""Generated lines keep their prompt, and greedy ones are the likeliest tokens one after the other."""

import jax
import numpy as np
import pytest

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation.sample import generate, make_sampler
from jaxlink.model import decoder
from tests.tiny_project import SAMPLE

CONFIG = decoder.DecoderConfig(
  layers=1, width=32, heads=2, feedforward=32, vocabulary=8192, max_length=64
).resolve(platform='cpu')


@pytest.fixture(scope='module')
def model():
  graph, _, _ = decoder.abstract_decoder(CONFIG)
  params = decoder.init_params(CONFIG, jax.random.key(3))

  def logits(params, tokens_BT, segments_BT, positions_BT):
    bound = decoder.bind(graph, params)
    return bound.logits(bound(tokens_BT, segments_BT, positions_BT))

  return logits, params, Tokenizer(str(SAMPLE / 'tokenizer.model'))


def test_greedy_lines_are_the_likeliest_tokens(model):
  logits, params, tokenizer = model
  sampler = make_sampler(logits, eos=1, temperature=0)
  prompts = ['Türkiye', 'The city of Ankara is']
  lines = generate(sampler, params, tokenizer, prompts, bos=2, new_tokens=5, seed=0, step=0)
  longest = max(len(tokenizer.encode(p)) for p in prompts) + 1 + 5
  for prompt, line in zip(prompts, lines, strict=True):
    ids = [2, *tokenizer.encode(prompt)]
    while len(ids) < longest and ids[-1] != 1:
      row = np.array([ids], np.int32)
      ones, positions = np.ones_like(row), np.arange(len(ids), dtype=np.int32)[None]
      ids.append(int(logits(params, row, ones, positions)[0, -1].argmax()))
    assert line == tokenizer.decode(ids)
    assert line.startswith(prompt)


def test_a_seed_and_step_give_the_same_lines_again_and_others_give_others(model):
  logits, params, tokenizer = model
  sampler = make_sampler(logits, eos=1, temperature=1.0)
  one, again, seed, step, last = (
    generate(sampler, params, tokenizer, ['Türkiye'], bos=2, new_tokens=16, seed=seed, step=step)
    for seed, step in ((1, 9), (1, 9), (2, 9), (1, 10), (2**32 - 1, 10))
  )
  assert one == again
  assert len({*one, *seed, *step, *last}) == 4


def test_a_row_ends_with_its_eos(model):
  _, params, _ = model

  # Always token 5, and EOS as the third new token.
  def logits(params, tokens_BT, segments_BT, positions_BT):
    del params, segments_BT
    likely_BT = jax.numpy.where(positions_BT == 4, 1, 5)
    return jax.nn.one_hot(likely_BT, 8192) + 0 * tokens_BT[..., None]

  rows = make_sampler(logits, eos=1, temperature=0)(
    params,
    np.array([[2, 7, 8, 0, 0, 0, 0, 0]], np.int32),
    np.array([3], np.int32),
    np.uint32(0),
    np.uint32(0),
  )
  assert rows.tolist() == [[2, 7, 8, 5, 5, 1, 1, 1]]


def test_an_eos_that_opens_a_text_does_not_end_it(model):
  _, params, _ = model

  def logits(params, tokens_BT, segments_BT, positions_BT):
    del params, segments_BT
    likely_BT = jax.numpy.where(positions_BT == 2, 1, 5)
    return jax.nn.one_hot(likely_BT, 8192) + 0 * tokens_BT[..., None]

  sampler = make_sampler(logits, eos=1, temperature=0)
  prompts = np.array([[1, 0, 0, 0, 0, 0], [1, 7, 0, 0, 0, 0]], np.int32)
  rows = sampler(params, prompts, np.array([1, 2], np.int32), np.uint32(0), np.uint32(0))
  assert rows.tolist() == [[1, 5, 5, 1, 1, 1], [1, 7, 5, 1, 1, 1]]
