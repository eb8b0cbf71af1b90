# "make run" and "make test" work in a fresh clone on a Debian or Ubuntu machine with Python and make;
# what else is needed they install (as root) or name. "make help" lists the rest.

SHELL := /bin/sh
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# The tests of one file one after the other, and half again as many files at a time as there are cores: tests wait, too.
PARALLEL := --numprocesses $(shell expr \( $$(getconf _NPROCESSORS_ONLN) \* 3 + 1 \) / 2) --dist loadfile
# In the order of tests/system/conftest.py.
BESIDE := $(PARALLEL) --no-loadscope-reorder
# Without the working directory on the path, which has the packages as they are.
PYTEST_ALONE := $(BIN)/pytest
# Namespaces, TAP devices and containers need root.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -E,)
CODE := actors guest netstack relay transport vmrelay
SOURCES := $(CODE) setup.py tests bench docker scripts examples

.DEFAULT_GOAL := help
.PHONY: help run demo test lint format types unit accelerated js system accelerator load-generator tools bench fuzz soak attack cluster-test lock image sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run.stamp ## start the relay: make run ARGS="--port 4433 --host-access"
	@exec scripts/run.sh $(BIN)/python -m vmrelay $(ARGS)

demo: .venv/run.stamp ## a Linux in the browser on a relay of this machine: http://127.0.0.1:8086/
	@site=$$(examples/v86/build.sh) && exec scripts/run.sh $(BIN)/python examples/v86/serve.py "$$site" $(ARGS)

test: ## everything: lint, types, import rules, unit and system tests
	$(MAKE) --jobs=2 --output-sync lint types accelerator load-generator
	$(MAKE) unit accelerated js system

lint: .venv/test.stamp ## ruff, formatting and the import rules
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports --no-logo

format: .venv/test.stamp ## let ruff format and mend what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: .venv/test.stamp ## mypy, strict for what is installed
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

unit: tools ## tests of the packages, with what they cover: pytest options in ARGS, and then nothing is measured
	$(SUDO) $(PYTEST) $(PARALLEL) $(if $(ARGS),,--cov) --ignore tests/system --ignore tests/security $(ARGS)

accelerated: tools ## tests of the packages on their compiled form
	ACCELERATED=$$(scripts/accelerate.sh) && $(SUDO) env VMRELAY_ACCELERATED=1 PYTHONPATH="$$ACCELERATED" \
		$(PYTEST_ALONE) $(PARALLEL) tests/test_accelerator.py tests/netstack tests/actors tests/transport $(ARGS)

js: ## the npm package in clients/js: types, tests, and what would be published
	scripts/npm.sh clients/js clients/js/compat/types
	npm --prefix clients/js run --silent check

system: tools ## tests on real browsers, kernels, containers, loads and attacks: pytest options in ARGS
	RELAYBENCH=$$(scripts/relaybench.sh --tested) && export RELAYBENCH && \
		$(if $(ARGS),$(SUDO) $(PYTEST) tests/system tests/security $(ARGS),\
		$(SUDO) $(PYTEST) $(BESIDE) -m "not alone" tests/system --durations 20 && \
		$(SUDO) $(PYTEST) -m alone tests/security tests/system --durations 20)

# What the targets above build when they need it; "make test" has both built beside the types, which take one core.
accelerator: .venv/test.stamp
	scripts/accelerate.sh >/dev/null

load-generator:
	scripts/relaybench.sh --tested >/dev/null

tools: .venv/test.stamp ## install the programs that tests drive, when they are missing
	scripts/test-tools.sh

bench: .venv/run.stamp ## the loads of docs/performance.md against a relay of this tree
	RELAYBENCH=$$(scripts/relaybench.sh) && export RELAYBENCH && \
		ACCELERATED=$$(scripts/accelerate.sh) && $(BIN)/python bench/loads.py --packages "$$ACCELERATED" $(ARGS)

fuzz: .venv/test.stamp ## the parsers, for 10 minutes, guided by coverage: ARGS="--minutes 60 tcp"
	scripts/fuzz.sh $(ARGS)

soak: .venv/run.stamp ## everything that guests do, for an hour: does memory grow? ARGS="--minutes 20"
	RELAYBENCH=$$(scripts/relaybench.sh) && export RELAYBENCH && PYTHONPATH=. $(BIN)/python bench/soak/soak.py $(ARGS)

attack: tools ## all attacks that are known, and what a neighbour notices: ARGS="--minutes 20"
	RELAYBENCH=$$(scripts/relaybench.sh --tested) && export RELAYBENCH && \
		$(SUDO) env PYTHONPATH=. $(BIN)/python tests/security/attacks.py $(ARGS)

cluster-test: tools ## machines of a cluster killed, frozen and parted, 20 cycles: ARGS="--cycles 100 --seed 7"
	$(SUDO) env PYTHONPATH=. $(BIN)/python tests/system/cluster_faults.py $(ARGS)

image: ## the container image, with podman or docker
	$$(command -v docker || command -v podman) build -f docker/Dockerfile -t vmrelay .

lock: .venv/run.stamp ## resolve the dependencies anew into requirements*.lock
	scripts/lock.sh

sbom: .venv/run.stamp ## print what the relay consists of, with licences (CycloneDX)
	@$(BIN)/python docker/sbom.py --lock requirements.lock

clean: ## remove what the targets above made
	rm -rf clients/js/node_modules clients/js/compat/*/node_modules clients/js/dist clients/js/.pack examples/v86/node_modules
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage*

.venv/run.stamp: requirements.lock requirements-build.lock pyproject.toml scripts/venv.sh
	scripts/venv.sh requirements-build.lock requirements.lock
	@touch $@

.venv/test.stamp: requirements-test.lock .venv/run.stamp
	scripts/venv.sh requirements-build.lock requirements-test.lock
	@touch $@
