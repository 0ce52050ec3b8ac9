# `make` lists the targets. Everything they need is installed into .venv; only the servers of Postgres and Redis, which
# test and cluster use, and Chromium, which test uses, are the system's (scripts/stores.sh, scripts/browser.sh).
#
#   PYTHON=...  the interpreter that .venv is made with (default: the first python3 that is 3.11 or newer)
#   ARGS=...    further arguments of demo, cluster, run, test, sim and bench
#   CI=1        run the tests with asyncio's debug mode

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# What a shell may have set for other projects and would break the environment of this one.
unexport PYTHONHOME PYTHONOPTIMIZE PYTHONPATH PYTHONSTARTUP VIRTUAL_ENV __PYVENV_LAUNCHER__
unexport PIP_CONSTRAINT PIP_PREFIX PIP_ROOT PIP_TARGET
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHON

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
DECLARED := setup.cfg pyproject.toml constraints.txt scripts/venv.sh
# Not empty if .venv is missing, half made, moved here from elsewhere, or not made with PYTHON.
MEND := $(shell PYTHON='$(PYTHON)' scripts/venv.sh --check .venv || echo mend)
# The tests bring up their own Postgres and Redis, unless they are given others.
GIVEN := $(and $(HAULCAST_TEST_DATABASE_URL),$(HAULCAST_TEST_REDIS_URL))
DEBUG := $(if $(filter-out 0 false,$(CI)),PYTHONASYNCIODEBUG=1)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: .venv/.runtime ## start a server with simulated traffic (ARGS: see haulcast demo --help)
	$(BIN)/haulcast demo $(ARGS)

.PHONY: cluster
cluster: .venv/.runtime stores ## start three nodes, Postgres and Redis with simulated traffic (ARGS: see haulcast demo --help)
	$(BIN)/haulcast demo --cluster $(ARGS)

.PHONY: run
run: .venv/.runtime ## start a server
	$(BIN)/haulcast serve $(ARGS)

.PHONY: test
test: $(if $(GIVEN),,stores) promtool browser lint ## all checks, then all tests (ARGS go to pytest)
	$(DEBUG) $(BIN)/python -m pytest $(ARGS)

.PHONY: sim
sim: .venv/.dev ## simulate 1,000 clusters with faults on virtual time (ARGS: see python -m tests.sim.schedules --help)
	$(BIN)/python -m tests.sim.schedules --schedules 1000 $(ARGS)

.PHONY: bench
bench: .venv/.dev stores ## measure, in under six minutes (ARGS: see python -m bench run --help)
	$(BIN)/python -m bench run $(ARGS)

.PHONY: bench-full
bench-full: .venv/.dev stores ## measure at length (ARGS: see python -m bench run --help)
	$(BIN)/python -m bench run --profile full $(ARGS)

.PHONY: rules
rules: .venv/.dev promtool ## check and test the rules of Prometheus, and the dashboards
	$(BIN)/python -m pytest tests/unit/deploy $(ARGS)

.PHONY: lint
lint: .venv/.dev ## formatting, lint rules, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: .venv/.dev ## format the code and apply the fixes that are safe
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lock
lock: ## write the newest versions that fit setup.cfg into constraints.txt
	rm -rf .venv-lock
	scripts/venv.sh .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade 'setuptools>=77'
	.venv-lock/bin/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	{ sed '/^#/!d' constraints.txt; \
	  .venv-lock/bin/python -m pip freeze --all --exclude-editable | grep -Ev '^(pip|wheel)=='; } >.venv-lock/constraints.txt
	cp .venv-lock/constraints.txt constraints.txt
	rm -rf .venv-lock

.PHONY: docs
docs: .venv/.runtime ## write docs/asyncapi.json and docs/openapi.json anew
	$(BIN)/python -m haulcast.transport.specs docs/

.PHONY: screenshots
screenshots: .venv/.dev browser stores ## take the pictures of the console in docs/ anew
	$(BIN)/python -m tests.browser.screenshots docs/

.PHONY: clean
clean: ## remove .venv, caches and build output; data in var/ stays
	rm -rf .venv .venv-lock build dist src/*.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# What the server needs. setuptools first, so that the build uses the version in constraints.txt as well.
.venv/.runtime: $(DECLARED) $(MEND)
	@[ -z '$(MEND)' ] || echo 'installing into .venv, once, about half a minute'
	scripts/venv.sh .venv
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

# What the checks and tests need on top.
.venv/.dev: .venv/.runtime
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

# The servers of Postgres and Redis, which the system has, or gets if this is root on Debian.
.PHONY: stores
stores:
	@scripts/stores.sh

# What checks the rules of Prometheus. Their tests are skipped where it cannot be had.
.PHONY: promtool
promtool: .venv/.runtime
	@scripts/promtool.sh $(BIN) || true

# What the tests of the console open its pages in. They are skipped where it cannot be had.
.PHONY: browser
browser:
	@scripts/browser.sh || true

.PHONY: mend
mend:
