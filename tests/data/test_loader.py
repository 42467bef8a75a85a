import faulthandler
import json
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from fractions import Fraction

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxlink.data import loader as loader_lib
from jaxlink.data.loader import Batches, Loader, abstract_batch, digest
from jaxlink.data.mixture import Mixture
from jaxlink.data.windows import Windows
from tests.data import multihost_digest
from tests.data.memory_blocks import MemoryBlocks, corpus
from tests.ports import free_port
from tests.tiny_project import ROOT

B, T, STEPS = 8, 64, 200
SOURCES = [corpus('swahili', 40, 0), corpus('turkish', 25, 1), corpus('english', 90, 2)]


def of(sources=SOURCES, rates=(0.3, '1/7', 0.55), length=T, seed=3, batch=B, origin=0):
  names = [source.name for source in sources]
  windows = [Windows(source, length, seed, origin) for source in sources]
  return Batches(Mixture(names, rates), windows, batch)


def whole(batches, step):
  return batches.read(step, np.arange(batches.batch))


def mesh(**axes):
  return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def cut(spec=('data',), **axes):
  return NamedSharding(mesh(**(axes or {'data': 8})), PartitionSpec(*spec))


@pytest.fixture(scope='module')
def expected():
  batches = of()
  return [digest(whole(batches, step)) for step in range(STEPS)]


# ── batches ──


def test_a_batch_is_rows_of_the_sources_in_the_mixtures_order():
  batches = of()
  batch = whole(batches, 5)
  for b in range(B):
    g = 5 * B + b
    source = int(batches.mixture.source_of(g))
    assert batch['source'][b] == source
    row = batches.windows[source].row(int(batches.mixture.index_within(g)))
    for name, array in row.items():
      assert np.array_equal(batch[name][b], array), name
  shapes = {name: (array.shape, array.dtype) for name, array in batch.items()}
  assert shapes == {
    **dict.fromkeys(['tokens', 'labels', 'segments', 'positions'], ((B, T), np.int32)),
    'loss_mask': ((B, T), bool),
    'source': ((B,), np.int32),
  }


def test_each_source_is_read_from_its_first_sequence_on_without_gaps():
  batches = of()
  tokens = {source: [] for source in range(3)}
  for step in range(40):
    batch = whole(batches, step)
    for source, row in zip(batch['source'].tolist(), batch['tokens'], strict=True):
      tokens[source].append(row)
  for source, rows in tokens.items():
    assert np.array_equal(rows, batches.windows[source].rows(np.arange(len(rows)))['tokens'])


