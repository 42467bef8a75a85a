"""`python -m jaxlink.cache`: turns the tasks of a recipe into token blocks.

  python -m jaxlink.cache --gin_file=gin/quickstart.gin
  python -m jaxlink.cache --modules tasks.sample --mixture sample_en_sample_tr

  python -m jaxlink.cache --gin_file=gin/quickstart.gin --publish corpus

The last one writes the text that LINK makes of the recipe's sources, as JSONL with a manifest of the dose.
Training does this by itself for what is missing; run it beforehand for a large corpus, or to carry
the cache to a machine without TensorFlow. Killed and started again, it goes on where it was.

Processes of this machine do the work, or an Apache Beam pipeline, whose own options follow a `--`:

  python -m jaxlink.cache --gin_file=gin/quickstart.gin --runner DirectRunner -- --direct_num_workers=4
  python -m jaxlink.cache --gin_file=gin/quickstart.gin --runner DataflowRunner \\
      --work_dir gs://bucket/work -- --project=P --region=R --temp_location=gs://bucket/temp

The files are the same. docs/caching.md says more.

Easy to get wrong: TensorFlow is imported here and in the audit, never where a model is trained.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from jaxlink.data import seqio_side, sources
from jaxlink.names import nearest


def answer(
  request: dict[str, Any],
  cache_dir: str,
  *,
  processes: int = 0,
  beam: Any = None,
) -> None:
  """Resolves a request (`jaxlink.data.resolve`), builds its caches and keeps the answer.

  Args:
    request: from `resolve.make_request`.
    cache_dir: folder of all caches.
    processes: that tokenise; 0 chooses.
    beam: `jaxlink.data.caching.beam.Beam`, the pipeline that builds caches instead of processes.

  Raises:
    ValueError, FileNotFoundError: an unknown module, mixture, task, split or lexicon, bad rates, bad
      text.
  """
  seqio_side.import_tensorflow()
  import seqio

  from jaxlink.data import blocks as blocks_lib
  from jaxlink.data import fingerprint, linking, registry, resolve
  from jaxlink.data.caching import build, cache_plan
  from jaxlink.link.policy import LinkPolicy

  for module in request['modules']:
    seqio_side.import_module(module)
  os.makedirs(os.path.join(cache_dir, 'resolved'), exist_ok=True)
  inputs = fingerprint.Inputs(os.path.join(cache_dir, 'hashes.json'))
  settings = cache_plan.CacheSettings(request['shards'], request['block'])

  plans: dict[str, cache_plan.Plan] = {}  # by folder: each cache is built once

  def add(task: str, split: str, link: cache_plan.Link | None = None) -> dict[str, Any]:
    plan = cache_plan.make_plan(
      task, split, cache_dir=cache_dir, inputs=inputs, modules=request['modules'], link=link,
      settings=settings,
    )  # fmt: skip
    plans[plan.folder] = plan
    return {
      'task': task,
      'language': registry.LANGUAGES.get(task, task),
      'folder': os.path.relpath(plan.folder, cache_dir),
    }

  stages, tasks = [], {}
  tables: list[tuple[dict[str, Any], LinkPolicy]] = []  # to be made when the caches are there
  for stage in request['stages']:
    rates = _rates(stage)
    policies = {
      task: linking.resolve_policy(_policy(policy)) for task, policy in stage['link'].items()
    }
    _check_links(policies, rates)
    sources = []
    for task, rate in rates.items():
      policy, link = policies.get(task), None
      if policy and stage['link_route'] == 'cache':
        link = cache_plan.Link(policy, request['seed_link'])
      sources.append({**add(task, 'train', link), 'rate': rate})
      if policy and not link:
        tables.append((sources[-1], policy))
    stages.append(sources)
    tasks.update(rates)
  split = request['evaluation_split']
  evaluations = [
    {**add(task, split), 'rate': ''} for task in tasks
    if split in seqio.TaskRegistry.get(task).source.splits
  ]  # fmt: skip
  if split and request.get('evaluation_needed', True) and not evaluations:
    splits = sorted({str(s) for t in tasks for s in seqio.TaskRegistry.get(t).source.splits})
    raise ValueError(
      f'EvaluationConfig.split is {split!r}: no task of the stages has it.{nearest(split, splits)} '
      f"Splits: {', '.join(splits)}; '' evaluates nothing."
    )
  _check_tokenizers(plans.values())
  for plan in plans.values():
    _tell_losses(build.build(plan, processes=processes, beam=beam))
  for source, policy in tables:
    blocks = blocks_lib.Blocks(os.path.join(cache_dir, source['folder']))
    table = linking.make_table(
      policy, registry.source_language(source['task']), blocks, cache_dir, inputs
    )
    source['link'] = os.path.relpath(table.folder, cache_dir)
    if policy.ratio_of == 'all':
      source['counts'] = linking.count_source(blocks, table, policy.language_by)
  inputs.save()

  first = next(iter(plans.values()))
  tokenizer = build.read_tokenizer(first)
  for file in project_files(request['modules']):
    inputs.sha256(file)
  for library in resolve.LIBRARIES:
    inputs.version(library)
  kept = {
    'format': resolve.FORMAT,
    'request': request,
    'answer': {
      'stages': stages,
      'evaluations': evaluations,
      'tokenizer': {**tokenizer, 'path': os.path.relpath(tokenizer['path'], cache_dir)},
    },
    **inputs.kept(),
  }
  path = resolve.kept_path(request, cache_dir)
  with open(path + '.partial', 'w', encoding='utf-8') as file:
    json.dump(kept, file, indent=1)
  os.replace(path + '.partial', path)


def publish(request: dict[str, Any], folder: str, seed: int) -> None:
  """Writes the rewritten training text of each source of a request that has LINK.

  Raises:
    ValueError: no source has it; and what `answer` raises.
  """
  seqio_side.import_tensorflow()

  from jaxlink.data import fingerprint, linking
  from jaxlink.data.caching import cache_plan
  from jaxlink.data.caching import publish as publish_lib

  for module in request['modules']:
    seqio_side.import_module(module)
  with tempfile.TemporaryDirectory() as scratch:
    inputs = fingerprint.Inputs(os.path.join(scratch, 'hashes.json'))
    written = []
    for stage in request['stages']:
      policies = {
        task: linking.resolve_policy(_policy(fields)) for task, fields in stage['link'].items()
      }
      _check_links(policies, _rates(stage))
      for task, policy in policies.items():
        plan = cache_plan.make_plan(
          task, 'train', cache_dir=scratch, inputs=inputs, modules=request['modules'],
          link=cache_plan.Link(policy, seed),
        )  # fmt: skip
        manifest = publish_lib.publish(plan, folder)
        written.append(os.path.join(folder, f'{task}.train.jsonl.gz'))
        print(
          f'{written[-1]}: {manifest["dose"]["documents"]:,} documents, '
          f'{manifest["dose"]["documents_rewritten"]:,} rewritten; {manifest["dose"]["replaced"]:,} of '
          f'their {manifest["dose"]["words"]:,} words replaced'
        )
  if not written:
    raise ValueError('--publish: no source of the recipe has a policy in Stage.link.')


def _rates(stage: dict[str, Any]) -> dict[str, str]:
  """Returns the exact rate of each task of a stage's mixture, as text; '' where none is needed."""
  import seqio

  name = stage['mixture']
  if name in seqio.MixtureRegistry.names():
    mixture = seqio.MixtureRegistry.get(name)
    if not stage['rates_needed']:
      return dict.fromkeys(sorted(task.name for task in mixture.tasks), '')
    rates = _mixture_rates(mixture)
  elif name in seqio.TaskRegistry.names():
    rates = {name: Fraction(1)}
  else:
    known = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
    raise ValueError(
      f'Stage.mixture: no mixture or task {name!r} is registered.{nearest(name, known)} '
      f'Registered: {", ".join(sorted(known)) or "none; Run.modules names the modules that do"}.'
    )
  return {task: str(rate) for task, rate in rates.items()}


