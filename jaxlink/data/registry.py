"""What jaxlink knows of registered tasks and SeqIO has no place for: languages, lexicons, exact rates.

Filled by `register`; plain dicts, so that reading them needs no TensorFlow.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RegisteredLexicon:
  """A lexicon that recipes call by name."""

  paths: tuple[str, ...]  # the first has priority
  language: str  # of the targets


LANGUAGES: dict[str, str] = {}  # task: language code, of those made by `register`
LEXICONS: dict[str, RegisteredLexicon] = {}
AUXILIARIES: dict[str, str] = {}  # task of a target language: that of its auxiliary text
RATES: dict[str, dict[str, str]] = {}  # mixture: exact rate of each task; SeqIO keeps floats only


def source_language(task: str) -> str:
  """The language of a task's text for the lexicons that rewrite it; English where none was registered."""
  return LANGUAGES.get(task, 'en')
