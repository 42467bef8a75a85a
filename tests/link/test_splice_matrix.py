"""Engine equals reference over tokenizers, policies, lexicons and a million words of real text.

The expected tokens are those that the tokenizer's own library gives to the substituted text: in whole
where nothing but a word's own edges cuts it, else in the parts that `Substituted.cuts` makes.
"""

import dataclasses
import gzip
import pathlib

import numpy as np
import pytest

from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer, train_byte_level
from jaxlink.link import sites as sites_lib
from jaxlink.link import splice, table, words
from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists, probability, stop_words_path
from jaxlink.link.substitute import substitute
from tests.data import test_foreign
from tests.link.test_formats_real import DICTIONARIES, FILES
from tests.link.token_windows import tail_of, windows_of

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = ROOT / 'tasks/sample'
CORPORA = DICTIONARIES.parent / 'corpora'
STOP = frozenset(
  line for line in pathlib.Path(stop_words_path('en')).read_text().splitlines()
  if line and not line.startswith('#')
)  # fmt: skip
FREQUENT = frozenset(
  [
    'time',
    'city',
    'year',
    'world',
    'people',
    'state',
    'war',
    'music',
    'water',
    'house',
    'day',
    'man',
    'life',
    'work',
    'part',
    'name',
    'school',
    'group',
    'river',
    'family',
    'game',
    'team',
    'king',
    'church',
    'film',
    'book',
    'law',
    'party',
    'game',
    'army',
  ]
)
KINDS = ('sentencepiece', 'bytes', 'gpt2', 'llama2')
BASE = LinkPolicy(lexicon='x', language='tr', doc_fraction=0.9, word_ratio=0.7)
POLICIES = {
  'per_document': {},
  'uniform': {'senses': 'uniform', 'word_ratio': 1.0, 'doc_fraction': 1.0},
  'weighted': {'senses': 'weighted'},
  'first, words alone': {'senses': 'first', 'multi_word': False, 'match_case': False},
  'content': {'regime': 'content'},
  'stop': {'regime': 'stop', 'word_ratio': 1.0},
  'domain': {'regime': 'domain', 'word_list': 'x', 'word_ratio': 1.0},
  'non_domain': {'regime': 'non_domain', 'word_list': 'x'},
  'entities': {'regime': 'entities', 'word_list': 'x', 'word_ratio': 1.0},
  'lemmas': {'lemmas': 'en'},
  'spaces': {'join': 'space'},
  'annotate': {'mode': 'annotate'},
  'restore': {'mode': 'restore'},
}


@pytest.fixture(scope='module')
def english() -> list[str]:
  """A million words: the sample's, in paragraphs, and what follows it in a larger collection."""
  texts = [d.text for d in sources.read_documents(str(SAMPLE / 'en.train.jsonl.gz'))]
  return [p for text in texts for p in text.split('\n\n') if p]


@pytest.fixture(scope='module')
def tokenizers(tmp_path_factory, english) -> dict[str, Tokenizer]:
  folder = tmp_path_factory.mktemp('tokenizers')
  turkish = gzip.decompress((SAMPLE / 'tr.validation.txt.gz').read_bytes()).decode().split('\n\n')
  texts = [*english[:1500], *turkish]
  train_byte_level(texts, 4000, str(folder / 'bytes.json'))
  made = {
    'sentencepiece': Tokenizer(str(SAMPLE / 'tokenizer.model')),
    'bytes': Tokenizer(str(folder / 'bytes.json')),
  }
  for kind in ('gpt2', 'llama2'):
    made[kind] = Tokenizer(test_foreign.make(kind, folder, texts))
  return made


def reach(lexicon: Lexicon, keys: set[str]) -> Lexicon:
  """The part of a lexicon that some words can meet: what is left can match nothing in the text."""
  entries = {
    key: targets for key, targets in lexicon.entries.items()
    if all(word in keys for word in key.split(' '))
  }  # fmt: skip
  return dataclasses.replace(lexicon, entries=entries, identity_only=lexicon.identity_only & keys)


