# `make up` runs everything, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# PYTHON=python3.12 chooses the interpreter; otherwise the newest supported one is found.
PYTHON ?=
BIN := .venv/bin
# `make up` installs what runs; every other target also installs the tools for checks and tests.
BOOTSTRAP := $(or $(shell command -v python3 || command -v python),$(PYTHON)) mesh/local/bootstrap.py \
	    $(if $(PYTHON),--python $(PYTHON)) $(if $(filter-out up,$(MAKECMDGOALS)),--dev)
ARGS ?=
TESTS ?= tests
CONTRACTS := $(shell find protos/amarre -name '*.proto')
IMAGE := protos/gen/amarre/contract.binpb

.PHONY: help up test test-unit bench chaos check check-contracts check-rendered check-deploy site generate render lock baseline format wheel tools clean programs test-cluster test-containers test-telemetry test-iac

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

up: $(IMAGE) ## Start everything and print where it is. Options: make up ARGS="--port-base 4000"
	@exec $(BIN)/amarre up $(ARGS)

test: $(IMAGE) tools ## Run all tests; installs the optional programs where it may.
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -q $(TESTS) $(ARGS)

UNIT := tests/auth_svc tests/gateway tests/health_svc tests/survey_svc tests/mesh/chassis tests/mesh/console tests/mesh/contract

test-unit: $(IMAGE) ## Run the tests that start no mesh, for example on another Python: PYTHON=python3.11
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(UNIT) $(ARGS)

SEEDS ?= 1,2,3

chaos: $(IMAGE) tools ## Make every fault under load, in the order of each of SEEDS.
	@AMARRE_CHAOS_SEEDS=$(SEEDS) AMARRE_CHAOS_FAULTS=12 AMARRE_CHAOS_RECOVERY=5 \
	    $(BIN)/python -m pytest -q tests/chaos $(ARGS)

test-containers: $(IMAGE) ## Bring up the Compose stack on a real container engine; needs root.
	@$(BIN)/python -m pytest -q -rfE -s --tb=short $(ARGS) tests/production/containers

test-iac: $(IMAGE) ## Run the playbooks on a host with systemd and Terraform with its provider; needs root.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -rfE --tb=short tests/production/iac $(ARGS)

test-telemetry: $(IMAGE) tools ## Run Collector, Jaeger, Prometheus 3 and Alertmanager with the rendered files.
	@$(BIN)/python -m pytest -q -rfE $(ARGS) tests/production/telemetry

check: $(IMAGE) check-contracts check-rendered check-deploy site ## Lint, types, imports, contracts, rendered files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.import_rules
	$(BIN)/deptry .

check-contracts: $(IMAGE)
	$(BIN)/buf format -d --exit-code --path protos/amarre
	$(BIN)/buf lint $(IMAGE)
	$(BIN)/buf breaking $(IMAGE) --against protos/baseline.binpb

check-rendered: $(IMAGE)
	$(BIN)/python -m mesh.render.registry --check

check-deploy: $(IMAGE) ## Check images, Compose, Kubernetes, Istio, Terraform and Ansible, offline.
	$(BIN)/python -m mesh.deploy.check

site: $(IMAGE) ## Build the documentation site into build/site; a broken link fails.
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs build/site

generate: ## Make code from the contracts.
	@touch protos/generate.py
	@$(MAKE) --no-print-directory $(IMAGE)

render: $(IMAGE) ## Render the contracts into every committed file.
	$(BIN)/python -m mesh.render.registry

format: .venv/.installed ## Format code and contracts.
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .
	$(BIN)/buf format -w --path protos/amarre

baseline: $(IMAGE) ## Accept the contracts as they are as what later changes must not break.
	$(BIN)/python protos/generate.py --baseline

bench: $(IMAGE) ## Measure the cost of requests against bare parts; takes about eight minutes.
	@$(BIN)/python -m benchmarks.gateway_cost $(ARGS)

wheel: .venv/.installed ## Build the wheel that other teams install.
	$(BIN)/uv build --wheel --no-build-isolation --python $(BIN)/python -o dist

LOCK := $(BIN)/uv pip compile --python-version 3.11 --universal --generate-hashes -q \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links

# Each smaller lock holds the versions of the largest one.
lock: .venv/.installed ## Resolve the dependencies again into the locks. LOCK_ARGS="--upgrade" takes newer versions.
	$(LOCK) pyproject.toml --extra local --group dev $(LOCK_ARGS) -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra local --group build -c requirements-dev.lock -o requirements.lock
	$(LOCK) pyproject.toml --extra services --extra telemetry -c requirements-dev.lock -o mesh/deploy/docker/requirements.lock
	$(LOCK) pyproject.toml --extra sandbox -c requirements-dev.lock -o mesh/deploy/docker/sandbox.lock
	$(LOCK) --group build -c requirements-dev.lock -o mesh/deploy/docker/build.lock

programs: $(IMAGE) ## Unpack or build the programs of the production tests (Go; 50 minutes without an archive).
	@$(BIN)/python -m tests.production.programs $(ARGS)

test-cluster: $(IMAGE) ## Test the manifests on a real API server and istiod.
	@$(BIN)/python -m pytest -q -rfE tests/production/cluster $(ARGS)

tools:
	@bash tests/tools.sh

clean: ## Remove what was built; keeps the data of the local mesh.
	rm -rf .venv protos/gen dist build .mypy_cache .ruff_cache .pytest_cache

$(IMAGE): $(CONTRACTS) protos/generate.py .venv/.installed
	@$(BIN)/python protos/generate.py

# Each run asks whether the environment is whole, in its place and what the lock says: 0.1 s.
.venv/.installed: FORCE
	@$(BOOTSTRAP)

FORCE:
