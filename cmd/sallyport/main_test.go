package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// TestMain lets this test binary be the program too, and the helper commands of
// the scripts: it looks at the name that it was called by. As an ordinary test
// binary it runs the tests and nothing else.
func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"sallyport": main,
		"mkca":      func() { helper(mkca) },
		"answerer":  func() { helper(answerer) },
	})
}

// tidy removes the program that the tests ran.
type tidy struct{ *testing.M }

func (t tidy) Run() int {
	defer testnet.RemoveBinary()
	flag.Parse()
	// They wait more than they compute, so that more of them than processors may run.
	if n := runtime.GOMAXPROCS(0); flag.Lookup("test.parallel").Value.String() == strconv.Itoa(n) {
		flag.Set("test.parallel", strconv.Itoa(2*n))
	}
	return t.M.Run()
}

func helper(f func(args []string) error) {
	if err := f(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", os.Args[0], err)
		os.Exit(1)
	}
}

// mkca fills a folder with certificates, each stem.pem with its stem.key: site
// (localhost), rsa (the same with RSA), client and other (client.example and
// other.example, for clients), expired, soon (five days left), next (not valid
// yet), stranger (of another CA). ca.pem has signed all but the last.
func mkca(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: mkca DIR")
	}
	dir, now := args[0], time.Now()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := ca.New(now)
	if err != nil {
		return err
	}
	foreign, err := ca.New(now)
	if err != nil {
		return err
	}
	if _, err := root.Write(dir, "ca"); err != nil {
		return err
	}
	if _, err := foreign.Write(dir, "stranger-ca"); err != nil {
		return err
	}
	for _, l := range []struct {
		stem  string
		by    *ca.CA
		names []string
		opts  []ca.Option
	}{
		{"site", root, []string{"localhost", "127.0.0.1"}, nil},
		{"rsa", root, []string{"localhost", "127.0.0.1"}, []ca.Option{ca.SharedRSA()}},
		{"client", root, []string{"client.example"}, nil},
		{"other", root, []string{"other.example"}, nil},
		{"expired", root, []string{"localhost"}, []ca.Option{ca.Expired()}},
		{"soon", root, []string{"localhost"}, []ca.Option{ca.Validity(5 * 24 * time.Hour)}},
		{"next", root, []string{"localhost"}, []ca.Option{ca.NotYet()}},
		{"stranger", foreign, []string{"client.example"}, nil},
	} {
		leaf, err := l.by.Leaf(l.names, l.opts...)
		if err != nil {
			return fmt.Errorf("%s: %w", l.stem, err)
		}
		if _, _, err := leaf.Write(dir, l.stem); err != nil {
			return err
		}
	}
	// A pair of other names, so that nothing is found beside the certificate.
	pem, err := os.ReadFile(filepath.Join(dir, "site.pem"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "lone.pem"), pem, 0o644)
}
