# One vocabulary for laptop and CI. Everything here is safe to repeat.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
E2E := tests/e2e/common tests/e2e/embedded

# Tests beside real processes can be hit by a busy machine. In CI, what failed gets one more chance, and the log says so.
again = $(if $(CI),|| { echo "--- once more (in CI only): what failed"; $(1); })

.PHONY: help setup assets images demo kind-up kind-down test lint unit integration differential-nightly e2e e2e-kind e2e-kind-if-possible conformance critest bench lock clean

help:            ## this list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

setup:           ## Python environment in .venv and the Debian packages that are missing
	@PYTHON=$(PYTHON) tools/setup.sh

assets: setup    ## etcd, kube-apiserver, kube-controller-manager, kubectl: found, downloaded or built, then cached
	@$(BIN)/nodewright assets

demo: assets     ## a real cluster on this machine, with a workload of our own parts in it
	@tools/demo.sh

images: setup    ## the images nodewright/operator and nodewright/agent, in this machine's Docker
	@tools/images/build.sh --tag "$$(sed -n 's/^appVersion: *//p' charts/nodewright/Chart.yaml)"

kind-up: setup   ## a kind cluster with the chart installed, left for you to play with
	@tools/kind/up.sh

kind-down: setup ## deletes that cluster
	@tools/kind/down.sh

test: lint unit integration e2e e2e-kind-if-possible   ## everything below, as CI runs it

lint: setup      ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: setup      ## pure cores and the chart's templates, no root, seconds (Helm 3 and 4 are obtained first)
	NODEWRIGHT_HELM=$$(tools/kind/tools.sh helm) NODEWRIGHT_HELM4=$$(tools/kind/tools.sh helm4) $(PYTEST) tests/unit

integration: assets   ## real kube-apiserver, etcd and kube-scheduler, real namespaces, real runc, user-mode Linux
	@$(BIN)/nodewright assets kube-scheduler
	$(PYTEST) tests/integration tests/uml tests/differential $(call again,$(PYTEST) --last-failed tests/integration tests/uml tests/differential)

differential-nightly: assets   ## our scheduler and DaemonSet controller against upstream's: many random cases, other ones each time
	@$(BIN)/nodewright assets kube-scheduler
	NODEWRIGHT_DIFFERENTIAL_CASES=$${NODEWRIGHT_DIFFERENTIAL_CASES:-2000} $(PYTEST) tests/differential

# KUBECONFIG=... $(PYTEST) tests/e2e/common runs the common suite on any other cluster.
e2e: assets      ## a whole cluster with two node hosts, from the command line
	unset KUBECONFIG; $(PYTEST) $(E2E) $(call again,$(PYTEST) $(E2E))

e2e-kind: setup  ## the chart in kind, with Nodewright as the service proxy and beside kube-proxy: install, test, tear down
	@tools/kind/e2e.sh

# A machine without Docker, node image and recipe cannot run them; CI that must have them sets KIND_REQUIRED=1.
e2e-kind-if-possible: setup
	@tools/kind/e2e.sh || { status=$$?; [ $$status = 2 ] && [ -z "$(KIND_REQUIRED)" ] || exit $$status; \
	  echo "SKIPPED: the end-to-end tests in kind (the reason stands above)"; }

# FOCUS and SKIP are regular expressions of test names, PROCS the number of tests at a time, OUT the folder of the results.
conformance: setup   ## upstream's conformance tests (e2e.test) against a cluster of their own; an hour or more
	@PYTHON=$(PYTHON) tools/setup.sh conformance
	@PYTHONPATH=tools $(BIN)/python -m conformance $(if $(FOCUS),--focus='$(FOCUS)') $(if $(SKIP),--skip='$(SKIP)') \
	  $(if $(PROCS),--procs=$(PROCS)) $(if $(OUT),--out='$(OUT)') $(if $(CLUSTER),--cluster='$(CLUSTER)')

critest: setup       ## upstream's tests of CRI runtimes (critest) against nodewright cri; minutes
	@PYTHON=$(PYTHON) tools/setup.sh conformance
	@PYTHONPATH=tools $(BIN)/python -m conformance.critest $(if $(FOCUS),--focus='$(FOCUS)') $(if $(SKIP),--skip='$(SKIP)') \
	  $(if $(OUT),--out='$(OUT)')

bench: assets    ## the figures of the README, in turns with the upstream counterpart
	@PYTHON=$(PYTHON) tools/setup.sh bench
	$(BIN)/python tests/bench/run.py

lock: setup      ## requirements/*.txt: every Python package with its hashes
	tools/lock.sh

clean:           ## the environment; clusters are removed with: nodewright down --purge
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
