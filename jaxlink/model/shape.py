"""The shape of a decoder, and what a token costs in it.

A recipe binds `DecoderConfig`; `resolve` fills in what depends on the devices and the tokenizer.

Easy to get wrong: flops. `flops_per_token` is the definition behind MFU and counts what the model needs,
not what a step does: remat computes more.
"""

import dataclasses

import jax

from jaxlink.config import configurable
from jaxlink.model import attention as attention_lib
from jaxlink.model import mup as mup_lib
from jaxlink.names import nearest

_ATTENTION = jax.checkpoint_policies.save_only_these_names(attention_lib.RESIDUALS)
REMAT_POLICIES = {
  'full': jax.checkpoint_policies.nothing_saveable,
  'attention': _ATTENTION,
  'dots': jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable, _ATTENTION
  ),
  **{
    name: getattr(jax.checkpoint_policies, name)
    for name in (
      'everything_saveable',
      'nothing_saveable',
      'dots_saveable',
      'dots_with_no_batch_dims_saveable',
    )
  },
}


@configurable
class DecoderConfig:
  """The shape of a decoder. After `resolve` nothing in it is left open.

  Attributes:
    layers: L.
    width: D.
    heads: H, query heads.
    feedforward: F, the width inside SwiGLU.
    kv_heads: G, key-value heads; 0 for as many as query heads.
    head_size: K; 0 for width / heads.
    vocabulary: V, padded; 0 until it is known from the tokenizer.
    tokenizer_size: how many entries of V are tokens; 0 until it is known, and for all. What is beyond
      is padding: never predicted, and no part of any sum over the vocabulary.
    max_length: the longest row allowed, in positions.
    rope_theta: base of RoPE's angles (arXiv 2104.09864).
    norm_epsilon: added to the mean square in RMSNorm (arXiv 1910.07467).
    qk_norm: RMSNorm over each head's queries and keys before RoPE, as in Qwen3.
    tied_embeddings: the head is the input embedding.
    dtype: of the products: 'float32', 'bfloat16', or 'auto': bfloat16 on TPU and GPU.
    remat: what the backward pass recomputes: 'none', 'full' (all of a layer), 'attention' (all but the
      output of an attention kernel; the same as 'full' with 'xla'), 'dots' (all but that and the
      layer's matrix products), or a policy of `jax.checkpoint_policies` by name.
    attention: an implementation of `attention.attend`, or 'auto'.
    window: how many positions a token sees, its own included, in every layer; 0 for all.
    soft_cap: c of c·tanh(score / c) on attention's scores (Gemma 2, arXiv 2408.00118); 0 for none.
    mup: maximal update parametrisation, see `jaxlink.model.mup`; None for the usual one.

  Raises:
    ValueError: a size that is not positive, heads that do not divide, an unknown name.
  """

  layers: int
  width: int
  heads: int
  feedforward: int
  kv_heads: int = 0
  head_size: int = 0
  vocabulary: int = 0
  tokenizer_size: int = 0
  max_length: int = 2048
  rope_theta: float = 10_000.0
  norm_epsilon: float = 1e-6
  qk_norm: bool = False
  tied_embeddings: bool = True
  dtype: str = 'auto'
  remat: str = 'none'
  attention: str = 'auto'
  window: int = 0
  soft_cap: float = 0.0
  mup: mup_lib.MupConfig | None = None

  def __post_init__(self):
    for name in ('layers', 'width', 'heads', 'feedforward', 'max_length'):
      if getattr(self, name) < 1:
        raise ValueError(f'DecoderConfig.{name} is {getattr(self, name)}: it is 1 or more.')
    for name in ('kv_heads', 'head_size', 'vocabulary', 'tokenizer_size'):
      if getattr(self, name) < 0:
        raise ValueError(f'DecoderConfig.{name} is {getattr(self, name)}: 0 leaves it open.')
    for name in ('rope_theta', 'norm_epsilon'):
      if not getattr(self, name) > 0:
        raise ValueError(f'DecoderConfig.{name} is {getattr(self, name)}: it is above 0.')
    if self.vocabulary and self.tokenizer_size > self.vocabulary:
      raise ValueError(
        f'DecoderConfig.vocabulary is {self.vocabulary}, and the tokenizer has {self.tokenizer_size} ids: it '
        "is that or more, or 0 to take the tokenizer's."
      )
    if not self.head_size and self.width % self.heads:
      raise ValueError(
        f'DecoderConfig.width is {self.width} and heads is {self.heads}: '
        'heads divides width, or head_size is given.'
      )
    if self.kv_heads and self.heads % self.kv_heads:
      raise ValueError(
        f'DecoderConfig.kv_heads is {self.kv_heads}: it divides the {self.heads} heads.'
      )
    if self.K % 2:
      raise ValueError(f'DecoderConfig.head_size is {self.K}: RoPE turns pairs, so it is even.')
    if self.mup and self.mup.zero_queries and self.qk_norm:
      raise ValueError(
        'MupConfig.zero_queries is True with DecoderConfig.qk_norm: a norm has no use for queries of 0. '
        'Leave one of them False.'
      )
    _check_name('remat', self.remat, ['none', *REMAT_POLICIES])
    _check_name('dtype', self.dtype, ['auto', 'float32', 'bfloat16'])
    _check_name('attention', self.attention, ['auto', *attention_lib.IMPLEMENTATIONS])
    attention_lib.check(self.window, self.soft_cap)

  @property
  def G(self) -> int:
    """Key-value heads."""
    return self.kv_heads or self.heads

  @property
  def K(self) -> int:
    """Size of a head."""
    return self.head_size or self.width // self.heads

  def choose_attention(self, platform: str, sequence: int = 1) -> tuple[str, str]:
    """The implementation of attention, and why it is that one; see `attention.choose`."""
    return attention_lib.choose(
      self.attention, platform, head_size=self.K, window=self.window, soft_cap=self.soft_cap,
      sequence=sequence,
    )  # fmt: skip

  def resolve(
    self,
    *,
    platform: str,
    vocabulary: int | None = None,
    tokenizer_size: int = 0,
    sequence: int = 1,
  ) -> 'DecoderConfig':
    """Fills in what depends on the devices and the tokenizer.

    Args:
      platform: 'cpu', 'gpu' or 'tpu', of the devices that will compute (not of this host).
      vocabulary: V, for a config that leaves it open.
      tokenizer_size: tokens among them; 0 leaves the config's.
      sequence: into how many parts the devices split a row.

    Raises:
      ValueError: no vocabulary, one that contradicts the config's, or an attention that cannot do
        what the config asks, or not on this platform.
    """
    if vocabulary is not None and self.vocabulary not in (0, vocabulary):
      raise ValueError(
        f'DecoderConfig.vocabulary is {self.vocabulary}, and the tokenizer asks for {vocabulary}: '
        "leave it 0 to take the tokenizer's."
      )
    vocabulary = vocabulary or self.vocabulary
    if vocabulary < 1:
      raise ValueError('DecoderConfig.vocabulary is 0: it is filled in from the tokenizer.')
    dtype = self.dtype
    if dtype == 'auto':
      dtype = 'float32' if platform == 'cpu' else 'bfloat16'
    return dataclasses.replace(
      self,
      vocabulary=vocabulary,
      tokenizer_size=tokenizer_size or self.tokenizer_size,
      dtype=dtype,
      attention=self.choose_attention(platform, sequence)[0],
    )


def flops_per_token(config: DecoderConfig, length: int) -> float:
  """Floating-point operations of one training step for one token: the MFU definition.

  6 for each parameter that multiplies a token (matrices of the layers and the head; not the
  embedding lookup, not the norms), and 6·L·H·K·(T + 1) for attention: PaLM's 12·L·H·K·T (arXiv
  2204.02311, appendix B) with the half of the square that causality needs, or the part of it that a
  window leaves. A packed row counts as one document of T tokens, and what remat computes again is
  not counted.

  Args:
    config: a resolved config.
    length: T.
  """
  D, H, G, K = config.width, config.heads, config.G, config.K
  layer = D * K * (2 * H + 2 * G) + 3 * D * config.feedforward
  matrices = config.layers * layer + config.vocabulary * D
  window = min(config.window or length, length)
  seen = window - window * (window - 1) / (2 * length)  # positions, on average
  return 6 * matrices + 12 * config.layers * H * K * seen


def _check_name(field, value, names):
  if value not in names:
    raise ValueError(
      f'DecoderConfig.{field} is {value!r}.{nearest(value, names)} Allowed: {", ".join(names)}.'
    )
