"""Real text for the tests of cleaning, and steps run over it."""

import functools
import gzip
import json

import tensorflow as tf

from jaxlink.data.cleaning.steps import count
from tests.data.conftest import SAMPLE


@functools.cache
def turkish(split: str = 'train') -> tuple[str, ...]:
  """The sample's documents, of 20 sentences each."""
  text = gzip.decompress((SAMPLE / f'tr.{split}.txt.gz').read_bytes()).decode()
  return tuple(d.rstrip('\n') for d in text.split('\n\n'))


@functools.cache
def english(split: str = 'validation') -> tuple[str, ...]:
  """The sample's articles."""
  lines = gzip.decompress((SAMPLE / f'en.{split}.jsonl.gz').read_bytes()).splitlines()
  return tuple(json.loads(line)['text'] for line in lines)


def run(texts, *steps):
  """What steps leave of each text, and why it goes ('' if it stays)."""
  dataset = tf.data.Dataset.from_tensor_slices({'text': list(texts)})
  for step in steps:
    dataset = step(dataset)
  examples = list(dataset.as_numpy_iterator())
  assert len(examples) == len(texts)
  return [(e['text'].decode(), e['removed'].decode()) for e in examples]


def counts(texts, *steps):
  """The counts of steps over texts."""
  dataset = tf.data.Dataset.from_tensor_slices({'text': list(texts)})
  for step in steps:
    dataset = step(dataset)
  found = {}
  for example in dataset.as_numpy_iterator():
    for name, number in count(example).items():
      found[name] = found.get(name, 0) + number
  return found
