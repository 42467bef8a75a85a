import gzip
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from jaxlink import cache
from jaxlink.data import register
from jaxlink.data.caching import build, cache_plan
from jaxlink.data.fingerprint import Inputs, difference
from jaxlink.data.tokenizer import BOS, EOS, Tokenizer

pytestmark = pytest.mark.usefixtures('forget_tasks')

TEXTS = {
  'train': ['Damlaya damlaya göl olur.', 'Bir elin nesi var,\niki elin sesi var.', 'দশের লাঠি।'],
  'validation': ['Sakla samanı, gelir zamanı.'],
}


def as_jsonl(folder):
  for split, texts in TEXTS.items():
    rows = [json.dumps({'text': t, 'n': i}) for i, t in enumerate(texts)]
    (folder / f'{split}.jsonl').write_text('\n'.join(rows))
  return {split: folder / f'{split}.jsonl' for split in TEXTS}


def as_text(folder):
  for split, texts in TEXTS.items():
    (folder / f'{split}.txt').write_text('\n\n'.join(texts), encoding='utf-8')
  return {split: [str(folder / f'{split}.txt')] for split in TEXTS}


def as_parquet(folder):
  for split, texts in TEXTS.items():
    pa.parquet.write_table(pa.table({'text': texts}), folder / f'{split}-0.parquet')
  return {split: f'{folder}/{split}-*.parquet' for split in TEXTS}


def as_array_record(folder):
  for split, texts in TEXTS.items():
    writer = array_record_module.ArrayRecordWriter(str(folder / f'{split}.array_record'), '')
    for text in texts:
      writer.write(text.encode())
    writer.close()
  return register.TextSource(
    {split: folder / f'{split}.array_record' for split in TEXTS}, records='text'
  )


def as_tfds(folder):
  """A TFDS data set as a folder of TFRecord files with its metadata."""
  data = folder / 'proverbs/1.0.0'
  data.mkdir(parents=True)
  features = tfds.features.FeaturesDict({'text': tfds.features.Text()})
  infos = []
  for split, texts in TEXTS.items():
    rows = [features.serialize_example({'text': text}) for text in texts]
    with tf.io.TFRecordWriter(str(data / f'proverbs-{split}.tfrecord-00000-of-00001')) as file:
      for row in rows:
        file.write(row)
    template = tfds.core.ShardedFileTemplate(
      dataset_name='proverbs', data_dir=data, split=split, filetype_suffix='tfrecord'
    )
    infos.append(
      tfds.core.SplitInfo(
        name=split, shard_lengths=[len(rows)], num_bytes=sum(map(len, rows)),
        filename_template=template,
      )
    )  # fmt: skip
  tfds.folder_dataset.write_metadata(
    data_dir=data, features=features, split_infos=infos, check_data=False
  )
  return seqio.TfdsDataSource('proverbs:1.0.0', splits=list(TEXTS), tfds_data_dir=str(folder))


@pytest.mark.parametrize('kind', [as_jsonl, as_text, as_parquet, as_array_record, as_tfds])
def test_one_call_registers_a_language_from_any_kind_of_file(tmp_path, tiny_tokenizers, kind):
  path = tiny_tokenizers['byte_level']
  tokenizer = Tokenizer(path)
  (tmp_path / 'aux.txt').write_text('A stitch in time.')
  register.register_corpus('reg_en', {'train': tmp_path / 'aux.txt'}, language='en', tokenizer=path)
  task = register.register_language(
    'reg_tr', kind(tmp_path), language='tr', tokenizer=path, auxiliary='reg_en',
    lexicon=tmp_path / 'en-tr.tsv', share='1/3',
  )  # fmt: skip
  assert task is seqio.TaskRegistry.get('reg_tr')
  assert register.LANGUAGES['reg_tr'] == 'tr'
  assert register.LEXICONS['reg_tr'] == register.RegisteredLexicon(
    (str(tmp_path / 'en-tr.tsv'),), 'tr'
  )
  assert register.AUXILIARIES['reg_tr'] == 'reg_en'
  mixture = seqio.MixtureRegistry.get('reg_en_reg_tr')
  assert {t.name for t in mixture.tasks} == {'reg_en', 'reg_tr'}

  for split, texts in TEXTS.items():
    found = task.get_dataset(None, split, shuffle=False).as_numpy_iterator()
    assert sorted(tokenizer.decode(e['targets']) for e in found) == sorted(texts)
    inputs = Inputs()
    plan = cache_plan.make_plan('reg_tr', split, cache_dir=str(tmp_path / 'cache'), inputs=inputs)
    assert inputs.files
    blocks = build.build(plan, processes=1, progress=False)
    ids, _ = blocks.read(0, blocks.tokens)
    text = tokenizer.decode(ids)
    assert all(t in text for t in texts)
    assert len(text) == sum(map(len, texts))
    assert (ids == BOS).sum() == (ids == EOS).sum() == len(texts) == blocks.manifest['documents']


