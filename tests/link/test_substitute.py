"""Substitution: the check values of METHODS section 1, and equality with a naive implementation."""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import unicodedata

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import regex

from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import Dose, LinkPolicy, WordLists
from jaxlink.link.substitute import count, substitute
from tests.link.test_words import HOSTILE

TEXT = 'The dog ran. DOG and Dog saw Berlin, not a cat.'
GERMAN = Lexicon.from_pairs(
  pair.split(':')
  for line in [
    'the:der the:die the:das dog:hund dog:hunde ran:lief ran:ran saw:sah',
    'berlin:berlin not:nicht a:ein a:a cat:katze',
  ]
  for pair in line.split(' ')
)
CHINESE = Lexicon.from_pairs([('black', '黑'), ('cat', '猫')])
# Of the English-German WECHSEL list.
PHRASES = Lexicon.from_pairs(
  pair.split(':')
  for line in [
    'free:frei, free of charge:umsonst, charge:Ladung, of:von, free of:ohne',
    'as well:auch, well:gut, well well:na ja',
  ]
  for pair in line.split(', ')
)
EN = Draws(0, 'en')
STOP_WORDS = frozenset({'the', 'and', 'not', 'a'})


def policy(**changes):
  """Everything that can be replaced is, by its first sense, unless `changes` says otherwise."""
  given = {'lexicon': 'list.txt', 'language': 'de', 'senses': 'first'}
  given |= {'doc_fraction': 1.0, 'word_ratio': 1.0}
  return LinkPolicy(**(given | changes))


def rewrite(text=TEXT, lexicon=GERMAN, draws=EN, document=7, **changes):
  lists = WordLists(STOP_WORDS) if changes.get('regime') == 'content' else WordLists()
  return substitute(text, lexicon, policy(**changes), draws, document=document, lists=lists)


class Sha256Draws:
  """First 8 bytes of SHA-256 of `seed|stream|doc|k`, over 2^64; keys and documents are strings."""

  def __init__(self, seed):
    self.seed = seed
    self.names = {}  # of keys that key_of made

  def key_of(self, text):
    self.names[key_of(text)] = text
    return key_of(text)

  def uniform(self, stream, document, k):
    if isinstance(k, np.ndarray):
      return np.array([self.uniform(stream, document, int(one)) for one in k], float)
    name = f'{self.seed}|{stream}|{self.names[document]}|{self.names.get(k, k)}'
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') / 2**64


SHA = Sha256Draws(0)
EN_0, EN_1, EN_2, EN_3 = (SHA.key_of(f'en-{i}') for i in range(4))


# ── check values ────────────────────────────────────────────────────────────────


def test_counts_of_the_check_text():
  dose = count(TEXT, GERMAN, policy())
  assert (dose.words, dose.covered_any, dose.covered) == (11, 10, 9)
  assert (dose.identity_dropped, dose.eligible, dose.replaced) == (1, 9, 0)
  assert (dose.documents, dose.documents_rewritten) == (1, 0)
  assert count(TEXT, GERMAN, policy(regime='content'), WordLists(STOP_WORDS)).eligible == 6
  assert count(TEXT, GERMAN, policy(regime='content'), WordLists(STOP_WORDS)).covered == 9


def test_uniform_replace():
  result = rewrite()
  assert result.text == 'Der hund lief. HUND and Hund sah Berlin, nicht ein katze.'
  assert result.dose == Dose(
    documents=1,
    documents_rewritten=1,
    words_seen=11,
    words=11,
    covered_any=10,
    covered=9,
    eligible=9,
    replaced=9,
  )


def test_content_annotate():
  result = rewrite(regime='content', mode='annotate')
  assert result.text == (
    'The dog (hund) ran (lief). DOG (HUND) and Dog (Hund) saw (sah) Berlin, not a cat (katze).'
  )
  assert (result.dose.eligible, result.dose.replaced, result.dose.stop_replaced) == (6, 6, 0)


def test_stop_words_are_counted_where_they_are_replaced():
  result = substitute(
    TEXT, GERMAN, policy(), Draws(0, 'en'), document=0, lists=WordLists(STOP_WORDS)
  )
  assert (result.dose.replaced, result.dose.stop_replaced) == (9, 3)


def test_all_with_probability_one_replaces_what_is_eligible():
  asked = policy(word_ratio=0.9, ratio_of='all')
  result = substitute(TEXT, GERMAN, asked, SHA, document=EN_2, probability=1.0)
  assert result.dose.replaced == 9
  assert result.dose.shortfall(0.9) == pytest.approx(0.0818, abs=5e-5)
  assert result.dose.shortfall(0.3) == 0


