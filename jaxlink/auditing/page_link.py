"""The parts of the page that are about one rewritten source: its sentences, the lexicon, the dose.

Easy to get wrong: direction. A replacement of a script that runs to the left stands in a sentence that runs
to the right, so each is isolated, and the sentence's own direction is that of what was not replaced.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from jaxlink.auditing import coverage, plots
from jaxlink.auditing.markup import Child, bdi, tag
from jaxlink.auditing.measure import Link
from jaxlink.auditing.sentences import KINDS, Piece
from jaxlink.auditing.terminal import (
  difference,
  floor,
  share,
  standing,
  unspliceable_targets,
)  # fmt: skip
from jaxlink.link.lexicon import COUNTS

_SENSES = {
  'per_document': 'one for this word in this document',
  'uniform': 'any, each as likely',
  'weighted': "any, by the lexicon's weights",
  'first': 'the first of the lexicon',
}
_NONE = coverage.Counts()
_VISIBLE = 0.0005  # share of a bar that can be seen
_REGIMES = {
  'uniform': 'every covered word',
  'content': 'covered words but stop words',
  'stop': 'covered stop words',
  'domain': 'covered words of the list',
  'non_domain': 'covered words that are not on the list',
  'entities': 'covered names of the list',
}


def link(link: Link) -> Child:
  """Returns what is known of lexicon and dose."""
  return [_coverage(link), _dose(link), _overlaps(link), _missing(link)]


def examples(link: Link) -> Child:
  """Returns the sentences, or None if there are none."""
  if not link.examples:
    return None
  policy = link.policy
  annotated = policy['mode'] == 'annotate'
  where = (
    'A translation stands in brackets after its word.' if annotated
    else 'The word that stood there is written above its replacement.'
  )  # fmt: skip
  used = {piece.kind for sentence in link.examples for piece in sentence if piece.kind}
  key = [
    tag('li', tag('span', 'word', class_=f'w w-{kind}'), text)
    for kind, text in KINDS.items() if kind in used
  ]  # fmt: skip
  return [
    tag('h2', 'As a model would read it'),
    tag('p', f'Sentences of {link.task} out of rewritten documents, with the draws of a run. {where}',
        class_='quiet'),
    tag('ul', key, class_='key'),
    [
      tag('div', tag('p', [_word(piece, annotated) for piece in sentence], class_='sentence', dir='auto'),
          _why(sentence, policy['senses'], policy['regime']), class_='example')
      for sentence in link.examples
    ],
  ]  # fmt: skip


def _word(piece: Piece, annotated: bool) -> Child:
  if piece.kind == 'replaced' and annotated:
    gloss = piece.replacement[len(piece.text) + 2 : -1]
    new = tag('bdi', gloss, class_='w-replaced', lang=piece.language, title=_sense(piece))
    return [piece.text, ' (', new, ')']
  if piece.kind == 'replaced':
    new = tag('bdi', piece.replacement, class_='w-replaced', lang=piece.language)
    return tag('ruby', new, tag('rt', bdi(piece.text)), title=f'{piece.text}: {_sense(piece)}')
  if piece.kind:
    return tag('span', piece.text, class_=f'w-{piece.kind}', title=KINDS[piece.kind])
  return piece.text


def _sense(piece: Piece) -> str:
  return (
    f'translation {piece.sense} of {piece.senses}' if piece.senses > 1 else 'its only translation'
  )


def _why(sentence: Sequence[Piece], senses: str, regime: str) -> ET.Element:
  cases = {'upper': 'all capitals', 'title': 'first letter raised', '': 'as in the lexicon'}
  rows = [
    [bdi(piece.text), bdi(piece.replacement, piece.language), _sense(piece), cases[piece.case],
     bdi(piece.lemma) if piece.lemma else '']
    for piece in sentence if piece.kind == 'replaced'
  ]  # fmt: skip
  lemmas = any(row[-1] != '' for row in rows)
  header = ['word', 'becomes', 'sense', 'capitals', *(['found as'] if lemmas else [])]
  several = f'; of several translations, {_SENSES[senses]}'
  return tag(
    'details',
    tag('summary', f'why: regime {regime} takes {_REGIMES[regime]}{several}'),
    plots.table(header, [row if lemmas else row[:-1] for row in rows], numbers=False),
  )


def _coverage(link: Link) -> Child:
  return [
    tag('h2', f'What the lexicon has of {link.task}'),
    tag('p', 'Counted in running words, so that a frequent word counts as often as it stands there, and in '
             'the tokens that they take.', class_='quiet'),
    [
      [_coverage_of(c, len(link.coverages) > 1), _reading(link.lexicons[c.language])]
      for c in link.coverages
    ],
  ]  # fmt: skip


def _coverage_of(c: coverage.Coverage, named: bool) -> Child:
  bars = [_stack('words', 'words', c.all, c.covered, c.eligible, c.identity, c.unspliceable),
          _stack('their tokens', 'tokens', c.all, c.covered, c.eligible, c.identity, c.unspliceable)]  # fmt: skip
  if c.stop_words and c.covered_stop_words and c.eligible_stop_words:
    stop = (c.stop_words, c.covered_stop_words, c.eligible_stop_words)
    rest = map(difference, (c.all, c.covered, c.eligible), stop)
    bars += [_stack('stop words', 'words', *stop), _stack('other words', 'words', *rest)]
  meanings = {
    'eligible': 'has a translation', 'left': 'has one, which the regime leaves out',
    'identity': 'mapped to itself', 'unspliceable': 'tokens depend on the neighbours',
    'none': 'not in the lexicon',
  }  # fmt: skip
  there = {name for _, parts, _ in bars for name, part in parts if part >= _VISIBLE}
  rows = [
    [name, f'{one.words:,}', share(one.words, c.all.words), share(one.tokens, c.all.tokens)]
    for name, one in standing(c)
  ]
  bands = [
    [f'{band.first:,} to {band.last:,}', share(band.words, c.all.words), share(band.covered, band.words),
     plots.bar([('k-eligible', band.covered / max(1, band.words)),
                ('k-identity', band.identity / max(1, band.words))])]
    for band in c.bands
  ]  # fmt: skip
  covered = max(1, sum(c.senses))
  senses = [
    [f'{n}{" or more" if n == coverage.SENSES else ""}', f'{count:,}', share(count, covered),
     plots.bar([('k-eligible', count / max(1, *c.senses))])]
    for n, count in enumerate(c.senses, 1)
  ]  # fmt: skip
  return [
    tag('h3', f'In {c.language}') if named else None,
    plots.stacked(bars, 'has a translation'),
    plots.key([(f'k-{kind}', text) for kind, text in meanings.items() if f'k-{kind}' in there]),
    plots.table(['', 'words', 'of the words', 'of their tokens'], rows),
    tag('h3', 'By frequency'),
    tag('p', 'Words ranked by how often they stand in the text. Rare words are many, and a lexicon has few '
             'of them.', class_='quiet'),
    plots.table(['rank', 'of the text', 'covered', ''], bands, bar=True),
    tag('h3', 'Translations of a covered word'),
    tag('p', 'With several, a draw takes one (', tag('code', 'LinkPolicy.senses'), '): the more there are, '
             'the less the rewritten text means one thing.', class_='quiet'),
    plots.table(['translations', 'words', 'of the covered', ''], senses, bar=True),
  ]  # fmt: skip


def _reading(lexicon: Mapping[str, Any]) -> ET.Element:
  """What became of all that the lexicon's files hold."""
  counts = lexicon['counts']
  rows = [[COUNTS.get(name, name), f'{count:,}'] for name, count in counts.items() if count]
  if lexicon['unspliceable_targets']:
    rows.append([unspliceable_targets(lexicon['unspliceable_targets']), ''])
  return tag(
    'details',
    tag('summary', f'how the lexicon was read: {counts["kept_pairs"]:,} of {counts["pairs"]:,} pairs kept'),
    plots.table(['', 'how many'], rows),
  )  # fmt: skip


