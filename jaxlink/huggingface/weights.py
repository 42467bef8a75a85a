"""Safetensors, a tensor at a time: files are laid out before anything is read, and filled in any order.

`Writer` takes names and shapes, splits them over files of a given size, and then takes the tensors one by
one, so that what is held is one tensor, never a file or a model. `Tensors` reads parts of tensors out of
such a folder.

Easy to get wrong: a file is whole only when every tensor is in it. `close` raises where one is missing.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

DTYPES = {
  'float32': (np.dtype(np.float32), 'F32'),
  'bfloat16': (np.dtype(ml_dtypes.bfloat16), 'BF16'),
}
_READ = ('F32', 'F16', 'BF16')
INDEX, ONE = 'model.safetensors.index.json', 'model.safetensors'


def split(
  shapes: Mapping[str, tuple[int, ...]], itemsize: int, most: int
) -> list[dict[str, tuple[int, ...]]]:
  """Splits tensors over files in their order, each of at most `most` bytes, or of one larger tensor."""
  files, room = [{}], most
  for name, shape in shapes.items():
    size = math.prod(shape) * itemsize
    if files[-1] and size > room:
      files.append({})
      room = most
    files[-1][name] = shape
    room -= size
  return files


class Writer:
  """Writes the tensors of a model into a folder.

  Args:
    folder: exists.
    shapes: of all tensors, in the order of the files.
    dtype: 'float32' or 'bfloat16', into which tensors are rounded.
    shard_bytes: of a file, at most; a larger tensor has one for itself.
  """

  def __init__(
    self, folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], *, dtype: str,
    shard_bytes: int,
  ):  # fmt: skip
    self._dtype, code = DTYPES[dtype]
    self._places: dict[str, tuple[Any, int, tuple[int, ...]]] = {}
    self._files = []
    files = split(shapes, self._dtype.itemsize, shard_bytes)
    names = [ONE]
    if len(files) > 1:
      names = [f'model-{i:05}-of-{len(files):05}.safetensors' for i in range(1, len(files) + 1)]
    self.bytes = 0
    for name, tensors in zip(names, files, strict=True):
      file = open(folder / name, 'wb')  # noqa: SIM115 (closed by close)
      self._files.append(file)
      self.bytes += self._lay_out(file, tensors, code)
    if len(files) > 1:
      index = {
        'metadata': {'total_size': self.bytes},
        'weight_map': {
          t: name for name, tensors in zip(names, files, strict=True) for t in tensors
        },
      }
      (folder / INDEX).write_text(json.dumps(index, indent=1) + '\n', encoding='utf-8')

  def put(self, name: str, tensor: np.ndarray) -> int:
    """Writes a tensor, and returns its bytes in the file.

    Raises:
      KeyError: there is no such tensor, or it has been written.
      ValueError: it has another shape.
    """
    file, offset, shape = self._places.pop(name)
    if tensor.shape != shape:
      raise ValueError(f'{name} has the shape {tensor.shape}, and not {shape}.')
    data = np.ascontiguousarray(tensor, dtype=self._dtype)
    file.seek(offset)
    file.write(memoryview(data.reshape(-1).view(np.uint8)))
    return data.nbytes

  def close(self) -> None:
    """Brings all to the disk.

    Raises:
      ValueError: a tensor has not been written.
    """
    for file in self._files:
      file.flush()
      os.fsync(file.fileno())
      file.close()
    if self._places:
      raise ValueError(f'tensors without values: {", ".join(self._places)}.')

  def _lay_out(self, file: Any, shapes: Mapping[str, tuple[int, ...]], code: str) -> int:
    """Writes the header of a file; what follows it is filled in later."""
    header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name, shape in shapes.items():
      begin, end = end, end + math.prod(shape) * self._dtype.itemsize
      header[name] = {'dtype': code, 'shape': list(shape), 'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    file.write(len(text).to_bytes(8, 'little') + text)
    for name, shape in shapes.items():
      self._places[name] = file, 8 + len(text) + header[name]['data_offsets'][0], shape
    file.truncate(8 + len(text) + end)
    return end


class Tensors:
  """The tensors of a Hugging Face checkpoint folder; read where they are indexed.

  Attributes:
    shapes: by name.

  Raises:
    ValueError: weights in another format alone, a damaged file, a dtype that is no float.
    FileNotFoundError: there are none, or a file of the index is missing.
  """

  def __init__(self, folder: str):
    self._folder = pathlib.Path(folder)
    self.files = weight_files(folder)
    self._open: dict[str, Any] = {}
    self.shapes: dict[str, tuple[int, ...]] = {}
    for path in self.files:
      try:
        file = safetensors.safe_open(path, 'np')
      except safetensors.SafetensorError as error:
        raise ValueError(f'{path} is not a whole safetensors file ({error}).') from None
      for name in file.keys():  # noqa: SIM118 (not a dict)
        part = file.get_slice(name)
        if part.get_dtype() not in _READ:
          raise ValueError(f'{path}: {name} is {part.get_dtype()}. Read are: {", ".join(_READ)}.')
        self._open[name] = file
        self.shapes[name] = tuple(part.get_shape())

  def __getitem__(self, name: str) -> Any:
    """A tensor that is read where it is indexed with slices."""
    return self._open[name].get_slice(name)


def weight_files(folder: str) -> list[pathlib.Path]:
  """The safetensors files of a checkpoint: those of its index, or the one.

  Raises:
    ValueError: the weights are pickled.
    FileNotFoundError: there are none, or one of the index is missing.
  """
  base = pathlib.Path(folder)
  if (base / INDEX).exists():
    index = json.loads((base / INDEX).read_text(encoding='utf-8'))
    paths = [base / name for name in dict.fromkeys(index['weight_map'].values())]
  else:
    paths = [base / ONE]
  if missing := [path for path in paths if not path.exists()]:
    if list(base.glob('*.bin')) or list(base.glob('*.pt')) or list(base.glob('*.pth')):
      raise ValueError(
        f'{folder} has pickled weights (.bin, .pt), which are code and are not opened: '
        'save them as safetensors first.'
      )
    raise FileNotFoundError(f'{missing[0]} is not there.')
  return paths
