"""Eight CPU devices for every test; set before jax is imported, after which nothing would change."""

import os
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_THREEFRY_PARTITIONABLE'] = '1'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',  # small programs: half the compile time, as fast to run
  ]
)

os.environ.pop('JAXLINK_EVALUATION', None)  # the tests know what is in the shipped sets

import hypothesis
import pytest

from tests import tiny_project

# A stall of the machine is no failure, and what one run finds the next one finds as well.
hypothesis.settings.register_profile(
  'any machine', deadline=None, derandomize=True, database=None,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)  # fmt: skip
hypothesis.settings.load_profile('any machine')


@pytest.fixture(scope='session')
def project(tmp_path_factory) -> tiny_project.Project:
  """A project of a few kilobytes whose commands can be run; its caches are built by the first run."""
  made = tiny_project.make(tmp_path_factory.mktemp('project'))
  # For the children of a run in this process, and its compiled steps.
  os.environ['PYTHONPATH'] = str(made.folder)
  sys.path.insert(0, str(made.folder))
  os.environ['JAXLINK_CACHE'] = str(made.folder / 'compiled')
  return made


@pytest.fixture(scope='session')
def trained(project) -> tuple[tiny_project.Project, str]:
  """The project after its recipe was trained once by the real command, and what that printed."""
  return project, project.train(project.folder / 'run')
