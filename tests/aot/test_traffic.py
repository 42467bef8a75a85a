"""Collectives and memory traffic, read from programs: written by hand, saved, and compiled here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxlink import mesh as mesh_lib
from jaxlink.aot import hlo, traffic

# As libtpu prints a layer loop: the counter behind a copy, no known_trip_count, a scatter written as a fusion
# of an all-reduce and a slice, a kernel whose attributes span lines, a part in the cores' own memory.
TPU = """HloModule jit_train_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.7 (p: f32[64,128]) -> f32[16,128] {
  %p = f32[64,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[64,128]{1,0:T(8,128)} all-reduce(%p), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %part = f32[16,128]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero, %zero), dynamic_slice_sizes={16,128}
}

%slice.of (stack: bf16[6,64,128], i: s32[]) -> bf16[64,128] {
  %stack = bf16[6,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %i = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %one = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%stack, %i, %zero.1, %zero.1), dynamic_slice_sizes={1,64,128}
  ROOT %flat = bf16[64,128]{1,0:T(8,128)(2,1)} bitcast(%one)
}

%cond (c: (s32[], bf16[6,64,128])) -> pred[] {
  %c = (s32[]{:T(128)}, bf16[6,64,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %six = s32[]{:T(128)} constant(6)
  %counter = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %six), direction=LT
}

%body (t: (s32[], bf16[6,64,128])) -> (s32[], bf16[6,64,128]) {
  %t = (s32[]{:T(128)}, bf16[6,64,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%t), index=0
  %two = s32[]{:T(128)} constant(2)
  %stacked = bf16[6,64,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%t), index=1
  %layer = bf16[64,128]{1,0:T(8,128)(2,1)} fusion(%stacked, %n), kind=kLoop, calls=%slice.of
  %gathered = (bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[256,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) all-gather-start(%layer), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true
  %gathered.done = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather-done(%gathered)
  %kernel = (bf16[256,128]{1,0:T(8,128)(2,1)}) custom-call(%gathered.done), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"block": "{\\"q\\": 512}"
}}, metadata={op_name="splash"}
  %near = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} copy(%layer)
  %next.1 = s32[]{:T(128)} add(%n, %two)
  %next = s32[]{:T(128)} copy(%next.1)
  ROOT %out = (s32[]{:T(128)}, bf16[6,64,128]{2,1,0:T(8,128)(2,1)}) tuple(%next, %stacked)
}

