"""Language adherence, judged on real Turkish and English: whole, exchanged and mixed; and what a model writes."""

import itertools
import re

import jax
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.data import sources
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation import adherence
from jaxlink.evaluation.items import EvaluationSet, Question, Text
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.link import words as words_lib
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig
from jaxlink.run_model import RunModel
from tests.tiny_project import SAMPLE

pytest.importorskip('py3langid')


def texts(name, count):
  """Documents of the sample."""
  read = sources.read_documents(str(SAMPLE / name))
  return [document.text for document in itertools.islice(read, count)]


def held_out(language, name, end='$'):
  """The beginnings of documents, or of their parts."""
  found = (part.strip() for text in texts(name, 60) for part in re.split(end, text))
  found = [Text(str(n), part, 'wiki') for n, part in enumerate(found) if len(part.split()) >= 40]
  return EvaluationSet(f'held_out_{language}', 'text', language, tuple(found[:60]))


@pytest.fixture(scope='module')
def known():
  """Words of Turkish and of English, from the beginning of the training text."""
  turkish = adherence.count_words(texts('tr.train.txt.gz', 1500))
  english = adherence.count_words(texts('en.train.jsonl.gz', 120))
  return adherence.tell_apart(turkish, english)


@pytest.fixture(scope='module')
def turkish():
  return adherence.openings(held_out('tr', 'tr.validation.txt.gz'))


@pytest.fixture(scope='module')
def english():
  return adherence.openings(held_out('en', 'en.validation.jsonl.gz', '\n+'))


def judged(given, written, known, languages=('tr', 'en')):
  found = adherence.judge(given, written, adherence.identifier(*languages, known), known)
  return {name: score.value for name, score in found.scores.items()}, found


def test_an_opening_and_its_rest_are_the_beginning_of_the_text(turkish):
  source = {item.id: item.text for item in held_out('tr', 'tr.validation.txt.gz').items}
  assert len(turkish) >= 40
  for one in turkish:
    assert source[one.id].startswith(one.prompt + one.rest)
    assert len(words_lib.find_words(one.prompt)) == 8
    assert 12 <= len(words_lib.find_words(one.rest)) <= 24
    assert one.prompt[-1].isalpha()


def test_true_text_is_adherent_and_the_other_language_is_not(turkish, english, known):
  own = [one.rest for one in turkish]
  other = list(itertools.islice(itertools.cycle(one.rest for one in english), len(turkish)))
  shares, found = judged(turkish, own, known)
  assert shares == pytest.approx(found.true)  # of the same texts
  assert shares['adherence'] >= 0.97
  assert shares['mixed'] <= 0.1
  assert shares['words_other'] <= 0.05
  shares, found = judged(turkish, other, known)
  assert shares['other_language'] >= 0.97
  assert shares['adherence'] == 0
  assert shares['words_other'] >= 0.9
  assert found.true['adherence'] >= 0.97
  assert {score.better for name, score in found.scores.items() if name != 'adherence'} == {'lower'}
  assert found.scores['adherence'].better == 'higher'
  # The reverse: prompted in English.
  back = judged(english, [one.rest for one in english], known.turned, ('en', 'tr'))[0]
  assert back['adherence'] >= 0.97
  assert back['words_other'] <= 0.05


def test_every_third_word_from_a_lexicon_is_mixed_text(english, known):
  """As substituted training text is: English with Turkish words in it."""
  lexicon = {}
  for line in (SAMPLE / 'en-tr.tsv').read_text(encoding='utf-8').splitlines():
    source, _, target = line.partition('\t')
    if words_lib.is_word(source) and words_lib.is_word(target.split('\t')[0]):
      lexicon.setdefault(source, target.split('\t')[0])
  mixed = []
  for one in english:
    parts = words_lib.split_words(one.rest)
    for at in range(1, len(parts), 6):
      parts[at] = lexicon.get(parts[at].lower(), 'değil')
    mixed.append(''.join(parts))
  pure = judged(english, [one.rest for one in english], known.turned, ('en', 'tr'))[0]
  shares = judged(english, mixed, known.turned, ('en', 'tr'))[0]
  assert shares['mixed'] >= 0.9 > 0.15 >= pure['mixed']
  assert shares['words_other'] > pure['words_other'] + 0.2


def test_what_is_no_language_is_unknown(turkish, known):
  nothing = [
    '12 345 6,7 -- ++ == 88 %',
    '',
    'Evet.',
    '<td> 0x3f8a </td> {"a": 1}',
    'x q z k w v 1 2 3',
  ]
  written = list(itertools.islice(itertools.cycle(nothing), len(turkish)))
  shares, _ = judged(turkish, written, known)
  assert shares['unknown'] >= 0.8
  assert shares['adherence'] == 0


