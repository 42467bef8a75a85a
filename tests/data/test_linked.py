"""Windows with LINK: every row is a stretch of the substituted source, wherever it begins."""

import dataclasses
import itertools
import json
import pickle
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxlink.data import blocks as blocks_lib
from jaxlink.data.linked import LinkedWindows, counts_of
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.data.windows import Windows
from jaxlink.link import sites as sites_lib
from jaxlink.link import splice, table
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import DOSE_FIELDS, LinkPolicy
from tests.link.test_splice import LISTS, PHRASES, SAMPLE, TURKISH, english  # noqa: F401

# Long sources whose beginnings and ends are words of their own, so that an edge in the middle of one
# shows.
CHAINS = Lexicon.from_pairs(
  [('a b', 'eins'), ('b c', 'zwei'), ('c a', 'drei vier'), ('a b c a b', 'alle fünf auf einmal'),
   ('b', 'be'), ('c', 'ce'), ('c a b c', 'vier davon')]
)  # fmt: skip
BLOCK = 64


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
  return Tokenizer(str(SAMPLE / 'tokenizer.model'))


def write_cache(folder, texts, tokenizer, shards=2) -> blocks_lib.Blocks:
  folder.mkdir(parents=True)
  counts = []
  for shard in range(shards):
    writer = blocks_lib.ShardWriter(
      str(folder),
      shard,
      block=BLOCK,
      size=tokenizer.size,
      bos=tokenizer.bos_id,
      eos=tokenizer.eos_id,
    )
    for text in texts[shard::shards]:
      marked = tokenizer.encode_marked(text)
      writer.add(blocks_lib.Encoded(key_of(text), marked.ids, marked.words, marked.types))
    counts.append({'shard': shard, **writer.close()})
  manifest = {
    'format': blocks_lib.FORMAT, 'task': 'en', 'language': 'en', 'block': BLOCK, 'shards': counts,
    'fingerprint': str(key_of('|'.join(texts))), 'dose': None,
    'tokenizer': {'size': tokenizer.size, 'sha256': tokenizer.sha256},
  }  # fmt: skip
  (folder / blocks_lib.MANIFEST).write_text(json.dumps(manifest), encoding='utf-8')
  return blocks_lib.Blocks(str(folder))


def make_table(folder, lexicons, policy, tokenizer):
  return table.build(
    str(folder), lexicons, policy.rendering, LISTS, tokenizer, record={'digest': str(folder)}
  )


def policy(**changes):
  given = {'lexicon': 'x', 'language': 'de', 'doc_fraction': 0.7, 'word_ratio': 0.7}
  return LinkPolicy(**(given | changes))


def linked(blocks, built, asked, tokenizer, length, **changes):
  given = {'seed_link': 5, 'stage_tokens': 100_000} | changes
  return LinkedWindows(blocks, length, 1, table=built, policy=asked, tokenizer=tokenizer, **given)


def whole(source, passes, choice=None):
  """The substituted source, several passes of it, spliced in one piece."""
  windows, _ = source.read([(0, passes * source.blocks.tokens)])
  return splice.splice(windows, source.table, choice or source.choice(0), source.tail)


@pytest.fixture(scope='module')
def chains(tmp_path_factory, tokenizer):
  rng = np.random.default_rng(0)
  words = ['a', 'b', 'c', 'A', 'B', 'dog', ', ', '.', '\n', 'B2', 'international']
  odds = [0.25, 0.25, 0.25, 0.03, 0.03, 0.05, 0.03, 0.03, 0.02, 0.03, 0.03]
  texts = [' '.join(rng.choice(words, rng.integers(1, 90), p=odds)) for _ in range(40)]
  return write_cache(tmp_path_factory.mktemp('chains') / 'cache', texts, tokenizer)


