"""One of two processes of a run on CPU: reads a few batches as global arrays and writes digests.

Run by test_loader.py (sources in memory, a few steps) and test_batches_of_caches.py (a recipe's caches):
  python -m tests.data.multihost_digest PROCESS PORT LAYOUT WORKERS OUT [RECIPE STEPS]
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlink.data.loader import Batches, Loader, digest
from jaxlink.data.mixture import Mixture
from jaxlink.data.windows import Windows
from tests import tiny_project
from tests.data.memory_blocks import corpus

START, STOP = 57, 60

# Mesh shape and axes over the devices in order of process, and how a batch is cut.
LAYOUTS = {
  'data': ((8,), ('data',), PartitionSpec('data')),
  'tensor across hosts': ((2, 4), ('tensor', 'data'), PartitionSpec('data')),
  'sequence across hosts': ((2, 4), ('sequence', 'data'), PartitionSpec('data', 'sequence')),
}


def batches() -> Batches:
  sources = [corpus('swahili', 40, 0), corpus('english', 90, 1)]
  return Batches(
    Mixture(['swahili', 'english'], [0.3, 0.7]), [Windows(s, 64, 3) for s in sources], 8
  )


def batches_of(recipe: str) -> Batches:
  """The batches of a recipe whose caches are there, LINK included."""
  from jaxlink import config
  from jaxlink.stage import Run

  return tiny_project.open_stage(config.parse(Run, [recipe])).batches


def main(
  process: int, port: int, layout: str, workers: int, out: Path, recipe: str = '', steps: str = ''
) -> None:
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, process, initialization_timeout=60)
  shape, axes, spec = LAYOUTS[layout]
  devices = np.array(sorted(jax.devices(), key=lambda d: (d.process_index, d.id)))
  mesh = Mesh(devices.reshape(shape), axes, axis_types=(AxisType.Auto,) * len(axes))
  sharding = NamedSharding(mesh, spec)
  digests = []
  source, start, stop = (batches_of(recipe), 0, int(steps)) if recipe else (batches(), START, STOP)
  with Loader(source, sharding, start=start, stop=stop, workers=workers) as loader:
    for batch in loader:
      digests.append(digest(multihost_utils.process_allgather(batch, tiled=True)))
    rows = loader.rows.tolist()
  out.write_text(json.dumps({'digests': digests, 'rows': rows}))
  jax.distributed.shutdown()


if __name__ == '__main__':
  process, port, layout, workers, out, *recipe = sys.argv[1:]
  main(int(process), int(port), layout, int(workers), Path(out), *recipe)