def _stack(
  name: str,
  unit: str,
  total: coverage.Counts,
  covered: coverage.Counts,
  eligible: coverage.Counts,
  identity: coverage.Counts = _NONE,
  unspliceable: coverage.Counts = _NONE,
) -> tuple[str, list[plots.Part], float]:
  """A bar of what is known of some words, or of their tokens, and the covered share."""
  all_, has, may, same, bad = (
    getattr(counts, unit) for counts in (total, covered, eligible, identity, unspliceable)
  )
  parts = {
    'eligible': may, 'left': has - may, 'identity': same, 'unspliceable': bad,
    'none': all_ - has - same - bad,
  }  # fmt: skip
  shares = [(f'k-{kind}', part / max(1, all_)) for kind, part in parts.items()]
  return name, shares, has / max(1, all_)


def _dose(link: Link) -> Child:
  policy = link.policy
  replaced = link.probability * link.ceiling
  of = 'all words' if policy['ratio_of'] == 'all' else 'the eligible words'
  short = f' The lexicon falls {link.shortfall:.2%} short of that.' if link.shortfall else ''
  rows = [
    [tag('code', "ratio_of='covered'"), 'a share of the eligible words', '1', f'{link.ceiling:.2%}'],
    [tag('code', "ratio_of='all'"), 'a share of all words', f'{floor(link.ceiling):.4f}',
     f'{floor(link.ceiling):.2%}'],
  ]  # fmt: skip
  regimes = [
    [regime, _REGIMES[regime], f'{top:.2%}', plots.bar([('k-eligible', top)])]
    for regime, top in link.ceilings.items()
  ]
  return [
    tag('h2', 'The dose that can be reached'),
    tag('p', f'The policy asks for {_percent(link.word_ratio)} of {of}: {replaced:.2%} of the words of a '
             f'rewritten document, and {link.doc_fraction * replaced:.2%} of all with '
             f'{_percent(link.doc_fraction)} of the documents rewritten.{short}'),
    plots.dose(link.ceiling, link.word_ratio, policy['ratio_of']),
    tag('p', 'The ratio has two readings. A share of all words that exceeds the ceiling is refused when '
             'training starts.', class_='quiet'),
    plots.table(['', 'word_ratio is', 'its highest value', 'words replaced then'], rows, left=2),
    tag('h3', 'By regime'),
    plots.table(['regime', 'takes', 'of all words', ''], regimes, left=2, bar=True),
  ]  # fmt: skip