def test_tfds_caches_differ_by_their_data(tmp_path, tiny_tokenizers):
  source = as_tfds(tmp_path)
  register.register_corpus(
    'reg_tfds', source, language='tr', tokenizer=tiny_tokenizers['byte_level']
  )
  plan = cache_plan.make_plan('reg_tfds', 'train', cache_dir=str(tmp_path), inputs=Inputs())
  file = next(tmp_path.glob('proverbs/1.0.0/*train*'))
  data = bytearray(file.read_bytes())
  data[-5] ^= 1
  file.write_bytes(data)
  other = cache_plan.make_plan('reg_tfds', 'train', cache_dir=str(tmp_path), inputs=Inputs())
  assert other.fingerprint != plan.fingerprint


def test_a_new_version_of_a_tfds_data_set_is_noticed(tmp_path, tiny_tokenizers):
  source = as_tfds(tmp_path)
  register.register_corpus(
    'reg_tfds', source, language='tr', tokenizer=tiny_tokenizers['byte_level']
  )
  inputs = Inputs()
  cache_plan.make_plan('reg_tfds', 'train', cache_dir=str(tmp_path), inputs=inputs)
  assert difference(inputs.kept()) is None
  shutil.copytree(tmp_path / 'proverbs/1.0.0', tmp_path / 'proverbs/1.0.1')
  assert difference(inputs.kept()) == f'{tmp_path}/proverbs/*/dataset_info.json names other files'


def test_a_remote_corpus_is_cached_like_a_local_one(tmp_path, tiny_tokenizers):
  filesystem = fsspec.filesystem('memory')
  for split, path in as_jsonl(tmp_path).items():
    filesystem.pipe(f'/reg/{split}.jsonl', path.read_bytes())
  for name, folder in (('reg_local', tmp_path), ('reg_remote', 'memory://reg')):
    register.register_corpus(
      name, {s: f'{folder}/{s}*.jsonl' for s in TEXTS}, language='tr',
      tokenizer=tiny_tokenizers['byte_level'],
    )  # fmt: skip
  plans = [
    cache_plan.make_plan(name, 'train', cache_dir=str(tmp_path), inputs=Inputs())
    for name in ('reg_local', 'reg_remote')
  ]
  local, remote = (build.build(plan, processes=1, progress=False) for plan in plans)
  assert plans[0].fingerprint == plans[1].fingerprint
  assert remote.tokens == local.tokens
  assert (remote.read(0, remote.tokens)[0] == local.read(0, local.tokens)[0]).all()


@pytest.mark.parametrize(
  ('share', 'target'),
  [
    ('1/3', Fraction(1, 3)),
    (0.3, Fraction(3, 10)),
    ('0.25', Fraction(1, 4)),
    (1e-3, Fraction(1, 1000)),
  ],
)
def test_rates_are_exact(tmp_path, share, target):
  splits = {'train': tmp_path / 'a.txt'}
  register.register_corpus('rate_en', splits, language='en', tokenizer='t.model')
  register.register_language(
    'rate_tr', splits, language='tr', tokenizer='t.model', auxiliary='rate_en', lexicon='l.tsv',
    share=share, mixture='rates',
  )  # fmt: skip
  assert register.RATES['rates'] == {'rate_tr': str(target), 'rate_en': str(1 - target)}
  mixture = seqio.MixtureRegistry.get('rates')
  assert mixture.get_rate(seqio.TaskRegistry.get('rate_tr')) == float(target)


