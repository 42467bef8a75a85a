"""The link table: every source is found by its hash, and every variant has the tokenizer's ids."""

import pathlib
import pickle

import numpy as np
import pytest

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import casing, senses, table, words
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'
TURKISH = Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')

NO_LISTS = WordLists()


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
  return Tokenizer(str(SAMPLE / 'tokenizer.model'))


def build(folder, lexicons, tokenizer, *, keys=(), lists=NO_LISTS, **changes):
  policy = LinkPolicy(lexicon=dict.fromkeys(lexicons, 'x'), **changes)
  return table.build(str(folder), lexicons, policy.rendering, lists, tokenizer, keys=keys)


def hash_of(key):
  parts = np.array([key_of(word) for word in key.split(' ')], np.uint64)
  hash_1 = parts[:1]
  for n in range(1, len(parts)):
    hash_1 = table.extend_hash(hash_1, parts[n : n + 1])
  return hash_1


def ids_of(built, target, case, space):
  column = target * table.VARIANTS + table.variant(case, space)
  return built.ids[built.start_KV[column] : built.start_KV[column + 1]].tolist()


@pytest.mark.parametrize('mode', ['replace', 'annotate'])
def test_every_entry_has_its_targets_in_every_case(mode, tokenizer, tmp_path):
  built = build(tmp_path / 't', {'tr': TURKISH}, tokenizer, mode=mode)
  assert built.max_words == TURKISH.max_words
  for key, targets in TURKISH.entries.items():
    (entry,) = built.find(hash_of(key))
    assert entry >= 0
    assert built.words_E[entry] == key.count(' ') + 1
    assert built.count_EG[entry, 0] == len(targets)
    assert built.sense_key_EG[entry, 0] == key_of(key)
  for key, targets in list(TURKISH.entries.items())[::37]:
    (entry,) = built.find(hash_of(key))
    for n, target in enumerate(targets):
      for case, kind in enumerate((0, words.TITLE, words.UPPER)):
        for space in (0, 1):
          text = casing.cased(target, kind, 'tr')
          text = f' ({text}' if mode == 'annotate' else ' ' * space + text
          assert ids_of(built, built.first_EG[entry, 0] + n, case, space) == tokenizer.encode(text)


def test_what_is_not_there_is_not_found(tokenizer, tmp_path):
  built = build(tmp_path / 't', {'tr': TURKISH}, tokenizer)
  unknown = np.array([key_of(f'no such word {n}') for n in range(5000)] + [0, 2**64 - 2], np.uint64)
  assert (built.find(unknown) == -1).all()
  assert built.flags_E[-1] == built.words_E[-1] == 0
  assert not built.count_EG[-1].any()


def test_words_of_a_source_of_several_are_found_only_as_it(tokenizer, tmp_path):
  lexicon = Lexicon.from_pairs([('set on fire', 'verbrennen'), ('dog', 'Hund')])
  built = build(tmp_path / 'a', {'de': lexicon}, tokenizer)
  (begins,) = built.find(hash_of('set'))
  assert built.flags_E[begins] == table.BEGINS
  assert built.find(hash_of('fire')) == -1
  assert built.words_E[built.find(hash_of('set on fire'))[0]] == 3
  alone = build(tmp_path / 'b', {'de': lexicon}, tokenizer, multi_word=False)
  assert alone.find(hash_of('set on fire')) == -1
  assert alone.max_words == 1


def test_flags_say_what_lists_and_identity_pairs_do(tokenizer, tmp_path):
  lexicon = Lexicon.from_pairs([('the', 'der'), ('dog', 'Hund'), ('berlin', 'Berlin')])
  lists = WordLists(frozenset({'the'}))
  built = build(tmp_path / 't', {'de': lexicon}, tokenizer, lists=lists, regime='content')
  flags = {key: int(built.flags_E[built.find(hash_of(key))[0]]) for key in ('the', 'dog', 'berlin')}
  both = table.COVERED_ANY | table.COVERED
  assert flags == {
    'the': both | table.STOP,
    'dog': both | table.ELIGIBLE,
    'berlin': table.COVERED_ANY,
  }


