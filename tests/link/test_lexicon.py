"""Lexicons: what METHODS calls its check values, every reason for a dropped pair, every error."""

import bz2
import gzip
import hashlib
import lzma
import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxlink.link.lexicon import COUNTS, Lexicon, load_words

EXCERPTS = pathlib.Path(__file__).parent / 'dictionaries'

# Of the English-German MUSE list.
MUSE = """\
the der
the die
the das
dog hund
dog hunde
ran lief
ran ran
saw sah
berlin berlin
not nicht
a ein
a a
cat katze
"""
# Of the English-Turkish and English-German WECHSEL lists.
WECHSEL = """\
water\tab
Sufism\tabdal
ten\ton
as well\tde
free of charge\tumsonst
self-contained\teigenständig
foot-and-mouth disease\tMaul- und Klauenseuche
-ship\t-schaft
St. Petersburg\tSankt Petersburg
water\tWasser
Water\tWasser
Wasser\tWASSER
tongue\t
"""


@pytest.fixture
def write(tmp_path):
  def write_file(content, name='list.txt'):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path

  return write_file


def test_a_muse_list_keeps_order_and_drops_identity_pairs(write):
  lexicon = Lexicon.load(write(MUSE))
  assert lexicon.entries == {
    'the': ('der', 'die', 'das'),
    'dog': ('hund', 'hunde'),
    'ran': ('lief',),
    'saw': ('sah',),
    'not': ('nicht',),
    'a': ('ein',),
    'cat': ('katze',),
  }
  assert list(lexicon.entries) == ['the', 'dog', 'ran', 'saw', 'not', 'a', 'cat']
  assert lexicon.counts['identity_pairs'] == 3
  assert lexicon.identity_only == {'berlin'}
  assert lexicon.max_words == 1


def test_every_pair_is_kept_or_counted_by_its_reason(write):
  lexicon = Lexicon.load(write(WECHSEL))
  assert {name: n for name, n in lexicon.counts.items() if n} == {
    'pairs': 13,
    'empty_side': 1,
    'hyphenated_source': 2,
    'unmatchable_source': 2,
    'identity_pairs': 1,
    'duplicate_pairs': 1,
    'kept_pairs': 6,
    'sources': 5,
    'multi_word_sources': 2,
  }
  assert lexicon.entries['water'] == ('ab', 'Wasser')
  assert lexicon.entries['free of charge'] == ('umsonst',)
  assert lexicon.max_words == 3


def test_counts_have_the_documented_names(write):
  assert list(Lexicon.load(write(MUSE)).counts) == list(COUNTS)


def test_an_identity_pair_is_one_but_for_case_and_composition():
  lexicon = Lexicon.from_pairs(
    [('Berlin', 'BERLIN'), ('cafe\u0301', 'Café'), ('strasse', 'Straße'), ('dog', 'Hund')]
  )
  assert lexicon.entries == {'dog': ('Hund',)}
  assert lexicon.identity_only == {'berlin', 'café', 'strasse'}


def test_keys_are_folded_and_targets_composed_with_their_case_kept():
  lexicon = Lexicon.from_pairs([('E\u0301TUDE', 'U\u0308bung'), ('étude', 'Etüde')])
  assert lexicon.entries == {'étude': ('Übung', 'Etüde')}


def test_a_source_with_a_target_is_not_identity_only():
  lexicon = Lexicon.from_pairs([('ran', 'ran'), ('ran', 'lief'), ('hand', 'Hand')])
  assert lexicon.identity_only == {'hand'}


def test_hash_is_that_of_the_bytes_on_disk(write):
  plain = write(MUSE)
  for packer in (gzip, lzma, bz2):
    packed = write(packer.compress(MUSE.encode()), f'list.txt.{packer.__name__}')
    for path in (plain, packed):
      assert Lexicon.load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Lexicon.load(plain).entries == Lexicon.load(packed).entries


def test_pairs_hash_like_the_tsv_that_holds_them(write):
  pairs = [('dog', 'hund'), ('as well', 'de')]
  path = write(''.join(f'{source}\t{target}\n' for source, target in pairs))
  assert Lexicon.from_pairs(pairs).sha256 == Lexicon.load(path).sha256
  assert Lexicon.from_pairs(pairs).entries == Lexicon.load(path).entries


@pytest.mark.parametrize(
  'content',
  [
    b'\xef\xbb\xbfdog hund\ncat katze\n',  # a byte order mark
    b'dog hund\r\ncat katze\r\n',
    b'dog  hund\ncat katze',
    b'dog\thund\ncat\tkatze\n',
    b'dog\t hund \ncat\tkatze\t\n',
    b'\ndog hund\n\n \ncat katze\n',
  ],
)
def test_forms_of_the_same_list(write, content):
  assert Lexicon.load(write(content)).entries == {'dog': ('hund',), 'cat': ('katze',)}


