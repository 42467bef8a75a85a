"""SeqIO preprocessors: dictionary substitution, and tokens with a mark on every word.

In a task they stand in this order: source → (cleaning) → `link_substitute` → `tokenize_marked`.
Each takes and returns a `tf.data.Dataset` of dicts; text is UTF-8.

Easy to get wrong: a document's key is that of its *original* text, whatever is done to it later, so
that draws stay with the document. `link_substitute` therefore keeps the text it replaced.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import seqio
import tensorflow as tf

from jaxlink.data import linking, registry
from jaxlink.data.vocabulary import ChunkedVocabulary
from jaxlink.link import draws as draws_lib
from jaxlink.link import substitute as substitute_lib
from jaxlink.link.policy import DOSE_FIELDS, LinkPolicy


def link_substitute(
  dataset: tf.data.Dataset,
  output_features: dict[str, seqio.Feature] | None = None,
  *,
  policy: LinkPolicy,
  source: str,
  seed: int = 0,
  probability: float | None = None,
  text_key: str = 'text',
) -> tf.data.Dataset:
  """Replaces drawn words of each text by their translations (the reference form of LINK).

  Args:
    dataset: examples with a text.
    output_features: of the task; the tokenizer of 'targets' normalises a text before its words are
      replaced. Without them the text is taken as it is.
    policy: lexicon, share of documents, ratio of words, senses, mode. Registered names are looked up.
    source: name of the stream, part of the key of the draws.
    seed: of the draws.
    probability: what `policy.probability` gave for the whole source; only `ratio_of='all'` needs it.
    text_key: the feature that holds the text.

  Returns:
    The examples with the text replaced, the text as it was in 'original', 'cuts': int64, where the
    tokenizer cuts the text besides (`Substituted.cuts`), and 'dose': int64 counts in the order of
    `DOSE_FIELDS`.

  Source: LINK, arXiv 2605.23885; what is the paper's and what is ours: `jaxlink.link.substitute`.
  """
  linking.check_text_route(policy)
  policy = linking.resolve_policy(policy)
  draws = policy.draws(seed, source, 0)
  language = registry.source_language(source)
  normalize = normalizer(output_features)

  def rewrite(text: bytes) -> tuple[bytes, np.ndarray, np.ndarray]:
    original = text.decode()
    result = substitute_lib.substitute(
      normalize(original),
      linking.load_lexicons(policy, language),
      policy,
      draws,
      document=draws_lib.key_of(original),
      probability=probability,
      lists=linking.load_lists(policy),
    )
    return (
      result.text.encode(),
      np.array(result.cuts, np.int64),
      np.array(dataclasses.astuple(result.dose), np.int64),
    )

  def rewrite_example(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    text, cuts, dose = tf.numpy_function(
      rewrite, [example[text_key]], [tf.string, tf.int64, tf.int64], stateful=False
    )
    text.set_shape([])
    cuts.set_shape([None])
    dose.set_shape([len(DOSE_FIELDS)])
    original = example[text_key]
    return {**example, 'original': original, text_key: text, 'cuts': cuts, 'dose': dose}

  return dataset.map(rewrite_example)


def tokenize_marked(
  dataset: tf.data.Dataset,
  output_features: dict[str, seqio.Feature],
  *,
  text_key: str = 'text',
) -> tf.data.Dataset:
  """Tokenises each text and marks each of its words.

  Args:
    dataset: examples with a text, perhaps rewritten by `link_substitute`.
    output_features: of the task; 'targets' has the `ChunkedVocabulary`.
    text_key: the feature that holds the text.

  Returns:
    Examples of 'targets' int32 [T], without BOS and EOS; 'words' int32 [N, 4] (first token, tokens,
    flags, type) with 'word_types' (casefold(NFC(word)) of each distinct type, a line each); 'document'
    int64, the key of the original text; 'bytes', the size of the text; 'tokens_before', the number
    of tokens of the original; and what else the examples had, without the texts.
  """
  vocabulary = output_features['targets'].vocabulary

  def tokenize(text: bytes, original: bytes, cuts: np.ndarray) -> tuple:
    marked = vocabulary.tokenizer.encode_marked(text.decode(), cuts.tolist())
    before = len(marked.ids)
    if text != original:
      before = len(vocabulary.tokenizer.encode(original.decode()))
    return (
      marked.ids,
      marked.words,
      '\n'.join(marked.types).encode(),  # one string: TensorFlow is slow with many
      np.uint64(draws_lib.key_of(original.decode())).astype(np.int64),
      np.int64(len(text)),
      np.int64(before),
    )

  def tokenize_example(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    text = example[text_key]
    targets, words, types, document, size, before = tf.numpy_function(
      tokenize,
      [text, example.get('original', text), example.get('cuts', tf.zeros([0], tf.int64))],
      [tf.int32, tf.int32, tf.string, tf.int64, tf.int64, tf.int64],
      stateful=False,
    )
    for tensor, shape in (
      (targets, [None]), (words, [None, 4]), (types, []), (document, []), (size, []), (before, []),
    ):  # fmt: skip
      tensor.set_shape(shape)
    rest = {k: v for k, v in example.items() if k not in (text_key, 'original', 'cuts')}
    return {
      **rest, 'targets': targets, 'words': words, 'word_types': types, 'document': document,
      'bytes': size, 'tokens_before': before,
    }  # fmt: skip

  return dataset.map(tokenize_example)


def normalizer(output_features: dict[str, seqio.Feature] | None) -> Callable[[str], str]:
  """What the tokenizer of a task does to a text first; nothing where it is not known."""
  vocabulary = getattr((output_features or {}).get('targets'), 'vocabulary', None)
  return vocabulary.tokenizer.normalize if isinstance(vocabulary, ChunkedVocabulary) else str
