"""Continues texts: prompts in, text out, with stop strings, whole characters, and a line of progress.

Easy to get wrong: where a character ends. A token can be one byte of several that make a character, so what
is shown of an unfinished text ends before the last incomplete one, and a text that ended in the middle of
a character is cut there.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxlink.data.tokenizer import Tokenizer
from jaxlink.generation.sampler import CHUNK, Sampler

_INCOMPLETE = '�'  # what a tokenizer decodes bytes of no character to


@dataclasses.dataclass(frozen=True)
class Generated:
  """A prompt's continuation.

  Attributes:
    text: what was added, up to a stop string, which is left out.
    tokens: that were drawn, those of a stop string and the EOS's included.
    ended: 'eos', 'stop' (a stop string) or 'length'.
  """

  text: str
  tokens: int
  ended: str


def encode(tokenizer: Tokenizer, opening: int, prompt: str) -> list[int]:
  """The ids of a prompt, with what opens a text."""
  return [opening, *tokenizer.encode(prompt)]


def generate(
  sampler: Sampler, params: Any, tokenizer: Tokenizer, prompts: Sequence[str], *,
  opening: int, tokens: int, seed: int, samples: int = 1, stop: Sequence[str] = (),
  first: int = 0, step: int = 0, seen: Callable[[int, str], None] | None = None,
) -> list[list[Generated]]:  # fmt: skip
  """Continues prompts.

  Args:
    sampler: of the model.
    params: on the sampler's mesh.
    tokenizer: of the model.
    prompts: '' starts a text.
    opening: id that opens a text.
    tokens: most new ones.
    seed: of the draws; those of a prompt depend on its number and on nothing else of its company.
    samples: continuations of each prompt.
    stop: strings that end a text; no draws are made long after one.
    first: number of the first prompt.
    step: another one draws anew.
    seen: called with (row, text so far) every few tokens, where row is prompt · samples + sample. What it
      is given only grows, but for what a stop string takes back in the end.

  Returns:
    For each prompt, its samples.

  Raises:
    ValueError: a prompt that is too long, no samples, an empty stop string.
  """
  if samples < 1:
    raise ValueError(f'samples is {samples}: it is 1 or more.')
  if '' in stop:
    raise ValueError("stop has '', which every text contains: give at least one character.")
  ids = [encode(tokenizer, opening, prompt) for prompt in prompts]
  rows = [row for row in ids for _ in range(samples)]
  streams = [(first + i, k, step) for i in range(len(prompts)) for k in range(samples)]

  def watch(indices: Sequence[int], so_far: Sequence[list[int]]) -> list[bool]:
    ends = []
    for index, new in zip(indices, so_far, strict=True):
      text = tokenizer.decode_piece(new)
      ends.append(_first_stop(text, stop) is not None)
      if seen is not None:
        seen(index, _settled(text[: _first_stop(text, stop)], stop))
    return ends

  found = sampler(
    params, rows, tokens=tokens, seed=seed, streams=streams,
    watch=watch if stop or seen else None, chunk=4 if seen else CHUNK,
  )  # fmt: skip
  made = []
  for continuation in found:
    text = tokenizer.decode_piece(continuation.ids)
    at = _first_stop(text, stop)
    ended = continuation.ended if at is None else 'stop'
    count = len(continuation.ids) + (continuation.ended == 'eos')
    made.append(Generated(_whole(text[:at]), count, ended))
  if seen is not None:
    for index, one in enumerate(made):
      seen(index, one.text)
  return [made[i : i + samples] for i in range(0, len(made), samples)]


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
  """Where the first stop string begins; None where there is none."""
  return min((at for s in stop if (at := text.find(s)) >= 0), default=None)


def _whole(text: str) -> str:
  """Without the bytes at its end that are not yet a character: three at most."""
  short = text.rstrip(_INCOMPLETE)
  return text[: max(len(short), len(text) - 3)]


def _settled(text: str, stop: Sequence[str]) -> str:
  """What will stay whatever follows: whole characters, and nothing that may begin a stop string."""
  text = _whole(text)
  held = [n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])]
  return text[: len(text) - max(held, default=0)]
