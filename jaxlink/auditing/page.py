"""The audit as one page of HTML: opens from the disk, loads nothing, light and dark, in any script.

Easy to get wrong: whose text it is. Everything from a corpus or lexicon goes in as text of a tree (`markup`)
and inside a <bdi>, so that it can neither become markup nor turn the line round that it stands in.
"""

import pathlib
from collections.abc import Sequence

from jaxlink.auditing import coverage, findings, page_link, plots, texts
from jaxlink.auditing.markup import Child, bdi, tag, to_html
from jaxlink.auditing.measure import Audit, Corpus, Link, language_name
from jaxlink.auditing.terminal import script_note, share

_CSS = pathlib.Path(__file__).with_name('page.css')


def render(audit: Audit) -> str:
  """Returns the page."""
  title = _title(audit)
  head = tag(
    'head',
    tag('meta', charset='utf-8'),
    tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
    tag('meta', http_equiv='Content-Security-Policy',
        content="default-src 'none'; style-src 'unsafe-inline'"),
    tag('title', f'{title} – an audit'),
    tag('style', _CSS.read_text(encoding='utf-8')),
  )  # fmt: skip
  body = tag(
    'body',
    _summary(audit, title),
    [page_link.examples(link) for link in audit.links],
    _texts(audit),
    _faults(audit.corpora),
    [page_link.link(link) for link in audit.links],
    tag(
      'footer',
      'Made by ', tag('code', 'python -m jaxlink.audit'), '. Tokenizer of ',
      f'{audit.tokenizer["size"]:,} tokens, SHA-256 ', tag('code', audit.tokenizer['sha256'][:16]), '. ',
      [_lexicon_note(link) for link in audit.links],
    ),
  )  # fmt: skip
  return f'<!DOCTYPE html>\n{to_html(tag("html", head, body, lang="en"))}\n'


# ── the parts of the page ───────────────────────────────────────────────────────


def _title(audit: Audit) -> str:
  targets = [language_name(c.language) for link in audit.links for c in link.coverages]
  auxiliaries = [c.name for c in audit.corpora if c.role == 'auxiliary']
  return f'{_list(targets)} with {_list(auxiliaries)}'


def _list(names: Sequence[str]) -> str:
  return ' and '.join(dict.fromkeys(names))


def _summary(audit: Audit, title: str) -> Child:
  tiles = []
  for link in audit.links:
    of = f' on {link.task}' if len(audit.links) > 1 else ''
    tiles.append(
      (f'{link.ceiling:.1%}', f'of the words can be replaced: the highest dose of LINK{of}')
    )
  for corpus in audit.corpora:
    tiles.append((f'{corpus.tokens_per_word:.2f}', f'tokens for a word of {corpus.name}'))
  for corpus in audit.corpora:
    if corpus.role == 'target':
      repeated = share(corpus.faults.duplicate_lines, corpus.faults.lines)
      tiles.append((repeated, f'of the lines of {corpus.task} are repetitions'))
  return [
    tag('h1', title),
    tag('p', 'What the text is made of, what is wrong with it, and how much of the auxiliary text can be '
             'rewritten with the words of the lexicon.', class_='lead'),
    tag('ul', [tag('li', tag('b', value), tag('span', text)) for value, text in tiles], class_='tiles'),
    tag('h3', 'Worth knowing'),
    tag('ul', [tag('li', bdi(text)) for text in findings.of(audit)], class_='findings'),
  ]  # fmt: skip


