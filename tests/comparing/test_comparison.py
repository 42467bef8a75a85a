import json
import math
import pathlib
import random

import pytest

from jaxlink.comparing import comparison, results, runs, terminal
from tests.comparing import fake_runs
from tests.comparing.fake_runs import GRID, Law, make


def arm(
  folder, name, seeds=3, *, noise=0.003, speed=1.0, draw=0, english=1.0, late=False, **changes
):
  """Runs of a setting: what a seed does is shared by settings, and each run has noise of its own."""
  for seed in range(seeds):
    shared = random.Random(f'{draw}{seed}').gauss(0, 0.01)
    own = random.Random(f'{draw}{name}{seed}').gauss(0, noise)
    texts = {'sample_tr': Law(speed, shared + own), 'sample_en': Law(english, shared + own + 0.4)}
    make(folder / name / f'seed-{seed}', texts, seed=seed, **changes)
  return str(folder / name)


def compared(*folders, **options):
  return comparison.compare(runs.read_settings(folders), **options)


def of(found, name, setting):
  table = next(t for t in found.tables if t.name == name)
  return next(r for r in table.results if r.setting == setting)


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """Mixing, the same at half the learning rate, with LINK, with twice the tokens; three seeds."""
  folder = tmp_path_factory.mktemp('study')
  arm(folder, 'mixing')
  arm(folder, 'half', speed=0.7, rate=2e-3)
  arm(folder, 'link', speed=1.4, english=0.9, link=0.3)
  twice = [*GRID, *range(GRID[-1] + 256_000, 2 * GRID[-1] + 1, 256_000)]
  arm(folder, 'twice', tokens=twice[-1], grid=twice)
  return folder


def test_a_planted_difference_is_found_and_its_speed_up_lies_in_the_interval(study):
  found = compared(str(study), baseline='mixing', language='tr')
  for setting, speed, verdict in (('half', 0.7, 'worse'), ('link', 1.4, 'better')):
    result = of(found, 'sample_tr/bits_per_byte', setting)
    assert (result.versus.verdict, result.versus.method, result.versus.n) == (verdict, 'paired', 3)
    assert result.versus.low <= result.versus.value <= result.versus.high
    assert result.speedup.low <= speed <= result.speedup.high
  twice = of(found, 'sample_tr/bits_per_byte', 'twice')
  assert twice.versus.verdict == 'better'
  assert twice.speedup.low <= 1 <= twice.speedup.high  # the same curve, only longer
  assert twice.notes == [
    'the difference is of scores at the ends, 4,096,000 tokens against 2,048,000'
  ]
  assert any('not at equal tokens' in text for text in found.warnings)


def test_where_higher_is_better_more_is_better(tmp_path):
  names = []
  for name, rate, gain in (('plain', 4e-3, 0.0), ('good', 3e-3, 0.05), ('bad', 2e-3, -0.05)):
    for seed in range(2):
      record = fake_runs.record(2000, accuracy=0.6 + seed / 100 + gain * (1 + seed / 20))
      names.append(
        make(tmp_path / name / f'seed-{seed}', {}, seed=seed, rate=rate, records=[record])
      )
  found = compared(*names)
  verdicts = [of(found, 'xcopa_tr/accuracy', name).versus.verdict for name in ('good', 'bad')]
  assert verdicts == ['better', 'worse']


def test_english_that_is_lost_is_told(study):
  found = compared(str(study), baseline='mixing')
  assert found.targets == ['tr']
  assert [(t.name, t.role) for t in found.tables] == [
    ('sample_tr/bits_per_byte', 'target'), ('sample_en/bits_per_byte', 'other'),
  ]  # fmt: skip
  assert of(found, 'sample_en/bits_per_byte', 'link').versus.verdict == 'worse'


