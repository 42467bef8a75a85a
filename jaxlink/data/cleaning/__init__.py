"""Cleaning steps for `register_corpus(..., preprocessors=[...])`; off unless asked for.

  normalize_unicode                                     rewrites texts
  keep_script, filter_length, filter_repetition,
  filter_quality, fineweb2_filters                      remove documents by what they are
  remove_duplicates, remove_contamination               remove documents by what others are
  drop_removed                                          for SeqIO pipelines of one's own

A step removes no example. It empties the text and puts the reason into the feature 'removed', so that a
cache counts each document under the first reason that hit it; later steps pass it over.

Easy to get wrong: SeqIO runs a task's steps on all of its splits, so validation text is cleaned by the
same rules. The two steps that compare texts know which split is read, and never clean a held-out
split against itself.
"""

from jaxlink.data.cleaning.building import compared_with, prepare, prepared, summary
from jaxlink.data.cleaning.compared import cleaning_steps, find
from jaxlink.data.cleaning.contamination import (
  NgramIndex,
  Overlap,
  ngram_index,
  overlap,
  remove_contamination,
)
from jaxlink.data.cleaning.duplicates import remove_duplicates
from jaxlink.data.cleaning.normalize import normalize_unicode
from jaxlink.data.cleaning.quality import filter_length, filter_quality, fineweb2_filters
from jaxlink.data.cleaning.repetition import filter_repetition
from jaxlink.data.cleaning.script import keep_script
from jaxlink.data.cleaning.steps import count, drop_removed

__all__ = [
  'NgramIndex',
  'Overlap',
  'cleaning_steps',
  'compared_with',
  'count',
  'drop_removed',
  'filter_length',
  'filter_quality',
  'filter_repetition',
  'find',
  'fineweb2_filters',
  'keep_script',
  'ngram_index',
  'normalize_unicode',
  'overlap',
  'prepare',
  'prepared',
  'remove_contamination',
  'remove_duplicates',
  'summary',
]
