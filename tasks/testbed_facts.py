"""Facts stated in English alone and asked in Turkish, beside the sample's text (`tasks.sample`).

People, towns, work and colours are made up (`jaxlink.testbeds.facts`), so nobody can have read of them
elsewhere; names are spelt alike in both languages. Files are made when this module is first imported, in
seconds, and kept under cache/testbeds. docs/testbeds.md says what is asked and what was found.
"""

from jaxlink.data.register import register_corpus, register_mixture
from jaxlink.evaluation.reading import json_lines
from jaxlink.evaluation.register import register_evaluation
from jaxlink.testbeds import files
from tasks.sample import TOKENIZER

DATA = files.kept('facts')

register_corpus(
  'testbed_facts',
  {'train': DATA / 'facts.train.jsonl.gz'},
  language='en',
  tokenizer=TOKENIZER,
)
register_mixture('testbed_facts_tr', {'sample_tr': 0.35, 'sample_en': 0.35, 'testbed_facts': 0.3})
for language in ('en', 'tr'):
  for asked in ('', '_unstated', '_towns'):
    register_evaluation(
      f'testbed_facts_{language}{asked}', json_lines(DATA / f'facts_{language}{asked}.jsonl'),
      kind='choice', language=language, source='made up by jaxlink.testbeds from seed 0',
    )  # fmt: skip