def test_equal_settings_differ_as_often_as_the_level_allows(tmp_path):
  trials, wrong = 60, 0
  for draw in range(trials):
    folder = tmp_path / str(draw)
    a, b = (arm(folder, name, draw=draw, grid=GRID[::4]) for name in 'ab')
    result = of(compared(a, b, level=0.9), 'sample_tr/bits_per_byte', 'b')
    wrong += result.versus.verdict != 'no difference'
  assert wrong <= 0.1 * trials + 3 * math.sqrt(0.09 * trials)


def test_two_seeds_of_one_setting_show_no_difference(tmp_path):
  a, b = (make(tmp_path / name, {'sample_tr': Law(offset=o)}, seed=k) for k, (name, o) in enumerate([('a', 0.0), ('b', 0.03)]))  # fmt: skip
  versus = of(compared(f'a={a}', f'b={b}'), 'sample_tr/bits_per_byte', 'b').versus
  assert (versus.verdict, versus.over) == ('no difference', '')
  assert 'noise between seeds' in versus.why
  assert len(runs.read_settings([a, b])) == 1  # without names they are one setting


def test_four_seeds_of_one_setting_two_against_two_show_no_difference(tmp_path):
  names = [make(tmp_path / str(k), {'sample_tr': Law(offset=o)}, seed=k) for k, o in enumerate((0.0, 0.01, 0.004, 0.013))]  # fmt: skip
  versus = of(compared(f'a={names[0]},{names[1]}', f'b={names[2]},{names[3]}'), 'sample_tr/bits_per_byte', 'b').versus  # fmt: skip
  assert (versus.verdict, versus.method) == ('no difference', 'pooled')


def test_one_seed_each_has_no_verdict_even_with_an_interval_over_items(tmp_path):
  a = make(tmp_path / 'a', {'sample_tr': Law()}, records=[fake_runs.record(2000, accuracy=0.5)])
  b = make(tmp_path / 'b', {'sample_tr': Law(2)}, rate=1e-3, records=[fake_runs.record(2000, accuracy=0.8)])  # fmt: skip
  found = compared(a, b)
  versus = of(found, 'xcopa_tr/accuracy', 'b').versus
  assert (versus.verdict, versus.over, versus.p) == ('too few seeds', 'items', None)
  assert 0 < versus.low < 0.3 < versus.high
  assert of(found, 'sample_tr/bits_per_byte', 'b').versus.low is None
  assert of(found, 'sample_tr/bits_per_byte', 'b').speedup.value == pytest.approx(2, rel=0.02)
  assert any('one seed' in note for note in found.notes)


def test_only_seeds_that_both_have_are_pairs(tmp_path):
  a = [
    make(
      tmp_path / 'a' / f'seed-{k}',
      {'sample_tr': Law(offset=k / 10)},
      seed=k,
      grid=GRID[: 9 if k == 3 else None],
    )
    for k in range(4)
  ]
  b = [make(tmp_path / 'b' / f'seed-{k}', {'sample_tr': Law(offset=k / 9.9 - 0.02)}, seed=k, rate=1e-3) for k in (2, 1)]  # fmt: skip
  found = compared(*a, *b)
  versus = of(found, 'sample_tr/bits_per_byte', 'b').versus
  assert (versus.n, versus.method) == (2, 'paired')
  assert versus.value == pytest.approx(-0.02 + 1.5 * (1 / 9.9 - 1 / 10))
  note = 'difference of 2 pairs; seeds 0, 3 of a have no partner'
  assert note in ' '.join(terminal.describe(found).split())
  assert results.to_json(found)['tables'][0]['results'][1]['notes'] == [note]


