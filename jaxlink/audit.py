"""`python -m jaxlink.audit`: what a language's text and lexicon are worth, before anything is trained.

  python -m jaxlink.audit --modules tasks.sample --language sample_tr
  python -m jaxlink.audit --gin_file=gin/sample.gin

It tells how much text there is and how the tokenizer cuts it; what is wrong with it (repeated documents
and lines, broken characters, lines of other languages); how much of the auxiliary text the lexicon has, and
so the highest dose of LINK that can be reached; and it shows sentences as a model would read them.

The audit is printed, and written to --out as audit.html (one page, opens from the disk), audit.json and
audit.txt. With --language the policy is LINK's default; with --gin_file it is the recipe's, and every
source that it rewrites is audited. Caches and link tables are built where they are missing, those that
training uses, so nothing is tokenised twice.

Easy to get wrong: coverage is no dose. What can be reached is covered by the lexicon and allowed by the
regime, and is a share of the words of documents that are rewritten, not of all documents.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import pathlib
import sys
from typing import Any

from jaxlink import cache
from jaxlink.data import seqio_side
from jaxlink.names import nearest

_CACHE_DIR = 'cache'


def main() -> None:
  args = _arguments()
  try:
    audit(args)
  except (ValueError, TypeError, OSError, concurrent.futures.BrokenExecutor) as error:
    sys.exit(f'error: {error}')


def audit(args: argparse.Namespace) -> None:
  """Builds what is missing, measures, prints and writes."""
  seqio_side.import_tensorflow()
  from jaxlink.auditing import measure, page, terminal
  from jaxlink.data import resolve
  from jaxlink.data.caching import cache_plan
  from jaxlink.link.policy import LinkPolicy

  if args.gin_file:
    request, cache_dir, seed_link = _request_of_recipe(args)
  else:
    request, cache_dir, seed_link = _request_of_language(args), args.cache_dir or _CACHE_DIR, 0
  request['evaluation_needed'] = False
  cache.answer(request, cache_dir, processes=args.processes)
  resolution = resolve.read(resolve.kept_path(request, cache_dir), cache_dir)
  policies = [
    {task: LinkPolicy(**fields) for task, fields in stage['link'].items()}
    for stage in request['stages']
  ]
  measured = measure.measure(
    [
      [(source, chosen.get(source.task)) for source in stage]
      for stage, chosen in zip(resolution.stages, policies, strict=True)
    ],
    list(resolution.evaluations),
    modules=request['modules'],
    settings=cache_plan.CacheSettings(request['shards'], request['block']),
    cache_dir=cache_dir,
    seed_link=seed_link,
  )
  text = terminal.describe(measured)
  print(text)
  languages = dict.fromkeys(c.language for link in measured.links for c in link.coverages)
  name = args.language or '-'.join(languages)
  out = pathlib.Path(args.out or pathlib.Path('runs', 'audit', name))
  out.mkdir(parents=True, exist_ok=True)
  (out / 'audit.txt').write_text(text + '\n', encoding='utf-8')
  as_json = json.dumps(dataclasses.asdict(measured), ensure_ascii=False, indent=1)
  (out / 'audit.json').write_text(as_json + '\n', encoding='utf-8')
  (out / 'audit.html').write_text(page.render(measured), encoding='utf-8')
  print(f'\nwritten: {out / "audit.html"}, audit.json, audit.txt')


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.audit',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--modules',
    nargs='+',
    default=[],
    help='modules that register the language, such as tasks.sample',
  )
  parser.add_argument(
    '--language', default='',
    help='name given to register_language, such as sample_tr, or its code where one language has it',
  )  # fmt: skip
  parser.add_argument(
    '--gin_file', action='append', default=[], help='a recipe in place of both; may be repeated'
  )
  parser.add_argument(
    '--gin_bindings', action='append', default=[], metavar='BINDING',
    help="a setting that wins over the recipe's, such as \"LinkPolicy.regime = 'content'\"; repeatable",
  )  # fmt: skip
  parser.add_argument('--out', default='', metavar='DIR', help='default: runs/audit/LANGUAGE')
  parser.add_argument('--cache_dir', default=None, help="default: the recipe's, else 'cache'")
  parser.add_argument('--processes', type=int, default=0, help='0: by the size and the cores')
  args = parser.parse_args()
  if args.gin_file and (args.language or args.modules):
    parser.error(
      '--gin_file names modules and languages already: leave --modules and --language out'
    )
  if not args.gin_file and not (args.language and args.modules):
    parser.error('give --modules and --language, or --gin_file')
  return args


def _request_of_recipe(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
  """The recipe's request, folder of caches and seed, with LINK left to the time of loading."""
  from jaxlink.config import parse
  from jaxlink.data.resolve import make_request
  from jaxlink.stage import Run

  run = parse(Run, args.gin_file, args.gin_bindings)
  if not any(stage.link for stage in run.stages):
    raise ValueError(
      'Stage.link is {} in every stage: there is no lexicon to audit. Give --modules and --language.'
    )
  request = make_request(run)
  for stage, asked in zip(run.stages, request['stages'], strict=True):
    asked['link_route'] = 'load'  # the text is looked at as it is
    asked['link'] = {task: dataclasses.asdict(policy) for task, policy in stage.link.items()}
  return request, args.cache_dir or run.data.cache_dir, run.seed_link


def _request_of_language(args: argparse.Namespace) -> dict[str, Any]:
  """The request of a registered language: its text, and its auxiliary text with LINK by default."""
  from jaxlink.data import registry
  from jaxlink.link.policy import LinkPolicy
  from jaxlink.stage import DataConfig, EvaluationConfig

  for module in args.modules:
    seqio_side.import_module(module)
  name = _registered(args.language)
  auxiliary = registry.AUXILIARIES[name]
  policy = LinkPolicy(lexicon=name, language=registry.LANGUAGES[name])
  stage = {'rates_needed': False, 'link_route': 'load'}
  data = DataConfig()
  return {
    'modules': list(args.modules),
    'stages': [
      {**stage, 'mixture': name, 'link': {}},
      {**stage, 'mixture': auxiliary, 'link': {auxiliary: dataclasses.asdict(policy)}},
    ],
    'seed_link': 0,
    'evaluation_split': EvaluationConfig().split,
    'shards': data.shards,
    'block': data.block,
  }


def _registered(language: str) -> str:
  """The name under which a language is registered.

  Raises:
    ValueError: none is, or several are.
  """
  from jaxlink.data import registry

  known = list(registry.AUXILIARIES)
  if language in known:
    return language
  named = [name for name in known if registry.LANGUAGES[name] == language]
  if len(named) == 1:
    return named[0]
  if named:
    raise ValueError(f'--language {language!r} is registered more than once: {", ".join(named)}.')
  if language in registry.LANGUAGES:
    raise ValueError(
      f'--language {language!r} is a corpus without lexicon: `register_language` gives it one. '
      f'Languages: {", ".join(known) or "none"}.'
    )
  raise ValueError(
    f'--language {language!r}: no such language is registered.{nearest(language, known)} '
    f'Registered: {", ".join(known) or "none; --modules names the modules that do"}.'
  )


if __name__ == '__main__':
  main()
