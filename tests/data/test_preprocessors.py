import dataclasses
import functools
import itertools
import unicodedata

import numpy as np
import pytest
import seqio
import tensorflow as tf

from jaxlink.data import preprocessors as prep
from jaxlink.data import register
from jaxlink.data.vocabulary import ChunkedVocabulary
from jaxlink.link import substitute as substitute_lib
from jaxlink.link import words
from jaxlink.link.draws import key_of
from jaxlink.link.lexicon import Lexicon, load_words
from jaxlink.link.policy import Dose, LinkPolicy, WordLists, stop_words_path
from tests.data.conftest import SAMPLE, sample_text

pytestmark = pytest.mark.usefixtures('forget_tasks')

TURKISH = LinkPolicy(lexicon=str(SAMPLE / 'en-tr.tsv'), language='tr', doc_fraction=0.7)

# A few of everyday English, from general knowledge of Bengali.
BENGALI = {
  'water': ['জল', 'পানি'], 'house': ['ঘর', 'বাড়ি'], 'city': ['শহর'], 'river': ['নদী'],
  'language': ['ভাষা'], 'book': ['বই'], 'book shop': ['বইয়ের দোকান'], 'world': ['পৃথিবী', 'বিশ্ব'],
  'people': ['মানুষ'], 'country': ['দেশ'], 'year': ['বছর'], 'day': ['দিন'], 'night': ['রাত'],
  'sun': ['সূর্য'], 'moon': ['চাঁদ'], 'tree': ['গাছ'], 'fire': ['আগুন'], 'hand': ['হাত'],
  'head': ['মাথা'], 'eye': ['চোখ'], 'mother': ['মা'], 'father': ['বাবা'], 'king': ['রাজা'],
  'war': ['যুদ্ধ'], 'history': ['ইতিহাস'], 'school': ['বিদ্যালয়'], 'food': ['খাবার', 'খাদ্য'],
  'rice': ['ভাত', 'চাল'], 'fish': ['মাছ'], 'new': ['নতুন'], 'old': ['পুরানো'], 'big': ['বড়'],
  'small': ['ছোট'], 'and': ['এবং', 'ও'], 'is': ['হয়'], 'in': ['মধ্যে'],
}  # fmt: skip


def english(count=40):
  paragraphs = [p.strip() for p in sample_text('en').split('\n') if len(p) > 80]
  return paragraphs[:count]


def as_file(tmp_path, texts):
  path = tmp_path / 'corpus.txt'
  path.write_text('\n\n'.join(texts), encoding='utf-8')
  return path


def rewritten(texts, policy, **settings):
  """What `link_substitute` makes of texts in a plain SeqIO task, without our tokenizers."""
  task = seqio.Task(
    'plain_link',
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices({'text': texts}),
      splits=['train'],
    ),
    preprocessors=[functools.partial(prep.link_substitute, policy=policy, **settings)],
    output_features={
      'text': seqio.Feature(seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0)
    },
  )
  return list(task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator())


@pytest.mark.parametrize(
  'changes',
  [
    {}, {'senses': 'uniform', 'word_ratio': 1.0}, {'mode': 'annotate'}, {'match_case': False},
    {'ratio_of': 'all'}, {'regime': 'content'}, {'regime': 'content', 'stop_words': 'stop.txt'},
    {'regime': 'domain', 'word_list': 'stop.txt', 'word_ratio': 1.0}, {'stop_words': ''},
  ],
  ids=str,
)  # fmt: skip
def test_a_plain_seqio_task_rewrites_text_as_the_reference_does(tmp_path, monkeypatch, changes):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'stop.txt').write_text('the\nof\nand\nin\nto\n')
  policy = dataclasses.replace(TURKISH, **changes)
  lists = WordLists(
    load_words(stop_words_path(policy.stop_words)) if policy.stop_words else frozenset(),
    load_words(policy.word_list) if policy.word_list else frozenset(),
  )
  probability = 0.9 if policy.ratio_of == 'all' else None
  lexicon, texts = Lexicon.load(policy.lexicon, target='tr'), english()
  expected = [
    substitute_lib.substitute(
      text, lexicon, policy, policy.draws(5, 'news', 0), document=key_of(text),
      probability=probability, lists=lists,
    )
    for text in texts
  ]  # fmt: skip
  found = rewritten(texts, policy, source='news', seed=5, probability=probability)
  assert [e['text'].decode() for e in found] == [r.text for r in expected]
  assert [e['original'].decode() for e in found] == texts
  assert [e['cuts'].tolist() for e in found] == [r.cuts for r in expected]
  doses = [Dose(*e['dose'].tolist()) for e in found]
  assert doses == [r.dose for r in expected]
  assert sum(r.text != t for r, t in zip(expected, texts, strict=True)) > 10


