"""Likelihoods are those of a plain pass over each text alone, however they are packed."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlink.evaluation.scoring import Scorer, _pack_rows
from jaxlink.model import decoder
from tests.evaluation.models import random_model, tokenizer, turkish

WORDS = [line.split() for line in turkish() if len(line.split()) > 6]
REQUESTS = [
  (' '.join(words[:k]), ''.join(f' {word}' for word in words[k:most]))
  for words, k, most in zip(WORDS, (0, 2, 3, 5, 1, 4) * 6, (5, 6, 40, 7, 12, 30) * 6, strict=False)
]
REQUESTS = [(context, rest if context else rest.strip()) for context, rest in REQUESTS]


def plain(model, context: str, continuation: str) -> tuple[float, bool, int]:
  """Log-likelihood by a whole pass over one unpadded row, greedy or not, and the tokens."""
  whole = model.tokenizer.encode(context + continuation)
  count = len(whole) - len(model.tokenizer.encode(context.rstrip()))
  ids = [model.opening, *whole][-(model.config.max_length + 1) :]
  logits = _logits(model, ids[:-1])
  log_p = jax.nn.log_softmax(logits)[jnp.arange(len(ids) - 1), jnp.array(ids[1:])]
  greedy = (logits.argmax(-1) == jnp.array(ids[1:]))[-count:].all()
  return float(log_p[-count:].sum()), bool(greedy), count


def _logits(model, ids):
  return _pass(model, ids)[1][: len(ids)]


def _pass(model, ids):
  """Hidden states and logits of one row; what follows its end cannot be seen by it."""
  row = np.zeros((1, model.config.max_length), np.int32)
  row[0, : len(ids)] = ids
  return _compiled(model.config)(model.params, row)


@functools.cache
def _compiled(config):
  graph = decoder.abstract_decoder(config)[0]

  @jax.jit
  def run(params, row):
    bound = decoder.bind(graph, params)
    hidden = bound(row, jnp.ones_like(row), jnp.arange(row.shape[1])[None])
    return hidden[0], bound.logits(hidden)[0]

  return run


def test_each_request_has_the_likelihood_of_a_plain_pass():
  model = random_model()
  found = Scorer(model).log_likelihoods(REQUESTS[:12])
  for request, one in zip(REQUESTS, found, strict=False):
    nats, greedy, tokens = plain(model, *request)
    assert one.nats == pytest.approx(nats, rel=1e-5)
    assert (one.greedy, one.tokens, one.cut) == (greedy, tokens, False)


def test_what_the_model_would_write_is_greedy():
  model = random_model()
  context = REQUESTS[1][0]
  ids = model.tokenizer.encode(context)
  likeliest = int(_logits(model, [model.opening, *ids])[-1].argmax())
  continuation = model.tokenizer.decode([*ids, likeliest])[len(context) :]
  assert model.tokenizer.encode(context + continuation) == [*ids, likeliest]
  assert Scorer(model).log_likelihoods([(context, continuation)])[0].greedy


def test_the_order_of_requests_changes_no_bit_and_equal_ones_are_equal():
  model = random_model()
  scorer = Scorer(model)
  mixed = REQUESTS + REQUESTS[:5]
  first = scorer.log_likelihoods(mixed)
  assert first[-5:] == first[:5]
  order = random.Random(1).sample(range(len(mixed)), len(mixed))
  assert scorer.log_likelihoods([mixed[i] for i in order]) == [first[i] for i in order]


@pytest.mark.parametrize(
  ('batch_tokens', 'sizes'),
  [(128, {}), (4_096, {}), (0, {'data': 2, 'fsdp': 2, 'tensor': 2}), (0, {'sequence': 2})],
)
def test_neither_batch_nor_mesh_nor_padding_changes_a_score(batch_tokens, sizes):
  scorer = Scorer(random_model(), batch_tokens=512)
  other = Scorer(random_model(**sizes), batch_tokens=batch_tokens)
  pairs = zip(scorer.log_likelihoods(REQUESTS), other.log_likelihoods(REQUESTS), strict=True)
  for one, two in pairs:
    assert two.nats == pytest.approx(one.nats, rel=1e-5)
    assert two[1:] == one[1:]


def test_a_context_without_room_loses_its_beginning_and_is_counted():
  model = random_model(max_length=32)
  context, continuation = ' '.join(turkish()[:3]), ' ve'
  (one,) = Scorer(model).log_likelihoods([(context, continuation)])
  assert one.cut
  assert one.nats == pytest.approx(plain(model, context, continuation)[0], rel=1e-5)
  kept, _ = Scorer(model).log_likelihoods([REQUESTS[1], (context, continuation)])
  assert not kept.cut


def test_a_continuation_longer_than_the_model_is_scored_as_far_as_there_is_room():
  model = random_model(max_length=32)
  (one,) = Scorer(model).log_likelihoods([('', ' '.join(turkish()[:3]))])
  assert (one.cut, one.tokens) == (True, 32)


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation():
  scorer = Scorer(random_model())
  assert len(set(scorer.log_likelihoods([('Ankara', ' bir'), ('Ankara ', 'bir')]))) == 1


def test_a_continuation_without_tokens_is_an_error():
  with pytest.raises(ValueError, match='has no tokens of its own'):
    Scorer(random_model()).log_likelihoods([('Ankara', '')])


def test_a_text_is_scored_in_windows_that_begin_as_texts_do():
  model = random_model()
  text, length = ' '.join(turkish()[:2]), 32
  ids = tokenizer().encode(text)
  (one,) = Scorer(model).rolling([text], length=length)
  nats = 0.0
  for first in range(0, len(ids), length):
    window = ids[first : first + length]
    log_p = jax.nn.log_softmax(_logits(model, [model.opening, *window[:-1]]))
    nats += float(log_p[jnp.arange(len(window)), jnp.array(window)].sum())
  assert one.nats == pytest.approx(nats, rel=1e-5)
  assert one.tokens == len(ids)


def test_a_hidden_state_is_the_mean_over_the_texts_own_tokens():
  model = random_model()
  texts = [' '.join(words[:n]) for words, n in zip(WORDS, (6, 2, 4), strict=False)]
  found = Scorer(model).hidden([*texts, texts[0]])
  for text, state in zip(texts, found, strict=False):
    ids = [model.opening, *model.tokenizer.encode(text)]
    hidden = np.asarray(_pass(model, ids)[0][1 : len(ids)])
    assert np.abs(state - hidden.mean(0)).max() < 1e-5 * np.abs(hidden).max()
  assert (found[3] == found[0]).all()


@given(st.lists(st.integers(1, 128), min_size=1, max_size=200))
def test_every_text_is_in_one_row_that_has_room_and_rows_are_well_filled(lengths):
  members = sorted(enumerate(lengths), key=lambda pair: -pair[1])
  rows = _pack_rows(members, 128)
  assert sorted(text for row in rows for text in row) == list(range(len(lengths)))
  sums = [sum(lengths[text] for text in row) for row in rows]
  assert max(sums) <= 128
  fullest = sorted(sums)[:2]
  assert len(rows) == 1 or sum(fullest) > 128  # else the two would have been one
