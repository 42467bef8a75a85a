"""`python -m jaxlink.export`: a run's checkpoint as a Hugging Face model, which `transformers` loads.

  python -m jaxlink.export runs/mine --to my-model
  python -m jaxlink.export runs/mine@12000 --to my-model --dtype bfloat16 --shard_size 2GB
  python -m jaxlink.export --recipe /models/SomeLlama

Written are the weights (safetensors), config.json, generation_config.json, the tokenizer and a model card:
a Llama, or a Qwen3 where the run has QK-norm. No code comes with it. Wherever the run was trained, it is
exported on one CPU, one parameter at a time.

--recipe is for the other way: it prints the settings with which a run goes on from a Hugging Face
checkpoint (Stage.start_from).

Easy to get wrong: the beginning of a text. The model has seen none without its first token, so the
tokenizer puts it there; what is encoded with add_special_tokens=False has it not.
"""

import argparse
import re
import sys

_UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30}


def main() -> None:
  args = _arguments()
  try:
    run(args)
  except (ValueError, TypeError, OSError) as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit(f'SIGINT: ended; there is no {args.to}' if args.to else 'SIGINT: ended')


def run(args: argparse.Namespace) -> None:
  """Exports, or prints the settings of a checkpoint."""
  import os

  os.environ['JAX_PLATFORMS'] = 'cpu'  # an accelerator may be in use, and none is needed
  if args.recipe:
    from jaxlink.huggingface import read

    print(read.recipe(args.recipe))
    return
  import tqdm

  from jaxlink.huggingface import write

  done = write.export(
    args.run, args.to, dtype=args.dtype, shard_bytes=args.shard_size, averaged=not args.no_ema,
    tokenizer_path=args.tokenizer, with_tokenizer=not args.no_tokenizer, force=args.force,
  )  # fmt: skip
  print(
    f'{args.to}: {done.parameters:,} parameters, {tqdm.tqdm.format_sizeof(done.bytes, "B")} in {done.files} file'
    + ('s' if done.files > 1 else '')
    + (', the moving average' if done.averaged else '')
    + (f', without {done.stripped:,} rows of padding' if done.stripped else '')
  )
  tokenizer = '' if args.no_tokenizer else ', AutoTokenizer'
  print(f'  from transformers import AutoModelForCausalLM{tokenizer}')
  print(f'  model = AutoModelForCausalLM.from_pretrained({args.to!r})')
  if not args.no_tokenizer:
    print(f'  tokenizer = AutoTokenizer.from_pretrained({args.to!r})')


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m jaxlink.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    'run', nargs='?', default='', metavar='RUN_DIR[@STEP]', help='a run; its last checkpoint if no step is named'
  )  # fmt: skip
  parser.add_argument('--to', default='', metavar='DIR', help='the folder to write')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  parser.add_argument(
    '--shard_size', type=_size, default='4GB', metavar='SIZE', help='of a file of weights, at most (4GB)'
  )  # fmt: skip
  parser.add_argument(
    '--no_ema', action='store_true',
    help='the parameters themselves, where the run keeps their moving average',
  )  # fmt: skip
  parser.add_argument(
    '--tokenizer', default='', metavar='FILE', help="the run's tokenizer, where it has been moved"
  )
  parser.add_argument('--no_tokenizer', action='store_true', help='writes no tokenizer files')
  parser.add_argument('--force', action='store_true', help='replaces a model folder that is there')
  parser.add_argument(
    '--recipe', default='', metavar='DIR', help='prints how to go on from a Hugging Face checkpoint'
  )
  args = parser.parse_args()
  if args.recipe and (args.run or args.to):
    parser.error('--recipe reads another checkpoint: leave RUN_DIR and --to out')
  if not args.recipe and not (args.run and args.to):
    parser.error('give RUN_DIR and --to, or --recipe')
  return args


def _size(text: str) -> int:
  found = re.fullmatch(r'(\d+(?:\.\d+)?) ?([KMG]I?B)', text.upper())
  if not found or not float(found[1]):
    raise argparse.ArgumentTypeError(f'{text!r} is no size: write 500MB, 4GB or 2GiB')
  return int(float(found[1]) * _UNITS[found[2]])


if __name__ == '__main__':
  main()
