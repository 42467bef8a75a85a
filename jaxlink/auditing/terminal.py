"""The audit as plain text, every number with its unit; what is no table is cut at 100 columns.

Easy to get wrong: direction marks. Words of a script that runs to the left are isolated, so that a terminal
leaves the numbers beside them in their places.
"""

import textwrap
from collections.abc import Sequence

from jaxlink.auditing import coverage, texts
from jaxlink.auditing.measure import Audit, Corpus, Link

_WIDTH = 100
_MISSING = 20
_SENTENCES = 3


def describe(audit: Audit) -> str:
  """Returns the whole audit."""
  parts = [_texts(audit.corpora), _faults(audit.corpora)]
  for link in audit.links:
    parts += [_coverage(link), _dose(link), _overlaps(link), _missing(link), _examples(link)]
  return '\n\n'.join(filter(None, parts))


def _fill(text: str, indent: str = '  ') -> str:
  """A paragraph of lines."""
  return textwrap.fill(text, _WIDTH, initial_indent='  ', subsequent_indent=indent,
                       break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table: the first column to the left, the others to the right."""
  widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
  return [
    '  ' + '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
    for row in (header, *rows)
  ]


def _texts(corpora: Sequence[Corpus]) -> str:
  rows = [
    [c.task, c.language, f'{c.documents:,}', f'{c.words:,}', f'{c.types:,}', f'{c.tokens:,}',
     f'{c.bytes:,}', f'{c.tokens_per_word:.3f}', f'{c.bytes_per_token:.3f}']
    for c in corpora
  ]  # fmt: skip
  header = [
    '',
    'code',
    'documents',
    'words',
    'types',
    'tokens',
    'bytes',
    'tokens/word',
    'bytes/token',
  ]
  return '\n'.join(['TEXT', *_table(header, rows)])


def _faults(corpora: Sequence[Corpus]) -> str:
  rows = [
    ['documents that stood there before', *(_of(c.faults.duplicate_documents, c.faults.documents) for c in corpora)],
    ['documents that the held-out text has', *(_of(c.faults.held_out, c.faults.documents) if c.held_out else '-' for c in corpora)],
    ['empty documents', *(f'{c.empty_documents:,}' for c in corpora)],
    ['bad lines of the files, left out', *(f'{c.rejected_lines:,}' for c in corpora)],
    ['lines', *(f'{c.faults.lines:,}' for c in corpora)],
    ['lines that stood there before', *(_of(c.faults.duplicate_lines, c.faults.lines) for c in corpora)],
  ]  # fmt: skip
  for reason, meaning in texts.REASONS.items():
    if any(reason in c.faults.by_reason for c in corpora):
      rows.append(
        [meaning, *(_of(c.faults.by_reason[reason], c.faults.lines) if reason in c.faults.by_reason
                    else 'not judged' for c in corpora)]
      )  # fmt: skip
  lines = ['FAULTS', *_table(['', *(c.task for c in corpora)], rows)]
  return '\n'.join(
    [*lines, *(_fill(f'{c.task}: {note}') for c in corpora if (note := script_note(c)))]
  )


def script_note(corpus: Corpus) -> str:
  """What script can and cannot tell about a corpus; '' if there is nothing to say."""
  if not corpus.faults.scripts:
    return (
      f'the scripts of {corpus.language!r} are not known here, so none of its lines is of another.'
    )
  if not corpus.same_script:
    return ''
  known = ' and '.join(corpus.faults.scripts)
  if 'other_language' in corpus.faults.by_reason:
    return (
      f'script cannot tell its language from the auxiliary one, both are {known}: lines of '
      f'{texts.FOREIGN_WORDS} words or more are judged by stop words instead, which is a guess.'
    )
  return f'script cannot tell its language from the others, which are {known} too.'


def _coverage(link: Link) -> str:
  lines = [f'LEXICON on {link.task}']
  for c in link.coverages:
    lexicon = link.lexicons[c.language]
    lines.append(
      f'  {c.language}: {lexicon["entries"]:,} sources, {lexicon["counts"].get("kept_pairs", 0):,} pairs, '
      f'{lexicon["counts"].get("identity_pairs", 0):,} identity pairs dropped'
    )
    if lexicon['unspliceable_targets']:
      lines.append(f'  {unspliceable_targets(lexicon["unspliceable_targets"])}')
    rows = [
      [name, f'{one.words:,}', share(one.words, c.all.words), share(one.tokens, c.all.tokens)]
      for name, one in standing(c)
    ]
    lines += _table(['', 'words', 'of words', 'of their tokens'], rows)
    rows = [
      [f'words {band.first:,} to {band.last:,} by frequency', f'{band.words:,}',
       share(band.words, c.all.words), share(band.covered, band.words)]
      for band in c.bands
    ]  # fmt: skip
    lines += _table(['', 'words', 'of words', 'covered'], rows)
    covered = max(1, sum(c.senses))
    senses = ', '.join(
      f'{n}{"+" if n == coverage.SENSES else ""}: {count / covered:.1%}'
      for n, count in enumerate(c.senses, 1)
    )
    lines.append(_fill(f'translations of a covered word: {senses}'))
    if c.lemma_language:
      lines.append(
        f"  LinkPolicy.lemmas = '{c.lemma_language}' would cover {c.lemma_words:,} words more "
        f'({share(c.lemma_words, c.all.words)} of all)'
      )
  return '\n'.join(lines)


def unspliceable_targets(count: int) -> str:
  """What is said of targets that a link table leaves out."""
  return f'{count:,} targets left out, which the tokenizer encodes differently in context'


def standing(c: coverage.Coverage) -> list[tuple[str, coverage.Counts]]:
  """What is known of a source's words, each with a name."""
  rows = [
    ('covered by the lexicon', c.covered),
    ('  of these, allowed by the regime', c.eligible),
    ('  of these, part of a phrase', c.phrases),
    ('mapped to nothing but themselves', c.identity),
    ('tokens depend on the neighbours', c.unspliceable),
  ]
  if c.stop_words and c.covered_stop_words:
    rows.append(('stop words', c.stop_words))
    rows.append(('  of these, covered', c.covered_stop_words))
    rows.append(('other words, covered', difference(c.covered, c.covered_stop_words)))
  return rows


def difference(one: coverage.Counts, other: coverage.Counts) -> coverage.Counts:
  """What is in one and not in the other, which is part of it."""
  return coverage.Counts(one.words - other.words, one.tokens - other.tokens)


def _dose(link: Link) -> str:
  policy = link.policy
  of_what = 'of all words' if policy['ratio_of'] == 'all' else 'of the eligible words'
  replaced = link.probability * link.ceiling
  lines = [
    f'DOSE on {link.task}, as a share of the words of a rewritten document',
    f"  highest with ratio_of='covered': word_ratio 1 replaces {link.ceiling:.2%} of all words",
    f"  highest with ratio_of='all':     word_ratio {floor(link.ceiling):.4f}; more is refused",
    _fill(
      f'the policy asks for {link.word_ratio:g} {of_what}: {replaced:.2%} of all words, '
      f'{link.doc_fraction * replaced:.2%} with {link.doc_fraction:g} of the documents rewritten'
      + (f'; {link.shortfall:.2%} short' if link.shortfall else '')
    ),
    '  highest by regime: ' + ', '.join(f'{name} {of:.2%}' for name, of in link.ceilings.items()),
  ]
  return '\n'.join(lines)


def floor(ratio: float) -> float:
  """A ratio with four decimals that a run accepts: never rounded up."""
  return int(ratio * 10_000) / 10_000


def _overlaps(link: Link) -> str:
  rows = [
    [f"{o.language}: mode='{o.mode}', join='{o.join}'" + (' (the policy)' if o.chosen else ''),
     '-' if o.known is None else f'{o.known:.2%}', f'{1 + o.growth:.3f}']
    for o in link.overlaps
  ]  # fmt: skip
  title = 'IDS: inserted tokens that native text has too, and new tokens for an old one, if all is replaced'
  return '\n'.join([title, *_table(['', 'known', 'new for old'], rows)])


def _missing(link: Link) -> str:
  lines = []
  for c in link.coverages:
    listed = [
      isolate(m.word) + f' {m.count:,}' + (f' ({m.lemma})' if m.lemma else '')
      for m in c.missing[:_MISSING]
    ]
    lines += [
      f'MISSING in {c.language}: the most frequent words without a translation (lemma that has one)',
      _fill(', '.join(listed)),
    ]
    if c.unspliceables:
      listed = [isolate(m.word) + f' {m.count:,}' for m in c.unspliceables[:_MISSING]]
      lines.append(_fill('tokens depend on the neighbours: ' + ', '.join(listed)))
  return '\n'.join(lines)


def _examples(link: Link) -> str:
  lines = ['SENTENCES as a model would read them']
  for sentence in link.examples[:_SENTENCES]:
    before = ''.join(piece.text for piece in sentence)
    after = ''.join(
      f'[{isolate(piece.replacement)}]' if piece.kind == 'replaced' else piece.text
      for piece in sentence
    )
    lines += [_fill(f'{name} {text.strip()}', ' ' * 10)
              for name, text in (('before:', before), ('after: ', after))]  # fmt: skip
  return '\n'.join(lines) if link.examples else ''


def isolate(word: str) -> str:
  """A word between marks that keep its direction to itself, where it runs to the left."""
  return f'\u2068{word}\u2069' if any('\u0590' <= char <= '\u08ff' for char in word) else word


def share(part: float, whole: float) -> str:
  """A percentage."""
  return f'{part / whole:.2%}' if whole else '-'


def _of(part: int, whole: int) -> str:
  return f'{part:,} ({share(part, whole)})' if part else '0'
