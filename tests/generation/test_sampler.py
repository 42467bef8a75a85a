"""Rows are continued as a whole pass without a cache would, whatever batch, padding or mesh they are in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Continuation, Sampler
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig

CONFIG = DecoderConfig(
  layers=2, width=32, heads=4, kv_heads=2, feedforward=48, vocabulary=128, max_length=64, qk_norm=True
).resolve(platform='cpu')  # fmt: skip
VOCABULARY = 120  # the rest is padding
GRAPH, SHAPES, NAMES = decoder.abstract_decoder(CONFIG)
PARAMS = jax.tree.map(lambda x: 3 * x, decoder.init_params(CONFIG, jax.random.key(0)))
PROMPTS = [
  np.random.default_rng(0).integers(4, VOCABULARY, n).tolist() for n in (1, 9, 13, 5, 16, 2)
]
TOKENS = 10
DRAWN, GREEDY = Sampling(), Sampling(0.0)


@functools.cache
def mesh_of(**sizes):
  config = mesh_lib.MeshConfig(**{'data': 1, **sizes})
  return mesh_lib.make_mesh(config, jax.devices()[: int(np.prod(list(sizes.values()) or [1]))])


@functools.cache
def on(mesh):
  return jax.device_put(PARAMS, mesh_lib.param_shardings(mesh, SHAPES, NAMES))


@functools.cache
def sampler(sampling=DRAWN, batch=8, eos=1, mesh=None):
  mesh = mesh or mesh_of()
  return Sampler(CONFIG, mesh, eos=eos, vocabulary=VOCABULARY, sampling=sampling, batch=batch)


def run(
  prompts=PROMPTS, tokens=TOKENS, seed=3, mesh=None, watch=None, streams=None, chunk=4, **made
):
  one = sampler(mesh=mesh, **made)
  return one(
    on(one.mesh), prompts, tokens=tokens, seed=seed, watch=watch, streams=streams, chunk=chunk
  )


@jax.jit
def logits(row):
  model = decoder.bind(GRAPH, PARAMS)
  return model.logits(model(row, jnp.ones_like(row), jnp.arange(32)[None]))[0]


@functools.cache
def likeliest(index, eos=1):
  """A prompt continued by whole passes, nothing kept."""
  ids = list(PROMPTS[index])
  for _ in range(TOKENS):
    row = np.zeros((1, 32), np.int32)
    row[0, : len(ids)] = ids
    ids.append(int(logits(row)[len(ids) - 1][:VOCABULARY].argmax()))
    if ids[-1] == eos:
      return Continuation(ids[len(PROMPTS[index]) : -1], 'eos')
  return Continuation(ids[len(PROMPTS[index]) :], 'length')


def test_greedy_rows_are_the_likeliest_tokens_of_whole_passes():
  assert run(sampling=GREEDY) == [likeliest(i) for i in range(len(PROMPTS))]


def test_a_row_ends_with_its_eos_and_the_others_go_on():
  eos = likeliest(2).ids[4]
  found = run(sampling=GREEDY, eos=eos)
  assert found == [likeliest(i, eos) for i in range(len(PROMPTS))]
  assert found[2] == Continuation(likeliest(2).ids[: likeliest(2).ids.index(eos)], 'eos')
  assert {one.ended for one in found} == {'eos', 'length'}


def test_the_loop_ends_when_all_rows_have_ended():
  eos = likeliest(2).ids[4]
  one = sampler(GREEDY, eos=eos)
  fetched, programs = [], one._programs

  def spied(*arguments):
    first, more = programs(*arguments)

    def counted(*given):
      state, report = more(*given)
      fetched.append(int(report[2]))
      return state, report

    return first, counted

  one._programs = spied
  assert one(on(one.mesh), [PROMPTS[2]] * 6, tokens=TOKENS, seed=0)[5].ended == 'eos'
  assert fetched == [likeliest(2).ids.index(eos) + 1]
  del one._programs


def test_a_row_s_draws_depend_on_nothing_else_in_its_batch():
  together = run()
  streams = [(i, 0, 0) for i in range(len(PROMPTS))]
  backwards = run(PROMPTS[::-1], streams=streams[::-1])[::-1]
  alone = run(batch=1)
  longer = run(tokens=20)  # another shape, another cache
  assert together == backwards == alone
  assert [one.ids[:TOKENS] for one in longer] == [one.ids for one in together]


def test_seed_and_stream_change_the_draws():
  def first(*stream, **settings):
    return run([PROMPTS[1]] * 6, streams=[stream] * 6, **settings)[0].ids

  drawn = run([PROMPTS[1]] * 6)
  assert len({tuple(one.ids) for one in drawn}) == 6
  assert first(0, 0, 0) == drawn[0].ids
  others = [first(0, 1, 0), first(0, 0, 1), first(1, 0, 0), first(0, 0, 0, seed=2**32 - 1)]
  assert first(0, 0, 0) not in others
  assert others[2] == drawn[1].ids


@pytest.mark.parametrize(
  'sizes',
  [
    {'data': 2, 'fsdp': 2, 'tensor': 2},
    pytest.param({'data': 8}, marks=pytest.mark.slow),
    pytest.param({'fsdp': 2, 'sequence': 2}, marks=pytest.mark.slow),
  ],
)
def test_a_mesh_draws_the_same(sizes):
  mesh = mesh_of(**sizes)
  assert run(mesh=mesh) == run()
  sharding = on(mesh)['layers']['attention']['q'].sharding
  assert sharding.num_devices == mesh.size  # the parameters did lie on it


def test_a_watch_ends_rows_and_sees_them_grow():
  seen = []

  def watch(indices, so_far):
    seen.append({i: len(ids) for i, ids in zip(indices, so_far, strict=True)})
    return [index == 4 and len(ids) >= 5 for index, ids in zip(indices, so_far, strict=True)]

  found = run(sampling=GREEDY, watch=watch)
  assert found[4] == Continuation(likeliest(4).ids[:5], 'stop')
  assert [found[i] for i in (0, 1, 2, 3, 5)] == [likeliest(i) for i in (0, 1, 2, 3, 5)]
  assert [counts[0] for counts in seen] == [1, 5, 9, 10]
  assert [counts[4] for counts in seen] == [1, 5, 5, 5]


def test_shapes_are_few():
  one = sampler(batch=4)
  found = {
    shape
    for count in range(1, 12)
    for longest in range(1, 40)
    for shape in one.shapes([longest] * count, 64 - longest)
  }
  assert {rows for rows, _, _ in found} == {1, 2, 4}
  assert {room for _, room, _ in found} == {16, 32, 64}
  assert {new for _, _, new in found} == {32, 64}
  assert one.shapes([3, 40, 5, 4, 6], 5) == [(4, 16, 16), (1, 64, 16)]  # by length


def test_only_the_tokenizer_s_ids_are_drawn():
  found = run([PROMPTS[1]] * 64, sampling=Sampling(50.0))
  drawn = np.concatenate([one.ids for one in found])
  assert drawn.max() < VOCABULARY
  assert len(set(drawn.tolist())) > 100  # flat: nearly all of them were


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'prompts': [[5] * 65]}, 'a prompt has 65 tokens, .*max_length of this model is 64'),
    ({'prompts': [[5] * 60]}, '60 tokens, .* and 10 more are asked for: .* leaves room for 4'),
    ({'tokens': 0}, '0 tokens are asked for'),
    ({'prompts': [[5], []]}, 'prompt 1 has no tokens'),
    ({'prompts': [[128]]}, "prompt 0 has ids outside the model's 128"),
    ({'seed': -1}, 'seed is -1: it is 0 or more, below 2'),
    ({'seed': 2**32}, 'seed is 4294967296'),
    ({'batch': 0}, 'batch is 0'),
    ({'eos': 120}, 'vocabulary is 120: it is above the EOS, 120'),
  ],
)
def test_mistakes_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    run(**settings)
