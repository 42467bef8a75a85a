"""A linear probe: how well a class is read off hidden states by multinomial logistic regression.

In: hidden states and labels of three splits, on the host. Out: the classes predicted for the last one. Features
are standardised by the training split. With x the features and a 1, the probe minimises

  mean over training of −log softmax(W x)[label] + strength / 2 · ‖W‖²

for each strength of a grid, strongest first, each from where the one before ended, by L-BFGS (optax). The strength
with the lowest cross-entropy on the validation split is taken; of equal ones the strongest.

The penalty is on the constant, too. So the objective is strictly convex and its minimum is one point: nothing is
drawn at random, the order of examples does not matter, and a class without training examples is no exception.

Easy to get wrong: what the test split may decide. Nothing: scale, centre and strength are of the others.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

STRENGTHS = tuple(10.0**power for power in (1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3, -3.5, -4))
_STEPS = 2_000  # most of L-BFGS; tens are usual
_SLOPE = 3e-6  # largest entry of the gradient at the end; float32 of a mean over examples


class Probe(NamedTuple):
  """What a probe found.

  Attributes:
    predictions: int32 [N], class of each test example.
    log_p: float32 [N, K], natural log of each class's probability.
    strength: of the penalty, as chosen.
    validation: cross-entropy of the validation split at each of `STRENGTHS`, nats an example.
    slope: largest entry of the objective's gradient where the chosen one ended; 0 at the minimum.
  """

  predictions: np.ndarray
  log_p: np.ndarray
  strength: float
  validation: tuple[float, ...]
  slope: float


def probe(
  features_train: np.ndarray, labels_train: np.ndarray,
  features_validation: np.ndarray, labels_validation: np.ndarray,
  features_test: np.ndarray, classes: int,
) -> Probe:  # fmt: skip
  """Fits a probe and predicts.

  Args:
    features_train: float [N, D], one example or more.
    labels_train: int [N] in 0 to classes - 1.
    features_validation: float [M, D], one example or more, for the strength.
    labels_validation: int [M].
    features_test: float [P, D].
    classes: 2 or more.

  Raises:
    ValueError: a split is empty, shapes differ, a label is out of range, or a feature is not finite.
  """
  if classes < 2:
    raise ValueError(f'classes is {classes}: a probe tells 2 or more apart.')
  splits = {'train': features_train, 'validation': features_validation, 'test': features_test}
  x = {name: _checked(name, features) for name, features in splits.items()}
  y = {
    name: _labels(name, labels, len(x[name]), classes)
    for name, labels in (('train', labels_train), ('validation', labels_validation))
  }
  centre_D, scale_D = _standard(x['train'])
  for name, features in x.items():
    if features.shape[1] != len(centre_D):
      raise ValueError(
        f'features_{name} are of width {features.shape[1]}, those of training of {len(centre_D)}.'
      )
    x[name] = _with_constant((features - centre_D) / scale_D)
  # Explicit, for a caller that forbids silent transfers.
  x_NE, y_N = jax.device_put(x['train']), jax.device_put(y['train'])
  w_KE = jax.device_put(np.zeros((classes, x_NE.shape[1]), np.float32))
  fits = []
  for strength in STRENGTHS:
    w_KE, slope = _fit(w_KE, x_NE, y_N, jax.device_put(np.float32(strength)))
    host_KE = np.asarray(jax.device_get(w_KE))
    log_p = _log_softmax(x['validation'] @ host_KE.T)
    loss = -float(np.mean(log_p[np.arange(len(log_p)), y['validation']], dtype=np.float64))
    fits.append((loss, strength, host_KE, float(jax.device_get(slope))))
  _, strength, host_KE, slope = min(fits, key=lambda fit: fit[0])  # the first of equal ones
  log_p = _log_softmax(x['test'] @ host_KE.T)
  predictions = np.argmax(log_p, axis=-1).astype(np.int32)
  return Probe(predictions, log_p, strength, tuple(fit[0] for fit in fits), slope)


@jax.jit
def _fit(w_KE, x_NE, y_N, strength):
  """The minimum from a start, and the largest entry of the gradient there."""
  objective = functools.partial(_objective, x_NE=x_NE, y_N=y_N, strength=strength)
  solver = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(objective)

  def slope_of(state):
    return jnp.max(jnp.abs(optax.tree.get(state, 'grad')))

  def unfinished(carry):
    _, state, step = carry
    return (step == 0) | ((step < _STEPS) & (slope_of(state) > _SLOPE))

  def update(carry):
    w_KE, state, step = carry
    value, gradient = value_and_grad(w_KE, state=state)
    change, state = solver.update(
      gradient, state, w_KE, value=value, grad=gradient, value_fn=objective
    )
    return optax.apply_updates(w_KE, change), state, step + 1

  w_KE, state, _ = jax.lax.while_loop(unfinished, update, (w_KE, solver.init(w_KE), 0))
  return w_KE, slope_of(state)


def _objective(w_KE, x_NE, y_N, strength):
  # TPUs and newer GPUs would multiply in fewer bits.
  logits_NK = jnp.einsum('ne,ke->nk', x_NE, w_KE, precision=jax.lax.Precision.HIGHEST)
  losses_N = optax.softmax_cross_entropy_with_integer_labels(logits_NK, y_N)
  return jnp.mean(losses_N) + strength / 2 * jnp.sum(jnp.square(w_KE))


def _standard(x_ND):
  """Centre and scale of each feature; one that does not vary is left at 0."""
  centre_D = x_ND.mean(0, dtype=np.float64)
  scale_D = x_ND.std(0, dtype=np.float64)
  still_D = scale_D <= 1e-6 * np.maximum(np.abs(centre_D), math.sqrt(np.mean(scale_D**2)))
  return centre_D, np.where(still_D, np.inf, scale_D)


def _with_constant(x_ND):
  return np.concatenate([x_ND, np.ones((len(x_ND), 1))], axis=1).astype(np.float32)


def _log_softmax(logits_NK):
  wide = logits_NK.astype(np.float64)
  wide -= wide.max(-1, keepdims=True)
  return (wide - np.log(np.exp(wide).sum(-1, keepdims=True))).astype(np.float32)


def _checked(name, features):
  features = np.asarray(features)
  if features.ndim != 2:
    raise ValueError(f'features_{name} are of shape {features.shape}: they are [examples, width].')
  if not len(features):
    raise ValueError(f'features_{name} has no examples: one or more.')
  if not np.isfinite(features).all():
    raise ValueError(f'features_{name} are not finite.')
  return features.astype(np.float64)


def _labels(name, labels, count, classes):
  labels = np.asarray(labels)
  if labels.shape != (count,):
    raise ValueError(f'labels_{name} are of shape {labels.shape}, for {count} examples.')
  if not 0 <= labels.min() <= labels.max() < classes:
    raise ValueError(
      f'labels_{name} are {labels.min()} to {labels.max()}: they are 0 to {classes - 1}.'
    )
  return labels.astype(np.int32)
