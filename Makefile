# Two commands are enough: `make quickstart` and `make test`. Both make .venv if there is none.
# By hand: python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'

PYTHON ?= python3
VENV := .venv/bin
PYTEST := JAX_PLATFORMS=cpu $(VENV)/python -m pytest

.PHONY: quickstart test test-slow test-shared test-beam test-peers lint format

quickstart: .venv/installed
	$(VENV)/python -m jaxlink.train --gin_file=gin/quickstart.gin

test: .venv/installed
	$(PYTEST) -m "not slow and not shared_data" -n 2 --dist loadfile

test-slow: .venv/installed
	$(PYTEST) -m "slow and not shared_data" -n 2 --dist loadfile

# With the large text collection, which is not shipped, in ../shared/data or $$JAXLINK_SHARED_DATA.
test-shared: .venv/installed
	$(PYTEST) -m shared_data -n 2 --dist loadfile

# Apache Beam wants an older protobuf than TensorFlow's newest, so it has an environment of its own.
test-beam: .venv-beam/installed
	JAX_PLATFORMS=cpu .venv-beam/bin/python -m pytest tests/data/caching

# Against transformers and lm-evaluation-harness (an export's numbers), and libtpu (kernels and steps
# compiled for TPUs that are not here): gigabytes, so an environment of its own.
test-peers: .venv-peers/installed
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 .venv-peers/bin/python -m pytest -m "not shared_data" \
	  tests/huggingface tests/generation tests/aot tests/model/attention tests/test_export.py tests/test_xla_flags.py tests/tasks tests/evaluation/test_harness.py

lint: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

format: .venv/installed
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-beam/installed: pyproject.toml
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/pip install --quiet --disable-pip-version-check --editable '.[beam,lexicons,cleaning]' pytest hypothesis
	touch $@

.venv-peers/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,harness,aot]'
	touch $@