ENTRY %main (x: bf16[6,64,128], g: f32[64,128]) -> f32[16,128] {
  %x = bf16[6,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %g = f32[64,128]{1,0:T(8,128)} parameter(1)
  %begin = s32[]{:T(128)} constant(0)
  %begin.copy = s32[]{:T(128)} copy(%begin)
  %start = (s32[]{:T(128)}, bf16[6,64,128]{2,1,0:T(8,128)(2,1)}) tuple(%begin.copy, %x)
  %while.1 = (s32[]{:T(128)}, bf16[6,64,128]{2,1,0:T(8,128)(2,1)}) while(%start), condition=%cond, body=%body
  %moved = (f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}, u32[], u32[]) collective-permute-start(%g), channel_id=2, source_target_pairs={{0,4},{4,0},{1,5},{5,1},{2,6},{6,2},{3,7},{7,3}}
  %moved.done = f32[64,128]{1,0:T(8,128)} collective-permute-done(%moved)
  %whole = f32[64,128]{1,0:T(8,128)} all-reduce(%moved.done), channel_id=9, replica_groups=mesh['a'=2,'b'=4] {'a','b'}, use_global_device_ids=true, to_apply=%add
  ROOT %scattered = f32[16,128]{1,0:T(8,128)} fusion(%whole), kind=kCustom, calls=%all-reduce-scatter.7
}
"""
MESH = {'data': 2, 'fsdp': 4, 'sequence': 1, 'tensor': 1}


def test_a_tpu_program_is_read_with_its_loops_and_axes():
  program = hlo.parse(TPU)
  found = {c.kind: (c.axes, c.group, c.count, c.sent) for c in traffic.collectives(program, MESH)}
  assert found == {
    # Three turns: from 0 below 6 in steps of 2. Each device sends its part to three others.
    'all-gather': ('fsdp', 4, 3, 3 * 3 * 64 * 128 * 2),
    'collective-permute': ('data', 2, 1, 64 * 128 * 4),
    'all-reduce': ('data·fsdp', 8, 1, 2 * 7 / 8 * 64 * 128 * 4),
    'reduce-scatter': ('fsdp', 4, 1, 3 / 4 * 64 * 128 * 4),
  }
  assert program.unbounded == []


def test_memory_traffic_counts_slices_and_leaves_out_the_cores_own_memory():
  part, whole, grad = 64 * 128 * 2, 256 * 128 * 2, 64 * 128 * 4
  counters = 2 * 4  # the copy of a counter, in and out
  turn = (
    2 * part + 4 + 0  # the slice in and out, its index
    + 2 * part  # what is gathered
    + 2 * whole  # the kernel
    + part  # a copy into the cores' memory
    + 3 * 4 + counters  # the counter's step
  )  # fmt: skip
  once = counters + 2 * grad + 2 * grad + grad + grad // 4
  assert traffic.memory_traffic(hlo.parse(TPU)) == 3 * turn + once


def test_a_known_trip_count_is_taken_as_it_is():
  text = TPU.replace(
    'body=%body', 'body=%body, backend_config={"known_trip_count":{"n":"11"}}'
  ).replace('direction=LT', 'direction=NE')
  program = hlo.parse(text)
  (gather,) = [c for c in traffic.collectives(program, MESH) if c.kind == 'all-gather']
  assert gather.count == 11


def test_a_loop_whose_length_is_not_there_counts_once_and_is_named():
  program = hlo.parse(TPU.replace('%six = s32[]{:T(128)} constant(6)', '%six = s32[] rng()'))
  (gather,) = [c for c in traffic.collectives(program, MESH) if c.kind == 'all-gather']
  assert gather.count == 1
  assert program.unbounded == ['while.1']


@pytest.mark.parametrize(
  ('shape', 'size'),
  [
    ('f32[8,128]{1,0:T(8,128)}', 4096),
    ('(bf16[2,3]{1,0}, pred[7], u32[])', 12 + 7 + 4),
    ('s4[10]', 5),
    ('f8e4m3fn[10]', 10),
    ('token[]', 0),
  ],
)
def test_sizes_of_types(shape, size):
  assert hlo.size(shape) == size


def test_text_without_an_entry_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse('HloModule empty\n')


def test_a_scanned_step_on_eight_devices_has_the_collectives_that_were_asked_for():
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=2, fsdp=4))
  shard = lambda *parts: NamedSharding(mesh, PartitionSpec(*parts))  # noqa: E731
  layers, rows, width = 3, 16, 32

  def loss(w, x):
    def layer(x, w):
      w = jax.lax.with_sharding_constraint(w, shard())
      return jax.lax.with_sharding_constraint(jnp.tanh(x @ w), shard(('data', 'fsdp'))), None

    return jax.lax.scan(layer, x, w)[0].sum()

  w = jax.ShapeDtypeStruct((layers, width, width), np.float32, sharding=shard(None, 'fsdp'))
  x = jax.ShapeDtypeStruct((rows, width), np.float32, sharding=shard(('data', 'fsdp')))
  program = hlo.parse(jax.jit(loss).lower(w, x).compile().as_text())
  found = traffic.collectives(program, dict(mesh.shape))
  gathers = [c for c in found if c.kind == 'all-gather']
  assert {c.axes for c in gathers} == {'fsdp'}
  # Each layer's weight once: a device sends its quarter to three others.
  assert sum(c.sent for c in gathers) == layers * 3 / 4 * width * width * 4
  (reduce,) = [c for c in found if c.kind == 'all-reduce']
  assert (reduce.axes, reduce.group, reduce.sent) == ('data·fsdp', 8, 2 * 7 / 8 * 4)
  assert program.unbounded == []