@pytest.mark.parametrize(
  ('document', 'expected'),
  [(EN_0, 0.663589), (EN_1, 0.597435), (EN_2, 0.753430), (EN_3, 0.338425)],
)
def test_the_reference_draw_rewrites_only_document_3_of_half(document, expected):
  assert SHA.uniform('doc', document, 0) == pytest.approx(expected, abs=5e-7)
  result = rewrite(draws=SHA, document=document, doc_fraction=0.5)
  assert (result.text != TEXT) == (document == EN_3)


@pytest.mark.parametrize(
  ('ratio', 'expected'),
  [
    (0.5, 'The dog ran. HUND and Dog saw Berlin, nicht ein katze.'),
    (0.3, 'The dog ran. HUND and Dog saw Berlin, not a katze.'),
  ],
)
def test_words_of_the_reference_draw(ratio, expected):
  assert rewrite(draws=SHA, document=EN_2, word_ratio=ratio).text == expected


@pytest.mark.parametrize(
  ('senses', 'expected'),
  [
    ('uniform', 'Die hund lief. HUNDE and Hunde sah Berlin, nicht ein katze.'),
    ('per_document', 'Der hund lief. HUND and Hund sah Berlin, nicht ein katze.'),
  ],
)
def test_senses_of_the_reference_draw(senses, expected):
  assert rewrite(draws=SHA, document=EN_2, senses=senses).text == expected


@pytest.mark.parametrize(('join', 'expected'), [('auto', 'a黑猫 sat'), ('space', 'a 黑 猫 sat')])
@pytest.mark.parametrize('language', ['zh', 'zho', 'zh-Hant', 'ZH_tw', 'ja', 'th', 'bo'])
def test_join(join, expected, language):
  assert rewrite('a black cat sat', CHINESE, language=language, join=join).text == expected


def test_join_keeps_spaces_in_other_languages_and_in_annotations():
  assert rewrite('a black cat sat', CHINESE, language='de').text == 'a 黑 猫 sat'
  annotated = rewrite('a black cat sat', CHINESE, language='zh', mode='annotate')
  assert annotated.text == 'a black (黑) cat (猫) sat'


def test_join_takes_one_space_and_nothing_else():
  result = rewrite('cat  cat\n cat\ncat, cat', CHINESE, language='zh')
  assert result.text == '猫 猫\n猫\n猫,猫'


@pytest.mark.parametrize('changes', [{'doc_fraction': 0.0}, {'word_ratio': 0.0}])
@hypothesis.given(text=HOSTILE)
def test_a_fraction_or_ratio_of_zero_leaves_every_text_as_it_is(changes, text):
  text += TEXT
  result = rewrite(text, **changes)
  assert result.text == text
  assert result.sites == []
  assert result.dose.replaced == 0


@pytest.mark.parametrize('changes', [{'doc_fraction': 0.0}, {'word_ratio': 0.0}])
def test_a_draw_of_exactly_zero_is_not_below_a_ratio_of_zero(changes):
  class Zeros(Draws):
    def uniform(self, stream, document, k):
      return np.zeros(np.shape(k))

  assert rewrite(draws=Zeros(0, 'en')).text != TEXT
  assert rewrite(draws=Zeros(0, 'en'), **changes).text == TEXT


def test_an_untouched_document_counts_its_words_as_seen_only():
  assert rewrite(doc_fraction=0.0).dose == Dose(documents=1, words_seen=11)


@hypothesis.given(st.integers(0, 2**64 - 1), st.floats(0, 1), st.floats(0, 1))
def test_raising_the_ratio_never_undoes_a_replacement(document, a, b):
  low, high = (
    rewrite(document=document, word_ratio=ratio, senses='per_document').sites
    for ratio in sorted((a, b))
  )
  assert set(low) <= set(high)


def test_raising_the_document_fraction_never_undoes_a_document():
  def drawn(fraction):
    return {i for i in range(200) if rewrite(document=i, doc_fraction=fraction).text != TEXT}

  assert drawn(0.1) < drawn(0.5) < drawn(0.9)
  assert len(drawn(0.5)) == pytest.approx(100, abs=30)


