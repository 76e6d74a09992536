# make demo   the main job on this computer: two nodes, files fetched and verified
# make test   everything that CI checks
# Both set up .venv themselves; `make test` also the system packages it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test lint bench packages clean

demo: $(READY)
	$(BIN)/wherry demo

test: packages lint
	$(BIN)/python -m tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

packages:
	.ci/packages

# Written last, so that an installation that was cut off is done again.
$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) _trial_temp* .mypy_cache .ruff_cache .hypothesis
