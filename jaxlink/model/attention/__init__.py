"""Causal self-attention within segments, behind one function for every back end.

Queries of B rows of T positions go in with keys and values of G ≤ H heads, and segment numbers that
say which positions of a row belong together. Position t sees s where s ≤ t and both carry the same
number, and, with a window, where s > t - window. Each back end is held to two promises: a packed row
equals its fragments run alone, and no document's output changes by one bit when another document of
the row does. What a back end cannot do, it refuses; nothing is accepted and ignored.

  xla       everywhere: the reference, whose scores take T² memory
  splash    TPU: Pallas; window, soft cap, rows split over devices
  pallas    GPU: Pallas (Triton); whole rows, neither window nor soft cap

Easy to get wrong: padding is segment 0 and attends to the padding before it. No row of the scores
is ever empty, so padding gives finite numbers (and finite gradients) that the loss mask then drops.
"""

import jax

from jaxlink.model import axes
from jaxlink.model.attention import options, pallas_gpu, reference, splash
from jaxlink.names import nearest

IMPLEMENTATIONS = {
  'xla': reference.attend,
  'splash': splash.attend,
  'pallas': pallas_gpu.attend,
}
RESIDUALS = options.RESIDUALS

_HOMES = {'splash': 'tpu', 'pallas': 'gpu'}
_REFUSALS = {'pallas': pallas_gpu.refusal}


def attend(
  q_BTHK: jax.Array,
  k_BTGK: jax.Array,
  v_BTGK: jax.Array,
  segments_BT: jax.Array,
  *,
  implementation: str = 'xla',
  window: int = 0,
  soft_cap: float = 0.0,
  scale: float | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Softmax(scale·q·k)·v over the earlier positions of the same segment.

  Args:
    q_BTHK: queries; head h reads key-value head h // (H / G), as in Hugging Face's `repeat_kv`.
    k_BTGK: keys, one head for H / G query heads.
    v_BTGK: values.
    segments_BT: int32 segment of each position, 0 for padding.
    implementation: a name out of `IMPLEMENTATIONS`; 'auto' is resolved before, by `choose`.
    window: how many positions a query sees, its own included, as Hugging Face's `sliding_window`;
      0 for all.
    soft_cap: c of c·tanh(score / c), on scaled scores before the mask (Gemma 2, arXiv 2408.00118);
      0 for none.
    scale: None for 1 / √K.
    interpret: run a Pallas kernel in its interpreter, slowly, on any platform.

  Returns:
    BTHK in the dtype of q. Scores and softmax are float32.

  Raises:
    ValueError: an unknown implementation, one that cannot do what is asked, heads that the
      key-value heads do not divide, or a window or soft cap below 0.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(_unknown(implementation, list(IMPLEMENTATIONS)))
  check(window, soft_cap)
  heads, groups, K = q_BTHK.shape[2], k_BTGK.shape[2], q_BTHK.shape[3]
  if heads % groups:
    raise ValueError(f'{heads} query heads do not share {groups} key-value heads evenly.')
  wanted = options.Options(
    head_size=K,
    window=window,
    soft_cap=soft_cap,
    scale=K**-0.5 if scale is None else scale,
    sequence=axes.ways('sequence'),
    interpret=interpret,
  )
  _refuse(implementation, wanted)
  return IMPLEMENTATIONS[implementation](q_BTHK, k_BTGK, v_BTGK, segments_BT, wanted)


def choose(
  implementation: str,
  platform: str,
  *,
  head_size: int = 128,
  window: int = 0,
  soft_cap: float = 0.0,
  sequence: int = 1,
) -> tuple[str, str]:
  """Resolves 'auto' for a platform: its kernel where that can do what is asked, else the reference.

  Args:
    implementation: 'auto' or a name out of `IMPLEMENTATIONS`.
    platform: 'cpu', 'gpu' or 'tpu', of the devices that will run it.
    head_size: K.
    window: as in `attend`.
    soft_cap: as in `attend`.
    sequence: into how many parts rows are split over devices.

  Returns:
    The name of the implementation and, to be printed, why it is that one.

  Raises:
    ValueError: an unknown name, or an implementation that cannot do this, or not on this platform.
  """
  wanted = options.Options(head_size=head_size, window=window, soft_cap=soft_cap, sequence=sequence)
  if implementation == 'auto':
    reason = f'auto on {platform}'
    for name, home in _HOMES.items():
      if home == platform:
        why_not = _refusal(name, wanted)
        if not why_not:
          return name, f'{reason}: its kernel respects segments and does all that is asked'
        reason += f': not {name}, since {why_not}'
    return 'xla', f'{reason}: the reference, with T² scores in memory'
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(_unknown(implementation, ['auto', *IMPLEMENTATIONS]))
  home = _HOMES.get(implementation, platform)
  if home != platform:
    raise ValueError(
      f'DecoderConfig.attention is {implementation!r}, a kernel for {home.upper()}, and the devices are '
      f"{platform.upper()}: 'auto' takes what runs there, 'xla' runs everywhere."
    )
  _refuse(implementation, wanted)
  return implementation, 'asked for'


def check(window: int, soft_cap: float) -> None:
  """Raises a ValueError for a window or a soft cap below 0."""
  if window < 0:
    raise ValueError(f'DecoderConfig.window is {window}: 1 or more positions, or 0 for all.')
  if not soft_cap >= 0:
    raise ValueError(f'DecoderConfig.soft_cap is {soft_cap}: above 0, or 0 for none.')


def _refuse(implementation, wanted):
  why_not = _refusal(implementation, wanted)
  if why_not:
    raise ValueError(
      f"DecoderConfig.attention {implementation!r} cannot do this: {why_not}. 'xla' can."
    )


def _refusal(implementation, wanted):
  return _REFUSALS[implementation](wanted) if implementation in _REFUSALS else ''


def _unknown(name, names):
  return f'DecoderConfig.attention is {name!r}.{nearest(name, names)} Allowed: {", ".join(names)}.'
