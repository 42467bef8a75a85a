"""Apertium .dix: spaces, tags, invariable parts, identical sides, patterns."""

import pytest

from jaxlink.link.lexicon import Lexicon


@pytest.fixture
def load(tmp_path):
  def load_entries(*entries, name='apertium-eu-en.eu-en.dix', root='dictionary'):
    path = tmp_path / name
    body = f'<section id="main" type="standard">{"".join(entries)}</section>'
    path.write_text(f'<{root}><pardefs/>{body}</{root}>', encoding='utf-8')
    return Lexicon.load(path, target='eu')

  return load_entries


def test_a_lemma_is_without_tags_and_with_spaces(load):
  lexicon = load(
    '<e r="RL"><p><l>arte<s n="post"/></l><r>up<b/>to<s n="pr"/></r></p></e>',
    '<e><p><l>kontuan<g><b/>hartu</g><s n="v"/></l><r>take<g><b/>into<b/>account</g></r></p></e>',
    '<e><p><l>ezin_txarrago</l><r>abysmal<!-- sic --></r></p></e>',
  )
  assert lexicon.entries == {
    'up to': ('arte',),
    'take into account': ('kontuan hartu',),
    'abysmal': ('ezin txarrago',),
  }
  assert lexicon.direction == 'inverted'


def test_identical_sides_and_patterns_are_counted(load):
  lexicon = load(
    '<e><p><l>ur</l><r>water</r></p></e>',
    '<e><i>taxi<s n="n"/></i></e>',
    '<e><re>[A-Z][A-Z]</re><p><l><s n="acr"/></l><r><s n="acr"/></r></p></e>',
    '<e><par n="ordinals"/><p><l>.</l><r/></p></e>',
  )
  assert lexicon.entries == {'water': ('ur',)}
  assert lexicon.identity_only == {'taxi'}
  assert lexicon.counts['patterns'] == 2


def test_the_languages_are_those_of_the_file_name(load):
  entry = '<e><p><l>water</l><r>ur</r></p></e>'
  assert load(entry, name='apertium-en-eu.en-eu.dix').direction == 'forward'
  with pytest.raises(ValueError, match=r'declares French .* wanted English .* and Basque'):
    load(entry, name='apertium-fr-en.fr-en.dix')


def test_other_xml_is_an_error(load):
  with pytest.raises(ValueError, match=r'the root is <TEI>, not the <dictionary>'):
    load(root='TEI')
  with pytest.raises(ValueError, match=r'no <e> in a <section>'):
    load()
