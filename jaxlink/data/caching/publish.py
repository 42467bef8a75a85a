"""A rewritten corpus as text files, for those who want to publish it, with a manifest of its dose.

In: a cache's plan with LINK. Out: `{task}.{split}.jsonl.gz`, a line {"text", "document", "replaced"} for each
document in the source's order, and beside it a `.json` with counts, policy, seed and lexicons. The text is
that of the reference, so what `Stage.link_route = 'cache'` trains on, and 'load' with a tokenizer of ours.

Easy to get wrong: a file that looks whole. Both appear under their names when they are complete.
"""

import dataclasses
import gzip
import json
import os
from typing import Any

import tqdm

from jaxlink.data import register
from jaxlink.data.caching import cache_plan, rewriting
from jaxlink.link.policy import Dose


def publish(plan: cache_plan.Plan, folder: str) -> dict[str, Any]:
  """Writes the rewritten text of a plan and its manifest; returns the manifest.

  Args:
    plan: with LINK.
    folder: made if it is not there; files of the same names are replaced.
  """
  os.makedirs(folder, exist_ok=True)
  base = os.path.join(folder, f'{plan.task}.{plan.split}')
  probability, shortfall = rewriting.probability(plan)
  dose = Dose()
  bar = tqdm.tqdm(desc=f'rewriting {plan.name}', unit=' documents', disable=None)
  with (
    bar,
    open(f'{base}.partial', 'wb') as raw,
    gzip.GzipFile('', 'wb', fileobj=raw, mtime=0) as file,
  ):
    for document, result in rewriting.rewritten(plan, probability):
      line = {
        'text': result.text,
        'document': f'{document:016x}',
        'replaced': result.dose.replaced,
      }
      file.write(json.dumps(line, ensure_ascii=False).encode() + b'\n')
      dose += result.dose
      bar.update()
  source = plan.get_task().source
  rejected = None
  if isinstance(source, register.TextSource):
    rejected = source.gather(plan.split, [source.rejected(plan.split)])
  manifest = {
    'task': plan.task,
    'split': plan.split,
    'rejected': rejected,
    'dose': dataclasses.asdict(dose),
    'realised_all': dose.realised_all,
    'realised_covered': dose.realised_covered,
    'shortfall': shortfall,
    'probability': plan.link.policy.word_ratio if probability is None else probability,
    **rewriting.describe_link(plan),
  }
  with open(f'{base}.json.partial', 'w', encoding='utf-8') as file:
    json.dump(manifest, file, indent=1, ensure_ascii=False)
  os.replace(f'{base}.partial', f'{base}.jsonl.gz')
  os.replace(f'{base}.json.partial', f'{base}.json')
  return manifest
