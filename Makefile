# Two commands: `make verify` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
LEVEL ?= quick
ONLY ?=
JOBS ?= 2
BENCH ?=
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: help verify test lint bench-ntk bench-paths bench-traces bench-ntk-sap bench-scorers clean
.DEFAULT_GOAL := help

help:
	@echo 'make verify   check every claim; writes report/index.html and report/verdicts.json'
	@echo '              LEVEL=full  more cases        ONLY=P2  one claim and its sub-claims'
	@echo 'make test     run the tests'
	@echo '              JOBS=4  claims or tests at a time (2)'
	@echo 'make lint     ruff and mypy'
	@echo 'make bench-ntk   the kernel against its peers: a table, and a record in benchmarks/results'
	@echo 'make bench-paths   the cost of path scores and bounds; make bench-traces   error of trace estimators'
	@echo 'make bench-scorers   the cost of every scorer; make bench-ntk-sap   of NTK-SAP in both forms'
	@echo 'make clean    remove the environment, the caches and the report'
	@echo ''
	@echo 'Set-up:  PYTHON=python3.12     another interpreter'
	@echo '         TORCH_INDEX=<url>     an index that has the wanted build of torch (after make clean)'

verify: $(RUN_STAMP)
	$(BIN)/python -m proofs_check --level $(LEVEL) $(if $(ONLY),--only $(ONLY)) --jobs $(JOBS) --report report

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-ntk: $(DEV_STAMP)
	$(BIN)/python benchmarks/ntk.py $(BENCH)
	$(BIN)/python figures/ntk_speed.py

bench-paths: $(DEV_STAMP)
	$(BIN)/python benchmarks/path_scores.py $(BENCH)

bench-traces: $(DEV_STAMP)
	$(BIN)/python benchmarks/trace_estimators.py $(BENCH)
	$(BIN)/python figures/trace_estimators.py

bench-ntk-sap: $(DEV_STAMP)
	$(BIN)/python benchmarks/ntk_sap.py $(BENCH)

bench-scorers: $(DEV_STAMP)
	$(BIN)/python benchmarks/scorers.py $(BENCH)

clean:
	rm -rf $(VENV) benchmarks/.envs report build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'PYTHON must be Python 3.11 or newer, got $(PYTHON). Try make PYTHON=python3.12 ….' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo '$(PYTHON) must have the modules venv and ensurepip. Install them (Debian: python3-venv).' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first where an index is named, so that the other packages find it already there.
$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Setting up $(VENV); the first time this downloads torch, which takes some minutes.'
	$(if $(TORCH_INDEX),$(PIP_INSTALL) --index-url $(TORCH_INDEX) torch)
	$(PIP_INSTALL) -e .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@
