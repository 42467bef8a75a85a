"""The decoder: a pre-norm transformer with RMSNorm, RoPE, SwiGLU and grouped-query attention.

Tokens, segments and positions of B rows go in, hidden states BTD come out; the head is apart, so
that the loss can take logits chunk by chunk. The parameter tree maps one to one on a Hugging Face
Llama (Qwen3 with `qk_norm`):

  embed VD                      model.embed_tokens.weight
  layers.attention_norm LD      model.layers.*.input_layernorm.weight
  layers.attention.q LDHK       …self_attn.q_proj.weight   (there H·K by D; k, v with G heads)
  layers.attention.o LHKD       …self_attn.o_proj.weight   (there D by H·K)
  layers.attention.q_norm LK    …self_attn.q_norm.weight   (with qk_norm; k_norm likewise)
  layers.mlp_norm LD            …post_attention_layernorm.weight
  layers.mlp.gate, up LDF       …mlp.gate_proj.weight, up_proj.weight
  layers.mlp.down LFD           …mlp.down_proj.weight
  norm D                        model.norm.weight
  head VD                       lm_head.weight             (absent with tied embeddings)

Layers are stacked on a leading axis L and scanned: one layer is traced and compiled, not L.
Parameters are float32; products are taken in `dtype`, norms, angles and softmax in float32.

Easy to get wrong: RoPE rotates the two halves of a head (Hugging Face), not neighbouring pairs (the
paper), and takes the positions it is given: they restart at 0 with each packed fragment.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlink.model import attention as attention_lib
from jaxlink.model import mup as mup_lib
from jaxlink.model.axes import named
from jaxlink.model.loss import without_padding
from jaxlink.model.shape import REMAT_POLICIES, DecoderConfig

# (q_BTHK, k_BTGK, v_BTGK, memory=…, index=…) → (BTHK, memory), of layer number `index`.
Attend = Callable[..., tuple[jax.Array, Any]]


class Decoder(nnx.Module):
  """The decoder; a resolved `DecoderConfig` and `nnx.Rngs(params=key)` make one."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    if not config.vocabulary or 'auto' in (config.dtype, config.attention):
      raise ValueError(
        f'DecoderConfig has vocabulary {config.vocabulary}, dtype {config.dtype!r} and attention '
        f'{config.attention!r}: call config.resolve(platform=…, vocabulary=…) first.'
      )
    self.config = config
    V, D = config.vocabulary, config.width
    # NNX would place annotated parameters when they are made; the mesh does that, later.
    with nnx.use_eager_sharding(False):
      self.embed = _matrix(rngs, (V, D), ('vocab', 'embed'), _std(config, 'embed', V))
      self.layers = _stack(config, rngs)
      self.norm = _scale(D)
      if not config.tied_embeddings:
        self.head = _matrix(rngs, (V, D), ('vocab', 'embed'), _std(config, 'head', D))

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array, positions_BT: jax.Array
  ) -> jax.Array:
    """Hidden states BTD after the last norm, in the compute dtype.

    Args:
      tokens_BT: int32 in 0 to V - 1; any other gives NaN, which the training step notices.
      segments_BT: int32, 1, 2, … for the fragments of a row, 0 for padding.
      positions_BT: int32, from 0 in each fragment.

    Raises:
      ValueError: T is above `max_length`.
    """
    config = self.config
    if tokens_BT.shape[1] > config.max_length:
      raise ValueError(
        f'Rows of {tokens_BT.shape[1]} tokens, but DecoderConfig.max_length is {config.max_length}.'
      )

    def attend(q_BTHK, k_BTGK, v_BTGK, memory, index):
      del index
      return self.attend(q_BTHK, k_BTGK, v_BTGK, segments_BT), memory

    return self.run(tokens_BT, positions_BT, attend)[0]

  def attend(
    self, q_BTHK: jax.Array, k_BTGK: jax.Array, v_BTGK: jax.Array, segments_BT: jax.Array
  ) -> jax.Array:
    """`attention.attend` as the config has it."""
    config = self.config
    return attention_lib.attend(
      q_BTHK, k_BTGK, v_BTGK, segments_BT, implementation=config.attention,
      window=config.window, soft_cap=config.soft_cap,
    )  # fmt: skip

  def run(
    self, tokens_BT: jax.Array, positions_BT: jax.Array, attend: Attend, memory: Any = None
  ) -> tuple[jax.Array, Any]:
    """All layers with another attention, such as one that keeps keys and values for later tokens.

    Args:
      tokens_BT: as above.
      positions_BT: int32, for the angles.
      attend: what a layer does with its queries, keys and values.
      memory: a pytree that goes from layer to layer.

    Returns:
      Hidden states BTD after the last norm, and the memory as the last layer left it.
    """
    config = self.config
    x_BTD = named(
      _lookup(self.embed[...], tokens_BT, config.dtype), 'batch', 'sequence', 'residual'
    )
    angles = _angles(positions_BT, config.K, config.rope_theta)
    graph, stacked = nnx.split(self.layers)

    def layer(carry, numbered):
      (x_BTD, memory), (index, one) = carry, numbered
      here = functools.partial(attend, memory=memory, index=index)
      return nnx.merge(graph, one)(x_BTD, angles, here), None

    if config.remat != 'none':
      layer = jax.checkpoint(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=False)
    numbered = jnp.arange(config.layers), stacked
    (x_BTD, memory), _ = jax.lax.scan(layer, (x_BTD, memory), numbered)
    x_BTD = _rms_norm(x_BTD, self.norm[...], config.norm_epsilon)
    return x_BTD * mup_lib.scales(config).logits, memory

  def head_VD(self) -> jax.Array:
    """The float32 output embedding."""
    return (self.embed if self.config.tied_embeddings else self.head)[...]

  def logits(self, hidden_BTD: jax.Array) -> jax.Array:
    """Float32 logits BTV, all at once: for generation and tests; the loss takes them in chunks."""
    logits_BTV = jnp.einsum(
      'btd,vd->btv',
      hidden_BTD,
      self.head_VD().astype(hidden_BTD.dtype),
      preferred_element_type=jnp.float32,
    )
    return without_padding(
      named(logits_BTV, 'batch', 'sequence', 'vocab'), self.config.tokenizer_size
    )


