package credential_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/credential"
	"sallyport/internal/ca"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// box is a folder with the test's files and a CA for them.
type box struct {
	*testing.T
	*ca.Tester
	dir string
}

func newBox(t *testing.T) *box { return &box{t, ca.TestAt(t, now).Intermediate(), t.TempDir()} }

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) write(name string, mode os.FileMode, parts ...[]byte) string {
	b.T.Helper()
	p := b.path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		b.T.Fatal(err)
	}
	if err := os.WriteFile(p, bytes.Join(parts, nil), 0o600); err != nil {
		b.T.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil { // whatever the umask
		b.T.Fatal(err)
	}
	return p
}

// pair writes a leaf as cert and key.
func (b *box) pair(cert, key string, names []string, opts ...ca.Option) *ca.Leaf {
	b.T.Helper()
	l := b.Tester.Leaf(names, opts...)
	b.write(cert, 0o644, l.CertPEM())
	b.write(key, 0o600, l.KeyPEM())
	return l
}

func (b *box) load(certs ...string) (*credential.Store, []string, error) {
	return b.loadKeys(nil, certs...)
}

func (b *box) loadKeys(keys []string, certs ...string) (*credential.Store, []string, error) {
	return credential.Load(credential.Options{Certs: b.paths(certs), Keys: b.paths(keys), Now: now, Env: func(string) string { return "" }})
}

func (b *box) paths(names []string) []string {
	var out []string
	for _, n := range names {
		if !filepath.IsAbs(n) {
			n = b.path(n)
		}
		out = append(out, n)
	}
	return out
}

// good loads and wants no word said.
func (b *box) good(certs ...string) *credential.Store {
	b.T.Helper()
	s, warnings, err := b.load(certs...)
	if err != nil || len(warnings) > 0 {
		b.T.Fatalf("%v, warnings %q", err, warnings)
	}
	return s
}

// bad loads and wants an error with all of parts.
func (b *box) bad(err error, parts ...string) {
	b.T.Helper()
	if err == nil {
		b.T.Errorf("no error, want one with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			b.T.Errorf("%q lacks %q", err, p)
		}
	}
}

func pick(t *testing.T, s credential.Source, name string, schemes ...tls.SignatureScheme) *credential.Credential {
	t.Helper()
	c, err := s.Credential(t.Context(), &credential.Request{ServerName: name, Schemes: schemes})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKeyIsFoundByPublicKey(t *testing.T) {
	for _, c := range []struct{ cert, key string }{
		{"site.pem", "site.key"}, {"site.crt", "site.key"}, {"site.crt", "site.pem"}, {"site.pem", "site-key.pem"}, {"site.pem", "site.key.pem"},
		{"fullchain.pem", "privkey.pem"}, {"cert.pem", "privkey.pem"}, {"cert.pem", "key.pem"}, {"tls.crt", "tls.key"}, {"a.example", "a.key"},
	} {
		t.Run(c.cert+" "+c.key, func(t *testing.T) {
			b := newBox(t)
			l := b.pair(c.cert, c.key, []string{"a.test"})
			got := pick(t, b.good(c.cert), "a.test")
			if !got.Chain[0].Equal(l.Cert) || len(got.Chain) != 2 || !got.Key.Public().(*ecdsa.PublicKey).Equal(l.Key.Public()) {
				t.Error("another certificate or key")
			}
		})
	}
	t.Run("in the same file", func(t *testing.T) {
		b := newBox(t)
		l := b.Tester.Leaf([]string{"a.test"})
		b.write("after.pem", 0o600, l.CertPEM(), l.KeyPEM())
		b.write("before.pem", 0o600, l.KeyPEM(), l.CertPEM())
		b.good("after.pem")
		b.good("before.pem")
	})
	t.Run("in key, in any order", func(t *testing.T) {
		b := newBox(t)
		b.pair("one.pem", "k/1", []string{"one.test"})
		b.pair("two.pem", "k/2", []string{"two.test"})
		s, warnings, err := b.loadKeys([]string{"k/2", "k/1"}, "one.pem", "two.pem")
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		if names := s.Names(); !slices.Equal(names, []string{"one.test", "two.test"}) {
			t.Error(names)
		}
	})
	t.Run("one key for two certificates", func(t *testing.T) {
		b := newBox(t)
		l := b.pair("one.pem", "shared", []string{"one.test"})
		b.write("two.pem", 0o644, b.Tester.Leaf([]string{"two.test"}, ca.Key(l.Key)).CertPEM())
		if _, warnings, err := b.loadKeys([]string{"shared"}, "one.pem", "two.pem"); err != nil || len(warnings) > 0 {
			t.Error(err, warnings)
		}
	})
}

func TestKeyForms(t *testing.T) {
	b := newBox(t)
	ec := b.Tester.Leaf([]string{"ec.test"})
	sec1, err := x509.MarshalECPrivateKey(ec.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	r := b.Tester.Leaf([]string{"rsa.test"}, ca.SharedRSA())
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	b.write("ec.pem", 0o644, ec.CertPEM())
	b.write("ec.key", 0o600, block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), block("EC PRIVATE KEY", sec1))
	b.write("rsa.pem", 0o644, r.CertPEM())
	b.write("rsa.key", 0o600, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r.Key.(*rsa.PrivateKey))))
	b.pair("ed.pem", "ed.key", []string{"ed.test"}, ca.Ed25519())
	b.good("ec.pem", "rsa.pem", "ed.pem")

	for kind, part := range map[string]string{
		"ENCRYPTED PRIVATE KEY": "openssl pkey", "OPENSSH PRIVATE KEY": "ssh-keygen", "DSA PRIVATE KEY": "not taken", "PRIVATE KEY": "cannot be read",
	} {
		b.write("ec.key", 0o600, block(kind, []byte{0x30, 0}))
		_, _, err := b.load("ec.pem")
		b.bad(err, "ec.key", part)
	}
	old := &pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte{1}}
	_, _, err = b.loadKeys([]string{b.write("old.key", 0o600, pem.EncodeToMemory(old))}, "ec.pem")
	b.bad(err, "encrypted", "openssl pkey")
}

