# every target makes .venv itself: by uv when it is there, else by venv and pip
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 3
BENCHES ?= kafka-adbpg adbpg-latency kafka-milvus milvus-latency formats group-by replay reconcile maxcompute-read kafka-iceberg iceberg-commits lookup kafka-paimon embed maxcompute-write mysql-cdc autoetl
export DAGSTER_HOME ?= $(CURDIR)/dagster_home

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast soak dev lint bench services-up services-down lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): requirements.lock pyproject.toml
	@set -e; if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --python $(PYTHON) $(VENV); \
		uv pip sync --python $(BIN)/python requirements.lock; \
		uv pip install --python $(BIN)/python --no-deps --editable .; \
	else \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	fi
	@touch $@

demo: $(STAMP) ## whole jobs on embedded services; DEMO="adbpg milvus lake maxcompute mysql search" chooses parts
	$(BIN)/vector-assets demo $(DEMO)

test: $(STAMP) ## all tests, real services included, in WORKERS processes with services of their own
	$(PYTEST) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP) ## the tests that need no service
	$(PYTEST) -m "not service"

soak: $(STAMP) ## the long random fault mix, 20 seeds
	$(PYTEST) tests/faults --soak

dev: $(STAMP) services-up ## Dagster's UI and daemon over pipelines/
	$(BIN)/dagster dev --host 127.0.0.1 --workspace workspace.yaml

lint: $(STAMP) ## ruff format, ruff check, mypy --strict
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP) ## every benchmark at its own size, as JSON
	@set -e; for name in $(BENCHES); do echo "# $$name"; $(BIN)/vector-assets bench $$name --json; done

services-up: $(STAMP) ## start the embedded services
	$(BIN)/vector-assets services up

services-down: $(STAMP) ## stop them; their data stays under .local/
	$(BIN)/vector-assets services down

lock: ## resolve requirements.lock anew from pyproject.toml
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --output-file requirements.lock

clean: ## remove the environment; services' data and the books under .local/ stay
	rm -rf $(VENV)
