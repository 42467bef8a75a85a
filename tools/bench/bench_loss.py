"""The loss: time and memory of the chunked cross-entropy beside the plain one, over vocabularies.

  python tools/bench/bench_loss.py                                      on this machine
  python tools/bench/bench_loss.py --tokens 16384 --width 2048 --vocabularies 50304,262144 --dtype bfloat16

Each row is value and gradient, of hidden states and head, of B rows of T tokens. `plain` takes whole B·T·V
logits in float32 through jax.nn.logsumexp, with mask and z-loss, and lets JAX differentiate it; `chunked` is
jaxlink.model.loss at the chunk that it chooses; `remat` is a scan over the same chunks under jax.checkpoint,
which multiplies with the head four times instead of three. Memory is XLA's analysis of the executable's
temporaries. Gradients are compared with the plain form's, in the dtype of the run.

Easy to get wrong: a CPU allocates lazily and shares its memory with everything, so the time of the plain
form there says little about an accelerator, where the logits may simply not fit.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp

from jaxlink.model import loss as loss_lib

Z_LOSS = 1e-4


def plain(hidden_BTD, head_VD, labels_BT, mask_BT):
  """The sum over loss tokens, from whole logits."""
  logits_BTV = jnp.einsum(
    'btd,vd->btv', hidden_BTD, head_VD.astype(hidden_BTD.dtype), preferred_element_type=jnp.float32
  )
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  label_BT = jnp.take_along_axis(logits_BTV, labels_BT[..., None], axis=-1)[..., 0]
  return jnp.where(mask_BT, log_z_BT - label_BT + Z_LOSS * log_z_BT**2, 0).sum()


def rematerialised(hidden_BTD, head_VD, labels_BT, mask_BT, *, chunk):
  """The same by a scan over chunks whose logits are computed again for the gradient."""
  B, T, _ = hidden_BTD.shape
  cut = lambda x: jnp.moveaxis(x.reshape(B, T // chunk, chunk, *x.shape[2:]), 1, 0)  # noqa: E731
  body = jax.checkpoint(lambda total, xs: (total + plain(xs[0], head_VD, *xs[1:]), None))
  return jax.lax.scan(body, jnp.zeros(()), tuple(map(cut, (hidden_BTD, labels_BT, mask_BT))))[0]


def chunked(hidden_BTD, head_VD, labels_BT, mask_BT, *, chunk):
  """Ours."""
  return loss_lib.loss_sums(
    hidden_BTD, head_VD, labels_BT, mask_BT, z_loss=Z_LOSS, chunk=chunk
  ).total


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=8)
  parser.add_argument('--tokens', type=int, default=4096, help='of all rows')
  parser.add_argument('--width', type=int, default=256)
  parser.add_argument('--vocabularies', default='8192,32768')
  parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  B, T, D = args.rows, args.tokens // args.rows, args.width
  print(
    f'jax {jax.__version__} on {jax.devices()[0].device_kind}: {B} rows of {T} tokens, width {D}, {args.dtype}'
  )
  print(f'{"V":>8} {"form":<10} {"chunk":>6} {"ms":>9} {"ratio":>6} {"temporary MiB":>14} {"largest gradient error":>23}')  # fmt: skip
  for V in map(int, args.vocabularies.split(',')):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (B, T, D), args.dtype)
    head = jax.random.normal(keys[1], (V, D)) * D**-0.5
    labels = jax.random.randint(keys[2], (B, T), 0, V)
    mask = jax.random.bernoulli(keys[3], 0.9, (B, T))
    chunk = loss_lib.positions_per_chunk(loss_lib.LossConfig(), B, T, D, V)
    whole = next(c for c in range(chunk, T + 1) if T % c == 0)
    forms = {
      'plain': (plain, T),
      'chunked': (functools.partial(chunked, chunk=chunk), chunk),
      'remat': (functools.partial(rematerialised, chunk=whole), whole),
    }
    runs, times, base = {}, {name: [] for name in forms}, None
    for name, (form, _) in forms.items():
      run = jax.jit(jax.value_and_grad(form, argnums=(0, 1))).lower(hidden, head, labels, mask)
      runs[name] = run.compile()
      jax.block_until_ready(runs[name](hidden, head, labels, mask))
    for _ in range(args.rounds):
      for name, run in runs.items():
        began = time.perf_counter()
        jax.block_until_ready(run(hidden, head, labels, mask))
        times[name].append(time.perf_counter() - began)
    for name, run in runs.items():
      _, gradients = run(hidden, head, labels, mask)
      base = base or gradients
      error = max(
        float(jnp.abs(g.astype(jnp.float32) - b.astype(jnp.float32)).max() / jnp.abs(b).max())
        for g, b in zip(gradients, base, strict=True)
      )
      ms = 1e3 * statistics.median(times[name])
      ratio = ms / (1e3 * statistics.median(times['plain']))
      size = run.memory_analysis().temp_size_in_bytes / 2**20
      print(f'{V:>8} {name:<10} {forms[name][1]:>6} {ms:>9.1f} {ratio:>6.2f} {size:>14.1f} {error:>23.1e}')  # fmt: skip


if __name__ == '__main__':
  main()
