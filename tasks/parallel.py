"""Parallel text, scored in bits per byte: FLORES-200 devtest and NTREX-128.

Sets: flores_LANGUAGE (1,012 sentences of Wikimedia projects) and ntrex_LANGUAGE (1,997 of news). An item's id
is its line, the same in all languages.

Easy to get wrong: bits per byte of two languages are not one scale. A script of three bytes a letter has fewer
bits for each.
"""

import functools
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

FLORES = 'github.com/common-parallel-corpora/common-parallel-corpora'
NTREX = 'github.com/MicrosoftTranslator/NTREX'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
FLORES_FILES = {
  'am': 'amh_Ethi', 'ar': 'arb_Arab', 'bn': 'ben_Beng', 'de': 'deu_Latn', 'ee': 'ewe_Latn',
  'en': 'eng_Latn', 'eu': 'eus_Latn', 'ha': 'hau_Latn', 'hi': 'hin_Deva', 'ht': 'hat_Latn',
  'id': 'ind_Latn', 'is': 'isl_Latn', 'ja': 'jpn_Jpan', 'ko': 'kor_Hang', 'mr': 'mar_Deva',
  'so': 'som_Latn', 'sw': 'swh_Latn', 'ta': 'tam_Taml', 'te': 'tel_Telu', 'th': 'tha_Thai',
  'tr': 'tur_Latn', 'ur': 'urd_Arab', 'vi': 'vie_Latn', 'yo': 'yor_Latn', 'zh': 'zho_Hans',
}  # fmt: skip
NTREX_FILES = {
  'am': 'ref.amh', 'bn': 'ref.ben', 'ee': 'ref.ewe', 'en': 'src.eng', 'eu': 'ref.eus',
  'ha': 'ref.hau', 'hi': 'ref.hin', 'id': 'ref.ind', 'is': 'ref.isl', 'mr': 'ref.mar',
  'so': 'ref.som', 'sw': 'ref.swa', 'te': 'ref.tel', 'th': 'ref.tha', 'tr': 'ref.tur',
  'vi': 'ref.vie', 'yo': 'ref.yor', 'zh': 'ref.zho-CN',
}  # fmt: skip


def read(name: str, source: str):
  """Yields the lines of a file."""
  for number, line in enumerate(reading.lines(reading.find(DATA, name, source))):
    yield {'id': f'{number:04}', 'text': line.strip()}


for code, file in FLORES_FILES.items():
  register_evaluation(
    f'flores_{code}', functools.partial(read, f'flores200/{file}.devtest', FLORES), kind='text',
    language=code, licence='CC BY-SA 4.0', source=FLORES,
  )  # fmt: skip
for code, file in NTREX_FILES.items():
  register_evaluation(
    f'ntrex_{code}', functools.partial(read, f'ntrex128/newstest2019-{file}.txt', NTREX),
    kind='text', language=code, licence='CC BY-SA 4.0', source=NTREX,
  )  # fmt: skip