@pytest.mark.parametrize('length', [1, 7, 50, 300])
@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'doc_fraction': 1.0, 'word_ratio': 1.0},
    {'mode': 'annotate'},
    {'mode': 'annotate', 'doc_fraction': 1.0, 'word_ratio': 1.0},
    {'mode': 'restore'},
    {'redraw': True},
    {'multi_word': False},
    {'word_ratio': ((0, 0.2), (50_000, 0.9))},
  ],
  ids=str,
)
def test_every_row_is_a_stretch_of_the_substituted_source(
  length, changes, chains, tokenizer, tmp_path
):
  asked = policy(**changes)
  source = linked(
    chains, make_table(tmp_path / 't', {'de': CHAINS}, asked, tokenizer), asked, tokenizer, length
  )
  passes = 3
  spliced = whole(source, passes + 1)
  count = int(passes * chains.tokens / source.stride)
  rows = source.rows(np.arange(count))
  starts = source.start(np.arange(count)).tolist()
  assert len(set(starts)) == (count if source.stride >= 1 else len(set(starts)))
  for i, start in enumerate(starts):
    at = int(spliced.place_N[start])
    stretch = slice(at, at + length + 1)
    expected = spliced.tokens_M[stretch]
    assert rows['tokens'][i].tolist() == expected[:-1].tolist(), (i, start)
    labels, mask = expected, np.ones(length + 1, bool)
    if spliced.labels_M is not None:
      labels, mask = spliced.labels_M[stretch], spliced.mask_M[stretch]
    assert rows['labels'][i].tolist() == labels[1:].tolist()
    assert (rows['loss_mask'][i] == mask[1:] & ~spliced.starts_M[stretch][1:]).all()


@pytest.mark.parametrize('mode', ['replace', 'annotate', 'restore'])
def test_rows_do_not_depend_on_what_they_are_read_with(mode, chains, tokenizer, tmp_path):
  asked = policy(mode=mode)
  source = linked(
    chains, make_table(tmp_path / 't', {'de': CHAINS}, asked, tokenizer), asked, tokenizer, 40
  )
  together = source.rows(np.arange(30))
  for order in ([3], [7, 2, 29], list(range(29, -1, -1))):
    for name, array in source.rows(order).items():
      assert (array == together[name][order]).all(), name
  copy = pickle.loads(pickle.dumps(source))
  assert (copy.rows([11])['tokens'] == together['tokens'][[11]]).all()


def test_the_counts_of_rows_are_those_of_their_words(chains, tokenizer, tmp_path):
  asked = policy()
  built = make_table(tmp_path / 't', {'de': CHAINS}, asked, tokenizer)
  source = linked(chains, built, asked, tokenizer, 50)
  windows, _ = source.read([(0, 3 * chains.tokens)])
  spliced = splice.splice(windows, built, source.choice(0))
  bits = (sites_lib.REWRITTEN, table.COVERED_ANY, table.COVERED, table.ELIGIBLE, splice.REPLACED,
          splice.STOP_REPLACED)  # fmt: skip
  rows = source.rows(np.arange(40))
  start_W, place_W = windows.start_W.copy(), spliced.place_N[windows.start_W]
  for word in spliced.word_S.tolist():  # the words of a site are where its first one is
    span = slice(word, word + spliced.extent_W[word])
    start_W[span], place_W[span] = start_W[word], place_W[word]
  for i, start in enumerate(source.start(np.arange(40)).tolist()):
    counts = dict(zip(source.names, rows['counts'][i].tolist(), strict=True))
    first = int(spliced.place_N[start])
    here = (start_W >= start) & (place_W < first + 50)
    kinds = spliced.kind_W[here]
    expected = [here.sum(), *(np.count_nonzero(kinds & bit) for bit in bits)]
    assert [counts[name] for name in DOSE_FIELDS[2:]] == expected
    read = int(np.searchsorted(spliced.place_N, first + 50)) - start
    assert counts['tokens_read'] == read
    sites = (spliced.begin_S >= first) & (spliced.begin_S < first + 50)
    held_S = np.minimum(spliced.size_S, first + 50 - spliced.begin_S)
    assert counts['tokens_inserted'] == held_S[sites].sum()
    assert counts['tokens_read'] + counts['tokens_inserted'] - counts['tokens_removed'] == 50
    documents = np.flatnonzero(windows.starts_N[start : start + read])
    assert counts['documents'] == len(documents)


