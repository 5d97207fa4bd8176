.PHONY: help test test-all lint race bench model

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

test: ## what needs no server but a local PostgreSQL
	go test ./...

test-all: ## everything, on servers
	go test work

lint: ## format, words, vet, staticcheck
	.ci/lint && go vet work && go tool staticcheck ./...

race: ## five processes compete for a job
	go run ./examples/race

bench: ## the benchmarks, each beside its floor
	cd tests && go test -run '^$$' -bench .

model: ## the model of the protocol, if spin is installed
	docs/model/check