def _overlaps(link: Link) -> Child:
  rows = [
    [tag('code', f"mode='{o.mode}', join='{o.join}'"), o.language + (', the policy' if o.chosen else ''),
     'no native text' if o.known is None else f'{o.known:.2%}', f'{1 + o.growth:.3f}']
    for o in link.overlaps
  ]  # fmt: skip
  return [
    tag('h2', 'Tokens that meet their own kind'),
    tag('p', 'Of the tokens that LINK inserts when it replaces all it can, those that native text has too: a '
             'token that native text never has teaches nothing about it. Beside it, how many new tokens '
             'there are then for an old one.', class_='quiet'),
    plots.table(['', '', 'known', 'new for old'], rows, left=2),
  ]  # fmt: skip


def _missing(link: Link) -> Child:
  parts: list[Child] = [tag('h2', 'Words that the lexicon lacks')]
  for c in link.coverages:
    gain = (
      f' Looking words up by lemma (LinkPolicy.lemmas = {c.lemma_language!r}) would cover {c.lemma_words:,} '
      f'more, {share(c.lemma_words, c.all.words)} of all; the lemma stands beside the word.'
      if c.lemma_language else ''
    )  # fmt: skip
    parts += [
      tag('p', f'The most frequent without a translation into {c.language}, and how often they stand there. '
               f'Stop words are pale.{gain}', class_='quiet'),
      _words(c.missing),
    ]  # fmt: skip
    for title, listed in (
      ('Mapped to nothing but themselves', c.identities),
      ('Left alone, since their tokens depend on the neighbours', c.unspliceables),
    ):
      if listed:
        parts += [tag('details', tag('summary', title), _words(listed))]
  return parts


def _words(listed: Sequence[coverage.Missing]) -> ET.Element:
  return tag('ol', [
    tag('li', tag('span', bdi(m.word), tag('small', ' → ', bdi(m.lemma)) if m.lemma else None,
                  class_='stop' if m.stop_word else None), tag('span', f'{m.count:,}', class_='n'))
    for m in listed
  ], class_='words')  # fmt: skip


def _percent(ratio: float) -> str:
  """A ratio that somebody chose, without zeros: 30 %."""
  return f'{float(Fraction(repr(ratio)) * 100):g}%'
