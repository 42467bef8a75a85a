"""The audit of a language or recipe: its texts, what its lexicons have of them, and what LINK can do.

In: a request as that of a run, with the caches and link tables that it names (`jaxlink.cache.answer` builds
what is missing). Out: an `Audit`, plain data that goes into JSON as it is. Words and coverage are read out
of caches; the text itself is read once, for what only it can tell.

Easy to get wrong: the dose that can be reached. It is a share of all words of a rewritten document, eligible
over words of the whole source, and the same number that a run refuses to exceed (`linking.count_source`).
"""

import collections
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import tqdm

from jaxlink.auditing import coverage, sentences, texts
from jaxlink.data import fingerprint, link_sample, linking
from jaxlink.data.blocks import Blocks
from jaxlink.data.caching import cache_plan, rewriting
from jaxlink.data.linked import LinkedWindows
from jaxlink.data.resolve import Source
from jaxlink.data.tokenizer import Tokenizer
from jaxlink.link import casing
from jaxlink.link import policy as policy_lib
from jaxlink.link.formats import languages
from jaxlink.link.lemmas import lemma
from jaxlink.link.policy import LinkPolicy
from jaxlink.link.table import keep_spliceable

_SENTENCES = 8
_SAMPLE = 64  # documents in which sentences are looked for


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A source of text, and how a tokenizer cuts it.

  Attributes:
    role: 'auxiliary' if LINK rewrites it, 'target' if a lexicon is of its language, else 'other'.
    tokens: BOS and EOS included.
    word_tokens: those of words, the space before a word included.
    bytes: of the text.
    boundary_tokens: BOS and EOS.
    lengths: words of 1, 2, … tokens; the last counts all that have more.
    held_out: name of the held-out split that documents were looked for in, '' if there is none.
    same_script: whether script cannot tell its language from the others' of the audit.
  """

  task: str
  language: str
  name: str
  role: str
  documents: int
  words: int
  types: int
  tokens: int
  word_tokens: int
  bytes: int
  boundary_tokens: int
  lengths: list[int]
  rejected_lines: int
  empty_documents: int
  held_out: str
  same_script: bool
  faults: texts.Faults

  @property
  def tokens_per_word(self) -> float:
    """Tokens of words for each word."""
    return self.word_tokens / max(1, self.words)

  @property
  def bytes_per_token(self) -> float:
    """Bytes of text for each token but BOS and EOS."""
    return self.bytes / max(1, self.tokens - self.boundary_tokens)


@dataclasses.dataclass(frozen=True)
class Overlap:
  """Inserted tokens against native text, for one language and way to render replacements.

  Attributes:
    mode, join: of the policy.
    language: of the targets.
    chosen: whether it is the audited policy's own way.
    known: share of the inserted tokens whose ids native text has, if every eligible word is replaced;
      None without native text.
    growth: new tokens for each source token then, less 1.
  """

  mode: str
  join: str
  language: str
  chosen: bool
  known: float | None
  growth: float


@dataclasses.dataclass(frozen=True)
class Link:
  """What LINK can do to one source.

  Attributes:
    task: the source.
    policy: resolved.
    counts: 'words', 'covered_any', 'covered', 'eligible' of the whole source, those of the engine.
    coverages: of each language of the targets.
    ceilings: regime → share of all words that it can replace; of regimes with lists of one's own, the
      policy's alone.
    probability: of replacing an eligible word under the policy, at the start of its schedule.
    shortfall: by how much its ratio exceeds what can be reached.
    doc_fraction: at the start of its schedule.
    lexicons: language → entries, pairs and what was dropped.
    unspliceable_share: of the source's words.
    overlaps: for each way to render.
    examples: sentences.
  """

  task: str
  policy: dict[str, Any]
  counts: dict[str, int]
  coverages: list[coverage.Coverage]
  ceilings: dict[str, float]
  probability: float
  shortfall: float
  doc_fraction: float
  word_ratio: float
  lexicons: dict[str, Any]
  unspliceable_share: float
  overlaps: list[Overlap]
  examples: list[list[sentences.Piece]]

  @property
  def ceiling(self) -> float:
    """The highest share of all words of a rewritten document that can be replaced."""
    return self.counts['eligible'] / max(1, self.counts['words'])


@dataclasses.dataclass(frozen=True)
class Audit:
  """All of it; `dataclasses.asdict` is the JSON."""

  tokenizer: dict[str, Any]
  corpora: list[Corpus]
  links: list[Link]


def measure(
  stages: list[list[tuple[Source, LinkPolicy | None]]],
  evaluations: list[Source],
  *,
  modules: list[str],
  settings: cache_plan.CacheSettings,
  cache_dir: str,
  seed_link: int,
  progress: bool = True,
) -> Audit:
  """Audits resolved stages.

  Args:
    stages: of each, the sources with their caches and, with LINK, the policy as the recipe has it.
    evaluations: the held-out caches.
    modules: that register the tasks.
    settings: of the caches.
    cache_dir: folder of all caches.
    seed_link: of the draws of the sentences that are shown.
    progress: whether to draw bars.
  """
  inputs = fingerprint.Inputs(os.path.join(cache_dir, 'hashes.json'))
  sources: dict[str, Source] = {}
  linked: dict[str, tuple[Source, LinkPolicy]] = {}
  for source, policy in (pair for stage in stages for pair in stage):
    sources[source.task] = source
    if policy:
      linked.setdefault(repr((source.task, policy)), (source, linking.resolve_policy(policy)))
  auxiliary = {source.task for source, _ in linked.values()}
  held_out = {source.task: Blocks(source.folder) for source in evaluations}
  blocks = {task: Blocks(source.folder) for task, source in sources.items()}
  targets = [language for _, policy in linked.values() for language in policy.lexicons]

  def role(task: str) -> str:
    if task in auxiliary:
      return 'auxiliary'
    is_target = any(languages.same(sources[task].language, language) for language in targets)
    return 'target' if is_target else 'other'

  corpora, samples = [], {}
  for task in sorted(sources, key=lambda task: role(task) != 'target'):
    plan = cache_plan.make_plan(
      task, 'train', cache_dir=cache_dir, inputs=inputs, modules=modules, settings=settings
    )
    lists = [
      linking.load_lists(policy) for source, policy in linked.values() if source.task != task
    ]
    corpus, samples[task] = _corpus(
      plan, blocks[task], held_out.get(task), role(task),
      others=[sources[other].language for other in sources if other != task],
      stop_words=frozenset().union(*(one.stop_words for one in lists)), progress=progress,
    )  # fmt: skip
    corpora.append(corpus)
  links = []
  for source, policy in linked.values():
    native = [blocks[task] for task in sources if task not in auxiliary]
    links.append(
      _link(source, policy, blocks[source.task], native, samples[source.task], cache_dir, inputs,
            seed_link, progress)
    )  # fmt: skip
  inputs.save()
  tokenizer = blocks[next(iter(sources))].manifest['tokenizer']
  return Audit({name: tokenizer[name] for name in ('path', 'size', 'sha256')}, corpora, links)


# ── texts ───────────────────────────────────────────────────────────────────────


def _corpus(
  plan: cache_plan.Plan,
  blocks: Blocks,
  held_out: Blocks | None,
  role: str,
  *,
  others: list[str],
  stop_words: frozenset[str],
  progress: bool,
) -> tuple[Corpus, list[str]]:
  manifest = blocks.manifest
  language = manifest['language']
  own = set(languages.scripts(language))
  same_script = any(own & set(languages.scripts(other)) for other in others)
  faults, sample = texts.read(
    _read(plan, manifest['documents'] + manifest['empty_documents'], progress),
    language,
    other_stop_words=stop_words if role == 'target' and same_script else (),
    held_out=coverage.document_keys(held_out) if held_out else (),
    sample=_SAMPLE if role == 'auxiliary' else 0,
  )
  word_tokens, lengths = coverage.token_lengths(blocks)
  types = collections.Counter(
    key for shard in manifest['shards'] for key in blocks.read_types(shard['shard'])
  )
  boundaries = sum(manifest['tokenizer'][end] is not None for end in ('bos', 'eos'))
  return Corpus(
    task=plan.task,
    language=language,
    name=language_name(language),
    role=role,
    types=len(types),
    **{name: manifest[name] for name in ('documents', 'words', 'tokens', 'bytes', 'rejected_lines',
                                         'empty_documents')},
    word_tokens=word_tokens,
    boundary_tokens=boundaries * manifest['documents'],
    lengths=lengths,
    held_out=held_out.manifest['split'] if held_out else '',
    same_script=same_script,
    faults=faults,
  ), sample  # fmt: skip


def _read(plan: cache_plan.Plan, documents: int, progress: bool) -> Iterator[str]:
  """The source's texts as a cache is made of them, empty ones left out."""
  bar = tqdm.tqdm(rewriting.texts(plan), total=documents, desc=f'reading {plan.name}',
                  unit=' documents', delay=2, disable=None if progress else True,
                  leave=False)  # fmt: skip
  yield from filter(None, bar)


def language_name(code: str) -> str:
  """The English name of a language, or its code."""
  return languages.name(casing.base_language(code)).partition(' (')[0].strip("'")


# ── LINK ────────────────────────────────────────────────────────────────────────


def _link(
  source: Source,
  policy: LinkPolicy,
  blocks: Blocks,
  native: list[Blocks],
  sample: list[str],
  cache_dir: str,
  inputs: fingerprint.Inputs,
  seed_link: int,
  progress: bool,
) -> Link:
  table = linking.make_table(policy, source.language, blocks, cache_dir, inputs)
  tokenizer = Tokenizer(os.path.join(blocks.folder, blocks.manifest['tokenizer']['path']))
  lists = linking.load_lists(policy)
  lexicons = {
    language: keep_spliceable(lexicon, language, policy.rendering, tokenizer)[0]
    for language, lexicon in linking.load_lexicons(policy, source.language).items()
  }
  counts = linking.count_source(blocks, table, policy.language_by, progress)
  lemma_language = '' if policy.lemmas else _lemma_language(source.language)
  coverages = [
    coverage.measure(
      blocks, table, lexicon, g, stop_words=lists.stop_words, lemma_language=lemma_language,
      progress=progress,
    )
    for g, lexicon in enumerate(lexicons.values())
  ]  # fmt: skip
  doc_fraction, word_ratio = policy.at(0)
  probability, shortfall = policy_lib.probability(
    policy.ratio_of, word_ratio, counts['words'], counts['eligible']
  )
  return Link(
    task=source.task,
    policy=dataclasses.asdict(policy),
    counts=counts,
    coverages=coverages,
    ceilings=_ceilings(policy, counts, coverages),
    probability=probability,
    shortfall=shortfall,
    doc_fraction=doc_fraction,
    word_ratio=word_ratio,
    lexicons=dict(table.meta['lexicons']),
    unspliceable_share=blocks.manifest['unspliceable_words'] / max(1, blocks.manifest['words']),
    overlaps=_overlaps(source, policy, blocks, native, tokenizer, cache_dir, inputs),
    examples=sentences.explain(
      sample, lexicons, policy, policy.draws(seed_link, blocks.name, 0), lists=lists,
      probability=probability, tokenizer=tokenizer, count=_SENTENCES,
    ),
  )  # fmt: skip


