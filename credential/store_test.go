package credential_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport/credential"
	"sallyport/internal/ca"
)

const (
	p256   = tls.ECDSAWithP256AndSHA256
	p384   = tls.ECDSAWithP384AndSHA384
	pss    = tls.PSSWithSHA256
	pkcs1  = tls.PKCS1WithSHA256
	old    = tls.PKCS1WithSHA1
	oldEC  = tls.ECDSAWithSHA1
	ed     = tls.Ed25519
	nobody = ""
)

func TestPick(t *testing.T) {
	b := newBox(t)
	add := func(file string, names []string, opts ...ca.Option) string {
		b.pair(file+".pem", file+".key", names, append(opts, ca.CN(file))...)
		return file + ".pem"
	}
	list := []string{
		add("first", []string{"first.test"}),
		add("first-rsa", []string{"first.test"}, ca.SharedRSA()),
		add("a-ec", []string{"a.test", "A2.Test"}),
		add("a-384", []string{"a.test"}, ca.ECDSA(elliptic.P384())),
		add("a-rsa", []string{"a.test"}, ca.SharedRSA()),
		add("a-ed", []string{"a.test"}, ca.Ed25519()),
		add("wild", []string{"*.b.test"}),
		add("wild-rsa", []string{"*.b.test", "*.c.test"}, ca.SharedRSA()),
		add("x-ec", []string{"x.b.test"}),
		add("rsa-only", []string{"rsa.test"}, ca.SharedRSA()),
		add("p384-only", []string{"p384.test"}, ca.ECDSA(elliptic.P384())),
		add("short", []string{"age.test"}, ca.Validity(30*24*time.Hour)),
		add("long", []string{"age.test"}, ca.Validity(60*24*time.Hour)),
		add("dead-ec", []string{"dead.test"}, ca.Expired()),
		add("live-rsa", []string{"dead.test"}, ca.SharedRSA()),
		add("plain.test", nil),
	}
	s, _, err := b.load(list...)
	if err != nil {
		t.Fatal(err)
	}
	type schemes = []tls.SignatureScheme
	for _, c := range []struct {
		name    string
		schemes schemes
		want    string
	}{
		{"a.test", nil, "a-ec"},
		{"A.TEST.", nil, "a-ec"},
		{"a2.test", nil, "a-ec"},
		{"a.test", schemes{pss, p256, ed}, "a-ec"},
		{"a.test", schemes{pss, p384, ed}, "a-384"}, // P-256 would do before TLS 1.3 alone
		{"a.test", schemes{pss, ed}, "a-ed"},
		{"a.test", schemes{pss}, "a-rsa"},
		{"a.test", schemes{pkcs1}, "a-rsa"},
		{"a.test", schemes{old}, "a-rsa"},
		{"a.test", schemes{oldEC, old}, "a-ec"},
		{"x.b.test", nil, "x-ec"},
		{"x.b.test", schemes{pss}, "wild-rsa"},
		{"y.b.test", nil, "wild"},
		{"y.b.test", schemes{pss}, "wild-rsa"},
		{"y.c.test", schemes{p256, pss}, "wild-rsa"},
		{"y.x.b.test", nil, "first"},
		{"b.test", nil, "first"},
		{"rsa.test", schemes{p256}, nobody},
		{"p384.test", schemes{p256, pss}, "p384-only"}, // right before TLS 1.3, else refused there
		{"p384.test", schemes{pss}, nobody},
		{"age.test", nil, "long"},
		{"dead.test", nil, "live-rsa"},
		{"dead.test", schemes{p256}, "dead-ec"},
		{"plain.test", nil, "plain.test"},
		{"", nil, "first"},
		{"", schemes{pss}, "first-rsa"},
		{"unknown.test", schemes{pss}, "first-rsa"},
		{"unknown.test", schemes{ed}, nobody},
		{"unknown.test", schemes{}, nobody},
		{"*.b.test", nil, "wild"},
	} {
		got, err := s.Credential(t.Context(), &credential.Request{ServerName: c.name, Schemes: c.schemes})
		switch {
		case c.want == nobody && !errors.Is(err, credential.ErrNoCredential):
			t.Errorf("%s %v: %v, %v", c.name, c.schemes, got, err)
		case c.want != nobody && (err != nil || got.Chain[0].Subject.CommonName != c.want):
			t.Errorf("%s %v: %v, want %s", c.name, c.schemes, err, c.want)
		}
	}
	if first := s.NotAfter(); !first.Equal(now.Add(-3 * 24 * time.Hour)) {
		t.Error(first)
	}
	if first, again := pick(t, s, "a.test"), pick(t, s, "a.test"); first != again {
		t.Error("the same credential comes as another pointer")
	}
}

