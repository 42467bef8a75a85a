"""What each stage of a run reads: resolved once, frozen in the run's directory, opened.

`open_stages` takes a run and gives its batches by stage, with the position at which each begins. Caches
that are missing are built; sizes of sources, shares and positions follow from them. `freeze` keeps all of
that in `stages.json`: a run goes on with the caches, shares and positions that it began with, whatever has
become of the text, and a stage that is added later begins where the last one ends.

Easy to get wrong: what may change. A stage that has begun is frozen; one that has not may be changed,
added or left out, and is then resolved anew. Shares that follow from sizes are worked out for a stage
when all before it are known: a source read in one counts as read in the next.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from jaxlink import config, hosts
from jaxlink import origin as origin_lib
from jaxlink.data import mixing, resolve
from jaxlink.data.blocks import Blocks
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.loader import Batches
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.windows import Windows
from jaxlink.evaluation import prepare
from jaxlink.link.table import LinkTable
from jaxlink.names import nearest
from jaxlink.origin import Origin
from jaxlink.position import Position
from jaxlink.stage import Run, Stage

FILE = 'stages.json'
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class StageData:
  """The data of one stage.

  Attributes:
    stage: whose data it is.
    sources: with their caches, in the mixture's order.
    shares: of the mixture, as frozen.
    batches: all global batches, by the step of the stage.
    begins: the position before its first batch.
    request: by which its sources were resolved.
    origin: the checkpoint of another run that it starts from, or None.
  """

  stage: Stage
  sources: tuple[resolve.Source, ...]
  shares: mixing.ResolvedMixing
  batches: Batches
  begins: Position
  request: Mapping[str, Any]
  origin: Origin | None = None

  @property
  def blocks(self) -> list[Blocks]:
    """The caches, in the mixture's order."""
    return [window.blocks for window in self.batches.windows]

  def position(self, steps: int) -> Position:
    """Where the run is after so many steps of the stage."""
    return self.begins.after(self.batches, steps)

  @property
  def ends(self) -> Position:
    """Where the run is after the stage."""
    return self.position(self.stage.steps)

  def account(self, steps: int) -> dict[str, dict[str, float]]:
    """What each source has given after so many steps of the stage.

    Returns:
      Source → 'sequences', 'tokens' (both trained on) and 'repetitions' (of its unique tokens) of this
      stage, and the same names with 'all_' before them: in all, earlier stages and runs included.
    """
    now, found = self.position(steps), {}
    for window, count in zip(
      self.batches.windows, self.batches.counts(steps).tolist(), strict=True
    ):
      name = window.blocks.name
      reading = now.readings[name]
      found[name] = {
        'sequences': count,
        'tokens': count * self.batches.length,
        'repetitions': float(window.repetitions(count)),
        'all_sequences': reading.sequences,
        'all_tokens': reading.tokens,
        'all_repetitions': float(now.repetitions(name, window.blocks.tokens)),
      }
    return found


@dataclasses.dataclass(frozen=True)
class RunData:
  """The data of all stages of a run.

  Attributes:
    stages: one for each.
    evaluations: caches of the held-out text.
    tokenizer: of all sources.
    special: path, sha256, size, bos and eos of the tokenizer, as its cache has them.
    set_folders: of the evaluation sets of the loop, by name.
  """

  stages: tuple[StageData, ...]
  evaluations: tuple[resolve.Source, ...]
  tokenizer: Tokenizer
  special: Mapping[str, Any]
  set_folders: Mapping[str, str] = dataclasses.field(default_factory=dict)


