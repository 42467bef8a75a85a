"""Every back end against the formula and the reference, on packed rows; kernels in their interpreter."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.attention.naive import CASES, OPTIONS, T, arrays, by_formula, packed, run

NAMES = list(OPTIONS)


def relative(value, truth):
  """The largest error, in units of the largest value."""
  value, truth = (np.asarray(x, np.float64) for x in (value, truth))
  return np.abs(value - truth).max() / np.abs(truth).max()


@pytest.mark.parametrize(('name', 'options'), CASES)
def test_it_is_the_formula_on_packed_rows_with_shared_heads(name, options):
  q, k, v, gradient = arrays(0)
  out, _ = run(name, options, q, k, v, gradient, packed(0))
  np.testing.assert_allclose(out, by_formula(q, k, v, packed(0), **options), atol=3e-6)


@pytest.mark.parametrize(('name', 'options'), [case for case in CASES if case[0] != 'xla'])
def test_gradients_are_those_of_the_reference(name, options):
  inputs = (*arrays(1), packed(1))
  for one, reference in zip(
    run(name, options, *inputs)[1], run('xla', options, *inputs)[1], strict=True
  ):
    assert relative(one, reference) < 2e-6


def test_gradients_of_the_reference_are_those_of_the_formula():
  options = {'window': 20, 'soft_cap': 2.0, 'scale': 0.3}
  *qkv, gradient = arrays(2)
  segments = packed(2)
  _, gradients = run('xla', options, *qkv, gradient, segments)
  rng = np.random.default_rng(0)
  for k in range(3):
    step = rng.normal(size=qkv[k].shape)
    moved = [list(qkv), list(qkv)]
    moved[0][k], moved[1][k] = qkv[k] + 1e-5 * step, qkv[k] - 1e-5 * step
    up, down = (np.sum(by_formula(*x, segments, **options) * gradient) for x in moved)
    assert relative(np.sum(gradients[k] * step), (up - down) / 2e-5) < 1e-4


@pytest.mark.parametrize('name', ['splash', 'pallas'])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), fragments=st.integers(1, T - 1))
def test_any_packing_equals_the_reference(name, seed, fragments):
  inputs = (*arrays(seed), packed(seed, fragments=fragments))
  out, gradients = run(name, {}, *inputs)
  reference, reference_gradients = run('xla', {}, *inputs)
  assert relative(out, reference) < 2e-6
  # In units of the largest of all: alone in its fragment, a position has gradients of 0 but for v.
  largest = max(np.abs(x).max() for x in reference_gradients)
  for one, other in zip(gradients, reference_gradients, strict=True):
    assert np.abs(np.asarray(one) - np.asarray(other)).max() < 2e-6 * largest


@pytest.mark.parametrize(('name', 'options'), CASES)
def test_changing_one_segment_leaves_every_other_bit_equal(name, options):
  q, k, v, gradient = arrays(3)
  segments = packed(3)
  before, (dq, dk, dv) = run(name, options, q, k, v, gradient, segments)
  changed = (segments == 2)[..., None, None]
  q, k, v, gradient = (np.where(changed, 30 * x + 1, x) for x in (q, k, v, gradient))
  after, (dq2, dk2, dv2) = run(name, options, q, k, v, gradient, segments)
  assert not np.array_equal(before, after)
  for old, new in ((before, after), (dq, dq2), (dk, dk2), (dv, dv2)):
    np.testing.assert_array_equal(np.asarray(old)[segments != 2], np.asarray(new)[segments != 2])


@pytest.mark.parametrize('name', NAMES)
def test_a_fragment_alone_is_the_fragment_in_its_row(name):
  q, k, v, gradient = arrays(4)
  segments = packed(4)
  out, _ = run(name, {}, q, k, v, gradient, segments)
  (start, *_, end), row = np.flatnonzero(segments[0] == 3), 0
  here = slice(start, end + 1)
  # The same shape, so that nothing is compiled again: the fragment first, and nothing behind it.
  alone = [np.zeros_like(x) for x in (q, k, v, gradient)]
  for x, whole in zip(alone, (q, k, v, gradient), strict=True):
    x[row, : end + 1 - start] = whole[row, here]
  one = np.zeros_like(segments)
  one[row, : end + 1 - start] = 1
  alone_out, _ = run(name, {}, *alone, one)
  np.testing.assert_allclose(alone_out[row, : end + 1 - start], out[row, here], atol=2e-6)


@pytest.mark.parametrize(('name', 'options'), CASES)
def test_padding_is_finite_in_value_and_gradient(name, options):
  q, k, v, gradient = arrays(5)
  for segments in (np.zeros((2, T), np.int32), packed(5, fragments=1)):
    out, gradients = run(name, options, q, k, v, gradient, segments)
    assert all(np.isfinite(x).all() for x in (out, *gradients))


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_is_as_near_to_the_formula_as_its_rounding_allows(name):
  q, k, v, gradient = (np.asarray(jnp.asarray(x, jnp.bfloat16)) for x in arrays(6))
  segments = packed(6)
  out, _ = run(name, {}, q, k, v, gradient, segments)
  assert out.dtype == jnp.bfloat16
  assert relative(out, by_formula(q, k, v, segments)) < 2**-7


def test_blocks_that_the_window_or_the_future_forbid_are_skipped_and_no_others():
  # 640 is five blocks of 128, the largest that divides it; one document is longer than three.
  options, segments = {'window': 130}, np.ones((1, 640), np.int32)
  segments[:, 500:] = 2
  inputs = (*arrays(8, heads=2, groups=1, batch=1, length=640), segments)
  out, gradients = run('splash', options, *inputs)
  reference, reference_gradients = run('xla', options, *inputs)
  assert relative(out, reference) < 2e-6
  # In units of the largest of all: alone in its fragment, a position has gradients of 0 but for v.
  largest = max(np.abs(x).max() for x in reference_gradients)
  for one, other in zip(gradients, reference_gradients, strict=True):
    assert np.abs(np.asarray(one) - np.asarray(other)).max() < 2e-6 * largest


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('heads', 'groups', 'size'), [(2, 2, 24), (4, 1, 64)])
@pytest.mark.slow
def test_other_head_counts_and_sizes(name, heads, groups, size):
  q, k, v, gradient = arrays(7, heads, groups, size)
  segments = packed(7)
  out, gradients = run(name, {}, q, k, v, gradient, segments)
  np.testing.assert_allclose(out, by_formula(q, k, v, segments), atol=3e-6)
  for one, other in zip(gradients, run('xla', {}, q, k, v, gradient, segments)[1], strict=True):
    assert relative(one, other) < 2e-6
