"""SIB-200: the topic of a sentence, one of seven, in many languages; 204 test sentences each.

Sets of two kinds:
  sib200_en, _de, _id, _sw, _tr, _vi, _zh   by the likelihood of the label's words, which are the language's
                                            own (`TOPICS`, translated for this module)
  sib200_probe_LANGUAGE                     text and class, for a linear probe: 701 sentences to train it, 99
                                            for its regularisation, 204 to score it

Easy to get wrong: the sentences are those of FLORES-200. Whoever trained on these has seen them.
"""

import functools
from pathlib import Path

from jaxlink.evaluation import reading
from jaxlink.evaluation.register import register_evaluation

SOURCE = 'github.com/dadelani/sib-200, sentences of FLORES-200'
LICENCE = 'Apache-2.0; sentences CC BY-SA 4.0'
DATA = reading.folder(Path(__file__).parent / 'evaluation')
LABELS = (
  'science/technology', 'travel', 'politics', 'sports', 'health', 'entertainment', 'geography'
)  # fmt: skip
TOPICS = {  # language: the word 'Topic', and the labels in the order of LABELS
  'en': ('Topic', *LABELS),
  'de': (
    'Thema', 'Wissenschaft/Technik', 'Reisen', 'Politik', 'Sport', 'Gesundheit', 'Unterhaltung',
    'Geografie',
  ),
  'id': (
    'Topik', 'sains/teknologi', 'perjalanan', 'politik', 'olahraga', 'kesehatan', 'hiburan',
    'geografi',
  ),
  'sw': (
    'Mada', 'sayansi/teknolojia', 'safari', 'siasa', 'michezo', 'afya', 'burudani', 'jiografia',
  ),
  'tr': (
    'Konu', 'bilim/teknoloji', 'seyahat', 'siyaset', 'spor', 'sağlık', 'eğlence', 'coğrafya',
  ),
  'vi': (
    'Chủ đề', 'khoa học/công nghệ', 'du lịch', 'chính trị', 'thể thao', 'sức khỏe', 'giải trí',
    'địa lý',
  ),
  'zh': ('主题', '科学/技术', '旅行', '政治', '体育', '健康', '娱乐', '地理'),
}  # fmt: skip
FOLDERS = {
  'am': 'amh_Ethi', 'ar': 'arb_Arab', 'bn': 'ben_Beng', 'de': 'deu_Latn', 'ee': 'ewe_Latn',
  'en': 'eng_Latn', 'eu': 'eus_Latn', 'ha': 'hau_Latn', 'hi': 'hin_Deva', 'ht': 'hat_Latn',
  'id': 'ind_Latn', 'is': 'isl_Latn', 'ja': 'jpn_Jpan', 'ko': 'kor_Hang', 'mr': 'mar_Deva',
  'so': 'som_Latn', 'sw': 'swh_Latn', 'ta': 'tam_Taml', 'te': 'tel_Telu', 'th': 'tha_Thai',
  'tr': 'tur_Latn', 'ur': 'urd_Arab', 'vi': 'vie_Latn', 'yo': 'yor_Latn', 'zh': 'zho_Hans',
}  # fmt: skip


def sentences(language: str, split: str):
  """Yields id, number of the label and text of a split's sentences."""
  path = reading.find(DATA, f'sib200/{FOLDERS[language]}/{split}.tsv', SOURCE)
  for row in reading.table(path):
    yield row['index_id'], LABELS.index(row['category']), row['text'].strip()


def read_choices(language: str):
  """Yields the test sentences, with the language's words for the labels as options."""
  topic, *options = TOPICS[language]
  for number, label, text in sentences(language, 'test'):
    yield {
      'id': number,
      'context': f'{text}\n{topic}:',
      'choices': options,
      'label': label,
      'group': LABELS[label],
    }


def read_classes(language: str):
  """Yields the sentences of all splits with their classes."""
  for split, name in {'train': 'train', 'dev': 'validation', 'test': 'test'}.items():
    for number, label, text in sentences(language, split):
      yield {'id': number, 'text': text, 'label': label, 'split': name, 'group': LABELS[label]}


for code in TOPICS:
  register_evaluation(
    f'sib200_{code}', functools.partial(read_choices, code), kind='choice', language=code,
    licence=LICENCE, source=SOURCE,
  )  # fmt: skip
for code in FOLDERS:
  register_evaluation(
    f'sib200_probe_{code}', functools.partial(read_classes, code), kind='label', language=code,
    labels=LABELS, licence=LICENCE, source=SOURCE,
  )  # fmt: skip
