#!/usr/bin/env bash
# Installs what training from a prepared cache needs into ~/jaxlink/.venv of a TPU machine: no TensorFlow.
# The machines' own Python is older than 3.11, so uv brings one.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python3 -m pip install --quiet --user uv
uv() { python3 -m uv "$@"; }

if [ ! -x .venv/bin/python ]; then
  uv venv --quiet --python 3.11 .venv
fi
uv pip install --quiet --constraint constraints.txt 'jax[tpu]' flax optax orbax-checkpoint
uv pip install --quiet --no-deps --constraint constraints.txt --requirement trainer-requirements.txt
uv pip install --quiet --no-deps --editable .
.venv/bin/python -c 'import jax, jaxlink.train; print("installed, with jax", jax.__version__)'
