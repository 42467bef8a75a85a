"""The chunked loss against the plain one, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink.model import loss

B, T, D, V = 3, 10, 8, 37


def make(seed=0):
  rng = np.random.default_rng(seed)
  return (
    jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32),
    jnp.asarray(rng.normal(size=(V, D)), jnp.float32),
    jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32),
    jnp.asarray(rng.random((B, T)) < 0.7),
  )


def plain(hidden, head, labels, mask, z_loss):
  logits = jnp.einsum('btd,vd->btv', hidden, head)
  log_z = jax.nn.logsumexp(logits, axis=-1)
  nll = log_z - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
  return jnp.sum(jnp.where(mask, nll + z_loss * log_z**2, 0))


@pytest.mark.parametrize('chunk', [None, 1, 3, 5, 10, 64])
@pytest.mark.parametrize('z_loss', [0.0, 0.03])
def test_chunked_equals_plain_in_value_and_gradient(chunk, z_loss):
  hidden, head, labels, mask = make()

  # Through a division and a square: the gradient scales with whatever the caller does to `total`.
  def chunked(hidden, head):
    sums = loss.loss_sums(hidden, head, labels, mask, z_loss=z_loss, chunk=chunk)
    return (sums.total / sums.tokens_B.sum()) ** 2

  def unchunked(hidden, head):
    return (plain(hidden, head, labels, mask, z_loss) / mask.sum()) ** 2

  value, gradient = jax.jit(jax.value_and_grad(chunked, (0, 1)))(hidden, head)
  value_plain, gradient_plain = jax.jit(jax.value_and_grad(unchunked, (0, 1)))(hidden, head)
  np.testing.assert_allclose(value, value_plain, rtol=1e-6)
  for one, other in zip(gradient, gradient_plain, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_sums_and_counts_are_per_row_and_of_loss_tokens_only():
  hidden, head, labels, mask = make()
  mask = mask.at[1].set(False)
  sums = loss.loss_sums(hidden, head, labels, mask, z_loss=0.5, chunk=4)
  rows = [plain(hidden[b : b + 1], head, labels[b : b + 1], mask[b : b + 1], 0) for b in range(B)]
  np.testing.assert_allclose(sums.nll_B, rows, rtol=1e-6)
  np.testing.assert_array_equal(sums.tokens_B, mask.sum(1))
  assert sums.nll_B[1] == 0
  np.testing.assert_allclose(sums.total, sums.nll_B.sum() + 0.5 * sums.z_B.sum(), rtol=1e-6)


def test_a_label_that_does_not_count_changes_nothing_and_one_that_counts_must_be_known():
  hidden, head, labels, mask = make()
  before = loss.loss_sums(hidden, head, labels, mask, chunk=4)
  wild = loss.loss_sums(hidden, head, jnp.where(mask, labels, V + 5), mask, chunk=4)
  np.testing.assert_array_equal(before.nll_B, wild.nll_B)
  row, column = np.argwhere(np.asarray(mask))[0]
  for label in (-1, V):
    unknown = loss.loss_sums(hidden, head, labels.at[row, column].set(label), mask, chunk=4)
    assert np.isnan(unknown.total)


def test_the_sums_for_reporting_carry_no_gradient():
  hidden, head, labels, mask = make()
  gradient = jax.grad(lambda h: loss.loss_sums(h, head, labels, mask, chunk=4).nll_B.sum())(hidden)
  np.testing.assert_array_equal(gradient, 0)


def test_the_logits_of_all_positions_never_exist_at_once():
  hidden, head, labels, mask = make()

  def total(hidden, head):
    return loss.loss_sums(hidden, head, labels, mask, chunk=2).total

  text = jax.jit(jax.grad(total, (0, 1))).lower(hidden, head).as_text()
  assert f'{B}x2x{V}xf32' in text
  assert f'{B}x{T}x{V}x' not in text
  assert f'5x{B}x2x{V}x' not in text


def test_bfloat16_hidden_states_give_a_float32_loss_and_a_float32_gradient_of_the_head():
  hidden, head, labels, mask = make()

  def total(hidden, head):
    return loss.loss_sums(hidden, head, labels, mask, chunk=5).total

  value, (dhidden, dhead) = jax.value_and_grad(total, (0, 1))(hidden.astype(jnp.bfloat16), head)
  assert (value.dtype, dhidden.dtype, dhead.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
  np.testing.assert_allclose(value, plain(hidden, head, labels, mask, 0), rtol=2e-2)


def test_rows_are_summed_by_their_source():
  values = jnp.asarray([1.5, 2.0, 4.0, 8.0])
  source = jnp.asarray([2, 0, 2, 0])
  np.testing.assert_array_equal(loss.by_source(values, source, 4), [10.0, 0.0, 5.5, 0.0])
  counts = loss.by_source(jnp.asarray([1, 2, 3, 4]), source, 3)
  assert counts.dtype == jnp.int32
  np.testing.assert_array_equal(counts, [6, 0, 4])


def test_chunks_have_about_twice_the_width_in_tokens_and_at_most_a_gibibyte_of_logits():
  auto = loss.LossConfig()
  assert loss.positions_per_chunk(auto, 16, 256, 256, 8192) == 32
  assert loss.positions_per_chunk(auto, 1, 256, 256, 8192) == 256
  assert loss.positions_per_chunk(auto, 8, 2048, 2048, 262_144) == 128
  assert loss.positions_per_chunk(auto, 8192, 256, 64, 8192) == 1
  assert loss.positions_per_chunk(loss.LossConfig(chunk=7), 16, 256, 256, 8192) == 7


@pytest.mark.parametrize('field', ['z_loss', 'chunk'])
def test_a_negative_setting_raises(field):
  with pytest.raises(ValueError, match=f'LossConfig.{field} is -1'):
    loss.LossConfig(**{field: -1})


def test_padding_of_the_vocabulary_is_as_if_it_were_not_there():
  hidden, head, labels, mask = make()
  size = V - 7
  labels = labels % size

  def total(hidden, head, **settings):
    return loss.loss_sums(hidden, head, labels, mask, z_loss=1e-2, chunk=3, **settings).total

  gradient = jax.value_and_grad(total, argnums=(0, 1))
  value, (dhidden, dhead) = gradient(hidden, head, tokenizer_size=size)
  cut_value, (cut_dhidden, cut_dhead) = gradient(hidden, head[:size])
  np.testing.assert_allclose(value, cut_value, rtol=1e-6)
  np.testing.assert_allclose(dhidden, cut_dhidden, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(dhead[:size], cut_dhead, rtol=1e-5, atol=1e-6)
  assert not np.any(dhead[size:])
