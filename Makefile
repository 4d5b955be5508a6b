# One vocabulary for laptop and CI. Everything here is safe to repeat.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

# Tests beside real processes can be hit by a busy machine. In CI, what failed gets one more chance, and the log says so.
again = $(if $(CI),|| { echo "--- once more (in CI only): what failed"; $(1); })

.PHONY: help setup assets demo test lint unit integration e2e bench lock clean

help:            ## this list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

setup:           ## Python environment in .venv and the Debian packages that are missing
	@PYTHON=$(PYTHON) tools/setup.sh

assets: setup    ## etcd, kube-apiserver, kube-controller-manager, kubectl: found, downloaded or built, then cached
	@$(BIN)/nodewright assets

demo: assets     ## a real cluster on this machine, with a workload of our own parts in it
	@tools/demo.sh

test: lint unit integration e2e   ## everything below, as CI runs it

lint: setup      ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: setup      ## pure cores, no root, seconds
	$(PYTEST) tests/unit

integration: assets   ## real kube-apiserver and etcd, real namespaces, real runc, user-mode Linux
	$(PYTEST) tests/integration tests/uml $(call again,$(PYTEST) --last-failed tests/integration tests/uml)

e2e: assets      ## a whole cluster with two node hosts, from the command line
	$(PYTEST) tests/e2e $(call again,$(PYTEST) tests/e2e)

bench: assets    ## the figures of the README, in turns with the upstream counterpart
	$(BIN)/python tests/bench/run.py

lock: setup      ## requirements/dev.txt from requirements/dev.in
	tools/lock.sh

clean:           ## the environment; clusters are removed with: nodewright down --purge
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
