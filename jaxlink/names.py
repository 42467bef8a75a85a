"""Misspelt names: the nearest valid one, for errors that help."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
  """The end of an error about a misspelt name: " Nearest: 'x'.", or '' if nothing is near."""
  names = {str(candidate).casefold(): str(candidate) for candidate in names}
  found = difflib.get_close_matches(str(name).casefold(), names, n=1)
  return f' Nearest: {names[found[0]]!r}.' if found else ''
