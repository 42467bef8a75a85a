import json
import pathlib
import re

import pytest

from jaxlink.comparing import records, runs
from jaxlink.comparing.records import Score
from tests.comparing import fake_runs
from tests.comparing.fake_runs import Law, make

TR = {'sample_tr': Law()}
BITS = Score('sample_tr', 'bits_per_byte')


def test_a_run_is_read(tmp_path):
  accuracy = [fake_runs.record(step, accuracy=0.5 + step / 20_000) for step in (2000, 1000)]
  found = runs.read_run(make(tmp_path / 'a', {**TR, 'sample_en': Law(0.9)}, seed=3, link=0.3, records=accuracy))  # fmt: skip
  assert found.seeds == (3, 3, 3)
  assert found.tokenizer == fake_runs.TOKENIZER
  assert found.trained == found.planned == fake_runs.GRID[-1]
  assert found.curves[BITS].tokens == fake_runs.GRID
  assert found.curves[BITS].final == Law()(fake_runs.GRID[-1])
  xcopa = found.curves[Score('xcopa_tr', 'accuracy')]
  assert xcopa.tokens == (1_024_000, 2_048_000)
  assert (xcopa.final, xcopa.better, xcopa.chance) == (0.6, 'higher', 0.5)
  assert found.languages == {'sample_tr': 'tr', 'sample_en': 'en', 'xcopa_tr': 'tr'}
  english, turkish = found.sources
  assert (english.linked, turkish.linked) == (True, False)
  assert english.dose['realised_all'] == 0.1132
  assert turkish.unique == 2_045_895
  assert turkish.repetitions == 1_024_000 / 2_045_895
  assert not found.notes


def in_loop(directory, **changes):
  """Puts a record of a set into every evaluation of a run."""
  path = pathlib.Path(directory, 'evaluations.jsonl')
  lines = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
  for line in lines:
    inner = fake_runs.record(line['step'], **changes)
    del inner['step'], inner['trained_tokens']
    line['scores'] = {'xcopa_tr': inner}
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')


def test_in_loop_records_of_sets_are_scores_too(tmp_path):
  directory = make(tmp_path / 'a', TR)
  in_loop(directory)
  assert runs.read_run(directory).curves[Score('xcopa_tr', 'gap')].tokens == fake_runs.GRID


def test_a_part_of_a_set_is_a_score_of_its_own_beside_the_whole(tmp_path):
  directory = make(tmp_path / 'a', TR, records=[fake_runs.record(2000)])
  in_loop(directory, identity='1-part', items=100)
  path = tmp_path / 'a/config.json'
  text = path.read_text(encoding='utf-8')
  path.write_text(text.replace('"set_items": 0', '"set_items": 100'), encoding='utf-8')
  found = runs.read_run(directory)
  assert found.curves[Score('xcopa_tr (100 items)', 'gap')].tokens == fake_runs.GRID
  assert found.curves[Score('xcopa_tr', 'gap')].tokens == (2_048_000,)
  assert not found.notes


def test_a_torn_last_line_is_left_out_and_a_broken_one_before_it_is_not(tmp_path):
  directory = pathlib.Path(make(tmp_path / 'a', TR))
  whole = runs.read_run(str(directory))
  for name in ('evaluations.jsonl', 'metrics.jsonl', 'starts.jsonl'):
    with open(directory / name, 'a', encoding='utf-8') as file:
      file.write('{"step": 2001, "trained_tok')
  assert runs.read_run(str(directory)) == whole
  with open(directory / 'evaluations.jsonl', 'a', encoding='utf-8') as file:
    file.write('\n')
  with pytest.raises(ValueError, match=r'evaluations\.jsonl, line 18 is not a whole record'):
    runs.read_run(str(directory))


def test_a_score_that_is_no_number_is_left_out_and_told(tmp_path):
  directory = pathlib.Path(make(tmp_path / 'a', TR))
  path = directory / 'evaluations.jsonl'
  text = path.read_text(encoding='utf-8')
  last = json.loads(text.splitlines()[-1])
  last['bits_per_byte']['sample_tr'] = None
  path.write_text(text[: text.rindex('{"step": 2000')] + json.dumps(last) + '\n', encoding='utf-8')
  found = runs.read_run(str(directory))
  assert found.curves[BITS].tokens == fake_runs.GRID[:-1]
  assert '1 scores are no numbers' in found.notes[0]


def test_scores_of_an_older_version_of_a_set_are_left_out_and_told(tmp_path):
  old, new = fake_runs.record(1000, identity='1-aaa'), fake_runs.record(2000, identity='2-bbb')
  found = runs.read_run(make(tmp_path / 'a', TR, records=[old, new]))
  assert found.curves[Score('xcopa_tr', 'accuracy')].tokens == (2_048_000,)
  assert found.identities['xcopa_tr'] == '2-bbb'
  assert 'another version' in found.notes[0]


def test_a_step_that_was_scored_twice_has_the_later_score(tmp_path):
  twice = [fake_runs.record(2000, accuracy=0.5), fake_runs.record(2000, accuracy=0.6)]
  found = runs.read_run(make(tmp_path / 'a', TR, records=twice))
  assert found.curves[Score('xcopa_tr', 'accuracy')].values == (0.6,)


