"""In what settings differ, and whether they may be compared.

Refused is what would give numbers that mean different things: another tokenizer (bits per byte stay
comparable and are let through on demand), another version of an evaluation set, held-out text in other
windows. Warned of is what makes it unclear where a difference comes from: more that differs than was named.

Easy to get wrong: "one thing". LINK on a source is one, with all of its fields; so are rates; a mixture of
another name is one more, and the text of a source too, which no configuration shows.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxlink.comparing.records import UNKNOWN
from jaxlink.comparing.runs import Run, Setting, setting_of
from jaxlink.names import nearest

_ABSENT = object()
_DOSE = ('doc_fraction', 'word_ratio')  # of a policy, shown even where they are the defaults
_WHOLE = {'link', 'rates', 'mixing', 'mup'}  # fields that are one thing each


@dataclasses.dataclass(frozen=True)
class Difference:
  """One setting in which settings differ.

  Attributes:
    name: its path, such as 'stages[0].optimizer.learning_rate'.
    values: of each setting, as JSON or '–' where it is absent.
    meant: whether it was named as what is to differ.
  """

  name: str
  values: list[str]
  meant: bool


def of_configs(settings: Sequence[Setting], meant: Sequence[str] = ()) -> list[Difference]:
  """What differs between the configurations of settings, seeds and places apart.

  Args:
    settings: of which the first run's configuration is taken.
    meant: names of what is to differ: a path, or any part of one ('learning_rate', 'link').

  Raises:
    ValueError: a name is no part of any path.
  """
  configs = [setting_of(setting.runs[0].config) for setting in settings]
  known = {part for config in configs for part in _names(config)}
  for name in meant:
    if not set(_parts(name)) <= known:
      raise ValueError(f'--differs {name!r} is no setting of these runs.{nearest(name, known)}')
  return [
    Difference(path, [_text(value) for value in values], any(_is_part(name, path) for name in meant))
    for path, values in _walk('', configs)
  ]  # fmt: skip


def within(setting: Setting) -> list[str]:
  """In what the runs of one setting differ, seeds apart."""
  configs = [setting_of(run.config) for run in setting.runs]
  return [path for path, _ in _walk('', configs)]


def check(
  settings: Sequence[Setting], sets: Collection[str], *, across_tokenizers: bool = False
) -> None:
  """Raises ValueError where scores of the settings cannot be compared.

  Args:
    settings: with their runs.
    sets: of which scores are compared.
    across_tokenizers: whether other tokenizers are let through; then held-out text, which is kept as
      tokens, cannot be recognised as the same.
  """
  runs = [run for setting in settings for run in setting.runs]
  first = next((run for run in runs if run.tokenizer), None)
  for run in runs:
    if first and run.tokenizer and run.tokenizer != first.tokenizer and not across_tokenizers:
      raise ValueError(
        f'{run.directory} has another tokenizer ({run.tokenizer[:12]}) than {first.directory} '
        f'({first.tokenizer[:12]}): tokens and likelihoods mean different things. --across_tokenizers '
        'compares bits per byte alone.'
      )
  seen: dict[str, Run] = {}
  for run in runs:
    for name, identity in run.identities.items():
      if identity == UNKNOWN:  # the run's notes tell it
        continue
      other = seen.setdefault(name, run)
      if name not in sets or (across_tokenizers and 'windows of' in identity):
        continue
      if other.identities[name] != identity:
        raise ValueError(
          f'{name} is not the same in {other.directory} ({other.identities[name]}) and {run.directory} '
          f'({identity}): scores of other items, text or windows are not comparable. Evaluate both with one '
          'version of the set, or leave it out with --scores.'
        )


def warnings(settings: Sequence[Setting], found: Sequence[Difference], named: bool) -> list[str]:
  """What makes it unclear where a difference comes from, a sentence each.

  Args:
    settings: with their runs.
    found: from `of_configs`.
    named: whether the user named what is meant to differ.
  """
  lines = []
  for setting in settings:
    if inner := within(setting):
      lines.append(f'runs of {setting.name} differ in more than seeds: {", ".join(inner)}')
  things = _things(found)
  if named:
    if others := [name for thing in things.items() for name in _not_meant(*thing)]:
      lines.append(f'settings differ in more than the named: {", ".join(others)}')
    if found and not any(difference.meant for difference in found):
      lines.append('settings do not differ in what was named')
  elif len(things) > 1:
    lines.append(
      f'settings differ in {len(things)} things: {", ".join(things)}. --differs names those that are meant'
    )
  lines += _of_text(settings)
  lines += _of_tables(settings)
  runs = [run for setting in settings for run in setting.runs]
  for what, of_runs in (
    ('revisions of the code', [run.revisions for run in runs]),
    ('versions of jax', [run.versions.get('jax', '').split(', ') for run in runs]),
    ('kinds of device', [run.devices for run in runs]),
  ):
    if len(several := {one for names in of_runs for one in names} - {''}) > 1:
      lines.append(f'runs are of {len(several)} {what}: {", ".join(sorted(several))}')
  tokens = {run.trained for setting in settings for run in setting.runs}
  if len(tokens) > 1:
    lines.append(
      f'runs were trained on {min(tokens):,} to {max(tokens):,} tokens: final scores are not at equal tokens'
    )
  lines += [
    f'{run.directory} {note}' for setting in settings for run in setting.runs for note in run.notes
  ]
  return lines


def _of_text(settings: Sequence[Setting]) -> Iterator[str]:
  """Sources of one name and another text."""
  seen: dict[str, dict[str, str]] = {}
  for setting in settings:
    for run in setting.runs:
      for source in run.sources:
        seen.setdefault(source.task, {}).setdefault(source.fingerprint, run.name)
  for task, texts in seen.items():
    if len(texts) > 1:
      where = ', '.join(f'{fingerprint} in {name}' for fingerprint, name in texts.items())
      yield f'the text of {task} is not the same: {where}'


def _of_tables(settings: Sequence[Setting]) -> Iterator[str]:
  """Sources that LINK rewrites by one policy and another table: of a setting's seeds, too."""
  seen: dict[tuple[str, str], dict[str, str]] = {}
  for setting in settings:
    for run in setting.runs:
      for source in run.sources:
        policies = [stage.get('link', {}).get(source.task) for stage in run.config['stages']]
        key = (source.task, json.dumps(policies, sort_keys=True))
        if source.table:
          seen.setdefault(key, {}).setdefault(source.table, run.name)
  for (task, _), tables in seen.items():
    if len(tables) > 1:
      where = ', '.join(f'{table} in {name}' for table, name in tables.items())
      yield f'the lexicon table of {task} is not the same: {where}'


