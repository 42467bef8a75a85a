"""What each GiB buys: remat policies by batch sizes, compiled until the memory is full.

A run and a target go in; every step that was tried comes out with its memory and its least time.

Easy to get wrong: the order. Policies are tried from the one that recomputes least, and each from the
recipe's rows: doubled while they fit, halved until they do.
"""

import dataclasses
from collections.abc import Callable

from jaxlink import mesh as mesh_lib
from jaxlink import setup
from jaxlink.aot.stage import Compiled, compile_stage
from jaxlink.aot.topology import Target
from jaxlink.stage import Run

POLICIES = ('none', 'dots', 'attention', 'full')


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One step that was tried.

  Attributes:
    remat: policy.
    rows: of a device.
    gib: it takes in all; None where it does not fit.
    seconds: the least time of a step, see `roofline`.
    tokens_per_second: at that time, of all devices.
    mfu: the most that can be reached.
    recomputed: flops, as a share of the model's.
    overflow: what the compiler says where it does not fit.
  """

  remat: str
  rows: int
  gib: float | None
  seconds: float | None
  tokens_per_second: float | None
  mfu: float | None
  recomputed: float
  overflow: str = ''


@dataclasses.dataclass(frozen=True)
class Search:
  """What a search found for a stage.

  Attributes:
    stage: its name.
    rows: of a device, in the recipe.
    candidates: in the order tried.
  """

  stage: str
  rows: int
  candidates: tuple[Candidate, ...]

  @property
  def fitting(self) -> list[Candidate]:
    return [one for one in self.candidates if not one.overflow]

  @property
  def largest(self) -> Candidate | None:
    """The largest batch that fits; of several policies the one that recomputes least."""
    return max(self.fitting, key=lambda one: (one.rows, -one.recomputed), default=None)

  @property
  def cheapest(self) -> Candidate | None:
    """What recomputes least of those that fit with the recipe's batch."""
    fitting = [one for one in self.fitting if one.rows == self.rows]
    return min(fitting, key=lambda one: (one.recomputed, one.gib), default=None)

  @property
  def frontier(self) -> list[Candidate]:
    """By memory, those that are faster than all that take less."""
    found: list[Candidate] = []
    for one in sorted(self.fitting, key=lambda one: (one.gib, -one.tokens_per_second)):
      if not found or one.tokens_per_second > found[-1].tokens_per_second:
        found.append(one)
    return found


def search(
  run: Run,
  k: int,
  target: Target,
  mesh: mesh_lib.AnyMesh,
  *,
  most: int = 64,
  said: Callable[[Candidate], None] = lambda one: None,
  compile_one: Callable[[Run, setup.Plan, Target], Compiled] = compile_stage,
) -> Search:
  """Compiles stage k with each policy and with more and more rows.

  Args:
    run: the recipe.
    k: which stage.
    target: with devices to compile for.
    mesh: of them.
    most: rows of a device that are not exceeded.
    said: called with each candidate when it is known.
    compile_one: what compiles.

  Raises:
    ValueError: the target has no compiler here, so that nothing can be said of its memory.
  """
  if target.devices is None:
    raise ValueError(f'--search needs memory of temporaries, and there is {target.lack}')
  rows = mesh_lib.rows_per_device(mesh, run.stages[k].batch)
  tried: list[Candidate] = []

  def attempt(remat: str, n: int) -> Candidate:
    stage = dataclasses.replace(
      run.stages[k], batch=n * mesh_lib.batch_ways(mesh), accumulate=1, start_from=''
    )
    changed = dataclasses.replace(
      run, stages=(stage,), model=dataclasses.replace(run.model, remat=remat)
    )
    tried.append(_candidate(compile_one(changed, setup.make_plans(changed, None, mesh)[0], target)))
    said(tried[-1])
    return tried[-1]

  for remat in POLICIES:
    n = rows
    if attempt(remat, n).overflow:
      while n > 1 and tried[-1].overflow:
        n //= 2
        attempt(remat, n)
      continue
    while 2 * n <= most and not tried[-1].overflow:
      n *= 2
      attempt(remat, n)
  return Search(run.stages[k].name, rows, tuple(tried))


def _candidate(found: Compiled) -> Candidate:
  recomputed = found.work.recomputed / found.work.model
  if found.overflow:
    return Candidate(found.remat, found.rows, None, None, None, None, recomputed, found.overflow)
  roof = found.roofline
  return Candidate(
    found.remat, found.rows, found.memory.total / 2**30, roof.seconds, roof.tokens_per_second,
    roof.mfu, recomputed,
  )  # fmt: skip
