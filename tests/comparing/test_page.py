import re

import pytest

from jaxlink.comparing import comparison, page, plots, runs
from tests.auditing.test_page import HOSTILE, check
from tests.comparing import fake_runs
from tests.comparing.fake_runs import GRID, Law, make

UNSAFE = re.compile(r'url\((?!#)|@import|https?:')


def rendered(arguments, **options):
  return page.render(comparison.compare(runs.read_settings(arguments), **options))


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """Three settings of two seeds, of which one lacks a score, and monolingual runs."""
  folder = tmp_path_factory.mktemp('study')
  for name, changes in (('mixing', {}), ('link', {'link': 0.3}), ('mono', {'languages': ('tr',)})):
    for seed in range(2):
      texts = {'sample_tr': Law({'link': 1.4}.get(name, 1.0), seed / 100), 'sample_en': Law(0.9)}
      if name == 'mono':
        del texts['sample_en']
      records = [fake_runs.record(step, accuracy=0.55 + step / 20_000) for step in (1000, 2000)]
      make(folder / name / f'seed-{seed}', texts, seed=seed, records=records if name != 'mono' else (), **changes)  # fmt: skip
  return str(folder)


@pytest.fixture(scope='module')
def text(study):
  return rendered([study], baseline='mixing')


def test_the_page_is_well_formed_and_loads_nothing(text):
  names = {name for name, _ in check(text)}
  assert not names & {
    'script',
    'link',
    'img',
    'iframe',
    'object',
    'embed',
    'base',
    'form',
    'metadata',
  }
  assert not UNSAFE.search(text)


def test_every_plot_says_in_words_what_it_shows(text):
  drawn = [attributes for name, attributes in check(text) if attributes.get('class') == 'plot']
  assert len(drawn) == 8  # curve and speed-up of four scores
  assert all(a['role'] == 'img' and a['aria-label'] for a in drawn)
  assert any(re.match(r'sample_tr/bits_per_byte over trained tokens: .*link 1\.\d+', a['aria-label']) for a in drawn)  # fmt: skip
  assert any(re.search(r'link ×1\.\d+', a['aria-label']) for a in drawn)


def test_ids_of_plots_are_unique_and_every_reference_has_one(text):
  ids = re.findall(r' id="([^"]+)"', text)
  assert len(ids) == len(set(ids))
  assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)) <= {(i, '') for i in ids} | {('', i) for i in ids}  # fmt: skip


def test_plots_take_their_colours_from_the_style_sheet(text):
  svg = ''.join(re.findall(r'<svg.*?</svg>', text, re.DOTALL))
  assert set(re.findall(r'#[0-9a-f]{6}\b', svg)) == set()
  for k in range(3):
    assert f'var(--c{k})' in svg
    assert f'--c{k}:' in text


def test_the_page_has_settings_verdicts_differences_dose_and_runs(text):
  for part in ('link, mono against mixing', 'Turkish: the language that is to gain', 'English: kept or lost', 'no difference',
               'stages[0].link.sample_en', '13,389', '11.3%', 'de6a2dd', 'read closer to 1', 'At a glance'):  # fmt: skip
    assert part in text


def test_missing_scores_are_shown_as_missing(text):
  block = text[text.index('xcopa_tr/accuracy<span') :]
  row = re.search(r'<tr><th scope="row"><bdi>mono</bdi>.*?</tr>', block)[0]
  assert row.count('–') == 6


def test_one_run_has_its_curves_and_table(study):
  alone = rendered([f'{study}/link/seed-0'])
  check(alone)
  assert 'The scores of one setting' in alone
  assert 'speed-up' not in re.sub(r'<(style|p|li).*?</\1>', '', alone, flags=re.DOTALL)
  assert len(re.findall('class="plot"', alone)) == 4


def test_ten_settings_have_lines_that_differ(tmp_path):
  for k in range(10):
    make(tmp_path / f'arm{k}', {'sample_tr': Law(1 + k / 10)}, rate=1e-3 * (k + 1))
  check(rendered([str(tmp_path)]))
  assert len({plots.style(k) for k in range(21)}) == 21


def test_scores_of_the_last_checkpoint_alone_are_points(tmp_path):
  make(tmp_path / 'a', {}, records=[fake_runs.record(2000)])
  check(rendered([str(tmp_path / 'a')]))


def test_names_of_the_user_cannot_become_markup(tmp_path):
  a = make(tmp_path / 'a', {'sample_tr': Law()})
  b = make(tmp_path / 'b', {'sample_tr': Law()}, rate=1e-3)
  text = rendered([f'{HOSTILE.replace("=", "")}={a}', f'plain={b}'])
  assert not {name for name, _ in check(text)} & {'script', 'img'}


def test_a_bound_of_several_seeds_is_not_said_to_be_of_one(tmp_path):
  grid = GRID[4:]
  for name, speed, rate in (('slow', 1.0, 4e-3), ('fast', 0.1, 2e-3)):
    for seed in range(3):
      make(tmp_path / name / f'seed-{seed}', {'sample_tr': Law(speed)}, seed=seed, rate=rate, grid=grid)  # fmt: skip
  text = rendered([str(tmp_path)], baseline='slow')
  tile = re.search(r'<ul class="tiles">.*?</ul>', text)[0]
  assert re.search(r'<b>≤×0\.\d+†</b>', tile)
  assert ', 3 seeds; † the best of the baseline is not reached' in tile
  assert 'one seed each' not in tile


def test_tokens_are_short_on_axes():
  assert [plots.short(n) for n in (950, 128_000, 2_048_000, 3e9)] == ['950', '128k', '2.05M', '3G']