def _ceilings(
  policy: LinkPolicy, counts: Mapping[str, int], coverages: list[coverage.Coverage]
) -> dict[str, float]:
  """What each regime can replace, as a share of all words; of several languages the mean."""
  found = {policy.regime: counts['eligible'] / max(1, counts['words'])}
  if len(coverages) > 1 and policy.language_by == 'per_word':
    return found
  mean = lambda values: sum(values) / len(coverages)  # noqa: E731
  found.setdefault('uniform', mean(c.covered.words / max(1, c.all.words) for c in coverages))
  if all(c.stop_sites for c in coverages):
    stops = mean(c.stop_sites.words / max(1, c.all.words) for c in coverages)
    found.setdefault('stop', stops)
    found.setdefault('content', found['uniform'] - stops)
  return {regime: found[regime] for regime in ('uniform', 'content', 'stop', policy.regime)
          if regime in found}  # fmt: skip


def _overlaps(
  source: Source,
  policy: LinkPolicy,
  blocks: Blocks,
  native: list[Blocks],
  tokenizer: Tokenizer,
  cache_dir: str,
  inputs: fingerprint.Inputs,
) -> list[Overlap]:
  """Tries each mode and, where it makes a difference, each join; each language by itself."""
  chosen_mode = 'replace' if policy.mode == 'restore' else policy.mode
  found = []
  for language, paths in policy.lexicons.items():
    ways = [('replace', 'auto'), ('replace', 'space'), ('annotate', 'auto')]
    if not casing.glues(language, 'replace', 'auto'):
      ways.remove(('replace', 'space'))
    elif not tokenizer.native:  # joined words have no tokens of their own
      ways.remove(('replace', 'auto'))
    texts_in = [b for b in native if languages.same(b.manifest['language'], language)]
    for mode, join in ways:
      tried = dataclasses.replace(
        policy, lexicon={language: paths}, mode=mode, join=join, ratio_of='covered'
      )
      table = linking.make_table(tried, source.language, blocks, cache_dir, inputs)
      windows = LinkedWindows(
        blocks, blocks.block, 0, table=table, policy=tried, seed_link=0,
        stage_tokens=blocks.tokens, tokenizer=tokenizer,
      )  # fmt: skip
      known = link_sample.id_overlap(windows.sample, 0, texts_in) if texts_in else math.nan
      same_join = len({j for m, j in ways if m == mode}) == 1 or join == policy.join
      found.append(
        Overlap(mode, join, language, mode == chosen_mode and same_join,
                None if math.isnan(known) else known, float(windows.sample.growth))
      )  # fmt: skip
  return found


def _lemma_language(language: str) -> str:
  """The code under which simplemma knows a language, or ''."""
  code = languages.code(casing.base_language(language))
  try:
    lemma('a', code)
  except ValueError:
    return ''
  return code
