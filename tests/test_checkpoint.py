"""Checkpoints: bit-equal on any mesh, committed or absent, and a failed save says so."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlink.checkpoint import CheckpointConfig, Keeper

EVERY = CheckpointConfig(every_steps=1, keep=2)


def mesh(name: str, devices: int) -> jax.sharding.Mesh:
  if len(jax.devices()) < devices:
    pytest.skip(f'{devices} devices are needed')
  return jax.make_mesh(
    (devices,), (name,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
  )


def make_state(seed: int = 0):
  """Parameters and optimizer state: nested, with scalars, bfloat16, int32, and empty nodes."""
  rng = np.random.default_rng(seed)
  params = {
    'embed': jnp.asarray(rng.normal(size=(64, 16)), jnp.float32),
    'layers': [{'w': jnp.asarray(rng.normal(size=(16, 24)), jnp.bfloat16)} for _ in range(2)],
    'seen': jnp.asarray(rng.integers(-9, 9, size=(8,)), jnp.int32),
    'scale': jnp.float32(rng.normal()),
  }
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  return {'step': jnp.int32(seed), 'params': params, 'opt': optimizer.init(params)}


def put(state, on, axis):
  """The state with first axes split over `axis`, where it has any."""
  return jax.device_put(
    state, jax.tree.map(lambda x: NamedSharding(on, P(axis) if x.ndim else P()), state)
  )


def abstract(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_bits_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def save(directory, *steps, state=None, config=EVERY):
  keeper = Keeper(str(directory), config)
  for step in steps:
    keeper.save(step, make_state(step) if state is None else state, {'step': step})
  keeper.close()


def test_restores_bit_equal_on_other_meshes(tmp_path):
  data, fsdp, one = mesh('data', 8), mesh('fsdp', 8), mesh('data', 1)
  state = put(make_state(3), data, None)
  save(tmp_path, 3, state=state)
  for step, (on, axis) in enumerate([(fsdp, 'fsdp'), (one, 'data'), (data, 'data')], 4):
    keeper = Keeper(str(tmp_path), EVERY)
    wanted = abstract(put(make_state(0), on, axis))
    restored, meta = keeper.restore(keeper.latest(), wanted)
    assert meta == {'step': step - 1}
    assert_bits_equal(restored, state)
    assert jax.tree.all(jax.tree.map(lambda x, y: x.sharding == y.sharding, restored, wanted))
    keeper.save(step, restored, {'step': step})  # from each mesh to the next
    keeper.close()


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
  keeper = Keeper(str(tmp_path), EVERY)
  state = {'w': jnp.arange(1 << 20, dtype=jnp.float32)}
  expected = np.array(state['w'])
  update = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
  with jax.transfer_guard('disallow'):
    keeper.save(1, state, {})
    state = update(state)
    jax.block_until_ready(state)
  keeper.wait()
  restored, _ = keeper.restore(1, abstract(state))
  assert np.array_equal(restored['w'], expected)
  keeper.close()


def test_meta_is_what_it_was_when_saved_and_readable_alone(tmp_path):
  keeper = Keeper(str(tmp_path), EVERY)
  meta = {'step': 1, 'stage': 'pretrain', 'tokens': {'en': 5, 'tr': 3}, 'rates': ['1/3', 0.1]}
  keeper.save(1, make_state(), meta)
  meta['tokens']['en'] = 99
  keeper.wait()
  assert keeper.read_meta(1) == {
    'step': 1,
    'stage': 'pretrain',
    'tokens': {'en': 5, 'tr': 3},
    'rates': ['1/3', 0.1],
  }
  with pytest.raises(ValueError, match='JSON'):
    keeper.save(2, make_state(), {'loss': float('nan')})
  with pytest.raises(TypeError, match='JSON'):
    keeper.save(2, make_state(), {'loss': np.float32(1)})
  keeper.close()
  assert Keeper(str(tmp_path), EVERY, writer=False).latest() == 1


def test_keeps_the_latest_and_the_multiples(tmp_path):
  config = CheckpointConfig(every_steps=1, keep=2, keep_every=3)
  save(tmp_path, *range(1, 9), config=config)
  assert sorted(int(path.name) for path in tmp_path.iterdir()) == [3, 6, 7, 8]


def test_due_at_multiples_only(tmp_path):
  keeper = Keeper(str(tmp_path), CheckpointConfig(every_steps=10))
  assert [step for step in range(31) if keeper.due(step)] == [10, 20, 30]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda s: s['params'].pop('scale'), r'params.scale: in the checkpoint only'),
    (lambda s: s['params'].update(bias=s['step']), r'params.bias: not in the checkpoint'),
    (
      lambda s: s['params'].update(embed=jnp.zeros((64, 8))),
      r'params.embed: float32\[64, 16\] there, float32\[64, 8\] here',
    ),
    (
      lambda s: s['params']['layers'][1].update(w=jnp.zeros((16, 24))),
      r'params.layers.1.w: bfloat16\[16, 24\] there, float32\[16, 24\] here',
    ),
    (lambda s: s.update(opt=None), r'opt.1.0.mu.embed: in the checkpoint only'),
  ],
)
def test_another_tree_shape_or_dtype_names_the_leaf(tmp_path, change, message):
  save(tmp_path, 1)
  state = make_state()
  change(state)
  with pytest.raises(ValueError, match=message):
    Keeper(str(tmp_path), EVERY, writer=False).restore(1, abstract(state))


def test_a_leaf_without_a_sharding_is_refused(tmp_path):
  save(tmp_path, 1)
  bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_state())
  with pytest.raises(ValueError, match=r'leaves without a sharding: .*params.embed'):
    Keeper(str(tmp_path), EVERY, writer=False).restore(1, bare)


def test_what_is_not_there_is_named(tmp_path):
  save(tmp_path, 4, 5)
  reader = Keeper(str(tmp_path), EVERY, writer=False)
  for call in (lambda: reader.restore(3, abstract(make_state())), lambda: reader.read_meta(3)):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint of step 3 in .*Steps there: 4, 5'):
      call()
  with pytest.raises(FileNotFoundError, match='there is no directory'):
    Keeper(str(tmp_path / 'none'), EVERY, writer=False)
  assert not (tmp_path / 'none').exists()
  assert Keeper(str(tmp_path / 'new'), EVERY).latest() is None


def test_a_step_that_is_not_after_the_last_is_refused(tmp_path):
  keeper = Keeper(str(tmp_path), EVERY)
  keeper.save(5, make_state(), {})
  for step in (5, 4):
    with pytest.raises(ValueError, match=f'step {step} is to be saved in .* which is at step 5'):
      keeper.save(step, make_state(), {})
  keeper.close()


def test_half_written_directories_do_not_count_and_only_the_writer_removes_them(tmp_path):
  save(tmp_path, 1, 2)
  half = tmp_path / '3.orbax-checkpoint-tmp'
  (tmp_path / '2').rename(half)
  reader = Keeper(str(tmp_path), EVERY, writer=False)
  assert reader.latest() == 1
  assert half.exists()
  writer = Keeper(str(tmp_path), EVERY)
  assert writer.latest() == 1
  writer.save(3, make_state(3), {})
  writer.close()
  assert not half.exists()
  assert Keeper(str(tmp_path), EVERY, writer=False).latest() == 3


def test_a_damaged_array_file_is_not_restored(tmp_path):
  save(tmp_path, 1)
  for path in (tmp_path / '1').rglob('d/*'):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(Exception, match=r'(?i)ocdbt|range|read'):
    Keeper(str(tmp_path), EVERY, writer=False).restore(1, abstract(make_state()))


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('every_steps', 0, 'CheckpointConfig.every_steps is 0: it is at least 1.'),
    ('keep', 0, 'CheckpointConfig.keep is 0: it is at least 1.'),
    ('keep_every', 1500, 'CheckpointConfig.keep_every is 1500: it is a multiple of every_steps'),
    ('timeout_seconds', 0, 'CheckpointConfig.timeout_seconds is 0'),
  ],
)
def test_config_values_are_checked(field, value, message):
  with pytest.raises(ValueError, match=message):
    CheckpointConfig(**{field: value})


# ── kills and full disks, in processes of their own ─────────────────────────────

HEAD = """
import resource, signal, sys
import jax, jax.numpy as jnp
import numpy as np
from jaxlink.checkpoint import CheckpointConfig, CheckpointError, Keeper
keeper = Keeper(sys.argv[1], CheckpointConfig(every_steps=1, keep=3))
W = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
state = {'w': jnp.asarray(W), 'n': jnp.int32(7)}
"""

FULL = """
# Past this size a write fails, as on a full disk: less than the arrays, more than the small files.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
keeper.save(1, state, {'step': 1})
keeper.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
try:
  keeper.save(2, state, {'step': 2})
  keeper.WAIT
