# Everything that people and CI run. `make` alone lists it.

GO        ?= go
FUZZTIME  ?= 1m
# Parts of the tests come into $XDG_CACHE_HOME/nines (~/.cache/nines).
TOOLS     := .cache/tools
SOURCES   := agent aggregator dashboards rules pkg e2e
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

build: ## build both programs into bin/
	@echo "building both programs (the first time takes a few minutes)"
	@$(GO) build -o bin/nines-aggregator ./aggregator
	@$(GO) build -o bin/nines-agent ./agent

run: build ## watch this very host; state in $NINES_STATE or .state; Ctrl-C stops
	@exec .ci/run-local.sh

test: ## all tests that need nothing but Go; with the race detector where a C compiler is found
	@if command -v "$$($(GO) env CC)" >/dev/null 2>&1; then \
		echo "testing with the race detector ($$($(GO) env CC) was found)"; \
		CGO_ENABLED=1 $(GO) test -race ./...; \
	else \
		echo "testing without the race detector: it needs a C compiler, and $$($(GO) env CC) was not found"; \
		$(GO) test ./...; \
	fi

e2e: ## both programs against real servers, which are built into a cache first
	@$(GO) run ./e2e/parts/get tests
	@$(GO) test -tags e2e -count=1 -v -parallel 6 -timeout 20m ./e2e

soak-ledger: ## kills, power cuts and full disks: the book is exact after 200 rounds of each (SOAK_ROUNDS, SOAK_SEED)
	@SOAK_ROUNDS=$${SOAK_ROUNDS:-200} $(GO) test -count=1 -v -timeout 2h ./e2e/soak

soak-logs: ## ten minutes of kills, rotations and every fault between a node's logs and Elasticsearch: no line is lost (SOAK_MINUTES, SOAK_LINES, SOAK_SEED)
	@$(GO) run ./e2e/parts/get tests
	@SOAK_MINUTES=$${SOAK_MINUTES:-10} $(GO) test -tags e2e -count=1 -v -parallel 1 -timeout 3h -run '^TestLogs(SurviveFaults|ThatOverrun)' ./e2e

soak-metrics: ## an hour without a receiver, with kills: both books are the same in the end (SOAK_METRICS_MINUTES)
	@$(GO) run ./e2e/parts/get tests
	@SOAK_METRICS_MINUTES=$${SOAK_METRICS_MINUTES:-60} $(GO) test -tags e2e -count=1 -v -timeout 3h -run '^TestOutageOfAReceiver' ./e2e

bench: ## ratios against peers, in one table
	@$(GO) run ./e2e/parts/get bench
	@$(GO) test -tags e2e -count=1 -v -timeout 40m ./e2e/bench

verify: $(TOOLS)/staticcheck ## formatting, vet, staticcheck, tidy, generated files, import rules, links
	@echo "verify: gofmt"; unformatted=$$(gofmt -l $(wildcard $(SOURCES))); \
		if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w them):"; echo "$$unformatted"; exit 1; fi
	@echo "verify: go vet"; $(GO) vet -tags e2e ./...
	@if command -v "$$($(GO) env CC)" >/dev/null 2>&1; then CGO_ENABLED=1 $(GO) vet ./agent/fluentbit/...; fi
	@echo "verify: staticcheck"; $(TOOLS)/staticcheck -tags e2e ./...
	@echo "verify: go mod tidy"; $(GO) mod tidy -diff && cd .ci/tools && $(GO) mod tidy -diff
	@echo "verify: import rules, layout, links"; $(GO) test -count=1 ./e2e/layout
	@echo "verify: generated files and goldens are current"; .ci/verify-generated.sh
	@echo "verify: all is well"

update: ## regenerate goldens and generated files
	@$(GO) generate ./...
	@packages=$$(grep -rlE 'flag\.Bool\("update"' --include='*_test.go' $(wildcard $(SOURCES)) | xargs -r -n 1 dirname | sort -u | sed 's,^,./,'); \
		if [ -n "$$packages" ]; then for p in $$packages; do $(GO) test -count=1 $$p -update || exit 1; done; fi

fuzz: ## fuzz every parser for FUZZTIME (1m) each
	@mkdir -p $(dir $(TOOLS))
	@grep -rE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' $(wildcard $(SOURCES)) | \
		sed -E 's,^(.*)/[^/]*_test\.go:func (Fuzz[A-Za-z0-9_]*)\(.*,./\1 \2,' | sort -u > $(TOOLS).fuzz; \
		test -s $(TOOLS).fuzz || { echo "no fuzz target was found"; exit 1; }; \
		while read -r package target; do \
			echo "fuzz: $$package $$target for $(FUZZTIME)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
		done < $(TOOLS).fuzz

clean: ## remove what was built here; caches and state stay
	@rm -rf bin .cache

$(TOOLS)/staticcheck: .ci/tools/go.mod .ci/tools/go.sum
	@mkdir -p $(TOOLS)
	@$(GO) build -C .ci/tools -o ../../$(TOOLS)/staticcheck honnef.co/go/tools/cmd/staticcheck

.PHONY: help build run test e2e soak-ledger soak-logs soak-metrics bench verify update fuzz clean
