"""Attention by its formula, position by position in float64, and random packed rows to try it on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxlink.model import attention

# What each kernel can do besides being causal within segments with shared heads.
OPTIONS = {
  'xla': [{}, {'window': 9}, {'soft_cap': 2.0}, {'window': 20, 'soft_cap': 2.0, 'scale': 0.3}],
  'splash': [{}, {'window': 20, 'soft_cap': 2.0, 'scale': 0.3}],
  'pallas': [{}, {'scale': 0.3}],
}
CASES = [(name, options) for name, each in OPTIONS.items() for options in each]
T = 200  # no multiple of any kernel's block


def packed(seed, batch=2, length=T, fragments=4):
  """Segments of rows: some fragments of random lengths, then padding."""
  rng = np.random.default_rng(seed)
  out = np.zeros((batch, length), np.int32)
  for row in out:
    cuts = np.sort(rng.choice(np.arange(1, length), fragments, replace=False))
    for k, (start, end) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True)):
      row[start:end] = k + 1
  return out


def arrays(seed, heads=4, groups=2, size=16, batch=2, length=T):
  """Queries, keys, values, and what an output's gradient is taken with."""
  rng = np.random.default_rng(seed)
  shapes = (heads, groups, groups, heads)
  return [rng.normal(size=(batch, length, n, size)).astype(np.float32) for n in shapes]


def by_formula(q, k, v, segments, window=0, soft_cap=0.0, scale=None):
  """The output in float64, one position after the other."""
  out = np.zeros(q.shape)
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  scale = q.shape[3] ** -0.5 if scale is None else scale
  for b, t, h in np.ndindex(*q.shape[:3]):
    first = max(0, t - window + 1) if window else 0
    seen = [s for s in range(first, t + 1) if segments[b, s] == segments[b, t]]
    g = h // (q.shape[2] // k.shape[2])
    scores = k[b, seen, g] @ q[b, t, h] * scale
    if soft_cap:
      scores = soft_cap * np.tanh(scores / soft_cap)
    weights = np.exp(scores - scores.max())
    out[b, t, h] = weights @ v[b, seen, g] / weights.sum()
  return out


def run(name, options, q, k, v, gradient, segments):
  """Output and gradients of q, k and v; a program is compiled once for all tests of these shapes."""
  return _compiled(name, tuple(sorted(options.items())))(q, k, v, gradient, segments)


@functools.cache
def _compiled(name, options):
  def scalar(q, k, v, gradient, segments):
    out = attention.attend(
      q, k, v, segments, implementation=name, interpret=name != 'xla', **dict(options)
    )
    return jnp.sum(out.astype(jnp.float32) * gradient), out

  def both(*arrays):
    (_, out), gradients = jax.value_and_grad(scalar, (0, 1, 2), has_aux=True)(*arrays)
    return out, gradients

  return jax.jit(both)