def _mixture_rates(mixture: Any) -> dict[str, Fraction]:
  """Returns the exact rate of each task of a mixture; one inside it shares its own rate out."""
  import seqio

  from jaxlink.data import registry
  from jaxlink.data.mixture import parse_rate

  exact = registry.RATES.get(mixture.name, {})
  found: dict[str, Fraction] = {}
  for name, given in mixture.rate_per_task_name.items():
    is_task = name in seqio.TaskRegistry.names()
    member = (seqio.TaskRegistry if is_task else seqio.MixtureRegistry).get(name)
    rate = parse_rate(exact.get(name, _call_rate(mixture, given, member)), name)
    parts = {name: Fraction(1)} if is_task else _mixture_rates(member)
    for task, part in parts.items():
      found[task] = found.get(task, Fraction(0)) + rate * part / sum(parts.values())
  return dict(sorted(found.items()))


def _call_rate(mixture: Any, given: Any, member: Any) -> Any:
  """Returns a rate as SeqIO has it; one that is a function is asked with the task or mixture."""
  if not callable(given):
    return given
  try:
    return given(member)
  except Exception as error:  # it is anyone's
    raise ValueError(
      f'Mixture {mixture.name!r}: the rate of {member.name!r} is a function that fails '
      f"({type(error).__name__}: {error}). SeqIO's own cache and its statistics are not used here; "
      '`mixing_rate_num_examples` needs `num_input_examples` of the source. Give these, or plain numbers in '
      'Stage.rates.'
    ) from error


