# Every target creates .venv from the committed locks when it is missing or older than them, and does nothing otherwise.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCKS  := pyproject.toml requirements.lock requirements-data.lock
TORCH  := torch==2.13.0

.PHONY: demo test test-slow check format bench clean
.DELETE_ON_ERROR:

$(STAMP): $(LOCKS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) -c requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[cluster,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-data.lock
	touch $@

demo: $(STAMP)  ## the main job on embedded defaults: ingest, train, evaluate, release, serve
	$(BIN)/rolecall demo

test: $(STAMP)  ## everything that is neither slow nor needs a GPU
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(STAMP)  ## kills, soaks, clusters, large property tests; GPU tests skip with the reason
	$(BIN)/python -m pytest -m "slow or gpu"

check: $(STAMP)  ## lint, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/house/test_imports.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## make bench NAME=recommend_http
	$(BIN)/python tests/bench/$(NAME).py

clean:
	rm -rf $(VENV) .rolecall dist build .pytest_cache .mypy_cache .ruff_cache
