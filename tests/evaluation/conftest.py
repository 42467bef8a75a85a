"""Registries as they were before a test."""

import pytest


@pytest.fixture
def forget_sets():
  """Removes from SeqIO's registry, and from ours, the evaluation sets that a test registers."""
  import seqio

  from jaxlink.evaluation import registry

  tables = [seqio.TaskRegistry._REGISTRY, registry.SETS]
  before = [dict(table) for table in tables]
  yield
  for table, old in zip(tables, before, strict=True):
    table.clear()
    table.update(old)
