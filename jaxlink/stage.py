"""What a run is: its stages, and everything that a recipe can set.

`Run` is the root of a gin recipe. A run is a list of stages, one after the other, each with a mixture,
LINK policies, a token budget and a schedule.

Easy to get wrong: units. `tokens` counts input positions over the whole batch, and a stage makes
`steps` = tokens / (batch · sequence_length) updates, rounded up. Steps are counted over the run: the
second stage's first update is number `run.first_step(1)`.
"""

import dataclasses
import os
from typing import Literal

from jaxlink.checkpoint import CheckpointConfig
from jaxlink.config import configurable
from jaxlink.data.mixing import MixingConfig
from jaxlink.link.policy import LinkPolicy
from jaxlink.mesh import MeshConfig
from jaxlink.model.loss import LossConfig
from jaxlink.model.shape import DecoderConfig
from jaxlink.names import nearest
from jaxlink.optimizer import OptimizerConfig


def _check_local(setting: str, path: str) -> None:  # above, since defaults are made on import
  if '://' in path:
    raise ValueError(
      f'{setting} is {path!r}: addresses are not opened. Mount the bucket (Cloud Storage FUSE, s3fs) '
      'and give the path of its folder here.'
    )


@configurable
class DataConfig:
  """Where token blocks are kept, and how they are read.

  Attributes:
    cache_dir: folder of all caches, local or mounted; shared by runs.
    shards: files of a cache; many for a large corpus.
    block: tokens in a block, what one read takes from the disk.
    build_processes: that tokenise; 0 chooses by the size of the text and the cores.
    workers: processes that prepare batches; 0 prepares them in threads.
    prefetch: batches prepared ahead of the device.
  """

  cache_dir: str = 'cache'
  shards: int = 8
  block: int = 4096
  build_processes: int = 0
  workers: int = 0
  prefetch: int = 4

  def __post_init__(self):
    _check_local('DataConfig.cache_dir', self.cache_dir)
    for name, least in (('shards', 1), ('block', 1), ('build_processes', 0), ('workers', 0),
                        ('prefetch', 1)):  # fmt: skip
      if getattr(self, name) < least:
        raise ValueError(f'DataConfig.{name} is {getattr(self, name)}: it is {least} or more.')


@configurable
class EvaluationConfig:
  """Evaluation in the loop: held-out bits per byte of each language, evaluation sets, generated lines.

  Attributes:
    every_tokens: between two evaluations, trained tokens; 0 evaluates at the start and end only.
    split: of the mixture's tasks that is held out; tasks without it are not evaluated.
    batch: sequences at a time.
    sequence_length: of the windows in which text is scored; 0 takes the first stage's. One for all
      stages, since longer windows give lower scores.
    sets: evaluation sets that `Run.modules` register, by name or pattern, such as 'xcopa_*'. Questions are
      judged by the likelihood of their answers; `python -m jaxlink.evaluate` has them answered in writing.
    set_items: so many items of each set, spread evenly over it; 0 takes all.
    prompts: a text for each line to generate.
    generate_tokens: length of a generated line.
    temperature: of sampling; 0 takes the likeliest token.
  """

  every_tokens: int = 0
  split: str = 'validation'
  batch: int = 32
  sequence_length: int = 0
  sets: tuple[str, ...] = ()
  set_items: int = 0
  prompts: tuple[str, ...] = ()
  generate_tokens: int = 48
  temperature: float = 0.7

  def __post_init__(self):
    for name, least in (('every_tokens', 0), ('batch', 1), ('sequence_length', 0),
                        ('set_items', 0), ('generate_tokens', 1), ('temperature', 0)):  # fmt: skip
      if getattr(self, name) < least:
        raise ValueError(
          f'EvaluationConfig.{name} is {getattr(self, name)}: it is {least} or more.'
        )


def _folder_of(start_from: str) -> str | None:
  directory, at, step = start_from.rpartition('@')
  return (
    os.path.abspath(directory if at and '/' not in step else start_from) if start_from else None
  )


