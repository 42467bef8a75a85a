"""The sample's Turkish in 1,024 ids instead of 8,192: for experiments in which a small model should not be
mostly embedding and head, and should learn more than how often words occur in a few thousand steps' text.

The tokenizer was made by: python tools/train_tokenizer.py --size 1024 --bytes 4000000
--text tr=tasks/sample/tr.train.txt.gz --out tasks/sample/tokenizer_1k.model
"""

from pathlib import Path

from jaxlink.data.register import register_corpus

DATA = Path(__file__).parent / 'sample'

register_corpus(
  'sample_1k_tr',
  {'train': DATA / 'tr.train.txt.gz', 'validation': DATA / 'tr.validation.txt.gz'},
  language='tr',
  tokenizer=DATA / 'tokenizer_1k.model',
)
