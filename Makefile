# The project's verbs. `make demo` or `make test` on a fresh machine sets up .venv first.
#
#   make demo        extract, pre-train and probe on the built-in scenes; pictures and a table in out/demo
#   make test        every unmarked test
#   make test-slow   kills, compilation, browsers; the last skip without Chromium (Debian: apt-get install chromium),
#                    unless CAEV2_BROWSER_REQUIRED=1: then they fail
#   make check       format, lint, types, import contracts
#   make bench       the benchmarks, each printing min, median and max
#   make docs        the pages of the documentation, and a check that no link in them is dead
#   make clean       what the other verbs wrote, but for .venv (rm -r .venv for a fresh installation)
#
# Another interpreter: make PYTHON=python3.12 demo

SHELL := /bin/bash
PYTHON ?= $(or $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done),python3)
VENV := .venv
BIN := $(VENV)/bin
FREE_GB := 10
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test test-slow check bench docs clean preflight
.DEFAULT_GOAL := test

demo: $(VENV)/installed-demo
	$(BIN)/caev2 demo --out out/demo

test: $(VENV)/installed-dev
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m "slow and not gpu and not network" $(PYTEST_ARGS)

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	@shopt -s nullglob; set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

docs: $(VENV)/installed-dev
	@for page in README.md docs/*.md; do [ -e "$$page" ] && printf '%-28s %s\n' "$$page" "$$(sed -n '1s/^# *//p' "$$page")"; done
	$(PYTEST) tests/test_project.py tests/test_docs.py -k "link or test_docs"

clean:
	rm -rf out dist build *.egg-info .pytest_cache .hypothesis .ruff_cache .import_linter_cache

# One stamp for what the demo needs and one for all. Installed again when the dependencies or their versions change.
$(VENV)/installed-demo: EXTRAS := demo,plots
$(VENV)/installed-dev: EXTRAS := dev
$(VENV)/installed-demo $(VENV)/installed-dev: pyproject.toml constraints.txt
	@[ -x $(BIN)/python ] || $(MAKE) --no-print-directory preflight PYTHON="$(PYTHON)"
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

# Each check prints the one line that says what is missing.
preflight:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "caev2 needs Python 3.11 or later; $(PYTHON) is $$("$(PYTHON)" --version 2>&1 | grep "^Python [0-9]" || echo missing). Debian, Ubuntu: apt install python3.11 python3.11-venv, then make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo \
	  "$(PYTHON) has no venv module. Debian, Ubuntu: apt install $$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
	@"$(PYTHON)" -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < $(FREE_GB) * 10**9)' || { echo \
	  "caev2 and PyTorch need $(FREE_GB) GB of free disk; here are $$("$(PYTHON)" -c 'import shutil; print("%.1f" % (shutil.disk_usage(".").free / 1e9))') GB. Free some, or clone to a larger disk." >&2; exit 1; }