def _texts(audit: Audit) -> Child:
  rows = [
    [c.task, c.name, *(f'{n:,}' for n in (c.documents, c.words, c.types, c.tokens, c.bytes)),
     f'{c.tokens_per_word:.3f}', f'{c.bytes_per_token:.3f}']
    for c in audit.corpora
  ]  # fmt: skip
  header = ['', 'language', 'documents', 'words', 'different', 'tokens', 'bytes', 'tokens a word',
            'bytes a token']  # fmt: skip
  lengths = [
    (c.name, [(f's{n}', count / max(1, c.words)) for n, count in enumerate(c.lengths, 1)],
     c.lengths[0] / max(1, c.words))
    for c in audit.corpora
  ]  # fmt: skip
  last = coverage.LENGTHS
  key = [(f's{n}', f'{n}{" or more" if n == last else ""}') for n in range(1, last + 1)]
  return [
    tag('h2', 'The text'),
    tag('p', 'How much there is of each source, and into how many tokens the tokenizer cuts it. A token '
             'is counted with the word it belongs to, the space before the word included.', class_='quiet'),
    plots.table(header, rows, left=2),
    tag('h3', 'Tokens in a word'),
    tag('p', 'The share of running words that are cut into one token, two, and so on: a language that is '
             'cut finer has shorter contexts and costs more.', class_='quiet'),
    plots.stacked(lengths, 'in one token'),
    plots.key(key),
  ]  # fmt: skip


def _faults(corpora: Sequence[Corpus]) -> Child:
  def cells(values: Sequence[tuple[int | None, int]]) -> list[Child]:
    return [
      tag('td', 'not judged' if part is None else f'{part:,}' + (f' ({share(part, whole)})' if part else ''),
          class_='n' + (' quiet' if not part else ''))
      for part, whole in values
    ]  # fmt: skip

  rows: list[tuple[str, list[tuple[int | None, int]]]] = [
    ('documents that stood there before, letter by letter',
     [(c.faults.duplicate_documents, c.documents) for c in corpora]),
    ('documents that the held-out text has too',
     [(c.faults.held_out if c.held_out else None, c.documents) for c in corpora]),
    ('documents without text', [(c.empty_documents, c.documents + c.empty_documents) for c in corpora]),
    ('lines of the files that could not be read, left out',
     [(c.rejected_lines, c.rejected_lines + c.documents) for c in corpora]),
    ('lines that stood there before', [(c.faults.duplicate_lines, c.faults.lines) for c in corpora]),
  ]  # fmt: skip
  for reason, meaning in texts.REASONS.items():
    values = [(c.faults.by_reason.get(reason), c.faults.lines) for c in corpora]
    if any(part is not None for part, _ in values):
      rows.append((meaning, values))
  body = [tag('tr', tag('th', name, scope='row'), cells(values)) for name, values in rows]
  head = tag('tr', tag('th'), [tag('th', c.task, class_='n', scope='col') for c in corpora])
  notes = [
    tag('p', tag('b', c.task), ': ', note, class_='quiet')
    for c in corpora
    if (note := script_note(c))
  ]
  shown = [
    tag('details', tag('summary', f'{c.task}: {meaning}', _by_script(c) if reason == 'other_script' else ''),
        tag('ul', [tag('li', bdi(_clip(line), c.language)) for line in c.faults.examples[reason]],
            class_='lines'))
    for c in corpora for reason, meaning in texts.REASONS.items() if reason in c.faults.examples
  ]  # fmt: skip
  repeated = [
    tag('details', tag('summary', f'{c.task}: the lines that are repeated most'),
        tag('ul', [tag('li', f'{times:,} × ', bdi(_clip(line), c.language))
                   for line, times in c.faults.repeated], class_='lines'))
    for c in corpora if c.faults.repeated
  ]  # fmt: skip
  return [
    tag('h2', 'What is wrong with it'),
    tag('p', f'All {sum(c.faults.lines for c in corpora):,} lines were read. A line may have several faults; '
             'nothing is taken out by the audit.', class_='quiet'),
    tag('div', tag('table', tag('thead', head), tag('tbody', body)), class_='scroll'),
    notes, repeated, shown,
  ]  # fmt: skip


def _by_script(corpus: Corpus) -> str:
  found = ', '.join(f'{script} {count:,}' for script, count in corpus.faults.by_script.items())
  return f' ({found})'


def _lexicon_note(link: Link) -> str:
  return ' '.join(
    f'Lexicon {language}: {lexicon["entries"]:,} sources, SHA-256 {lexicon["sha256"][:16]}.'
    for language, lexicon in link.lexicons.items()
  )


# ── small things ────────────────────────────────────────────────────────────────


def _clip(line: str, length: int = 240) -> str:
  return line if len(line) <= length else line[: length - 1] + '…'
