"""The sample: Turkish beside English, small enough for a laptop.

7.8 MB of Turkish sentences and 6.1 MB of English articles from Wikipedia, the English-Turkish
pairs of Wiktionary, and a tokenizer trained on both. Sources and licences: tasks/sample/README.md.
"""

from pathlib import Path

from jaxlink.data.register import register_corpus, register_language

DATA = Path(__file__).parent / 'sample'
TOKENIZER = DATA / 'tokenizer.model'

register_corpus(
  'sample_en',
  {'train': DATA / 'en.train.jsonl.gz', 'validation': DATA / 'en.validation.jsonl.gz'},
  language='en',
  tokenizer=TOKENIZER,
)
register_language(
  'sample_tr',
  {'train': DATA / 'tr.train.txt.gz', 'validation': DATA / 'tr.validation.txt.gz'},
  language='tr',
  tokenizer=TOKENIZER,
  auxiliary='sample_en',
  lexicon=DATA / 'en-tr.tsv',
  share=0.5,
)
