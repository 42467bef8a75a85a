"""`python -m jaxlink.evaluate`: judges trained models by evaluation sets.

  python -m jaxlink.evaluate runs/quickstart --sets xcopa_tr turblimp 'flores_*'
  python -m jaxlink.evaluate runs/a runs/b --sets 'sib200_*' --all_steps
  python -m jaxlink.evaluate exported/ --sets xcopa_tr --json > scores.json
  python -m jaxlink.evaluate runs/a --adherence flores_tr flores_en
  python -m jaxlink.evaluate --list

A model is a run's directory (its last checkpoint; with --all_steps each that was kept), DIRECTORY@STEP, or
the folder of an exported Hugging Face model. Sets are registered in modules of tasks/ and called by name or
pattern; --list shows them. Each score comes with what chance gives, what a model gets for which all tokens
are equally likely (it prefers options of few tokens), the number of items, and the interval of 95 % over items; for a run also with how many items share 13 words in a row with its training text.

--adherence takes two sets of texts, prompts a run with their beginnings, and tells in which of the two
languages it goes on.

Scores of a run are added to its scores.jsonl, which `python -m jaxlink.compare` reads. What was measured once
is kept in the cache folder, item by item, and not measured again.

Easy to get wrong: reading one accuracy as knowledge. A small model sits near chance in most sets; `gap`, how
much likelier the right option is, moves first, and the interval says what the number of items can tell.
"""

import argparse
import functools
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

SHOWN = (
  'accuracy', 'accuracy_byte', 'accuracy_pmi', 'gap', 'bits_per_byte', 'exact_match', 'f1',
  'adherence', 'other_language', 'unknown', 'mixed',
)  # fmt: skip


class Target(NamedTuple):
  """A model that is to be judged.

  Attributes:
    source: what `run_model.load` takes.
    folder: its files.
    directory: of the run; '' of an exported model.
    step: of the run; 0 of an exported model.
  """

  source: str
  folder: str
  directory: str
  step: int


def main() -> None:
  args = _arguments()
  try:
    if args.list:
      _list(args)
    else:
      evaluate(args)
  except (ValueError, OSError, ModuleNotFoundError) as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit('\nstopped: what was measured is kept, and the same command goes on from there.')


def evaluate(args: argparse.Namespace) -> list[dict[str, Any]]:
  """Measures what is not kept, prints a table or JSON, and returns all records."""
  sets = _read_sets(args, args.sets, args.limit)
  targets = [t for model in args.model for t in _targets(model, args.all_steps)]
  found, models = [], _Models(args)
  prompting = _read_sets(args, args.adherence, 0)
  for target in targets:
    records = [_measure(args, target, one, models, sets) for one in sets]
    if prompting:
      records += _adherence(args, target, models, prompting)
    if target.directory:
      from jaxlink.evaluation import records as records_lib

      # Where items lie is this machine's.
      records_lib.write(
        target.directory, [{k: v for k, v in r.items() if k != 'items_file'} for r in records]
      )
    found += records
    if not args.json:
      _print(target, records)
  if args.json:
    json.dump(found, sys.stdout, ensure_ascii=False, indent=2)
    print()
  return found


def _read_sets(args: argparse.Namespace, names: Sequence[str], limit: int) -> list[Any]:
  if not names:
    return []
  from jaxlink.evaluation import items, judging, prepare

  folders = prepare.prepared(names, args.modules or prepare.modules_here(), args.cache_dir)
  return [judging.limited(items.read(folder), limit) for folder in folders.values()]


def _adherence(
  args: argparse.Namespace, target: Target, models: '_Models', sets: Sequence[Any]
) -> list[dict[str, Any]]:
  """The records of prompting a run in two languages, from what is kept or anew."""
  from jaxlink.evaluation import adherence, language_mixing
  from jaxlink.evaluation import records as records_lib

  if not target.directory:
    raise ValueError(
      f'--adherence: {target.source} is an exported model; the words of the training text are known of '
      'runs alone.'
    )
  key = records_lib.model_key(
    target.folder,
    models.platform,
    'adherence',
    _digest(args.tokenizer),
    adherence.library_version(),
  )
  kept = records_lib.Kept(args.cache_dir, key)
  found = [kept.find(*known) for known in language_mixing.identities(sets).items()]
  if None in found:
    model = models.scorer(target).model._replace(params=models.params)
    bar = functools.partial(_bar, f'adherence · {os.path.basename(target.source)}')
    made = language_mixing.measure(model, target.directory, sets, bar, models.sampler(target))
    known = {'step': target.step, 'trained_tokens': models.trained_tokens}
    found = [{**known, **one.record} for one in made]
    for record, one in zip(found, made, strict=True):
      kept.keep(record, one.lines)
  return [
    {
      **record,
      'model': target.source,
      'items_file': str(kept.path(record['set'], record['identity'])),
    }
    for record in found
  ]


