import dataclasses

import jax
import numpy as np
import pytest

from jaxlink.huggingface import layout, weights
from jaxlink.model import decoder
from tests.huggingface import variants


@pytest.mark.parametrize('name', variants.VARIANTS)
def test_the_table_has_every_parameter_of_the_decoder_once_in_its_shape(name):
  model = variants.config(name)
  _, shapes, _ = decoder.abstract_decoder(model)
  there = {
    p.path: (model.layers, *p.shape) if p.stacked else p.shape for p in layout.parameters(model)
  }
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  assert there == {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize('name', variants.VARIANTS)
def test_there_and_back_is_the_same_bit_for_bit_also_in_parts(name):
  for parameter in layout.parameters(variants.config(name)):
    one = np.arange(np.prod(parameter.shape), dtype=np.float32).reshape(parameter.shape)
    tensor = parameter.theirs(one)
    assert tensor.shape == parameter.their_shape
    for index in ([slice(None)] * one.ndim, [slice(n // 2, n) for n in one.shape],
                  [slice(0, -(-n // 2)) for n in one.shape]):  # fmt: skip
      np.testing.assert_array_equal(parameter.ours(tensor, index), one[tuple(index)])


def test_queries_lie_head_by_head_as_hugging_face_has_them():
  model = variants.config('llama, grouped')
  by_name = {p.path[-1]: p for p in layout.parameters(model)}
  q_DHK = np.arange(32 * 4 * 8).reshape(32, 4, 8)
  assert (by_name['q'].theirs(q_DHK)[1 * 8 + 3] == q_DHK[:, 1, 3]).all()
  o_HKD = np.arange(4 * 8 * 32).reshape(4, 8, 32)
  assert (by_name['o'].theirs(o_HKD)[:, 1 * 8 + 3] == o_HKD[1, 3]).all()


def test_tensors_are_split_over_files_in_order_and_a_large_one_has_its_own():
  shapes = {'a': (4,), 'b': (3,), 'large': (100,), 'c': (1,), 'd': (7,), 'e': (1,)}
  files = weights.split(shapes, itemsize=2, most=16)
  assert [list(file) for file in files] == [['a', 'b'], ['large'], ['c', 'd'], ['e']]


def test_a_file_is_what_the_library_reads_and_a_missing_tensor_is_an_error(tmp_path):
  draw = np.random.Generator(np.random.PCG64(0))
  arrays = {n: draw.normal(size=s).astype(np.float32) for n, s in (('b', (3, 5)), ('a', (7,)))}
  shapes = {name: array.shape for name, array in arrays.items()}
  writer = weights.Writer(tmp_path, shapes, dtype='bfloat16', shard_bytes=20)
  writer.put('a', arrays['a'])
  with pytest.raises(ValueError, match='b has the shape'):
    writer.put('b', arrays['a'])
  with pytest.raises(ValueError, match='tensors without values'):
    weights.Writer(tmp_path, shapes, dtype='bfloat16', shard_bytes=20).close()
  writer = weights.Writer(tmp_path, shapes, dtype='bfloat16', shard_bytes=20)
  for name in ('a', 'b'):  # not in the order of the files
    writer.put(name, arrays[name])
  writer.close()
  assert writer.bytes == 2 * (15 + 7)
  tensors = weights.Tensors(str(tmp_path))
  assert len(tensors.files) == 2
  assert tensors.shapes == shapes
  for name, array in arrays.items():
    whole = (slice(None),) * array.ndim
    np.testing.assert_array_equal(tensors[name][whole], array.astype(weights.DTYPES['bfloat16'][0]))


def test_a_stripped_vocabulary_has_fewer_rows_and_all_else(tmp_path):
  model = variants.config('llama, untied, padded')
  params = variants.params(model)
  variants.write_weights(tmp_path, model, params, shard_bytes=10_000)
  tensors = weights.Tensors(str(tmp_path))
  assert tensors.shapes == layout.tensor_shapes(
    dataclasses.replace(model, vocabulary=variants.SIZE)
  )
  for name, path in (('lm_head.weight', 'head'), ('model.embed_tokens.weight', 'embed')):
    np.testing.assert_array_equal(tensors[name][:, :], params[path][: variants.SIZE])
