"""All published evaluation data of the shared collection: counts, labels, and the cut that is shipped."""

import collections
import filecmp
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from jaxlink.evaluation import registry
from tests.tasks.test_shipped_sets import FOLDER, MODULES, of_tasks

ROOT = pathlib.Path(__file__).parents[2]
SHARED = (ROOT / os.environ.get('JAXLINK_SHARED_DATA', '../shared/data')).resolve()
pytestmark = [
  pytest.mark.shared_data,
  pytest.mark.skipif(not SHARED.is_dir(), reason=f'{SHARED} is not there'),
]

COUNTS = {
  'blimp': 67_000, 'turblimp': 15_980, 'exams_tr': 392, 'exams_tr_train': 1571, 'exams_vi': 488,
  'exams_vi_train': 1955, 'exams_bg': 365, 'exams_hr': 335, 'exams_hu': 263, 'exams_it': 156,
  'exams_mk': 265, 'exams_pl': 246, 'exams_pt': 115, 'exams_sq': 185, 'exams_sr': 197,
  'xwinograd_en': 2325, 'xwinograd_fr': 83, 'xwinograd_jp': 959, 'xwinograd_pt': 263,
  'xwinograd_ru': 305,
}  # fmt: skip
BY_PREFIX = {
  'xcopa_': 500, 'sib200_probe_': 1004, 'sib200_': 204, 'xquad_': 1190, 'mgsm_': 250,
  'flores_': 1012, 'ntrex_': 1997,
}  # fmt: skip


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A folder in the layout that the modules read."""
  folder = tmp_path_factory.mktemp('evaluation')
  for path in (
    *(SHARED / 'eval').iterdir(),
    SHARED / 'corpora/flores200',
    SHARED / 'corpora/ntrex128',
  ):
    (folder / path.name).symlink_to(path)
  return folder


def test_every_item_of_every_set_is_one_and_their_number_is_known(data, monkeypatch):
  modules = {name: importlib.import_module(f'tasks.{name}') for name in MODULES}
  for module in modules.values():
    monkeypatch.setattr(module, 'DATA', data)
  counts = {}
  for name in of_tasks(modules):
    found = registry.read(name)
    counts[name] = len(found.items)
    if name.startswith('xcopa_'):
      assert collections.Counter(item.label for item in found.items) == {0: 250, 1: 250}
    if name.startswith(('flores_', 'ntrex_')):
      assert [item.id for item in found.items] == [f'{k:04}' for k in range(len(found.items))]
  wanted = {
    name: COUNTS.get(name) or next(n for p, n in BY_PREFIX.items() if name.startswith(p))
    for name in counts
  }
  assert counts == wanted
  assert len(counts) == 125


def test_what_is_shipped_is_what_the_tool_cuts(data, tmp_path):
  command = [
    sys.executable,
    str(ROOT / 'tools/cut_evaluation.py'),
    str(data),
    '--out',
    str(tmp_path),
  ]
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  cut = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file())
  shipped = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob('*') if path.is_file())
  assert [path for path in shipped if path.name != 'README.md'] == cut
  for path in cut:
    assert filecmp.cmp(FOLDER / path, tmp_path / path, shallow=False), path
