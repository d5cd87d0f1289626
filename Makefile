# duet: recipes call Go programs; only `deps` installs anything. `make` alone explains itself.
SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Programs are linked statically: they must run in any root file system. A checkout owned by somebody else must build too.
GO         ?= go
export GOFLAGS ?= -buildvcs=false
DAEMONS    := ./replication/cmd/duet-mirrord ./replication/cmd/duet-leg ./appliance/cmd/duetd ./appliance/cmd/duet ./witness/cmd/duet-witness
# Without it the etcd client of the witness brings html/template and a web server of traces: 2 MiB of memory.
TAGS       := -tags grpcnotrace
TOOLS      := ./build/cmd/lab ./build/cmd/scenario ./build/cmd/guest-init
T          ?= 10s
N          ?= 100
SEED       ?= 0
NAME       ?= demo

.PHONY: help deps binaries run demo soak liveness chaos test test-nbd check race fuzz explore explore-long lint clean bench-witness bench-mirror bench-mirror-gate bench-mirror-binaries bench-pg deps-bench-pg witness-binaries

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install the Debian packages that are missing (needs root; does nothing when all are there)
	@$(GO) run ./build/cmd/deps

binaries: ## build daemons, CLI and lab into bin/
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) -o bin/ $(DAEMONS) $(TOOLS)

run: deps binaries ## bring up a whole site on this machine and keep it until Ctrl-C
	@bin/scenario run -name $(NAME)

demo: deps binaries ## unattended: cut power, links and witness; ends in one line of JSON
	@bin/scenario demo

soak: deps binaries ## N random power-cut cycles: make soak N=100 SEED=7
	@bin/scenario soak -n $(N) -seed $(SEED)

# RUN picks cases by a regular expression on ROW/CASE; a whole run also writes the failure matrix.
RUN        ?=
MATRIX     := docs/operations/failure-matrix.md

liveness: deps binaries ## the liveness table of the protocol, measured; one line of JSON: make liveness RUN=node-dies
	@bin/scenario liveness -run '$(RUN)' $(if $(RUN),,-matrix $(MATRIX))

chaos: deps binaries ## N random fault episodes: make chaos N=1000 SEED=7; one line of JSON
	@bin/scenario chaos -n $(N) -seed $(SEED)

# The lab's own tests and the scenarios bring up whole sites: one at a time, and nothing else beside them.
SITES      := ./build/lab/... ./build/scenario/...

test: deps binaries ## everything CI requires: unit, fuzz corpora, explorer, mutants, lab, demo's scenarios
	@$(GO) vet ./...
	@$(GO) test -timeout 15m $$($(GO) list ./... | grep -v -e '/build/lab' -e '/build/scenario')
	@$(GO) test -timeout 10m -tags mutants -run Mutants ./appliance/membership/explore ./appliance/support/flight ./appliance/postgres/...
	@$(GO) test -timeout 30m -p 1 $(SITES)

# All of it is in `test`, too.
test-nbd: deps ## the NBD server judged by libnbd, QEMU, fio and file systems (root)
	@$(GO) test -count=1 ./replication/nbd
	@$(GO) test -count=1 -run 'Judges|FileSystem' ./replication/cmd/duet-mirrord

check: lint ## format, lint, repository rules, quick tests
	@$(GO) vet ./...
	@$(GO) test -short ./...

race: ## quick tests under the race detector
	@$(GO) test -race -short ./...

fuzz: ## every fuzz target for T each: make fuzz T=10s
	@$(GO) run ./build/cmd/fuzz -time $(T)

explore: ## check the membership core: small worlds whole, random walks, the mutant gate; one line of JSON
	@mkdir -p bin
	@$(GO) build -o bin/explore ./build/cmd/explore
	@$(GO) build -tags mutants -o bin/explore-mutants ./build/cmd/explore-mutants
	@bin/explore -budget 60s -gate bin/explore-mutants

explore-long: ## the same for longer: make explore-long T=8h
	@mkdir -p bin
	@$(GO) build -o bin/explore ./build/cmd/explore
	@$(GO) build -tags mutants -o bin/explore-mutants ./build/cmd/explore-mutants
	@bin/explore -budget $(T) -gate bin/explore-mutants

bench-witness: ## what one witness costs with 10,000 sites (root, two minutes); ends in one line of JSON
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) -o bin/duet-witness ./witness/cmd/duet-witness
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench-witness ./build/bench/witness
	@bin/bench-witness

# ARGS of the benchmark: '-jobs list' names the jobs, -rounds, -seconds, -subjects, -seed, '-profile DIR', '-update docs/performance.md'.
ARGS       ?=

bench-mirror: deps bench-mirror-binaries ## what mirroring costs, in the raw disk and in QEMU's mirrors (root, 20 minutes); one line of JSON
	@bin/bench-mirror $(ARGS)

bench-mirror-gate: deps bench-mirror-binaries ## its gates alone, half a minute: CPU per write against QEMU's quorum, no 40 ms plateau
	@bin/bench-mirror -gate -rounds 2 -seconds 1.5 -mib 128 $(ARGS)

bench-mirror-binaries:
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) -o bin/ ./replication/cmd/duet-mirrord
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench-mirror ./build/bench/mirror

bench-pg: deps-bench-pg binaries ## how long writes stop: the database pair beside Patroni's (root, 40 minutes); one line of JSON
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench-pg ./build/bench/db
	@bin/bench-pg $(ARGS)

deps-bench-pg:
	@$(GO) run ./build/cmd/deps -bench-pg

witness-binaries: ## static duet-witness for amd64, arm64 and armv6 into bin/witness/
	@mkdir -p bin/witness
	@$(GO) run ./build/cmd/witness-binaries

lint: ## golangci-lint from a cached binary (built once, about ten minutes)
	@mkdir -p .cache
	@test -x .cache/golangci-lint || { echo "lint: building golangci-lint once" >&2; $(GO) build -modfile build/tools/go.mod -o .cache/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint; }
	@.cache/golangci-lint run ./...

clean: ## remove what was built (not the caches of Go)
	@rm -rf bin out .cache
