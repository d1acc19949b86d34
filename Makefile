# `make demo` and `make test` set up what they need. Every target but venv depends on .venv, which `make venv` builds.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60
STAMP := $(VENV)/.installed
SOURCES := mobysession proto tests integration
# Debian ships Python without what `python -m venv` needs; as root it is installed where it turns out to be missing.
VENV_PACKAGE = if [ "$$(id -u)" = 0 ]; then echo "installing python3-venv" >&2 && apt-get update -qq && \
	apt-get install -y -qq python3-venv >/dev/null; else echo "this Python cannot make a venv: install python3-venv" >&2; \
	exit 1; fi

.PHONY: help venv demo test unit integration fuzz check format proto check-proto bench bench-files bench-rpc bench-sessions clean

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1:  \2/p' Makefile

$(STAMP): pyproject.toml mobysession/_version.py
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); $(VENV_PACKAGE) && $(PYTHON) -m venv $(VENV); }
	@echo "installing mobysession and its tools" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

venv: $(STAMP) ## build .venv with the project and its tools

demo: venv ## build a small real image that proves the callbacks
	@$(BIN)/mobysession demo

test: unit integration ## everything, real engines included where they can run

unit: venv ## the tests that need no engine
	$(BIN)/python -m pytest tests

fuzz: venv ## damage what peers say at random, for SECONDS=60; what is found is printed and kept
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

# Two processes, for these tests wait for engines half of the time; each starts engines of its own.
integration: venv ## the tests on real engines
	$(BIN)/python -m integration.prepare
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal integration

check: venv check-proto ## lint, format, types, layers, stubs, examples
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_imports.py tests/test_docs.py

format: venv ## let ruff format and mend
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

proto: venv ## regenerate mobysession/_pb from proto/
	$(BIN)/python proto/generate.py

check-proto: venv ## compare mobysession/_pb with what proto/ generates
	$(BIN)/python proto/generate.py --check

bench: venv ## compare with docker buildx on the same engine
	$(BIN)/python -m integration.prepare
	$(BIN)/python -m integration.bench

bench-files: venv ## how trees are sent and received: the sender alone, against docker buildx, against the floor; ARGS=--help
	$(BIN)/python -m integration.prepare
	$(BIN)/python -m integration.bench_files $(ARGS)

bench-rpc: venv ## compare our gRPC server with others under the same load
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python -m integration.bench_rpc
	$(BIN)/python -m integration.bench_rpc.latency
	$(BIN)/python -m integration.bench_rpc.idle

bench-sessions: venv ## what managed sessions cost, against a socket that is upgraded by hand
	$(BIN)/python -m integration.prepare
	$(BIN)/python -m integration.bench_sessions

clean: ## remove what the targets made
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
