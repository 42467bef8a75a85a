"""A study's grid, the order and limits in which its runs are trained, and the tables that come of it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxlink import compare, config, evaluate
from tools import study, study_grid, study_runner, study_tables

ROOT = pathlib.Path(__file__).parents[2]

_STUDY = """
include 'tiny.gin'
Study.run = @Run()
Study.directory = {directory!r}
Study.settings = {{
  'mixing': (),
  'slow': ('OptimizerConfig.learning_rate = 1e-3',),
}}
Study.seeds = (0, 1)
Study.baseline = 'mixing'
Study.purpose = 'Does a tenth of the learning rate do as well?'
"""


@pytest.fixture
def gin_file(project, tmp_path):
  """A study of two settings and two seeds of the tiny project."""
  path = project.folder / f'{tmp_path.name}.gin'
  path.write_text(_STUDY.format(directory=str(tmp_path / 'study')), encoding='utf-8')
  return str(path)


def grid_of(gin_file, *bindings, only=(), seeds=()):
  found = study_grid.load(gin_file, bindings)
  return found, study_grid.make_grid(found, gin_file, bindings, only, seeds)


# ── the grid ────────────────────────────────────────────────────────────────────


def test_all_settings_of_a_seed_come_before_the_next_seed(gin_file, tmp_path):
  _, arms = grid_of(gin_file)
  assert [arm.name for arm in arms] == [
    'mixing, seed 0', 'slow, seed 0', 'mixing, seed 1', 'slow, seed 1']  # fmt: skip
  assert [str(arm.directory) for arm in arms[::3]] == [
    f'{tmp_path}/study/mixing/seed-0', f'{tmp_path}/study/slow/seed-1']  # fmt: skip


def test_two_settings_of_a_seed_differ_in_the_setting_alone(gin_file):
  _, arms = grid_of(gin_file, seeds=(7,))
  here, there = (config.resolved(arm.run) for arm in arms)
  assert config.differences(here.pop('directory'), there.pop('directory'))
  assert config.differences(here, there) == ['stages[0].optimizer.learning_rate: 0.01 → 0.001']
  assert (here['seed_init'], here['seed_order'], here['seed_link']) == (7, 7, 7)


def test_the_commands_bindings_are_for_all_and_a_settings_own_win(gin_file):
  _, arms = grid_of(gin_file, 'OptimizerConfig.learning_rate = 5e-3', 'Stage.tokens = 512')
  assert [arm.run.stages[0].optimizer.learning_rate for arm in arms[:2]] == [5e-3, 1e-3]
  assert {arm.tokens for arm in arms} == {512}


@pytest.mark.parametrize(
  ('name', 'english', 'target'),
  [('study_link', 'study_en', 'study_tr'), ('study_link_vi', 'study_vi_en', 'study_vi'),
   ('study_link_sw', 'study_sw_en', 'study_sw')],
)  # fmt: skip
def test_the_link_studies_have_arms_that_differ_in_text_and_substitution_alone(
  monkeypatch, tmp_path, name, english, target
):
  monkeypatch.chdir(ROOT)
  gin, own = f'gin/{name}.gin', f"Study.directory = '{tmp_path}/study'"
  found, arms = grid_of(gin, own, seeds=(0,))
  assert [arm.setting for arm in arms] == ['no mixing', 'mixing', 'LINK 0.3', 'LINK 0.6']
  _, every = grid_of(gin, own, only=list(found.settings), seeds=(0,))
  resolved = {arm.setting: config.resolved(arm.run) for arm in every}
  for name, one in resolved.items():
    differences = config.differences(
      {**resolved['mixing'], 'directory': ''}, {**one, 'directory': ''}
    )
    allowed = ('stages[0].link.', 'stages[0].mixture:')
    assert all(line.startswith(allowed) for line in differences), (name, differences)
  assert len({arm.tokens for arm in every}) == 1
  policies = {name: one['stages'][0]['link'].get(english) for name, one in resolved.items()}
  assert policies['no mixing'] is policies['mixing'] is None
  assert config.differences(policies['LINK 0.3'], policies['random words 0.3']) == [
    f'lexicon: "{target}" → "{target}_shuffled"']  # fmt: skip
  # Every evaluation has a checkpoint that stays.
  run = every[0].run
  assert run.evaluation.every_tokens == run.checkpoint.keep_every * run.stages[0].tokens_per_step


@pytest.mark.parametrize(
  ('binding', 'message'),
  [
    ('Study.evaluation_items = -1', r'Study.evaluation_items is -1: it is 0 or more'),
    ("Study.baseline = 'mixin'", r"Study.baseline: no setting 'mixin'.*'mixing'"),
    ("Study.chosen = ('mixing', 'fast')", r"Study.chosen: no setting 'fast'"),
    ("Study.settings = {'mixing': (), 'Mixing!': ()}", r"'Mixing!' and 'mixing' would share"),
    ("Study.settings = {'mixing': (), 'a=b': ()}", r"'a=b' is no name"),
    ('Study.settings = {}', r'Study.settings is empty'),
    ('Study.seeds = ()', r'Study.seeds is empty'),
    ('Study.seeds = (1, 1)', r'Study.seeds is \(1, 1\): each is there once'),
    (
      "Study.settings = {'mixing': (), 'again': ()}",
      r"'mixing' and 'again' are one and the same run",
    ),
    (
      "Study.settings = {'mixing': (), 'x': ('Stage.tokens = 0',)}",
      r"Study.settings, 'x': Stage.tokens is 0",
    ),
    (
      "Study.settings = {'mixing': (), 'x': ('Stage.batch = True',)}",
      r"Study.settings, 'x': Stage.batch",
    ),
  ],
)
def test_a_mistake_in_a_study_is_named(gin_file, binding, message):
  with pytest.raises(ValueError, match=message):
    grid_of(gin_file, binding)


def test_an_unknown_setting_in_the_command_is_named(gin_file):
  with pytest.raises(ValueError, match=r"--only: no setting 'slo'.*'slow'"):
    grid_of(gin_file, only=('slo',))


def test_a_directory_with_another_run_is_refused(gin_file):
  _, arms = grid_of(gin_file)
  other = config.resolved(arms[1].run)
  arms[0].directory.mkdir(parents=True)
  (arms[0].directory / 'config.json').write_text(json.dumps(other))
  with pytest.raises(ValueError, match='holds a run with another configuration'):
    grid_of(gin_file)


def test_a_dry_run_writes_nothing(gin_file, tmp_path):
  found, arms = grid_of(gin_file)
  text = study_tables.plan(found, arms)
  assert 'slow: OptimizerConfig.learning_rate = 1e-3' in text
  assert '4 runs of 40,960 tokens' in text
  assert not (tmp_path / 'study').exists()


# ── where and when runs are trained ─────────────────────────────────────────────


def test_cores_are_shared_out_and_gpus_given_one_to_a_run(monkeypatch):
  monkeypatch.setattr(study_runner.os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3, 4})
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert study_runner.places(0) == [{'cores': [0, 1, 2, 3, 4]}]
  assert study_runner.places(2) == [{'cores': [0, 1]}, {'cores': [2, 3, 4]}]
  with pytest.raises(ValueError, match=r'--jobs is 6, and there are 5 cores here'):
    study_runner.places(6)
  monkeypatch.setenv('JAX_PLATFORMS', '')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
  assert study_runner.places(0) == [{'gpus': ['2']}, {'gpus': ['5']}]
  assert study_runner.places(1) == [{'gpus': ['2', '5']}]


# What a run leaves behind, in no time: the child is told as the real one is.
_CHILD = """
import argparse, json, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('--one'), parser.add_argument('--seed', type=int)
parser.add_argument('--cores', nargs='+'), parser.add_argument('--parent')
args = parser.parse_args()
here = pathlib.Path({root!r})
planned = json.loads((here / 'planned.json').read_text())[f'{{args.one}}, seed {{args.seed}}']
own = planned.pop('test')
folder = pathlib.Path(planned['directory'])
def leave(step):
  meta = folder / 'checkpoints' / str(step) / 'meta'
  meta.mkdir(parents=True)
  dose = {{'words_seen': 400, 'covered': 200, 'eligible': 100, 'replaced': 30 * args.seed, 'stop_replaced': 10,
          'tokens_read': 800, 'tokens_inserted': 120, 'tokens_removed': 40}}
  accounts = {{'en': {{'all_tokens': 880, 'all_repetitions': 0.5}},
              'tr': {{'all_tokens': 120, 'all_repetitions': step / 10}}}}
  (meta / 'metadata').write_text(json.dumps(
    {{'accounts': accounts, 'counts': [{{'en': dose}}], 'trained_tokens': 1000}}))
  (folder / 'stages.json').write_text(json.dumps({{'stages': [{{'tokens': {{'en': 1760, 'tr': 12}}}}]}}))
