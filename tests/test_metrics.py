"""Metrics: one fetch a step and one step late, exact numbers, cut back where a run resumes."""

import io
import json
import struct
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import metrics


def lines(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def write(folder, steps, **options):
  sink = metrics.Metrics(str(folder), **options)
  for step in steps:
    sink.write(step, {'loss': np.float32(1) / np.float32(step)})
  sink.close()


def events(folder):
  """(step, tag, value) of scalars and (step, 'start', None) of starts, in the order written."""
  from tensorboardX.proto.event_pb2 import Event, SessionLog

  found = []
  for path in sorted((folder / 'tensorboard').iterdir()):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (length,) = struct.unpack('<Q', data[at : at + 8])
      event = Event.FromString(data[at + 12 : at + 12 + length])
      at += 16 + length
      if event.session_log.status == SessionLog.START:
        found.append((event.step, 'start', None))
      found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
  return found


def test_float32_losses_are_written_exactly(tmp_path):
  losses = np.random.default_rng(0).normal(size=100).astype(np.float32)
  sink = metrics.Metrics(str(tmp_path))
  for step, loss in enumerate(losses, 1):
    sink.write(step, {'loss': loss})
  sink.close()
  read = np.array([line['loss'] for line in lines(tmp_path)])
  assert np.array_equal(read, losses.astype(np.float64))


def test_what_json_cannot_hold_is_null_and_named(tmp_path):
  sink = metrics.Metrics(str(tmp_path))
  sink.write(1, {'loss': np.float32('nan'), 'norm': float('inf'), 'tokens': np.int32(7)})
  sink.close()
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert 'NaN' not in text
  assert 'Infinity' not in text
  assert lines(tmp_path) == [
    {
      'step': 1,
      'loss': None,
      'norm': None,
      'tokens': 7,
      'nonfinite': {'loss': 'nan', 'norm': 'inf'},
    }
  ]


@pytest.mark.parametrize('value', [np.zeros(2), 'high', None])
def test_a_metric_that_is_no_scalar_is_refused(tmp_path, value):
  sink = metrics.Metrics(str(tmp_path))
  with pytest.raises(TypeError, match=r"metric 'loss' is .*: it is a scalar number"):
    sink.write(1, {'loss': value})
  sink.close()


def test_bfloat16_is_a_number(tmp_path):
  sink = metrics.Metrics(str(tmp_path))
  sink.write(1, {'loss': jnp.bfloat16(1.5), 'skipped': np.bool_(True)})
  sink.close()
  assert lines(tmp_path) == [{'step': 1, 'loss': 1.5, 'skipped': 1}]


def test_a_resumed_run_keeps_lines_up_to_the_restored_step_byte_for_byte(tmp_path):
  write(tmp_path, range(1, 8))
  before = (tmp_path / 'metrics.jsonl').read_bytes().splitlines(keepends=True)
  write(tmp_path, [5], resume_step=4)
  after = (tmp_path / 'metrics.jsonl').read_bytes().splitlines(keepends=True)
  assert after == before[:5]
  assert [path.name for path in tmp_path.glob('metrics*')] == ['metrics.jsonl']


def test_a_start_from_scratch_keeps_nothing(tmp_path):
  write(tmp_path, [1, 2])
  write(tmp_path, [1])
  assert [line['step'] for line in lines(tmp_path)] == [1]


@pytest.mark.parametrize('torn', ['{"step": 3, "lo', '{"step": 3}', '{"ste'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
  write(tmp_path, [1, 2])
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write(torn)
  write(tmp_path, [4], resume_step=3)
  assert [line['step'] for line in lines(tmp_path)] == [1, 2, 4]


def test_a_torn_line_in_the_middle_is_refused_and_the_file_left_alone(tmp_path):
  write(tmp_path, [1, 2, 3])
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text().replace('{"step": 2', '{"st'))
  before = path.read_bytes()
  with pytest.raises(ValueError, match='line 2 is not a whole metrics line'):
    write(tmp_path, [], resume_step=3)
  assert path.read_bytes() == before


def test_tensorboard_purges_what_follows_the_restored_step(tmp_path):
  write(tmp_path, [1, 2, 3])
  write(tmp_path, [3], resume_step=2)
  found = events(tmp_path)
  assert [(step, tag) for step, tag, _ in found] == [
    (0, 'start'),
    (1, 'loss'),
    (2, 'loss'),
    (3, 'loss'),
    (3, 'start'),  # hides the one above
    (3, 'loss'),
  ]
  assert found[-1][2] == np.float32(1) / np.float32(3)


def test_only_the_writer_touches_the_directory(tmp_path):
  write(tmp_path / 'run', [1], writer=False)
  assert not (tmp_path / 'run').exists()


def test_wandb_that_is_asked_for_and_missing_is_an_error(tmp_path, monkeypatch):
  monkeypatch.setattr(metrics.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ModuleNotFoundError, match=r'pip install jaxlink\[wandb\]'):
    metrics.Metrics(str(tmp_path), wandb_project='turkish')


def test_wandb_gets_the_same_scalars_with_the_step_as_their_axis(tmp_path, monkeypatch):
  logged = []
  run = types.SimpleNamespace(
    define_metric=lambda *a, **k: logged.append((a, k)), log=logged.append, finish=lambda: None
  )
  module = types.ModuleType('wandb')
  module.init = lambda **options: run
  monkeypatch.setitem(sys.modules, 'wandb', module)
  monkeypatch.setattr(metrics.importlib.util, 'find_spec', lambda name: object())
  write(tmp_path, [2], wandb_project='turkish')
  assert logged == [(('*',), {'step_metric': 'step'}), {'step': 2, 'loss': 0.5}]


# ── the loop's log ──────────────────────────────────────────────────────────────


def logger(folder, stream=None, **options):
  sink = metrics.Metrics(str(folder))
  return metrics.Logger(
    sink, steps=10, tokens_at=lambda step: 100 * step, stream=stream or io.StringIO(), **options
  )


def set_clock(monkeypatch, seconds):
  fake = types.SimpleNamespace(monotonic=lambda: next(seconds), time_ns=time.time_ns)
  monkeypatch.setattr(metrics, 'time', fake)


def test_log_fetches_once_a_step_and_one_step_late(tmp_path):
  log = logger(tmp_path)
  calls = metrics.fetch.calls
  assert log.log(1, {'loss': jnp.float32(3)}) is None
  assert metrics.fetch.calls == calls
  assert lines(tmp_path) == []
  before = log.log(2, {'loss': jnp.float32(2)})
  assert before['loss'] == 3
  assert metrics.fetch.calls == calls + 1
  assert [line['step'] for line in lines(tmp_path)] == [1]
  log.flush()
  log.flush()
  assert metrics.fetch.calls == calls + 2
  assert [line['loss'] for line in lines(tmp_path)] == [3, 2]


def test_log_works_where_implicit_transfers_are_forbidden(tmp_path):
  log = logger(tmp_path)
  loss = jax.jit(lambda: jnp.float32(3))()
  with jax.transfer_guard('disallow'):
    log.log(1, {'loss': loss})
    log.flush()
  assert lines(tmp_path) == [{'step': 1, 'loss': 3.0}]


def test_tokens_per_second_leaves_out_the_first_step_and_pauses(tmp_path, monkeypatch):
  clock = iter([100.0, 100.5, 101.0, 400.0, 400.25])
  set_clock(monkeypatch, clock)
  log = logger(tmp_path)
  for step in (1, 2, 3):  # the first takes as long as it likes
    log.log(step, {'loss': jnp.float32(1)}, {'data_seconds': 0.25})
  log.flush()
  log.restart_clock()  # a long evaluation
  for step in (4, 5):
    log.log(step, {'loss': jnp.float32(1)})
  log.close()
  assert [line.get('tokens_per_second') for line in lines(tmp_path)] == [None, 200, 200, None, 400]
  assert [line.get('data_seconds') for line in lines(tmp_path)] == [0.25] * 3 + [None] * 2


def test_mfu_is_flops_of_the_model_over_the_peak_of_all_devices(tmp_path, monkeypatch):
  set_clock(monkeypatch, iter([0.0, 0.5]))
  devices = [types.SimpleNamespace(device_kind='TPU v5p')] * 4
  log = logger(tmp_path, peak_flops=metrics.peak_flops(devices))
  log.begin_stage(flops_per_token=459e10)
  log.log(1, {'loss': jnp.float32(1)})
  log.log(2, {'loss': jnp.float32(1)})
  log.close()
  assert [line.get('mfu') for line in lines(tmp_path)] == [None, 0.5]  # 200 tokens/s


def test_without_a_known_peak_there_is_no_mfu(tmp_path, monkeypatch):
  set_clock(monkeypatch, iter([0.0, 0.5]))
  assert metrics.peak_flops(jax.devices()) is None
  log = logger(tmp_path, peak_flops=None)
  log.begin_stage(flops_per_token=1e9)
  log.log(1, {'loss': jnp.float32(1)})
  log.log(2, {'loss': jnp.float32(1)})
  log.close()
  assert ['mfu' in line for line in lines(tmp_path)] == [False, False]


def test_without_a_terminal_there_are_occasional_plain_lines(tmp_path, monkeypatch):
  clock = iter(range(0, 40, 4))
  set_clock(monkeypatch, clock)
  stream = io.StringIO()
  log = logger(tmp_path, stream)
  for step in range(1, 11):
    log.log(step, {'loss': jnp.float32(2.5)})
  log.close()
  said = stream.getvalue().splitlines()
  assert said[0] == 'step 1/10, loss 2.5000'
  assert said[1] == 'step 4/10, loss 2.5000, 25 tokens/s, ETA 0:00:24'
  assert [line.split(',')[0] for line in said] == [
    'step 1/10',
    'step 4/10',
    'step 7/10',
    'step 10/10',
  ]


def test_on_a_terminal_there_is_a_bar_with_step_loss_speed_and_eta(tmp_path):
  stream = io.StringIO()
  stream.isatty = lambda: True
  log = logger(tmp_path, stream, start=3)
  for step in range(4, 11):
    log.log(step, {'loss': jnp.float32(2.5)})
  log.close()
  shown = stream.getvalue()
  assert 'step 10/10' in shown
  assert 'loss 2.5000' in shown
  assert 'tokens/s' in shown
  assert 'ETA' in shown