func TestIssuers(t *testing.T) {
	one, two, three := ca.TestAt(t, now).Intermediate(), ca.TestAt(t, now).Intermediate(), ca.TestAt(t, now)
	b := newBox(t)
	var list []string
	for i, c := range []*ca.Tester{one, two} {
		stem := fmt.Sprint("client", i)
		if _, _, err := c.Leaf([]string{stem + ".test"}, ca.CN(stem)).Write(b.dir, stem); err != nil {
			t.Fatal(err)
		}
		list = append(list, stem+".pem")
	}
	s := b.good(list...)
	for _, c := range []struct {
		what    string
		issuers [][]byte
		schemes []tls.SignatureScheme
		want    string
	}{
		{"none named", nil, nil, "client0"},
		{"the leaf's issuer", [][]byte{two.Cert.RawSubject}, nil, "client1"},
		{"the root above", [][]byte{three.Cert.RawSubject, two.Cert.RawIssuer}, nil, "client1"},
		{"both", [][]byte{one.Cert.RawSubject, two.Cert.RawSubject}, nil, "client0"},
		{"another's: the first anyway", [][]byte{three.Cert.RawSubject}, nil, "client0"},
		{"junk", [][]byte{nil, {1, 2}}, nil, "client0"},
		{"right issuer, wrong schemes", [][]byte{two.Cert.RawSubject}, []tls.SignatureScheme{pss}, nobody},
	} {
		got, err := s.Credential(t.Context(), &credential.Request{ServerName: "server.test", Issuers: c.issuers, Schemes: c.schemes})
		if (err != nil) != (c.want == nobody) || err == nil && got.Chain[0].Subject.CommonName != c.want {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

// many is a folder of n certificates that share a key, since keys are slow to make.
func many(tb testing.TB, n int) *credential.Store {
	root := ca.TestAt(tb, now)
	shared := root.Leaf([]string{"host-0.test"})
	text := string(shared.KeyPEM())
	env := map[string]string{"K": text}
	var certs []string
	for i := range n {
		k := fmt.Sprint("C", i)
		env[k] = string(root.Leaf([]string{fmt.Sprintf("host-%d.test", i)}, ca.Key(shared.Key)).CertPEM())
		certs = append(certs, "env:"+k)
	}
	s, _, err := credential.Load(credential.Options{Certs: certs, Keys: []string{"env:K"}, Now: now, Env: func(k string) string { return env[k] }})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestLookUpDoesNotAllocate(t *testing.T) {
	s := many(t, 100)
	r := &credential.Request{ServerName: "host-77.test", Schemes: []tls.SignatureScheme{pss, p256}}
	for _, name := range []string{"host-77.test", "a.unknown.test", ""} {
		r.ServerName = name
		if n := testing.AllocsPerRun(100, func() { s.Credential(context.Background(), r) }); n > 0 {
			t.Errorf("%q: %v allocations", name, n)
		}
	}
}

func BenchmarkLookUp(b *testing.B) {
	for _, n := range []int{10, 1000} {
		s := many(b, n)
		r := &credential.Request{ServerName: "host-7.test", Schemes: []tls.SignatureScheme{pss, p256}}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				s.Credential(context.Background(), r)
			}
		})
	}
}

// What crypto/tls asks of a key must not be lost on the way.
func TestKeysKeepWhatTheyCan(t *testing.T) {
	b := newBox(t)
	b.pair("a.pem", "a.key", []string{"a.test"}, ca.SharedRSA())
	if _, ok := pick(t, b.good("a.pem"), "a.test").Key.(crypto.Decrypter); !ok {
		t.Error("an RSA key does not decrypt any more")
	}
	b.pair("e.pem", "e.key", []string{"e.test"}, ca.Ed25519())
	c := pick(t, b.good("e.pem"), "e.test")
	if c.Chain[0].PublicKeyAlgorithm != x509.Ed25519 {
		t.Error(c.Chain[0].PublicKeyAlgorithm)
	}
}
