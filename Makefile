# make demo shows what it does; make test is everything that has to pass.
GO ?= go
FUZZ_SECONDS ?= 30
SOAK ?= 10m

.PHONY: release reproducible deb sbom vuln static kill bench soak build demo test check deps fuzz loss faults docs

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/sallyport ./cmd/sallyport

# What is released: the same source gives the same bytes, wherever it lies (make reproducible).
RELEASE = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='-buildid= -s -w -X main.version=$(VERSION)'
VERSION ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null || echo v0.0.0+git$$(git rev-list --count HEAD).$$(git rev-parse --short HEAD))
OUT ?= bin/release/sallyport

release:
	$(RELEASE) -o $(OUT) ./cmd/sallyport

reproducible:
	scripts/reproducible make -s release VERSION='$(VERSION)'

# A package for Debian, with nothing but dpkg-deb.
deb: release
	scripts/deb $(OUT) $(patsubst v%,%,$(VERSION)) bin

sbom: release
	cd tools && $(GO) run ./sbom $(abspath $(OUT)) $(abspath $(OUT)).cdx.json

# Where a database is at hand: make vuln VULNDB=file:///path, or by network without.
vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.6.0 $(if $(VULNDB),-db $(VULNDB)) ./...

# What linters find in the source; gosec's in what is shipped. Not asked of it are errors of closing (G104), conversions,
# which Go defines (G115), paths, which are the operator's (G304), and imports, since uses are (G501, G505). What it is told
# to let pass has `#nosec` and the reason.
static:
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(GO) run github.com/securego/gosec/v2/cmd/gosec@v2.30.0 -quiet -exclude=G104,G115,G304,G501,G505 -exclude-dir=bench -exclude-dir=internal -exclude-dir=tools ./...

# Killed and started again a hundred times, each ready within half a second.
kill: release
	SALLYPORT_TEST_BIN=$(abspath $(OUT)) SALLYPORT_KILL=full $(GO) test -count=1 -v -run '^TestFaultKilledAndStarted$$' ./cmd/sallyport

# The faults of doc/faults.md, as long and as many as it says.
faults: release
	SALLYPORT_TEST_BIN=$(abspath $(OUT)) SALLYPORT_FAULTS=full $(GO) test -count=1 -v -timeout 30m -run '^TestFault' ./cmd/sallyport

demo: build
	bin/sallyport demo

# The tests come last, so that their summary does.
test: deps check fuzz
	scripts/test -race -timeout 18m ./...

check:
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w on these files' >&2; exit 1; }
	$(GO) vet ./...

deps:
	@scripts/deps

# What a proxy costs, beside others: make bench, make bench ROWS=handshake.
bench: build
	@scripts/deps bench
	$(GO) run ./bench -rows '$(ROWS)' $(if $(ROWS),,-o doc/benchmarks.md)

# All kinds of work at once with faults at random for ten minutes, and nothing may be left of it: make soak SOAK=4h.
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
