"""`python -m jaxlink.generate`: continues texts with a trained model.

  python -m jaxlink.generate runs/quickstart --prompt "Türkiye" --samples 3
  python -m jaxlink.generate runs/quickstart@1500 --prompts_file prompts.txt --greedy --json > out.jsonl
  python -m jaxlink.generate runs/quickstart

The model is a run's directory, its last checkpoint or, with @STEP, another; or a folder with an exported
Hugging Face model. Of a run that keeps an average of its parameters it is the average. Without a prompt,
prompts are read from standard input, a line each; at a terminal they are asked for, one after the other,
and Ctrl-D ends.

Prompt and continuation are printed as text, with an empty line between two of them; with --json as one
JSON object a line: index, sample, prompt, text (the continuation alone), tokens, ended ('eos', 'stop' or
'length'). What was loaded, progress and tokens/s go to standard error.

Easy to get wrong: a seed and a prompt's place in the list make its draws, not the batch that it is in; the
same prompt at another place is drawn anew.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

_TOKENS = 64
_SLICE = 4  # batches between two looks at what is done


def main() -> None:
  args = _arguments()
  try:
    generate(args)
  except BrokenPipeError:  # whoever read has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except (ValueError, TypeError, OSError) as error:
    sys.exit(f'error: {error}')
  except (KeyboardInterrupt, EOFError):
    sys.exit(130)


def generate(args: argparse.Namespace) -> None:
  """Loads the model, continues all prompts, and prints."""
  from jaxlink.generation.draw import Sampling

  sampling = Sampling(**_sampling(args))  # before seconds of loading
  prompts = _prompts(args)

  from jaxlink import compile_cache, run_model
  from jaxlink import mesh as mesh_lib
  from jaxlink.generation.sampler import Sampler

  compile_cache.enable()
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(fsdp=args.fsdp, tensor=args.tensor))
  model = run_model.load(args.model, mesh=mesh, tokenizer=args.tokenizer, narrow=True)
  _say(model.description)
  sampler = Sampler(
    model.config, model.mesh, eos=model.eos, vocabulary=model.tokenizer.size, sampling=sampling,
    batch=args.batch,
  )  # fmt: skip
  if prompts is None:
    _converse(args, model, sampler)
  else:
    _continue_all(args, model, sampler, prompts)


def _continue_all(args: Any, model: Any, sampler: Any, prompts: Sequence[str]) -> None:
  import tqdm

  from jaxlink.generation import text

  lengths = [len(text.encode(model.tokenizer, model.opening, prompt)) for prompt in prompts]
  tokens = _tokens(args, sampler, max(lengths))
  shown = len(prompts) == args.samples == 1 and not args.json and sys.stdout.isatty()
  size = max(1, _SLICE * args.batch // args.samples)
  drawn, seconds, compiling, first = 0, 0.0, 0.0, True
  with tqdm.tqdm(
    total=len(prompts), unit='prompt', disable=True if len(prompts) <= size else None
  ) as bar:
    for start in range(0, len(prompts), size):
      part = prompts[start : start + size]
      began = time.perf_counter()
      rows = [n for n in lengths[start : start + size] for _ in range(args.samples)]
      sampler.prepare(model.params, rows, tokens)
      ready = time.perf_counter()
      made = _run(args, model, sampler, part, tokens, start, _Shown(part[0]) if shown else None)
      compiling, seconds = compiling + ready - began, seconds + time.perf_counter() - ready
      drawn += sum(one.tokens for each in made for one in each)
      if shown:
        print()
        continue
      for index, (prompt, samples) in enumerate(zip(part, made, strict=True), start):
        for sample, one in enumerate(samples):
          if args.json:
            found = {'index': index, 'sample': sample, 'prompt': prompt, 'text': one.text,
                     'tokens': one.tokens, 'ended': one.ended}  # fmt: skip
            print(json.dumps(found, ensure_ascii=False), flush=True)
          else:
            print(f'{"" if first else chr(10)}{prompt}{one.text}', flush=True)
          first = False
      bar.update(len(part))
  _say(
    f'{drawn:,} tokens in {seconds:.2f} s: {drawn / seconds:,.0f} tokens/s; compiling {compiling:.1f} s'
  )


def _converse(args: Any, model: Any, sampler: Any) -> None:
  """Asks for prompts until the input ends."""
  import readline  # noqa: F401 (gives input() a history)

  from jaxlink.generation import text

  for turn in range(1 << 31):
    try:
      prompt = input('> ')
    except EOFError:
      print()
      return
    shown = _Shown(prompt) if args.samples == 1 else None
    try:
      tokens = _tokens(args, sampler, len(text.encode(model.tokenizer, model.opening, prompt)))
      (made,) = _run(args, model, sampler, [prompt], tokens, turn, shown)
    except ValueError as error:
      _say(f'error: {error}')
      continue
    print('' if shown else '\n\n'.join(prompt + one.text for one in made))


def _tokens(args: Any, sampler: Any, longest: int) -> int:
  """How many tokens to draw; raises ValueError where there is no room for them."""
  room = sampler.model.max_length - longest
  tokens = max(1, min(_TOKENS, room)) if args.tokens is None else args.tokens
  sampler.check(longest, tokens)
  return tokens


def _run(
  args: Any, model: Any, sampler: Any, prompts: Sequence[str], tokens: int, first: int, seen: Any
) -> Any:
  from jaxlink.generation import text

  return text.generate(
    sampler, model.params, model.tokenizer, prompts, opening=model.opening, tokens=tokens,
    seed=args.seed, samples=args.samples, stop=args.stop, first=first, seen=seen,
  )  # fmt: skip


class _Shown:
  """Prints a text as it grows."""

  def __init__(self, prompt: str):
    self._prompt, self._count = prompt, 0

  def __call__(self, row: int, text: str) -> None:
    del row
    text = self._prompt + text
    print(text[self._count :], end='', flush=True)
    self._count = max(self._count, len(text))


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
  temperature = 0.8 if args.temperature is None else args.temperature
  if args.greedy:
    temperature = 0.0
  top_p = args.top_p
  if top_p is None:
    top_p = 0.95 if temperature else 1.0
  return {'temperature': temperature, 'top_p': top_p, 'top_k': args.top_k}


def _prompts(args: argparse.Namespace) -> list[str] | None:
  """The prompts; None where they are to be asked for.

  Raises:
    ValueError: a line of a .jsonl file that has no prompt, no prompts at all, or one that is not UTF-8.
  """
  if args.prompt:
    return _checked(args.prompt)
  if args.prompts_file:
    lines = pathlib.Path(args.prompts_file).read_text(encoding='utf-8').split('\n')
    prompts = list(_of_lines(lines, args.prompts_file))
  elif _at_terminal():
    return None
  else:
    prompts = list(_of_lines(sys.stdin.read().split('\n'), 'standard input'))
  if not prompts:
    raise ValueError(
      f'{args.prompts_file or "standard input"} has no prompts: it is a line for each.'
    )
  return _checked(prompts)


def _checked(prompts: list[str]) -> list[str]:
  for number, prompt in enumerate(prompts, 1):
    if any('\ud800' <= letter <= '\udfff' for letter in prompt):  # what the system could not decode
      raise ValueError(f'prompt {number}, {prompt!r}: it is not UTF-8.')
  return prompts


def _at_terminal() -> bool:
  return sys.stdin.isatty()


def _of_lines(lines: Sequence[str], name: str) -> Iterator[str]:
  for number, line in enumerate(lines, 1):
    line = line.removesuffix('\r')
    if not line:
      continue
    if not name.endswith('.jsonl'):
      yield line
      continue
    try:
      found = json.loads(line)
    except ValueError as error:
      raise ValueError(f'{name}, line {number}: it is no JSON ({error}).') from None
    if not isinstance(found, dict) or not isinstance(found.get('prompt'), str):
      raise ValueError(f'{name}, line {number}: it is an object with a string "prompt".')
    yield found['prompt']


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.generate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    'model', help="a run's directory, DIRECTORY@STEP, or the folder of an exported model"
  )
  parser.add_argument(
    '--prompt', action='append', default=[], help="a text to continue; '' starts one; repeatable"
  )
  parser.add_argument(
    '--prompts_file', metavar='FILE',
    help='a prompt a line; a .jsonl file has objects with "prompt", which may hold line breaks',
  )  # fmt: skip
  parser.add_argument(
    '--tokens', type=int, metavar='N', help='most new tokens (64, or what the model has room for)'
  )
  parser.add_argument('--samples', type=int, default=1, metavar='N', help='of each prompt (1)')
  parser.add_argument(
    '--temperature', type=float, help='of the draws (0.8): higher is bolder; 0 as --greedy'
  )
  parser.add_argument(
    '--top_p', type=float, metavar='P',
    help='draw from the likeliest tokens that together have probability P (0.95)',
  )  # fmt: skip
  parser.add_argument(
    '--top_k', type=int, default=0, metavar='K', help='draw from the K likeliest tokens (0: all)'
  )
  parser.add_argument(
    '--greedy', action='store_true', help='take the likeliest token, draw nothing'
  )
  parser.add_argument(
    '--stop', action='append', default=[], metavar='TEXT', help='end before this text; repeatable'
  )
  parser.add_argument('--seed', type=int, default=0, help='of the draws (0)')
  parser.add_argument('--json', action='store_true', help='a JSON object a line')
  parser.add_argument(
    '--batch', type=int, default=32, metavar='N', help='most texts at a time (32)'
  )
  parser.add_argument(
    '--fsdp', type=int, default=1, metavar='N', help='devices that share the parameters (1)'
  )
  parser.add_argument(
    '--tensor', type=int, default=1, metavar='N', help='devices that share the heads (1)'
  )
  parser.add_argument(
    '--tokenizer',
    default='',
    metavar='FILE',
    help="where the run's tokenizer is now, if it was moved",
  )
  args = parser.parse_args()
  if args.prompt and args.prompts_file:
    parser.error('give --prompt or --prompts_file, not both')
  for name, value in (('tokens', args.tokens), ('samples', args.samples), ('batch', args.batch)):
    if value is not None and value < 1:
      parser.error(f'--{name} is {value}: it is 1 or more')
  if args.greedy and (args.temperature or args.top_p is not None or args.top_k):
    parser.error('--greedy draws nothing: --temperature, --top_p and --top_k have no use with it')
  return args


if __name__ == '__main__':
  main()
