"""Facts that nobody can know beforehand: made-up people, where they were born and live, their work, their colour.

They are stated in English, in several wordings, and asked in any language that has templates: what a model
answers in a language in which they were never stated was carried over. Controls: the same facts asked in
English; facts of people who are never stated, on which any model is at chance; and which of a person's two
towns is which, for a model may know that a name and a town go together, and no more.

In: a seed and words to keep clear of. Out: a `World`, statements of its facts, and `Choice` items about them.

Easy to get wrong: chance. A model that likes one option better whatever it is asked must not profit. So people
come in blocks of four, whose right answers to a question are four different values, and these four are the
options of each: a preference that does not look at the name is right exactly once in a block.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from jaxlink.evaluation.items import Choice
from jaxlink.link import words

BLOCK = 4  # people who share options
_VALUES = 2 * BLOCK  # of each relation

# Relation -> wordings of {0}, the person, and {1}, the value; the first ASKED end with the value.
ASKED = 2
STATEMENTS: dict[str, tuple[str, ...]] = {
  'born': (
    '{0} was born in {1}.',
    'The birthplace of {0} is {1}.',
    '{1} is the town where {0} was born.',
    'It was in {1} that {0} came into the world.',
  ),
  'home': (
    '{0} lives in {1}.',
    'The home of {0} is in {1}.',
    '{1} is the town where {0} lives today.',
    'Today {0} has a house in {1}.',
  ),
  'work': (
    '{0} works as a {1}.',
    'The trade of {0} is that of a {1}.',
    'A {1} by trade, {0} works hard.',
    'People know {0} as a {1}.',
  ),
  'colour': (
    '{0} likes the colour {1}.',
    'The favourite colour of {0} is {1}.',
    '{1} is the colour that {0} likes best.',
    'Of all colours, {0} loves {1} the most.',
  ),
}
WORK = ('teacher', 'doctor', 'farmer', 'baker', 'painter', 'soldier', 'singer', 'lawyer')
COLOURS = ('red', 'purple', 'blue', 'yellow', 'black', 'white', 'pink', 'grey')
_OWN_WORDS = frozenset(
  text[start:end].casefold()
  for text in (*WORK, *COLOURS, *itertools.chain.from_iterable(STATEMENTS.values()))
  for start, end in words.find_words(text)
)


@dataclasses.dataclass(frozen=True)
class Person:
  """Someone, and the value of each relation.

  Attributes:
    name: one word, in no text.
    facts: relation -> value; towns by name, work and colours in English.
    block: number of the block of people with whom options are shared.
    group: whom it belongs to, of `make_world`.
    stated: whether the facts are in the English text.
  """

  name: str
  facts: Mapping[str, str]
  block: int
  group: str
  stated: bool


@dataclasses.dataclass(frozen=True)
class World:
  """People of some groups; each group has towns of its own.

  Attributes:
    people: all of them.
    towns: of each group.
  """

  people: tuple[Person, ...]
  towns: Mapping[str, tuple[str, ...]]

  def names(self, group: str) -> frozenset[str]:
    """Names of a group's people and towns."""
    return frozenset(p.name for p in self.people if p.group == group) | set(self.towns[group])

  def options(self, person: Person, relation: str) -> list[str]:
    """The values that the people of a block have of a relation."""
    return [p.facts[relation] for p in self.people if p.block == person.block]


