"""A stage's step, compiled for devices that are not used, and what is said of it."""

import dataclasses
import json
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlink import config, setup
from jaxlink import mesh as mesh_lib
from jaxlink.aot import command, report, search, topology
from jaxlink.aot.stage import compile_stage, overflow_of
from jaxlink.aot.topology import Target
from jaxlink.chips import Chip
from jaxlink.model import decoder
from jaxlink.stage import Run

RECIPE = 'gin/1b_link.gin'
TINY = [
  'DecoderConfig.layers = 3', 'DecoderConfig.width = 64', 'DecoderConfig.heads = 2',
  'DecoderConfig.feedforward = 128', 'DecoderConfig.vocabulary = 512', 'Stage.batch = 16',
  'Stage.sequence_length = 128', 'MeshConfig.fsdp = 4', 'MeshConfig.data = 2',
]  # fmt: skip
CHIP = Chip(('a CPU',), 1e12, 2**30, 1e11, 1e10, 'cpu')


@pytest.fixture(scope='module')
def run() -> Run:
  return config.parse(Run, [RECIPE], TINY)


@pytest.fixture(scope='module')
def here() -> Target:
  return Target('cpu:8', CHIP, 8, jax.devices())


@pytest.fixture(scope='module')
def compiled(run, here):
  return compile_stage(run, _plan(run, here), here)


def _plan(run, target):
  return setup.make_plans(run, None, command.make_mesh(run, target))[0]


def test_memory_by_kind_adds_up_to_what_the_compiler_was_given(compiled, run, here):
  parameters = decoder.parameter_count(_plan(run, here).model).total
  memory = compiled.memory
  # Four ways along fsdp; norms are whole on each device.
  assert parameters < memory.parameters < parameters * 4 / 3
  assert memory.optimizer == 2 * memory.parameters + 4 * 4  # two moments, four counters
  assert memory.batch == 2 * (4 * 128 * 4 + 128 + 4 + 4 * _counts(run))
  assert memory.temporaries > 0
  known = (memory.parameters, memory.optimizer, memory.batch, memory.temporaries, memory.outputs)
  assert memory.total == sum(known) + memory.code
  assert compiled.overflow == ''


def _counts(run):
  return setup.counts_without_data(run.stages[0])


def test_flops_are_the_definition_of_mfu_and_what_the_step_does_besides(compiled, run):
  work, tokens = compiled.work, 16 * 128
  L, D, F, V, T = 3, 64, 128, 512, 128
  layer = 4 * D * D + 3 * D * F
  attention = 2 * 2 * T * D * tokens  # scores and their product with the values, whole squares
  products = 6 * tokens * (L * layer + V * D) + 3 * L * attention
  # Remat computes a layer again, but for its last product, which no gradient needs.
  again = 2 * tokens * L * (layer - D * F) + L * attention
  assert work.recomputed == again
  assert work.counted == products + again
  assert work.model == 6 * tokens * (L * layer + V * D) + 6 * L * D * (T + 1) * tokens
  assert work.kernels == 0
  assert 0 < work.xla < work.counted


def test_collectives_are_told_by_axis(compiled):
  gathers = [c for c in compiled.collectives if c.kind == 'all-gather' and c.axes == 'fsdp']
  assert sum(c.count for c in gathers) >= 2 * 3  # each layer, forward and backward
  assert compiled.unbounded == ()
  assert compiled.roofline.links == sum(c.sent for c in compiled.collectives) / CHIP.link_rate


def test_the_report_and_its_json_have_what_was_found(compiled, here):
  text = report.describe(compiled, here)
  for part in ('mesh data 2, fsdp 4', 'temporaries', 'of it recomputed', 'all-gather', 'bound by'):
    assert part in text
  saved = json.loads(json.dumps(report.as_json(here, [compiled], [])))
  assert saved['stages'][0]['memory']['total'] == compiled.memory.total


def test_without_a_compiler_temporaries_are_unknown_and_not_guessed(run, compiled):
  target = Target('h100:8', dataclasses.replace(CHIP, platform='cpu'), 8, None, 'no compiler here')
  mesh = command.make_mesh(run, target)
  traced = compile_stage(run, setup.make_plans(run, None, mesh, 'cpu')[0], target)
  assert traced.memory.temporaries is None
  assert traced.memory.total is None
  assert traced.memory.parameters == compiled.memory.parameters
  assert traced.work == dataclasses.replace(compiled.work, xla=None)
  text = report.describe(traced, target)
  assert 'temporaries                unknown' in text
  assert 'not known: no compiler here' in text


def test_a_step_above_the_chips_memory_is_said_not_to_fit(compiled, here):
  memory = dataclasses.replace(compiled.memory, total=3 * 2**29, limit=2**30)
  assert memory.overflow == '1.50 GiB of 1.00 GiB on each device'
  assert dataclasses.replace(memory, limit=memory.total).overflow == ''
  found = dataclasses.replace(compiled, memory=memory, overflow=memory.overflow)
  assert 'out of memory: 1.50 GiB of 1.00 GiB' in report.describe(found, here)


