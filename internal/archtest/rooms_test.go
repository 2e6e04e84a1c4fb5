package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rooms says for each package which of ours it may import, as ARCHITECTURE does
// (doc/architecture.md). A room that is listed need not stand yet; one that
// stands must be listed. * is everything.
const rooms = `
wire
name
wait
flow               wire
lease
record             flow wire lease
transport          flow wire lease
upstream           flow transport
preamble           flow wire
revoke
dane
ct
rule               name
verify             name rule ct dane revoke
credential         revoke verify wait
spiffe             credential verify
secure             flow lease wire record credential verify name
route              flow name wire rule
filter             flow
mirror             flow
observe            flow wire
proxy              flow wire lease
config             name rule wait
posture
admin              observe config
build              wire name rule flow transport upstream preamble revoke dane ct verify credential spiffe secure route filter mirror observe proxy config
tool/*             *
cmd/sallyport      *
bench
internal/ca
internal/testca
internal/testdns
internal/testnet
internal/archtest
`

// testOnly are rooms for tests: what they make is too weak or too trusting for
// anything else. tool/demo makes its throw-away CA by one of them. bench drives the
// built program from outside, beside others, and is no part of it.
var testOnly = map[string][]string{
	"bench":             nil,
	"internal/ca":       {"tool/demo"},
	"internal/testca":   nil,
	"internal/testdns":  nil,
	"internal/testnet":  nil,
	"internal/archtest": nil,
}

// owners says which rooms may import a foreign module. One owner keeps a change
// of the module's API, or of the module, in one place; nobody is "tests only".
var owners = map[string][]string{
	"github.com/goccy/go-yaml":         {"config"},
	"github.com/miekg/dns":             {"dane"},
	"github.com/spf13/pflag":           {"config", "cmd/sallyport"},
	"github.com/expr-lang/expr":        {"rule"},
	"github.com/spiffe/go-spiffe/v2":   {"spiffe"},
	"google.golang.org/grpc":           nil, // a SPIFFE agent of the tests
	"github.com/spf13/cobra":           {"cmd/sallyport"},
	"github.com/coreos/go-systemd/v22": {"transport", "cmd/sallyport"},
	"golang.org/x/sys":                 {"transport", "posture", "proxy", "bench"},
	"golang.org/x/crypto":              {"wire", "record", "secure", "ct", "revoke"},
	"golang.org/x/net":                 {"name", "transport"}, // idna, publicsuffix; reads in batches
	"golang.org/x/sync":                {"upstream"},          // singleflight
	"github.com/pires/go-proxyproto":   {"preamble"},
	"github.com/pion/dtls/v3":          {"secure", "bench"},
	"github.com/pion/logging":          {"secure"}, // which pion/dtls asks for one of
	"github.com/Netflix/bettertls":     nil,
	"github.com/rogpeppe/go-internal":  nil,
	"go.uber.org/goleak":               nil,

	// What is seen of the process.
	"github.com/prometheus/client_golang": {"observe"},
	"charm.land/bubbletea/v2":             {"tool/top"},

	// What confines the process.
	"github.com/landlock-lsm/go-landlock":       {"posture"},
	"github.com/elastic/go-seccomp-bpf":         {"posture"},
	"kernel.org/pub/linux/libs/security/libcap": {"posture"},
}

// banned are packages of the standard library that no room imports.
var banned = map[string]string{
	"math/rand":    "its numbers can be guessed; crypto/rand has some for everybody",
	"math/rand/v2": "its numbers can be guessed; crypto/rand has some for everybody",
	"log":          "log/slog escapes what strangers say; log does not",
}

const module = "sallyport"

// Package is what go list says of one.
type Package struct {
	ImportPath, Dir, Doc, Name         string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
}

func (p *Package) room() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func packages(t *testing.T) []*Package {
	t.Helper()
	// -e: what does not build is another test's concern.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Doc,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []*Package
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(Package)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// plan gives what a room may import; ok is false where the room is not in the plan.
func plan(room string) (may []string, ok bool) {
	for line := range strings.Lines(strings.TrimSpace(rooms)) {
		words := strings.Fields(line)
		if parent, sub := strings.CutSuffix(words[0], "/*"); words[0] == room || sub && strings.HasPrefix(room, parent+"/") {
			return words[1:], true
		}
	}
	return nil, false
}

func TestRoomsImportWhatThePlanSays(t *testing.T) {
	for _, p := range packages(t) {
		room := p.room()
		may, ok := plan(room)
		if room == "" {
			// doc.go at the root, which says that the packages promise no API.
			ok = true
		}
		if !ok {
			t.Errorf("%s: no such room in the plan", room)
			continue
		}
		for _, imp := range p.Imports {
			ours, is := strings.CutPrefix(imp, module+"/")
			if !is {
				continue
			}
			if users, only := testOnly[ours]; only {
				if !slices.Contains(users, room) && !testOnlyRoom(room) {
					t.Errorf("%s imports %s, which is for tests", room, ours)
				}
				continue
			}
			if !slices.Contains(may, ours) && !slices.Contains(may, "*") {
				t.Errorf("%s must not import %s; it may: %v", room, ours, may)
			}
		}
	}
}

func TestForeignModulesHaveOwners(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if why, no := banned[imp]; no {
				t.Errorf("%s imports %s: %s", p.room(), imp, why)
			}
			if mod := foreign(imp); mod != "" && !slices.Contains(owners[mod], p.room()) {
				t.Errorf("%s imports %s, which belongs to %v", p.room(), imp, owners[mod])
			}
		}
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if mod := foreign(imp); mod != "" {
				if _, known := owners[mod]; !known {
					t.Errorf("%s imports %s, which has no owner; see the owners in this test", p.room(), imp)
				}
			}
		}
	}
}

// foreign gives the module of a package that is neither ours nor the standard
// library's, or the package itself where no owner lists its module.
func foreign(imp string) string {
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return ""
	}
	for mod := range owners {
		if imp == mod || strings.HasPrefix(imp, mod+"/") {
			return mod
		}
	}
	return imp
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no doc comment", p.ImportPath)
		}
		// Shelves for whatever fits nowhere; nothing ever leaves them.
		if slices.Contains([]string{"util", "utils", "common", "misc", "helpers"}, p.Name) {
			t.Errorf("%s: a package is named for what it is", p.ImportPath)
		}
	}
}