def scored(folder, name, accuracies, *, steps=(2000,), items=64, **changes):
  """A setting whose seeds have these numbers of right items."""
  for seed, right in enumerate(accuracies):
    lines = [fake_runs.record(step, accuracy=(right + step // 1000) / items, items=items) for step in steps]  # fmt: skip
    make(folder / name / f'seed-{seed}', {}, seed=seed, records=lines, **changes)
  return str(folder / name)


def test_one_more_item_in_each_of_two_seeds_is_no_proof(tmp_path):
  a, b = scored(tmp_path, 'a', (33, 35)), scored(tmp_path, 'b', (34, 36), rate=1e-3)
  versus = of(compared(a, b), 'xcopa_tr/accuracy', 'b').versus
  assert (versus.verdict, versus.n) == ('no difference', 2)
  assert versus.low < 0 < versus.high
  assert versus.p > 0.1


def test_a_few_equal_differences_of_unknown_resolution_have_no_verdict(tmp_path):
  a = [make(tmp_path / 'a' / f'seed-{k}', {'sample_tr': Law(offset=k / 10)}, seed=k) for k in range(3)]  # fmt: skip
  b = [make(tmp_path / 'b' / f'seed-{k}', {'sample_tr': Law(offset=k / 10 - 0.02)}, seed=k, rate=1e-3) for k in range(3)]  # fmt: skip
  versus = of(compared(*a, *b), 'sample_tr/bits_per_byte', 'b').versus
  assert (versus.verdict, versus.p, versus.n) == ('too few seeds', None, 3)
  assert 'agree to the last bit' in versus.why
  same = [make(tmp_path / 'c' / f'seed-{k}', {'sample_tr': Law(offset=k / 10)}, seed=k, rate=1e-3) for k in range(3)]  # fmt: skip
  assert of(compared(*a, *same), 'sample_tr/bits_per_byte', 'c').versus.verdict == 'no difference'


def test_a_score_that_one_setting_has_at_more_tokens_is_compared_where_both_have_it(tmp_path):
  a = scored(tmp_path, 'a', (10, 20, 30), steps=(1000, 2000))
  b = scored(tmp_path, 'b', (14, 24, 35), steps=(500, 1000), rate=1e-3)
  result = of(compared(a, b), 'xcopa_tr/accuracy', 'b')
  assert result.versus.value == pytest.approx(13 / 3 / 64)
  assert result.notes == [
    'the difference is at 1,024,000 tokens, the last that both have: some runs were scored later'
  ]
  path = tmp_path / 'b/seed-0/scores.jsonl'
  late = fake_runs.record(2000, accuracy=16 / 64, items=64)
  path.write_text(path.read_text(encoding='utf-8') + json.dumps(late) + '\n', encoding='utf-8')
  again = of(compared(a, b), 'xcopa_tr/accuracy', 'b')  # a pair at its end, two before
  assert 'is at 1,024,000 to 2,048,000 tokens' in again.notes[0]
  other = scored(tmp_path, 'c', (14, 24, 35), steps=(700,), rate=2e-3)
  result = of(compared(a, other), 'xcopa_tr/accuracy', 'c')
  assert result.versus is None
  assert 'never scored at the same tokens' in result.notes[0]


def test_a_seed_without_a_score_is_told(tmp_path):
  a = arm(tmp_path, 'a', 2)
  arm(tmp_path, 'b', 3, rate=1e-3)
  (tmp_path / 'b/seed-1/evaluations.jsonl').unlink()
  found = compared(a, str(tmp_path / 'b'))
  assert 'seed 1 of b has no score at all' in found.warnings
  assert of(found, 'sample_tr/bits_per_byte', 'b').n == 2
  path = tmp_path / 'a/seed-1/evaluations.jsonl'
  lines = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
  for line in lines:
    del line['bits_per_byte']['sample_en']
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')
  assert 'seed 1 of a has no score sample_en/bits_per_byte' in compared(a).warnings


def test_a_score_that_some_runs_lack_is_compared_where_it_is(study, tmp_path):
  a = arm(tmp_path, 'a', 2, rate=1e-3, records=[fake_runs.record(2000)])
  found = compared(str(study / 'mixing'), a)
  assert of(found, 'xcopa_tr/accuracy', 'mixing').final is None
  assert of(found, 'xcopa_tr/accuracy', 'a').versus is None
  assert of(found, 'sample_tr/bits_per_byte', 'a').versus.n == 2


def test_items_that_were_cut_or_are_in_the_training_text_are_told(tmp_path):
  seen = {'items': 3, 'compared': 480, 'n': 13}
  a = make(tmp_path / 'a', {}, records=[fake_runs.record(2000, cut=2, contaminated=seen)])
  b = make(tmp_path / 'b', {}, rate=1e-3, records=[fake_runs.record(2000)])
  for table in compared(a, b).tables:
    assert table.remarks == [
      'a: 2 of 500 items were too long and cut, 3 of 480 items share 13 words in a row with the training text'
    ]


def test_several_comparisons_are_counted_and_adjusted(study):
  found = compared(str(study), baseline='mixing')
  assert found.comparisons == 6
  versus = [r.versus for t in found.tables for r in t.results if r.versus]
  assert all(v.p_holm >= v.p for v in versus)
  assert all(v.holds == (v.verdict != 'no difference' and v.p_holm <= 0.05) for v in versus)
  assert any('6 comparisons' in note and "Holm's" in note for note in found.notes)


def test_scores_are_chosen_by_pattern(study, tmp_path):
  directory = make(tmp_path / 'a', {'sample_tr': Law()}, records=[fake_runs.record(2000)])
  names = lambda **o: {t.name for t in compared(directory, **o).tables}  # noqa: E731
  assert names() == {'sample_tr/bits_per_byte', 'xcopa_tr/accuracy', 'xcopa_tr/gap'}
  assert names(scores=['*']) == names() | {'xcopa_tr/accuracy_byte'}
  assert names(scores=['xcopa_*/acc*']) == {'xcopa_tr/accuracy', 'xcopa_tr/accuracy_byte'}
  with pytest.raises(
    ValueError, match=r"--scores 'xcopa_tr/acuracy' is no score\. Nearest: 'xcopa_tr/accuracy'"
  ):
    names(scores=['xcopa_tr/acuracy'])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'tokenizer': 'a' * 64}, 'has another tokenizer'),
    ({'records': [fake_runs.record(2000, identity='2-fff')]}, 'xcopa_tr is not the same'),
  ],
)  # fmt: skip
def test_what_means_something_else_is_refused(tmp_path, changes, message):
  a = make(tmp_path / 'a', {'sample_tr': Law()}, records=[fake_runs.record(2000)])
  b = make(tmp_path / 'b', {'sample_tr': Law()}, **changes)
  with pytest.raises(ValueError, match=message):
    compared(f'a={a}', f'b={b}')


