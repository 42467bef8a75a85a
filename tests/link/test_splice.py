"""The engine: tokens spliced equal the text substituted and tokenised, for every policy and tokenizer."""

import dataclasses
import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer, train_byte_level
from jaxlink.link import sites as sites_lib
from jaxlink.link import splice, table
from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import Dose, LinkPolicy, WordLists
from jaxlink.link.substitute import substitute
from tests.link.test_words import HOSTILE
from tests.link.token_windows import BOS, EOS, tail_of, windows_of

SAMPLE = pathlib.Path(__file__).parents[2] / 'tasks/sample'
LISTS = WordLists(
  frozenset({'the', 'of', 'and', 'not', 'a', 'in', 'is', 'was'}),
  frozenset({'city', 'war', 'world', 'united states', 'new york', 'dog', 'of the', 'free', 'in'}),
)
# Of several words on both sides, in a script without spaces, with digits at an edge, with weights.
TURKISH = Lexicon.load(SAMPLE / 'en-tr.tsv', target='tr')
CHINESE = Lexicon.from_pairs(
  [('black', '黑'), ('cat', '猫'), ('the', '这'), ('march', '3月'), ('of', '的'), ('city', '城市'),
   ('world war', '世界大战'), ('war', '战争'), ('world', '世界'), ('in the', '在'), ('a', '一')]
)  # fmt: skip
PHRASES = Lexicon.from_pairs(
  [('free', 'frei', 3.0), ('free', 'gratis', 1.0), ('free of charge', 'umsonst', 1.0),
   ('charge', 'Ladung', 1.0), ('of', 'von', 1.0), ('free of', 'ohne', 1.0), ('as well', 'auch', 1.0),
   ('well', 'gut', 1.0), ('well well', 'na ja', 1.0), ('the', 'der', 5.0), ('the', 'die', 4.0),
   ('the', 'das', 1.0), ('dog', 'hund', 2.0), ('dog', 'hunde', 1.0), ('berlin', 'berlin', 1.0),
   ('in', 'in', 1.0), ('united states', 'Vereinigte Staaten', 1.0), ('of the', 'des', 1.0)]
)  # fmt: skip


@pytest.fixture(scope='session')
def english() -> list[str]:
  documents = sources.read_documents(str(SAMPLE / 'en.train.jsonl.gz'))
  texts = [d.text for d, _ in zip(documents, range(8), strict=False)]
  # Paragraphs, so that there are documents enough to draw from.
  return sorted({p for text in texts for p in text.split('\n\n') if len(p) > 80})[:160]


@pytest.fixture(scope='session')
def tokenizers(tmp_path_factory, english) -> dict[str, Tokenizer]:
  path = str(tmp_path_factory.mktemp('tokenizers') / 'bytes.json')
  train_byte_level([*english, '黑猫 这 3月 的 城市 世界大战'], 2_000, path)
  return {'sentencepiece': Tokenizer(str(SAMPLE / 'tokenizer.model')), 'bytes': Tokenizer(path)}


def check(
  texts, tokenizer, lexicons, policy, folder, *, windows=None
) -> tuple[splice.Spliced, int]:
  """Asserts that engine and reference agree; returns the splice and the number of sites."""
  keys = sorted({key for text in texts for key in tokenizer.encode_marked(text).types})
  built = table.build(str(folder), lexicons, policy.rendering, LISTS, tokenizer, keys=keys)
  draws = Draws(3, 'en')
  choice = splice.Choice(
    policy.doc_fraction, policy.word_ratio, policy.senses, policy.language_by, policy.redraw,
    lambda epoch: draws,
  )  # fmt: skip
  windows = windows or windows_of(texts, tokenizer)
  spliced = splice.splice(windows, built, choice, tail_of(tokenizer))
  tokens, sizes, languages, dose = [], [], [], Dose()
  for text in texts:
    result = substitute(text, lexicons, policy, draws, document=key_of(text), lists=LISTS)
    document = [BOS, *tokenizer.encode(result.text, result.cuts), EOS]
    tokens += document
    sizes.append(len(document))
    languages += result.language_S.tolist()
    dose += result.dose
  assert spliced.tokens_M.tolist() == [*tokens, BOS]
  begins = np.cumsum([0, *sizes])
  assert np.flatnonzero(spliced.starts_M).tolist() == begins.tolist()
  assert spliced.language_S.tolist() == languages
  counted = [int(np.count_nonzero(spliced.kind_W & bit)) for bit in _BITS]
  assert counted == [
    dose.words, dose.covered_any, dose.covered, dose.eligible, dose.replaced, dose.stop_replaced,
  ]  # fmt: skip
  return spliced, len(spliced.word_S)


