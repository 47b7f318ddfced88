# Needs Go, Python 3 and make; `make setup` fetches the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOTOOL := go tool -modfile=$(CURDIR)/tools/go.mod
VENV := .venv
BENCH_VENV := bench/.venv
LINT_VENV := tools/.venv

.PHONY: help setup envoys redis prometheus chromium build release run demo test property load chaos soak screenshots containers bench bench-check fuzz lint generate clean ci

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed $(LINT_VENV)/installed envoys redis prometheus chromium ## Fetch what tests and demo need: Envoy, the example API's packages, redis-server, prometheus, chromium, linters

$(VENV)/installed: examples/requirements-dev.txt examples/api/requirements.txt scripts/venv.sh
	scripts/venv.sh $(VENV) examples/requirements-dev.txt
	@touch $@

$(BENCH_VENV)/installed: bench/python/requirements.txt examples/api/requirements.txt scripts/venv.sh
	scripts/venv.sh $(BENCH_VENV) bench/python/requirements.txt
	@touch $@

$(LINT_VENV)/installed: tools/requirements.txt scripts/venv.sh
	scripts/venv.sh $(LINT_VENV) tools/requirements.txt
	@touch $@

envoys: $(VENV)/installed
	@scripts/envoys.sh $(VENV) examples/envoys.txt

redis:
	@scripts/redis.sh

prometheus:
	@scripts/prometheus.sh

chromium:
	@scripts/chromium.sh

build: ## Build bin/refrakt-gate
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/refrakt-gate ./cmd/refrakt-gate

release: ## Build the archives of a release into dist/, with checksums and SBOMs
	scripts/release.sh dist $(VERSION) linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

run: $(VENV)/installed ## Start Envoy, gate and example API on fixed ports; no Redis needed, QUEUE_URL is used when set
	@cd test && go build -o ../bin/demo ./demo && exec ../bin/demo run

demo: $(VENV)/installed redis ## Play allowed, 429, 503, recovery, a fair share and why a caller was refused, with Redis and SAQ, and check every answer
	@cd test && go build -o ../bin/demo ./demo && exec ../bin/demo demo

test: setup ## Run all tests: unit, bucket stores on a real Redis, end to end on real Envoy, Redis, SAQ, FastAPI, Prometheus, Chromium
	@# The packages that take longest begin first, so that none runs alone at the end.
	go vet ./...
	go test -race -shuffle=on ./quota ./backpressure/saq ./...
	cd test && go vet -tags load,chaos,containers,screenshots ./... && go test -race -shuffle=on ./e2e ./chaos ./watch ./...
	cd test/kubernetes && go vet ./... && go test -shuffle=on ./...
	cd bench && go vet ./... && go test -race -shuffle=on ./...

property: ## Try each property of test/property with 2,000 cases (CHECKS=2000); make test tries 500
	cd test && go test -race -count=1 ./property -rapid.checks=$(CHECKS)

load: setup ## Play 12 minutes of load and write a report (LOAD_REPORT_DIR, default test/load/report); exit 1 if an expectation fails
	cd test && go test -tags load -run '^TestLoad$$' -count=1 -timeout 30m -v ./load

chaos: setup ## Break what the gate depends on, under traffic, and write a report; exit 1 if an expectation fails (FAULT=name,… for some)
	cd test && FAULT='$(FAULT)' CHAOS_REPORT='$(CHAOS_REPORT)' go test -tags chaos -run '^TestChaos' -count=1 -timeout 30m -v ./chaos

soak: setup ## Break Redis over and over for 10 minutes (SOAK=10m); exit 1 if the gate grows
	cd test && SOAK='$(SOAK)' go test -tags chaos -run '^TestSoak$$' -count=1 -timeout 60m -v ./chaos

screenshots: setup ## Take the pictures of docs/page.md, of real gates after 10 minutes of requests
	cd test && go test -tags screenshots -run '^TestScreenshots$$' -count=1 -timeout 20m -parallel 3 ./page -into '$(CURDIR)/docs/page'

containers: $(VENV)/installed ## Play images and docker-compose.yml on a container engine of its own, as root (BASES=registry pulls the real base images); exit 1 if an expectation fails
	@scripts/containers.sh $(if $(BASES),slirp4netns,mmdebstrap)
	cd test && BASES='$(BASES)' go test -tags containers -run '^TestContainers$$' -count=1 -timeout 40m -v ./containers

BENCH_DIR ?= $(CURDIR)/docs/performance
bench: $(VENV)/installed $(BENCH_VENV)/installed redis ## Measure the gate for 8 minutes, write tables and plots (BENCH_DIR, default docs/performance; BENCH_PEER=PATH: an envoyproxy/ratelimit, too)
	@cd bench && go build -o ../bin/bench . && exec ../bin/bench -out '$(BENCH_DIR)' -peer '$(BENCH_PEER)' all

bench-check: redis ## Compare what a request costs on any machine with bench/bounds.yaml; exit 1 if a bound is exceeded
	@cd bench && go build -o ../bin/bench . && exec ../bin/bench check

CHECKS ?= 2000
FUZZ ?= 300000x
fuzz: ## Run each fuzz target for a number of executions (FUZZ=300000x) or a time (FUZZ=1m)
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "== $$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) $$package; \
	  done; \
	done

lint: $(LINT_VENV)/installed ## Run golangci-lint and buf, and actionlint, zizmor and check-jsonschema on .github
	$(GOTOOL) golangci-lint run ./...
	cd test && $(GOTOOL) golangci-lint run --build-tags load,chaos,containers,screenshots ./...
	cd test/kubernetes && $(GOTOOL) golangci-lint run ./...
	cd bench && $(GOTOOL) golangci-lint run ./...
	cd proto && $(GOTOOL) buf lint
	go tool -modfile=tools/actionlint/go.mod actionlint -shellcheck= -pyflakes=
	$(LINT_VENV)/bin/zizmor --offline --quiet --persona pedantic .github
	$(LINT_VENV)/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(LINT_VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(LINT_VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml

generate: ## Generate the Go code of proto/ and the JSON schema of policy files
	cd proto && $(GOTOOL) buf generate
	go generate ./policy

ci: ## Run everything CI runs
	.ci/run

clean: ## Remove what was built and fetched into this folder, and what make containers keeps
	rm -rf bin dist $(VENV) $(BENCH_VENV) $(LINT_VENV) "$${XDG_CACHE_HOME:-$$HOME/.cache}/refrakt-gate/containers"