except CheckpointError as error:
  print(error)
print('latest', keeper.latest())
"""

FULL_TMPFS = FULL.replace(
  'resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))', ''
)

KILLED = """
step = 0
while True:  # until it is killed
  step += 1
  keeper.save(step, {'w': state['w'] + step, 'n': jnp.int32(step)}, {'step': step})
  print(step, flush=True)
  keeper.wait()
"""


def child(code, directory):
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  return subprocess.Popen(
    [sys.executable, '-c', HEAD + code, str(directory)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def small_state():
  # By NumPy: what XLA computes differs in the last bit with its optimization level, which tests lower.
  w = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
  return {'w': jnp.asarray(w), 'n': jnp.int32(7)}


def assert_full_disk_is_reported(code, directory):
  process = child(code, directory)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert f'the checkpoint of step 2 in {directory} failed: ' in out, (out, err)
  assert 'The last good step is 1.' in out
  assert 'latest 1' in out
  keeper = Keeper(str(directory), EVERY, writer=False)
  restored, meta = keeper.restore(1, abstract(small_state()))
  keeper.close()
  assert meta == {'step': 1}
  assert_bits_equal(restored, small_state())
  return out


@pytest.mark.parametrize('call', ['close()', "save(3, state, {'step': 3})"])
def test_a_write_that_fails_is_reported_and_leaves_the_last_good_step(tmp_path, call):
  assert 'large' in assert_full_disk_is_reported(FULL.replace('WAIT', call), tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason='mounting a small tmpfs needs root')
@pytest.mark.parametrize('call', ['close()', "save(3, state, {'step': 3})"])
def test_a_full_disk_is_reported_and_leaves_the_last_good_step(tmp_path, call):
  mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', str(tmp_path)])
  if mounted.returncode:
    pytest.skip('this machine mounts no tmpfs')
  try:
    out = assert_full_disk_is_reported(FULL_TMPFS.replace('WAIT', call), tmp_path)
    assert 'No space left on device' in out
  finally:
    subprocess.run(['umount', '--lazy', str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_save_leaves_the_step_before(tmp_path):
  hit = 0
  for attempt in range(4):
    directory = tmp_path / str(attempt)
    directory.mkdir()
    process = child(KILLED, directory)
    deadline = time.monotonic() + 60
    # Kill while a temporary directory is there and a step is committed.
    while time.monotonic() < deadline and process.poll() is None:
      names = [path.name for path in directory.iterdir()]
      if any('tmp' in name for name in names) and any(name.isdigit() for name in names):
        break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    left = [path for path in directory.iterdir() if 'tmp' in path.name]
    hit += bool(left)
    keeper = Keeper(str(directory), EVERY)
    latest = keeper.latest()
    assert latest is not None
    restored, meta = keeper.restore(latest, abstract(small_state()))
    assert meta == {'step': latest}
    assert_bits_equal(restored, {'w': small_state()['w'] + latest, 'n': jnp.int32(latest)})
    keeper.save(latest + 1, restored, {'step': latest + 1})
    keeper.close()
    assert not [path for path in directory.iterdir() if 'tmp' in path.name]
  assert hit, 'no kill fell into a save'