def test_each_language_has_targets_of_its_own(tokenizer, tmp_path):
  german = Lexicon.from_pairs([('dog', 'Hund'), ('cat', 'Katze'), ('berlin', 'Berlin')])
  turkish = Lexicon.from_pairs([('dog', 'köpek'), ('dog', 'it'), ('berlin', "Berlin'de")])
  built = build(tmp_path / 't', {'de': german, 'tr': turkish}, tokenizer)
  assert built.languages == ('de', 'tr')
  counts = {k: built.count_EG[built.find(hash_of(k))[0]].tolist() for k in ('dog', 'cat', 'berlin')}
  assert counts == {'dog': [1, 2], 'cat': [1, 0], 'berlin': [0, 1]}
  assert built.identity_EG[built.find(hash_of('berlin'))[0]].tolist() == [True, False]


def test_lemmas_add_words_of_the_text_and_only_those(tokenizer, tmp_path):
  lexicon = Lexicon.from_pairs([('house', 'Haus'), ('run', 'laufen')])
  built = build(
    tmp_path / 't',
    {'de': lexicon},
    tokenizer,
    keys=['houses', 'ran', 'house', 'xyzzy'],
    lemmas='en',
  )
  houses, house = built.find(np.concatenate([hash_of('houses'), hash_of('house')]))
  assert built.first_EG[houses, 0] == built.first_EG[house, 0]
  assert built.sense_key_EG[houses, 0] == built.sense_key_EG[house, 0] == key_of('house')
  assert built.find(hash_of('runs')) == -1
  assert built.find(hash_of('xyzzy')) == -1
  assert built.meta['lemmas'] == 2


def test_weights_are_kept_as_shares(tokenizer, tmp_path):
  lexicon = Lexicon.from_pairs(
    [('the', 'der', 5), ('the', 'die', 4), ('the', 'das', 1), ('a', 'ein', 7)]
  )
  built = build(tmp_path / 't', {'de': lexicon}, tokenizer)
  (entry,) = built.find(hash_of('the'))
  first = built.first_EG[entry, 0]
  assert built.cumulative_K[first : first + 3].tolist() == senses.cumulative(lexicon, 'the')
  assert built.cumulative_K[first : first + 3].tolist() == pytest.approx([0.5, 0.9, 1.0])


def test_a_table_is_built_once_and_mapped_by_every_process(tokenizer, tmp_path):
  built = build(tmp_path / 't', {'tr': TURKISH}, tokenizer)
  stamp = (tmp_path / 't/ids.npy').stat().st_mtime_ns
  again = build(tmp_path / 't', {'tr': TURKISH}, tokenizer)
  assert (tmp_path / 't/ids.npy').stat().st_mtime_ns == stamp
  sent = pickle.dumps(built)
  assert len(sent) < 1000  # the folder, not the arrays
  other = pickle.loads(sent)
  for name in ('ids', 'hash_E', 'start_KV'):
    mine, theirs = getattr(again, name), getattr(other, name)
    assert (mine == theirs).all()
    assert not mine.flags.writeable
    assert isinstance(mine.base, np.memmap)


def test_a_table_of_another_version_is_refused(tokenizer, tmp_path, monkeypatch):
  build(tmp_path / 't', {'tr': TURKISH}, tokenizer)
  monkeypatch.setattr(table, 'FORMAT', table.FORMAT + 1)
  with pytest.raises(ValueError, match=r'has table format 1, this version reads 2: delete it\.'):
    table.LinkTable.open(str(tmp_path / 't'))


class Picky:
  """A tokenizer that can place no piece with an 'ö' or a capital H."""

  native = False

  def encode_piece(self, text):
    return [ord(c) for c in text]

  def splices(self, piece):
    return 'ö' not in piece and 'H' not in piece


def test_targets_that_cannot_be_spliced_are_left_out_and_counted(tmp_path):
  lexicon = Lexicon.from_pairs(
    [
      ('dog', 'köpek'),
      (
        'dog',
        'it',
      ),
      ('house', 'haus'),
      ('cat', 'kedi'),
    ]
  )
  left, gone = table.keep_spliceable(
    lexicon, 'tr', LinkPolicy(lexicon='x', language='tr').rendering, Picky()
  )
  assert gone == 2  # haus becomes Haus
  assert left.entries == {'dog': ('it',), 'cat': ('kedi',)}
  built = build(tmp_path / 't', {'tr': lexicon}, Picky())
  assert built.meta['lexicons']['tr']['unspliceable_targets'] == 2
  with pytest.raises(ValueError, match='no target of the lexicons of tr can be spliced'):
    build(tmp_path / 'u', {'tr': Lexicon.from_pairs([('dog', 'köpek')])}, Picky())