def open_stages(run: Run, kept: Mapping[str, Any] | None = None) -> RunData:
  """Prepares what is missing of a run's caches, and opens all stages.

  Args:
    run: the recipe.
    kept: from `read`; its stages are taken as far as they are the recipe's.

  Raises:
    DataError: caches could not be made.
    ValueError: the sources do not make a stage's batches, or a frozen cache is gone and its text changed.
  """
  entries = _still_valid(run, kept)
  cache_dir, split = run.data.cache_dir, run.evaluation.split
  special: Mapping[str, Any] = {}
  evaluations: tuple[resolve.Source, ...] = ()
  whole = True
  if entries:
    special = {**kept['tokenizer'], 'path': os.path.join(cache_dir, kept['tokenizer']['path'])}
    evaluations = tuple(resolve.Source.from_json(e, cache_dir) for e in kept['evaluations'])
    whole = kept['evaluation_split'] != split or _missing(entries, evaluations, cache_dir) != []
  first = 0 if whole else len(entries)  # stages before it need not be resolved
  added: tuple[tuple[resolve.Source, ...], ...] = ()
  request: Mapping[str, Any] = {}
  if first < len(run.stages):
    request = resolve.make_request(run)
    if first and not resolve.is_prepared(request, cache_dir):
      later = dataclasses.replace(run, stages=run.stages[first:])
      request = {**resolve.make_request(later), 'evaluation_needed': False}
    else:
      first = 0
    resolution = resolve.resolve(request, cache_dir, processes=run.data.build_processes)
    if special and resolution.tokenizer['sha256'] != special['sha256']:
      raise ValueError(
        'the tokenizer has changed since the run began: its parameters are of no use with another.'
      )
    special = special or resolution.tokenizer
    same = kept is not None and kept['evaluation_split'] == split
    known = {source.task: source for source in evaluations} if same else {}
    evaluations = tuple(({s.task: s for s in resolution.evaluations} | known).values())
    added = resolution.stages[len(entries) - first :]
  if gone := _missing(entries, evaluations, cache_dir):
    raise ValueError(
      f'{", ".join(gone)} is gone, and its text has changed since the run began. A run goes on with the '
      'data that it began with: bring the folder back, or give Run.directory another name.'
    )
  tokenizer = Tokenizer(special['path'])
  opener = _Opener(run, tokenizer)
  for stage, entry in zip(run.stages, entries, strict=False):
    opener.add_kept(stage, entry)
  for stage, sources in zip(run.stages[len(entries) :], added, strict=True):
    opener.add(stage, sources, request)
  folders = _set_folders(run, kept)
  if folders is None:
    folders = prepare.prepared(run.evaluation.sets, run.modules, cache_dir)
  return RunData(tuple(opener.stages), evaluations, tokenizer, special, folders)


def _set_folders(run: Run, kept: Mapping[str, Any] | None) -> dict[str, str] | None:
  """The frozen evaluation sets, where they are those of the recipe; None where they are to be prepared."""
  if not run.evaluation.sets:
    return {}
  if not kept or kept.get('evaluation_sets', {}).get('names') != list(run.evaluation.sets):
    return None
  folders = {
    name: os.path.join(run.data.cache_dir, folder)
    for name, folder in kept['evaluation_sets']['folders'].items()
  }
  return folders if all(map(os.path.isdir, folders.values())) else None


def open_if_prepared(run: Run) -> tuple[RunData | None, str]:
  """Opens a run's stages if that takes no child process; else None, and why it does.

  Raises:
    What `open_stages` raises.
  """
  directory = pathlib.Path(run.directory)
  kept = read(directory) if has_begun(directory) else None
  if _set_folders(run, kept) is None:
    reason = prepare.stale(run.evaluation.sets, run.modules, run.data.cache_dir)
    if reason is not None:
      return None, f'evaluation sets: {reason}'
  entries = _still_valid(run, kept)
  if (
    len(entries) == len(run.stages)
    and kept['evaluation_split'] == run.evaluation.split
    and not _missing(entries, (), run.data.cache_dir)
  ):
    return open_stages(run, kept), ''
  reason = resolve.stale(resolve.make_request(run), run.data.cache_dir)
  return (open_stages(run, kept), '') if reason is None else (None, reason)