@pytest.mark.parametrize('hosts', [1, 2, 4])
@pytest.mark.parametrize('start', [0, 57, 199])
def test_hosts_that_read_their_rows_from_any_step_make_the_same_batches(hosts, start, expected):
  batches = of()
  for step in range(start, STEPS):
    parts = [batches.read(step, rows) for rows in np.arange(B).reshape(hosts, -1)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert digest(joined) == expected[step]


def test_rows_come_in_the_order_asked():
  batch, some = whole(of(), 9), of().read(9, [6, 0, 3])
  assert all(np.array_equal(some[name], batch[name][[6, 0, 3]]) for name in batch)


def test_golden_batch_does_not_change(expected):
  # What a run has seen is defined by this: if it changes, runs cannot resume (see fingerprint).
  assert expected[0].startswith('54b70f3f7c21d706')
  assert expected[199].startswith('af52e6cf0be122f4')


class Counted(MemoryBlocks):
  """Keeps how much was read."""

  def __init__(self, *args):
    super().__init__(*args)
    self.reads = 0

  def read(self, start, length):
    self.reads += length > 1  # rows
    return super().read(start, length)


@pytest.mark.parametrize('step', [0, 10**9, 10**12])
def test_far_into_a_run_no_more_is_read(step):
  # A mixture or an order that goes through the steps before would not end here.
  sources = [Counted(source.name, ['Haraka haraka haina baraka. ' * 40]) for source in SOURCES]
  faulthandler.dump_traceback_later(300, exit=True)
  whole(of(sources), step)
  faulthandler.cancel_dump_traceback_later()
  assert sum(source.reads for source in sources) == B


def test_fingerprint_follows_all_that_the_batches_depend_on():
  renamed = [MemoryBlocks('kiswahili', ['Haba na haba hujaza kibaba.']), *SOURCES[1:]]
  reworded = [MemoryBlocks('swahili', ['Haba na haba hujaza kibaba!']), *SOURCES[1:]]
  prints = [
    of(),
    of(sources=renamed),
    of(sources=reworded),
    of(sources=SOURCES[::-1]),
    of(rates=(0.3, '1/7', 0.56)),
    of(length=T + 1),
    of(seed=4),
    of(batch=B + 1),
    of(origin=1),
  ]
  assert len({b.fingerprint for b in prints}) == len(prints)
  assert of().fingerprint == of(rates=(Fraction(3, 10), '2/14', '0.55')).fingerprint


def test_batches_that_cannot_be_made_are_errors():
  windows = [Windows(source, T, 0) for source in SOURCES]
  with pytest.raises(ValueError, match=r"windows of \['swahili', .*in the same order"):
    Batches(Mixture(['english', 'turkish', 'swahili'], [1, 1, 1]), windows, B)
  uneven = [*windows[:2], Windows(SOURCES[2], T + 1, 0)]
  with pytest.raises(ValueError, match=r'windows of \[64, 65\] tokens in one mixture'):
    Batches(Mixture([s.name for s in SOURCES], [1, 1, 1]), uneven, B)
  with pytest.raises(ValueError, match=r'batch is 0: .* at least 1'):
    of(batch=0)
  for step, rows in ((0, [B]), (0, [-1]), (-1, [0])):
    with pytest.raises(ValueError, match=rf'rows .* of batch {step}: .* 8 rows'):
      of().read(step, rows)


# ── loader ──


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_the_number_of_workers_does_not_change_a_batch(workers, expected):
  with Loader(of(), cut(), start=0, stop=STEPS, workers=workers) as loader:
    assert [digest(batch) for batch in loader] == expected


@pytest.mark.parametrize(
  ('start', 'workers'),
  [(57, 0), (199, 0), (57, 2), pytest.param(199, 2, marks=pytest.mark.slow)],
)
def test_a_loader_started_anywhere_goes_on_as_if_it_had_never_stopped(start, workers, expected):
  with Loader(of(), cut(), start=start, stop=STEPS, workers=workers) as loader:
    assert [digest(loader[step]) for step in range(start, STEPS)] == expected[start:]


@pytest.mark.parametrize(
  'sharding',
  [
    {'data': 8},
    {'data': 4, 'tensor': 2},
    {'spec': (('data', 'fsdp'),), 'data': 2, 'fsdp': 4},
    {'spec': ('data', 'sequence'), 'data': 2, 'sequence': 4},
    {'spec': (), 'data': 8},
  ],
  ids=str,
)
def test_the_mesh_does_not_change_a_batch(sharding, expected):
  sharding = cut(**sharding)
  with Loader(of(), sharding, start=57, stop=60) as loader:
    for step in range(57, 60):
      batch = loader[step]
      assert digest(batch) == expected[step]
      for name, array in batch.items():
        assert array.sharding == loader.abstract[name].sharding, name
        assert (array.shape, array.dtype) == (
          loader.abstract[name].shape,
          loader.abstract[name].dtype,
        )
      assert batch['tokens'].sharding.is_equivalent_to(sharding, 2)


def test_batches_go_in_without_an_implicit_transfer(expected):
  with jax.transfer_guard('disallow'), Loader(of(), cut(), start=0, stop=3) as loader:
    batches = list(loader)
  assert [digest(batch) for batch in batches] == expected[:3]


def test_a_step_compiled_from_the_abstract_batch_takes_the_batches():
  sharding = cut()
  compiled = jax.jit(lambda batch: batch['tokens'].sum()).lower(abstract_batch(of(), sharding))
  with Loader(of(), sharding, start=4, stop=5) as loader:
    assert int(compiled.compile()(loader[4])) == whole(of(), 4)['tokens'].sum()


def test_a_process_reads_the_rows_its_devices_hold_and_each_once(monkeypatch):
  read = []
  original = Batches.read
  monkeypatch.setattr(
    Batches, 'read', lambda self, step, rows: read.append(list(rows)) or original(self, step, rows)
  )
  with Loader(of(), cut(data=2, tensor=4), start=0, stop=1) as loader:
    loader[0]
    assert loader.rows.tolist() == list(range(B))  # though each row is on four devices
  assert read[1:] == [list(range(B))]  # the first is the one row that shows shapes and dtypes


@pytest.mark.parametrize(
  ('sharding', 'batch', 'length', 'message'),
  [
    ({'data': 8}, 12, T, r'batch is 12 sequences .* 8 parts \(data 8\): 12 is not a multiple of 8'),
    (
      {'spec': (('data', 'fsdp'),), 'data': 2, 'fsdp': 4},
      12,
      T,
      r'12 sequences .* 8 parts \(data 2 x fsdp 4\)',
    ),
    (
      {'spec': ('data', 'sequence'), 'data': 2, 'sequence': 4},
      B,
      66,
      r'a sequence is 66 tokens .* 4 parts \(sequence 4\): 66 is not a multiple of 4',
    ),
  ],
)
def test_a_batch_that_the_mesh_does_not_divide_is_an_error_with_both_numbers(
  sharding, batch, length, message
):
  with pytest.raises(ValueError, match=message):
    Loader(of(batch=batch, length=length), cut(**sharding), start=0, stop=1)


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ({'start': -1}, r'Loader.start is -1: it is at least 0'),
    ({'start': 5, 'stop': 4}, r'Loader.stop is 4: it is at least 5'),
    ({'workers': -1}, r'Loader.workers is -1: it is at least 0'),
    ({'threads': 0}, r'Loader.threads is 0: it is at least 1'),
    ({'prefetch': 0}, r'Loader.prefetch is 0: it is at least 1'),
  ],
)
def test_settings_out_of_range_are_errors_that_name_them(setting, message):
  with pytest.raises(ValueError, match=message):
    Loader(of(), cut(), **{'start': 0, 'stop': 9, **setting})


