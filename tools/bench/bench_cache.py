"""How fast a cache is built, beside the bare tokenizer and SeqIO's own cache of the same task.

  python tools/bench/bench_cache.py english.jsonl --tokenizer tokenizer.model

Prints a table of seconds, passed and of processors. The rows:

  bare          `SentencePieceProcessor.encode` of each text, and no more
  jaxlink, n    tokens, a mark on every word, shuffled and in blocks, by n processes of this machine
  jaxlink, Beam the same files by Beam's DirectRunner
  SeqIO         `seqio.scripts.cache_tasks_main` of a task that parses the JSON and tokenises it, by the same
                runner; its tokens are neither marked nor in blocks

Each is a command of its own from nothing. Left of the line all of it, importing TensorFlow included, and the
ratio of bare to the time that passed. Right of it less what the same command takes for the first
document alone: what a large text costs, with the processor time used and its ratio, which bear a busy
machine; a pool's processor time is not known. Rows that
need Beam are left out, which is said, where it is not installed (the extra `beam`; SeqIO's writer also needs
google-crc32c).

Easy to get wrong: the text is JSONL with a field 'text', uncompressed, for SeqIO reads lines of it.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import textwrap
import time

import sentencepiece

ROOT = pathlib.Path(__file__).parents[2]
TASKS = """
  import json
  import sys
  import seqio
  import tensorflow as tf
  from jaxlink.data.register import register_corpus

  register_corpus('bench_ours', {{'train': {text!r}}}, language='en', tokenizer={tokenizer!r})

  @seqio.map_over_dataset
  def parse(line):
    text = tf.numpy_function(lambda b: json.loads(b)['text'].encode(), [line], tf.string)
    return {{'targets': tf.ensure_shape(text, [])}}

  seqio.TaskRegistry.add(
    'bench_seqio',
    source=seqio.TextLineDataSource({{'train': {text!r}}}),
    preprocessors=[
      parse, seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos,
    ],
    output_features={{'targets': seqio.Feature(seqio.SentencePieceVocabulary({tokenizer!r}))}},
  )
"""


def _bare(text: pathlib.Path, tokenizer: str) -> tuple[int, float]:
  """Returns the tokens of a text, and the processor time that they take, in seconds."""
  bare = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
  texts = [json.loads(line)['text'] for line in text.read_text(encoding='utf-8').splitlines()]
  began = time.process_time()
  return sum(len(bare.encode(text)) for text in texts), time.process_time() - began


def _run(command: list[str], folder: pathlib.Path) -> tuple[float, float]:
  """Returns the seconds that a command takes: passed, and of processors."""
  environment = {**os.environ, 'PYTHONPATH': f'{folder}:{ROOT}', 'TF_CPP_MIN_LOG_LEVEL': '3'}
  began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [sys.executable, '-m', *command], cwd=folder, env=environment, text=True, check=False,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip
  if done.returncode:
    sys.exit(f'{" ".join(command)}\n{done.stdout[-3000:]}')
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return time.perf_counter() - began, used


def _commands(processes: list[int]) -> dict[str, list[str]]:
  ours = [
    'jaxlink.cache',
    '--modules',
    'bench_tasks',
    '--mixture',
    'bench_ours',
    '--cache_dir',
    'cache',
  ]
  rows = {
    f'jaxlink, {n} process{"es" * (n > 1)}': [*ours, '--processes', str(n)] for n in processes
  }
  if importlib.util.find_spec('apache_beam') is None:
    print('no rows of Beam and of SeqIO: apache_beam is not installed here')
    return rows
  return {
    **rows,
    'jaxlink, Beam DirectRunner': [*ours, '--runner', 'DirectRunner'],
    'SeqIO cache_tasks, DirectRunner': [
      'seqio.scripts.cache_tasks_main', '--tasks=bench_seqio', '--module_import=bench_tasks',
      '--output_cache_dir=cache', '--pipeline_options=--runner=DirectRunner', '--alsologtostderr=false',
    ],
  }  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('text', help="JSONL with a field 'text', uncompressed")
  parser.add_argument('--tokenizer', required=True, help='of SentencePiece')
  parser.add_argument('--processes', type=int, nargs='+', default=[1, os.cpu_count() or 1])
  args = parser.parse_args()
  text, tokenizer = pathlib.Path(args.text).resolve(), str(pathlib.Path(args.tokenizer).resolve())
  tokens, bare = _bare(text, tokenizer)
  print(f'{text.stat().st_size:,} bytes, {tokens:,} tokens, {os.cpu_count()} cores')
  print(f'{"":32} {"passed":>8} {"x bare":>7} | {"passed":>8} {"used":>8} {"x bare":>7}')
  print(
    f'{"bare SentencePiece, one core":32} {bare:8.1f} {1:7.2f} | {bare:8.1f} {bare:8.1f} {1:7.2f}'
  )
  for name, command in _commands(list(dict.fromkeys(args.processes))).items():
    rows = []
    for whole in (False, True):
      with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        with open(text, 'rb') as lines:
          (here / 'text.jsonl').write_bytes(lines.read() if whole else lines.readline())
        module = textwrap.dedent(TASKS).format(text=f'{folder}/text.jsonl', tokenizer=tokenizer)
        (here / 'bench_tasks.py').write_text(module, encoding='utf-8')
        rows.append(_run(command, here))
    (start, start_used), (passed, used) = rows
    line = f'{name:32} {passed:8.1f} {bare / passed:7.2f} | {passed - start:8.1f}'
    if 'processes' not in name:  # a pool's are not told to who started the command
      line += f' {used - start_used:8.1f} {bare / (used - start_used):7.2f}'
    print(line, flush=True)


if __name__ == '__main__':
  main()
