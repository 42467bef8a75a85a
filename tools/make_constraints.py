"""Writes constraints.txt from the environments of two Python versions.

  .venv/bin/pip freeze --exclude-editable > /tmp/3.11.txt         # Python 3.11
  .venv-3.12/bin/pip freeze --exclude-editable > /tmp/3.12.txt    # Python 3.12 and later
  python tools/make_constraints.py /tmp/3.11.txt /tmp/3.12.txt > constraints.txt

Names and versions only. A package that differs gets a line for each, with a marker.
"""

import sys


def versions(path: str) -> dict[str, str]:
  """Returns name → version of a `pip freeze`."""
  with open(path, encoding='utf-8') as file:
    pairs = (line.strip().split('==') for line in file if '==' in line)
    return {name.lower(): version for name, version in pairs}


def main() -> None:
  older, newer = map(versions, sys.argv[1:3])
  print('# Made by tools/make_constraints.py: what was tested together.')
  for name in sorted(older.keys() | newer.keys()):
    if older.get(name) == newer.get(name):
      print(f'{name}=={older[name]}')
      continue
    if name in older:
      print(f"{name}=={older[name]} ; python_version < '3.12'")
    if name in newer:
      print(f"{name}=={newer[name]} ; python_version >= '3.12'")


if __name__ == '__main__':
  main()