def _measure(
  args: argparse.Namespace, target: Target, found: Any, models: '_Models', beside: Sequence[Any]
) -> dict[str, Any]:
  """A set's record on a model, from what is kept or anew."""
  from jaxlink.evaluation import records

  key = records.model_key(
    target.folder, models.platform, _digest(args.tokenizer), found.kind == 'question' and args.write
  )
  kept = records.Kept(args.cache_dir, key)
  record = kept.find(found.name, found.identity)
  if record is None:
    judge = models.judge(target, found)
    name = f'{found.name} · {os.path.basename(target.source.rstrip("/"))}'
    verdict = judge(models.params, functools.partial(_bar, name))
    record = records.make_record(found, verdict)
    if target.directory:
      record = {'step': target.step, 'trained_tokens': models.trained_tokens, **record}
    else:
      record = {'step': 0, 'trained_tokens': None, **record}
    kept.keep(record, records.item_lines(found, verdict))
  file = str(kept.path(found.name, found.identity))
  record = {**record, 'model': target.source, 'items_file': file}
  if found.note:
    record['note'] = found.note
  if target.directory and args.contamination:
    from jaxlink.evaluation import contamination

    try:
      seen = contamination.of_run(target.directory, found, args.cache_dir, beside=beside)
    except FileNotFoundError as error:
      print(f'contamination was not looked for: {error}', file=sys.stderr)
      seen = None
    record['contaminated'] = seen and seen.to_json()
  return record


class _Models:
  """Loads a model when it is needed, and keeps what is compiled for the next of the same shape."""

  def __init__(self, args: argparse.Namespace):
    self._args, self._target, self._scorer = args, None, None
    self._judges: dict[str, Any] = {}
    self._sampler: Any = None
    self.params: Any = None
    self.trained_tokens: int | None = None

  @functools.cached_property
  def platform(self) -> str:
    """What computes, which decides the precision."""
    import jax

    return jax.default_backend()

  def judge(self, target: Target, found: Any) -> Any:
    """The judge of a set, which tokenises it once for all checkpoints of a shape."""
    from jaxlink.evaluation import judging

    scorer = self.scorer(target)
    if found.name not in self._judges:
      self._judges[found.name] = judging.Judge(scorer, found, write=self._args.write)
    return self._judges[found.name]

  def sampler(self, target: Target) -> Any:
    """What draws continuations."""
    from jaxlink.evaluation import language_mixing

    model = self.scorer(target).model
    self._sampler = self._sampler or language_mixing.sampler_of(model)
    return self._sampler

  def scorer(self, target: Target) -> Any:
    """The scorer of a model, whose parameters are `params` from then on."""
    if target == self._target:
      return self._scorer
    from jaxlink import compile_cache, run_model
    from jaxlink import mesh as mesh_lib
    from jaxlink.evaluation.scoring import Scorer
    from jaxlink.huggingface.run_checkpoint import RunCheckpoint

    args = self._args
    compile_cache.enable()
    self.params = None  # frees the memory of the one before
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(fsdp=args.fsdp, tensor=args.tensor))
    model = run_model.load(target.source, mesh=mesh, tokenizer=args.tokenizer, narrow=True)
    if not args.json:
      print(model.description, file=sys.stderr)
    self.trained_tokens = None
    if target.directory:
      self.trained_tokens = RunCheckpoint(target.source).meta['trained_tokens']
    if self._scorer is None or not _same_shape(self._scorer.model, model):
      # Without parameters, of which those of one checkpoint are in memory at a time.
      self._scorer = Scorer(model._replace(params=None), batch_tokens=args.batch_tokens)
      self._judges, self._sampler = {}, None
    self._target, self.params = target, model.params
    return self._scorer


def _digest(path: str) -> str:
  if path and not os.path.isfile(path):
    raise FileNotFoundError(f'--tokenizer: there is no file {path!r}.')
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() if path else ''


def _same_shape(one: Any, other: Any) -> bool:
  return (one.config, one.opening, one.tokenizer.sha256) == (
    other.config, other.opening, other.tokenizer.sha256,
  )  # fmt: skip


def _targets(model: str, all_steps: bool) -> list[Target]:
  """The checkpoints that a name stands for.

  Raises:
    FileNotFoundError: there is no such run, step or folder.
  """
  from jaxlink import run_model
  from jaxlink.huggingface import read as huggingface

  if huggingface.is_checkpoint(model):
    return [Target(model, model, '', 0)]
  source = run_model.find(model)
  directory, _, step = source.rpartition('@')
  folder = pathlib.Path(directory) / 'checkpoints'
  steps = [int(step)]
  if all_steps and model.rstrip('/') == directory.rstrip('/'):
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
  return [Target(f'{directory}@{s}', str(folder / str(s)), directory, s) for s in steps]