def test_a_set_of_another_version_may_be_left_out(tmp_path):
  a, b = (make(tmp_path / n, {'sample_tr': Law()}, records=[fake_runs.record(2000, identity=n)]) for n in 'ab')  # fmt: skip
  assert (
    compared(f'a={a}', f'b={b}', scores=['sample_tr']).tables[0].name == 'sample_tr/bits_per_byte'
  )


def test_held_out_text_in_other_windows_is_refused(tmp_path):
  a, b = (make(tmp_path / n, {'sample_tr': Law()}) for n in 'ab')
  path = tmp_path / 'b/config.json'
  path.write_text(path.read_text(encoding='utf-8').replace('"sequence_length": 0', '"sequence_length": 64'), encoding='utf-8')  # fmt: skip
  with pytest.raises(ValueError, match=r'windows of 128 tokens.*windows of 64 tokens'):
    compared(f'a={a}', f'b={b}')


def test_across_tokenizers_bits_per_byte_alone_are_compared(tmp_path):
  a = make(tmp_path / 'a', {'sample_tr': Law()}, records=[fake_runs.record(2000)])
  b = make(
    tmp_path / 'b', {'sample_tr': Law()}, tokenizer='a' * 64, records=[fake_runs.record(2000)]
  )
  found = compared(f'a={a}', f'b={b}', across_tokenizers=True)
  assert [t.name for t in found.tables] == ['sample_tr/bits_per_byte']
  assert any('not checked' in text for text in found.warnings)


def test_more_than_the_named_thing_is_warned_of(tmp_path):
  a = make(tmp_path / 'a', {'sample_tr': Law()})
  b = make(tmp_path / 'b', {'sample_tr': Law()}, link=0.3, width=32, text='new')
  found = compared(a, b, meant=['link'])
  assert {entry.name: entry.meant for entry in found.differences} == {
    'stages[0].link.sample_en': True, 'model.width': False
  }  # fmt: skip
  assert 'settings differ in more than the named: model.width' in found.warnings
  assert any('the text of sample_tr is not the same' in text for text in found.warnings)
  assert found.differences[0].values == [
    '–',
    'LinkPolicy(lexicon=sample_tr, doc_fraction=0.5, word_ratio=0.3)',
  ]
  assert any('differ in 2 things: link, model.width' in text for text in compared(a, b).warnings)
  with pytest.raises(
    ValueError, match=r"--differs 'widht' is no setting of these runs\. Nearest: 'width'"
  ):
    compared(a, b, meant=['widht'])


def test_one_thing_that_was_named_gives_no_warning(tmp_path):
  a, b = (
    make(tmp_path / 'a', {'sample_tr': Law()}),
    make(tmp_path / 'b', {'sample_tr': Law()}, link=0.3),
  )
  assert compared(a, b, meant=['link']).warnings == []
  assert compared(a, b).warnings == []  # one thing, whatever it is
  assert 'settings do not differ in what was named' in compared(a, b, meant=['width']).warnings


def edited(directory, name, old, new):
  path = pathlib.Path(directory, name)
  text = path.read_text(encoding='utf-8')
  assert old in text
  path.write_text(text.replace(old, new), encoding='utf-8')


def test_a_part_of_link_that_was_not_named_is_warned_of(tmp_path):
  a, b = (make(tmp_path / name, {'sample_tr': Law()}, link=ratio) for name, ratio in (('a', 0.3), ('b', 0.5)))  # fmt: skip
  assert compared(a, b, meant=['word_ratio']).warnings == []
  edited(b, 'config.json', '"lexicon": "sample_tr"', '"lexicon": "sample_vi"')
  assert compared(a, b, meant=['word_ratio']).warnings == [
    'settings differ in more than the named: stages[0].link.sample_en.lexicon'
  ]
  assert compared(a, b, meant=['link']).warnings == []


def test_seeds_of_a_setting_with_another_lexicon_table_are_warned_of(tmp_path):
  a, b = (make(tmp_path / f'seed-{k}', {'sample_tr': Law()}, seed=k, link=0.3) for k in range(2))
  assert compared(a, b).warnings == []
  edited(b, 'stages.json', 'link/e6ee93e134cf686a', 'link/0000000000000000')
  assert [text for text in compared(a, b).warnings if 'lexicon table of sample_en' in text]


def test_other_revisions_versions_and_devices_are_warned_of(tmp_path):
  a, b = (make(tmp_path / f'seed-{k}', {'sample_tr': Law()}, seed=k) for k in range(2))
  line = pathlib.Path(b, 'starts.jsonl').read_text(encoding='utf-8')
  other = (
    line.replace('de6a2dd', 'fe457b9').replace('0.10.2', '0.11.0').replace('"cpu"', '"TPU v4"')
  )
  pathlib.Path(b, 'starts.jsonl').write_text(other + line, encoding='utf-8')  # not the last start
  assert compared(a, b).warnings == [
    'runs are of 2 revisions of the code: de6a2dd, fe457b9', 'runs are of 2 versions of jax: 0.10.2, 0.11.0',
    'runs are of 2 kinds of device: TPU v4, cpu',
  ]  # fmt: skip


def test_a_run_without_a_record_of_its_text_is_compared_with_a_warning(tmp_path):
  a, b = (make(tmp_path / name, {'sample_tr': Law()}) for name in 'ab')
  pathlib.Path(a, 'stages.json').unlink()
  found = compared(f'a={a}', f'b={b}')
  assert of(found, 'sample_tr/bits_per_byte', 'b').versus.value == 0
  assert any('has no stages.json' in text for text in found.warnings)