def test_what_is_skipped_and_read_twice_adds_up_to_the_stride(chains, tokenizer, tmp_path):
  asked = policy(doc_fraction=0.5)
  source = linked(
    chains, make_table(tmp_path / 't', {'de': CHAINS}, asked, tokenizer), asked, tokenizer, 50
  )
  count = 400
  totals = dict(zip(source.names, source.rows(np.arange(count))['counts'].sum(0), strict=True))
  ahead = sum(
    source.window_start(n + 1) - source.window_start(n) for n in source._numbers(np.arange(count))
  )
  assert totals['tokens_read'] + totals['tokens_skipped'] - totals['tokens_reread'] == ahead
  assert totals['tokens_skipped'] > 0
  assert totals['tokens_reread'] > 0
  # On the average a row is made of as much as the next one is ahead.
  assert totals['tokens_read'] / ahead == pytest.approx(1, abs=0.05)


def test_a_ratio_of_zero_reads_the_source_as_it_is(chains, tokenizer, tmp_path):
  asked = policy(word_ratio=0.0)
  source = linked(
    chains, make_table(tmp_path / 't', {'de': CHAINS}, asked, tokenizer), asked, tokenizer, 50
  )
  plain = Windows(chains, 50, 1)
  rows = source.rows(np.arange(200))
  for name, array in plain.rows(np.arange(200)).items():
    assert (rows[name] == array).all(), name
  assert source.stride == 50


def test_a_ratio_of_zero_reads_a_long_source_as_it_is(english, tokenizer, tmp_path):  # noqa: F811
  blocks = write_cache(tmp_path / 'cache', english, tokenizer)
  asked = policy(language='tr', doc_fraction=0.0)
  source = linked(
    blocks, make_table(tmp_path / 't', {'tr': TURKISH}, asked, tokenizer), asked, tokenizer, 50
  )
  assert blocks.tokens > 100 * 50
  rows, plain = source.rows(np.arange(300)), Windows(blocks, 50, 1).rows(np.arange(300))
  for name, array in plain.items():
    assert (rows[name] == array).all(), name


LAUGHTER = Lexicon.from_pairs([('ha ha', 'haha'), ('ha ha ha', 'ha'), ('no no', 'hayır hayır')])


def test_sources_that_overlap_without_end_are_found_as_from_the_documents_start(
  tokenizer, tmp_path
):
  texts = ['ha ' * 300 + 'ha', 'no ' * 150 + 'ha ' * 151 + 'end', 'Ha ha, ' * 100]
  blocks = write_cache(tmp_path / 'cache', texts, tokenizer)
  asked = policy(language='tr', doc_fraction=1.0, word_ratio=0.5, senses='uniform')
  source = linked(
    blocks, make_table(tmp_path / 't', {'tr': LAUGHTER}, asked, tokenizer), asked, tokenizer, 20
  )
  spliced = whole(source, 3)
  count = int(2 * blocks.tokens / source.stride)
  rows = source.rows(np.arange(count))['tokens']
  for i, start in enumerate(source.start(np.arange(count)).tolist()):
    at = int(spliced.place_N[start])
    assert rows[i].tolist() == spliced.tokens_M[at : at + 20].tolist(), (i, start)


def test_a_rewritten_document_is_known_where_it_has_no_words(tokenizer, tmp_path):
  texts = ['12 ' * 200 + 'the dog ran', '7 ' * 90 + 'a dog', 'the dog. ' + '3, ' * 150]
  blocks = write_cache(tmp_path / 'cache', texts, tokenizer)
  asked = policy(mode='restore', doc_fraction=1.0, word_ratio=1.0)
  source = linked(
    blocks, make_table(tmp_path / 't', {'de': PHRASES}, asked, tokenizer), asked, tokenizer, 25
  )
  rows = source.rows(np.arange(int(blocks.tokens / source.stride)))
  totals = dict(zip(source.names, rows['counts'].sum(0).tolist(), strict=True))
  assert totals['documents_rewritten'] == totals['documents'] >= 3
  assert totals['tokens_rewritten'] == totals['tokens_read']
  assert rows['loss_mask'].sum() <= totals['replaced']