def test_names_and_numbers_are_words_of_neither_language(known):
  assert {'ve', 'bir', 'olarak'} <= known.own
  assert {'the', 'and', 'which'} <= known.other
  assert not known.own & known.other
  both = adherence.tell_apart({'ve': 90, 'carolina': 10}, {'the': 95, 'carolina': 5})
  assert both == ({'ve'}, {'the'}, {'carolina'})
  assert both.turned == ({'the'}, {'ve'}, {'carolina'})


def test_a_language_that_the_library_does_not_know_is_told_by_its_words(known):
  identify = adherence.identifier('ewe_Latn', 'en', known)
  assert identify('Bu bölgede ve diğer illerde olarak') == 'own'
  assert identify('The people which were in the city and') == 'other'
  assert identify('Evet.') == 'unknown'
  assert identify('Bu bölgede the people which olarak') == 'unknown'


def test_codes_of_either_standard_name_a_language(turkish, known):
  for code in ('tr', 'tur', 'tur_Latn'):
    assert adherence.identifier(code, 'eng', known)(turkish[0].rest) == 'own'
  with pytest.raises(ValueError, match='one language'):
    adherence.identifier('tr', 'tur_Latn', known)


def test_a_language_without_spaces_is_told_by_its_letters():
  words = adherence.tell_apart({'卡万肖特': 1}, {'the': 5, 'and': 3})
  identify = adherence.identifier('zho_Hans', 'en', words)
  assert identify('黑豹队的防守只丢了308分，在联赛中排名第六') == 'own'
  assert identify('The Panthers defense gave up just 308 points') == 'other'


def test_coco_cola_counts_right_answers_by_their_language():
  own = [['Almanya'], ['İsveç', 'İsveç Krallığı'], ['1905'], ['Kırmızı'], ['Deniz']]
  other = [['Germany'], ['Sweden'], ['1905'], ['Red'], ['Sea']]
  written = [' Almanya, Avrupa', ' Sweden', ' 1905', ' bilmiyorum', '']
  found = adherence.coco_cola(written, own, other)
  # '1905' tells nothing; one right in Turkish, one in English, of four.
  assert found['coco_cola_ratio'].value == 0.5
  assert found['cumulative_accuracy'].value == 0.5
  assert 'coco_cola_ratio' not in adherence.coco_cola([' ?'] * 5, own, other)
  with pytest.raises(ValueError, match='the same in both languages'):
    adherence.coco_cola([' 1905'], [['1905']], [['1905 ']])


@pytest.fixture(scope='module')
def model():
  tokenizer = Tokenizer(str(SAMPLE / 'tokenizer_1k.model'))
  config = DecoderConfig(
    layers=1, width=16, heads=2, feedforward=16, max_length=64, dtype='float32', attention='xla'
  ).resolve(platform='cpu', vocabulary=tokenizer.size, tokenizer_size=tokenizer.size)
  params = decoder.init_params(config, jax.random.key(3, impl='threefry2x32'))
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
  params = jax.device_put(params, mesh_lib.replicated(mesh))
  return RunModel(config, params, tokenizer, tokenizer.bos_id, tokenizer.eos_id, mesh, 'a toy')


def test_a_model_that_knows_no_language_is_not_adherent_and_draws_alike_again(
  model, turkish, known
):
  identify = adherence.identifier('tr', 'en', known)
  sampler = Sampler(
    model.config,
    model.mesh,
    eos=model.eos,
    vocabulary=model.tokenizer.size,
    sampling=Sampling(),
    batch=8,
  )
  found, again, another = (
    adherence.adherence(
      model, turkish[:8], identify, known, tokens=16, batch=8, seed=seed, sampler=sampler
    )
    for seed in (1, 1, 2)
  )
  assert found.texts == again.texts
  assert not set(found.texts) & set(another.texts)
  assert len(set(found.texts)) == 8
  assert found.scores['adherence'].value <= 0.25
  assert found.scores['words_unseen'].value >= 0.5
  assert sum(found.scores[n].value for n in ('adherence', 'other_language', 'unknown')) == 1
  record = found.to_json()
  assert set(record['scores']) == set(record['true'])
  assert record['scores']['adherence']['low'] <= record['scores']['adherence']['value']


def test_what_has_no_openings_is_refused(model, known):
  identify = adherence.identifier('tr', 'en', known)
  with pytest.raises(ValueError, match='no openings'):
    adherence.adherence(model, [], identify, known)
  short = EvaluationSet('short', 'text', 'tr', (Text('0', 'Bir iki üç.'),))
  with pytest.raises(ValueError, match='short has no text of 20 words'):
    adherence.openings(short)
  asked = EvaluationSet('asked', 'question', 'tr', (Question('0', 'Ne?', ('Bir',)),))
  with pytest.raises(ValueError, match="asked is of kind 'question'"):
    adherence.openings(asked)
  with pytest.raises(ValueError, match='the other language has no words'):
    adherence.tell_apart({'ve': 1}, {})
