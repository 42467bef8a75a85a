"""Written answers: known values of SQuAD's and MGSM's comparisons, in several languages; and the writing of them."""

import collections
import decimal

import jax
import pytest

from jaxlink import mesh as mesh_lib
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.evaluation import answers
from jaxlink.evaluation.items import EvaluationSet, Question, Text
from jaxlink.generation import text as text_lib
from jaxlink.model import decoder
from jaxlink.model.shape import DecoderConfig
from jaxlink.run_model import RunModel
from tests.tiny_project import SAMPLE


# Answers are XQuAD's.
@pytest.mark.parametrize(
  ('prediction', 'answer', 'language', 'exact', 'f1'),
  [
    ('308', '308', 'tr', 1, 1),
    ('the Denver Broncos.', 'Denver Broncos', 'en', 1, 1),
    ('Denver Broncos beat Carolina', 'The Denver Broncos', 'en', 0, 2 / 3),
    ('a cat, an owl', 'cat owl', 'en', 1, 1),
    ('die Broncos', 'Broncos', 'de', 0, 2 / 3),  # articles are English ones only
    ('IŞIK', 'ışık', 'tr', 1, 1),
    ('İstanbul', 'istanbul', 'tr', 1, 1),
    ('“Thomas Davis” ve Luke Kuechly', 'Thomas Davis', 'tr', 0, 4 / 7),
    ('卡万·肖特', '卡万肖特', 'zh', 1, 1),
    ('职业碗 截锋', '职业碗', 'zh', 0, 6 / 8),
    ('ทอมัส', 'ทอมัส', 'th', 1, 1),
    ('ที่หก', 'หก', 'th', 0, 4 / 5),  # three letters, one with two marks
    ('11 sack', '11 Sack', 'tr', 1, 1),
    ('', '24', 'tr', 0, 0),
    ('The', 'the', 'en', 1, 1),
    ('¿Qué? ¡Sí!', 'qué sí', 'es', 1, 1),
    ('$5,600', '5600', 'en', 1, 1),
  ],
)
def test_texts_compare_as_known(prediction, answer, language, exact, f1):
  assert answers.exact_match(prediction, answer, language) == exact
  assert answers.f1(prediction, answer, language) == pytest.approx(f1)
  assert answers.f1(answer, prediction, language) == pytest.approx(f1)


def test_english_is_scored_as_the_published_script_does():
  """SQuAD v1.1's own steps, on XQuAD's first answers with every mistake of theirs to make."""
  import re
  import string

  def normal(text):
    text = ''.join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r'\b(a|an|the)\b', ' ', text).split()

  said = ['308', 'the 24', 'Jared Allen', 'five-time', 'an A-team', "NFL's", 'Kony Ealy, 136']
  for one in said:
    for other in said:
      ours, theirs = normal(one), normal(other)
      same = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
      expected = 2 * same / (len(ours) + len(theirs))
      assert answers.f1(one, other, 'en') == pytest.approx(expected)
      assert answers.exact_match(one, other, 'en') == (ours == theirs)


# Numbers are those of MGSM's questions and answers, as each language writes them.
@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('Jibu ni 18.', '18'),
    ('2,125', '2125'),
    ('114,200', '114200'),
    ('80.000 US-Dollar', '80000'),
    ('achète une maison à 80 000 $', '80000'),
    ('80\u202f000', '80000'),
    ('1 000, puis 2 000', '2000'),
    ('von 4,50 auf 2,5', '2.5'),
    ('$1,234,567.89', '1234567.89'),
    ('1.234.567,89', '1234567.89'),
    ('₹1,14,200', '114200'),
    ('0.125', '0.125'),
    ('0,125', '0.125'),
    ('16 - 3 - 4 = 9 yai × $2 = $18', '18'),
    ('-5', '-5'),
    ('−$1,500', '-1500'),
    ('5-3', '3'),
    ('উত্তর ১১৪,২০০', '114200'),
    ('٢٬١٢٥٫٥', '2125.5'),
    ('答案是１８。', '18'),
    ("1'000 Franken", '1000'),
    ('12.05.2020', '2020'),
    ('18.00', '18'),
    ('page 7 1200', '1200'),
    ('150 %', '150'),
    ('on sekiz', None),
    ('', None),
  ],
)
def test_the_last_number_is_read_as_its_language_writes_it(text, value):
  assert answers.number(text) == (None if value is None else decimal.Decimal(value))