def test_each_epoch_begins_its_windows_elsewhere(english, tokenizer, tmp_path):  # noqa: F811
  blocks = write_cache(tmp_path / 'cache', english, tokenizer)
  asked = policy(language='tr')
  source = linked(
    blocks, make_table(tmp_path / 't', {'tr': TURKISH}, asked, tokenizer), asked, tokenizer, 64
  )
  phases = [float(source.first(e) * source.stride - e * blocks.tokens) / float(source.stride)
            for e in range(8)]  # fmt: skip
  gaps = [abs(a - b) for a, b in itertools.combinations(phases, 2)]
  assert min(min(gap, 1 - gap) for gap in gaps) > 0.05


def test_epochs_are_drawn_anew_only_if_asked(chains, tokenizer, tmp_path):
  built = make_table(tmp_path / 't', {'de': CHAINS}, policy(), tokenizer)
  for redraw in (False, True):
    source = linked(chains, built, policy(redraw=redraw), tokenizer, 50)
    spliced = whole(source, 2)
    boundary = int(spliced.place_N[chains.tokens])
    first, second = spliced.tokens_M[:boundary], spliced.tokens_M[boundary:]
    assert (first.tolist() == second.tolist()) == (not redraw)


def test_the_dose_is_what_was_asked(english, tokenizer, tmp_path):  # noqa: F811
  blocks = write_cache(tmp_path / 'cache', english, tokenizer)
  asked = policy(language='tr', doc_fraction=1.0, word_ratio=0.3)
  built = make_table(tmp_path / 't', {'tr': TURKISH}, asked, tokenizer)

  def realised(source):
    count = int(blocks.tokens / source.stride)
    return dict(zip(source.names, source.rows(np.arange(count))['counts'].sum(0), strict=True))

  dose = realised(linked(blocks, built, asked, tokenizer, 64))
  error = 4 * (0.3 * 0.7 / dose['eligible']) ** 0.5  # four standard deviations of a binomial share
  assert dose['replaced'] / dose['eligible'] == pytest.approx(0.3, abs=error)

  windows = linked(blocks, built, asked, tokenizer, 64)
  whole_source = windows.read([(0, blocks.tokens)])[0]
  kinds = sites_lib.find(whole_source, built)[2]
  counts = {'words': len(kinds), 'eligible': int(np.count_nonzero(kinds & table.ELIGIBLE))}
  ceiling = counts['eligible'] / counts['words']
  of_all = dataclasses.replace(asked, ratio_of='all', word_ratio=0.2)
  dose = realised(linked(blocks, built, of_all, tokenizer, 64, source_counts=counts))
  p = 0.2 / ceiling
  error = 4 * (p * (1 - p) / dose['eligible']) ** 0.5
  assert dose['replaced'] / dose['eligible'] == pytest.approx(p, abs=error)
  with pytest.raises(ValueError, match=rf'word_ratio is 0.9 of all words.*at most {ceiling:.4f}'):
    linked(blocks, built, dataclasses.replace(of_all, word_ratio=0.9), tokenizer, 64,
           source_counts=counts)  # fmt: skip
  with pytest.raises(ValueError, match="ratio_of='all' needs the counts"):
    linked(blocks, built, of_all, tokenizer, 64)


