"""Stop strings end a text exactly, and no half character is shown."""

import pytest

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.generation import text
from jaxlink.generation.sampler import Continuation
from tests.tiny_project import SAMPLE

TOKENIZER = Tokenizer(str(SAMPLE / 'tokenizer.model'))
TURKISH = "'nin başkenti Ankara'dır 👩🏽\u200d🚀.\n\nSoru: neresi? Cevap: İzmir"


class Scripted:
  """A sampler that 'draws' given texts, so many tokens between two looks."""

  def __init__(self, *texts, chunk=None, cut=None):
    self.ids = [TOKENIZER.encode(t)[:cut] for t in texts]
    self.chunk, self.given = chunk, {}

  def __call__(self, params, prompts, *, tokens, seed, streams, watch, chunk):
    self.given = {'prompts': prompts, 'streams': streams, 'watch': watch}
    found = []
    for index, ids in enumerate(self.ids):
      ids, size = ids[:tokens], self.chunk or chunk
      ends = [*range(1, len(ids), size), len(ids)] if watch else [len(ids)]
      stopped = next((n for n in ends if watch and watch([index], [ids[:n]])[0]), None)
      found.append(Continuation(ids[:stopped], 'length' if stopped is None else 'stop'))
    return found


def run(sampler, prompts=('Türkiye',), tokens=500, **settings):
  return text.generate(
    sampler, None, TOKENIZER, list(prompts), opening=2, tokens=tokens, seed=0, **settings
  )


def test_prompts_and_samples_are_rows_with_streams_of_their_own():
  scripted = Scripted(*'abcd')
  found = run(scripted, ['Türkiye', ''], samples=2, first=7, step=90_000)
  assert [[one.text for one in each] for each in found] == [['a', 'b'], ['c', 'd']]
  assert scripted.given['prompts'] == [[2, *TOKENIZER.encode('Türkiye')]] * 2 + [[2]] * 2
  assert scripted.given['streams'] == [
    (7, 0, 90_000),
    (7, 1, 90_000),
    (8, 0, 90_000),
    (8, 1, 90_000),
  ]
  assert scripted.given['watch'] is None  # nobody looks: the loop runs to its end on the device


@pytest.mark.parametrize('chunk', [1, 3, 32])
def test_a_text_ends_before_its_first_stop_string(chunk):
  (found,) = run(Scripted(TURKISH, chunk=chunk), stop=['Soru:', '\n\n', 'absent'])[0]
  assert found.text == TURKISH.split('\n\n')[0]
  assert found.ended == 'stop'
  assert found.tokens <= len(TOKENIZER.encode(TURKISH.split('Soru')[0])) + chunk


def test_without_a_stop_string_in_it_a_text_is_whole():
  (found,) = run(Scripted(TURKISH), stop=['Cevap yok'])[0]
  assert (found.text, found.ended) == (TURKISH, 'length')
  assert found.tokens == len(TOKENIZER.encode(TURKISH))


def test_what_is_shown_only_grows_and_has_whole_characters():
  shown = ['']

  def seen(row, so_far):
    assert row == 0
    assert so_far.startswith(shown[-1])
    assert TURKISH.startswith(so_far)  # no half character, and no '�'
    shown.append(so_far)

  run(Scripted(TURKISH, chunk=1), seen=seen)
  assert shown[-1] == TURKISH
  assert len(set(shown)) > 20


def test_what_may_begin_a_stop_string_is_not_shown():
  shown = []
  run(Scripted(TURKISH, chunk=1), seen=lambda _, so_far: shown.append(so_far), stop=['\n\nSoru'])
  assert shown[-1] == TURKISH.split('\n\n')[0]
  assert all('\n' not in so_far for so_far in shown)


def test_a_text_that_ends_inside_a_character_is_cut_before_it():
  ids = TOKENIZER.encode(TURKISH)
  texts = [run(Scripted(TURKISH, cut=n))[0][0].text for n in range(1, len(ids) + 1)]
  assert all(TURKISH.startswith(each) for each in texts)
  assert any('�' in TOKENIZER.decode(ids[:n]) for n in range(len(ids)))  # or nothing was tried
  assert texts[-1] == TURKISH


@pytest.mark.parametrize(
  ('settings', 'message'),
  [({'samples': 0}, 'samples is 0: it is 1 or more'), ({'stop': ['a', '']}, "stop has ''")],
)
def test_mistakes_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    run(Scripted('a'), **settings)