def test_steps_out_of_order_past_the_end_or_after_closing_are_errors():
  with Loader(of(), cut(), start=5, stop=7) as loader:
    with pytest.raises(ValueError, match=r'step 6 was asked .* step 5 is due'):
      loader[6]
    assert len(loader) == 2
    loader[5], loader[6]
    assert (len(loader), list(loader)) == (0, [])
    with pytest.raises(ValueError, match=r'step 7 was asked .* up to 7: it is at its end'):
      loader[7]
  loader.close()
  with pytest.raises(ValueError, match='closed loader'):
    loader[5]


def test_a_loader_of_no_steps_is_empty():
  with Loader(of(), cut(), start=5, stop=5) as loader:
    assert list(loader) == []


@pytest.mark.parametrize('start', [0, 10**12])
def test_a_loader_begins_at_any_step_without_those_before(start):
  source = Counted('swahili', ['Haraka haraka haina baraka. ' * 40])
  with Loader(of([source], [1]), cut(), start=start, stop=start + 5) as loader:
    assert sum(1 for _ in loader) == 5
  assert source.reads == 1 + 5 * B  # one shows shapes and dtypes


class Gated(Counted):
  """Waits for `asked`, and takes a second for a row by the test's own clock."""

  def __init__(self, *args):
    super().__init__(*args)
    self.asked, self.seconds = threading.Event(), 0

  def clock(self):
    seconds = self.seconds
    self.asked.set()
    return seconds

  def read(self, start, length):
    if length > 1 and self.reads:  # the first row shows shapes and dtypes
      assert self.asked.wait(60)
      self.seconds += 1
    return super().read(start, length)


class Broken(MemoryBlocks):
  def read(self, start, length):
    if length > 1 and start // T == 3:
      raise OSError('shard 3 of the cache is gone')
    return super().read(start, length)


def test_waiting_is_counted_and_reading_ahead_shortens_it(monkeypatch):
  source = Gated('swahili', ['Haraka haraka haina baraka. ' * 40])
  monkeypatch.setattr(loader_lib, 'time', types.SimpleNamespace(perf_counter=source.clock))
  with Loader(of([source], [1]), cut(), start=0, stop=5, threads=1, prefetch=4) as loader:
    loader[0]
    first = loader.wait_seconds
    assert B <= first <= 5 * B  # its rows, and what was read of the next meanwhile
    deadline = time.monotonic() + 60
    while source.reads < 1 + 5 * B:
      assert time.monotonic() < deadline
      time.sleep(0.01)
    for step in (1, 2, 3, 4):
      loader[step]
    assert loader.wait_seconds == first