def _print(target: Target, records: Sequence[dict[str, Any]]) -> None:
  rows = [('set', 'items', 'score', 'value', '95 % of items', 'chance', 'uniform')]
  notes = []
  for record in records:
    shown = [name for name in record['scores'] if name in SHOWN]
    for name in shown:
      score = record['scores'][name]
      first = name == shown[0]
      rows.append((
        record['set'] if first else '', f'{record["items"]:,}' if first else '', name,
        _number(score['value']), f'{_number(score["low"])} to {_number(score["high"])}',
        '' if score['chance'] is None else _number(score['chance']),
        '' if score.get('uniform') is None else _number(score['uniform']),
      ))  # fmt: skip
    notes += _notes(record)
  widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
  print(target.source)
  for row in rows:
    cells = (cell.rjust(w) if k in (1, 3, 5, 6) else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
    print(('  ' + '  '.join(cells)).rstrip())
  for note in notes:
    print(f'  {note}')
  if target.directory:
    print(f'  every score: {pathlib.Path(target.directory) / "scores.jsonl"}')
  folders = dict.fromkeys(os.path.dirname(record['items_file']) for record in records)
  print(f'  item by item: {", ".join(folders)}')


def _notes(record: dict[str, Any]) -> Iterator[str]:
  if true := record.get('true'):
    parts = ', '.join(f'{name} {true[name]:.4f}' for name in SHOWN if name in true)
    yield f'{record["set"]}: the true continuations are judged {parts}'
  if record.get('note'):
    yield f'{record["set"]}: {record["note"]}'
  if record['cut']:
    yield (
      f'{record["set"]}: {record["cut"]:,} of {record["items"]:,} items are longer than the model has room '
      'for; they lost the beginning of their context'
    )
  if found := record['contaminated']:
    yield (
      f'{record["set"]}: {found["items"]:,} of {found["compared"]:,} items share {found["n"]} words in a row '
      'with the training text'
    )


def _number(value: float | None) -> str:
  return '–' if value is None else f'{value:.4f}'


def _bar(name: str, batches: Iterable[Any]) -> Iterable[Any]:
  import tqdm

  return tqdm.tqdm(batches, desc=name, unit='batch', disable=None, leave=False)


def _list(args: argparse.Namespace) -> None:
  from jaxlink.evaluation import prepare

  rows = [('set', 'kind', 'language', 'source')]
  rows += prepare.listed(args.modules or prepare.modules_here(), args.cache_dir)
  widths = [max(len(row[k]) for row in rows) for k in range(3)]
  for row in rows:
    print('  '.join(cell.ljust(w) for cell, w in zip(row, (*widths, 0), strict=True)).rstrip())


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.evaluate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('model', nargs='*', help="runs' directories, DIRECTORY@STEP, or folders of exported models")
  add('--sets', nargs='+', default=[], metavar='SET', help="names or patterns, such as 'xcopa_*'")
  add(
    '--adherence', nargs=2, default=[], metavar='SET',
    help='two sets of texts, such as flores_tr flores_en: in which language does a run go on?',
  )  # fmt: skip
  add('--all_steps', action='store_true', help='judge all checkpoints that a run has kept')
  add('--list', action='store_true', help='show the sets that are registered, and end')
  add(
    '--modules', nargs='+', default=[], metavar='MODULE',
    help='Python modules that register the sets (all in tasks/ that do)',
  )  # fmt: skip
  add('--limit', type=int, default=0, metavar='N', help='use N items of each set (0: all)')
  add(
    '--no_writing', dest='write', action='store_false',
    help='of questions, take the likelihood of the answer alone: much faster',
  )  # fmt: skip
  add(
    '--no_contamination', dest='contamination', action='store_false',
    help='do not look for the items in the training text',
  )  # fmt: skip
  add('--json', action='store_true', help='print all scores as JSON')
  add('--cache_dir', default='cache', metavar='DIR', help='folder of all caches (cache)')
  add(
    '--batch_tokens', type=int, default=0, metavar='N',
    help='tokens at a time, padding included (0 chooses)',
  )  # fmt: skip
  add('--fsdp', type=int, default=1, metavar='N', help='devices that share the parameters (1)')
  add('--tensor', type=int, default=1, metavar='N', help='devices that share the heads (1)')
  add(
    '--tokenizer', default='', metavar='FILE', help="where the run's tokenizer is now, if it was moved"
  )  # fmt: skip
  args = parser.parse_args()
  if not args.list and not args.model:
    parser.error('name a model: a run, or the folder of an exported model')
  if not (args.list or args.sets or args.adherence):
    parser.error('name sets: --sets xcopa_tr; --list shows all')
  for name in ('limit', 'batch_tokens'):
    if getattr(args, name) < 0:
      parser.error(f'--{name} is {getattr(args, name)}: it is 0 or more')
  return args


if __name__ == '__main__':
  main()
