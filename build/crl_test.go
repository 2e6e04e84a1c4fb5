package build

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/config"
	"sallyport/internal/ca"
)

// A file of CRLs may be large: a reload that finds what it has read before does not
// take it apart again, and one that finds another lets the first go.
func TestReloadKeepsCRLs(t *testing.T) {
	dir, authority := t.TempDir(), ca.Test(t)
	anchors, err := authority.Write(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "list.crl")
	put := func(serial int64) (content [sha256.Size]byte) {
		t.Helper()
		list, err := authority.CRL(time.Now(), []*big.Int{big.NewInt(serial)}, nil)
		if err == nil {
			err = os.WriteFile(file, list, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(list)
	}
	var lasting *Lasting
	load := func() error {
		t.Helper()
		text := fmt.Sprintf("listeners: [{from: 'tcp://127.0.0.1:0', to: {addr: 'tls://127.0.0.1:1', name: a.test, ca: %s, crl: %s}}]", anchors, file)
		f, err := config.Parse("f.yaml", []byte(text), config.Options{Env: os.Getenv})
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(f, Options{Env: os.Getenv, Lasting: lasting})
		if err == nil {
			lasting = p.Lasting
			p.Close()
		}
		return err
	}
	first := put(1)
	if err := load(); err != nil {
		t.Fatal(err)
	}
	was := lasting.crls[first][0]
	if err := load(); err != nil || lasting.crls[first][0] != was {
		t.Errorf("read again: another one (%v)", err)
	}
	if err := os.WriteFile(file, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(); err == nil || lasting.crls[first][0] != was {
		t.Errorf("a reload that fails: %v", err)
	}
	second := put(2)
	if err := load(); err != nil || len(lasting.crls) != 1 || lasting.crls[second] == nil {
		t.Errorf("of another file there are %d, %v", len(lasting.crls), err)
	}
}
