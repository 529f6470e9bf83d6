# `make up` runs everything, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ARGS ?=
TESTS ?= tests
CONTRACTS := $(shell find protos/amarre -name '*.proto')
IMAGE := protos/gen/amarre/contract.binpb

.PHONY: help up test check check-contracts check-rendered check-deploy generate render lock baseline format wheel tools clean

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

up: $(IMAGE) ## Start everything and print where it is. Options: make up ARGS="--port-base 4000"
	@exec $(BIN)/amarre up $(ARGS)

test: $(IMAGE) tools ## Run all tests; installs the optional programs where it may.
	@$(BIN)/python -m pytest -n 2 --dist loadfile -q $(TESTS) $(ARGS)

check: $(IMAGE) check-contracts check-rendered check-deploy ## Lint, types, imports, contracts, rendered files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-contracts: $(IMAGE)
	$(BIN)/buf format -d --exit-code --path protos/amarre
	$(BIN)/buf lint $(IMAGE)
	$(BIN)/buf breaking $(IMAGE) --against protos/baseline.binpb

check-rendered: $(IMAGE)
	@for target in $$($(BIN)/python -m mesh.render.registry); do \
	    $(BIN)/amarre render $$target --check \
	    || { echo "The committed files of $$target differ from the contract; run: make render"; exit 1; }; \
	done

check-deploy: $(IMAGE) ## Check images, Compose, Kubernetes, Istio, Terraform and Ansible, offline.
	$(BIN)/python -m mesh.deploy.check

generate: ## Make code from the contracts.
	@touch protos/generate.py
	@$(MAKE) --no-print-directory $(IMAGE)

render: $(IMAGE) ## Render the contracts into every committed file.
	@for target in $$($(BIN)/python -m mesh.render.registry); do \
	    $(BIN)/amarre render $$target --commit || exit 1; \
	done

format: .venv/.installed ## Format code and contracts.
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .
	$(BIN)/buf format -w --path protos/amarre

baseline: $(IMAGE) ## Accept the contracts as they are as what later changes must not break.
	$(BIN)/python protos/generate.py --baseline

wheel: .venv/.installed ## Build the wheel that other teams install.
	$(BIN)/uv build --wheel --no-build-isolation --python $(BIN)/python -o dist

lock: ## Resolve the dependencies anew into requirements.lock.
	$(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 --universal \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    -q -o requirements.lock

tools:
	@bash tests/tools.sh

clean: ## Remove what was built; keeps the data of the local mesh.
	rm -rf .venv protos/gen dist build .mypy_cache .ruff_cache .pytest_cache

$(IMAGE): $(CONTRACTS) protos/generate.py .venv/.installed
	@$(BIN)/python protos/generate.py

# uv is in the lock like everything else; pip installs it alone and it installs the rest, which
# takes seconds where pip takes a minute. Where there is no uv for this machine pip does it all.
.venv/.installed: requirements.lock pyproject.toml
	@echo "Installing into .venv …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	    || { echo "Python 3.11 is needed; this is $$($(PYTHON) --version). Set PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@awk '/^uv==/ {p=1} p {print} p && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.lock \
	    && $(BIN)/uv pip sync -q --require-hashes --python $(BIN)/python requirements.lock \
	    || $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python protos/generate.py
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . 2>/dev/null \
	    || $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
