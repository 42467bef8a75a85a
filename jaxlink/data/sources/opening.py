"""The bytes of a source file: opened anywhere, decompressed strictly, with what can be wrong about them.

`chunks` yields a file's bytes, decompressed by its name (.gz, .bz2, .xz, .zst).

Easy to get wrong: a compressed file that stops early or goes on with something else. Several common
readers end quietly there (bz2 and xz after a damaged second stream, zst after the first frame or in
the middle of one); here each stream must end, and what follows must be another one. Where a file is
damaged inside, what it unpacks to goes wrong some way before that shows: at the next checksum, which
gzip, xz and zst have at the end of a stream, bz2 every 900 kB.
"""

import bz2
import contextlib
import dataclasses
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import fsspec
import zstandard

_CHUNK = 1 << 20
_XZ_MEMORY = 1 << 30  # bytes; `xz -9` asks for 65 MB


@dataclasses.dataclass(frozen=True)
class Bad:
  """A line, row or record that holds no text; number 0 stands for the whole file."""

  reason: str
  number: int
  detail: str
  count: int = 1


class Broken(Exception):
  """From here on the bytes of a file make no sense; what came before does."""


def place(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
  """Returns the file system of a path, and the path in it.

  Raises:
    ValueError: no installed package reads it; the one to install is named.
  """
  try:
    return fsspec.core.url_to_fs(path)
  except ImportError as error:
    protocol = path.partition('://')[0]
    package = {'gs': 'gcsfs', 'gcs': 'gcsfs', 's3': 's3fs', 's3a': 's3fs'}.get(protocol)
    how = f'pip install {package}' if package else str(error)
    raise ValueError(f'{path}: a package to read {protocol}:// is missing: {how}.') from error


@contextlib.contextmanager
def opened(path: str) -> Iterator['File']:
  """Opens a file's bytes as they lie there.

  Raises:
    OSError: it cannot be opened or read, in the `with` block too.
  """
  filesystem, name = place(path)
  with filesystem.open(name, 'rb') as raw:
    file = File(raw)
    try:
      yield file
    except Exception as error:
      if file.failure is None:
        raise
      raise OSError(f'{path}: cannot be read ({file.failure}).') from error


class File:
  """A file that remembers whether reading it failed, whatever a decoder makes of that."""

  def __init__(self, raw: BinaryIO):
    self.failure: Exception | None = None
    self.closed = False
    self._raw = raw

  def read(self, size: int = -1) -> bytes:
    try:
      return self._raw.read(size)
    except (ValueError, OverflowError, MemoryError):  # of a size that a broken file asks for
      raise
    except Exception as error:
      self.failure = error
      raise

  def seek(self, offset: int, whence: int = 0) -> int:
    return self._raw.seek(offset, whence)

  def tell(self) -> int:
    return self._raw.tell()

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def writable(self) -> bool:
    return False

  def flush(self) -> None:
    pass

  def close(self) -> None:
    self.closed = True  # `opened` closes the file itself


def chunks(path: str) -> Iterator[bytes]:
  """Yields a file's bytes, decompressed, a piece at a time.

  Raises:
    Broken: it is not what its name says, or ends in the middle.
    OSError: it cannot be opened or read.
  """
  name = re.sub(r'-\d+-of-\d+$', '', path)
  codec = next((c for suffix, c in _CODECS.items() if name.endswith(suffix)), None)
  with opened(path) as file:
    yield from _inflate(file, codec) if codec else iter(lambda: file.read(_CHUNK), b'')


@dataclasses.dataclass(frozen=True)
class _Codec:
  """How a format is decompressed.

  Attributes:
    make: returns a decompressor of one stream.
    piece: bytes given to it at a time; what they become is held in memory.
    limit: bytes asked for at a time, where it takes such a limit.
  """

  make: Callable[[], Any]
  piece: int
  limit: tuple[int, ...] = ()


_CODECS = {
  '.gz': _Codec(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), 1 << 14),
  '.bz2': _Codec(bz2.BZ2Decompressor, 1 << 16, (_CHUNK,)),
  '.xz': _Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), 1 << 16, (_CHUNK,)),
  '.zst': _Codec(
    lambda: zstandard.ZstdDecompressor().decompressobj(), 1 << 9
  ),  # whose output may be 30,000 times as long
}
COMPRESSIONS = tuple(_CODECS)


def _inflate(file: File, codec: _Codec) -> Iterator[bytes]:
  stream, started = None, False
  while data := file.read(codec.piece):
    while data:
      if stream is None:
        data = data.lstrip(b'\0') if started else data  # padding between streams
        if not data:
          break
        stream, started = codec.make(), True
      try:
        yield stream.decompress(data, *codec.limit)
        while codec.limit and not stream.eof and not stream.needs_input:
          yield stream.decompress(b'', *codec.limit)
      except Exception as error:  # each library has its own
        raise Broken(str(error) or type(error).__name__) from error
      data = stream.unused_data if stream.eof else b''
      stream = None if stream.eof else stream
  if stream is not None or not started:
    raise Broken('it ends in the middle' if started else 'it is empty')