def language(**changes):
  arguments = {
    'language': 'tr', 'tokenizer': 't.model', 'auxiliary': 'err_en', 'lexicon': 'l.tsv', **changes,
  }  # fmt: skip
  return register.register_language('err_tr', {'train': 'a.txt'}, **arguments)


@pytest.mark.parametrize('share', [0, 1, 1.5, -0.25, '3/2', 'half', None, float('nan'), True])
def test_a_share_outside_0_to_1_is_an_error_and_nothing_is_registered(share):
  register.register_corpus('err_en', {'train': 'a.txt'}, language='en', tokenizer='t.model')
  with pytest.raises(ValueError, match='err_tr'):
    language(share=share)
  assert 'err_tr' not in seqio.TaskRegistry.names()
  assert 'err_tr' not in register.LANGUAGES


def test_an_auxiliary_corpus_that_is_not_registered_is_an_error_with_the_nearest_name():
  register.register_corpus('err_en', {'train': 'a.txt'}, language='en', tokenizer='t.model')
  with pytest.raises(ValueError, match=r"no task 'err_em' is registered. Nearest: 'err_en'"):
    language(auxiliary='err_em')
  assert not register.RATES.keys() & {'err_em_err_tr'}


def test_a_name_is_registered_once_and_keeps_its_language():
  register.register_corpus('err_en', {'train': 'a.txt'}, language='en', tokenizer='t.model')
  with pytest.raises(ValueError, match='err_en'):
    register.register_corpus('err_en', {'train': 'a.txt'}, language='sw', tokenizer='t.model')
  assert register.LANGUAGES['err_en'] == 'en'


def test_several_lexicons_of_a_language_keep_their_order():
  register.register_corpus('err_en', {'train': 'a.txt'}, language='en', tokenizer='t.model')
  language(lexicon=['small.tsv', Path('large.tei')])
  assert register.LEXICONS['err_tr'].paths == ('small.tsv', 'large.tei')


def test_registering_reads_no_file():
  register.register_corpus('err_en', {'train': 'no.txt'}, language='en', tokenizer='no.model')
  language(lexicon='no.tsv', tokenizer='no.model')


BAD = ['{"text": "one more"}', 'not JSON', '{"title": "no text"}', '{"text": "and one"}', '\ud800']


def with_bad_lines(folder):
  """Two files of which the second has three bad lines."""
  texts = [f'Document {i}.' for i in range(5)]
  (folder / 'a.txt').write_text('\n\n'.join(texts))
  (folder / 'b.jsonl').write_bytes('\n'.join(BAD).encode(errors='surrogatepass'))
  return {'train': [folder / 'a.txt', folder / 'b.jsonl']}, [*texts, 'one more', 'and one']


@pytest.mark.parametrize('readers', [1, 2, 3, 7])
def test_readers_share_the_documents_of_a_file_and_count_what_is_bad_once(tmp_path, readers):
  files, texts = with_bad_lines(tmp_path)
  source = register.TextSource(files, on_bad='skip')
  found, rejected = [], []
  for index in range(readers):
    info = seqio.ShardInfo(index, readers)
    rows = source.get_dataset('train', shard_info=info).as_numpy_iterator()
    found += [row['text'].decode() for row in rows]
    rejected.append(source.rejected('train', index, readers))
  assert sorted(found) == sorted(texts)
  assert source.gather('train', rejected) == {
    'read': 10, 'total': 3, 'by_reason': {'no field': 1, 'not JSON': 1, 'not UTF-8': 1},
    'places': [
      {
        'file': str(tmp_path / 'b.jsonl'), 'unit': 'line', 'number': number, 'reason': reason,
        'detail': detail,
      }
      for number, reason, detail in (
        (2, 'not JSON', 'not JSON (Expecting value: line 1 column 1 (char 0))'),
        (3, 'no field', "no field 'text'. Fields: 'title'"),
        (5, 'not UTF-8', 'not UTF-8 (byte 0 is 0xed)'),
      )
    ],
  }  # fmt: skip


