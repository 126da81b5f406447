# One way to do every chore. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
FUZZ_S ?= 20
KILLS ?= 50
BIN := $(VENV)/bin
# Whole files go to one process for each processor, in the order of batonic_site/tests/fixtures.py.
SPREAD := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --quiet pyproject.toml

.PHONY: help init run test check lint format bench fuzz faults kills lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

init: $(VENV)/.run ## make .venv with exactly the locked dependencies

run: $(VENV)/.run ## start everything in this terminal and replay a session (Ctrl-C ends it)
	@exec $(BIN)/python manage.py up

test: check ## everything that must hold: the checks, then the whole suite on real servers
	$(BIN)/python -m pytest $(SPREAD)

check: $(VENV)/.dev ## format, lint, types, floors, migrations, locks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py checklock

lint: check ## the same as check

format: $(VENV)/.dev ## write the code in its one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.run ## run every benchmark, 15 minutes of a quiet machine, and write docs/benchmarks.md
	$(BIN)/python manage.py bench --write docs/benchmarks.md

fuzz: $(VENV)/.dev ## feed damaged bytes to everything that reads foreign ones (FUZZ_S=20 seconds each)
	$(BIN)/python -m replay.tests.fuzz --seconds $(FUZZ_S)

faults: $(VENV)/.dev ## the long fault tests, half an hour: every byte of a window and of a stream, outages five times as long
	DAMAGE=all $(BIN)/python -m pytest engine_worker/tests/test_faults.py engine_worker/tests/test_damaged_feed.py \
	  engine_worker/tests/test_broken_live_feed.py

kills: $(VENV)/.dev ## kill an engine KILLS=50 times while it follows a replay, and compare what it has stored
	KILLS=$(KILLS) $(BIN)/python -m pytest engine_worker/tests/test_resume_kills.py

lock: $(VENV)/.dev ## compile the requirement files anew (needs a package index)
	$(COMPILE) --upgrade -o requirements.txt
	$(COMPILE) --upgrade --extra dev -c requirements.txt -o requirements-dev.txt

clean: ## remove the environment and the caches; the data folder stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Batonic needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp says which lock is installed: nothing is done again until the lock changes.
$(VENV)/.run: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