def make_world(
  groups: Sequence[str], *, stated: int, unstated: int, seed: int = 0, avoid: Set[str] = frozenset()
) -> World:
  """Makes people with names that can be pronounced and that are no words.

  Args:
    groups: names of the groups.
    stated: people of each group whose facts are told.
    unstated: people of each group whose facts never are.
    seed: of everything.
    avoid: keys of words that are no names here: those of all texts.

  Raises:
    ValueError: a number is not a multiple of 8.
  """
  for name, count in (('stated', stated), ('unstated', unstated)):
    if count < 0 or count % _VALUES:
      raise ValueError(f'{name} is {count}: it is a multiple of {_VALUES}, 0 allowed.')
  draw = random.Random(seed)
  names = _names(draw, avoid | _OWN_WORDS)
  people, towns, block = [], {}, 0
  for group in groups:
    towns[group] = tuple(next(names) for _ in range(_VALUES))
    for count, told in ((stated, True), (unstated, False)):
      for _ in range(count // _VALUES):
        values = _assign(draw, towns[group])
        for k in range(_VALUES):
          facts = {relation: values[relation][k] for relation in STATEMENTS}
          people.append(Person(next(names), facts, block + k // BLOCK, group, told))
        block += _VALUES // BLOCK
  return World(tuple(people), towns)


def _assign(draw: random.Random, towns: Sequence[str]) -> dict[str, list[str]]:
  """Values of eight people, each used once; nobody's home is among the options of a block's birthplace."""
  towns, work, colours = (draw.sample(pool, _VALUES) for pool in (towns, WORK, COLOURS))
  first, second = towns[:BLOCK], towns[BLOCK:]
  home = [*draw.sample(second, BLOCK), *draw.sample(first, BLOCK)]
  return {'born': towns, 'home': home, 'work': work, 'colour': colours}


def _names(draw: random.Random, avoid: Set[str]) -> Iterator[str]:
  """Names of two or three syllables, of the letters that English and Turkish share."""
  used = set()
  while True:
    syllables = [
      draw.choice('bdfgklmnprstvz') + draw.choice('aeiou') for _ in range(draw.choice((2, 3)))
    ]
    name = ''.join(syllables) + draw.choice('klmnrst')
    if name[:4] not in used and name not in avoid:
      used.add(name[:4])
      yield name.capitalize()


def statements(world: World, *, rounds: int, seed: int = 0, size: int = 8) -> list[str]:
  """States every fact of the people who are told once in each round, in English.

  A document is a paragraph of statements about anyone, so that no sentence gives the next one away.

  Args:
    world: whose facts.
    rounds: times that a fact is stated; its wordings take turns.
    seed: of the order.
    size: statements in a document.
  """
  draw = random.Random(seed)
  facts = [(p, relation) for p in world.people if p.stated for relation in STATEMENTS]
  first = [draw.randrange(len(STATEMENTS[relation])) for _, relation in facts]
  told = []
  for number in range(rounds):
    for n in draw.sample(range(len(facts)), len(facts)):
      person, relation = facts[n]
      wordings = STATEMENTS[relation]
      wording = wordings[(first[n] + number) % len(wordings)]
      told.append(_sentence(wording.format(person.name, person.facts[relation])))
  return [' '.join(told[i : i + size]) for i in range(0, len(told), size)]


def _sentence(text: str) -> str:
  return text[0].upper() + text[1:]


# ── questions ───────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Language:
  """How facts are asked in a language.

  Attributes:
    wordings: relation -> wordings with {0}, the person, and {1}, the value, none before it; what follows the
      value belongs to the option.
    values: English word -> word of this language, for work and colours.
    name: makes a name of people and towns one of this language.
  """

  wordings: Mapping[str, tuple[str, ...]]
  values: Mapping[str, str] = dataclasses.field(default_factory=dict)
  name: Callable[[str], str] = str

  def value(self, relation: str, value: str) -> str:
    """A value in this language."""
    return self.name(value) if relation in ('born', 'home') else self.values.get(value, value)


ENGLISH = Language(
  {relation: tuple(w.removesuffix('.') for w in ws[:ASKED]) for relation, ws in STATEMENTS.items()}
)

# No suffix is on a name or value, so that vowel harmony has nothing to decide.
TURKISH = Language(
  {
    'born': ('{0} adlı kişinin doğduğu kasaba: {1}', '{0}, {1} kasabasında doğdu.'),
    'home': ('{0} adlı kişinin yaşadığı kasaba: {1}', '{0}, {1} kasabasında yaşıyor.'),
    'work': ('{0} adlı kişinin mesleği: {1}', '{0}, {1} olarak çalışıyor.'),
    'colour': ('{0} adlı kişinin en sevdiği renk: {1}', '{0}, {1} rengi çok seviyor.'),
  },
  {
    'teacher': 'öğretmen', 'doctor': 'doktor', 'farmer': 'çiftçi', 'baker': 'fırıncı',
    'painter': 'ressam', 'soldier': 'asker', 'singer': 'şarkıcı', 'lawyer': 'avukat',
    'red': 'kırmızı', 'purple': 'mor', 'blue': 'mavi', 'yellow': 'sarı',
    'black': 'siyah', 'white': 'beyaz', 'pink': 'pembe', 'grey': 'gri',
  },
)  # fmt: skip


def translated(translate: Callable[[str], str], names: bool) -> Language:
  """English as a word-by-word language asks.

  Args:
    translate: of a text; leaves braces, digits and punctuation alone.
    names: whether names of people and towns are translated, too.
  """
  return Language(
    {relation: tuple(map(translate, ws)) for relation, ws in ENGLISH.wordings.items()},
    {word: translate(word) for word in (*WORK, *COLOURS)},
    translate if names else str,
  )


def questions(
  world: World, language: Language, group: str = '', *, stated: bool = True
) -> list[Choice]:
  """Asks each fact of a group in each wording, with the four values of the person's block as options.

  Args:
    world: whose facts.
    language: that asks.
    group: of people; '' for all.
    stated: ask facts that are told, or those that never are.
  """
  found = []
  for person in _asked(world, group, stated):
    for m, relation in enumerate(STATEMENTS):
      # Options stand in one order for a block, so that each is once in each place the right one.
      options = world.options(person, relation)
      turn = (person.block + m) % BLOCK
      options = options[turn:] + options[:turn]
      found += _ask(language, person, relation, options)
  return found


def towns_apart(world: World, language: Language, group: str = '') -> list[Choice]:
  """Asks which of a person's two towns is which; chance is a half, for the options are the same both times.

  Args:
    world: whose facts.
    language: that asks.
    group: of people; '' for all.
  """
  found = []
  for n, person in enumerate(_asked(world, group, True)):
    options = [person.facts['born'], person.facts['home']]
    options = options[:: 1 if n % 2 else -1]
    found += _ask(language, person, 'born', options) + _ask(language, person, 'home', options)
  return found


def _asked(world: World, group: str, stated: bool) -> list[Person]:
  return [p for p in world.people if p.stated == stated and group in ('', p.group)]


def _ask(language: Language, person: Person, relation: str, options: Sequence[str]) -> list[Choice]:
  found = []
  for number, wording in enumerate(language.wordings[relation]):
    before, after = re.fullmatch(r'(.*) \{1\}(.*)', wording).groups()
    found.append(
      Choice(
        id=f'{person.name}-{relation}-{number}',
        contexts=(before.format(language.name(person.name)),),
        choices=tuple(language.value(relation, option) + after for option in options),
        label=list(options).index(person.facts[relation]),
        group=relation,
      )
    )
  return found