_BITS = (
  sites_lib.REWRITTEN, table.COVERED_ANY, table.COVERED, table.ELIGIBLE, splice.REPLACED,
  splice.STOP_REPLACED,
)  # fmt: skip


def policy(language='tr', **changes):
  given = {'lexicon': 'list', 'language': language, 'doc_fraction': 0.8, 'word_ratio': 0.6}
  if 'lexicon' in changes:
    del given['language']
  return LinkPolicy(**(given | changes))


POLICIES = {
  'default': policy(doc_fraction=0.5, word_ratio=0.3),
  'everything': policy(doc_fraction=1.0, word_ratio=1.0, senses='uniform'),
  'first': policy(senses='first', match_case=False),
  'weighted': policy(senses='weighted'),
  'words alone': policy(multi_word=False),
  'content': policy(regime='content'),
  'stop': policy(regime='stop'),
  'domain': policy(regime='domain', word_list='list'),
  'non_domain': policy(regime='non_domain', word_list='list'),
  'entities': policy(regime='entities', word_list='list', word_ratio=1.0),
  'spaces': policy(join='space'),
  'lemmas': policy(lemmas='en'),
  'annotate': policy(mode='annotate'),
  'annotate everything': policy(mode='annotate', doc_fraction=1.0, word_ratio=1.0),
  'restore': policy(mode='restore'),
}


@pytest.mark.parametrize('name', POLICIES)
@pytest.mark.parametrize('kind', ['sentencepiece', 'bytes'])
@pytest.mark.parametrize(
  ('language', 'lexicon'), [('tr', TURKISH), ('zh', CHINESE), ('de', PHRASES)]
)
def test_real_text_spliced_is_the_text_substituted(
  name, kind, language, lexicon, english, tokenizers, tmp_path
):
  asked = dataclasses.replace(POLICIES[name], language=language)
  _, sites = check(english, tokenizers[kind], {language: lexicon}, asked, tmp_path / 't')
  assert sites > 5


@pytest.mark.parametrize('language_by', ['per_document', 'per_word'])
@pytest.mark.parametrize('mode', ['replace', 'annotate'])
def test_several_languages_are_drawn_by_document_or_by_word(
  language_by, mode, english, tokenizers, tmp_path
):
  lexicons = {'tr': TURKISH, 'zh': CHINESE, 'de': PHRASES}
  asked = policy(lexicon=dict.fromkeys(lexicons, 'x'), language_by=language_by, mode=mode)
  spliced, _ = check(english, tokenizers['sentencepiece'], lexicons, asked, tmp_path / 't')
  assert set(spliced.language_S.tolist()) == {0, 1, 2}
  windows = windows_of(english, tokenizers['sentencepiece'])
  fragment_S = np.searchsorted(windows.fragment_F, windows.start_W[spliced.word_S], 'right') - 1
  documents = windows.document_F[fragment_S]
  pairs = {(d, g) for d, g in zip(documents.tolist(), spliced.language_S.tolist(), strict=True)}
  one_each = len(pairs) == len(set(documents.tolist()))
  assert one_each == (language_by == 'per_document')


PIECES = st.sampled_from(
  ['dog', 'DOG', 'Free', 'free', 'of', 'charge', 'the', 'as', 'well', 'black', 'cat', 'March', 'in',
   'world', 'war', 'of the', 'Berlin', 'é', 'a']
)  # fmt: skip
TEXTS = st.lists(
  st.lists(
    st.one_of(PIECES, st.sampled_from([' '] * 12 + ['\n', ', ', '.', '(', ') ', '  ', '-', "'"]), HOSTILE),
    max_size=25,
  ).map(lambda parts: ''.join(parts).encode('utf-8', 'ignore').decode()),  # without lone surrogates
  min_size=1,
  max_size=4,
  unique=True,
)  # fmt: skip


