"""Swahili beside English at web scale: C4 and mC4 through TensorFlow Datasets.

Wants, below $JAXLINK_DATA (default: data/):
  tokenizers/en_sw.model    50,304 ids; tools/train_tokenizer.py --size 50304 trains it
  lexicons/en-sw.tsv        English-Swahili pairs, such as MUSE-style lists or GATITOS (CC BY 4.0)
and the TFDS data sets c4/en and c4/multilingual, prepared in $TFDS_DATA_DIR.
"""

import os
from pathlib import Path

import seqio

from jaxlink.data.register import register_corpus, register_language

DATA = Path(os.environ.get('JAXLINK_DATA', 'data'))
TOKENIZER = DATA / 'tokenizers/en_sw.model'

register_corpus(
  'c4_en',
  seqio.TfdsDataSource('c4/en:3.1.0', splits=('train', 'validation')),
  language='en',
  tokenizer=TOKENIZER,
)
register_language(
  'mc4_sw',
  seqio.TfdsDataSource(
    'c4/multilingual:3.1.0', splits={'train': 'sw', 'validation': 'sw-validation'}
  ),
  language='sw',
  tokenizer=TOKENIZER,
  auxiliary='c4_en',
  lexicon=DATA / 'lexicons/en-sw.tsv',
  share='1/10',
)
