"""Eight CPU devices for every test; set before jax is imported, after which nothing would change."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_THREEFRY_PARTITIONABLE'] = '1'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',  # small programs: half the compile time, as fast to run
  ]
)
