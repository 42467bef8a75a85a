"""Every token of the held-out text is scored once, and packing short windows changes no score."""

import math

import jax
import numpy as np
import pytest

from jaxlink.data.blocks import Blocks
from jaxlink.data.resolve import kept_path, make_request, read
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation import held_out
from jaxlink.evaluation.held_out import bits_per_byte, read_held_out, xz_bits_per_byte
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig


@pytest.fixture(scope='module')
def caches(trained):
  from jaxlink import config
  from jaxlink.stage import Run

  run = config.parse(Run, [trained[0].recipe])
  data = read(kept_path(make_request(run), run.data.cache_dir), run.data.cache_dir)
  return {s.task: Blocks(s.folder) for s in data.evaluations}, Tokenizer(data.tokenizer['path'])


def _labels(text: held_out.HeldOut) -> list[int]:
  return [int(i) for batch in text.batches for i in batch['labels'][batch['loss_mask']]]


@pytest.mark.parametrize('length', [7, 64, 4096])
def test_the_scored_tokens_are_the_text(caches, length):
  blocks, tokenizer = caches
  for cache in blocks.values():
    text = read_held_out(cache, length=length, batch=3)
    tokens, starts = cache.read(0, cache.tokens)
    documents = np.split(tokens, np.flatnonzero(starts)[1:])
    assert _labels(text) == [int(i) for d in documents for i in d[1:-1]]
    assert text.tokens == sum(len(d) - 2 for d in documents)
    written = ''.join(tokenizer.decode(d) for d in documents)
    assert text.bytes == len(written.encode()) == cache.manifest['bytes']


def test_a_window_starts_with_bos_and_counts_its_positions_from_0(caches):
  blocks, _ = caches
  text = read_held_out(blocks['tiny_tr'], length=64, batch=4)
  for batch in text.batches:
    for row in range(4):
      segments = batch['segments'][row]
      for segment in range(1, segments.max(initial=0) + 1):
        here = segments == segment
        assert batch['tokens'][row][here][0] == 2
        assert (batch['tokens'][row][here][1:] == batch['labels'][row][here][:-1]).all()
        assert (batch['positions'][row][here] == np.arange(here.sum())).all()


def test_a_uniform_model_needs_log2_of_the_vocabulary_for_each_token(caches):
  text = read_held_out(caches[0]['tiny_tr'], length=64, batch=4)

  def uniform(batch):
    return {'nll': jax.numpy.asarray(batch['loss_mask'].sum(1) * math.log(700))}

  expected = text.tokens * math.log2(700) / text.bytes
  assert bits_per_byte(text, uniform) == pytest.approx(expected, rel=1e-6)


def test_an_evaluation_that_is_asked_to_stop_gives_no_score(caches):
  text = read_held_out(caches[0]['tiny_tr'], length=64, batch=4)
  assert bits_per_byte(text, lambda _: {'nll': np.zeros(4)}, stopped=lambda: True) is None


def test_windows_that_share_a_row_score_as_they_do_alone(caches):
  config = DecoderConfig(
    layers=2, width=32, heads=2, feedforward=64, vocabulary=768, max_length=64
  ).resolve(platform='cpu')
  graph, _, _ = decoder.abstract_decoder(config)
  params = decoder.init_params(config, jax.random.key(0))

  @jax.jit
  def score(batch):
    model = decoder.bind(graph, params)
    logits = model.logits(model(batch['tokens'], batch['segments'], batch['positions']))
    nll = -jax.nn.log_softmax(logits.astype('float32'))
    picked = jax.numpy.take_along_axis(nll, batch['labels'][..., None], -1)[..., 0]
    return {'nll': (picked * batch['loss_mask']).sum(1)}

  text = read_held_out(caches[0]['tiny_en'], length=64, batch=1)
  shared = [b for b in text.batches if b['segments'].max() > 1]
  assert shared
  for batch in shared:
    total = float(score(batch)['nll'][0])
    alone = 0.0
    for segment in range(1, batch['segments'].max() + 1):
      here = batch['segments'][0] == segment
      one = {k: np.zeros_like(v) for k, v in batch.items()}
      for name in ('tokens', 'labels', 'positions', 'loss_mask'):
        one[name][0, : here.sum()] = batch[name][0, here]
      one['segments'][0, : here.sum()] = 1
      alone += float(score(one)['nll'][0])
    assert total == pytest.approx(alone, rel=1e-5)


def test_xz_is_given_the_whole_text(caches):
  blocks, tokenizer = caches
  value = xz_bits_per_byte(blocks['tiny_tr'], tokenizer.decode)
  assert 2 < value < 6