def test_a_schedule_follows_the_tokens_of_the_stage(chains, tokenizer, tmp_path):
  asked = policy(doc_fraction=1.0, word_ratio=((0, 0.0), (10_000, 0.0), (10_000, 1.0)))
  source = linked(
    chains, make_table(tmp_path / 't', {'de': CHAINS}, asked, tokenizer), asked, tokenizer, 50
  )
  replaced, eligible = source.names.index('replaced'), source.names.index('eligible')
  before = source.rows(np.arange(20), 9_999)['counts'].sum(0)
  after = source.rows(np.arange(20), 10_000)['counts'].sum(0)
  assert before[replaced] == 0 < before[eligible]
  assert after[replaced] == after[eligible] > 0


@hypothesis.given(st.integers(0, 10**6), st.integers(1, 40))
@hypothesis.settings(max_examples=50, deadline=None)
def test_any_sequence_of_any_epoch_is_one_window_of_it(chains_source, i, n):
  numbers = chains_source._numbers(np.array([i]))
  start = chains_source.window_start(numbers[0])
  assert start // chains_source.blocks.tokens == chains_source.window_start(i) // (
    chains_source.blocks.tokens
  )
  epoch = n
  first, stop = chains_source.first(epoch), chains_source.first(epoch + 1)
  assert sorted(chains_source._numbers(np.arange(first, stop))) == list(range(first, stop))


@pytest.fixture(scope='module')
def chains_source(chains, tokenizer, tmp_path_factory):
  built = make_table(tmp_path_factory.mktemp('t') / 't', {'de': CHAINS}, policy(), tokenizer)
  return linked(chains, built, policy(), tokenizer, 30)


def test_the_fingerprint_changes_with_all_that_rows_depend_on(chains, tokenizer, tmp_path):
  built = make_table(tmp_path / 't', {'de': CHAINS}, policy(), tokenizer)
  prints = [
    linked(chains, built, policy(**c), tokenizer, 50, **g).fingerprint
    for c, g in [
      ({}, {}), ({'word_ratio': 0.6}, {}), ({'doc_fraction': 0.6}, {}), ({'senses': 'first'}, {}),
      ({'redraw': True}, {}), ({}, {'seed_link': 6}), ({'word_ratio': ((0, 0.7), (9, 0.7))}, {}),
    ]
  ]  # fmt: skip
  assert len(set(prints)) == len(prints)
  assert linked(chains, built, policy(), tokenizer, 50).fingerprint == prints[0]
  moved = dataclasses.replace(policy(), lexicon='elsewhere')  # the table says what it holds
  assert linked(chains, built, moved, tokenizer, 50).fingerprint == prints[0]


def test_a_source_without_words_is_read_like_any_other(tokenizer, tmp_path):
  blocks = write_cache(tmp_path / 'cache', ['1 2 3 ' * 300, '4' * 200, '5, 6'], tokenizer)
  asked = policy(mode='annotate')
  source = linked(
    blocks, make_table(tmp_path / 't', {'de': PHRASES}, asked, tokenizer), asked, tokenizer, 40
  )
  rows = source.rows(np.arange(30))
  plain = Windows(blocks, 40, 1).rows(np.arange(30))
  assert (rows['tokens'] == plain['tokens']).all()
  assert source.sample.growth == Fraction(0)


def test_counts_of_several_languages_name_each():
  assert counts_of(('tr',)) == counts_of(())
  assert counts_of(('tr', 'de'))[len(counts_of(())) :] == ('replaced_tr', 'replaced_de')


def test_replaced_words_are_counted_by_language(chains, tokenizer, tmp_path):
  lexicons = {'de': CHAINS, 'nl': Lexicon.from_pairs([('b', 'bee'), ('dog', 'hond')])}
  asked = LinkPolicy(lexicon=dict.fromkeys(lexicons, 'x'), doc_fraction=1.0, word_ratio=0.5)
  source = linked(
    chains, make_table(tmp_path / 't', lexicons, asked, tokenizer), asked, tokenizer, 50
  )
  totals = dict(
    zip(source.names, source.rows(np.arange(60))['counts'].sum(0).tolist(), strict=True)
  )
  assert totals['replaced_de'] > 0
  assert totals['replaced_nl'] > 0
  assert totals['replaced_de'] + totals['replaced_nl'] == totals['replaced']