class Layer(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    self.epsilon = config.norm_epsilon
    self.share = mup_lib.scales(config).branches
    self.attention_norm = _scale(config.width)
    self.attention = Attention(config, rngs=rngs)
    self.mlp_norm = _scale(config.width)
    self.mlp = Mlp(config, rngs=rngs)

  def __call__(self, x_BTD, angles, attend):
    normed_BTD = _rms_norm(x_BTD, self.attention_norm[...], self.epsilon)
    mixed_BTD, memory = self.attention(normed_BTD, angles, attend)
    x_BTD = named(x_BTD + mixed_BTD * self.share, 'batch', 'sequence', 'residual')
    mixed_BTD = self.mlp(_rms_norm(x_BTD, self.mlp_norm[...], self.epsilon))
    x_BTD = x_BTD + mixed_BTD * self.share
    return named(x_BTD, 'batch', 'sequence', 'residual'), memory


class Attention(nnx.Module):
  """Projections, optional norms of queries and keys, RoPE, and the attention that it is given."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    D, H, G, K = config.width, config.heads, config.G, config.K
    self.epsilon = config.norm_epsilon
    self.q = _matrix(rngs, (D, H, K), ('embed', 'heads', 'head_size'), _std(config, 'q', D))
    self.k = _matrix(rngs, (D, G, K), ('embed', 'kv', 'head_size'), _std(config, 'k', D))
    self.v = _matrix(rngs, (D, G, K), ('embed', 'kv', 'head_size'), _std(config, 'v', D))
    self.o = _matrix(rngs, (H, K, D), ('heads', 'head_size', 'embed'), _std(config, 'o', H * K))
    self.query_scale = mup_lib.scales(config).queries
    self.q_norm = _scale(K) if config.qk_norm else None
    self.k_norm = _scale(K) if config.qk_norm else None

  def __call__(self, x_BTD, angles, attend):
    dtype = x_BTD.dtype
    q_BTHK = jnp.einsum(
      'btd,dhk->bthk', x_BTD, _whole(self.q[...], dtype, ('embed', 'heads', 'head_size'))
    )
    k_BTGK = jnp.einsum(
      'btd,dgk->btgk', x_BTD, _whole(self.k[...], dtype, ('embed', 'kv', 'head_size'))
    )
    v_BTGK = jnp.einsum(
      'btd,dgk->btgk', x_BTD, _whole(self.v[...], dtype, ('embed', 'kv', 'head_size'))
    )
    if self.q_norm is not None:
      q_BTHK = _rms_norm(q_BTHK, self.q_norm[...], self.epsilon)
      k_BTGK = _rms_norm(k_BTGK, self.k_norm[...], self.epsilon)
    q_BTHK = _rotate(q_BTHK, angles) * self.query_scale
    q_BTHK = named(q_BTHK, 'batch', 'sequence', 'heads', 'head_size')
    k_BTGK = named(_rotate(k_BTGK, angles), 'batch', 'sequence', 'kv', 'head_size')
    v_BTGK = named(v_BTGK, 'batch', 'sequence', 'kv', 'head_size')
    out_BTHK, memory = attend(q_BTHK, k_BTGK, v_BTGK)
    out_BTHK = named(out_BTHK, 'batch', 'sequence', 'heads', 'head_size')
    return jnp.einsum(
      'bthk,hkd->btd', out_BTHK, _whole(self.o[...], dtype, ('heads', 'head_size', 'embed'))
    ), memory


class Mlp(nnx.Module):
  """SwiGLU (arXiv 2002.05202): down(silu(gate(x)) · up(x))."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    D, F = config.width, config.feedforward
    self.gate = _matrix(rngs, (D, F), ('embed', 'feedforward'), _std(config, 'gate', D))
    self.up = _matrix(rngs, (D, F), ('embed', 'feedforward'), _std(config, 'up', D))
    self.down = _matrix(rngs, (F, D), ('feedforward', 'embed'), _std(config, 'down', F))

  def __call__(self, x_BTD):
    dtype = x_BTD.dtype
    gate_BTF = x_BTD @ _whole(self.gate[...], dtype, ('embed', 'feedforward'))
    up_BTF = x_BTD @ _whole(self.up[...], dtype, ('embed', 'feedforward'))
    inner_BTF = named(jax.nn.silu(gate_BTF) * up_BTF, 'batch', 'sequence', 'feedforward')
    return inner_BTF @ _whole(self.down[...], dtype, ('feedforward', 'embed'))


@dataclasses.dataclass(frozen=True)
class ParameterCount:
  """Parameters of a decoder: `total`, and `embedding`, the part that is embeddings and head."""

  total: int
  embedding: int

  @property
  def without_embedding(self) -> int:
    return self.total - self.embedding


def abstract_decoder(config: DecoderConfig) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
  """What a decoder is made of, without making one.

  Returns:
    The graph definition, and two nested dicts of the same form: `jax.ShapeDtypeStruct` and the
    tuple of axis names of each parameter. `bind(graph, params)` is the decoder again.
  """
  graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
  names = jax.tree.map(
    tuple,
    nnx.to_pure_dict(nnx.get_partition_spec(state)),
    is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
  )
  return graph, nnx.to_pure_dict(state), names


def init_params(config: DecoderConfig, key: jax.Array) -> dict[str, Any]:
  """A decoder's initial parameters as a nested dict of float32 arrays; a pure function of the key.

  Matrices are normal with standard deviation √(2 / 5D) (Nguyen and Salazar, arXiv 1910.05895; 0.02
  at D = 1000), those that write to the residual stream, `o` and `down`, with that divided by √(2L)
  (GPT-2). Norms start at 1. With `mup`, matrices start as `jaxlink.model.mup` says.
  """
  return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


def bind(graph: nnx.GraphDef, params: dict[str, Any]) -> Decoder:
  """The decoder with these parameters."""
  return nnx.merge(graph, nnx.State(params))


def parameter_count(config: DecoderConfig) -> ParameterCount:
  """Counts the parameters of a resolved config; nothing is allocated."""
  _, shapes, _ = abstract_decoder(config)
  embedding = {name: shapes[name] for name in ('embed', 'head') if name in shapes}
  return ParameterCount(total=_size(shapes), embedding=_size(embedding))


def _stack(config, rngs):
  """L layers as one module whose parameters have a leading axis 'layers'."""

  @nnx.split_rngs(splits=config.layers)
  @nnx.vmap(in_axes=0, out_axes=0, transform_metadata={nnx.PARTITION_NAME: 'layers'})
  def make(rngs):
    return Layer(config, rngs=rngs)

  return make(rngs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _whole(weight, dtype, names):
  """A weight as a product takes it: in `dtype`, gathered along D; its gradient lies as the weight does.

  Left to itself, XLA cuts the product instead into as many as there are devices along D, and reads and
  writes its result for each: on 32 TPU chips that is two thirds of a step's memory traffic. The gradient
  crosses devices in `dtype`, and is float32 from there on.
  """
  return named(weight.astype(dtype), *('residual' if name == 'embed' else name for name in names))


def _whole_forward(weight, dtype, names):
  return _whole(weight, dtype, names), None


def _whole_backward(dtype, names, _, gradient):
  del dtype
  return (named(gradient, *names).astype(jnp.float32),)


_whole.defvjp(_whole_forward, _whole_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _lookup(embed_VD, tokens_BT, dtype):
  """Rows of the table in `dtype`, NaN for a token that is none; the gradient is summed in float32.

  The table is gathered along D, for rows of the batch are split over the same mesh axis. The gradient is
  not: each device sums its part of D, for all tokens, and none holds V·D numbers.
  """
  table_VD = named(embed_VD.astype(dtype), 'vocab', 'residual')
  return table_VD.at[tokens_BT].get(mode='fill', fill_value=jnp.nan, wrap_negative_indices=False)


def _lookup_forward(embed_VD, tokens_BT, dtype):
  return _lookup(embed_VD, tokens_BT, dtype), (tokens_BT, embed_VD.shape)


def _lookup_backward(dtype, kept, gradient_BTD):
  del dtype
  tokens_BT, shape = kept
  gradient_VD = named(jnp.zeros(shape, jnp.float32), 'vocab', 'embed')
  gradient_VD = gradient_VD.at[tokens_BT].add(
    gradient_BTD.astype(jnp.float32), mode='drop', wrap_negative_indices=False
  )
  return named(gradient_VD, 'vocab', 'embed'), None


_lookup.defvjp(_lookup_forward, _lookup_backward)


def _std(config, name, fan_in):
  """The standard deviation with which a matrix of this name starts, see `init_params`."""
  if config.mup is not None:
    return mup_lib.start_std(config, name, fan_in)
  std = math.sqrt(2 / (5 * config.width))
  return std / math.sqrt(2 * config.layers) if name in ('o', 'down') else std


def _matrix(rngs, shape, names, std):
  key = rngs.params()  # also for zeros: what one matrix draws does not depend on another's start
  value = std * jax.random.normal(key, shape, jnp.float32) if std else jnp.zeros(shape, jnp.float32)
  return nnx.Param(value, out_sharding=names)


def _scale(size):
  return nnx.Param(jnp.ones((size,), jnp.float32), out_sharding=('norm',))


def _rms_norm(x, scale, epsilon):
  """Over the last axis, in float32; the scale multiplies in the dtype of x, as in Llama."""
  wide = x.astype(jnp.float32)
  wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
  return wide.astype(x.dtype) * scale.astype(x.dtype)


def _angles(positions_BT, head_size, theta):
  """Cosine and sine, each float32 BT1K/2."""
  frequencies = theta ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
  angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies
  return jnp.cos(angles), jnp.sin(angles)


def _rotate(x_BTHK, angles):
  cos, sin = angles
  first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(x_BTHK.dtype)


def _size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