def _things(found: Sequence[Difference]) -> dict[str, list[Difference]]:
  """What differs, by thing."""
  things: dict[str, list[Difference]] = {}
  for difference in found:
    parts = _parts(difference.name)
    whole = next((i for i, part in enumerate(parts) if part in _WHOLE), len(parts) - 1)
    thing = '.'.join(part for part in parts[: whole + 1] if part != 'stages')
    things.setdefault(thing, []).append(difference)
  return things


def _not_meant(thing: str, parts: Sequence[Difference]) -> list[str]:
  """The thing, or those of its parts that were not named where others were."""
  names = [part.name for part in parts if not part.meant]
  return names if len(names) < len(parts) else [thing]


# ── trees ───────────────────────────────────────────────────────────────────────


def _walk(path: str, values: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
  """Paths at which trees differ, with their values; as high as one of them has none."""
  if all(value == values[0] for value in values):
    return
  if all(isinstance(value, dict) for value in values):
    for key in dict.fromkeys(key for value in values for key in value if key != '@'):
      below = f'{path}.{key}' if path else key
      yield from _walk(below, [value.get(key, _ABSENT) for value in values])
  elif all(isinstance(value, list) and value and isinstance(value[0], dict) for value in values):
    for i in range(max(map(len, values))):
      yield from _walk(f'{path}[{i}]', [v[i] if i < len(v) else _ABSENT for v in values])
  else:
    yield path, list(values)


def _text(value: Any) -> str:
  if value is _ABSENT:
    return '–'
  if isinstance(value, Mapping) and '@' in value:
    fields = {
      k: v for k, v in value.items()
      if k in _DOSE or (k != '@' and v != _default(value['@'], k))
    }  # fmt: skip
    inner = ', '.join(f'{key}={_text(field)}' for key, field in fields.items())
    return f'{value["@"]}({inner})'
  return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or "''"


def _default(name: str, field: str) -> Any:
  """The default of a policy's field, so that only what was set is shown."""
  if name != 'LinkPolicy':
    return _ABSENT
  from jaxlink.link.policy import LinkPolicy

  return getattr(LinkPolicy, field, _ABSENT)


def _parts(path: str) -> list[str]:
  return [part for part in re.split(r'[.\[\]/]', path) if part and not part.isdigit()]


def _names(tree: Any) -> Iterator[str]:
  if isinstance(tree, dict):
    for key, value in tree.items():
      yield key
      yield from _names(value)
  elif isinstance(tree, list):
    for value in tree:
      yield from _names(value)


def _is_part(name: str, path: str) -> bool:
  """Whether the parts of a name stand in a path, one after the other."""
  wanted, parts = _parts(name), _parts(path)
  return any(parts[i : i + len(wanted)] == wanted for i in range(len(parts)))