def test_the_compilers_own_figure_is_read_from_its_error():
  error = (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used '
    '38.21G of 15.75G hbm. Exceeded hbm capacity by 22.46G.\n\nTotal hbm usage >= 38.46G:'
  )
  assert overflow_of(error) == '38.21 GiB of 15.75 GiB of HBM on each device'
  error = (
    'RESOURCE_EXHAUSTED: Allocation error: the total memory required for HLO temporaries (22.85G) exceeds '
    'available HBM (15.75G). HLO module: jit_train_step.'
  )
  assert overflow_of(error) == '22.85 GiB of 15.75 GiB of HBM on each device'
  assert overflow_of('RESOURCE_EXHAUSTED: Something else.\nMore.') == 'Something else.'
  assert overflow_of('INTERNAL: a bug') == ''


def test_a_mesh_that_does_not_fit_is_told_with_a_proposal(run, here):
  with pytest.raises(ValueError, match=r'8, and there are 6 devices.*MeshConfig.fsdp = -1'):
    command.make_mesh(run, dataclasses.replace(here, count=6))


def test_a_search_doubles_while_it_fits_and_tells_what_each_gib_buys(run, here, compiled):
  mesh = command.make_mesh(run, here)

  def pretend(run, plan, target):
    """Memory that grows with rows, and by what a policy keeps; time by what it recomputes."""
    rows, share = plan.stage.batch // 8, {'none': 4, 'dots': 2, 'attention': 2, 'full': 1}
    gib = rows * share[plan.model.remat]
    seconds = rows * {'none': 3, 'dots': 3.2, 'attention': 3.9, 'full': 4}[plan.model.remat]
    tokens = plan.stage.tokens_per_step
    return dataclasses.replace(
      compiled,
      remat=plan.model.remat,
      rows=rows,
      memory=dataclasses.replace(compiled.memory, total=gib * 2**30),
      roofline=dataclasses.replace(
        compiled.roofline, seconds=seconds, tokens_per_second=tokens / seconds
      ),
      overflow='too much' if gib > 8 else '',
    )

  said = []
  found = search.search(run, 0, here, mesh, most=8, said=said.append, compile_one=pretend)
  tried = [(one.remat, one.rows, not one.overflow) for one in found.candidates]
  assert tried == [
    ('none', 2, True), ('none', 4, False),
    ('dots', 2, True), ('dots', 4, True), ('dots', 8, False),
    ('attention', 2, True), ('attention', 4, True), ('attention', 8, False),
    ('full', 2, True), ('full', 4, True), ('full', 8, True),
  ]  # fmt: skip
  assert said == list(found.candidates)
  assert (found.largest.remat, found.largest.rows) == ('full', 8)
  assert [(one.remat, one.rows) for one in found.frontier] == [
    ('full', 2),
    ('dots', 2),
    ('none', 2),
  ]
  text = report.describe_search(found)
  assert '+2.00 GiB, full at 2 → dots at 2: +25.0% tokens/s, 12.5% for each GiB' in text
  assert 'does not fit: too much' in text


def test_a_search_without_a_compiler_is_refused(run):
  target = Target('h100:8', CHIP, 8, None, 'no compiler')
  with pytest.raises(ValueError, match='--search needs memory'):
    search.search(run, 0, target, mesh_lib.abstract_mesh(run.mesh, 8))


def _command(*arguments):
  return subprocess.run(
    [sys.executable, 'tools/aot_compile.py', f'--gin_file={RECIPE}',
     *(f'--gin_bindings={binding}' for binding in TINY), *arguments],
    capture_output=True, text=True, timeout=300,
  )  # fmt: skip


@pytest.mark.slow
def test_a_real_compile_for_a_tpu_slice(tmp_path):
  pytest.importorskip('libtpu')
  done = _command('--topology=v5e:2x4', f'--json={tmp_path}/figures.json')
  assert done.returncode == 0, done.stderr
  assert 'stage pretrain on v5e:2x4: 8 × TPU v5 lite; mesh data 2, fsdp 4' in done.stdout
  figures = json.loads((tmp_path / 'figures.json').read_text())['stages'][0]
  assert np.isclose(figures['work']['model'], 6 * 16 * 128 * (3 * 40960 + 32768 + 3 * 64 * 129))
  assert figures['memory']['temporaries'] > 0
  assert {c['axes'] for c in figures['collectives'] if c['sent'] > 1e4} <= {
    'fsdp',
    'data·fsdp',
    'data',
  }


@pytest.mark.slow
def test_a_step_that_a_tpu_cannot_hold_ends_with_the_compilers_figure(tmp_path):
  pytest.importorskip('libtpu')
  done = _command('--topology=v5e:2x4', '--gin_bindings=Stage.batch = 65_536',
                  "--gin_bindings=DecoderConfig.remat = 'none'")  # fmt: skip
  assert done.returncode == 1
  assert 'out of memory: ' in done.stdout
  assert 'GiB of HBM on each device' in done.stdout


@pytest.mark.slow
def test_a_real_compile_for_a_gpu_box(tmp_path):
  pytest.importorskip('jax_cuda12_plugin')
  done = _command('--topology=h100:8')
  assert done.returncode == 0, done.stderr
  assert 'compiled in' in done.stdout


def test_a_wrong_topology_is_one_line_and_code_1(monkeypatch):
  monkeypatch.setattr(topology, 'prepare', lambda: None)
  monkeypatch.setattr(sys, 'argv', ['aot_compile.py', '--topology=v9:2x2', f'--gin_file={RECIPE}'])
  with pytest.raises(SystemExit) as ended:
    runpy.run_path('tools/aot_compile.py', run_name='__main__')
  assert ended.value.code.startswith("error: --topology is 'v9:2x2': no chip 'v9' is known.")
  assert '\n' not in ended.value.code
