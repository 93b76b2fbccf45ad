# Everything a developer or CI runs. `make help` lists it. CARGO_TARGET_DIR is respected, as by cargo.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
# Seconds that `make fuzz` gives each target.
FUZZ_SECONDS ?= 60

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Build, then two upstreams and the proxy on this machine; prints what to try
	.ci/setup build
	$(CARGO) build --release --locked
	$(CARGO) run --release --locked --quiet -- demo --config config/demo.yaml

.PHONY: test
test: ## Install what tests need, then everything CI runs
	.ci/setup test
	.ci/test

.PHONY: deny
deny: ## Check licences, sources and known vulnerabilities of dependencies
	.ci/deny

.PHONY: bench
bench: ## Criterion benches of the hot paths
	.ci/setup build
	$(CARGO) bench --locked

.PHONY: load
load: ## Compare with other proxies (about half an hour; options in LOAD="...")
	.ci/setup build
	$(CARGO) build --release --locked
	loadtests/run $(LOAD)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz and a nightly toolchain
	.ci/fuzz $(FUZZ_SECONDS)

.PHONY: docs
docs: ## API documentation, also of private items
	$(CARGO) doc --locked --no-deps --document-private-items