def test_runs_of_a_setting_that_differ_in_more_than_seeds_are_warned_of(tmp_path):
  a = make(tmp_path / 'a', {'sample_tr': Law()})
  b = make(tmp_path / 'b', {'sample_tr': Law()}, seed=1, rate=1e-3)
  assert 'runs of x differ in more than seeds: stages[0].optimizer.learning_rate' in compared(f'x={a},{b}').warnings  # fmt: skip


def test_the_multiplier_comes_from_monolingual_runs(tmp_path):
  truth = lambda unique: 1.2 + 30 * unique**-0.25  # noqa: E731
  pools = [
    make(
      tmp_path / 'pools' / str(size),
      {'sample_tr': Law(offset=truth(size) - Law()(GRID[-1]))},
      unique=size,
      text=str(size),
      languages=('tr',),
    )
    for size in (500_000, 1_000_000, 2_000_000, 4_000_000)
  ]
  mixed = make(tmp_path / 'mixed', {'sample_tr': Law(offset=truth(2_500_000) - Law()(GRID[-1]))}, unique=1_000_000)  # fmt: skip
  found = compared(mixed, monolingual=runs.read_settings(pools), language='tr')
  multiplier = of(found, 'sample_tr/bits_per_byte', 'mixed').multiplier
  assert multiplier.value == pytest.approx(2.5, rel=0.01)
  assert multiplier.within
  assert not any('pools' in text for text in found.warnings)
  three = compared(mixed, monolingual=runs.read_settings(pools[:3]), language='tr')
  assert of(three, 'sample_tr/bits_per_byte', 'mixed').multiplier.value > 0
  assert any('3 pools leave nothing to judge the multiplier by' in text for text in three.warnings)
  few = compared(mixed, monolingual=runs.read_settings(pools[:2]), language='tr')
  assert any('Missing: runs on 1 or more other amounts' in text for text in few.warnings)
  with pytest.raises(ValueError, match='reads text in en, too'):
    compared(mixed, monolingual=runs.read_settings([mixed]), language='tr')


def test_names_and_numbers_that_are_not_there_are_errors(study):
  with pytest.raises(ValueError, match=r"--baseline 'mixin' is no setting\. Nearest: 'mixing'"):
    compared(str(study), baseline='mixin')
  with pytest.raises(ValueError, match=r'--level is 95'):
    compared(str(study), level=95)
  assert compared(str(study), baseline=str(study / 'link')).baseline == 'link'


def test_the_json_has_what_is_documented(study):
  found = results.to_json(compared(str(study), baseline='mixing'))
  again = json.loads(json.dumps(found, allow_nan=False))
  assert again['format'] == 1
  assert set(again) == {
    'format', 'level', 'baseline', 'settings', 'targets', 'tables', 'differences', 'warnings', 'notes',
    'comparisons', 'left_out',
  }  # fmt: skip
  run = again['settings'][0]['runs'][0]
  assert set(run) == {
    'directory', 'seeds', 'tokenizer', 'trained', 'planned', 'git', 'versions', 'device', 'sources',
    'notes', 'scores',
  }  # fmt: skip
  assert run['scores']['sample_tr/bits_per_byte']['tokens'] == list(GRID)
  table = again['tables'][0]
  assert (table['set'], table['measure'], table['language']) == ('sample_tr', 'bits_per_byte', 'tr')
  result = next(r for r in table['results'] if r['setting'] == 'link')
  assert result['versus']['verdict'] == 'better'
  assert set(result['speedup']) >= {
    'value',
    'low',
    'high',
    'n',
    'bound',
    'reached',
    'runs',
    'limit',
  }


def test_the_terminal_has_all_of_it_in_80_columns(study):
  text = terminal.describe(compared(str(study), baseline='mixing'))
  assert max(map(len, text.splitlines())) <= 80
  for part in ('TURKISH: THE LANGUAGE THAT IS TO GAIN', 'ENGLISH: KEPT OR LOST', 'better', 'worse', '×1.',
               '†', '11.3% of words replaced', 'learning_rate', 'read closer to 1'):  # fmt: skip
    assert part in ' '.join(text.split())
