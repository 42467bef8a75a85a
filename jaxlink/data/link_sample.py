"""What LINK does to a sample of a source: counts, growth, ids that are native, sentences to show.

The sample is of blocks that lie evenly over the source, with every eligible word of every document replaced:
what a policy with a lower dose does is in proportion.

Easy to get wrong: the sample decides where windows lie (`LinkedWindows.stride`), so it may depend on nothing
but the source, the table and the draws.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from jaxlink.data.blocks import Blocks
from jaxlink.data.linked_rows import count_words
from jaxlink.link import splice as splice_lib
from jaxlink.link.policy import DOSE_FIELDS

if TYPE_CHECKING:
  from jaxlink.data.linked import LinkedWindows

_SPANS = 64
_LENGTH = 4096  # tokens of each
_NATIVE = 1_000_000  # tokens of native text in which inserted ids are looked for
_BEFORE, _SHOWN = 20, 60  # old tokens before the first replacement that is shown, and in all


@dataclasses.dataclass(frozen=True)
class Sample:
  """What was found.

  Attributes:
    counts: words, by the names of `Dose`; `documents` are not counted.
    growth: new tokens less old ones, for each old one.
    inserted_GV: how often each id was inserted, by language.
  """

  counts: dict[str, int]
  growth: Fraction
  inserted_GV: np.ndarray


def measure(source: 'LinkedWindows') -> Sample:
  """Replaces every eligible word of a sample."""
  tokens = source.blocks.tokens
  length = min(_LENGTH, tokens)
  count = min(_SPANS, -(-tokens // length))
  windows, _ = source.read([(tokens * k // count, length) for k in range(count)])
  every = dataclasses.replace(source.choice(0), doc_fraction=1.0, probability=1.0)
  spliced = splice_lib.splice(windows, source.table, every, source.tail)
  size = source.blocks.manifest['tokenizer']['size']
  inserted_GV = np.zeros((len(source.table.languages), size), np.int64)
  for g in range(len(inserted_GV)):
    of = spliced.language_S == g
    ids = spliced.tokens_M[splice_lib.ragged(spliced.begin_S[of], spliced.size_S[of])]
    inserted_GV[g] = np.bincount(ids, minlength=size)
  found = count_words(spliced.kind_W, np.zeros(len(spliced.kind_W), np.int64), 1)[0].tolist()
  return Sample(
    dict(zip(DOSE_FIELDS, [0, 0, *found], strict=True)),
    Fraction(len(spliced.tokens_M) - len(windows.tokens_N), len(windows.tokens_N)),
    inserted_GV,
  )


def id_overlap(sample: Sample, g: int, native: Sequence[Blocks]) -> float:
  """The share of a language's inserted tokens whose ids native text has; NaN if none was inserted.

  Args:
    sample: of a source.
    g: index of the language.
    native: caches in it, of which the beginnings are read.
  """
  inserted_V = sample.inserted_GV[g]
  seen_V = np.zeros(inserted_V.size, bool)
  for blocks in native:
    seen_V[blocks.read(0, min(blocks.tokens, _NATIVE))[0]] = True
  total = inserted_V.sum()
  return float(inserted_V[seen_V].sum() / total) if total else float('nan')


def examples(source: 'LinkedWindows', count: int) -> list[tuple[str, str]]:
  """Stretches of text as they were and as they are with the policy's ratio, replacements in brackets."""
  windows, _ = source.read([(0, min(4 * _LENGTH, source.blocks.tokens))])
  choice = dataclasses.replace(source.choice(0), doc_fraction=1.0)
  spliced = splice_lib.splice(windows, source.table, choice, source.tail)
  decode = source.tokenizer.decode_piece
  ends_S = spliced.begin_S + spliced.size_S
  found: list[tuple[str, str]] = []
  shown = 0  # new tokens that have been
  for begin in spliced.begin_S.tolist():
    if begin < shown or len(found) == count:
      continue
    first = int(np.searchsorted(spliced.place_N, max(begin - _BEFORE, shown)))
    stop = min(first + _SHOWN, len(windows.tokens_N) - 1)
    at, shown = int(spliced.place_N[first]), int(spliced.place_N[stop])
    pieces = []
    for s in np.flatnonzero((spliced.begin_S >= at) & (ends_S <= shown)).tolist():
      inserted = decode(spliced.tokens_M[spliced.begin_S[s] : ends_S[s]].tolist())
      space = ' ' if inserted.startswith(' ') else ''
      pieces += [decode(spliced.tokens_M[at : spliced.begin_S[s]].tolist()), space]
      pieces.append(f'[{inserted.strip()}]')
      at = int(ends_S[s])
    pieces.append(decode(spliced.tokens_M[at:shown].tolist()))
    found.append((decode(windows.tokens_N[first:stop].tolist()).strip(), ''.join(pieces).strip()))
  return found