func TestBadInput(t *testing.T) {
	b := newBox(t)
	one := b.pair("one.pem", "one.key", []string{"one.test"})
	two := b.Tester.Leaf([]string{"two.test"})
	b.write("lone.pem", 0o644, two.CertPEM())
	b.write("mixed.pem", 0o600, two.CertPEM(), one.KeyPEM())
	b.write("beside.pem", 0o644, two.CertPEM())
	b.write("beside.key", 0o600, one.KeyPEM())
	b.write("der.crt", 0o644, one.Cert.Raw)
	b.write("site.p12", 0o600, []byte{0x30, 0x82, 1, 1})
	b.write("text.pem", 0o644, []byte("hello"))
	b.write("empty.pem", 0o644)
	b.write("cut.pem", 0o644, one.CertPEM()[:400])
	b.write("junk.pem", 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")}))
	b.write("large.pem", 0o644, make([]byte, 5<<20))
	b.write("none/readme.txt", 0o644, []byte("x"))
	for _, c := range []struct {
		keys  []string
		cert  string
		parts []string
	}{
		{nil, "lone.pem", []string{"no key", `"two.test"`, "lone.key (not there)", "`key`"}},
		{nil, "mixed.pem", []string{"not that of its certificate", "openssl x509 -in", "openssl pkey -in"}},
		{nil, "beside.pem", []string{"beside.key is not the key of", "openssl pkey -in"}},
		{[]string{"one.key"}, "lone.pem", []string{"one.key is not the key of", `"two.test"`}},
		{nil, "one.key", []string{"wrong way round"}},
		{[]string{"one.pem"}, "one.pem", []string{"key:", "wrong way round"}},
		{nil, "der.crt", []string{"DER", "openssl x509 -inform der"}},
		{nil, "site.p12", []string{"PKCS #12", "openssl pkcs12"}},
		{nil, "text.pem", []string{"neither a certificate nor a key"}},
		{nil, "empty.pem", []string{"is empty"}},
		{nil, "cut.pem", []string{"cut off"}},
		{nil, "junk.pem", []string{"certificate 1 cannot be read"}},
		{nil, "large.pem", []string{"larger than 4 MiB"}},
		{nil, "absent.pem", []string{"absent.pem", "no such file"}},
		{nil, "none", []string{"no certificate in this folder"}},
		{[]string{"none"}, "one.pem", []string{"is a folder"}},
	} {
		_, _, err := b.loadKeys(c.keys, c.cert)
		b.bad(err, c.parts...)
	}
	other := b.write("other.key", 0o600, two.KeyPEM())
	_, warnings, err := b.loadKeys([]string{other}, "one.pem")
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "fits none") {
		t.Error(err, warnings)
	}
}