def test_what_is_bad_is_known_without_another_pass(tmp_path, monkeypatch):
  files, _ = with_bad_lines(tmp_path)
  source = register.TextSource(files, on_bad='skip')
  list(source.get_dataset('train').take(3).as_numpy_iterator())  # not to the end
  assert source.rejected('train')['total'] == 3
  for reader in range(4):  # two of each file
    for _ in source.get_dataset('train', shard_info=seqio.ShardInfo(reader, 4)):
      pass
  monkeypatch.setattr(source, 'documents', None)
  assert source.rejected('train')['total'] == 3
  totals = [source.rejected('train', reader, 4)['total'] for reader in range(4)]
  assert sum(totals) == 3
  assert max(totals) < 3
  assert register.TextSource(files).rejected('train')['total'] == 0  # each is an error there


def test_a_cache_keeps_what_was_passed_over_and_it_is_told(tmp_path, tiny_tokenizers, capsys):
  files, texts = with_bad_lines(tmp_path)
  path = tiny_tokenizers['byte_level']
  register.register_corpus('reg_bad', files, language='en', tokenizer=path, on_bad='skip')
  plan = cache_plan.make_plan('reg_bad', 'train', cache_dir=str(tmp_path), inputs=Inputs())
  blocks = build.build(plan, processes=1, progress=False)
  manifest = blocks.manifest
  assert manifest['documents'] == len(texts)
  assert manifest['rejected_lines'] == manifest['rejected']['total'] == 3
  assert [p['number'] for p in manifest['rejected']['places']] == [2, 3, 5]
  cache._tell_losses(blocks)
  told = capsys.readouterr().out
  assert 'data: reg_bad:train: 3 bad lines and 0 empty documents left out\n' in told
  assert f"no field: 1 ({tmp_path}/b.jsonl, line 3: no field 'text'. Fields: 'title')" in told


def test_more_bad_lines_than_allowed_stop_a_cache_and_name_the_first(tmp_path, tiny_tokenizers):
  files, _ = with_bad_lines(tmp_path)
  path = tiny_tokenizers['byte_level']
  register.register_corpus(
    'reg_bad', files, language='en', tokenizer=path, on_bad='skip', max_bad=2
  )
  plan = cache_plan.make_plan('reg_bad', 'train', cache_dir=str(tmp_path), inputs=Inputs())
  with pytest.raises(ValueError, match=r'3 of 10 .* max_bad=2 .*b\.jsonl, line 2: not JSON'):
    build.build(plan, processes=1, progress=False)


def test_a_broken_file_is_an_error_with_its_name_or_read_as_far_as_it_goes(
  tmp_path, tiny_tokenizers
):
  whole = gzip.compress('\n'.join(json.dumps({'text': f'Line {i}.'}) for i in range(9)).encode())
  (tmp_path / 'a.jsonl.gz').write_bytes(whole[:-8])
  for name, on_bad in (('reg_raise', 'raise'), ('reg_skip', 'skip')):
    register.register_corpus(
      name, {'train': tmp_path / '*.gz'}, language='en', on_bad=on_bad,
      tokenizer=tiny_tokenizers['byte_level'],
    )  # fmt: skip
  plans = [
    cache_plan.make_plan(name, 'train', cache_dir=str(tmp_path), inputs=Inputs())
    for name in ('reg_raise', 'reg_skip')
  ]
  with pytest.raises(
    ValueError, match=r'reg_raise:train: BadDocument: .*a\.jsonl\.gz: broken file'
  ):
    build.build(plans[0], processes=1, progress=False)
  manifest = build.build(plans[1], processes=1, progress=False).manifest
  assert manifest['documents'] == 8  # the ninth has no end
  assert manifest['rejected']['by_reason'] == {'broken file': 1}