def open_on_hosts(run: Run, directory: pathlib.Path) -> RunData:
  """Opens a run's stages on every host; the first resolves and freezes them.

  Raises:
    What `open_stages` raises; on the other hosts ValueError where it was raised on the first.
  """
  opened: list[RunData] = []

  def prepare() -> bool:
    kept = read(directory) if has_begun(directory) else None
    if kept and (reason := changed_text(kept, run.data.cache_dir)):
      print(f'data: the run goes on with the caches that it began with ({reason})', flush=True)
    opened.append(open_stages(run, kept))
    freeze(run, directory, opened[0])
    return True

  hosts.first_decides(prepare)
  if opened:
    return opened[0]
  kept = read(directory)
  evaluations = [resolve.Source.from_json(s, run.data.cache_dir) for s in kept['evaluations']]
  if gone := _missing(kept['stages'], evaluations, run.data.cache_dir):
    raise ValueError(
      f'{", ".join(gone)} is not on this host: DataConfig.cache_dir is a folder that all hosts share.'
    )
  return open_stages(run, kept)


def has_begun(directory: pathlib.Path) -> bool:
  """Whether a run was started there: one that failed before its first step has frozen nothing."""
  return (directory / 'config.json').exists()


def read(directory: pathlib.Path) -> dict[str, Any] | None:
  """Reads what is frozen in a run's directory, or None where nothing is.

  Raises:
    ValueError: it is of another version of jaxlink.
  """
  path = directory / FILE
  if not path.exists():
    return None
  kept = json.loads(path.read_text(encoding='utf-8'))
  if kept['format'] != _FORMAT:
    raise ValueError(
      f'{path} was written by another version of jaxlink: give Run.directory another name.'
    )
  return kept


def freeze(run: Run, directory: pathlib.Path, data: RunData) -> None:
  """Keeps what the stages read, in one rename."""
  cache_dir = run.data.cache_dir
  kept = {
    'format': _FORMAT,
    'tokenizer': {**data.special, 'path': os.path.relpath(data.special['path'], cache_dir)},
    'evaluation_split': run.evaluation.split,
    'evaluations': [source.to_json(cache_dir) for source in data.evaluations],
    'evaluation_sets': {
      'names': list(run.evaluation.sets),
      'folders': {n: os.path.relpath(f, cache_dir) for n, f in data.set_folders.items()},
    },
    'stages': [
      {
        'config': config.resolved(d.stage),
        'sources': [source.to_json(cache_dir) for source in d.sources],
        'tokens': {blocks.name: blocks.tokens for blocks in d.blocks},
        'shares': d.shares.to_json(),
        'begins': d.begins.to_json(),
        'account': d.account(d.stage.steps),
        'batches': d.batches.fingerprint,
        'request': d.request,
        'origin': dataclasses.asdict(d.origin) if d.origin else None,
      }
      for d in data.stages
    ],
  }
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / FILE
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding='utf-8')
  partial.replace(path)


def changed_text(kept: Mapping[str, Any], cache_dir: str) -> str | None:
  """Why the text is not that of the frozen caches any more, as far as it can be told; else None."""
  for entry in kept['stages']:
    path = resolve.kept_path(entry['request'], cache_dir)
    if os.path.exists(path) and (reason := resolve.stale(entry['request'], cache_dir)):
      return reason
  return None


def _still_valid(run: Run, kept: Mapping[str, Any] | None) -> list[dict[str, Any]]:
  """The frozen stages that are those of the recipe, up to the first that is not."""
  entries = []
  for stage, entry in zip(run.stages, kept['stages'] if kept else [], strict=False):
    if config.differences(entry['config'], config.resolved(stage)):
      break
    entries.append(entry)
  return entries


def _missing(
  entries: Sequence[Mapping[str, Any]], evaluations: Sequence[resolve.Source], cache_dir: str
) -> list[str]:
  """Folders of frozen caches and link tables that are not there."""
  sources = [resolve.Source.from_json(s, cache_dir) for e in entries for s in e['sources']]
  folders = [folder for s in (*sources, *evaluations) for folder in (s.folder, s.link) if folder]
  return [folder for folder in dict.fromkeys(folders) if not os.path.isdir(folder)]


