# make search: from nothing to the best networks of the embedded study
# make test:   every check and test
# make hub:    the sampler as a package for OptunaHub, under build/optunahub
# make bench:  what the program costs, each ratio beside its target (minutes; on a machine that does nothing else)
# make chaos:  workers killed and servers restarted, many times (an hour; MFAS_CHAOS_KILLS and others say how often)
# make table:  samplers compared on the tabulated benchmark (minutes)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: search test chaos bench table hub check install clean

search: $(VENV)/.installed
	$(BIN)/mfas-optuna search --study digits

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n auto --dist worksteal

chaos: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

hub: $(VENV)/.installed-dev
	$(BIN)/python -m hub

table: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.table replay

install: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mfas-optuna needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
