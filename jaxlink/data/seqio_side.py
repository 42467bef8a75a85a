"""For commands that run SeqIO: TensorFlow quietly imported, and the modules that register tasks.

Easy to get wrong: TensorFlow takes every GPU that it sees, and its libraries write to stderr whatever they
are told. So it is imported here, before anything that imports SeqIO.
"""

import contextlib
import importlib
import os
import pathlib
import sys

from jaxlink.names import nearest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def import_tensorflow() -> None:
  """Imports TensorFlow without a GPU, and without what its libraries write to stderr at any setting."""
  stderr = os.dup(2)
  try:
    with open(os.devnull, 'w') as nowhere:
      os.dup2(nowhere.fileno(), 2)
    import tensorflow
    import tensorflow_text  # noqa: F401

    with contextlib.suppress(RuntimeError):  # in use already: then it has what it has
      tensorflow.config.set_visible_devices([], 'GPU')
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)


def import_module(module: str) -> None:
  """Imports a module that registers tasks, from the working directory or the path.

  Raises:
    ValueError: there is none; the nearest of tasks/ is named.
  """
  if os.getcwd() not in sys.path:
    sys.path.insert(0, os.getcwd())
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name is None or not module.startswith(error.name):
      raise
    here = [f'tasks.{p.stem}' for p in pathlib.Path('tasks').glob('[!_]*.py')]
    raise ValueError(f'Run.modules: no module {module!r}.{nearest(module, here)}') from None
