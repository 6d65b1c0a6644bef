# make fit [CONFIG=gru_mnist.yaml] [ARGS="--trainer.max_epochs 3"]   train; make test   run the tests (ARGS="-m slow": the slow ones); make lint   check style; make harden [CHAINS=300] [CASES=1000]   kill fits at random moments, damage files, and tell what comes of it; make docs   build the pages in docs/_build/html
PYTHON ?= python3
CONFIG ?= gru_digits.yaml
ARGS ?=
CHAINS ?= 300
CASES ?= 1000
BIN := .venv/bin

.PHONY: fit test lint harden docs

fit: .venv/installed
	$(BIN)/python -m sparse_rnn fit --config $(CONFIG) $(ARGS)

# Tests multiply small matrices, which more threads only slow down; two processes take a file each in turn.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

harden: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/hardening/kills.py --chains $(CHAINS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/hardening/options.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/hardening/threads.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/hardening/malformed.py --cases $(CASES)

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Whatever does not read, link or run ends it. The notebooks compute with one thread, as the tests do.
docs: .venv/installed-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --jobs auto docs docs/_build/html

# A stamp is as old as the last installation, so that only changed requirements and changed C sources install again.
INSTALLED := pyproject.toml constraints.txt hatch_build.py $(wildcard sparse_rnn/engine/csrc/*)

.venv/installed: $(INSTALLED) | .venv
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

.venv/installed-dev: $(INSTALLED) | .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,torchtext]' --constraint constraints.txt
	touch $@

.venv/installed-docs: $(INSTALLED) | .venv
	$(BIN)/python -m pip install --quiet --editable '.[docs]' --constraint constraints.txt
	touch $@

.venv:
	$(PYTHON) -m venv $@