# ── case ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ('language', 'source', 'target', 'expected'),
  [
    ('de', 'DOG', 'straße', 'STRASSE'),
    ('de', 'A', 'ein', 'Ein'),
    ('de', 'dog', 'Hund', 'Hund'),
    ('de', 'iPhone', 'hund', 'hund'),
    ('tr', 'Work', 'iş', 'İş'),
    ('tur', 'WORK', 'iş ışık', 'İŞ IŞIK'),
    ('tr-TR', 'Light', 'ışık', 'Işık'),
    ('az', 'Work', 'iş', 'İş'),
    ('de', 'Work', 'iş', 'Iş'),
    ('fr', 'School', "l'école", "L'école"),
    ('fr', 'School', '3 écoles', '3 Écoles'),
    ('hr', 'Jeep', 'ǆip', 'ǅip'),
    ('el', 'DREAM', 'ΐ', unicodedata.normalize('NFC', 'ΐ'.upper())),
    ('ka', 'Dog', 'ძაღლი', 'ძაღლი'),
    ('ur', 'Dog', 'کتا', 'کتا'),
    ('ar', 'DOG', 'كلب', 'كلب'),
    ('bn', 'Dog', 'কুকুর', 'কুকুর'),
    ('zh', 'DOG', '狗', '狗'),
  ],
)
def test_a_replacement_takes_the_case_of_its_source(language, source, target, expected):
  lexicon = Lexicon.from_pairs([(source, target)])
  assert rewrite(source, lexicon, language=language).text == expected
  assert rewrite(source, lexicon, language=language, match_case=False).text == target


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('FREE OF CHARGE', 'UMSONST'),
    ('Free of charge', 'Umsonst'),
    ('FREE of charge', 'Umsonst'),
    ('free of CHARGE', 'umsonst'),
  ],
)
def test_case_of_several_words_is_that_of_all_or_of_the_first(text, expected):
  assert rewrite(text, PHRASES).text == expected


# ── sources of several words ────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('It is free of charge.', 'It is umsonst.'),
    ('free of it, free', 'ohne it, frei'),
    ('free  of charge', 'frei  von Ladung'),
    ('free\nof charge', 'frei\nvon Ladung'),
    ('free of-charge', 'ohne-Ladung'),
    ('free, of charge', 'frei, von Ladung'),
    ('as well well', 'auch gut'),
    ('well well well', 'na ja gut'),
    ('free free of', 'frei ohne'),
    ('as', 'as'),
  ],
)
def test_the_longest_source_from_the_left_over_single_spaces(text, expected):
  assert rewrite(text, PHRASES).text == expected


def test_a_source_of_several_words_counts_each_of_them():
  result = rewrite('free of charge of it', PHRASES)
  assert result.text == 'umsonst von it'
  assert (result.dose.words, result.dose.covered, result.dose.replaced) == (5, 4, 4)
  assert result.sites[0] == (0, 14, 'free of charge', 'umsonst')


def test_one_draw_of_the_first_word_decides_for_a_source_of_several():
  text = 'free of charge'
  for document in range(50):
    whole = Draws(0, 'en').uniform('word', document, 0) < 0.5
    result = rewrite(text, PHRASES, document=document, word_ratio=0.5)
    assert result.text == ('umsonst' if whole else text)


def test_multi_word_off_matches_words_alone():
  assert rewrite('free of charge', PHRASES, multi_word=False).text == 'frei von Ladung'


def test_a_source_of_several_words_is_a_stop_word_if_all_of_them_are():
  content = policy(regime='content')
  for stop_words, eligible in [({'free', 'of', 'charge'}, 0), ({'free', 'of'}, 3)]:
    dose = count('free of charge', PHRASES, content, WordLists(frozenset(stop_words)))
    assert (dose.covered, dose.eligible) == (3, eligible)


# ── the naive implementation ────────────────────────────────────────────────────


