# make search: from nothing to the best networks of the embedded study
# make test:   every check and test
# make hub:    the sampler as a package for OptunaHub, under build/optunahub
# make bench:  what the program costs, each ratio beside its target (minutes; on a machine that does nothing else)
# make chaos:  workers killed and servers restarted, many times (an hour; MFAS_CHAOS_KILLS and others say how often)
# make lock:   versions and hashes of all that an installation needs, in requirements.lock
# make audit:  known vulnerabilities in these (asks PyPI)
# make table:  samplers compared on the tabulated benchmark (minutes)
# make regimes: one search against five fixed ways to fuse, on data that want different kinds (hours; needs MFAS_DATA;
#               what is done is found again; JOBS says how many processes)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: search test chaos bench table regimes hub lock audit install clean

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

regimes: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.regimes --jobs $(or $(JOBS),1)

# Without a header, which would name the index that was asked.
lock: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	{ echo '# All that mfas-optuna and its extras need, on any platform; made by `make lock`. To install nothing else:'; \
	  echo '#   pip install --require-hashes -r requirements.lock && pip install --no-deps mfas-optuna'; \
	  $(BIN)/uv pip compile --quiet pyproject.toml -c constraints.txt --universal --python-version 3.11 --generate-hashes \
	    --extra avmnist --extra distributed --extra mmimdb --extra ntu --extra onnx --extra postgres --extra s3 \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links; } > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock

audit: | $(BIN)/python
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit -r requirements.lock --disable-pip --require-hashes

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