def test_settings_of_what_is_read_make_another_cache_and_others_do_not(tmp_path, tiny_tokenizers):
  files, _ = with_bad_lines(tmp_path)
  settings = [
    {}, {'max_bad': 0.5}, {'max_bad': 7}, {'on_bad': 'skip'}, {'documents': 'line'},
    {'records': 'text'}, {'max_document_bytes': 1000}, {'text_key': 'title'},
  ]  # fmt: skip
  plans = []
  for number, setting in enumerate(settings):
    name = f'reg_{number}'
    register.register_corpus(
      name, files, language='en', tokenizer=tiny_tokenizers['byte_level'], **setting
    )
    plans.append(cache_plan.make_plan(name, 'train', cache_dir=str(tmp_path), inputs=Inputs()))
  prints = [plan.fingerprint for plan in plans]
  assert prints[0] == prints[1] == prints[2]
  assert len({*prints}) == len(prints) - 2


def test_wrong_settings_are_errors_when_they_are_given(tmp_path):
  for setting, message in (
    ({'on_bad': 'ignore'}, "on_bad is 'ignore': 'raise' or 'skip'"),
    ({'max_bad': -1}, 'max_bad is -1'),
    ({'documents': 'lines'}, "documents is 'lines'.*Nearest: 'line'"),
  ):
    with pytest.raises(ValueError, match=message):
      register.register_corpus('reg', {'train': 'a.txt'}, language='en', tokenizer='t', **setting)
  source = register.TextSource({'train': 'a.txt'})
  with pytest.raises(ValueError, match='reg: documents: a SeqIO source has no such setting'):
    register.register_corpus('reg', source, language='en', tokenizer='t', documents='line')


@pytest.mark.parametrize('files', [1, 2, 3, 8])
@pytest.mark.parametrize('count', [1, 2, 3, 7, 8, 19])
def test_readers_divide_files_among_them_and_each_share_has_one_reader(files, count):
  names = [f'{n}.txt' for n in range(files)]
  shares = [share for index in range(count) for share in register._portion(names, index, count)]
  assert len(set(shares)) == len(shares)
  for name in names:
    (of,) = {share[2] for share in shares if share[0] == name}
    assert sorted(share[1] for share in shares if share[0] == name) == list(range(of))


def test_a_file_that_is_renamed_to_another_format_is_another_text(tmp_path, tiny_tokenizers):
  text = tmp_path / 'c.txt'
  text.write_text('{"text": "Haba na haba"}\n', encoding='utf-8')
  task = {'language': 'sw', 'tokenizer': tiny_tokenizers['byte_level']}
  register.register_corpus('reg_named', {'train': str(tmp_path / 'c.*')}, **task)

  def fingerprint():
    return cache_plan.make_plan(
      'reg_named', 'train', cache_dir=str(tmp_path), inputs=Inputs()
    ).fingerprint

  before = fingerprint()
  text.rename(tmp_path / 'c.jsonl')
  assert fingerprint() != before


def test_files_that_change_while_a_cache_is_built_stop_it(tmp_path, tiny_tokenizers, monkeypatch):
  (tmp_path / 'a.txt').write_text('Haba na haba hujaza kibaba.', encoding='utf-8')
  task = {'language': 'sw', 'tokenizer': tiny_tokenizers['byte_level']}
  register.register_corpus('reg_grows', {'train': str(tmp_path / '*.txt')}, **task)
  plan = cache_plan.make_plan('reg_grows', 'train', cache_dir=str(tmp_path), inputs=Inputs())
  gather = build._gather

  def grows(*args):
    (tmp_path / 'b.txt').write_text('Polepole ndio mwendo.', encoding='utf-8')
    return gather(*args)

  monkeypatch.setattr(build, '_gather', grows)
  with pytest.raises(ValueError, match='reg_grows:train: its files changed while'):
    build.build(plan, processes=1, progress=False)
  assert not plan.exists
  assert not os.path.exists(plan.work)