def test_a_run_that_is_not_at_its_end_says_so(tmp_path):
  found = runs.read_run(make(tmp_path / 'a', TR, grid=fake_runs.GRID[:5]))
  assert found.notes == ('is not at its end: 512,000 of 2,048,000 tokens',)


def test_runs_that_differ_in_seeds_only_are_one_setting(tmp_path):
  directories = [make(tmp_path / f'plain-{seed}', TR, seed=seed) for seed in (1, 0)]
  directories += [make(tmp_path / f'link-{seed}', TR, seed=seed, link=0.3) for seed in (0, 1)]
  found = runs.read_settings(directories)
  assert [(s.name, [run.seeds.init for run in s.runs]) for s in found] == [('plain', [0, 1]), ('link', [0, 1])]  # fmt: skip
  assert [s.name for s in runs.read_settings([str(tmp_path)])] == ['link', 'plain']


def test_the_same_recipe_on_other_text_is_another_setting(tmp_path):
  directories = [
    make(tmp_path / f'pool-{size}', TR, unique=size, text=str(size)) for size in (10, 20)
  ]
  assert len(runs.read_settings(directories)) == 2


def test_a_study_s_folder_is_its_settings_and_so_are_runs_of_it(tmp_path):
  directories = [
    make(tmp_path / setting / f'seed-{seed}', TR, seed=seed, link=link)
    for setting, link in (('mixing', 0.0), ('link-3', 0.3)) for seed in (0, 1, 10)
  ]  # fmt: skip
  for arguments in ([str(tmp_path)], directories):
    found = {s.name: [run.seeds.init for run in s.runs] for s in runs.read_settings(arguments)}
    assert found == {'mixing': [0, 1, 10], 'link-3': [0, 1, 10]}
  alone = runs.read_settings([str(tmp_path / 'mixing')])
  assert [(s.name, len(s.runs)) for s in alone] == [('mixing', 3)]


def test_a_name_may_be_given(tmp_path):
  a, b, c = (make(tmp_path / name, TR, seed=k) for k, name in enumerate('abc'))
  found = runs.read_settings([f'one={a},{b}', f'two={c}'])
  assert [(s.name, len(s.runs)) for s in found] == [('one', 2), ('two', 1)]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['{0}/missing'], r"missing is no directory\. Nearest: 'missing-1'"),
    (['{0}/empty'], 'holds no run'),
    (['{0}/missing-1', '{0}/missing-1'], 'named twice'),
    (['a={0}/missing-1', 'a={0}/other'], "'a' is the name of two settings"),
    (['={0}/other'], 'a setting without name'),
    (['a={0}/missing-1,{0}/other'], r'have the same seeds \(0, 0, 0\)'),
  ],
)
def test_what_is_no_run_is_named(tmp_path, arguments, message):
  make(tmp_path / 'missing-1', TR)
  make(tmp_path / 'other', TR)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match=message):
    runs.read_settings([argument.format(tmp_path) for argument in arguments])


def test_a_file_that_is_no_json_is_named(tmp_path):
  directory = make(tmp_path / 'a', TR)
  pathlib.Path(directory, 'config.json').write_text('{', encoding='utf-8')
  with pytest.raises(ValueError, match=re.escape('config.json is no JSON')):
    runs.read_run(directory)


@pytest.mark.parametrize('text', ['{}', '[]', '{"model_type": "llama"}', '{"stages": [1]}'])
def test_a_configuration_of_something_else_is_named(tmp_path, text):
  directory = make(tmp_path / 'a', TR)
  pathlib.Path(directory, 'config.json').write_text(text, encoding='utf-8')
  with pytest.raises(ValueError, match=r'a/config\.json is no configuration of a run'):
    runs.read_run(directory)


def test_a_score_that_counts_items_has_their_resolution(tmp_path):
  records = [fake_runs.record(2000, accuracy=251.5 / 500), fake_runs.record(2000, 'sib200_tr', 0.61234)]  # fmt: skip
  found = runs.read_run(make(tmp_path / 'a', TR, records=records)).curves
  assert found[Score('xcopa_tr', 'accuracy')].resolution == 1 / 500
  assert found[Score('sib200_tr', 'accuracy')].resolution == 0
  assert found[BITS].resolution == 0


def test_all_starts_of_a_run_are_told(tmp_path):
  directory = make(tmp_path / 'a', TR)
  path = pathlib.Path(directory, 'starts.jsonl')
  start = json.loads(path.read_text(encoding='utf-8'))
  again = {**start, 'git': 'fe457b9', 'versions': {'jax': '0.11.0'}}
  path.write_text(''.join(json.dumps(one) + '\n' for one in (start, again, again)), encoding='utf-8')  # fmt: skip
  found = runs.read_run(directory)
  assert found.revisions == ['de6a2dd', 'fe457b9']
  assert found.versions['jax'] == '0.10.2, 0.11.0'
  assert found.devices == ['cpu']


def test_only_the_end_of_long_metrics_is_read(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = [json.dumps({'step': n, 'trained_tokens': n}) for n in range(1000)]
  path.write_text('\n'.join(lines) + '\n{"step": 1000, "bits', encoding='utf-8')
  assert records.last_step(path, tail=200) == {'step': 999, 'trained_tokens': 999}
  assert records.last_step(tmp_path / 'none.jsonl') == {}