@pytest.mark.parametrize('workers', [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_error_while_reading_surfaces_with_its_step(workers):
  batches = of([Broken('swahili', ['Haraka haraka haina baraka. ' * 40])], [1], batch=8)
  assert math.ceil(batches.windows[0].blocks.tokens / T) > 8
  with Loader(batches, cut(), start=0, stop=20, workers=workers) as loader:
    with pytest.raises(OSError, match='shard 3 of the cache is gone') as raised:
      list(loader)
    assert any('while batch' in note for note in raised.value.__notes__)
    with pytest.raises(ValueError, match='closed loader'):  # not the batch after it, in its place
      next(iter(loader))


def test_closing_ends_the_workers_even_in_the_middle():
  before = set(multiprocessing.active_children())
  with Loader(of(), cut(), start=0, stop=10**6, workers=2) as loader:
    loader[0], loader[1]  # one from each
    mine = set(multiprocessing.active_children()) - before
    assert len(mine) == 2
    began = time.perf_counter()
  assert time.perf_counter() - began < 20  # a worker that hangs is killed after 25
  assert not any(process.is_alive() for process in mine)


def test_batches_can_be_sent_to_a_worker():
  batches = pickle.loads(pickle.dumps(of()))
  assert batches.fingerprint == of().fingerprint
  assert digest(whole(batches, 3)) == digest(whole(of(), 3))


def test_digest_follows_content_dtype_shape_and_name():
  batch = {'tokens': np.arange(6, dtype=np.int32).reshape(2, 3)}
  others = [
    {'tokens': batch['tokens'].astype(np.uint32)},
    {'tokens': batch['tokens'].reshape(3, 2)},
    {'tokens': batch['tokens'] + 1},
    {'labels': batch['tokens']},
  ]
  assert len({digest(b) for b in [batch, *others]}) == 5
  assert digest(batch) == digest({'tokens': jax.device_put(batch['tokens'])})


# ── several processes ──


def child_environment(devices):
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ('layout', 'workers'),
  [('data', 0), ('data', 1), ('tensor across hosts', 0), ('sequence across hosts', 0)],
)
def test_two_processes_assemble_the_same_global_batches(layout, workers, tmp_path):
  port = free_port()
  command = [sys.executable, '-m', 'tests.data.multihost_digest']
  children = [
    subprocess.Popen(
      [*command, str(i), str(port), layout, str(workers), str(tmp_path / f'{i}.json')],
      env=child_environment(devices=4),
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  try:
    outputs = [child.communicate(timeout=150)[0] for child in children]
  finally:
    for child in children:
      child.kill()
  assert [child.returncode for child in children] == [0, 0], '\n'.join(outputs)
  found = [json.loads((tmp_path / f'{i}.json').read_text()) for i in range(2)]
  batches = multihost_digest.batches()
  steps = range(multihost_digest.START, multihost_digest.STOP)
  for process in found:
    assert process['digests'] == [digest(whole(batches, step)) for step in steps]
  shared = layout != 'data'
  assert found[0]['rows'] == (list(range(8)) if shared else [0, 1, 2, 3])
  assert found[1]['rows'] == (list(range(8)) if shared else [4, 5, 6, 7])


@pytest.mark.slow
def test_workers_outlive_a_signal_to_the_group_and_not_the_parent(tmp_path):
  script = tmp_path / 'run.py'
  script.write_text(
    textwrap.dedent("""
      import multiprocessing, signal, sys, time
      from tests.data.test_loader import Loader, cut, of
      if __name__ == '__main__':
        signal.signal(signal.SIGTERM, lambda *_: None)  # as a trainer that saves first
        loader = Loader(of(), cut(), start=0, stop=10**6, workers=2)
        loader[0], loader[1]  # one from each worker: both have begun
        print(*[p.pid for p in multiprocessing.active_children()], flush=True)
        sys.stdin.readline()
        for step in range(2, 30):
          loader[step]
        print('read on', flush=True)
        time.sleep(60)
    """)
  )
  parent = subprocess.Popen(
    [sys.executable, script],
    env={**child_environment(devices=8), 'PYTHONPATH': str(ROOT)},
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  try:
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    os.killpg(parent.pid, signal.SIGTERM)
    time.sleep(0.5)
    parent.stdin.write('\n')
    parent.stdin.flush()
    assert parent.stdout.readline() == 'read on\n'
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
      time.sleep(0.1)
    assert not any(is_running(pid) for pid in workers)
  finally:
    parent.kill()


def is_running(pid):
  try:
    with open(f'/proc/{pid}/stat') as stat:
      return stat.read().rsplit(')', 1)[1].split()[0] != 'Z'
  except (FileNotFoundError, ProcessLookupError):
    return False
