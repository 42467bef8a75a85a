"""Compiles the train step of one stage for devices that are not here, and measures what came out.

A `setup.Plan` on a target's mesh goes in: the step that training would compile, by the same functions. A
`Compiled` comes out: memory by kind, flops, collectives, a roofline; or, where it does not fit, what the
compiler says of that.

Easy to get wrong: `total` is what the step holds at once on a device: arguments, temporaries, the code,
and results that take no argument's place. The state is donated, so its new values do.
"""

import dataclasses
import pathlib
import re
import tempfile
import time
from typing import Any

import jax

from jaxlink import mesh as mesh_lib
from jaxlink import step as step_lib
from jaxlink.aot import flops as flops_lib
from jaxlink.aot import hlo, traffic
from jaxlink.aot.roofline import Roofline, estimate
from jaxlink.aot.topology import Target
from jaxlink.model.shape import flops_per_token
from jaxlink.setup import Plan
from jaxlink.stage import Run

# Two ways in which libtpu says it; XLA:GPU has a third, without figures of both.
_LIMITS = (
  re.compile(r'Used (?P<used>[\d.]+)(?P<u>[KMGT]) of (?P<of>[\d.]+)(?P<o>[KMGT]) hbm'),
  re.compile(
    r'\((?P<used>[\d.]+)(?P<u>[KMGT])\) exceeds available HBM \((?P<of>[\d.]+)(?P<o>[KMGT])\)'
  ),
)
_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device. None: not known without a compiler.

  Attributes:
    parameters: float32.
    optimizer: its state, with the counters.
    batch: one batch.
    temporaries: activations, gradients and work space.
    outputs: results that do not lie where an argument lay.
    code: the program.
    total: of all these.
    limit: of the chip's data sheet; the compiler's own is a little less (15.75 GiB of v5e's 16).
  """

  parameters: int
  optimizer: int
  batch: int
  temporaries: int | None
  outputs: int | None
  code: int | None
  total: int | None
  limit: int

  @property
  def overflow(self) -> str:
    """What is too much, in words, or ''. Not every compiler refuses it by itself."""
    if self.total is None or self.total <= self.limit:
      return ''
    return f'{self.total / 2**30:.2f} GiB of {self.limit / 2**30:.2f} GiB on each device'


@dataclasses.dataclass(frozen=True)
class Work:
  """Flops of a step, over all devices.

  Attributes:
    model: as MFU defines them: `model.shape.flops_per_token` times the batch's tokens.
    counted: products and kernels of the traced step, loops in full.
    recomputed: of them, what remat computes a second time.
    kernels: of them, in kernels, which skip what causality masks.
    xla: what XLA's cost analysis says: of a loop, one turn; of a kernel, nothing. None where it does not.
  """

  model: float
  counted: float
  recomputed: float
  kernels: float
  xla: float | None


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What is known of a step.

  Attributes:
    stage: its name.
    mesh: sizes of axes, by name.
    rows: sequences of a batch on one device (on each group that splits a sequence).
    tokens: of a batch.
    attention: the implementation.
    remat: the policy.
    seconds: that compiling took; None if it was not compiled.
    memory: by kind.
    work: flops.
    collectives: largest first; None if not compiled.
    moved: bytes between HBM and the cores of a device; None if not compiled.
    roofline: the least time of a step.
    overflow: what the compiler says where the step does not fit, else ''.
    unbounded: loops whose length was not found.
  """

  stage: str
  mesh: dict[str, int]
  rows: int
  tokens: int
  attention: str
  remat: str
  seconds: float | None
  memory: Memory
  work: Work
  collectives: list[traffic.Collective] | None
  moved: float | None
  roofline: Roofline | None
  overflow: str = ''
  unbounded: tuple[str, ...] = ()


def compile_stage(run: Run, plan: Plan, target: Target) -> Compiled:
  """Compiles a plan's step, or traces it where there is no compiler for the target.

  Raises:
    jax.errors.JaxRuntimeError: the compiler failed for another reason than memory.
  """
  traced = jax.jit(plan.train_step(run)).trace(plan.state, plan.batch)
  work = _work(run, plan, traced)
  known = {
    'stage': plan.stage.name,
    'mesh': dict(plan.mesh.shape),
    'rows': mesh_lib.rows_per_device(plan.mesh, plan.stage.batch),
    'tokens': plan.stage.tokens_per_step,
    'attention': plan.model.attention,
    'remat': plan.model.remat,
  }
  if target.devices is None:
    memory = _memory(plan, target, None)
    return Compiled(
      **known, seconds=None, memory=memory, work=work, collectives=None, moved=None,
      roofline=_roofline(plan, target, work, None, None),
    )  # fmt: skip
  lowered = step_lib.lower_step(plan.train_step(run), plan.state, plan.batch)
  began = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    try:
      compiled = lowered.compile(
        {
          'xla_dump_to': folder,
          'xla_dump_hlo_as_text': True,
          'xla_dump_hlo_module_re': 'jit_train_step',
        }
      )
    except jax.errors.JaxRuntimeError as error:
      if not (overflow := overflow_of(str(error))):
        raise
      return Compiled(
        **known, seconds=time.perf_counter() - began, memory=_memory(plan, target, None), work=work,
        collectives=None, moved=None, roofline=None, overflow=overflow,
      )  # fmt: skip
    seconds = time.perf_counter() - began
    program = hlo.parse(_text(compiled, pathlib.Path(folder)))
  found = traffic.collectives(program, known['mesh'])
  moved = traffic.memory_traffic(program)
  cost = compiled.cost_analysis() or {}
  if 'flops' in cost:
    work = dataclasses.replace(work, xla=cost['flops'] * plan.mesh.size)
  memory = _memory(plan, target, compiled.memory_analysis())
  return Compiled(
    **known, seconds=seconds, memory=memory, work=work, collectives=found, moved=moved,
    roofline=_roofline(plan, target, work, moved, sum(c.sent for c in found)),
    overflow=memory.overflow, unbounded=tuple(dict.fromkeys(program.unbounded)),
  )  # fmt: skip


def overflow_of(message: str) -> str:
  """What a compiler's error says of too little memory, in a line; '' if it is another error."""
  if 'RESOURCE_EXHAUSTED' not in message:
    return ''
  for pattern in _LIMITS:
    if found := pattern.search(message):
      used, limit = (
        float(found[size]) * _UNITS[found[unit]] / 2**30
        for size, unit in (('used', 'u'), ('of', 'o'))
      )
      return f'{used:.2f} GiB of {limit:.2f} GiB of HBM on each device'
  return message.split('RESOURCE_EXHAUSTED:')[-1].strip().splitlines()[0]


def _text(compiled: jax.stages.Compiled, folder: pathlib.Path) -> str:
  """The optimized program; from the compiler's dump, for JAX cannot print each of libtpu's."""
  for end in ('after_optimizations.txt', 'gpu_after_optimizations.txt'):
    if files := sorted(folder.glob(f'*jit_train_step*{end}')):
      return files[0].read_text()
  return compiled.as_text()


def _memory(plan: Plan, target: Target, analysis: Any) -> Memory:
  def size(tree):
    return sum(mesh_lib.bytes_per_device(leaf) for leaf in jax.tree.leaves(tree))

  parameters = size(plan.state.params)
  state, batch = size(plan.state), size(plan.batch)
  known = (parameters, state - parameters, batch)
  if analysis is None:
    return Memory(*known, None, None, None, None, target.chip.memory)
  rest = (
    analysis.temp_size_in_bytes,
    analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
    analysis.generated_code_size_in_bytes,
  )
  return Memory(*known, *rest, analysis.argument_size_in_bytes + sum(rest), target.chip.memory)


def _work(run: Run, plan: Plan, traced: Any) -> Work:
  model, length, tokens = plan.model, plan.stage.sequence_length, plan.stage.tokens_per_step
  share = _seen(model.window, length)
  counted = flops_lib.count(traced.jaxpr)
  kernels = counted.kernels * share
  if counted.kernels:
    # The loops of some kernels are as long as a row needs, which no program says. No kernel does less than
    # this: two products forward and four backward.
    kernels = max(kernels, 12.0 * model.layers * model.heads * model.K * length * share * tokens)
  recomputed = 0.0
  if model.remat != 'none':
    once = dataclasses.replace(plan, model=dataclasses.replace(model, remat='none'))
    plain = flops_lib.count(jax.jit(once.train_step(run)).trace(plan.state, plan.batch).jaxpr)
    recomputed = counted.with_kernels(share) - plain.with_kernels(share)
  return Work(
    model=flops_per_token(model, length) * tokens,
    counted=counted.products + kernels,
    recomputed=recomputed,
    kernels=kernels,
    xla=None,
  )


def _seen(window: int, length: int) -> float:
  """The share of the square of positions that causality and a window leave."""
  window = min(window or length, length)
  return (window * (window + 1) / 2 + (length - window) * window) / length**2


def _roofline(plan, target, work, moved, sent) -> Roofline:
  return estimate(
    target.chip, target.count, flops=work.counted, model_flops=work.model,
    tokens=plan.stage.tokens_per_step, memory_bytes=moved, sent_bytes=sent,
  )  # fmt: skip
