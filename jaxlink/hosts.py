"""What several hosts decide together.

Easy to get wrong: who looks, and how the others wait. What is read from the run's directory decides which
collectives follow, while process 0 writes there. So process 0 decides and tells the others. It may prepare
data for hours meanwhile: a collective would give up or hold them against a signal, so they wait at the
key-value store.
"""

import itertools
import json
from collections.abc import Callable

import jax

from jaxlink import distributed

_numbers = itertools.count()  # of decisions, the same on all hosts


def first_decides(decide: Callable[[], bool]) -> bool:
  """Returns on every host what `decide` returns on process 0, the only one that calls it.

  Raises:
    ValueError: on the other hosts, where `decide` raised on process 0.
  """
  if jax.process_count() == 1:
    return decide()
  client, key = distributed.client(), f'jaxlink/decision/{next(_numbers)}'
  if jax.process_index() == 0:
    try:
      answer = bool(decide())
    except Exception as error:  # told to the others first, who would wait for ever
      client.key_value_set(key, json.dumps(f'process 0: {error}'))
      raise
    client.key_value_set(key, json.dumps(answer))
    return answer
  answer = json.loads(distributed.wait_for(client, key))
  if isinstance(answer, str):
    raise ValueError(answer)
  return answer
