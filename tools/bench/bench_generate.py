"""How fast tokens are generated: with the cache, without it, and beside transformers.

  python tools/bench/bench_generate.py --gin_file=gin/model/tiny.gin --vocabulary 8192
  python tools/bench/bench_generate.py --gin_file=gin/model/137m.gin --vocabulary 50304 --batches 1 8

Random parameters of a recipe's shape, greedy, every row drawing all its tokens (none ends early). For each
number of rows: tokens/s of `jaxlink.generation.sampler` (prompts included, compiling left out); the same
with a pass over the whole row for each token, compiled once; and `transformers`' generate with its cache on
the same weights, exported, where it is installed. Each is the median of --rounds. Prints the ratios, and
whether all drew the same tokens.

Easy to get wrong: threads. All three use the cores that the process may use; run nothing beside them.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlink import mesh as mesh_lib
from jaxlink.config import parse
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig


def main() -> None:
  args = _arguments()
  config = parse(DecoderConfig, args.gin_file, args.gin_bindings)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
  device = mesh.devices.flat[0]
  config = config.resolve(platform=device.platform, vocabulary=args.vocabulary)
  # Sharper than at the start of training: no two tokens are so near that rounding decides.
  params = jax.tree.map(lambda x: 2 * x, decoder.init_params(config, jax.random.key(0)))
  params = jax.device_put(params, mesh_lib.replicated(mesh))
  count = decoder.parameter_count(config).total
  print(
    f'{", ".join(args.gin_file)}: {count / 1e6:.1f}M parameters, {config.dtype}, prompts of {args.prompt} '
    f'tokens, {args.tokens} new ones, median of {args.rounds}; jax {jax.__version__} on {device.device_kind}'
  )
  theirs = _transformers(config, params) if device.platform == 'cpu' else None
  if theirs is None:
    print('transformers is not installed here, or this is no CPU: it is left out')
  print(
    'rows   cache, tokens/s   without, tokens/s   ratio   transformers, tokens/s   ratio   same tokens'
  )
  for rows in args.batches:
    rng = np.random.default_rng(rows)
    prompts = rng.integers(3, config.vocabulary, (rows, args.prompt)).tolist()
    kept, ids = _median(_cached(config, mesh, params, rows, args.tokens), prompts, args.rounds)
    whole, same = _median(_whole(config, params, args.tokens), prompts, args.rounds)
    line = f'{rows:>4} {kept:>17,.0f} {whole:>19,.0f} {kept / whole:>7.1f}'
    agree = ids == same
    if theirs is not None:
      other, found = _median(lambda prompts: theirs(prompts, args.tokens), prompts, args.rounds)
      line += f'{other:>25,.0f} {kept / other:>7.1f}'
      agree = agree and ids == found
    else:
      line += f'{"-":>25} {"-":>7}'
    print(f'{line}   {"yes" if agree else "no"}', flush=True)


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gin_file', action='append', required=True)
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--vocabulary', type=int, default=8192)
  parser.add_argument('--batches', type=int, nargs='+', default=[1, 4, 16])
  parser.add_argument('--prompt', type=int, default=64)
  parser.add_argument('--tokens', type=int, default=128)
  parser.add_argument('--rounds', type=int, default=3)
  return parser.parse_args()


Run = Callable[[Sequence[Sequence[int]]], list[list[int]]]


def _median(
  run: Run, prompts: Sequence[Sequence[int]], rounds: int
) -> tuple[float, list[list[int]]]:
  """Tokens/s, and the tokens; the first call compiles and is not counted."""
  found, speeds = run(prompts), []
  for _ in range(rounds):
    began = time.perf_counter()
    found = run(prompts)
    speeds.append(sum(map(len, found)) / (time.perf_counter() - began))
  return statistics.median(speeds), found


def _cached(config, mesh, params, rows, tokens) -> Run:
  # An EOS beyond what is drawn: no row ends.
  sampler = Sampler(
    config, mesh, eos=-1, vocabulary=config.vocabulary, sampling=Sampling(0.0), batch=rows
  )

  def run(prompts):
    return [one.ids for one in sampler(params, prompts, tokens=tokens, seed=0)]

  return run


def _whole(config, params, tokens) -> Run:
  graph, _, _ = decoder.abstract_decoder(config)

  @jax.jit
  def continued(params, tokens_BT, length):
    segments_BT = jnp.ones_like(tokens_BT)
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)

    def extend(at, tokens_BT):
      model = decoder.bind(graph, params)
      hidden_BTD = model(tokens_BT, segments_BT, positions_BT)
      hidden_B1D = jax.lax.dynamic_slice_in_dim(hidden_BTD, at - 1, 1, axis=1)
      drawn_B = model.logits(hidden_B1D)[:, 0].argmax(-1).astype(jnp.int32)
      return jax.lax.dynamic_update_slice(tokens_BT, drawn_B[:, None], (0, at))

    return jax.lax.fori_loop(length, length + tokens, extend, tokens_BT)

  def run(prompts):
    ids = np.array(prompts, np.int32)
    filled = continued(params, np.pad(ids, [(0, 0), (0, tokens)]), ids.shape[1])
    return np.asarray(filled)[:, ids.shape[1] :].tolist()

  return run


def _transformers(
  config, params
) -> Callable[[Sequence[Sequence[int]], int], list[list[int]]] | None:
  """Their greedy generation on the same weights; None where it is not installed."""
  try:
    import torch
    import transformers
  except ImportError:
    return None
  from jaxlink.huggingface import config_json, write

  with tempfile.TemporaryDirectory() as folder:
    ids = config_json.TextIds(2, 1, 0)
    described = config_json.to_json(config, ids, dtype='float32')
    path = pathlib.Path(folder)
    write._write_json(path / 'config.json', described)

    def read(keys):
      leaf = params
      for key in keys:
        leaf = leaf[key]
      return np.asarray(leaf)

    write.write_weights(
      path, config, read, vocabulary=config.vocabulary, dtype='float32', shard_bytes=1 << 40
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

  def run(prompts, tokens):
    inputs = torch.tensor(prompts)
    with torch.inference_mode():
      filled = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=tokens,
        min_new_tokens=tokens, eos_token_id=None, pad_token_id=0,
      )  # fmt: skip
    return filled[:, inputs.shape[1] :].tolist()

  return run


if __name__ == '__main__':
  main()