def test_blank_lines_and_further_columns_are_counted(write):
  counts = Lexicon.load(write('dog\thund\tnoun\n\ncat\tkatze\n\n')).counts
  assert (counts['blank_lines'], counts['extra_columns'], counts['pairs']) == (2, 1, 2)


def test_a_line_ends_at_a_line_feed_alone(write):
  lexicon = Lexicon.load(write('dog\tHund\u2028x\x85y\x0bz\ncat\tKatze\n'))
  assert lexicon.entries == {'dog': ('Hund x y z',), 'cat': ('Katze',)}


def test_a_tab_anywhere_makes_the_file_tab_separated(write):
  lexicon = Lexicon.load(write('as well\tde\nset on fire\tin Brand setzen\n'))
  assert lexicon.entries == {'as well': ('de',), 'set on fire': ('in Brand setzen',)}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'the file is empty'),
    (b' \n\n', 'the file is empty'),
    (b'dog hund\ncat\n', r"list\.txt:2: 'cat' has no target"),
    (b'dog\thund\ncat katze\n', r"list\.txt:2: 'cat katze' has no target.*a tab"),
    (b'dog\ncat\n', r"list\.txt:1: 'dog' has no target"),
    (b'dog hund\nas well de\n', r"list\.txt:2: 'as well de' has 3 words and no tab"),
    (b'dog hund\ncat k\x00tze\n', r'list\.txt:2: byte 14 \(0x00\) holds a NUL byte'),
    (b'dog hund\n\ncat k\xe4tze\n', r'list\.txt:3: byte 15 \(0xe4\) is not UTF-8'),
    (b'dog hund\nk\xe4tze \x00\n', r'list\.txt:2: byte 10 \(0xe4\) is not UTF-8'),
    ('dog hund\n'.encode('utf-16'), r'list\.txt:1: .*(UTF-16|UTF-8)'),
    (b'\x1f\x8b\x08\x00', 'broken gzip'),
    (gzip.compress(MUSE.encode())[:-9], 'broken gzip'),
    (lzma.compress(MUSE.encode())[:-9], 'broken xz'),
    (bz2.compress(MUSE.encode())[:-9], 'broken bzip2'),
    (b'dog DOG\n2 zwei\n', r'no pair can replace a word \(pairs 2, identity_pairs 1, unmatch'),
  ],
)
def test_errors_name_the_file_the_line_and_the_reason(write, content, message):
  with pytest.raises(ValueError, match=message):
    Lexicon.load(write(content))


def test_a_missing_file_names_the_nearest_one(write):
  path = write(MUSE, 'eng-deu.txt')
  with pytest.raises(FileNotFoundError, match=r"eng_deu\.txt: no such file\. Nearest: 'eng-deu\.t"):
    Lexicon.load(path.with_name('eng_deu.txt'))


def test_no_pairs_is_an_error():
  with pytest.raises(ValueError, match='no pair can replace a word'):
    Lexicon.from_pairs([])


@hypothesis.given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=20))
def test_reasons_add_up_to_the_pairs(pairs):
  lexicon = Lexicon.from_pairs([*pairs, ('dog', 'Hund')])
  counts = lexicon.counts
  assert counts['pairs'] == len(pairs) + 1
  reasons = list(COUNTS)[list(COUNTS).index('empty_side') : list(COUNTS).index('sources')]
  assert counts['pairs'] == sum(counts[reason] for reason in reasons)
  assert counts['kept_pairs'] == sum(map(len, lexicon.entries.values()))
  assert counts['sources'] == len(lexicon.entries)
  for key, targets in lexicon.entries.items():
    assert len(set(targets)) == len(targets)
    assert key not in [target.casefold() for target in targets]


def test_stop_words_are_folded(write):
  assert load_words(write('The\n\nAND\r\ndon’t\n')) == {'the', 'and', 'don’t'}


def test_stop_words_of_several_words_are_joined_by_single_spaces(write):
  assert load_words(write('of the  # a comment\n# another\nSet on Fire\n')) == {
    'of the',
    'set on fire',
  }


@pytest.mark.parametrize('line', ['of  the', 'well-known', 'B2', 'the,'])
def test_a_stop_word_that_can_match_nothing_is_an_error(write, line):
  with pytest.raises(ValueError, match=rf"list\.txt:2: '{line}' is not one word of letters"):
    load_words(write(f'and\n{line}\n'))


def test_weights_are_kept_beside_their_targets():
  lexicon = Lexicon.from_pairs([('dog', 'mbwa', 3), ('dog', 'DOG', 9), ('dog', 'jibwa', 0.5)])
  assert lexicon.entries == {'dog': ('mbwa', 'jibwa')}
  assert lexicon.weights == {'dog': (3, 0.5)}
  assert lexicon.direction == 'forward'


