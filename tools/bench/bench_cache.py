"""How fast a cache is built: tokens, a mark on every word, and blocks, beside the bare tokenizer.

  python tools/bench/bench_cache.py english.jsonl --tokenizer tokenizer.model

Builds the cache of a text with one process and with more, each from nothing, and tokenises the same text with the
library alone. Wall time, on a machine with nothing else to do; starting TensorFlow in every worker is part of it.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import textwrap
import time

from jaxlink.data import seqio_side, sources


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('text', help='JSONL or plain text, compressed or not')
  parser.add_argument('--tokenizer', required=True)
  parser.add_argument('--processes', type=int, nargs='+', default=[1, os.cpu_count() or 1])
  args = parser.parse_args()
  seqio_side.import_tensorflow()
  import sentencepiece

  from jaxlink.data import build, cache_plan, fingerprint

  texts = [d.text for d in sources.read_documents(args.text) if d.text]
  bare = sentencepiece.SentencePieceProcessor(model_file=args.tokenizer)
  began = time.perf_counter()
  tokens = sum(len(bare.encode(text)) for text in texts)
  plain = tokens / (time.perf_counter() - began)
  print(f'{sum(map(len, texts)):,} characters, {tokens:,} tokens; bare SentencePiece, one core: '
        f'{plain / 1e6:.2f}M tokens/s')  # fmt: skip
  with tempfile.TemporaryDirectory() as folder:
    module = textwrap.dedent(f"""
      from jaxlink.data.register import register_corpus
      register_corpus('bench', {{'train': {str(pathlib.Path(args.text).resolve())!r}}}, language='en',
                      tokenizer={str(pathlib.Path(args.tokenizer).resolve())!r})
    """)
    pathlib.Path(folder, 'bench_task.py').write_text(module, encoding='utf-8')
    sys.path.insert(0, folder)
    os.environ['PYTHONPATH'] = folder  # of the workers
    seqio_side.import_module('bench_task')
    for processes in dict.fromkeys(args.processes):
      plan = cache_plan.make_plan(
        'bench', 'train', cache_dir=f'{folder}/{processes}', modules=['bench_task'],
        inputs=fingerprint.Inputs(f'{folder}/hashes.json'),
      )  # fmt: skip
      began = time.perf_counter()
      blocks = build.build(plan, processes=processes, progress=False)
      speed = blocks.tokens / (time.perf_counter() - began)
      print(
        f'cache built by {processes} processes: {speed / 1e6:.2f}M tokens/s, {speed / plain:.2f} x bare'
      )


if __name__ == '__main__':
  main()
