# "make" lists what there is. "make test" is everything that a change has to pass.

GO      ?= go
SHELL   := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# The binary is static: no C library, the same on every machine. Only the race detector needs cgo, and so a C compiler.
BUILD     := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
GOLANGCI  := bin/tools/golangci-lint
# checkptr would check every pointer of SQLite, which is C made into Go and mostly pointers.
RACE      := CGO_ENABLED=1 $(GO) test -race -gcflags=all=-d=checkptr=0 -count 1 -parallel 6 -timeout 30m

PKG       ?= ./...
BENCH     ?= .
COUNT     ?= 6
WORKLOAD  ?=
RUNS      ?= 5
SCALE     ?= 1
BENCH_OUT ?= docs/bench/$(shell date +%Y-%m-%d)-$(VERSION)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the static binary bin/taskrunner
	$(BUILD) -o bin/taskrunner ./cmd/taskrunner

.PHONY: cross
cross: ## Build for Linux, macOS and Windows, amd64 and arm64, into bin/
	@set -e; for platform in $(PLATFORMS); do \
		os=$${platform%/*} arch=$${platform#*/} suffix=; \
		if [ $$os = windows ]; then suffix=.exe; fi; \
		echo "build bin/taskrunner-$$os-$$arch$$suffix"; \
		GOOS=$$os GOARCH=$$arch $(BUILD) -o bin/taskrunner-$$os-$$arch$$suffix ./cmd/taskrunner; \
	done

.PHONY: run
run: ## Run a server for development, nothing to set up
	$(GO) run ./cmd/taskrunner dev

.PHONY: lint
lint: $(GOLANGCI) ## Check formatting, import rules and the linters of .golangci.yml
	$(GOLANGCI) run --allow-parallel-runners $(PKG)

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the source
	$(GOLANGCI) fmt

.PHONY: vet
vet: ## Run go vet
	$(GO) vet $(PKG)

.PHONY: unit
unit: postgres ## Run the tests without the race detector (PKG=./internal/task for one package)
	$(GO) test -timeout 20m $(PKG)

.PHONY: race
race: postgres-cc ## Run the tests with the race detector
	$(RACE) $(PKG)

.PHONY: pooled
pooled: postgres-cc-pgbouncer ## Run the end-to-end tests behind a pgbouncer in transaction mode
	TASKRUNNER_TEST_PGBOUNCER=1 $(RACE) ./internal/e2e

.PHONY: test
test: ## Run everything: lint, vet, all tests with the race detector, the same behind pgbouncer, all builds
	@$(MAKE) --no-print-directory postgres-cc-pgbouncer
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory vet
	@$(MAKE) --no-print-directory race
	@$(MAKE) --no-print-directory pooled
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory cross

.PHONY: test-long
test-long: postgres-cc ## Run the tests with bigger counts and longer times
	TEST_LONG=1 $(RACE) -tags long -timeout 3h $(PKG)

.PHONY: bench
bench: build postgres ## Run every workload of "taskrunner bench", tiny, on both databases: whether they work, not how fast
	bin/taskrunner bench --db sqlite --scale 0.005
	bin/taskrunner bench --db postgres --scale 0.005

.PHONY: bench-full
bench-full: build postgres ## Measure every workload (hours), and keep the output in docs/bench (WORKLOAD=flat,chain RUNS=1 SCALE=0.1)
	set -o pipefail; for db in sqlite postgres; do \
		bin/taskrunner bench --db $$db --workload '$(WORKLOAD)' --runs $(RUNS) --scale $(SCALE) | tee $(BENCH_OUT)-$$db.txt || exit 1; \
	done

.PHONY: bench-drivers
bench-drivers: postgres ## Run the Go benchmarks of the drivers (BENCH=Claim COUNT=1)
	GOGC=300 $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 3h -p 1 ./internal/store/...

.PHONY: cover
cover: postgres ## Measure which statements the tests run, into coverage/
	@mkdir -p coverage
	$(GO) test -parallel 6 -timeout 30m -coverpkg ./... -coverprofile coverage/cover.out ./...
	$(GO) tool cover -html coverage/cover.out -o coverage/cover.html
	$(GO) tool cover -func coverage/cover.out | tail -1

.PHONY: clean
clean: ## Remove what was built and measured; bin/tools stays
	find bin -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} + 2>/dev/null || true
	rm -rf coverage

# The programs that the tests need, installed where that is allowed.
.PHONY: postgres postgres-cc postgres-cc-pgbouncer
postgres:
	@scripts/ensure-postgres.sh
postgres-cc:
	@scripts/ensure-postgres.sh --cc
postgres-cc-pgbouncer:
	@scripts/ensure-postgres.sh --cc --pgbouncer

# The linter is pinned in a module of its own, so that its dependencies are not ours. Built once: about two minutes.
$(GOLANGCI): tools/go.mod tools/go.sum
	@echo "build the linter pinned in tools/go.mod (about two minutes, once)"
	CGO_ENABLED=0 $(GO) -C tools build -trimpath -ldflags '-s -w' -o ../bin/tools/ tool
	@touch $@
