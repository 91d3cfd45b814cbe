# `make run` and `make test` need only Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test faults fuzz lint clean

run: $(VENV)/.installed
	$(BIN)/bridged serve --config etc

# Tests that bear company: on all cores. The others have daemons, deadlines and clocks, and run one by one.
APART := $(addprefix tests/,actors api cli comfy comfy_patch config corpus e2e/test_corpus.py embedded fakes files fuzz nodedefs ops placement store)

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n auto $(APART)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(APART))

faults: $(VENV)/.installed-test
	$(BIN)/python -m tests.faults --scale full

# Hours: FUZZ_SECONDS for each parser, and for all requests that the OpenAPI document allows or forbids. For the night.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	failed=0; \
	BRIDGED_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/e2e/test_schemathesis.py || failed=1; \
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) || failed=1; \
	exit $$failed

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("bridged needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 $(MAKECMDGOALS)" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
