"""FreeDict TEI: notes, examples and links stay out; broken or hostile files are errors or inert."""

import pytest

from jaxlink.link.lexicon import Lexicon


def tei(*entries, title='Swahili-English FreeDict Dictionary', head=''):
  return (
    f'<?xml version="1.0" encoding="UTF-8"?>{head}<TEI xmlns="http://www.tei-c.org/ns/1.0">'
    f'<teiHeader><fileDesc><titleStmt><title>{title}</title></titleStmt></fileDesc></teiHeader>'
    f'<text><body>{"".join(entries)}</body></text></TEI>'
  )


def entry(word, sense):
  return f'<entry><form><orth>{word}</orth></form>{sense}</entry>'


@pytest.fixture
def load_tei(tmp_path):
  def load(*entries, **arguments):
    path = tmp_path / 'swh-eng.tei'
    path.write_text(tei(*entries, **arguments), encoding='utf-8')
    return Lexicon.load(path, target='sw')

  return load


def test_a_note_behind_a_definition_is_no_part_of_it(load_tei):
  note = '<sense><def>they are</def><note type="hint">in an unspecified place</note></sense>'
  lexicon = load_tei(entry('wako', note))
  assert lexicon.entries == {'they are': ('wako',)}
  assert lexicon.counts['notes'] == 1


def test_a_note_within_a_definition_is_no_part_of_it(load_tei):
  lexicon = load_tei(
    entry('yenu', '<sense><def>your <note type="num">pl.</note>, yours</def></sense>')
  )
  assert lexicon.entries == {'your': ('yenu',), 'yours': ('yenu',)}


def test_translations_of_examples_are_not_read(load_tei):
  example = (
    '<cit type="example"><quote>Anakula</quote><cit type="trans"><quote>He eats</quote></cit></cit>'
  )
  lexicon = load_tei(
    entry('kula', f'<sense><cit type="trans"><quote>eat</quote></cit>{example}</sense>')
  )
  assert lexicon.entries == {'eat': ('kula',)}


def test_links_in_a_circle_are_counted_and_not_followed(load_tei):
  lexicon = load_tei(
    entry('ahadi', '<sense><xr>See also: <ref>agano</ref></xr></sense>'),
    entry('agano', '<sense><note type="def">Plural of <ref>ahadi</ref></note></sense>'),
    entry('maji', '<sense><def>water</def></sense>'),
  )
  assert lexicon.entries == {'water': ('maji',)}
  assert lexicon.counts['pointers'] == 2


def test_a_note_alone_is_no_translation(load_tei):
  lexicon = load_tei(
    entry('pole', '<sense><note type="usage">sympathy</note></sense>'),
    entry('maji', '<sense><def>water</def></sense>'),
  )
  assert lexicon.entries == {'water': ('maji',)}
  assert lexicon.counts['empty_side'] == 1


def test_headwords_that_stand_twice_are_one_key_with_the_senses_of_both(tmp_path):
  path = tmp_path / 'eng-swh.tei'
  senses = [f'<sense><def>{word}</def></sense>' for word in ('mvua', 'nyesha', 'mvua')]
  entries = [entry('rain', sense) for sense in senses]
  path.write_text(tei(*entries, title='English-Swahili Dictionary'), encoding='utf-8')
  lexicon = Lexicon.load(path, target='sw')
  assert lexicon.entries == {'rain': ('mvua', 'nyesha')}
  assert lexicon.counts['duplicate_pairs'] == 1


def test_every_form_of_a_source_headword_is_a_key_and_one_of_a_target(tmp_path):
  forms = (
    '<form><orth>colour</orth><orth>color</orth></form>'
    '<form type="infl"><orth>colours</orth></form>'
  )
  card = f'<entry>{forms}<sense><def>rangi</def></sense></entry>'
  path = tmp_path / 'eng-swh.tei'
  path.write_text(tei(card, title='English-Swahili Dictionary'), encoding='utf-8')
  assert Lexicon.load(path).entries == {'colour': ('rangi',), 'color': ('rangi',)}
  inverted = Lexicon.load(path, source='sw', target='en')
  assert inverted.entries == {'rangi': ('colour',)}
  assert inverted.counts['other_forms'] == 1


def test_entities_are_not_expanded(load_tei):
  bomb = '<!DOCTYPE TEI [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "/etc/passwd">]>'
  lexicon = load_tei(
    entry('maji', '<sense><def>water</def></sense>'),
    entry('cheka', '<sense><def>laugh &b; &f;</def></sense>'),
    head=bomb,
  )
  assert lexicon.entries == {'water': ('maji',), 'laugh': ('cheka',)}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('<TEI>\n<text>\n<entry></TEI>', r'x\.tei:3: no well-formed XML \(.*entry'),
    ('<dictionary/>', r'x\.tei: no <entry> under <dictionary>'),
    ('dog\tmbwa\n', r'x\.tei:1: no well-formed XML'),
    ('', r'x\.tei: the file is empty'),
  ],
)
def test_what_is_no_tei_is_an_error(tmp_path, content, message):
  path = tmp_path / 'x.tei'
  path.write_text(content)
  with pytest.raises(ValueError, match=message):
    Lexicon.load(path)
