"""A port of this machine for the processes of one test."""

import contextlib
import random
import socket


def free_port() -> int:
  """A port below those that the kernel gives away by itself, so that hardly anybody gets it before it is used."""
  for _ in range(1_000):
    # Not `random`'s own draws: Hypothesis seeds them alike in all workers.
    port = random.SystemRandom().randrange(12_000, 32_000)
    with socket.socket() as probe, contextlib.suppress(OSError):
      probe.bind(('', port))
      return port
  raise OSError('no free port from 12,000 to 32,000')
