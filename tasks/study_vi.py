"""Vietnamese beside English for gin/study_link_vi.gin. The text is yours: nothing of it comes with jaxlink.

Wants, below $JAXLINK_DATA (default: data/):
  text/vi.train.*, text/vi.validation.*    Vietnamese; the study was planned for about 200,000 tokens (0.8 MB)
  text/en.train.*, text/en.validation.*    English, at least 1.2 million tokens (5 MB)
  tokenizers/en_vi.model    8,192 ids for both languages:
    python tools/train_tokenizer.py --size 8192 --bytes 4000000 --text en=data/text/en.train.jsonl.gz \\
        --text vi=data/text/vi.train.jsonl.gz --out data/tokenizers/en_vi.model
  lexicons/en-vi.tsv        word pairs, such as GATITOS, MUSE or Wiktionary lists (docs/link.md)
  lexicons/en-vi.shuffled.tsv    for the setting 'random words 0.3' alone:
    python tools/shuffle_lexicon.py data/lexicons/en-vi.tsv data/lexicons/en-vi.shuffled.tsv --target vi \\
        --text data/text/en.train.jsonl.gz --tokenizer data/tokenizers/en_vi.model

Text is JSONL, plain text, Parquet or ArrayRecord, compressed or not; several files to a split are read in turn. Held-out
text of 40 to 60 KB a language costs one core a few seconds each time.

Easy to get wrong: held-out text that is near the training text. Hold out whole documents, and whole books.
"""

import os
from pathlib import Path

from jaxlink.data.register import LEXICONS, register_corpus, register_language
from jaxlink.data.registry import RegisteredLexicon

DATA = Path(os.environ.get('JAXLINK_DATA', 'data'))
TOKENIZER = DATA / 'tokenizers/en_vi.model'

register_corpus(
  'study_vi_en',
  {'train': DATA / 'text/en.train.*', 'validation': DATA / 'text/en.validation.*'},
  language='en',
  tokenizer=TOKENIZER,
)
register_language(
  'study_vi',
  {'train': DATA / 'text/vi.train.*', 'validation': DATA / 'text/vi.validation.*'},
  language='vi',
  tokenizer=TOKENIZER,
  auxiliary='study_vi_en',
  lexicon=DATA / 'lexicons/en-vi.tsv',
  share=0.3,
)
# The same words with each other's translations, for runs in which as many words are replaced by nonsense.
LEXICONS['study_vi_shuffled'] = RegisteredLexicon(
  (str(DATA / 'lexicons/en-vi.shuffled.tsv'),), 'vi'
)
