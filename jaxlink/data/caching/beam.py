"""Building a cache as an Apache Beam pipeline, on this machine or on a cluster.

  python -m jaxlink.cache --gin_file=... --runner DirectRunner -- --direct_num_workers=4

In: the work of a cache (`shards.Job`). Out: its files in the work folder, the same bytes as a
process pool writes, since the same two functions write them. The pipeline only hands out numbers:

  numbers of the parts → read_part → (all are done) → numbers of the shards → cache_shard

What is done is seen in the work folder, so a pipeline started again does only the rest. Beam's counters
`documents`, `tokens`, `words` and `blocks` are, at the end, those of the manifest.

Easy to get wrong: Beam may run several bundles at once as threads of one process, and our tokenizers
remember what they encoded: a lock lets one thread work at a time. Processes give speed, not threads.
"""

import collections
import contextlib
import dataclasses
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxlink.data.caching import cache_plan, machine, shards
from jaxlink.names import nearest

RUNNERS = (
  'DirectRunner', 'PrismRunner', 'FlinkRunner', 'SparkRunner', 'PortableRunner', 'DataflowRunner',
)  # fmt: skip
_COUNTED = ('documents', 'tokens', 'words', 'blocks')
_SAY_EVERY = 10  # seconds
_WORKING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Beam:
  """How a pipeline is run.

  Attributes:
    runner: one of `RUNNERS`.
    options: of the pipeline, as on Beam's command line: ('--direct_num_workers=4',).
    work_dir: folder that all workers reach, or URL (gs://, s3://), in which they meet; '' stands for
      the cache's own folder, which does where they share its disk.

  Raises:
    ValueError: an unknown runner or option, Beam is not installed, or the workers of the runner
      share no disk with this machine and `work_dir` is none of theirs.
  """

  runner: str
  options: tuple[str, ...] = ()
  work_dir: str = ''

  def __post_init__(self):
    if self.runner not in RUNNERS:
      raise ValueError(
        f'--runner is {self.runner!r}.{nearest(self.runner, RUNNERS)} '
        f'Allowed: local (processes of this machine), {", ".join(RUNNERS)}.'
      )
    if self.runner == 'DataflowRunner' and '://' not in self.work_dir:
      raise ValueError(
        f'--work_dir is {self.work_dir!r}: workers of Dataflow share no disk with this machine; give a '
        'folder of a bucket, such as gs://bucket/work.'
      )
    if importlib.util.find_spec('apache_beam') is None:
      raise ValueError(
        f'--runner {self.runner} needs Apache Beam, which is not installed: pip install "jaxlink[beam]", '
        'in an environment of its own.'
      )
    _check_options(self.runner, self.options)

  def work(self, plan: cache_plan.Plan) -> str:
    """Returns the folder or URL in which a cache is built."""
    if not self.work_dir:
      return machine.absolute(plan.work)
    return machine.absolute(
      f'{self.work_dir.rstrip("/")}/{plan.task}-{plan.split}-{plan.fingerprint[:16]}'
    )


def run(job: shards.Job, beam: Beam, *, progress: bool = True) -> dict[str, int]:
  """Runs a pipeline to its end.

  Args:
    job: the cache to be built.
    beam: how.
    progress: whether to say on stderr, now and then, what is done.

  Returns:
    Beam's counters over all shards: 'documents', 'tokens', 'words', 'blocks'.

  Raises:
    ValueError: what a worker raised, or the pipeline failed.
  """
  import apache_beam
  from apache_beam.options.pipeline_options import PipelineOptions

  options = PipelineOptions([f'--runner={beam.runner}', *beam.options])
  pipeline = apache_beam.Pipeline(options=options)
  read = _spread(apache_beam, pipeline, 'part', job.parts, shards.read_part, job)
  all_read = apache_beam.pvalue.AsSingleton(
    read | 'all parts' >> apache_beam.combiners.Count.Globally()
  )
  _spread(
    apache_beam, pipeline, 'shard', job.plan.settings.shards, shards.cache_shard, job, all_read
  )
  with _saying(job) if progress else contextlib.nullcontext():
    try:
      result = pipeline.run()
      result.wait_until_finish()
    except Exception as error:  # runners have no class in common
      raise ValueError(f'{job.plan.name}: {beam.runner}: {_reason(error)}') from error
  counters = collections.Counter(dict.fromkeys(_COUNTED, 0))
  for found in result.metrics().query()['counters']:
    if found.key.metric.name in counters:
      counters[found.key.metric.name] += found.result
  return dict(counters)


def _spread(apache_beam: Any, pipeline: Any, name: str, count: int, *call: Any) -> Any:
  """Calls a function for each number below `count`, on whichever worker is free."""
  return (
    pipeline
    | f'{name} numbers' >> apache_beam.Create(range(count))
    | f'spread {name}s' >> apache_beam.Reshuffle()
    | f'{name}s' >> apache_beam.Map(_call, *call)
  )


def _call(
  number: int, function: Callable[..., Iterator[dict]], job: shards.Job, after: int = 0
) -> int:
  """Runs one of the two functions on a worker; `after` is only waited for."""
  from apache_beam.metrics import Metrics

  del after
  with _WORKING:
    for event in function(job, number):
      if 'shard' in event:
        for name in _COUNTED:
          Metrics.counter('jaxlink', name).inc(event['shard'][name])
      elif 'tokens' in event:  # while it reads
        Metrics.counter('jaxlink', 'tokens_read').inc(event['tokens'])
  return number


def _check_options(runner: str, given: Sequence[str]) -> None:
  """Checks options as Beam, which passes over what it does not know, would not."""
  from apache_beam.options import pipeline_options

  parser = pipeline_options._BeamArgumentParser(allow_abbrev=False, exit_on_error=False)
  for options in pipeline_options.PipelineOptions.__subclasses__():
    options._add_argparse_args(parser)
  try:
    _, unknown = parser.parse_known_args(list(given))
  except Exception as error:  # argparse's, or what a type of Beam's raises
    raise ValueError(f'Pipeline options: {error}.') from None
  known = [name for action in parser._actions for name in action.option_strings]
  if any(option.partition('=')[0] == '--runner' for option in given):
    raise ValueError('Pipeline options: --runner goes before the --.')
  # A job server has options of its own, which Beam hands on to it.
  if unknown and runner in ('DirectRunner', 'PrismRunner', 'DataflowRunner'):
    name = unknown[0].partition('=')[0]
    raise ValueError(f'Pipeline options: Beam has no option {name!r}.{nearest(name, known)}')


@contextlib.contextmanager
def _saying(job: shards.Job) -> Iterator[None]:
  """Says on stderr, now and then, what of a job is done, as the work folder has it."""
  store, done = machine.Store(job.work), threading.Event()
  all_shards = job.plan.settings.shards
  started = time.monotonic()

  def say() -> None:
    while not done.wait(_SAY_EVERY):
      names = set(store.names())
      parts = sum(f'{job.part(part)}.json' in names for part in range(job.parts))
      written = sum(f'{job.shard(shard)}.json' in names for shard in range(all_shards))
      print(
        f'caching {job.plan.name}: {parts} of {job.parts} parts read, {written} of {all_shards} shards '
        f'written, {time.monotonic() - started:,.0f} s',
        file=sys.stderr, flush=True,
      )  # fmt: skip

  thread = threading.Thread(target=say, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def _reason(error: BaseException) -> str:
  """Returns the line that says what was wrong: of a trace that came as text, its last."""
  lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
  if lines[0].startswith('Traceback'):
    return lines[-1]
  return lines[0]