def naive(text, lexicon, policy, draws, document, ratio, stop_words):
  """Word by word and draw by draw, as METHODS section 1 writes it down."""
  spans = [m.span() for m in regex.finditer(r"[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*", text)]
  if not draws.uniform('doc', document, 0) < policy.doc_fraction:
    return text, Dose(documents=1, words_seen=len(spans))

  def key(start, end):
    return unicodedata.normalize('NFC', text[start:end]).casefold()

  n = dict.fromkeys(('any', 'covered', 'eligible', 'replaced', 'stop'), 0)
  out, done, i = '', 0, 0
  while i < len(spans):
    for length in range(lexicon.max_words if policy.multi_word else 1, 0, -1):
      run = spans[i : i + length]
      gaps = [text[a[1] : b[0]] for a, b in itertools.pairwise(run)]
      whole = ' '.join(key(*span) for span in run)
      if len(run) == length and set(gaps) <= {' '} and whole in lexicon.entries:
        break
    else:
      n['any'] += key(*spans[i]) in lexicon.identity_only
      i += 1
      continue
    n['any'] += length
    n['covered'] += length
    stop = all(key(*span) in stop_words for span in run)
    if not (stop and policy.regime == 'content'):
      n['eligible'] += length
      if draws.uniform('word', document, i) < ratio:
        n['replaced'] += length
        n['stop'] += length * stop
        targets = lexicon.entries[whole]
        k = {'uniform': i, 'per_document': key_of(whole), 'first': None}[policy.senses]
        u = 0.0 if k is None else draws.uniform('sense', document, k)
        target = targets[int(u * len(targets))]
        start, end = run[0][0], run[-1][1]
        if policy.match_case:
          target = naive_case([text[a:b] for a, b in run], target, policy.language)
        before = text[done:start]
        if policy.mode == 'annotate':
          target = f'{text[start:end]} ({target})'
        elif policy.join == 'auto' and policy.language == 'zh':
          before = before.removesuffix(' ')
        out, done = out + before + target, end
    i += length
  return out + text[done:], Dose(
    1, 1, len(spans), len(spans), n['any'], n['covered'], n['eligible'], n['replaced'], n['stop']
  )


def naive_case(surfaces, target, language):
  def letters(word):
    return [c for c in word if regex.match(r'\p{L}', c)]

  def all_upper(word):
    return word[0].isupper() and word.isupper() and len(letters(word)) >= 2

  if all(map(all_upper, surfaces)):
    target = (target.replace('i', 'İ') if language == 'tr' else target).upper()
  elif surfaces[0][0].isupper() or surfaces[0][0].istitle():
    for at, c in enumerate(target):
      if regex.match(r'\p{L}', c):
        c = 'İ' if c == 'i' and language == 'tr' else c.title()
        target = target[:at] + c + target[at + 1 :]
        break
  return unicodedata.normalize('NFC', target)


SOURCES = ['dog', 'DOG', 'Dog', 'the', 'é', 'E\u0301', 'क्षि', 'cat', 'not', 'as', 'well', 'ß', 'İ']
TARGETS = ['hund', 'ışık iş', '猫', "l'école", '-ler', 'ǆ', 'کتا', 'nicht so', 'dog', 'ΐ', '2.']
PAIRS = st.tuples(
  st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3).map(' '.join),
  st.sampled_from(TARGETS),
)
LEXICONS = st.lists(PAIRS, max_size=25).map(
  lambda pairs: Lexicon.from_pairs([*pairs, ('dog', 'hund'), ('dog', 'hunde'), ('cat', 'CAT')])
)
TEXTS = st.lists(
  st.one_of(st.sampled_from(SOURCES + [' '] * 12 + ["'", '’', '\n', '-', '  ', ', ']), HOSTILE),
  max_size=40,
).map(''.join)
POLICIES = st.builds(
  LinkPolicy,
  lexicon=st.just('list.txt'),
  language=st.sampled_from(['de', 'tr', 'zh']),
  doc_fraction=st.sampled_from([0.5, 0.9, 1.0]),
  word_ratio=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
  senses=st.sampled_from(['per_document', 'uniform', 'first']),
  regime=st.sampled_from(['uniform', 'content']),
  mode=st.sampled_from(['replace', 'annotate']),
  match_case=st.booleans(),
  join=st.sampled_from(['auto', 'space']),
  multi_word=st.booleans(),
)


@hypothesis.settings(max_examples=400)
@hypothesis.given(TEXTS, LEXICONS, POLICIES, st.integers(0, 2**64 - 1))
def test_substitution_equals_the_naive_implementation(text, lexicon, policy, document):
  draws, lists = Draws(3, 'en'), WordLists(frozenset({'the', 'dog', 'é'}))
  result = substitute(text, lexicon, policy, draws, document=document, lists=lists)
  expected = naive(text, lexicon, policy, draws, document, policy.word_ratio, lists.stop_words)
  assert (result.text, result.dose) == expected

  rebuilt, done = '', 0
  for start, end, original, replacement in result.sites:
    assert text[start:end] == original
    rebuilt += text[done:start] + replacement
    done = end
  assert rebuilt + text[done:] == result.text

  counted = count(text, lexicon, policy, lists)
  assert (counted.words_seen, counted.replaced) == (result.dose.words_seen, 0)
  if result.dose.documents_rewritten:
    assert (
      dataclasses.replace(result.dose, documents_rewritten=0, replaced=0, stop_replaced=0)
      == counted
    )