Rate = float | int | str | None
RateCurve = tuple[tuple[int, float | int | str], ...]


@configurable
class Stage:
  """A part of a run with one mixture and one schedule.

  Attributes:
    mixture: name of a SeqIO mixture or task.
    tokens: budget: input positions, summed over the batch.
    batch: sequences in a step, over all devices.
    sequence_length: T, tokens in a sequence.
    accumulate: parts in which each device takes its rows of a batch, one after the other, before the
      one update: the update is that of the whole batch, and memory is that of a part.
    optimizer: with the schedule of the learning rate over this stage.
    rates: shares of tokens that stand in for the mixture's own, by task: floats are read by their
      shortest decimal, '1/3' is allowed. Points of (tokens of the stage, rate) let them change.
    mixing: how shares follow from rates and from the size of the sources.
    link: substitution by task; only tasks of the auxiliary language belong here.
    link_route: 'load', words are replaced as tokens when they are read, and one cache serves all policies;
      'cache', the text is rewritten once, before it is cached.
    start_from: where parameters and optimizer come from. '' is the end of the stage before, and fresh
      parameters for the first one; the name of an earlier stage is the end of that one; else it is the
      directory of another run, or 'DIRECTORY@STEP' for a step that is not its last. Sources that were read
      go on where they stood there. The directory of a Hugging Face Llama or Qwen3 (config.json and
      .safetensors) gives its parameters; `python -m jaxlink.export --recipe DIRECTORY` prints the rest.
    optimizer_state: 'keep' takes the moments over; 'reset' begins with none, as a Hugging Face model does
      either way.
    name: as it is printed; each stage of a run has its own.
  """

  mixture: str
  tokens: int
  batch: int
  sequence_length: int
  optimizer: OptimizerConfig
  accumulate: int = 1
  rates: dict[str, Rate | RateCurve] = dataclasses.field(default_factory=dict)
  mixing: MixingConfig = MixingConfig()
  link: dict[str, LinkPolicy] = dataclasses.field(default_factory=dict)
  link_route: Literal['load', 'cache'] = 'load'
  start_from: str = ''
  optimizer_state: Literal['keep', 'reset'] = 'keep'
  name: str = 'pretrain'

  def __post_init__(self):
    for name in ('tokens', 'batch', 'sequence_length', 'accumulate'):
      if getattr(self, name) < 1:
        raise ValueError(f'Stage.{name} is {getattr(self, name)}: it is 1 or more.')
    if not self.name or self.name != self.name.strip() or '@' in self.name or '/' in self.name:
      raise ValueError(
        f"Stage.name is {self.name!r}: it is a word or a few, without '/' and '@', which are for directories."
      )
    _check_local('Stage.start_from', self.start_from)
    if self.rates and not self.mixing.uses_rates:
      raise ValueError(
        f'Stage.rates of {self.name!r} is {self.rates}, and MixingConfig.policy {self.mixing.policy!r} has no '
        "use for rates: leave them out, or choose 'given'."
      )

  @property
  def tokens_per_step(self) -> int:
    """Input positions of one update."""
    return self.batch * self.sequence_length

  @property
  def steps(self) -> int:
    """Updates: the token budget, rounded up to whole steps."""
    return -(-self.tokens // self.tokens_per_step)


@configurable
class Run:
  """A training run: the root of a recipe.

  Attributes:
    directory: of checkpoints, metrics and the saved configuration; local or mounted.
    modules: Python modules that register the tasks, such as 'tasks.sample'.
    stages: one after the other.
    seed_init: of the parameters and of generated lines. Seeds are 0 or more, below 2³².
    seed_order: of the order of sequences.
    seed_link: of the substitution. Two arms of a study share the first two.
    max_skipped: non-finite updates in a row after which the run stops.
    compile_cache: whether compiled steps are kept for the next start.
    wandb_project: the Weights & Biases project to log to as well; '' for none.
  """

  directory: str
  modules: tuple[str, ...]
  stages: tuple[Stage, ...]
  model: DecoderConfig
  loss: LossConfig = LossConfig()
  mesh: MeshConfig = MeshConfig()
  data: DataConfig = DataConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  seed_init: int = 0
  seed_order: int = 0
  seed_link: int = 0
  max_skipped: int = 20
  compile_cache: bool = True
  wandb_project: str = ''

  def __post_init__(self):
    _check_local('Run.directory', self.directory)
    for name in ('seed_init', 'seed_order', 'seed_link'):
      if not 0 <= getattr(self, name) < 2**32:
        raise ValueError(f'Run.{name} is {getattr(self, name)}: it is 0 or more, below 2**32.')
    if not self.stages:
      raise ValueError('Run.stages is empty: a run has one stage or more.')
    if self.max_skipped < 1:
      raise ValueError(f'Run.max_skipped is {self.max_skipped}: it is 1 or more.')
    lengths = {f'Stage.sequence_length of {s.name!r}': s.sequence_length for s in self.stages}
    lengths['EvaluationConfig.sequence_length'] = self.evaluation.sequence_length
    for setting, length in lengths.items():
      if length > self.model.max_length:
        raise ValueError(
          f'{setting} is {length}: DecoderConfig.max_length allows {self.model.max_length} positions.'
        )
    names = [stage.name for stage in self.stages]
    first = self.stages[0]
    if first.optimizer_state == 'reset' and not first.start_from:
      raise ValueError(
        f"Stage.optimizer_state of {first.name!r} is 'reset', and the stage begins with fresh parameters: "
        "it has none to reset. 'keep' is for it, too."
      )
    for k, stage in enumerate(self.stages):
      if _folder_of(stage.start_from) == os.path.abspath(self.directory):
        raise ValueError(
          f'Stage.start_from of {stage.name!r} is {stage.start_from!r}, the run itself: to branch within a '
          'run, name an earlier stage.'
        )
      if stage.name in names[:k]:
        raise ValueError(f'Stage.name {stage.name!r} is that of two stages: each has its own.')
      if stage.start_from in names[k:]:
        raise ValueError(
          f'Stage.start_from of {stage.name!r} is {stage.start_from!r}, which is no earlier stage. '
          f'Earlier: {", ".join(names[:k]) or "none"}.'
        )
      if k and stage.start_from and stage.start_from not in names and '/' not in stage.start_from:
        hit = nearest(stage.start_from, names[:k])
        raise ValueError(
          f'Stage.start_from of {stage.name!r} is {stage.start_from!r}, which is neither an earlier stage '
          f'nor a directory with a slash in its name.{hit}'
        )

      before = names.index(stage.start_from) if stage.start_from in names[:k] else k - 1
      if k and stage.start_from in ('', *names[:k]) and stage.optimizer_state == 'keep':
        here, there = stage.optimizer.keeps, self.stages[before].optimizer.keeps
        if here != there:
          raise ValueError(
            f"Stage.optimizer_state of {stage.name!r} is 'keep', and its optimizer keeps {here}, that of "
            f"{names[before]!r} {there}: 'reset' begins with none."
          )

  @property
  def steps(self) -> int:
    """Updates of all stages."""
    return self.first_step(len(self.stages))

  def first_step(self, k: int) -> int:
    """Finished updates when stage k begins; of k = the number of stages, when the run ends."""
    return sum(stage.steps for stage in self.stages[:k])

  def stage_at(self, step: int) -> int:
    """Which stage makes the update after `step` finished ones; the last one at the end of the run."""
    last = len(self.stages) - 1
    return next((k for k in range(last) if step < self.first_step(k + 1)), last)

  def tokens_at(self, step: int) -> int:
    """Input positions of the first `step` updates."""
    k = self.stage_at(step)
    before = sum(stage.steps * stage.tokens_per_step for stage in self.stages[:k])
    return before + (step - self.first_step(k)) * self.stages[k].tokens_per_step

  @property
  def evaluation_length(self) -> int:
    """Tokens in a window of held-out text."""
    return self.evaluation.sequence_length or self.stages[0].sequence_length
