"""TurBLiMP: Turkish sentence pairs of which one is grammatical; 16 phenomena of 1,000 pairs, `turblimp`.

Easy to get wrong: 20 of the published pairs (10 of anaphor agreement, 10 of quantifiers) have the same
sentence twice. No model can tell these apart, so they are left out: 15,980 items.
"""

from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/ezgibasar/TurBLiMP'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
PHENOMENA = (
  'anaphor_agreement', 'argument_structure_ditransitive', 'argument_structure_transitive', 'binding',
  'determiners', 'ellipsis', 'irregular_forms', 'island_effects', 'nominalization', 'npi_licensing',
  'passives', 'quantifiers', 'relative_clauses', 'scrambling', 'subject_verb_agreement',
  'suspended_affixation',
)  # fmt: skip


def read():
  """Yields all pairs that differ, phenomenon after phenomenon."""
  for phenomenon in PHENOMENA:
    path = reading.find(DATA, f'turblimp/augmented_{phenomenon}.csv', SOURCE)
    for number, row in enumerate(reading.table(path, ';')):
      pair = [row['good_sentence'], row['bad_sentence']]
      if pair[0] != pair[1]:
        yield {
          'id': f'{phenomenon}:{number}',
          'context': '',
          'choices': pair,
          'label': 0,
          'group': phenomenon,
        }


register_evaluation(
  'turblimp', read, kind='choice', language='tr', licence='CC BY 4.0', source=SOURCE
)