def _policy(fields: dict[str, Any]) -> Any:
  from jaxlink.link.policy import LinkPolicy

  return LinkPolicy(**fields)


def _check_links(policies: dict[str, Any], rates: dict[str, str]) -> None:
  import seqio

  from jaxlink.data import existing, linking, registry
  from jaxlink.link.formats import languages

  for task, policy in policies.items():
    if task not in rates:
      raise ValueError(f'Stage.link: {task!r} is not in the mixture.{nearest(task, rates)}')
    if not existing.is_marked(seqio.TaskRegistry.get(task)):
      raise ValueError(linking.no_marks(task))
    language = registry.source_language(task)
    if any(languages.same(language, target) for target in policy.lexicons):
      raise ValueError(
        f'Stage.link: {task!r} is text in {language!r}, the language of the lexicon: '
        'only auxiliary text is rewritten.'
      )
    linking.check_stop_words(policy, language)


def _tell_losses(blocks: Any) -> None:
  """Prints what of a source did not get into its cache."""
  manifest = blocks.manifest
  rejected, empty = manifest['rejected_lines'], manifest['empty_documents']
  if rejected or empty:
    print(
      f'data: {manifest["name"]}: {rejected:,} bad lines and {empty:,} empty documents left out',
      flush=True,
    )
  if rejected:
    print(f'data: {manifest["name"]}: {sources.describe(manifest["rejected"])}', flush=True)
  if removed := manifest['removed']:
    reasons = ', '.join(f'{n:,} {reason}' for reason, n in removed.items())
    print(
      f'data: {manifest["name"]}: {sum(removed.values()):,} documents removed: {reasons}',
      flush=True,
    )
  for name, found in manifest['contamination'].items():
    print(
      f'data: {manifest["name"]}: shares n-grams with {len(found["found"]):,} of {found["items"]:,} '
      f'items of {name}',
      flush=True,
    )
  if decoded := manifest['decoded_documents']:
    print(
      f'data: {manifest["name"]}: bytes of {decoded:,} of {manifest["documents"]:,} documents are those of '
      'their decoded tokens, since the task keeps no text of them; bits per byte are of these',
      flush=True,
    )


def _check_tokenizers(plans: Iterable[Any]) -> None:
  seen: dict[str, str] = {}
  for plan in plans:
    vocabulary = plan.get_vocabulary()
    for name, other in seen.items():
      if vocabulary != other:
        raise ValueError(f'Tasks {name!r} and {plan.task!r} have different tokenizers.')
    seen[plan.task] = vocabulary


def project_files(modules: list[str]) -> list[str]:
  """Returns the files of the modules of a request and of all loaded ones that are not libraries."""
  from jaxlink.data import fingerprint

  return [
    os.path.abspath(module.__file__) for name, module in list(sys.modules.items())
    if getattr(module, '__file__', None) and not name.startswith('__autograph')
    and (name in modules or not fingerprint.is_library(name))
  ]  # fmt: skip


