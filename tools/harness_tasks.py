"""Writes evaluation sets as tasks of lm-evaluation-harness, with local data only.

  python tools/harness_tasks.py xcopa_tr blimp 'exams_*' --out my_tasks
  lm_eval --model hf --model_args pretrained=my-model --include_path my_tasks --tasks xcopa_tr_local

A set NAME becomes the task NAME_local: NAME_local.yaml and the items in NAME_local.jsonl. What the harness then
asks is what `python -m jaxlink.evaluate` asks, text for text: choices as multiple_choice, texts as
loglikelihood_rolling, questions as generate_until. Sets of text and class for a probe have no such task.

Easy to get wrong: the delimiter between context and option. It is the harness's `target_delimiter`, which is no
part of the lengths that acc_norm and acc_bytes divide by; a set whose items have several delimiters can't say
that, and is an error.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlink.evaluation import items as items_lib
from jaxlink.evaluation import prepare
from jaxlink.evaluation.items import EvaluationSet

SUFFIX = '_local'
NUMBER = r'(-?[0-9][0-9.,]*)'


def main() -> None:
  args = _arguments()
  try:
    folders = prepare.prepared(args.sets, args.modules or prepare.modules_here(), args.cache_dir)
    for folder in folders.values():
      found = items_lib.read(folder)
      if found.kind == 'label':
        print(
          f'{found.name}: of text and class, which the harness has no task for', file=sys.stderr
        )
      else:
        print(write(found, args.out))
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


def write(found: EvaluationSet, out: Path) -> Path:
  """Writes a set's task and data, and returns the task's file.

  Raises:
    ValueError: its items differ in what the harness has for a whole task only.
  """
  settings, rows = {'choice': _choice, 'text': _text, 'question': _question}[found.kind](found)
  out.mkdir(parents=True, exist_ok=True)
  name = found.name + SUFFIX
  data = (out / f'{name}.jsonl').absolute()
  data.write_text(
    ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8'
  )
  task = {
    'task': name,
    'dataset_path': 'json',
    'dataset_kwargs': {'data_files': {'test': str(data)}},
    'test_split': 'test',
    'num_fewshot': 0,
    **settings,
    'metadata': {'version': found.identity, 'licence': found.licence, 'source': found.source},
  }
  path = out / f'{name}.yaml'
  # JSON is YAML.
  path.write_text(json.dumps(task, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')
  return path


def _choice(found: EvaluationSet) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  delimiters = {i.delimiter if c else '' for i in found.items for c in i.contexts}
  each = {len(item.contexts) > 1 for item in found.items}
  if len(delimiters) > 1 or len(each) > 1:
    raise ValueError(
      f'{found.name}: its items differ in delimiter, or in whether each option has a context of its own: the '
      'harness has one of these for a task.'
    )
  rows = [dataclasses.asdict(item) for item in found.items]
  settings = {'output_type': 'multiple_choice', 'target_delimiter': delimiters.pop()}
  if not each.pop():
    for row in rows:
      (row['context'],) = row.pop('contexts')
    metrics = ['acc', 'acc_norm', 'acc_bytes']
    metrics += ['acc_mutual_info'] * all(row['context'] for row in rows)
    columns = {'doc_to_text': 'context', 'doc_to_choice': 'choices', 'doc_to_target': 'label'}
    return {**settings, **columns, 'metric_list': _metrics(*metrics)}, rows
  for row in rows:  # the harness's "multiple input": contexts differ, what is scored does not
    if len(set(row['choices'])) > 1:
      raise ValueError(
        f'{found.name}, item {row["id"]!r}: its options differ in context and in text, which the harness has '
        'no way to ask.'
      )
    row['continuation'] = row['choices'][0]
  columns = {'doc_to_text': 'label', 'doc_to_choice': 'contexts', 'doc_to_target': 'continuation'}
  return {**settings, **columns, 'metric_list': _metrics('acc')}, rows


def _text(found: EvaluationSet) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  settings = {
    'output_type': 'loglikelihood_rolling', 'doc_to_text': '', 'doc_to_target': 'text',
    'metric_list': [{'metric': 'bits_per_byte'}],
  }  # fmt: skip
  return settings, [dataclasses.asdict(item) for item in found.items]


def _question(found: EvaluationSet) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  metric = {'metric': 'exact_match', 'aggregation': 'mean', 'higher_is_better': True}
  take = [{'function': 'remove_whitespace'}, {'function': 'take_first'}]
  if found.answer == 'number':
    metric['regexes_to_ignore'] = [',', r'\.$']
    last = {'function': 'regex', 'regex_pattern': NUMBER, 'group_select': -1}
    take = [last, {'function': 'take_first'}]
  else:
    metric |= {'ignore_case': True, 'ignore_punctuation': True}
  settings = {
    'output_type': 'generate_until', 'doc_to_text': 'prompt', 'doc_to_target': 'answers',
    'generation_kwargs': {
      'until': list(found.stop), 'max_gen_toks': found.tokens, 'do_sample': False,
    },
    'filter_list': [{'name': 'answer', 'filter': take}],
    'metric_list': [metric],
  }  # fmt: skip
  return settings, [dataclasses.asdict(item) for item in found.items]


def _metrics(*names: str) -> list[dict[str, Any]]:
  return [{'metric': n, 'aggregation': 'mean', 'higher_is_better': True} for n in names]


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('sets', nargs='+', help="names or patterns, such as 'xcopa_*'")
  parser.add_argument('--out', type=Path, required=True, help='folder for the tasks')
  parser.add_argument(
    '--modules', nargs='+', default=[], metavar='MODULE',
    help='Python modules that register the sets (all in tasks/ that do)',
  )  # fmt: skip
  parser.add_argument('--cache_dir', default='cache', help='folder of all caches (cache)')
  return parser.parse_args(given)


if __name__ == '__main__':
  main()
