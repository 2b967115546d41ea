# Two commands matter: `make run` and `make test`. Both work without root, in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make run LAB=laptop` sends path probes in place of calls; RUN_ARGS are any of `testbed run`.
LAB ?= voice
RUN_ARGS ?= $(if $(filter voice,$(LAB)),--calls 4)
SOAK ?= kill mrc schedule prober voice qualify rig
# Two workers at once, a file of tests at a time; `make test PYTEST_ARGS="-n 0"` runs all in one process.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help run test lint bench soak fuzz mutation clean

help: ## What there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Build a fabric, reboot a switch under calls, measure, write a page
	$(BIN)/testbed run $(LAB) $(RUN_ARGS)

test: $(VENV)/.test ## All tests that this machine can run
	$(BIN)/pytest $(WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test ## Benchmarks, as ratios from one run
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

soak: $(VENV)/.test ## The long runs that CI does a part of: SOAK=kill, mrc, schedule, prober, voice, qualify, rig, or all
	set -e; for each in $(SOAK); do $(BIN)/python -m tests.soak.$${each}_soak $(SOAK_ARGS); done

fuzz: $(VENV)/.fuzz ## Hostile packets, steered by coverage; what is new goes into the corpus
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

mutation: $(VENV)/.test ## Plant defects, and show which test fails because of each
	$(BIN)/python -m tests.mutation $(MUTATION_ARGS)

clean: ## Remove the virtual environment and results
	rm -rf $(VENV) results

# Each stamp installs the extras that its target needs, and installs again when pyproject.toml changes.
$(VENV)/.run: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[voice]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.fuzz: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@ $(VENV)/.run $(VENV)/.test

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.run $(VENV)/.test

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 run"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