def end_with(parent: int) -> None:
  """Ends this process when its parent has ended, even if that was killed."""

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(0.5)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _beam(args: argparse.Namespace, options: list[str]) -> Any:
  """Returns the pipeline that is asked for; None where processes of this machine do the work."""
  if args.runner == 'local':
    if given := options or [f'--work_dir {args.work_dir}'] * bool(args.work_dir):
      raise ValueError(
        f'--runner is local, and {given[0]} is of a Beam pipeline. Runners of Beam: '
        '--runner DirectRunner and others; docs/caching.md.'
      )
    return None
  if args.processes:
    raise ValueError(
      f'--processes is {args.processes} and --runner {args.runner}: each runner has options of its own for '
      'that, after a --, such as --direct_num_workers=4.'
    )
  seqio_side.import_tensorflow()

  from jaxlink.data.caching.beam import Beam

  return Beam(args.runner, tuple(options), args.work_dir)


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.cache',
    usage='%(prog)s [options] [-- pipeline options]',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--gin_file', action='append', default=[], help='recipe; may be repeated')
  parser.add_argument(
    '--gin_bindings', action='append', default=[], metavar='BINDING', help="e.g. 'Stage.batch = 8'"
  )
  parser.add_argument('--modules', nargs='+', default=[], help='modules that register tasks')
  parser.add_argument('--mixture', default='', help='a mixture or task, where no recipe is given')
  parser.add_argument('--cache_dir', default=None, help="default: the recipe's, else 'cache'")
  parser.add_argument('--processes', type=int, default=0, help='0: by the size and the cores')
  parser.add_argument(
    '--runner', default='local',
    help='local: processes of this machine (default); or a runner of Apache Beam: DirectRunner, PrismRunner, '
    'FlinkRunner, SparkRunner, PortableRunner, DataflowRunner',
  )  # fmt: skip
  parser.add_argument(
    '--work_dir', default='',
    help='with Beam: folder that all workers reach, or URL (gs://, s3://), to build in; default: --cache_dir',
  )  # fmt: skip
  parser.add_argument(
    '--publish', metavar='DIR', help="write the rewritten text of the recipe's sources instead"
  )
  parser.add_argument('--request', help=argparse.SUPPRESS)
  parser.add_argument('--parent', type=int, default=0, help=argparse.SUPPRESS)
  words = sys.argv[1:]
  end = words.index('--') if '--' in words else len(words)
  args = parser.parse_args(words[:end])

  if args.gin_file and (args.modules or args.mixture):
    parser.error('--modules and --mixture are for where no --gin_file is given')
  if args.gin_bindings and not args.gin_file:
    parser.error('--gin_bindings needs a --gin_file')
  if args.processes < 0:
    parser.error(f'--processes is {args.processes}: it is 0 or more')
  if args.parent:
    end_with(args.parent)
  try:
    beam = _beam(args, words[end + 1 :])
    if args.request:
      request, cache_dir = json.load(sys.stdin), args.cache_dir
    elif args.gin_file:
      from jaxlink.config import parse
      from jaxlink.data.resolve import make_request
      from jaxlink.stage import Run

      run = parse(Run, args.gin_file, args.gin_bindings)
      if args.publish:  # the text depends on ratios and draws, which tokens do not
        stages = tuple(dataclasses.replace(s, link_route='cache') for s in run.stages)
        run = dataclasses.replace(run, stages=stages)
      request, cache_dir = make_request(run), args.cache_dir or run.data.cache_dir
    elif args.mixture:
      stage = {'mixture': args.mixture, 'rates_needed': False, 'link': {}, 'link_route': 'load'}
      request = {
        'modules': args.modules, 'stages': [stage], 'seed_link': 0,
        'evaluation_split': 'validation', 'evaluation_needed': False, 'shards': 8, 'block': 4096,
      }  # fmt: skip
      cache_dir = args.cache_dir or 'cache'
    else:
      parser.error('give --gin_file, or --modules and --mixture')
    if args.publish:
      publish(request, args.publish, run.seed_link if args.gin_file else 0)
    else:
      answer(request, cache_dir, processes=args.processes, beam=beam)
  except (ValueError, TypeError, OSError, concurrent.futures.BrokenExecutor) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