func TestChainOrder(t *testing.T) {
	b := newBox(t)
	root := ca.TestAt(t, now)
	sub := root.Intermediate().Intermediate()
	l := sub.Leaf([]string{"a.test"})
	chain := sub.Chain(l)
	text := func(certs ...*x509.Certificate) []byte {
		var out []byte
		for _, c := range certs {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		return out
	}
	b.write("a.key", 0o600, l.KeyPEM())
	for _, c := range []struct {
		what     string
		certs    []*x509.Certificate
		want     []*x509.Certificate
		warnings int
	}{
		{"right", chain, chain, 0},
		{"with the root", append(slices.Clone(chain), root.Cert), append(slices.Clone(chain), root.Cert), 0},
		{"reversed", []*x509.Certificate{chain[2], chain[1], chain[0]}, chain, 1},
		{"intermediates reversed", []*x509.Certificate{chain[0], chain[2], chain[1]}, chain, 0},
		{"twice", append(slices.Clone(chain), chain...), chain, 0},
		{"another site's", append(slices.Clone(chain), b.Tester.Leaf([]string{"b.test"}).Cert), chain, 1},
	} {
		b.write("a.pem", 0o644, text(c.certs...))
		s, warnings, err := b.load("a.pem")
		if err != nil || len(warnings) != c.warnings {
			t.Errorf("%s: %v, %q", c.what, err, warnings)
			continue
		}
		if got := pick(t, s, "a.test").Chain; !slices.EqualFunc(got, c.want, (*x509.Certificate).Equal) {
			t.Errorf("%s: sends %d certificates, want %d", c.what, len(got), len(c.want))
		}
	}
}

func TestFolder(t *testing.T) {
	b := newBox(t)
	b.pair("live/a.crt", "live/a.key", []string{"a.test"})
	b.pair("live/b.pem", "live/b-key.pem", []string{"b.test"})
	b.pair("live/sub/c.pem", "live/sub/c.key", []string{"c.test"})
	b.pair("live/.hidden.pem", "live/.hidden.key", []string{"hidden.test"})
	ca := ca.TestAt(t, now)
	b.write("live/0-ca.pem", 0o644, ca.CertPEM()) // first by name, and not to be served
	b.write("live/README", 0o644, []byte("text"))
	if names := b.good("live").Names(); !slices.Equal(names, []string{"a.test", "b.test"}) {
		t.Error(names)
	}

	t.Run("certbot", func(t *testing.T) {
		b := newBox(t)
		l := b.Tester.Leaf([]string{"a.test"})
		chain := l.CertPEM()
		first := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Cert.Raw})
		for name, p := range map[string][]byte{"cert1": first, "chain1": chain[len(first):], "fullchain1": chain, "privkey1": l.KeyPEM()} {
			b.write("archive/"+name+".pem", 0o600, p)
			link := strings.TrimSuffix(name, "1") + ".pem"
			if err := os.MkdirAll(b.path("live"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../archive/"+name+".pem", b.path("live/"+link)); err != nil {
				t.Fatal(err)
			}
		}
		s := b.good("live")
		if got := pick(t, s, "a.test").Chain; len(s.Credentials()) != 1 || len(got) != 2 {
			t.Errorf("%d credentials, chain of %d", len(s.Credentials()), len(got))
		}
		if got := pick(t, b.good("live/fullchain.pem"), "a.test").Chain; len(got) != 2 {
			t.Errorf("chain of %d", len(got))
		}
	})
	t.Run("a Secret volume", func(t *testing.T) {
		b := newBox(t)
		b.pair("v/..2026_06/tls.crt", "v/..2026_06/tls.key", []string{"a.test"})
		for _, l := range [][2]string{{"..2026_06", "v/..data"}, {"..data/tls.crt", "v/tls.crt"}, {"..data/tls.key", "v/tls.key"}} {
			if err := os.Symlink(l[0], b.path(l[1])); err != nil {
				t.Fatal(err)
			}
		}
		b.good("v")
		b.good("v/tls.crt")
		if err := os.Chmod(b.path("v/..2026_06/tls.key"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, _, err := b.load("v")
		b.bad(err, "chmod 600", "defaultMode: 0400", "tls.key")
	})
	t.Run("one certificate without a key", func(t *testing.T) {
		b := newBox(t)
		b.pair("live/a.crt", "live/a.key", []string{"a.test"})
		b.write("live/b.crt", 0o644, b.Tester.Leaf([]string{"b.test"}).CertPEM())
		_, _, err := b.load("live")
		b.bad(err, "b.crt", "no key", `"b.test"`)
	})
	t.Run("a CA with its key", func(t *testing.T) {
		b := newBox(t)
		root := ca
		b.pair("live/site.pem", "live/site.key", []string{"a.test"})
		key, err := x509.MarshalPKCS8PrivateKey(root.Key)
		if err != nil {
			t.Fatal(err)
		}
		b.write("live/ca.pem", 0o644, root.CertPEM())
		b.write("live/ca.key", 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
		if names := b.good("live").Names(); !slices.Equal(names, []string{"a.test"}) {
			t.Error(names)
		}
	})
}

func TestAge(t *testing.T) {
	b := newBox(t)
	days := func(d int) ca.Option { return ca.Validity(time.Duration(d)*24*time.Hour + time.Hour) }
	for part, opt := range map[string]ca.Option{
		"expired 3 days ago": ca.Expired(), "expires in 13 days": days(13), "not valid before": ca.NotYet(), "": days(14),
	} {
		b.pair("a.pem", "a.key", []string{"a.test"}, opt)
		s, warnings, err := b.load("a.pem")
		if err != nil || s == nil {
			t.Errorf("%q does not start: %v", part, err)
		} else if all := strings.Join(warnings, "\n"); !strings.Contains(all, part) || (part == "") != (all == "") {
			t.Errorf("%q: %q", part, warnings)
		}
	}
	b.pair("a.pem", "a.key", []string{"a.test"}, ca.RSA(1024))
	if _, warnings, err := b.load("a.pem"); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "1024 bits") {
		t.Error(err, warnings)
	}
}

func TestKeyMode(t *testing.T) {
	b := newBox(t)
	b.pair("a.pem", "a.key", []string{"a.test"})
	chmod := func(name string, mode os.FileMode) {
		if err := os.Chmod(b.path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []os.FileMode{0o400, 0o600, 0o640, 0o440} { // the group is our own
		chmod("a.key", mode)
		b.good("a.pem")
	}
	for _, mode := range []os.FileMode{0o644, 0o604, 0o444} {
		chmod("a.key", mode)
		_, _, err := b.load("a.pem")
		b.bad(err, "chmod 600", "a.key", "unsafe.key_mode")
		s, warnings, err := credential.Load(credential.Options{Certs: []string{b.path("a.pem")}, Now: now, AllowKeyMode: true})
		if err != nil || s == nil || len(warnings) != 1 || !strings.Contains(warnings[0], "unsafe.key_mode") {
			t.Error(err, warnings)
		}
	}
	t.Run("a link is judged by its target", func(t *testing.T) {
		if err := os.Rename(b.path("a.key"), b.path("target")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("target", b.path("a.key")); err != nil { // lrwxrwxrwx
			t.Fatal(err)
		}
		chmod("target", 0o600)
		b.good("a.pem")
		chmod("target", 0o644)
		_, _, err := b.load("a.pem")
		b.bad(err, "chmod 600")
	})
	t.Run("a certificate with its key", func(t *testing.T) {
		l := b.Tester.Leaf([]string{"a.test"})
		b.write("both.pem", 0o644, l.CertPEM(), l.KeyPEM())
		_, _, err := b.load("both.pem")
		b.bad(err, "chmod 600", "both.pem")
	})
	t.Run("a group of others", func(t *testing.T) {
		// Only root can give a file to a group that is not its own.
		if os.Geteuid() != 0 && os.Getenv("CI") == "" {
			t.Skip("giving files away takes root; .ci/run fails where it is not")
		}
		b.pair("b.pem", "b.key", []string{"b.test"})
		chmod("b.key", 0o640)
		const nobodys = 54321
		if err := os.Chown(b.path("b.key"), 0, nobodys); err != nil {
			t.Fatal(err)
		}
		_, warnings, err := b.load("b.pem")
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], fmt.Sprint(nobodys)) {
			t.Error(err, warnings)
		}
	})
}

// root reads everything, so this one is tried by somebody else.
func TestUnreadable(t *testing.T) {
	if dir := os.Getenv("SALLYPORT_TEST_UNREADABLE"); dir != "" {
		_, _, err := credential.Load(credential.Options{Certs: []string{filepath.Join(dir, "a.pem")}, Now: now})
		fmt.Println("error:", err)
		return
	}
	b := newBox(t)
	b.pair("a.pem", "a.key", []string{"a.test"})
	exe := b.path("child")
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	b.write("child", 0o755, data)
	for dir := b.dir; strings.Contains(dir, "Test"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, "-test.run=^TestUnreadable$")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "SALLYPORT_TEST_UNREADABLE="+b.dir)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	} else if err := os.Chmod(b.path("a.key"), 0); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.bad(errors.New(string(out)), "a.key", "permission denied", "sallyport runs as")
}

func TestRead(t *testing.T) {
	b := newBox(t)
	l := b.Tester.Leaf([]string{"a.test"})
	b.write("creds/site", 0o644, l.CertPEM(), l.KeyPEM())
	env := map[string]string{"SITE": string(l.CertPEM()) + string(l.KeyPEM()), "CREDENTIALS_DIRECTORY": b.path("creds")}
	getenv := func(k string) string { return env[k] }
	for _, where := range []string{"env:SITE", "cred:site"} { // neither has a mode to judge
		s, warnings, err := credential.Load(credential.Options{Certs: []string{where}, Now: now, Env: getenv})
		if err != nil || len(warnings) > 0 || pick(t, s, "a.test") == nil {
			t.Error(where, err, warnings)
		}
	}
	for where, part := range map[string]string{
		"env:NONE": "not set", "cred:none": "no such file", "cred:../site": "no path", "cred:": "no path", "cred:..": "no path", b.dir: "folder",
	} {
		_, _, err := credential.Read(where, getenv)
		b.bad(err, part)
	}
	_, _, err := credential.Read("cred:x", func(string) string { return "" })
	b.bad(err, "LoadCredential=x:")
	if _, info, err := credential.Read(b.path("creds/site"), getenv); err != nil || info == nil {
		t.Error(info, err)
	}
	b.write("creds/large", 0o644, make([]byte, 4<<20+1))
	for _, where := range []string{"cred:large", b.path("creds/large"), "/dev/zero"} {
		_, _, err := credential.Read(where, getenv)
		b.bad(err, "is larger than 4 MiB")
	}
	if data, _, err := credential.ReadUpTo(5<<20, "cred:large", getenv); err != nil || len(data) != 4<<20+1 {
		t.Error(len(data), err)
	}
}

func TestStatic(t *testing.T) {
	c := &credential.Credential{}
	if got, err := credential.Static(c).Credential(context.Background(), &credential.Request{}); got != c || err != nil {
		t.Error(got, err)
	}
	if _, err := credential.Static(nil).Credential(context.Background(), &credential.Request{}); !errors.Is(err, credential.ErrNoCredential) {
		t.Error(err)
	}
}

// Whatever the file holds, it is an error or a credential whose key fits.
func FuzzLoad(f *testing.F) {
	c := ca.TestAt(f, now)
	l := c.Leaf([]string{"a.test"})
	f.Add(string(l.CertPEM()) + string(l.KeyPEM()))
	f.Add(string(l.KeyPEM()) + "text\n" + string(l.CertPEM()) + string(c.CertPEM()))
	f.Add("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, _, err := credential.Load(credential.Options{Certs: []string{"env:X"}, Now: now, Env: func(string) string { return text }})
		if (s == nil) == (err == nil) {
			t.Fatal(s, err)
		}
		if err != nil {
			return
		}
		got, err := s.Credential(t.Context(), &credential.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if k, ok := got.Key.Public().(interface{ Equal(any) bool }); ok && !k.Equal(got.Chain[0].PublicKey) {
			t.Error("key and certificate differ")
		}
	})
}
