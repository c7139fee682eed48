# `make help` lists the targets. PIP_ARGS takes extra arguments for pip.
PYTHON ?= python3
PIP_ARGS ?=
# Many tests wait for other processes: one more than two cores.
TEST_PROCESSES ?= 3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-small test test-slow chaos e2e compose-check docs lint format clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv and install everything into it

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	@touch $@

demo: setup  ## run a real search on this machine and write demo-output/ (FRESH=1 starts clean)
	$(BIN)/python -m examples.movie_reviews.run $(if $(FRESH),--fresh)

demo-small: setup  ## the demo's every stage in a few minutes, with little training
	$(BIN)/python -m examples.movie_reviews.run --small $(if $(FRESH),--fresh) --output demo-output/small

test: setup lint  ## lint, type-check and run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not chaos and not browser' -n $(TEST_PROCESSES) --dist worksteal

test-slow: setup  ## run the slow proofs: kill -9 at every stage of a job
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -rP -n 2 --dist loadfile

chaos: setup  ## make what can go wrong happen (SNUGNET_FUZZ_CASES=20000, SNUGNET_SOAK_JOBS=2000: more of it)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos -s

e2e: setup  ## use the dashboard in a real Chromium, installed by apt where it is missing
	$(BIN)/python -m tests.e2e.browser.chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/e2e/browser -m browser -s

compose-check: setup  ## check docker-compose.yml and the images, and carry a job through as processes
	$(BIN)/python -m pytest tests/deploy -s

docs: setup  ## write the reference pages and build the documents into site/, warnings as errors
	$(BIN)/python -m service.reference
	$(BIN)/zensical build --clean --strict

lint: setup  ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and the demo's output
	rm -rf $(VENV) site .cache demo-output test-output .snugnet .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