class _Opener:
  """Opens stage after stage; each cache once."""

  def __init__(self, run: Run, tokenizer: Tokenizer):
    self._run, self._tokenizer = run, tokenizer
    self._blocks: dict[str, Blocks] = {}
    self.stages: list[StageData] = []

  def add(
    self, stage: Stage, sources: Sequence[resolve.Source], request: Mapping[str, Any]
  ) -> None:
    """Works out a stage's shares and position from the sizes of its sources."""
    windows = [self._window(stage, source) for source in sources]
    origin, begins = self._origin(stage)
    tasks = [source.task for source in sources]
    for task in stage.rates:
      if task not in tasks:
        raise ValueError(
          f'Stage.rates: {task!r} is not in mixture {stage.mixture!r}.{nearest(task, tasks)}'
        )
    shares = mixing.resolve(
      stage.mixing,
      given={s.task: stage.rates.get(s.task) if stage.rates else s.rate or None for s in sources},
      available={
        s.task: Fraction(w.blocks.tokens * w.length) / w.stride
        for s, w in zip(sources, windows, strict=True)
      },
      budget=stage.steps * stage.tokens_per_step,
      before={
        s.task: begins.repetitions(w.blocks.name, w.blocks.tokens)
        for s, w in zip(sources, windows, strict=True)
      },
    )
    self._append(stage, sources, windows, shares, begins, request, origin)

  def add_kept(self, stage: Stage, entry: Mapping[str, Any]) -> None:
    """Opens a stage as it was frozen."""
    cache_dir = self._run.data.cache_dir
    sources = [resolve.Source.from_json(source, cache_dir) for source in entry['sources']]
    windows = [self._window(stage, source) for source in sources]
    shares = mixing.ResolvedMixing.from_json(entry['shares'])
    begins = Position.from_json(entry['begins'])
    origin = Origin(**entry['origin']) if entry['origin'] else None
    self._append(stage, sources, windows, shares, begins, entry['request'], origin)
    if self.stages[-1].batches.fingerprint != entry['batches']:
      changed = [
        window.blocks.name
        for window in windows
        if window.blocks.tokens != entry['tokens'][window.blocks.name]
      ]
      raise ValueError(
        f'the batches of stage {stage.name!r} are not those that the run began with'
        + (f': {", ".join(changed)} has another size' if changed else '')
        + '. They depend on caches, link tables and the code that reads them; give Run.directory another '
        'name.'
      )

  def _append(
    self, stage: Stage, sources: Sequence[resolve.Source],
    windows: Sequence[Windows | LinkedWindows], shares: mixing.ResolvedMixing, begins: Position,
    request: Mapping[str, Any], origin: Origin | None,
  ) -> None:  # fmt: skip
    by_task = {s.task: (s, w) for s, w in zip(sources, windows, strict=True)}
    read = [by_task[task] for task in shares.names]  # what a cap leaves nothing is left out
    mixture = shares.make(stage.sequence_length)
    constant = len(shares.knots) == 1
    batches = Batches(
      mixture,
      [window for _, window in read],
      stage.batch,
      firsts=[begins.first(window) for _, window in read],
      phase=begins.phase if constant and begins.mixture == mixture.key else 0,
    )
    self.stages.append(
      StageData(stage, tuple(s for s, _ in read), shares, batches, begins, request, origin)
    )

  def _origin(self, stage: Stage) -> tuple[Origin | None, Position]:
    """Where a stage begins."""
    if not stage.start_from:
      return None, self.stages[-1].ends if self.stages else Position()
    for earlier in self.stages:
      if earlier.stage.name == stage.start_from:
        return None, earlier.ends
    return origin_lib.take(stage.start_from, self._tokenizer)

  def _window(self, stage: Stage, source: resolve.Source) -> Windows | LinkedWindows:
    run = self._run
    if source.folder not in self._blocks:
      self._blocks[source.folder] = Blocks(source.folder)
    blocks = self._blocks[source.folder]
    if not source.link:
      return Windows(blocks, stage.sequence_length, run.seed_order)
    return LinkedWindows(
      blocks,
      stage.sequence_length,
      run.seed_order,
      table=LinkTable.open(source.link),
      policy=stage.link[source.task],
      seed_link=run.seed_link,
      stage_tokens=stage.tokens,
      tokenizer=self._tokenizer,
      source_counts=source.counts or None,
    )