def test_numbers_are_the_same_by_value():
  assert answers.same_number('70.000 dolar', ['70000'])
  assert answers.same_number('18,0', ['17', '18'])
  assert not answers.same_number('18', ['81'])
  assert not answers.same_number('bilmiyorum', ['18'])


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


@pytest.fixture(scope='module')
def sampler(model):
  return answers.greedy_sampler(model, 8)


def asked(prompts, **settings):
  items = tuple(
    Question(str(n), prompt, ('308', 'üç yüz sekiz')) for n, prompt in enumerate(prompts)
  )
  return EvaluationSet('xquad_tr', 'question', 'tr', items, **settings)


LONG = 'Panthers savunması ligdeki derecesi altıncı sırada olarak sadece 308 sayı bıraktı. ' * 4
PROMPTS = ['Kaç sayı? Cevap:', LONG + 'Kaç sayı? Cevap:', 'Hangi yıl? Cevap:']


def test_answers_are_the_likeliest_texts_in_the_order_of_the_items(model, sampler):
  seen = []
  found = asked(PROMPTS, tokens=8, stop=())

  def progress(steps):
    for step in steps:
      seen.append(step)
      yield step

  written = answers.generate_answers(model, found, sampler=sampler, progress=progress)
  assert written.cut == 1
  assert seen == [0]
  kept = [answers.fit(model, prompt, 56) for prompt in PROMPTS]
  assert [cut for _, cut in kept] == [False, True, False]
  assert PROMPTS[1].endswith(kept[1][0])
  turned = text_lib.generate(
    sampler, model.params, model.tokenizer, [prompt for prompt, _ in reversed(kept)],
    opening=model.opening, tokens=8, seed=7,
  )  # fmt: skip
  assert written.texts == [one.text for (one,) in reversed(turned)]
  assert all(written.texts)


def test_a_prompt_is_cut_by_as_little_as_needed(model):
  size = len(text_lib.encode(model.tokenizer, model.opening, LONG))
  assert answers.fit(model, LONG, size) == (LONG, False)
  for room in (size - 1, 30, 2):
    kept, cut = answers.fit(model, LONG, room)
    assert cut
    assert LONG.endswith(kept)
    assert len(text_lib.encode(model.tokenizer, model.opening, kept)) <= room
    longer = LONG[len(LONG) - len(kept) - 1 :]
    assert len(text_lib.encode(model.tokenizer, model.opening, longer)) > room


def test_a_stop_text_ends_an_answer(model, sampler):
  (_, text, _), _ = answers.generate_answers(
    model, asked(PROMPTS, tokens=8, stop=()), sampler=sampler
  )
  stop = text[len(text) // 2]
  (_, cut, _), _ = answers.generate_answers(
    model, asked(PROMPTS, tokens=8, stop=(stop,)), sampler=sampler
  )
  assert cut == text[: text.index(stop)]


def test_answers_are_judged_by_the_best_of_the_right_ones():
  found = asked(PROMPTS)
  said = answers.mark(found, ['Üç yüz sekiz!', '308 sayı', 'altı'])
  assert said['exact_match'] == [1, 0, 0]
  assert said['f1'] == pytest.approx([1, 2 / 3, 0])
  numbers = answers.mark(asked(PROMPTS, answer='number'), ['308 sayı', '24 ve 308', '3.080'])
  assert numbers == {'exact_match': [1, 1, 0]}


def test_what_is_no_question_or_leaves_no_room_is_refused(model):
  texts = EvaluationSet('flores_tr', 'text', 'tr', (Text('0', LONG),))
  with pytest.raises(ValueError, match="flores_tr is of kind 'text'"):
    answers.generate_answers(model, texts)
  with pytest.raises(ValueError, match='xquad_tr asks for 63 tokens'):
    answers.generate_answers(model, asked(PROMPTS, tokens=63))
