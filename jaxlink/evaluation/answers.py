"""Written answers: what a model writes after each prompt, and whether it is right.

  written = generate_answers(run_model.load('runs/mine'), found)          greedily, up to a stop text
  judge(found, written.texts)                                             {'exact_match': […], 'f1': […]}

Texts are compared as SQuAD v1.1 does (arXiv 1606.05250), for several languages: lower case, punctuation taken out,
white space made one space; a prediction has the best score over the right answers. As in MLQA (arXiv 1910.07475)
punctuation is all of Unicode's, and scripts that are written without spaces count by the character. MLQA takes out
articles, and what stands for them, in six languages; here, as in XQuAD (arXiv 1910.11856, SQuAD's own script),
English ones alone, and only from English answers. Of Chinese MLQA keeps punctuation, here it goes as elsewhere.

Numbers are compared by value: the last one of what was written (MGSM, arXiv 2210.03057), in any script's digits,
with or without separators of thousands.

Easy to get wrong: 80.000. A single separator before exactly three digits is one of thousands, whatever the
language, unless a 0 stands before it: 80.000 and 80,000 are 80000, 0.125 is an eighth, and so 1.125 is 1125.
"""

import collections
import decimal
import functools
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import regex

from jaxlink.evaluation.items import EvaluationSet
from jaxlink.generation import text as text_lib
from jaxlink.generation.draw import Sampling
from jaxlink.generation.sampler import Sampler
from jaxlink.link.casing import base_language
from jaxlink.run_model import RunModel

_SLICE = 4  # batches between two steps of the progress

_ARTICLES = regex.compile(r'\b(a|an|the)\b')
_NO_SPACES = r'\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}'
# A character with its marks where there are no spaces between words, else all up to the next space.
_PIECES = regex.compile(rf'(?=[{_NO_SPACES}])\X|(?:(?![{_NO_SPACES}])\S)+')
_DOTTED_I = frozenset({'tr', 'tur', 'az', 'aze', 'azj'})

_GROUP = '[.,٬٫،\'’\u00a0\u2009\u202f ]'  # between groups of digits, decimal point included
_MINUS = r'(?<![\p{L}\p{Nd}])[-−‒–]\s?'
_SIGN = rf'(?:{_MINUS}\p{{Sc}}?|\p{{Sc}}?)'
# Spaces only where three digits follow and one to three come before: "80 000", not "page 7 1200".
_NUMBER = regex.compile(
  rf'(?P<sign>{_MINUS})?\p{{Sc}}?(?P<digits>\p{{Nd}}{{1,3}}(?:[ \u00a0\u2009\u202f]\p{{Nd}}{{3}})+'
  rf'(?:[.,٫]\p{{Nd}}+)?(?!\p{{Nd}})|\p{{Nd}}+(?:[.,٬٫،\'’]\p{{Nd}}+)*)'
)
