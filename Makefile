# What CI runs, by name. `make` alone lists the targets.

TOOL := go tool -modfile=tools/go.mod

.PHONY: help build test race lint fmt chaos mutants bench ci vuln

help:
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST)

build: ## build everything, and bin/postroad as it runs in production
	go build ./...
	go build -tags slim -trimpath -o bin/postroad ./cmd/postroad

test: ## run the tests
	go test ./...

race: ## run the tests that do not link the Temporal server with the race detector
	go test -race -timeout 30m $$(.ci/race-packages)

lint: ## check format, imports, mistakes, determinism of workflows, module files
	go vet ./...
	$(TOOL) golangci-lint run ./...
	$(TOOL) workflowcheck ./workflows/...
	go mod tidy -diff
	cd tools && go mod tidy -diff

fmt: ## format the code
	$(TOOL) golangci-lint fmt ./...

chaos: ## kill things while they work, at the periods of production
	go test -tags chaos -run Chaos -count 1 -parallel 6 -timeout 40m ./...

mutants: ## take out one rule after the other: a test of it must fail
	go test -tags mutants -run TestMutants -count 1 -parallel 3 -timeout 60m -v ./internal/mutants

bench: ## measure against the floor of this machine
	go run ./cmd/postroad bench

ci: ## all that CI does, on a machine that has everything installed
	.ci/run

# Not part of CI: it asks vuln.go.dev, which CI cannot reach, and is no pinned
# tool, because not every module proxy serves what it is built from.
vuln: ## look for known vulnerabilities (needs the internet)
	go run golang.org/x/vuln/cmd/govulncheck@latest ./...