def stop(number, frame):
  time.sleep(0.5 if args.one == 'slow' else 0)  # a place is free while the other run still saves
  leave(own['steps'] // 2)
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / 'config.json').write_text(json.dumps(planned))
events = open(here / 'events', 'a')
print('begin', args.one, args.seed, *args.cores, file=events, flush=True)
time.sleep(own['takes'])
# As many as there are places go on together, however slow the machine.
begun = lambda: (here / 'events').read_text().count('begin')
wanted, until = -(-begun() // own['jobs']) * own['jobs'], time.monotonic() + 30
while begun() < wanted and time.monotonic() < until:
  time.sleep(0.02)
print('end', args.one, args.seed, *args.cores, file=events, flush=True)
if own['fails']:
  sys.exit('error: no space left')
leave(own['steps'])
scores = [(0, 3.0), (own['steps'], own['score'])]
lines = [{{'step': s, 'trained_tokens': 10 * s, 'bits_per_byte': {{'tr': v}}, 'lines': []}} for s, v in scores]
(folder / 'evaluations.jsonl').write_text(''.join(json.dumps(line) + chr(10) for line in lines))
"""


@pytest.fixture
def fake(gin_file, tmp_path, monkeypatch):
  """Makes a Runner whose children take a moment and leave what a run leaves; which of them fails is said."""
  monkeypatch.setattr(study_runner, '_POLL_SECONDS', 0.02)
  found, arms = grid_of(gin_file)
  (tmp_path / 'child.py').write_text(_CHILD.format(root=str(tmp_path)))

  def make(jobs=2, fails=(), takes=0.0):
    scores = {'mixing': (2.5, 2.52), 'slow': (2.75, 2.8)}
    planned = {
      arm.name: {
        **config.resolved(arm.run),
        'test': {
          'takes': takes, 'steps': arm.run.steps, 'fails': arm.name in fails,
          'score': scores[arm.setting][arm.seed], 'jobs': jobs,
        },
      }
      for arm in arms
    }  # fmt: skip
    (tmp_path / 'planned.json').write_text(json.dumps(planned))
    where = [{'cores': [k]} for k in range(jobs)]
    command = [sys.executable, str(tmp_path / 'child.py')]
    return study_runner.Runner(found.directory, arms, command, where)

  return found, arms, make


def events(tmp_path):
  return [line.split() for line in (tmp_path / 'events').read_text().splitlines()]


def test_no_more_runs_than_jobs_go_on_at_once_each_on_its_own_cores(fake, tmp_path):
  _, arms, make = fake
  make(jobs=2).run()
  assert all(arm.complete for arm in arms)
  going, most = set(), 0
  for what, setting, seed, core in events(tmp_path):
    if what == 'begin':
      assert core not in {c for *_, c in going}
      going.add((setting, seed, core))
    else:
      going.remove((setting, seed, core))
    most = max(most, len(going))
  assert most == 2


def test_a_run_that_fails_ends_no_other_and_is_run_again_alone(fake, tmp_path, capsys):
  found, arms, make = fake
  runner = make(jobs=1, fails={'slow, seed 0'})
  runner.run()
  assert [arm.name for arm in runner.failed] == ['slow, seed 0']
  assert [arm.complete for arm in arms] == [True, False, True, True]
  assert 'error: no space left' in capsys.readouterr().out
  assert [row['status'] for row in study_tables.rows(found, arms)][1] == 'not begun'

  (tmp_path / 'events').unlink()
  again = make(jobs=1)
  again.run()
  assert events(tmp_path) == [['begin', 'slow', '0', '0'], ['end', 'slow', '0', '0']]
  assert not again.failed
  log = [json.loads(x) for x in (tmp_path / 'study/study.jsonl').read_text().splitlines()]
  assert [(x['setting'], x['seed'], x['exit_code']) for x in log] == [
    ('mixing', 0, 0), ('slow', 0, 1), ('mixing', 1, 0), ('slow', 1, 0), ('slow', 0, 0)]  # fmt: skip


def test_a_signal_stops_all_runs_and_no_other_begins(fake, tmp_path):
  _, arms, make = fake
  runner = make(jobs=2, takes=30)

  def tell():
    until = time.monotonic() + 60
    while time.monotonic() < until:
      if (tmp_path / 'events').exists() and len(events(tmp_path)) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
        return
      time.sleep(0.02)

  teller = threading.Thread(target=tell, daemon=True)
  teller.start()
  before = signal.getsignal(signal.SIGTERM)
  runner.run()
  teller.join()
  assert runner.signal == 'SIGTERM'
  assert signal.getsignal(signal.SIGTERM) is before
  assert not runner.failed  # to be stopped is no failure
  assert [arm.step for arm in arms] == [arms[0].run.steps // 2] * 2 + [0, 0]
  assert len(events(tmp_path)) == 2


# ── the tables ──────────────────────────────────────────────────────────────────


def test_a_row_has_the_numbers_of_a_run_and_the_time_of_all_its_starts(fake, tmp_path):
  found, arms, make = fake
  make().run()
  with open(tmp_path / 'study/study.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps({'setting': 'slow', 'seed': 1, 'seconds': 1000.0}) + '\n')
  with open(tmp_path / 'study/study.jsonl', encoding='utf-8') as file:
    starts = [
      start for start in map(json.loads, file) if (start['setting'], start['seed']) == ('slow', 1)
    ]
  assert len(starts) == 2
  seconds = sum(start['seconds'] for start in starts)
  study_tables.report(found, arms)
  rows = study_tables.rows(found, arms)
  steps = arms[0].run.steps
  assert rows[3] == {
    'setting': 'slow', 'seed': 1, 'status': 'finished', 'steps': steps, 'tokens': steps * 512,
    'repetitions/en': 0.5, 'repetitions/tr': steps / 10, 'replaced': 0.075, 'bits_per_byte/tr': 2.8,
    'seconds': round(seconds, 1), 'tokens_per_second': round(steps * 512 / seconds),
  }  # fmt: skip
  lines = (tmp_path / 'study/runs.csv').read_text().splitlines()
  assert lines[0].split(',')[:3] == ['setting', 'seed', 'status']
  assert len(lines) == 5


def test_a_line_that_a_power_cut_tore_costs_no_other_line(fake, tmp_path, capsys):
  found, arms, make = fake
  log = tmp_path / 'study/study.jsonl'
  log.parent.mkdir()
  log.write_bytes('{"setting": "mixing", "seed": 0, "seconds": 10, "host": "ğ'.encode()[:-1])
  make().run()
  rows = study_tables.rows(found, arms)
  assert all('seconds' in row for row in rows)
  assert len(log.read_bytes().splitlines()) == 5
  assert 'study.jsonl, line 1 is not whole' in capsys.readouterr().err


def test_text_and_dose_are_means_over_the_finished_runs(fake):
  _, arms, make = fake
  make(fails={'slow, seed 1'}).run()
  cells = [line.split(' | ')[1:] for line in study_tables.sources_read(arms).splitlines()[2:]]
  assert cells[0] == ['en', '1,760', '880', '88.00%', '0.500 |']
  assert [row[0] for row in cells] == ['en', 'tr', 'en', 'tr']
  mixing, slow = (line.split(' | ') for line in study_tables.doses(arms).splitlines()[2:])
  # Of mixing seeds 0 and 1 have finished, 0 and 30 words of 400; of the other seed 0 alone.
  assert mixing[2:] == ['400', '50.0%', '25.0%', '3.8%', '2.5%', '1.100', '13.6%', '12.0% |']
  assert slow[5] == '0.0%'


def test_differences_are_taken_seed_by_seed(fake):
  found, arms, make = fake
  make().run()
  text = study_tables.last_scores(found, study_tables.rows(found, arms))
  mixing, slow = [[cell.strip() for cell in line.split('|')] for line in text.splitlines()[2:]]
  assert mixing[1:-1] == ['tr', 'mixing', '0 1', '2.5100', '0.0141', '', '', '']
  # t of one degree of freedom: 12.706 standard errors, each half the distance of the two.
  assert slow[1:-1] == ['tr', 'slow', '0 1', '2.7750', '0.0354', '+0.2650', '+0.0744 to +0.4556',
                        '+0.2500, +0.2800']  # fmt: skip


def test_a_speed_up_is_that_of_compare_with_its_interval(fake):
  found, arms, make = fake
  make().run()
  (line,) = study_tables.speed_ups(found, arms).splitlines()[2:]
  cells = [cell.strip() for cell in line.split('|')[1:-1]]
  # In a straight line from 3.0, by seed: to 2.75 of 2.5 takes half as long, to 2.8 of 2.52 0.2 / 0.48.
  assert cells[:4] == ['tr', 'slow', '0 1', '0.46']
  assert cells[5:] == ['0.50, 0.42', '0 of 2']


def test_a_curve_is_of_the_seeds_that_all_settings_have_reached(fake):
  _, arms, make = fake
  make(fails={'slow, seed 1'}).run()
  rows = [line.split(' | ') for line in study_tables.curves(arms).splitlines()[2:]]
  assert [row[1:3] for row in rows] == [['0', '3.0000'], [str(10 * arms[0].run.steps), '2.5000']]
  assert {row[-1] for row in rows} == {'0 |'}


# ── the command ─────────────────────────────────────────────────────────────────


def start(project, gin_file, *arguments):
  command = [sys.executable, str(ROOT / 'tools/study.py'), gin_file, *arguments]
  return subprocess.Popen(
    command, cwd=project.folder, env=project.environment(), text=True, start_new_session=True,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason='two runs at a time take two cores')
def test_a_study_that_is_stopped_goes_on_and_ends_in_a_page(project, gin_file, tmp_path):
  longer = ['--gin_bindings', 'Stage.tokens = 61_440', '--jobs', '2', '--seeds', '0']
  process = start(project, gin_file, *longer)
  _, arms = grid_of(gin_file, 'Stage.tokens = 61_440', seeds=(0,))
  deadline = time.monotonic() + 500
  while arms[0].step < 5 and time.monotonic() < deadline and process.poll() is None:
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  text, _ = process.communicate(timeout=300)
  assert process.returncode == 143, text
  assert 'runs are left; the same command goes on' in text
  saved = arms[0].step
  assert 0 < saved < arms[0].run.steps

  process = start(project, gin_file, *longer)
  text, _ = process.communicate(timeout=600)
  assert process.returncode == 0, text
  assert f'mixing, seed 0: begins at step {saved:,}' in text
  assert all(arm.complete for arm in arms)
  assert '<svg' in (tmp_path / 'study/compare.html').read_text(encoding='utf-8')
  compared = json.loads((tmp_path / 'study/compare.json').read_text(encoding='utf-8'))
  assert 'slow' in json.dumps(compared)
  # The arms of a seed begin with the same parameters.
  first = [
    json.loads((arm.directory / 'evaluations.jsonl').read_text().splitlines()[0]) for arm in arms
  ]
  assert first[0] == first[1]


def test_a_directory_in_which_a_study_trains_is_refused_to_a_second_one(
  gin_file, tmp_path, monkeypatch, capsys
):
  (tmp_path / 'study').mkdir()
  holder = subprocess.Popen(
    [sys.executable, '-c', 'import fcntl, os, sys; file = open(sys.argv[1], "a+"); fcntl.lockf(file, fcntl.LOCK_EX)\n'
     'file.write(str(os.getpid())); file.flush(); print("held", flush=True); sys.stdin.read()',
     str(tmp_path / 'study/lock')],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert holder.stdout.readline() == 'held\n'
  monkeypatch.setattr(study_runner, 'prepare', lambda arms: pytest.fail('it goes on to train'))
  monkeypatch.setattr(sys, 'argv', ['study.py', gin_file])
  assert study.main(study.parse_arguments()) == 1
  error = capsys.readouterr().err
  assert f'another study writes in {tmp_path}/study: process {holder.pid}' in error
  assert 'Study.directory another name' in error
  monkeypatch.setattr(sys, 'argv', ['study.py', gin_file, '--table'])
  assert study.main(study.parse_arguments()) == 0
  holder.communicate('')
  with study_runner.claim(str(tmp_path / 'study')):
    pass


def test_only_and_seeds_limit_what_is_trained_and_not_what_is_told(gin_file, fake, capsys):
  found, arms, make = fake
  make().run()
  limited = study_grid.make_grid(found, gin_file, (), ['slow'], [1])
  every = study_grid.add_recorded(found, gin_file, (), limited)
  assert [arm.name for arm in limited] == ['slow, seed 1']
  assert [arm.name for arm in every] == [arm.name for arm in arms]
  # A directory of a run that the study has meanwhile made another is named, and left out.
  path = arms[0].directory / 'config.json'
  other = json.loads(path.read_text())
  other['stages'][0]['batch'] = 99
  path.write_text(json.dumps(other))
  every = study_grid.add_recorded(found, gin_file, (), limited)
  assert [arm.name for arm in every] == [arm.name for arm in arms[1:]]
  assert 'mixing, seed 0, is left out: ' in capsys.readouterr().err


def test_the_command_tells_and_compares_what_it_did_not_train(
  gin_file, fake, monkeypatch, tmp_path
):
  _, _, make = fake
  make().run()
  called = []
  monkeypatch.setattr(study, '_call', lambda *arguments: called.append(arguments) or 0)
  monkeypatch.setattr(study_runner, 'prepare', lambda arms: None)
  monkeypatch.setattr(sys, 'argv', ['study.py', gin_file, '--only', 'slow', '--seeds', '1'])
  assert study.main(study.parse_arguments()) == 0
  ((module, first, second, *_),) = called
  assert (module, first.split('=')[0], second.split('=')[0]) == ('compare', 'mixing', 'slow')
  assert len((tmp_path / 'study/runs.csv').read_text().splitlines()) == 5


def test_the_command_names_a_mistake_in_one_line(gin_file, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['study.py', gin_file, '--only', 'slo'])
  assert study.main(study.parse_arguments()) == 1
  written = capsys.readouterr().err
  assert written.startswith("error: --only: no setting 'slo'")
  assert len(written.splitlines()) == 1


@pytest.mark.parametrize('all_steps', [False, True])
def test_evaluate_and_compare_take_what_the_study_tells_them(
  gin_file, fake, monkeypatch, all_steps
):
  _, _, make = fake
  make().run()
  bindings = [
    "Study.evaluations = ('xcopa_tr', 'flores_*')", 'Study.evaluation_items = 500',
    f'Study.evaluate_all_steps = {all_steps}', "Study.differs = ('learning_rate',)",
  ]  # fmt: skip
  found, arms = grid_of(gin_file, *bindings)
  commands = []

  class Done:
    returncode = 0

  monkeypatch.setattr(
    study.subprocess, 'run', lambda command, **_: commands.append(command) or Done()
  )
  assert study.finish(found, arms) == 0
  monkeypatch.undo()
  (_, _, evaluating, *judged), (_, _, comparing, *compared) = commands
  assert (evaluating, comparing) == ('jaxlink.evaluate', 'jaxlink.compare')
  monkeypatch.setattr(sys, 'argv', ['evaluate', *judged])
  args = evaluate._arguments()
  assert args.model == [str(arms[k].directory) for k in (0, 2, 1, 3)]
  assert (args.sets, args.limit, args.all_steps) == (['xcopa_tr', 'flores_*'], 500, all_steps)
  assert args.modules == []  # all of tasks/: those of the run register no sets
  assert args.cache_dir == found.run.data.cache_dir
  monkeypatch.setattr(sys, 'argv', ['compare', *compared])
  args = compare._arguments()
  assert (args.baseline, args.differs, len(args.runs)) == ('mixing', 'learning_rate', 2)


def test_what_is_finished_is_compared_by_name(gin_file, fake, monkeypatch):
  found, arms, make = fake
  make().run()
  called = []
  monkeypatch.setattr(
    study, '_call', lambda module, *arguments: called.append((module, *arguments)) or 3
  )
  assert study.finish(found, arms) == 3
  ((module, *arguments),) = called
  assert module == 'compare'
  folders = [str(arm.directory) for arm in arms]
  assert arguments[:4] == [
    f'mixing={folders[0]},{folders[2]}', f'slow={folders[1]},{folders[3]}', '--baseline', 'mixing']  # fmt: skip
