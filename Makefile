# make demo shows what it does; make test is everything that has to pass.
GO ?= go
FUZZ_SECONDS ?= 30
SOAK ?= 30m

.PHONY: bench soak build demo test check deps fuzz loss docs

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/sallyport ./cmd/sallyport

demo: build
	bin/sallyport demo

# The tests come last, so that their summary does.
test: deps check fuzz
	$(GO) test -race -timeout 15m ./...

check:
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w on these files' >&2; exit 1; }
	$(GO) vet ./...

deps:
	@scripts/deps

# What a proxy costs, beside others: make bench, make bench ROWS=handshake.
bench: build
	@scripts/deps bench
	$(GO) run ./bench -rows '$(ROWS)' $(if $(ROWS),,-o doc/benchmarks.md)

# All kinds of work at once for half an hour, and nothing may be left of it: make soak SOAK=3m.
soak: build
	$(GO) run ./bench soak -for $(SOAK)

# Handshakes through a bad network, 50 of each stack under each sky: make loss.
loss: build
	SALLYPORT_LOSS=full $(GO) test -count=1 -v -run '^TestHandshakesUnderLoss$$' ./cmd/sallyport

fuzz:
	@scripts/fuzz $(FUZZ_SECONDS)

# The pages of the manual are checked in; a test says when they are stale.
docs:
	cd tools && $(GO) run ./man ../doc/sallyport.1.md ../doc/sallyport.yaml.5.md
