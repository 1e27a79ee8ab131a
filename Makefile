# Two commands matter: `make quickstart` (sets up and runs the main job) and `make test` (sets up and passes the tests).
PYTHON ?= python3.11
# An extra package index for torch, for a CPU-only or another CUDA build. Empty: the default index.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup quickstart test lint types unit integration chaos catalogue bench recipes lock clean
setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $$(grep '^torch==' requirements.lock)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

quickstart: setup
	$(BIN)/eagleray data fetch jobs/recipes/quickstart.yaml
	$(BIN)/eagleray pipeline jobs/recipes/quickstart.yaml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest tests/unit tests/architecture -n 2

integration: setup
	$(BIN)/pytest tests/integration tests/parity

# Slow proofs: a large corpus in flat memory, kills at random moments.
chaos: setup
	$(BIN)/pytest tests/chaos

# Fetches every item of the catalogue (about 1 GB) and counts what is in it.
catalogue: setup
	$(BIN)/pytest tests/catalogue

# Everything CI runs.
test: lint types unit integration

bench: setup
	$(BIN)/python -m benchmarks.harness

bench-%: setup
	$(BIN)/python -m benchmarks.harness $*

lock: setup
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel | sed 's/^torch==.*/torch==2.13.0/' > requirements.lock

# Every recipe that trains, from corpus to test score; docs/RECIPES.md is written from it. NAMES: some of them.
recipes: setup
	$(BIN)/python -m benchmarks._recipes $(NAMES)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