def agree(texts, tokenizer, lexicon, policy, folder) -> tuple[int, int, int]:
  """Asserts equality; returns words replaced, words, and those of them that are unspliceable."""
  texts = [tokenizer.normalize(text) for text in texts]
  lists = WordLists(STOP, FREQUENT if policy.word_list else frozenset())
  windows = windows_of(texts, tokenizer)
  keys = {key for text in texts for key in map(words.key, words.split_words(text)[1::2])}
  language = next(iter(policy.lexicons))
  lexicon, _ = table.keep_spliceable(reach(lexicon, keys), language, policy.rendering, tokenizer)
  if not lexicon.entries:  # a small one that has none of these words
    return 0, len(windows.start_W), 0
  built = table.build(
    str(folder), {language: lexicon}, policy.rendering, lists, tokenizer, keys=sorted(keys),
    progress=False,
  )  # fmt: skip
  draws = Draws(0, 'en')
  choice = splice.Choice(
    policy.doc_fraction,
    policy.word_ratio,
    policy.senses,
    policy.language_by,
    False,
    lambda _: draws,
  )
  spliced = splice.splice(windows, built, choice, tail_of(tokenizer))
  bounds = spliced.place_N[np.flatnonzero(windows.starts_N)]
  assert (np.flatnonzero(spliced.starts_M) == bounds).all()
  first, opening = 0, int(tokenizer.bos_id is not None)
  for n, text in enumerate(texts):
    count = len(words.split_words(text)) // 2
    spliceable_N = windows.flags_W[first : first + count] & words.UNSPLICEABLE == 0
    first += count
    result = substitute(
      text, lexicon, policy, draws, document=key_of(text), lists=lists, spliceable_N=spliceable_N
    )
    glued = tokenizer.native and result.cuts
    expected = tokenizer.encode(result.text, result.cuts if glued else ())
    got = spliced.tokens_M[bounds[n] + opening : bounds[n + 1] - 1].tolist()
    assert got == expected, (text, result.text)
  unspliceable = int(np.count_nonzero(windows.flags_W & words.UNSPLICEABLE))
  return int(np.count_nonzero(spliced.kind_W & splice.REPLACED)), len(windows.start_W), unspliceable


@pytest.mark.parametrize('kind', KINDS)
def test_the_shipped_lexicon_over_a_million_words(kind, english, tokenizers, tmp_path):
  lexicon = Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')
  lexicon = dataclasses.replace(
    lexicon,
    weights={k: tuple(range(len(t), 0, -1)) for k, t in lexicon.entries.items() if len(t) > 1},
  )
  total = replaced = masked = 0
  share = -(-len(english) // len(POLICIES))
  for n, (name, changes) in enumerate(POLICIES.items()):
    texts = english[n * share : (n + 1) * share]
    policy = dataclasses.replace(BASE, **changes)
    cell, count, unspliceable = agree(
      texts, tokenizers[kind], lexicon, policy, tmp_path / name.replace(' ', '')
    )
    assert cell > 0, name
    total, replaced, masked = total + count, replaced + cell, masked + unspliceable
  assert total > 900_000
  assert replaced > 100_000
  assert masked < (0.02 if kind in ('gpt2', 'llama2') else 1e-9) * total


@pytest.mark.shared_data
@pytest.mark.skipif(not DICTIONARIES.is_dir(), reason='needs the large text collection')
@pytest.mark.parametrize('kind', KINDS)
def test_every_lexicon_of_the_collection(kind, english, tokenizers, tmp_path):
  texts = english[::9]
  replaced = 0
  empty = []
  for number, (name, language, *_) in enumerate(FILES):
    try:
      lexicon = Lexicon.load(DICTIONARIES / name, target=language)
    except ValueError:
      continue  # files of links alone; tests/link/test_formats_real.py has their errors
    for n, (title, changes) in enumerate(POLICIES.items()):
      policy = dataclasses.replace(BASE, language=language, **changes)
      if not tokenizers[kind].native:
        policy = dataclasses.replace(policy, join='space')
      some = texts[(number * 7 + n * 31) % 200 :: 50 if policy.word_list else 200]
      cell, _, _ = agree(some, tokenizers[kind], lexicon, policy, tmp_path / f'{number}-{n}')
      replaced += cell
      if not cell and len(lexicon.entries) > 300:
        empty.append((name, title))
  assert replaced > 100_000
  assert not empty


def test_over_a_million_words_the_dose_is_the_one_that_was_asked(english, tokenizers, tmp_path):
  """The bound is four standard deviations of a share of independent draws, one for each eligible word."""
  tokenizer = tokenizers['sentencepiece']
  lexicon = Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')
  windows = windows_of(english, tokenizer)
  built = table.build(
    str(tmp_path / 't'), {'tr': lexicon}, BASE.rendering, WordLists(), tokenizer, progress=False
  )
  kinds = sites_lib.find(windows, built)[2]
  words_all, eligible = len(kinds), int(np.count_nonzero(kinds & table.ELIGIBLE))
  assert words_all > 900_000
  for ratio_of, asked in (('covered', 0.05), ('covered', 0.3), ('all', 0.1), ('all', 0.35)):
    p, shortfall = probability(ratio_of, asked, words_all, eligible)
    assert shortfall == 0
    for seed in range(3):
      draws = Draws(seed, 'en')
      choice = splice.Choice(1.0, p, 'first', 'per_document', False, lambda _, draws=draws: draws)
      replaced = np.count_nonzero(splice.splice(windows, built, choice).kind_W & splice.REPLACED)
      bound = 4 * (p * (1 - p) / eligible) ** 0.5
      of = eligible if ratio_of == 'covered' else words_all
      assert replaced / of == pytest.approx(asked, abs=bound * eligible / of)
