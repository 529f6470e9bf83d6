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
# With the folders, which change when a contract is removed.
CONTRACTS := $(shell find protos/amarre -type d -o -name '*.proto')
IMAGE := protos/gen/amarre/contract.binpb

.PHONY: help up test test-unit bench chaos check check-contracts check-rendered check-deploy site generate render lock baseline format wheel tools clean programs test-cluster test-containers test-telemetry test-iac

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

up: $(IMAGE) ## Start the mesh and print its URLs. Options: make up ARGS="--port-base 4000"
	@exec $(BIN)/amarre up $(ARGS)

test: $(IMAGE) tools ## Run all tests; installs optional programs if permitted.
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -q $(TESTS) $(ARGS)

UNIT := tests/auth_svc tests/gateway tests/health_svc tests/survey_svc tests/mesh/chassis tests/mesh/console tests/mesh/contract

test-unit: $(IMAGE) ## Run the tests that start no mesh, for example on another Python: PYTHON=python3.11
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q $(UNIT) $(ARGS)

SEEDS ?= 1,2,3

chaos: $(IMAGE) tools ## Inject every fault under load, once per seed in SEEDS.
	@AMARRE_CHAOS_SEEDS=$(SEEDS) AMARRE_CHAOS_FAULTS=12 AMARRE_CHAOS_RECOVERY=5 \
	    $(BIN)/python -m pytest -q tests/chaos $(ARGS)

test-containers: $(IMAGE) ## Test the Compose stack on a real container engine; needs root.
	@$(BIN)/python -m pytest -q -rfE -s --tb=short $(ARGS) tests/production/containers

test-iac: $(IMAGE) ## Test the Ansible playbooks on a host with systemd, and Terraform with its provider; needs root.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -rfE --tb=short tests/production/iac $(ARGS)

test-telemetry: $(IMAGE) tools ## Test Collector, Jaeger, Prometheus 3 and Alertmanager with the rendered configuration.
	@$(BIN)/python -m pytest -q -rfE $(ARGS) tests/production/telemetry

check: $(IMAGE) check-contracts check-rendered check-deploy site ## Check style, types, imports, contracts and rendered files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.import_rules
	$(BIN)/deptry .

check-contracts: $(IMAGE) ## Check format, style and compatibility of the contracts.
	$(BIN)/buf format -d --exit-code --path protos/amarre
	$(BIN)/buf lint $(IMAGE)
	$(BIN)/buf breaking $(IMAGE) --against protos/baseline.binpb

check-rendered: $(IMAGE) ## Check that the rendered files are current.
	$(BIN)/python -m mesh.render.registry --check

check-deploy: $(IMAGE) ## Check images, Compose, Kubernetes, Istio, Terraform and Ansible, offline.
	$(BIN)/python -m mesh.deploy.check

site: $(IMAGE) ## Build the documentation site into build/site; a broken link fails.
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs build/site

generate: ## Generate code from the contracts.
	@touch protos/generate.py
	@$(MAKE) --no-print-directory $(IMAGE)

render: $(IMAGE) ## Render every committed file that is derived from the contracts.
	$(BIN)/python -m mesh.render.registry

format: .venv/.installed ## Format code and contracts.
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .
	$(BIN)/buf format -w --path protos/amarre

baseline: $(IMAGE) ## Record the current contracts as the baseline for breaking-change checks.
	$(BIN)/python protos/generate.py --baseline

bench: $(IMAGE) ## Compare the cost of requests with that of its parts; takes about eight minutes.
	@$(BIN)/python -m benchmarks.gateway_cost $(ARGS)

wheel: .venv/.installed ## Build the wheel that other teams install.
	$(BIN)/uv build --wheel --no-build-isolation --python $(BIN)/python -o dist

LOCK := $(BIN)/uv pip compile --python-version 3.11 --universal --generate-hashes -q \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links

# Each smaller lock holds the versions of the largest one.
lock: .venv/.installed ## Update the lock files. LOCK_ARGS="--upgrade" upgrades the versions.
	$(LOCK) pyproject.toml --extra local --group dev $(LOCK_ARGS) -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra local --group build -c requirements-dev.lock -o requirements.lock
	$(LOCK) pyproject.toml --extra services --extra telemetry -c requirements-dev.lock -o mesh/deploy/docker/requirements.lock
	$(LOCK) pyproject.toml --extra sandbox -c requirements-dev.lock -o mesh/deploy/docker/sandbox.lock
	$(LOCK) --group build -c requirements-dev.lock -o mesh/deploy/docker/build.lock

programs: $(IMAGE) ## Unpack or build the programs of the production tests (needs Go; 50 minutes without an archive).
	@$(BIN)/python -m tests.production.programs $(ARGS)

test-cluster: $(IMAGE) ## Test the manifests on a real API server and istiod.
	@$(BIN)/python -m pytest -q -rfE tests/production/cluster $(ARGS)

tools: ## Install the optional programs of the tests if permitted.
	@bash tests/tools.sh

clean: ## Remove build output; keeps the data of the local mesh.
	rm -rf .venv protos/gen dist build .mypy_cache .ruff_cache .pytest_cache

$(IMAGE): $(CONTRACTS) protos/generate.py .venv/.installed
	@$(BIN)/python protos/generate.py

# Each run asks whether the environment is whole, in its place and what the lock says: 0.1 s.
.venv/.installed: FORCE
	@$(BOOTSTRAP)

FORCE:
