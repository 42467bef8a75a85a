import dataclasses
import html
import html.parser
import re

import pytest

from jaxlink.auditing import coverage, page, sentences, terminal
from jaxlink.auditing.markup import tag, to_html
from jaxlink.link.lexicon import COUNTS

HOSTILE = '</style></bdi><script>alert("1")</script><img src=http://example.com/x onerror=alert(2)>'
VOID = {'meta', 'br', 'img', 'link', 'input', 'hr'}


class Checker(html.parser.HTMLParser):
  """Finds elements that are not closed in their order, and notes all that there are."""

  def __init__(self):
    super().__init__()
    self.open, self.elements = [], []

  def handle_starttag(self, name, attributes):
    self.elements.append((name, dict(attributes)))
    if name not in VOID:
      self.open.append(name)

  def handle_endtag(self, name):
    assert self.open.pop() == name


def check(text):
  checker = Checker()
  checker.feed(text)
  checker.close()
  assert not checker.open
  return checker.elements


@pytest.fixture(scope='module')
def hostile(audit):
  """The audit, with hostile text wherever text of a corpus or lexicon is."""
  corpora = [
    dataclasses.replace(
      corpus,
      faults=dataclasses.replace(
        corpus.faults,
        examples={'control': [HOSTILE, 'bell \x07 and \x00']},
        repeated=[(HOSTILE, 3)],
      ),
    )
    for corpus in audit.corpora
  ]
  missing = [coverage.Missing(HOSTILE, 5, lemma=HOSTILE)]
  words = [
    sentences.Piece(HOSTILE, 'replaced', HOSTILE, 'tr', 1, 2, lemma=HOSTILE),
    sentences.Piece(HOSTILE),
    sentences.Piece(HOSTILE, 'no_entry'),
  ]
  links = [
    dataclasses.replace(
      link, examples=[words],
      coverages=[
        dataclasses.replace(c, missing=missing, identities=missing, unspliceables=missing)
        for c in link.coverages
      ],
    )
    for link in audit.links
  ]  # fmt: skip
  return dataclasses.replace(audit, corpora=corpora, links=links)


def test_the_page_is_well_formed_and_loads_nothing(audit):
  text = page.render(audit)
  elements = check(text)
  names = {name for name, _ in elements}
  assert not names & {'script', 'link', 'img', 'iframe', 'object', 'embed', 'base', 'form'}
  attributes = {key for _, attributes in elements for key in attributes}
  assert not attributes & {'src', 'href', 'srcset', 'action', 'data', 'background'}
  assert not re.search(r'url\(|@import|https?:', text)
  policy = next(
    a['content'] for n, a in elements if a.get('http-equiv') == 'Content-Security-Policy'
  )
  assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text(hostile):
  text = page.render(hostile)
  elements = check(text)
  assert not {name for name, _ in elements} & {'script', 'img'}
  assert not any(key.startswith('on') for _, attributes in elements for key in attributes)
  assert text.count(html.escape(HOSTILE, quote=False)) >= 8
  assert 'bell ␇ and ␀' in text


def test_words_of_corpus_and_lexicon_are_isolated_from_the_direction_of_the_page(audit):
  sentence = [
    sentences.Piece('A '), sentences.Piece('day', 'replaced', 'دن', 'ur', 1, 1), sentences.Piece('.'),
  ]  # fmt: skip
  links = [dataclasses.replace(audit.links[0], examples=[sentence])]
  text = page.render(dataclasses.replace(audit, links=links))
  assert '<bdi class="w-replaced" lang="ur">دن</bdi><rt><bdi>day</bdi></rt>' in text
  assert '<p class="sentence" dir="auto">A <ruby' in text


def test_an_annotation_is_shown_after_its_word(audit):
  sentence = [sentences.Piece('day', 'replaced', 'day (دن)', 'ur', 1, 1)]
  link = dataclasses.replace(
    audit.links[0], examples=[sentence], policy={**audit.links[0].policy, 'mode': 'annotate'}
  )
  text = page.render(dataclasses.replace(audit, links=[link]))
  assert 'day (<bdi class="w-replaced" lang="ur" title="its only translation">دن</bdi>)' in text


def test_the_page_has_the_numbers_of_the_audit(audit):
  text = page.render(audit)
  (link,) = audit.links
  for corpus in audit.corpora:
    assert f'>{corpus.words:,}<' in text
    assert f'>{corpus.tokens_per_word:.3f}<' in text
  (c,) = link.coverages
  assert f'>{c.covered.words:,}<' in text
  assert f'>{link.ceiling:.2%}<' in text
  assert f'ceiling {link.ceiling:.1%}' in text
  assert html.escape(c.missing[0].word) in text


def test_the_page_says_what_became_of_the_pairs_of_the_lexicon(audit):
  text = page.render(audit)
  counts = audit.links[0].lexicons['tr']['counts']
  assert f'{counts["kept_pairs"]:,} of {counts["pairs"]:,} pairs kept' in text
  told = [html.escape(COUNTS[name], quote=False) in text for name, n in counts.items() if n]
  assert len(told) > 3
  assert all(told)


def test_the_terminal_has_the_numbers_of_the_audit(audit):
  text = terminal.describe(audit)
  (link,) = audit.links
  assert f'word_ratio 1 replaces {link.ceiling:.2%} of all words' in text
  assert f'word_ratio {terminal.floor(link.ceiling):.4f}; more is refused' in text
  assert f'{link.coverages[0].missing[0].word} {link.coverages[0].missing[0].count:,}' in text
  assert 'script cannot tell its language from the auxiliary one, both are Latin' in text


def test_a_ratio_is_never_rounded_up_over_what_is_refused():
  assert terminal.floor(0.38299) == 0.3829
  assert terminal.floor(1.0) == 1.0


def test_words_that_run_to_the_left_are_isolated_in_the_terminal():
  assert terminal.isolate('دن') == '\u2068دن\u2069'
  assert terminal.isolate('gün') == 'gün'


def test_text_is_escaped_in_elements_attributes_and_between_elements():
  element = tag(
    'p', '<a>', tag('b', '&'), '"<c>', None, ['d', [tag('i')]], title='"<e>', class_='f'
  )
  assert to_html(element) == (
    '<p title="&quot;<e&gt;" class="f">&lt;a&gt;<b>&amp;</b>"&lt;c&gt;d<i></i></p>'
  )
