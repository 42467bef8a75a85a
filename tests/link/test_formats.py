"""Every format, from excerpts of real files: direction, known pairs, and that nothing leaks."""

import pathlib
import unicodedata

import pytest

from jaxlink.link.lexicon import COUNTS, Lexicon

EXCERPTS = pathlib.Path(__file__).parent / 'dictionaries'
_names = list(COUNTS)
REASONS = _names[_names.index('empty_side') : _names.index('sources')]


def check_texts(lexicon: Lexicon) -> None:
  """What must hold of any lexicon, whatever file it is from."""
  counts = lexicon.counts
  assert counts['pairs'] == sum(counts[reason] for reason in REASONS)
  assert counts['kept_pairs'] == sum(map(len, lexicon.entries.values()))
  assert counts['sources'] == len(lexicon.entries)
  for key, targets in lexicon.entries.items():
    assert targets
    assert len(set(targets)) == len(targets)
    for text in (key, *targets):
      assert text == ' '.join(text.split())
      assert not set(text) & set('<>{}[]()@|#~\\')
      assert '::' not in text
      assert '..' not in text
      assert not any(unicodedata.category(c) == 'Cc' for c in text)
      assert unicodedata.category(text[0]) != 'Cf'
      assert unicodedata.category(text[-1]) != 'Cf'
    assert key not in [target.casefold() for target in targets]
    assert all(unicodedata.is_normalized('NFC', target) for target in targets)
    assert all(any(c.isalpha() for c in target) for target in targets)
    assert not any(target.startswith('-') or target.endswith('-') for target in targets)


# file, target, direction, pairs that must be there, reasons and their numbers
CASES = [
  (
    'en_om.tsv',
    'om',
    'forward',
    {'dog': ('saree',), 'thank you': ('galatoomaa',), 'i don’t know': ('An hin beeku',)},
    {'placeholders': 4, 'bound_forms': 1, 'hyphenated_source': 1, 'unmatchable_source': 1},
  ),
  (
    'eng-urd.ur2.txt',
    'ur',
    'forward',
    {'punjabi': ('پنجابی زبان', 'پنجابی', 'نجابي'), 'laptop pc': ('لیپ ٹاپ PC',)},
    {'markup': 1, 'target_script': 9, 'no_letters': 1},
  ),
  (
    'eng-tur.turkish.tsv',
    'tr',
    'forward',
    {'dog': ('köpek',), 'puppet': ('kukla',), 'apartment': ('daire', 'apartman dairesi')},
    {'bound_forms': 4, 'unmatchable_source': 2, 'remarks': 1},
  ),
  (
    'en-hi-enwiktionary.txt',
    'hi',
    'forward',
    {
      'aback': ('पीछ॓ की ओर', 'बोचक्क'),
      'above': ('ऊपर', 'के ऊपर'),
      'water': ('पानी', 'जल', 'आब', 'मूत्र'),
    },
    {'comment_lines': 5, 'transliterations': 39, 'target_script': 2, 'placeholders': 1},
  ),
  (
    'en-hi-enwiktionary.dsl.dz',
    'hi',
    'forward',
    {
      'aback': ('पीछ॓ की ओर', 'बोचक्क'),
      'above': ('ऊपर', 'के ऊपर'),
      'water': ('पानी', 'जल', 'आब', 'मूत्र'),
    },
    {'target_script': 2, 'placeholders': 1, 'unread_entries': 0},
  ),
  (
    'hau-eng.Hausa.tsv',
    'ha',
    'inverted',
    {'woman': ('mata',), 'south africa': ('Afirka ta Kudu',), 'famous person': ('mashahuri',)},
    {'other_forms': 48, 'pointers': 1, 'definitions': 5},
  ),
  (
    'hau-eng.ifo',
    'ha',
    'inverted',
    {'woman': ('mata',), 'south africa': ('Afirka ta Kudu',), 'famous person': ('mashahuri',)},
    {'pointers': 1, 'definitions': 5, 'unread_entries': 0},
  ),
  (
    'eng-swh.tei',
    'sw',
    'forward',
    {'tea': ('chai',), 'be broken': ('vunjika',), 'rain': ('mvua', 'nyesha')},
    {'unmatchable_source': 1},
  ),
  (
    'swh-eng.tei',
    'swh',
    'inverted',
    {'they are': ('wako',), 'your': ('wako', 'yako'), 'implement': ('kifaa',), 'club': ('klabu',)},
    {'pointers': 1, 'hyphenated_source': 1, 'identity_pairs': 1, 'other_forms': 1},
  ),
  (
    'eng-swh.index',
    'sw',
    'forward',
    {'go': ('enda', 'ondoka'), 'house': ('nyumba', 'banda'), 'be broken': ('vunjika',)},
    {'remarks': 2, 'kept_pairs': 6},
  ),
  (
    'apertium-eu-en.eu-en.dix',
    'eu',
    'inverted',
    {'up to': ('arte',), 'abysmal': ('ezin txarrago',), 'water': ('ur',), 'except': ('izan ezik',)},
    {'patterns': 1, 'duplicate_pairs': 3},
  ),
  (
    'dict.bn-en.en',
    'bn',
    'inverted',
    {'norway': ('নরওয়ে',), 'included': ('অন্তর্ভুক্ত',), 'happy': ('সানন্দা',)},
    {'definitions': 2, 'target_script': 1, 'duplicate_pairs': 1},
  ),
  (
    'en-en-extract.jsonl',
    'ar',
    'forward',
    {'falcon': ('صقر', 'شاهين'), 'magical': ('سحري',)},
    {'other_languages': 34},
  ),
  (
    'en-de-extract.jsonl',
    'de',
    'forward',
    {'choose': ('aussuchen', 'auswählen', 'vorziehen', 'wählen')},
    {'duplicate_pairs': 4},
  ),
  (
    'ja-en-extract.jsonl',
    'ja',
    'inverted',
    {'raccoon dog': ('狸',), 'hungry': ('お腹が空いた',), 'lend money': ('用立てる',)},
    {'pointers': 4, 'definitions': 1},
  ),
  (
    'ko-en-extract.jsonl',
    'ko',
    'inverted',
    {'germany': ('독일',), 'read': ('읽다',)},
    {'bound_forms': 19, 'definitions': 6},
  ),
]


@pytest.mark.parametrize(
  ('name', 'target', 'direction', 'pairs', 'counts'), CASES, ids=[case[0] for case in CASES]
)
def test_an_excerpt_of_a_real_file(name, target, direction, pairs, counts):
  lexicon = Lexicon.load(EXCERPTS / name, target=target)
  assert lexicon.direction == direction
  assert {key: lexicon.entries.get(key) for key in pairs} == pairs
  assert {reason: lexicon.counts[reason] for reason in counts} == counts
  check_texts(lexicon)


@pytest.mark.parametrize(
  ('first', 'second'),
  [
    ('en-hi-enwiktionary.txt', 'en-hi-enwiktionary.dsl.dz'),  # Ding and DSL
    ('hau-eng.Hausa.tsv', 'hau-eng.ifo'),  # table of HTML and StarDict
    ('dict.bn-en.bn', 'dict.bn-en.en'),  # either of two aligned files
    ('eng-swh.index', 'eng-swh.dict'),
  ],
)
def test_two_formats_of_one_dictionary_give_the_same_entries(first, second):
  first, second = Lexicon.load(EXCERPTS / first), Lexicon.load(EXCERPTS / second)
  assert first.entries == second.entries
  assert first.direction == second.direction
  for reason in REASONS:
    assert first.counts[reason] == second.counts[reason]
