# Moat's development commands. `make help` lists them.

# No cgo: the binary runs on any base image, and one build cache serves the
# product, its tests and the cluster's components.
export CGO_ENABLED := 0

CLUSTER := hack/cluster.sh
TOOL := go tool -modfile=hack/tools/go.mod
MODULES := . hack test hack/tools $(wildcard hack/cluster/components/*)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The two commands

.PHONY: demo
demo: ## Build everything, start a cluster of three nodes, install Moat with Helm, show it at work
	@hack/run.sh demo

.PHONY: demo-down
demo-down: ## Remove the demo's cluster and all that belongs to it
	@$(CLUSTER) down

.PHONY: unit
unit: ## Run the tests that need neither root nor an API server nor installed programs
	@go test -short ./...
	@cd hack && go test -short ./...

.PHONY: test
test: ## Install what the tests need and run them all
	@hack/test.sh

.PHONY: conformance
conformance: ## Prove that every case of NetworkPolicy is enforced (QUICK=1: a sample)
	@hack/conformance.sh

.PHONY: chaos
chaos: ## Break what Moat depends on, and prove that no packet leaks or is lost, and no pod stays dark; then play all roads (QUICK=1: fewer faults, no roads)
	@hack/chaos.sh
	@test -n "$(QUICK)" || hack/roads.sh

.PHONY: roads
roads: ## Install, update and remove Moat on the local cluster in every way, with packets all the while (QUICK=1: fewer ways)
	@hack/roads.sh

.PHONY: bench
bench: ## Measure the agent on clusters of up to 10,000 pods; SCENARIO=100k: of 100,000
	@hack/bench.sh

.PHONY: bench-status
bench-status: ## Measure the operator and the status on 5,000 simulated nodes and 2,000 policies (SCENARIO=small: fewer)
	@hack/bench-status.sh

.PHONY: bench-docs
bench-docs: ## Put the figures of the last make bench and make bench-status, or of the one that was run, into docs/performance/results.md
	@test -e dist/bench/bench.json -o -e dist/bench-status/status.json || { echo "bench-docs: no figures: run make bench or make bench-status first" >&2; exit 1; }
	@cd test && test ! -e ../dist/bench/bench.json || go run ./bench/report -json ../dist/bench/bench.json -document ../docs/performance/results.md -picture ../docs/performance/growth.svg
	@cd test && test ! -e ../dist/bench-status/status.json || go run ./bench/report -status ../dist/bench-status/status.json -document ../docs/performance/results.md

##@ Development

.PHONY: build
build: ## Build bin/moat
	go build -o bin/moat ./cmd/moat

.PHONY: image
image: ## Build the image from the Dockerfile, with docker or buildah
	@hack/image/build.sh

.PHONY: generate
generate: ## Generate deepcopy, apply configurations, CRDs, roles and the API reference from the Go types and markers
	$(TOOL) controller-gen object paths=./apis/v1alpha1/...
	$(TOOL) controller-gen applyconfiguration paths=./apis/v1alpha1/...
	$(TOOL) controller-gen crd paths=./apis/v1alpha1/... output:crd:dir=config/crd/bases
	$(TOOL) controller-gen rbac:roleName=moat-operator,fileName=operator_role.yaml paths=./controllers/... output:rbac:dir=config/rbac
	$(TOOL) controller-gen rbac:roleName=moat-agent,fileName=agent_role.yaml paths=./dataplane/... output:rbac:dir=config/rbac
	charts/sync.sh
	hack/run.sh apireference

.PHONY: lint
lint: ## Run the linters
	@echo 'lint: the first run builds golangci-lint, which takes a few minutes'
	$(TOOL) golangci-lint run --allow-parallel-runners ./...
	cd hack && go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners ./...
	cd test && go tool -modfile=../hack/tools/go.mod golangci-lint run --allow-parallel-runners ./...

.PHONY: tidy
tidy: ## Tidy the go.mod of every module
	@for module in $(MODULES); do (cd $$module && go mod tidy) || exit 1; done

.PHONY: darwin
darwin: ## Check that the demo and the local cluster compile on macOS, where they say what to use instead
	cd hack && GOOS=darwin go vet ./...

.PHONY: verify
verify: tidy generate lint darwin ## Check that generated files, modules and code style are as committed
	@git diff --exit-code && test -z "$$(git status --porcelain)" || \
		{ git status --short; echo 'verify: these files differ from what is committed: commit them'; exit 1; }

.PHONY: tutorial
tutorial: ## Run every command of README and the tutorial on the demo's cluster, and compare what it prints
	@hack/run.sh demo README.md docs/tutorial.md

.PHONY: cluster-up
cluster-up: ## Start the local cluster without Moat
	@$(CLUSTER) up

FUZZTIME := 1m

.PHONY: fuzz
fuzz: ## Fuzz the compiler against the oracle, for FUZZTIME (1m)
	go test ./dataplane/compile -run '^$$' -fuzz FuzzCompileAgreesWithEvaluate -fuzztime $(FUZZTIME) -fuzzminimizetime 20x

.PHONY: fuzz-speed
fuzz-speed: ## Print how many flows a minute the fuzz test compares on one core
	GOMAXPROCS=1 go test ./dataplane/compile -run '^$$' -bench Agreement -benchtime 5s