@pytest.mark.parametrize(
  'name', ['everything', 'weighted', 'content', 'annotate everything', 'restore']
)
@pytest.mark.parametrize('kind', ['sentencepiece', 'bytes'])
@hypothesis.settings(
  max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(texts=TEXTS)
def test_hostile_text_spliced_is_the_text_substituted(name, kind, texts, tokenizers, tmp_path):
  for language, lexicon in (('zh', CHINESE), ('de', PHRASES)):
    asked = dataclasses.replace(POLICIES[name], language=language)
    check(texts, tokenizers[kind], {language: lexicon}, asked, tmp_path / language)


@pytest.mark.parametrize('changes', [{'doc_fraction': 0.0}, {'word_ratio': 0.0}])
def test_nothing_drawn_leaves_every_token_as_it_was(changes, english, tokenizers, tmp_path):
  windows = windows_of(english, tokenizers['sentencepiece'])
  spliced, sites = check(
    english, tokenizers['sentencepiece'], {'tr': TURKISH}, policy(**changes), tmp_path / 't',
    windows=windows,
  )  # fmt: skip
  assert sites == 0
  assert spliced.tokens_M.tobytes() == windows.tokens_N.tobytes()
  assert spliced.place_N.tolist() == list(range(len(windows.tokens_N) + 1))


def test_raising_the_ratio_never_undoes_a_replacement(english, tokenizers, tmp_path):
  low, _ = check(
    english, tokenizers['bytes'], {'de': PHRASES}, policy('de', word_ratio=0.3), tmp_path / 't'
  )
  high, _ = check(
    english, tokenizers['bytes'], {'de': PHRASES}, policy('de', word_ratio=0.7), tmp_path / 't'
  )
  assert set(low.word_S.tolist()) < set(high.word_S.tolist())


def test_old_tokens_are_found_at_their_new_places(english, tokenizers, tmp_path):
  windows = windows_of(english, tokenizers['bytes'])
  spliced, _ = check(
    english, tokenizers['bytes'], {'de': PHRASES}, policy('de'), tmp_path / 't', windows=windows
  )
  last = spliced.word_S + spliced.extent_W[spliced.word_S] - 1
  inside = np.zeros(len(windows.tokens_N), bool)
  for begin, end in zip(
    windows.start_W[spliced.word_S], windows.start_W[last] + windows.length_W[last], strict=True
  ):
    inside[begin:end] = True
  kept = np.flatnonzero(~inside)
  assert (spliced.tokens_M[spliced.place_N[kept]] == windows.tokens_N[kept]).all()
  assert (np.diff(spliced.place_N) >= 0).all()
  assert spliced.place_N[-1] == len(spliced.tokens_M)
  assert (
    np.flatnonzero(spliced.starts_M) == spliced.place_N[np.flatnonzero(windows.starts_N)]
  ).all()


def test_restore_asks_for_the_first_token_of_the_original_and_for_nothing_else(
  english, tokenizers, tmp_path
):
  windows = windows_of(english, tokenizers['sentencepiece'])
  spliced, sites = check(
    english, tokenizers['sentencepiece'], {'tr': TURKISH}, POLICIES['restore'], tmp_path / 't',
    windows=windows,
  )  # fmt: skip
  assert sites > 300
  begins = spliced.begin_S
  originals = windows.tokens_N[windows.start_W[spliced.word_S]]
  assert (spliced.labels_M[begins] == originals).all()
  changed = np.flatnonzero(spliced.labels_M != spliced.tokens_M)
  assert set(changed.tolist()) <= set(begins.tolist())
  edges = [*windows.fragment_F.tolist(), len(windows.tokens_N)]
  rewritten = np.repeat(spliced.rewritten_F, np.diff(edges))
  expected = np.zeros(len(spliced.tokens_M), bool)
  expected[spliced.place_N[:-1][~rewritten]] = True
  expected[begins] = True
  assert (spliced.mask_M == expected).all()
  assert 0 < rewritten.mean() < 1


def test_a_draw_of_another_epoch_is_asked_only_for_redraw(english, tokenizers, tmp_path):
  built = table.build(
    str(tmp_path / 't'), {'tr': TURKISH}, policy().rendering, LISTS, tokenizers['sentencepiece']
  )
  windows = windows_of(english, tokenizers['sentencepiece'])
  middle = len(windows.fragment_F) // 2
  epochs = np.repeat([4, 5], [middle, len(windows.fragment_F) - middle])
  windows = windows._replace(epoch_F=epochs)
  half = np.searchsorted(windows.start_W, windows.fragment_F[middle])

  def sites(redraw, *fixed):
    asked: set[int] = set()

    def draws(epoch):
      asked.add(epoch)
      return Draws(0, 'en', fixed[0] if fixed else epoch)

    choice = splice.Choice(1.0, 0.3, 'uniform', 'per_document', redraw, draws)
    return splice.splice(windows, built, choice).word_S, asked

  still, asked = sites(False)
  assert asked == {0}
  fresh, asked = sites(True)
  assert asked == {4, 5}
  fourth, fifth = sites(False, 4)[0], sites(False, 5)[0]
  assert fresh.tolist() == [*fourth[fourth < half].tolist(), *fifth[fifth >= half].tolist()]
  assert fresh.tolist() != still.tolist()
