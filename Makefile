# Perry. `make` explains the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON3 ?= python3
export PYTHON3
export PYTHONDONTWRITEBYTECODE := 1
FORCE ?=
export FORCE

ENSURE := $(PYTHON3) -m bootstrap.ensure
IN := bootstrap/in
RUN := $(IN) uv run --frozen -q
# What images are built with, so that nothing is compiled once more.
AS_IMAGES := CGO_ENABLED=0 GOFLAGS=-trimpath
# As controlplane/images/plan.py has it, and says why.
SIDECAR_TAGS := ts_omit_conn25

help: ## Explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

quickstart: ## Bring up the whole thing on this machine, and show that it works
	@$(ENSURE) python go engine
	@$(IN) $(PYTHON3) -m bootstrap.quickstart

quickstart-clean: ## Remove what quickstart made, and only it (FORCE=1: also workspaces with unsaved work)
	@$(IN) $(PYTHON3) -m bootstrap.clean

check: ## Everything that CI runs
	@bootstrap/phases ready lint types arrows generated test-go test-python

test: ## Every test, on a real Docker Engine and a real tailnet
	@bootstrap/phases ready test-go test-python

lint: python go ## Style of Python, Go and shell
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) shellcheck bootstrap/generated bootstrap/in bootstrap/phases bootstrap/prove.sh .ci/run \
		images/worker/collect images/worker/install images/worker/perry
	cd sidecar && $(AS_IMAGES) ../$(IN) go vet -tags $(SIDECAR_TAGS) ./...
	cd sidecar && $(AS_IMAGES) ../$(IN) go tool staticcheck -tags $(SIDECAR_TAGS) ./...
	cd images/headscale && $(AS_IMAGES) ../../$(IN) go vet ./...

types: python ## Types of Python and TypeScript
	$(RUN) mypy
	$(RUN) python -m bootstrap.typescript check

arrows: python ## Which part may know which
	$(RUN) lint-imports

generated: python ## What is made from the source is up to date
	@bootstrap/generated

generate: python ## Make again what is made from the source
	$(RUN) python -m controlplane settings > docs/settings.md
	$(RUN) python -m controlplane openapi
	$(RUN) python -m cli.reference > docs/cli.md
	$(RUN) python -m bootstrap.typescript generate

bench: ready ## What it costs, beside what it is compared with; JSON on standard output
	@$(RUN) python -m tests.bench

dev: python ## A control plane on fakes: no Docker, no tailnet
	$(RUN) python -m tests.fakes.agent

prove: ready ## Both commands of the README in a bare Debian container
	@$(IN) bootstrap/prove.sh

# --- what the above stand on

python:
	@$(ENSURE) python >/dev/null
	@$(IN) uv sync --frozen -q

go:
	@$(ENSURE) python go >/dev/null

ready:
	@$(ENSURE) python go engine tests
	@$(IN) uv sync --frozen -q
	@$(RUN) python -m controlplane build

test-go:
	cd sidecar && ../$(IN) go test -race -tags $(SIDECAR_TAGS) ./...
	cd images/headscale && ../../$(IN) go test -race ./forward

test-python:
	$(RUN) pytest --durations=25

.PHONY: help quickstart quickstart-clean check test lint types arrows generated generate bench dev prove \
	python go ready test-go test-python