def test_seed_and_source_name_the_draws():
  texts = english()
  base = [e['text'] for e in rewritten(texts, TURKISH, source='news', seed=5)]
  assert base == [e['text'] for e in rewritten(texts, TURKISH, source='news', seed=5)]
  assert base != [e['text'] for e in rewritten(texts, TURKISH, source='news', seed=6)]
  assert base != [e['text'] for e in rewritten(texts, TURKISH, source='books', seed=5)]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'redraw': True}, r'LinkPolicy\.redraw is True: text is rewritten once'),
    ({'mode': 'restore'}, r"LinkPolicy\.mode is 'restore': .*Stage\.link_route = 'load'"),
    ({'word_ratio': ((0, 0.1), (9, 0.3))}, 'word_ratio is a schedule: text is rewritten once'),
  ],
)
def test_what_needs_the_run_cannot_be_done_to_text_before_it(changes, message):
  policy = dataclasses.replace(TURKISH, **changes)
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
    rewritten(english(2), policy, source='news')


def test_tokens_are_cut_at_the_edges_of_what_was_put_in(tmp_path, tiny_tokenizers):
  # Neither 'a黑猫' nor '3月' may become one word or lend a letter to its neighbour's tokens.
  (tmp_path / 'en-zh.tsv').write_text('black\t黑\ncat\t猫\nmarch\t3月\n', encoding='utf-8')
  policy = LinkPolicy(
    lexicon=str(tmp_path / 'en-zh.tsv'), language='zh', doc_fraction=1.0, word_ratio=1.0
  )
  step = functools.partial(prep.link_substitute, policy=policy, source='news')
  tokenizer = ChunkedVocabulary(tiny_tokenizers['sentencepiece']).tokenizer
  (example,) = examples(
    task_of(tmp_path, tiny_tokenizers['sentencepiece'], ['a black cat in March 5, a cat'], [step])
  )
  pieces = ['a', '黑', '猫', ' in', '3月', ' 5,', ' a', '猫']
  assert tokenizer.decode(example['targets']) == ''.join(pieces)
  assert example['targets'].tolist() == [i for piece in pieces for i in tokenizer.encode(piece)]
  assert example['word_types'].decode().split('\n') == ['a', '黑', '猫', 'in', '月']


def task_of(tmp_path, tokenizer, texts, steps=()):
  return register.register_corpus(
    f'prep_{tmp_path.name}', {'train': as_file(tmp_path, texts)}, language='en',
    tokenizer=tokenizer, preprocessors=steps,
  )  # fmt: skip


def examples(task):
  return list(task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator())


