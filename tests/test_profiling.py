"""A profile holds the steps that were asked for, and leaves the run as it is."""

import gzip
import json
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlink import arguments, profiling, train
from tests.tiny_project import QUIET, metrics_of, parse

_STEPS = ('Stage.tokens = 4_096', *QUIET)  # 8 steps


def _traced(folder):
  """The steps that the one trace below a folder holds, by their annotations."""
  (trace,) = folder.rglob('*.trace.json.gz')
  assert list(folder.rglob('*.xplane.pb'))
  events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  return {
    int(event['args']['step_num']) for event in events
    if event.get('name') == profiling.NAME and 'step_num' in event.get('args', {})
  }  # fmt: skip


def test_a_loop_with_a_profile_has_its_trace_and_the_same_numbers(tmp_path):
  update = jax.jit(lambda state, batch: jnp.tanh(state @ state.T) + batch)

  def loop(asked):
    said, folder = [], tmp_path / ('with' if asked else 'without')
    profiler = profiling.Profiler(asked, folder, start=0, steps=8, say=said.append)
    state = jnp.eye(32)
    for step in range(8):
      with profiler.step(step):
        state = update(state, step / 8)
      profiler.after(step + 1, state)
    profiler.close(8, state)
    return np.asarray(state), said, folder

  plain, said, folder = loop(None)
  assert not said
  assert not folder.exists()
  traced, (line,), folder = loop(range(2, 5))
  assert line.startswith(f'profile of steps 2:5: {folder / profiling.FOLDER}; look at it with')
  assert _traced(folder / profiling.FOLDER) == {2, 3, 4}
  np.testing.assert_array_equal(plain, traced)


@pytest.mark.slow
def test_the_command_with_a_profile_has_its_trace_and_the_same_losses(project, tmp_path):
  project.train(tmp_path / 'a', *_STEPS)
  assert not (tmp_path / 'a' / profiling.FOLDER).exists()
  said = project.train(tmp_path / 'b', *_STEPS, arguments=['--profile_steps=2:5'])
  assert 'profile of steps 2:5: ' in said
  assert _traced(tmp_path / 'b' / profiling.FOLDER) == {2, 3, 4}
  a, b = ([line['loss'] for line in metrics_of(tmp_path / name)] for name in 'ab')
  assert len(a) == 8
  assert a == b
  said = project.train(tmp_path / 'c', *_STEPS, arguments=['--profile_steps=7:9'], code=1)
  assert 'error: --profile_steps is 7:9, and the run ends at step 8: END is 8 or less.' in said


@pytest.mark.slow
def test_a_stop_in_the_middle_writes_what_there_is_and_the_rest_is_traced_later(
  project, tmp_path, monkeypatch, capsys
):
  run = parse(project, tmp_path / 'run', *_STEPS)
  begin = profiling.Profiler.step

  def stop_at_4(self, step):
    if step == 4:
      signal.raise_signal(signal.SIGTERM)
    return begin(self, step)

  monkeypatch.setattr(profiling.Profiler, 'step', stop_at_4)
  assert train.train(run, range(3, 7)) == 143
  assert _traced(tmp_path / 'run' / profiling.FOLDER) == {3, 4}
  monkeypatch.undo()
  (tmp_path / 'run' / profiling.FOLDER).rename(tmp_path / 'first')
  assert train.train(run, range(3, 7)) == 0
  assert (
    '--profile_steps 3:7: the run goes on at step 5, traced from step 5 on'
    in capsys.readouterr().out
  )
  assert _traced(tmp_path / 'run' / profiling.FOLDER) == {5, 6}


def test_steps_that_the_run_has_not_are_an_error_and_past_ones_a_line(tmp_path):
  said = []
  with pytest.raises(
    ValueError, match=r'--profile_steps is 7:9, and the run ends at step 8: END is 8 or less'
  ):
    profiling.Profiler(range(7, 9), tmp_path, start=0, steps=8, say=said.append)
  assert not said
  profiler = profiling.Profiler(range(2, 4), tmp_path, start=4, steps=8, say=said.append)
  assert said == ['--profile_steps 2:4: the run goes on at step 4, not traced']
  for step in range(4, 8):
    with profiler.step(step):
      state = jnp.zeros(())
    profiler.after(step + 1, state)
  profiler.close(8, state)
  assert not list(pathlib.Path(tmp_path).iterdir())


def test_only_process_0_traces(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  profiler = profiling.Profiler(range(1), tmp_path, start=0, steps=1, say=pytest.fail)
  with profiler.step(0):
    state = jnp.zeros(())
  profiler.after(1, state)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('text', ['10', '3:3', '4:3', 'a:b', '1:2:3', ':3', '-1:3'])
def test_a_span_that_is_none_is_refused(monkeypatch, capsys, text):
  monkeypatch.setattr('sys.argv', ['train', '--gin_file=a.gin', f'--profile_steps={text}'])
  with pytest.raises(SystemExit):
    arguments.parse('')
  assert f'{text!r} is not FIRST:END' in capsys.readouterr().err


def test_a_span_is_read_as_the_numbers_of_batches(monkeypatch):
  monkeypatch.setattr('sys.argv', ['train', '--gin_file=a.gin', '--profile_steps=10:13'])
  assert arguments.parse('').profile_steps == range(10, 13)
