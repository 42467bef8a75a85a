"""The testbed of a cloned language: English beside a copy of it with letters of its own, and a perfect lexicon.

Nothing is downloaded: files are made of the sample's English (`jaxlink.testbeds`) when this module is first
imported, in seconds, and kept under cache/testbeds. docs/testbeds.md says what is asked and what was found.
"""

from jaxlink.data.register import register_corpus, register_language, register_mixture
from jaxlink.evaluation.reading import json_lines
from jaxlink.evaluation.register import register_evaluation
from jaxlink.testbeds import clone, files

DATA = files.kept('clone')
TOKENIZER = DATA / 'tokenizer.model'

register_corpus(
  'testbed_clone_en',
  {'train': DATA / 'en.train.jsonl.gz', 'validation': DATA / 'en.validation.jsonl.gz'},
  language='en',
  tokenizer=TOKENIZER,
)
register_corpus(
  'testbed_clone_facts',
  {'train': DATA / 'facts.train.jsonl.gz'},
  language='en',
  tokenizer=TOKENIZER,
)
register_language(
  'testbed_clone',
  {'train': DATA / 'clone.train.jsonl.gz', 'validation': DATA / 'clone.validation.jsonl.gz'},
  language=clone.LANGUAGE,
  tokenizer=TOKENIZER,
  auxiliary='testbed_clone_en',
  lexicon=DATA / 'lexicon.tsv',
)
register_mixture(
  'testbed_clone_all',
  {'testbed_clone': 0.15, 'testbed_clone_en': 0.55, 'testbed_clone_facts': 0.3},
)

SOURCE = 'made up by jaxlink.testbeds from seed 0'
for name, language in {
  'facts_en': 'en',
  'facts_en_unstated': 'en',
  'facts_en_towns': 'en',
  'facts_clone': clone.LANGUAGE,
  'facts_clone_names': clone.LANGUAGE,
  'facts_clone_unstated': clone.LANGUAGE,
  'facts_clone_towns': clone.LANGUAGE,
}.items():
  register_evaluation(
    f'testbed_clone_{name}', json_lines(DATA / f'{name}.jsonl'), kind='choice', language=language,
    source=SOURCE,
  )  # fmt: skip