@pytest.mark.parametrize('kind', ['sentencepiece', 'byte_level'])
def test_tokens_marks_types_and_sizes_are_those_of_the_text(tmp_path, tiny_tokenizers, kind):
  texts = [
    *english(10),
    *[t.strip() for t in sample_text('bn').split('\n') if t.strip()][:10],
    '12 34 !',
  ]
  task = task_of(tmp_path, tiny_tokenizers[kind], texts)
  tokenizer = ChunkedVocabulary(tiny_tokenizers[kind]).tokenizer
  found = examples(task)
  assert len(found) == len(texts)
  for text, example in zip(texts, found, strict=True):
    marked = tokenizer.encode_marked(text)
    assert example['targets'].tolist() == marked.ids.tolist()
    assert example['words'].tolist() == marked.words.tolist()
    assert example['words'].shape == (len(words.find_words(text)), 4)
    assert example['word_types'].decode() == '\n'.join(marked.types)
    assert example['bytes'] == len(text.encode())
    assert example['tokens_before'] == len(marked.ids)
    assert int(example['document'].astype(np.uint64)) == key_of(text)
    assert set(example) == {
      'targets', 'words', 'word_types', 'bytes', 'tokens_before', 'document',
    }  # fmt: skip
    assert {k: v.dtype for k, v in example.items() if k in ('targets', 'words')} == {
      'targets': np.int32, 'words': np.int32,
    }  # fmt: skip


def test_the_key_is_that_of_the_original_and_tokens_before_are_counted(tmp_path, tiny_tokenizers):
  path, texts = tiny_tokenizers['sentencepiece'], english(20)
  step = functools.partial(prep.link_substitute, policy=TURKISH, source='news', seed=5)
  tokenizer = ChunkedVocabulary(path).tokenizer
  rewrites = rewritten(texts, TURKISH, source='news', seed=5)
  found = examples(task_of(tmp_path, path, texts, [step]))
  for text, rewrite, example in zip(texts, rewrites, found, strict=True):
    assert int(example['document'].astype(np.uint64)) == key_of(text)
    assert example['targets'].tolist() == tokenizer.encode(
      rewrite['text'].decode(), rewrite['cuts'].tolist()
    )
    assert 'cuts' not in example
    assert example['tokens_before'] == len(tokenizer.encode(text))
    assert example['bytes'] == len(rewrite['text'])
    assert example['dose'].tolist() == rewrite['dose'].tolist()


def test_bengali_words_go_into_english_and_come_back_out(tmp_path, tiny_tokenizers):
  lines = [f'{source}\t{target}\n' for source, ts in BENGALI.items() for target in ts]
  (tmp_path / 'en-bn.tsv').write_text(''.join(lines), encoding='utf-8')
  policy = LinkPolicy(
    lexicon=str(tmp_path / 'en-bn.tsv'), language='bn', doc_fraction=1.0, word_ratio=1.0,
    senses='uniform',
  )  # fmt: skip
  step = functools.partial(prep.link_substitute, policy=policy, source='news')
  texts = ['The river in the city is big and old.', 'A book shop: new BOOKS, a book.', *english(30)]
  path = tiny_tokenizers['sentencepiece']
  tokenizer = ChunkedVocabulary(path).tokenizer
  found = examples(task_of(tmp_path, path, texts, [step]))
  decoded = [tokenizer.decode(e['targets']) for e in found]

  assert 'নদী' in decoded[0]
  assert 'শহর' in decoded[0]
  assert decoded[1] == 'A বইয়ের দোকান: নতুন BOOKS, a বই.'.replace(
    'য়', unicodedata.normalize('NFC', 'য়')
  )
  targets = {
    word for t in itertools.chain(*BENGALI.values())
    for word in unicodedata.normalize('NFC', t).split(' ')
  }  # fmt: skip
  for example, text in zip(found, decoded, strict=True):
    assert [text[a:b] for a, b in words.find_words(text)] == [
      tokenizer.decode(example['targets'][s : s + n]).removeprefix(' ')
      for s, n, *_ in example['words'].tolist()
    ]
    bengali = {t for t in example['word_types'].decode().split('\n') if t[0] >= '\u0980'}
    assert bengali <= targets
    assert not set(example['word_types'].decode().split('\n')) & {
      'water',
      'river',
      'and',
      'is',
      'in',
    }
  assert sum(int(e['dose'][prep.DOSE_FIELDS.index('replaced')]) for e in found) > 100