def test_a_key_without_weights_is_absent_from_them():
  lexicon = Lexicon.from_pairs([('dog', 'mbwa', 3), ('water', 'maji')])
  assert lexicon.weights == {'dog': (3,)}


def test_weights_are_part_of_the_hash(write):
  pairs = [('dog', 'mbwa', 0.5), ('water', 'maji', 2.0)]
  assert Lexicon.from_pairs(pairs).sha256 != Lexicon.from_pairs([p[:2] for p in pairs]).sha256
  path = write('dog\tmbwa\t0.5\nwater\tmaji\t2.0\n')
  assert Lexicon.load(path).sha256 == Lexicon.from_pairs(pairs).sha256
  assert Lexicon.load(path).weights == Lexicon.from_pairs(pairs).weights


@pytest.mark.parametrize('weight', [-1.0, float('nan'), float('inf')])
def test_a_weight_that_is_none_is_an_error(weight):
  with pytest.raises(ValueError, match=r"1 pairs: the weight of 'dog' is "):
    Lexicon.from_pairs([('dog', 'mbwa', weight)])


def test_weights_of_a_part_of_the_targets_are_an_error():
  with pytest.raises(ValueError, match=r"'dog' has targets with and without weights"):
    Lexicon.from_pairs([('dog', 'mbwa', 1.0), ('dog', 'jibwa')])


def test_of_merged_lexicons_the_first_that_has_a_key_gives_all_its_targets():
  curated = Lexicon.from_pairs([('dog', 'mbwa', 2.0), ('taxi', 'taxi'), ('run', 'run')])
  noisy = Lexicon.from_pairs([('dog', 'umbwa'), ('Dog', 'mbwa'), ('run', 'kimbia'), ('ice', 'ice')])
  merged = Lexicon.merge([curated, noisy])
  assert merged.entries == {'dog': ('mbwa',), 'run': ('kimbia',)}
  assert merged.weights == {'dog': (2.0,)}
  assert merged.identity_only == {'taxi', 'ice'}
  assert merged.counts['shadowed_pairs'] == 2
  assert merged.counts['kept_pairs'] == 2
  assert merged.counts['sources'] == 2
  assert merged.counts['pairs'] == 7
  assert merged.counts['identity_pairs'] == 3
  assert list(merged.counts) == list(COUNTS)
  assert Lexicon.merge([noisy, curated]).entries['dog'] == ('umbwa', 'mbwa')


def test_a_merged_lexicon_has_the_hash_and_direction_of_its_parts():
  first, second = (
    Lexicon.from_pairs([pair]) for pair in (('dog', 'mbwa'), ('set on fire', 'washa'))
  )
  merged = Lexicon.merge([first, second])
  parts = f'{first.sha256}\n{second.sha256}\n'
  assert merged.sha256 == hashlib.sha256(parts.encode()).hexdigest()
  assert merged.sha256 != Lexicon.merge([second, first]).sha256
  assert merged.direction == 'forward'
  assert merged.max_words == 3
  other = Lexicon.load(EXCERPTS / 'swh-eng.tei')
  assert Lexicon.merge([first, other]).direction == 'mixed'


def test_nothing_to_merge_is_an_error():
  with pytest.raises(ValueError, match='no lexicons to merge'):
    Lexicon.merge([])


def test_with_languages_given_texts_in_other_scripts_are_counted(write):
  # Of the English-Bengali and English-Vietnamese WECHSEL lists.
  path = write('আমি মুসলমান\tআমি মুসলিম\nwar\tযুদ্ধ\ndog\tKB\nwhich\tকোন\nlove\tভালোবাসা\nwar\tযুদ্ধ KB\n')
  lexicon = Lexicon.load(path, target='bn')
  assert lexicon.entries['war'] == ('যুদ্ধ', 'যুদ্ধ KB')
  assert (lexicon.counts['source_script'], lexicon.counts['target_script']) == (1, 1)
  assert Lexicon.load(path).counts['target_script'] == 0


def test_a_target_that_is_no_word_has_its_reason():
  lexicon = Lexicon.from_pairs(
    [
      ('house', '-nyumba'),
      ('house', 'ki-'),
      ('house', '123'),
      ('house', '...nyumba'),
      ('house', 'nyumba)'),
      ('house', '<b>nyumba'),
      ('house', 'ny<b>umba</b> (noun)'),
      ('house', '(noun)'),
    ]
  )
  assert lexicon.entries == {'house': ('nyumba',)}
  assert {name: n for name, n in lexicon.counts.items() if n} == {
    'remarks': 5,
    'pairs': 8,
    'empty_side': 1,
    'markup': 1,
    'no_letters': 1,
    'bound_forms': 2,
    'placeholders': 1,
    'duplicate_pairs': 1,
    'kept_pairs': 1,
    'sources': 1,
  }
