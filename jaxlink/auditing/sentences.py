"""Sentences as LINK rewrites them, with the reason for each word: what stands there now, or why not.

The reference does the work (`jaxlink.link.substitute`), with the draws of a run, three times: as drawn, with
every eligible word, and with every covered one. What one has and the next has not, is the reason.

Easy to get wrong: a sentence is shown out of a document that is rewritten, whatever the share of documents.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import regex

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import casing, lemmas, words
from jaxlink.link.draws import Draws, key_of
from jaxlink.link.lexicon import Lexicon
from jaxlink.link.policy import LinkPolicy, WordLists
from jaxlink.link.substitute import Substituted, substitute

# What can be said of a piece of text, in words.
KINDS = {
  'replaced': 'replaced',
  'not_drawn': 'could be replaced; the draw left it',
  'stop_word': 'has a translation; the regime leaves stop words out',
  'not_stop_word': 'has a translation; the regime takes stop words only',
  'not_listed': 'has a translation; the regime leaves it out',
  'identity': 'its only translation is itself',
  'no_entry': 'not in the lexicon',
  'unspliceable': 'its tokens depend on its neighbours',
}
_SENTENCE = regex.compile(r'\n+|(?<=[.!?।۔؟。！？…]["”’»)]?)\s+')
_SHORTEST, _LONGEST = 50, 260  # characters of a sentence that is shown


@dataclasses.dataclass(frozen=True)
class Piece:
  """A word or source of several, or what lies between two.

  Attributes:
    text: what stood there.
    kind: one of `KINDS`; '' for what is no word.
    replacement: what stands there now.
    language: of it.
    sense: which of its translations it is, from 1.
    senses: how many there are.
    case: 'upper', 'title' or ''.
    lemma: the form under which the lexicon has it, if another.
  """

  text: str
  kind: str = ''
  replacement: str = ''
  language: str = ''
  sense: int = 0
  senses: int = 0
  case: str = ''
  lemma: str = ''


def explain(
  texts: Sequence[str],
  lexicons: Mapping[str, Lexicon],
  policy: LinkPolicy,
  draws: Draws,
  *,
  lists: WordLists,
  probability: float,
  tokenizer: Tokenizer,
  count: int,
) -> list[list[Piece]]:
  """Rewrites documents, and takes from each a sentence in which something was replaced.

  Args:
    texts: documents of the auxiliary text.
    lexicons: language → its lexicon, as the link table has it.
    policy: resolved.
    draws: of the source.
    lists: the policy's.
    probability: of replacing an eligible word.
    tokenizer: says which words can be exchanged.
    count: of sentences, at most.
  """
  policy = dataclasses.replace(policy, doc_fraction=1.0, word_ratio=probability, ratio_of='covered')
  found = []
  for text in texts:
    pieces = _explain(tokenizer.normalize(text), lexicons, policy, draws, lists, tokenizer)
    best = max(_sentences(pieces), key=_interest, default=[])
    if _interest(best) > (0, 0):
      found.append(best)
    if len(found) == count:
      break
  return found


def _explain(
  text: str,
  lexicons: Mapping[str, Lexicon],
  policy: LinkPolicy,
  draws: Draws,
  lists: WordLists,
  tokenizer: Tokenizer,
) -> list[Piece]:
  """A document in pieces that make up its text."""
  flags_N = tokenizer.encode_marked(text).words[:, 2]
  spliceable_N = flags_N & words.UNSPLICEABLE == 0

  def rewrite(**changes: object) -> Substituted:
    changed = dataclasses.replace(policy, **changes)
    return substitute(
      text, lexicons, changed, draws, document=key_of(text), lists=lists, spliceable_N=spliceable_N
    )

  drawn = rewrite()
  eligible = _ends(rewrite(word_ratio=1.0))
  covered = _ends(rewrite(word_ratio=1.0, regime='uniform', word_list=''))
  languages = list(lexicons)
  replaced = {
    start + original.startswith(' '): (end, original, replacement, languages[g])
    for (start, end, original, replacement), g in zip(drawn.sites, drawn.language_S, strict=True)
  }
  left_out = {'content': 'stop_word', 'stop': 'not_stop_word'}.get(policy.regime, 'not_listed')
  pieces, at = [], 0
  for (start, end), spliceable in zip(words.find_words(text), spliceable_N.tolist(), strict=True):
    if start < at:
      continue  # inside a source of several words
    gap = text[at:start]
    if start in replaced:
      end, original, replacement, language = replaced[start]
      gap = gap[: len(gap) - original.startswith(' ')]
      piece = _describe(text[start:end], replacement, language, lexicons[language], policy)
    elif start in eligible:
      end = eligible[start]
      piece = Piece(text[start:end], 'not_drawn')
    elif start in covered:
      end = covered[start]
      piece = Piece(text[start:end], left_out)
    else:
      key = words.key(text[start:end])
      identity = any(key in lexicon.identity_only for lexicon in lexicons.values())
      kind = 'identity' if identity else 'no_entry'
      piece = Piece(text[start:end], kind if spliceable else 'unspliceable')
    pieces += [Piece(gap), piece] if gap else [piece]
    at = end
  return [*pieces, Piece(text[at:])]


def _ends(result: Substituted) -> dict[int, int]:
  """Where each site ends, by where its first word starts."""
  return {start + original.startswith(' '): end for start, end, original, _ in result.sites}


def _describe(
  original: str, replacement: str, language: str, lexicon: Lexicon, policy: LinkPolicy
) -> Piece:
  surfaces = words.split_words(original)[1::2]
  key = ' '.join(map(words.key, surfaces))
  under, targets = lemmas.targets_of(lexicon, key, policy.lemmas)
  case = casing.case_of(surfaces) if policy.match_case else 0
  shown = [casing.cased(target, case, language) for target in targets] if case else targets
  if policy.mode == 'annotate':
    shown = [f'{original} ({target})' for target in shown]
  return Piece(
    original, 'replaced', replacement, language, 1 + list(shown).index(replacement), len(targets),
    {words.UPPER: 'upper', words.TITLE: 'title'}.get(case, ''), under if under != key else '',
  )  # fmt: skip


def _sentences(pieces: Sequence[Piece]) -> list[list[Piece]]:
  """Cuts pieces at the ends of sentences; those too short or too long to show are left out."""
  sentences: list[list[Piece]] = [[]]
  for piece in pieces:
    first, *rest = [piece.text] if piece.kind else _SENTENCE.split(piece.text)
    if first:
      sentences[-1].append(dataclasses.replace(piece, text=first))
    for text in rest:
      sentences.append([Piece(text)] if text else [])
  return [
    sentence for sentence in sentences
    if _SHORTEST <= sum(len(piece.text) for piece in sentence) <= _LONGEST
    and not sentence[0].text[0].islower()  # what follows an abbreviation is no sentence
  ]  # fmt: skip


def _interest(sentence: Sequence[Piece]) -> tuple[int, int]:
  """Prefers sentences with all there is to see; (0, 0) if nothing was replaced."""
  kinds = {piece.kind for piece in sentence}
  replaced = sum(piece.kind == 'replaced' for piece in sentence)
  return (len(kinds), min(replaced, 5)) if replaced else (0, 0)
