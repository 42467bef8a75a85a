"""The tiny project's caches, and its audit."""

import dataclasses
import os
from typing import NamedTuple

import pytest

from jaxlink import cache
from jaxlink.data import resolve
from jaxlink.data.blocks import Blocks
from jaxlink.link.policy import LinkPolicy


class Prepared(NamedTuple):
  """What a request of the tiny project came to."""

  folder: str
  cache_dir: str
  policy: LinkPolicy
  resolution: resolve.Resolution

  @property
  def blocks(self) -> Blocks:
    """The English cache."""
    return Blocks(self.resolution.stages[0][0].folder)


@pytest.fixture(scope='session')
def prepared(project) -> Prepared:
  policy = LinkPolicy(lexicon='tiny_tr', language='tr')
  stage = {'rates_needed': False, 'link_route': 'load'}
  request = {
    'modules': ['tiny_tasks'], 'seed_link': 0, 'evaluation_split': 'validation', 'shards': 2,
    'block': 4096,
    'stages': [
      {**stage, 'mixture': 'tiny_en', 'link': {'tiny_en': dataclasses.asdict(policy)}},
      {**stage, 'mixture': 'tiny_tr', 'link': {}},
    ],
  }  # fmt: skip
  cache_dir = os.path.join(project.folder, 'cache')
  cache.answer(request, cache_dir, processes=1)
  resolution = resolve.read(resolve.kept_path(request, cache_dir), cache_dir)
  return Prepared(str(project.folder), cache_dir, policy, resolution)


def measured(prepared: Prepared, policy: LinkPolicy):
  """The audit of the tiny project under a policy."""
  from jaxlink.auditing import measure
  from jaxlink.data.caching.cache_plan import CacheSettings

  english, turkish = (stage[0] for stage in prepared.resolution.stages)
  return measure.measure(
    [[(english, policy), (turkish, None)]], list(prepared.resolution.evaluations),
    modules=['tiny_tasks'], settings=CacheSettings(2, 4096), cache_dir=prepared.cache_dir,
    seed_link=0, progress=False,
  )  # fmt: skip


@pytest.fixture(scope='session')
def audit(prepared):
  return measured(prepared, prepared.policy)
