package posture

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckEnv(t *testing.T) {
	one := func(s string) string { return "GODEBUG " + s + " in the environment lowers security: unset it" }
	for _, c := range []struct {
		env, want string
		warnings  []string
	}{
		{env: "HOME=/root"},
		{env: "GODEBUG="},
		{env: "GODEBUG=netdns=go,gctrace=1"},
		{env: "GODEBUG=rsa1024min=0", want: one("rsa1024min=0")},
		{env: "GODEBUG=rsa1024min=1"},
		{env: "GODEBUG=netdns=go,tlsrsakex=1", want: one("tlsrsakex=1")},
		{env: "GODEBUG=tls3des=1,tlssha1=1", want: "GODEBUG settings in the environment lower security: unset tls3des=1, tlssha1=1"},
		{env: "GODEBUG=tls3des=1,tls3des=0"},
		{env: "GODEBUG=tls3des=0,tls3des=1", want: one("tls3des=1")},
		{env: "GODEBUG=tls3des=1#0x1234", want: one("tls3des=1")},
		{env: "GODEBUG=tls3des=1,tls3des", want: one("tls3des=1")},
		{env: "GODEBUG=tlsmaxrsasize=16384", want: one("tlsmaxrsasize=16384")},
		{env: "GODEBUG=tlsmlkem=0", want: one("tlsmlkem=0")},
		{env: "GODEBUG=fips140=on"},
		{env: "godebug=tls3des=1"},
		{env: "HOME=/root\nGODEBUG=\nGODEBUG=http2debug=2", want: one("http2debug=2")},
		{env: "SSLKEYLOGFILE=/tmp/k", warnings: []string{"SSLKEYLOGFILE is ignored; unsafe.keylog writes the session keys of a route"}},
		{env: "SSLKEYLOGFILE="},
		{env: "SSL_CERT_DIR=/c\nSSL_CERT_FILE=/f", warnings: []string{
			`SSL_CERT_DIR in the environment replaces the system's trust anchors by those of "/c"`,
			`SSL_CERT_FILE in the environment replaces the system's trust anchors by those of "/f"`}},
		{env: "GOTRACEBACK=single"},
		{env: "GOTRACEBACK=crash", warnings: []string{"GOTRACEBACK=crash in the environment: a crash shows more of the process's memory than its goroutines"}},
	} {
		warnings, err := CheckEnv(strings.Split(c.env, "\n"))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want || !slices.Equal(warnings, c.warnings) {
			t.Errorf("%q: %q %q", c.env, got, warnings)
		}
	}
}

// harmless says why a key of GODEBUG that may touch security need not be refused.
var harmless = map[string]string{
	"dataindependenttiming": "only adds protection",
	"x509keypairleaf":       "memory against time",
	"x509sha256skid":        "key identifiers are names, not proofs",
	"x509usefallbackroots":  "acts only on fallback roots, and none are built in",
	"http2client":           "a protocol, not its safety",
	"http2server":           "a protocol, not its safety",
	"httpmuxgo121":          "patterns of handlers, of which we give none with wildcards",
	"urlstrictcolons":       "no decision rests on such a host",
	"multipathtcp":          "transport says itself what it uses",
	"netdns":                "which resolver, not whom to trust",
	"netedns0":              "size of answers",

	"httpservecontentkeepheaders": "only files served, of which there are none",
}

// A new version of Go with a new setting fails this test until it is decided on.
func TestEachSettingIsDecidedOn(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(goroot(t), "src/internal/godebugs/table.go"))
	if err != nil {
		t.Fatal(err)
	}
	entries := regexp.MustCompile(`\{Name: "(\w+)", Package: "([\w/]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(entries) < 30 {
		t.Fatalf("%d settings found in Go's table", len(entries))
	}
	for _, e := range entries {
		name, of := e[1], e[2]
		_, refused := debugSettings[name]
		if touches := strings.HasPrefix(of, "crypto/") || of == "crypto" || of == "net" || strings.HasPrefix(of, "net/"); !touches {
			continue
		}
		if _, ok := harmless[name]; ok == refused {
			t.Errorf("GODEBUG %s of %s: refused or harmless? (%v, %v)", name, of, refused, ok)
		}
	}
}

func goroot(t *testing.T) string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestHarden(t *testing.T) {
	for _, err := range Harden() {
		t.Error(err)
	}
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); d != 0 || err != nil {
		t.Errorf("dumpable %d %v", d, err)
	}
	var core, files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		t.Errorf("core %+v %v", core, err)
	}
	// What Harden counts on.
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Cur+1 < files.Max {
		t.Errorf("the runtime (%s) left the limit of descriptors at %+v (%v)", runtime.Version(), files, err)
	}
	// Our own files of /proc stay readable for us: the metrics need them.
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Error(err)
	}
}