def test_real_sentences_equal_the_naive_implementation():
  text = (
    'MARMITE is a British food spread produced by Unilever. Free of charge, as well as a dog’s '
    'dinner: "Love it or hate it." The DOG ran\n\nwell-known as well; not FREE OF CHARGE in Berlin.'
  )
  lexicon = Lexicon.from_pairs(
    [
      (key, target)
      for part in (GERMAN, PHRASES)
      for key in part.entries
      for target in part.entries[key]
    ]
  )
  for document in range(30):
    asked = policy(word_ratio=0.6, senses='uniform')
    result = substitute(text, lexicon, asked, Draws(1, 'en'), document=document)
    expected = naive(text, lexicon, asked, Draws(1, 'en'), document, 0.6, frozenset())
    assert (result.text, result.dose) == expected


def test_many_words_and_few_remembered_ones_give_the_same_text(monkeypatch):
  names = [a + b + c for a in 'bdfgklmn' for b in 'aeiouäöü' for c in 'prstvwxz']  # 512
  text = ' '.join(f'{a} {b}{c}' for a in names[:40] for b in names[::8] for c in ('', a))
  lexicon = Lexicon.from_pairs([(name, f'{name}en') for name in names[::3]])
  expected = naive(text, lexicon, policy(), EN, 7, 1.0, frozenset())
  result = rewrite(text, lexicon)
  assert (result.text, result.dose) == expected
  monkeypatch.setattr('jaxlink.link.substitute._SURFACES', 100)
  for _ in range(3):
    assert rewrite(text, lexicon).text == expected[0]


def test_threads_share_what_they_know():
  names = [a + b + c + d for a in 'bdfgklmn' for b in 'aeiou' for c in 'prstvwxz' for d in 'aeiou']
  texts = [' '.join(names[i:] + names[:i]) for i in range(0, 1600, 100)]
  lexicon = Lexicon.from_pairs([(name, f'{name}n') for name in names[::2]])
  expected = [naive(text, lexicon, policy(), EN, 7, 1.0, frozenset())[0] for text in texts]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert [r.text for r in pool.map(lambda text: rewrite(text, lexicon), texts)] == expected


# ── doses, errors, settings ─────────────────────────────────────────────────────


def test_doses_add_up_and_tell_their_ratios():
  one = rewrite(document=1).dose
  none = rewrite(doc_fraction=0.0).dose
  total = sum([one, none, one], Dose())
  assert (total.documents, total.documents_rewritten) == (3, 2)
  assert (total.words_seen, total.words, total.replaced) == (33, 22, 18)
  assert total.realised_all == 18 / 22
  assert total.realised_covered == 1.0
  assert total.identity_dropped == 2
  assert (none.realised_all, none.realised_covered, none.shortfall(0.5)) == (0, 0, 0)


def test_a_share_of_all_words_needs_the_probability_of_the_whole_source():
  with pytest.raises(ValueError, match="ratio_of is 'all': pass the probability"):
    rewrite(ratio_of='all')


@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan')])
def test_a_probability_is_0_to_1(value):
  with pytest.raises(ValueError, match=r'probability is .*: it is 0 to 1'):
    substitute(TEXT, GERMAN, policy(), SHA, document=EN_0, probability=value)


def test_content_needs_its_stop_words():
  asked = policy(regime='content')
  with pytest.raises(ValueError, match='stop_words is empty'):
    substitute(TEXT, GERMAN, asked, SHA, document=EN_0)
  with pytest.raises(ValueError, match='stop_words is empty'):
    count(TEXT, GERMAN, asked)


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'doc_fraction': 0.0}, TEXT),
    ({'word_ratio': 0.0}, TEXT),
    ({'mode': 'annotate', 'multi_word': False}, 'The (Der)'),
    ({'match_case': False}, 'der hund lief. hund and hund'),
    ({'join': 'space', 'language': 'zh'}, 'Der hund'),
    ({'language': 'zh'}, 'Derhundlief'),
  ],
)
def test_each_setting_changes_the_text(changes, expected):
  assert rewrite(**changes).text.startswith(expected)
