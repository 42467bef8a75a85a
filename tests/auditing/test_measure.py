import dataclasses
import json
import math

import pytest

from jaxlink.auditing import page, terminal
from jaxlink.link.formats import languages
from tests.auditing.conftest import measured

CHINESE = 'the\t这\nof\t的\nand\t和\nlanguage\t语言\nlanguage\t话\n'


@pytest.fixture(scope='module')
def two(prepared, tmp_path_factory):
  """The audit of a policy of two languages, one of them without native text."""
  path = tmp_path_factory.mktemp('lexicon') / 'en-zh.tsv'
  path.write_text(CHINESE, encoding='utf-8')
  lexicon = {'tr': f'{prepared.folder}/en-tr.tsv', 'zh': str(path)}
  return measured(prepared, dataclasses.replace(prepared.policy, lexicon=lexicon, language=''))


def test_each_of_two_languages_is_covered_as_it_is_alone(audit, two):
  (alone,), (link,) = audit.links, two.links
  turkish, chinese = link.coverages
  assert turkish == alone.coverages[0]
  assert (chinese.language, chinese.senses[:2], chinese.phrases.words) == (
    'zh', [chinese.covered.words - chinese.senses[1], chinese.senses[1]], 0,
  )  # fmt: skip
  assert 0 < chinese.senses[1] < chinese.covered.words


def test_the_ceiling_of_two_languages_is_their_mean(two):
  (link,) = two.links
  eligible = [c.eligible.words for c in link.coverages]
  assert link.counts['eligible'] == sum(eligible) // 2
  assert link.ceilings['uniform'] == link.ceiling


def test_ids_are_looked_for_in_the_text_of_their_own_language(audit, two):
  ways = [(o.language, o.mode, o.join, o.chosen) for o in two.links[0].overlaps]
  assert ways == [
    ('tr', 'replace', 'auto', True), ('tr', 'annotate', 'auto', False),
    ('zh', 'replace', 'auto', True), ('zh', 'replace', 'space', False),
    ('zh', 'annotate', 'auto', False),
  ]  # fmt: skip
  known = {o.language: o.known for o in two.links[0].overlaps if o.chosen}
  assert known['tr'] == audit.links[0].overlaps[0].known > 0.9
  assert known['zh'] is None


def test_an_audit_is_json_without_numbers_that_json_does_not_have(two):
  def numbers(value):
    if isinstance(value, dict | list):
      for inner in value.values() if isinstance(value, dict) else value:
        yield from numbers(inner)
    elif isinstance(value, float):
      yield value

  described = dataclasses.asdict(two)
  assert json.loads(json.dumps(described, allow_nan=False))['links']
  assert all(map(math.isfinite, numbers(described)))


def test_page_and_terminal_name_both_languages(two):
  text = page.render(two)
  assert '<h1>Turkish and Chinese with English</h1>' in text
  assert 'no native text' in text
  assert '<h3>In zh</h3>' in text
  assert 'MISSING in zh' in terminal.describe(two)


def test_the_same_audit_is_measured_twice(audit, prepared):
  assert measured(prepared, prepared.policy) == audit


@pytest.mark.parametrize(
  ('one', 'other', 'same'),
  [('tr', 'tur', True), ('zh-Hant', 'cmn', True), ('sw', 'swh', True), ('tr', 'tk', False)],
)
def test_codes_of_one_language_are_known_as_such(one, other, same):
  assert languages.same(one, other) is same
