import pytest

from jaxlink.data import cleaning
from tests.data.cleaning.texts import english, run, turkish
from tests.data.conftest import sample_text


def test_text_of_the_language_stays_and_text_in_another_script_goes():
  bengali = [p for p in sample_text('bn').split('\n') if p][:3]
  texts = [*turkish()[:20], *bengali]
  found = run(texts, cleaning.keep_script(language='tr'))
  assert [reason for _, reason in found] == [''] * 20 + ['script'] * 3
  found = run(texts, cleaning.keep_script(language='Bengali'))
  assert [reason for _, reason in found] == ['script'] * 20 + [''] * 3


def test_at_the_limit_a_document_stays():
  judge = cleaning.keep_script(scripts=['Latin'], least=0.75).judge
  assert judge('abc я 123 !').removed == ''
  assert judge('abc яб').removed == 'script'
  assert judge('12 345 !').removed == 'script'
  assert cleaning.keep_script(scripts=['Latin'], least=0).judge('12').removed == ''


def test_several_scripts_count_together():
  text = english()[0][:500] + ' Это предложение. ' * 20
  assert cleaning.keep_script(scripts=['Latin', 'Cyrillic'], least=1).judge(text).removed == ''
  assert cleaning.keep_script(language='sr', least=1).judge(text).removed == ''  # Serbian has both
  assert cleaning.keep_script(scripts=['Latin'], least=0.9).judge(text).removed == 'script'


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({}, 'give one of the two'),
    ({'language': 'tr', 'scripts': ['Latin']}, 'give one of the two'),
    ({'language': 'xx'}, "language='xx'.: its scripts are not known"),
    ({'scripts': ['Latni']}, "no Unicode script 'Latni'. Nearest: 'Latin'"),
    ({'language': 'tr', 'least': 1.2}, 'is 1.2: it is a share'),
  ],
)
def test_settings_that_make_no_sense_are_errors(settings, message):
  with pytest.raises(ValueError, match=message):
    cleaning.keep_script(**settings)
