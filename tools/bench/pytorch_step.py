"""A training step of the same shape in PyTorch, for `bench_step.py` to run beside ours.

  python tools/bench/pytorch_step.py '{"layers": 4, "width": 256, …}'

Reads a shape as JSON, runs the step, and prints one JSON object: seconds of each step, of the first one,
peak bytes. The model is a Llama as our decoder is: RMSNorm, RoPE on half heads, SwiGLU, grouped-query
attention, tied or separate embeddings, AdamW on float32 parameters, gradients clipped by global norm. It is
compiled, and takes PyTorch's fastest attention that can do what is asked: `scaled_dot_product_attention` for
rows of one document, `flex_attention` with a document mask for packed rows on a GPU.

Easy to get wrong: what is compared. Packed rows on a CPU would have to mask a whole square here, so there
rows of one document are timed on both sides, and the caller says so.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
  """A layer; x + attention(norm(x)), then x + mlp(norm(x))."""

  def __init__(self, c: dict):
    super().__init__()
    D, H, G, K = c['width'], c['heads'], c['kv_heads'], c['head_size']
    self.sizes = H, G, K
    self.first, self.second = nn.RMSNorm(D, 1e-6), nn.RMSNorm(D, 1e-6)
    self.q, self.k, self.v = (nn.Linear(D, n * K, bias=False) for n in (H, G, G))
    self.o = nn.Linear(H * K, D, bias=False)
    self.gate, self.up = (nn.Linear(D, c['feedforward'], bias=False) for _ in range(2))
    self.down = nn.Linear(c['feedforward'], D, bias=False)

  def forward(self, x, angles, attend):
    H, G, K = self.sizes
    B, T, _ = x.shape
    y = self.first(x)
    q, k, v = (
      f(y).view(B, T, n, K).transpose(1, 2) for f, n in ((self.q, H), (self.k, G), (self.v, G))
    )
    out = attend(_turn(q, *angles), _turn(k, *angles), v)
    x = x + self.o(out.transpose(1, 2).reshape(B, T, H * K))
    y = self.second(x)
    return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
  """Embedding, layers, norm, head."""

  def __init__(self, c: dict):
    super().__init__()
    D, V = c['width'], c['vocabulary']
    self.embed = nn.Embedding(V, D)
    self.blocks = nn.ModuleList(Block(c) for _ in range(c['layers']))
    self.norm = nn.RMSNorm(D, 1e-6)
    self.head = nn.Linear(D, V, bias=False)
    for p in self.parameters():
      if p.ndim > 1:
        nn.init.normal_(p, std=math.sqrt(2 / (5 * D)))
    if c['tied_embeddings']:
      self.head.weight = self.embed.weight

  def forward(self, tokens, labels, angles, attend):
    x = self.embed(tokens)
    for block in self.blocks:
      x = block(x, angles, attend)
    logits = self.head(self.norm(x)).float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def _turn(x, cos, sin):
  a, b = x.chunk(2, -1)
  return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def main() -> None:
  c = json.loads(sys.argv[1])
  device = c['device']
  torch.manual_seed(0)
  if c.get('threads'):
    torch.set_num_threads(c['threads'])
  # As our float32 does: whole float32 on a CPU, TensorFloat-32 on a GPU.
  torch.set_float32_matmul_precision('highest' if device == 'cpu' else 'high')
  B, T, K = c['batch'], c['length'], c['head_size']
  model = Llama(c).to(device)
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
  )
  rows = torch.randint(c['vocabulary'], (B, T + 1), device=device)
  at = torch.arange(T, device=device)
  if c['packed']:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document = at // (T // c['documents'])
    at = at % (T // c['documents'])
    mask = create_block_mask(
      lambda b, h, q, k: (q >= k) & (document[q] == document[k]), None, None, T, T, device=device
    )
    fast = torch.compile(flex_attention)
    attend = lambda q, k, v: fast(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])  # noqa: E731
  else:
    attend = lambda q, k, v: F.scaled_dot_product_attention(  # noqa: E731
      q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
    )
  angle = at[:, None] * 10_000.0 ** (-torch.arange(0, K, 2, device=device) / K)
  angles = angle.cos(), angle.sin()
  bf16 = c['dtype'] == 'bfloat16'

  def loss():
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
      return model(rows[:, :-1], rows[:, 1:], angles, attend)

  run = torch.compile(loss) if c['compile'] else loss
  seconds = []
  for _ in range(c['steps'] + 2):
    began = time.perf_counter()
    value = run()
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    value.item()
    seconds.append(time.perf_counter() - began)
  peak = torch.cuda.max_memory_allocated() if device == 'cuda' else None
  print(json.dumps({
    'version': torch.__version__, 'first': seconds[0], 'seconds': seconds[2:], 'peak': peak,
    'loss': value.item(), 'parameters': sum(p.numel() for p in model.parameters()),
  }))  # fmt: skip


if __name__ == '__main__':
  main()
