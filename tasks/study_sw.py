"""Swahili beside English for gin/study_link_sw.gin. The text is yours: nothing of it comes with jaxlink.

Wants, below $JAXLINK_DATA (default: data/):
  text/sw.train.*, text/sw.validation.*    Swahili; the study was planned for about 200,000 tokens (0.8 MB)
  text/en.train.*, text/en.validation.*    English, at least 1.2 million tokens (5 MB)
  tokenizers/en_sw.model    8,192 ids for both languages:
    python tools/train_tokenizer.py --size 8192 --bytes 4000000 --text en=data/text/en.train.jsonl.gz \\
        --text sw=data/text/sw.train.jsonl.gz --out data/tokenizers/en_sw.model
  lexicons/en-sw.tsv        word pairs, such as GATITOS, MUSE or Wiktionary lists (docs/link.md)
  lexicons/en-sw.shuffled.tsv    for the setting 'random words 0.3' alone:
    python tools/shuffle_lexicon.py data/lexicons/en-sw.tsv data/lexicons/en-sw.shuffled.tsv --target sw \\
        --text data/text/en.train.jsonl.gz --tokenizer data/tokenizers/en_sw.model

Text is JSONL, plain text, Parquet or ArrayRecord, compressed or not; several files to a split are read in turn. Held-out
text of 40 to 60 KB a language costs one core a few seconds each time.

Easy to get wrong: held-out text that is near the training text. Hold out whole documents, and whole books.
"""

import os
from pathlib import Path

from jaxlink.data.register import LEXICONS, register_corpus, register_language
from jaxlink.data.registry import RegisteredLexicon

DATA = Path(os.environ.get('JAXLINK_DATA', 'data'))
TOKENIZER = DATA / 'tokenizers/en_sw.model'

register_corpus(
  'study_sw_en',
  {'train': DATA / 'text/en.train.*', 'validation': DATA / 'text/en.validation.*'},
  language='en',
  tokenizer=TOKENIZER,
)
register_language(
  'study_sw',
  {'train': DATA / 'text/sw.train.*', 'validation': DATA / 'text/sw.validation.*'},
  language='sw',
  tokenizer=TOKENIZER,
  auxiliary='study_sw_en',
  lexicon=DATA / 'lexicons/en-sw.tsv',
  share=0.3,
)
# The same words with each other's translations, for runs in which as many words are replaced by nonsense.
LEXICONS['study_sw_shuffled'] = RegisteredLexicon(
  (str(DATA / 'lexicons/en-sw.shuffled.tsv'),), 'sw'
)
