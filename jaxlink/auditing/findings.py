"""What of an audit is worth knowing, in sentences that say what to do about it.

Easy to get wrong: a limit that cries wolf. Each one here is where something is lost for training, and the
number is said, so that a reader can judge it otherwise.
"""

from collections.abc import Iterator

from jaxlink.auditing.measure import Audit, Corpus, Link
from jaxlink.auditing.texts import REASONS

_FEW = 0.01  # share of documents or lines from which on a fault is told
_LEMMAS = 0.02  # share of all words that lemmas have to add
_KNOWN = 0.9  # share of inserted tokens that native text should have


def of(audit: Audit) -> list[str]:
  """Returns the sentences, the dose first."""
  found = [text for link in audit.links for text in _link(link)]
  return found + [text for corpus in audit.corpora for text in _corpus(corpus)]


def _link(link: Link) -> Iterator[str]:
  replaced = link.probability * link.ceiling
  yield (
    f'LINK can replace at most {link.ceiling:.1%} of the words of {link.task}. The policy replaces '
    f'{replaced:.1%} of those of a rewritten document, {link.doc_fraction * replaced:.1%} of all.'
  )
  if link.shortfall:
    yield (
      f'The ratio that was asked is {link.shortfall:.2%} of all words more than the lexicon can reach: '
      'training will refuse it.'
    )
  for c in link.coverages:
    gain = c.lemma_words / max(1, c.all.words)
    if gain >= _LEMMAS:
      yield (
        f'Looking words up by lemma (LinkPolicy.lemmas = {c.lemma_language!r}) would cover {gain:.1%} of '
        'all words more.'
      )
  if link.unspliceable_share:
    yield (
      f'{link.unspliceable_share:.2%} of the words of {link.task} are left alone, since their tokens depend '
      'on what stands beside them.'
    )
  for overlap in link.overlaps:
    if overlap.chosen and overlap.known is not None and overlap.known < _KNOWN:
      yield (
        f'Only {overlap.known:.1%} of the tokens inserted in {overlap.language} occur in its native text: '
        'the lexicon may be in another script or spelling, or there is little of that text.'
      )


def _corpus(corpus: Corpus) -> Iterator[str]:
  faults = corpus.faults
  if faults.held_out:
    yield (
      f'{faults.held_out:,} documents of {corpus.task} stand in its held-out split ({corpus.held_out}) too: '
      'scores there are too good.'
    )
  for count, whole, what in (
    (faults.duplicate_documents, faults.documents, 'documents'),
    (faults.duplicate_lines, faults.lines, 'lines'),
  ):
    if count >= _FEW * max(1, whole):
      yield f'{count / whole:.1%} of the {what} of {corpus.task} are repetitions of others.'
  if corpus.rejected_lines:
    yield f'{corpus.rejected_lines:,} lines of the files of {corpus.task} could not be read and are left out.'
  for reason, count in faults.by_reason.items():
    if count >= _FEW * max(1, faults.lines):
      yield f'{corpus.task}: {count / faults.lines:.1%} are {REASONS[reason]}.'
