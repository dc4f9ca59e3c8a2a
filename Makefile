# Perry. `make` explains the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON3 ?= python3
export PATH := $(CURDIR)/.build/tools/bin:$(PATH):/usr/local/go/bin:/usr/sbin:/sbin
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON := $(PYTHON3)
RUN := uv run --frozen -q

help: ## Explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

quickstart: ## Bring up the whole thing on this machine, and show that it works
	@$(PYTHON3) bootstrap/quickstart.py

quickstart-clean: ## Remove what quickstart made, and only it
	@$(PYTHON3) bootstrap/clean.py

ready: ## Install what tests need and is missing, and build the images
	@$(PYTHON3) bootstrap/ensure.py --tests
	@uv sync --frozen -q
	@$(RUN) python -m controlplane build

test: ready ## Every test, on a real Docker Engine and a real tailnet
	$(RUN) pytest
	cd sidecar && go test -race ./...

check: lint types arrows generated test ## Everything that CI runs

lint: tools ## Style of Python and Go
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	cd sidecar && go vet ./... && go tool staticcheck ./...

types: tools ## Types of Python
	$(RUN) mypy

arrows: tools ## Which part may know which
	$(RUN) lint-imports

generated: tools ## What is made from the source is up to date
	$(RUN) pytest -q tests/unit -k "page or openapi or reference or generated"

generate: tools ## Make again what is made from the source
	$(RUN) python -m controlplane settings > docs/settings.md
	$(RUN) python -m controlplane openapi
	$(RUN) python -m cli.reference > docs/cli.md

bench: ready ## What it costs, beside what it is compared with; JSON on standard output
	@$(RUN) python -m tests.bench

dev: tools ## A control plane on fakes: no Docker, no tailnet
	$(RUN) python -m tests.fakes.agent

prove: ready ## Both commands of the README in a bare Debian container
	bootstrap/prove.sh

tools:
	@$(PYTHON3) bootstrap/ensure.py --tests
	@uv sync --frozen -q

.PHONY: help quickstart quickstart-clean ready test check lint types arrows generated generate bench dev prove tools
