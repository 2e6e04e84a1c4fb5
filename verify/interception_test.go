package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/verify"
)

var (
	now   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	good  = []string{"good.test"}
	modes = []verify.Profile{verify.Private, verify.WebPKI, verify.Strict}
)

// rig is what a row is made of: a root that is trusted, and one that is not.
type rig struct {
	t       *testing.T
	root    *ca.Tester
	other   *ca.Tester
	anchors []*x509.Certificate
	name    string
	suite   uint16
}

// row is one of INTERCEPTION's cases about certificates. The last of want's
// reasons also holds for the profiles after it; "" passes.
type row struct {
	name  string
	chain func(r *rig) []*x509.Certificate
	want  []verify.Reason
}

const pass = verify.Reason("")

func always(r verify.Reason) []verify.Reason { return []verify.Reason{r} }

func run(t *testing.T, rows []row) {
	for _, w := range rows {
		t.Run(w.name, func(t *testing.T) {
			r := &rig{t: t, root: ca.TestAt(t, now), other: ca.TestAt(t, now), name: "good.test"}
			r.anchors = []*x509.Certificate{r.root.Cert}
			chain := w.chain(r)
			for i, profile := range modes {
				want := w.want[min(i, len(w.want)-1)]
				err := authenticate(t, r, profile, chain)
				if got := reason(t, err); got != want {
					t.Errorf("%s: %q, want %q: %v", profile, got, want, err)
				}
				t.Logf("%s: %v", profile, err)
			}
		})
	}
}

func authenticate(t *testing.T, r *rig, profile verify.Profile, chain []*x509.Certificate) error {
	a := anchorsOf(t, r.anchors...)
	v := verify.With(verify.PKIX{Anchors: a, From: "to.ca", Profile: profile})
	id, err := v.Verify(t.Context(), &verify.Presented{Name: r.name, Chain: chain, Suite: r.suite, Now: now})
	if (id == nil) == (err == nil) {
		t.Fatalf("identity %v with error %v", id, err)
	}
	return err
}

func reason(t *testing.T, err error) verify.Reason {
	t.Helper()
	if err == nil {
		return pass
	}
	var e *verify.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is not a verify.Error: %v", err, err)
	}
	if s := e.Error(); len(s) > 1200 || strings.ContainsAny(s, "\x00\n\x1b") {
		t.Errorf("a text of %d bytes: %q", len(s), s)
	}
	return e.Reason
}

func anchorsOf(t *testing.T, certs ...*x509.Certificate) *verify.Anchors {
	t.Helper()
	var p []byte
	for _, c := range certs {
		p = append(p, pemOf(c)...)
	}
	a, err := verify.LoadAnchors(now, []string{"ca.pem"}, func(string) ([]byte, error) { return p, nil })
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// leaf is a row of one leaf below an intermediate.
func leaf(opts ...ca.Option) func(*rig) []*x509.Certificate {
	return leafFor(good, opts...)
}

func leafFor(names []string, opts ...ca.Option) func(*rig) []*x509.Certificate {
	return func(r *rig) []*x509.Certificate {
		i := r.root.Intermediate()
		return i.Chain(i.Leaf(names, opts...))
	}
}

// below is a row of a good leaf below an intermediate that is not.
func below(opts ...ca.Option) func(*rig) []*x509.Certificate {
	return func(r *rig) []*x509.Certificate {
		i := r.root.Intermediate(opts...)
		return i.Chain(i.Leaf(good))
	}
}

// under is a row of a good leaf below a root that is not.
func under(opts ...ca.Option) func(*rig) []*x509.Certificate {
	return func(r *rig) []*x509.Certificate {
		root := ca.TestAt(r.t, now, opts...)
		r.anchors = []*x509.Certificate{root.Cert}
		return root.Chain(root.Leaf(good))
	}
}

func named(name string, f func(*rig) []*x509.Certificate) func(*rig) []*x509.Certificate {
	return func(r *rig) []*x509.Certificate {
		r.name = name
		return f(r)
	}
}

func tmpl(f func(*x509.Certificate)) ca.Option { return ca.Template(f) }

var privateOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

var critical = tmpl(func(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: privateOID, Critical: true, Value: []byte{5, 0}})
})

func TestPaths(t *testing.T) {
	run(t, []row{
		{"a good leaf", leaf(), always(pass)},
		{"a good leaf on P-384", leaf(ca.ECDSA(elliptic.P384())), always(pass)},
		{"a good leaf on P-521", leaf(ca.ECDSA(elliptic.P521())), always(pass)},
		{"a good leaf of Ed25519", leaf(ca.Ed25519()), always(pass)},
		{"a good leaf of RSA", leaf(ca.SharedRSA()), always(pass)},
		{"a good RSA chain", func(r *rig) []*x509.Certificate {
			root := ca.TestAt(r.t, now, ca.SharedRSA())
			r.anchors = []*x509.Certificate{root.Cert}
			return root.Chain(root.Intermediate(ca.SharedRSA()).Leaf(good))
		}, always(pass)},
		{"IC-01 self-signed", func(r *rig) []*x509.Certificate { return r.root.Chain(r.root.SelfSigned(good)) }, always(verify.UnknownCA)},
		{"IC-01 self-signed, as its own anchor", func(r *rig) []*x509.Certificate {
			c := r.root.Chain(r.root.SelfSigned(good))
			r.anchors = c
			return c
		}, always(pass)},
		{"IC-02 unknown issuer", func(r *rig) []*x509.Certificate { return r.root.Chain(r.other.Leaf(good)) }, always(verify.UnknownCA)},
		{"IC-02 unknown root, sent along", func(r *rig) []*x509.Certificate {
			return append(r.root.Chain(r.other.Leaf(good)), r.other.Cert)
		}, always(verify.UnknownCA)},
		{"IC-03 the name of a trusted root, another key", func(r *rig) []*x509.Certificate {
			fake := ca.TestAt(r.t, now, ca.CN(r.root.Cert.Subject.CommonName))
			return append(fake.Chain(fake.Leaf(good)), fake.Cert)
		}, always(verify.UnknownCA)},
		{"IC-04 signature broken on the leaf", leaf(ca.BadSignature()), always(verify.Invalid)},
		{"IC-04 signature broken on the intermediate", below(ca.BadSignature()), always(verify.Invalid)},
		{"IC-11 expired leaf", leaf(ca.Expired()), always(verify.Expired)},
		{"IC-11 expired intermediate", below(ca.Expired()), always(verify.Expired)},
		{"IC-11 expired root", under(ca.Expired()), always(verify.Expired)},
		{"IC-12 future leaf", leaf(ca.NotYet()), always(verify.NotYetValid)},
		{"IC-12 future intermediate", below(ca.NotYet()), always(verify.NotYetValid)},
		{"IC-12 future root", under(ca.NotYet()), always(verify.NotYetValid)},
		{"IC-13 a leaf as issuer", below(ca.IsCA(false), ca.KeyUsage(x509.KeyUsageDigitalSignature)), always(verify.Invalid)},
		{"IC-13 CA:false with keyCertSign", below(ca.IsCA(false)), always(verify.Invalid)},
		{"IC-14 intermediate without basicConstraints", below(tmpl(func(c *x509.Certificate) {
			c.BasicConstraintsValid, c.IsCA = false, false
		})), always(verify.Invalid)},
		{"IC-14 X.509v1 intermediate", below(ca.V1()), always(verify.Invalid)},
		{"IC-15 X.509v1 root", under(ca.V1()), []verify.Reason{pass, pass, verify.Invalid}},
		{"IC-16 pathLenConstraint exceeded", func(r *rig) []*x509.Certificate {
			i := r.root.Intermediate(tmpl(func(c *x509.Certificate) { c.MaxPathLenZero = true })).Intermediate()
			return i.Chain(i.Leaf(good))
		}, always(verify.Invalid)},
		{"IC-18 unknown critical extension on the leaf", leaf(critical), always(verify.Invalid)},
		{"IC-18 unknown critical extension on the intermediate", below(critical), always(verify.Invalid)},
		{"IC-36 missing intermediate", func(r *rig) []*x509.Certificate {
			i := r.root.Intermediate()
			return i.Chain(i.Leaf(good))[:1]
		}, always(verify.UnknownCA)},
	})
}

func TestNameConstraints(t *testing.T) {
	_, inside, _ := net.ParseCIDR("10.0.0.0/8")
	constrain := func(f func(*x509.Certificate)) func(*rig) []*x509.Certificate { return below(tmpl(f)) }
	run(t, []row{
		{"IC-17 permitted", constrain(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"test"} }), always(pass)},
		{"IC-17 permitted violated", constrain(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }), always(verify.Invalid)},
		{"IC-17 permitted violated, critical", constrain(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example"}
		}), always(verify.Invalid)},
		{"IC-17 excluded violated", constrain(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"good.test"} }), always(verify.Invalid)},
		{"IC-17 on the root", under(tmpl(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} })), always(verify.Invalid)},
		{"IC-17 addresses", func(r *rig) []*x509.Certificate {
			i := r.root.Intermediate(tmpl(func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{inside} }))
			return i.Chain(i.Leaf([]string{"good.test", "192.0.2.1"}))
		}, always(verify.Invalid)},
		{"IC-17 mailboxes", func(r *rig) []*x509.Certificate {
			i := r.root.Intermediate(tmpl(func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"example"} }))
			return i.Chain(i.Leaf([]string{"good.test", "me@good.test"}))
		}, always(verify.Invalid)},
		{"IC-17 directory names, critical", constrain(func(c *x509.Certificate) {
			// permitted: a directoryName with an empty sequence, which x509 cannot judge.
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true,
				Value: []byte{0x30, 0x08, 0xa0, 0x06, 0x30, 0x04, 0xa4, 0x02, 0x30, 0x00}}}
		}), always(verify.Invalid)},
	})
}

func TestUsage(t *testing.T) {
	ku := ca.KeyUsage
	run(t, []row{
		{"IC-20 keyCertSign alone", leaf(ku(x509.KeyUsageCertSign)), always(verify.KeyUsage)},
		{"IC-20 keyEncipherment alone", leaf(ca.SharedRSA(), ku(x509.KeyUsageKeyEncipherment)), always(verify.KeyUsage)},
		{"IC-20 keyEncipherment where it is what is used", func(r *rig) []*x509.Certificate {
			r.suite = tls.TLS_RSA_WITH_AES_128_GCM_SHA256
			return leaf(ca.SharedRSA(), ku(x509.KeyUsageKeyEncipherment))(r)
		}, always(pass)},
		{"IC-20 an extension without a bit", leaf(ku(0), tmpl(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 0, 0}}}
		})), always(verify.KeyUsage)},
		{"IC-20 no keyUsage", leaf(ku(0)), always(pass)},
		{"IC-21 intermediate without keyCertSign", below(ku(x509.KeyUsageCRLSign)), always(verify.KeyUsage)},
		{"IC-21 root without keyCertSign", under(ku(x509.KeyUsageCRLSign)), always(verify.KeyUsage)},
		{"IC-22 clientAuth alone", leaf(ca.ClientAuth()), always(verify.KeyUsage)},
		{"IC-22 codeSigning alone", leaf(ca.EKU(x509.ExtKeyUsageCodeSigning)), always(verify.KeyUsage)},
		{"IC-23 no extKeyUsage", leaf(ca.EKU()), []verify.Reason{pass, verify.KeyUsage}},
		{"IC-23 any alone", leaf(ca.EKU(x509.ExtKeyUsageAny)), []verify.Reason{pass, verify.KeyUsage}},
		{"IC-24 intermediate for code", below(ca.EKU(x509.ExtKeyUsageCodeSigning)), always(verify.KeyUsage)},
		{"IC-24 root for code", under(ca.EKU(x509.ExtKeyUsageCodeSigning)), always(verify.KeyUsage)},
		{"IC-25 the leaf is a CA", leaf(ca.IsCA(true)), always(verify.Invalid)},
		{"IC-25 the leaf is a CA and its own anchor", func(r *rig) []*x509.Certificate {
			c := r.root.Chain(r.root.SelfSigned(good, ca.IsCA(true))) // as openssl req -x509 makes it
			r.anchors = c
			return c
		}, []verify.Reason{pass, verify.Invalid}},
		{"IC-39 ten years", leaf(ca.Validity(10 * 365 * 24 * time.Hour)), []verify.Reason{pass, pass, verify.Invalid}},
		{"IC-39 398 days", leaf(ca.Validity(398*24*time.Hour - time.Hour)), always(pass)},
	})
}

// publicRSA is a key of which nobody needs the private half.
func publicRSA(bits, e int) ca.Option {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		panic(err)
	}
	n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
	return ca.Public(&rsa.PublicKey{N: n, E: e})
}

// spki builds a SubjectPublicKeyInfo that crypto/x509 does not marshal.
func spki(oid asn1.ObjectIdentifier, params any, key []byte) ca.Option {
	id := pkix.AlgorithmIdentifier{Algorithm: oid}
	if params != nil {
		raw, err := asn1.Marshal(params)
		if err != nil {
			panic(err)
		}
		id.Parameters = asn1.RawValue{FullBytes: raw}
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{id, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		panic(err)
	}
	return ca.SPKI(der)
}

func TestKeyFloors(t *testing.T) {
	rows := []row{
		{"IC-27 RSA 1024", leaf(publicRSA(1024, 65537)), always(verify.WeakKey)},
		{"IC-27 RSA 2047", leaf(publicRSA(2047, 65537)), always(verify.WeakKey)},
		{"IC-27 RSA 2049", leaf(publicRSA(2049, 65537)), always(verify.WeakKey)},
		{"IC-27 RSA 2048", leaf(publicRSA(2048, 65537)), always(pass)},
		{"IC-28 root RSA 1024", under(ca.RSA(1024)), always(verify.WeakKey)},
		{"IC-28 intermediate RSA 1024", below(ca.RSA(1024)), always(verify.WeakKey)},
		{"IC-28 root RSA 512", under(ca.RSA(512)), always(verify.WeakKey)},
		{"IC-28 intermediate RSA 768", below(ca.RSA(768)), always(verify.WeakKey)},
		{"IC-29 e=1", leaf(publicRSA(2048, 1)), always(verify.WeakKey)},
		{"IC-29 e=3", leaf(publicRSA(2048, 3)), always(verify.WeakKey)},
		{"IC-29 even e", leaf(publicRSA(2048, 65538)), always(verify.WeakKey)},
		{"IC-29 RSA 8192", leaf(publicRSA(8192, 65537)), always(pass)},
		{"IC-29 RSA 16384", leaf(publicRSA(16384, 65537)), always(verify.WeakKey)},
		{"IC-29 RSA 16384 in the chain", func(r *rig) []*x509.Certificate {
			return append(leaf()(r), leaf(publicRSA(16384, 65537))(r)[0])
		}, always(verify.WeakKey)},
		{"IC-30 P-224", leaf(ca.ECDSA(elliptic.P224())), always(verify.WeakKey)},
		{"IC-30 DSA", leaf(spki(asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, struct{ P, Q, G *big.Int }{big.NewInt(23), big.NewInt(11), big.NewInt(4)},
			[]byte{2, 1, 8})), always(verify.WeakKey)},
		{"IC-30 Ed448", leaf(spki(asn1.ObjectIdentifier{1, 3, 101, 113}, nil, make([]byte, 57))), always(verify.WeakKey)},
	}
	for _, bits := range []int{512, 768, 1016} {
		rows = append(rows, row{fmt.Sprintf("IC-26 RSA %d", bits), leaf(publicRSA(bits, 65537)), always(verify.WeakKey)})
	}
	run(t, rows)
	t.Run("IC-56 with GODEBUG", func(t *testing.T) {
		t.Setenv("GODEBUG", "rsa1024min=0,x509sha1=1,x509negativeserial=1,tlssha1=1")
		run(t, rows)
		run(t, signatureRows())
	})
}

func signatureRows() []row {
	oldRSA := func(opt ca.Option, deep bool) func(*rig) []*x509.Certificate {
		return func(r *rig) []*x509.Certificate {
			root := ca.TestAt(r.t, now, ca.SharedRSA())
			r.anchors = []*x509.Certificate{root.Cert}
			if deep {
				i := root.Intermediate(opt)
				return i.Chain(i.Leaf(good))
			}
			return root.Chain(root.Leaf(good, opt))
		}
	}
	return []row{
		{"IC-31 MD5 on the leaf", oldRSA(ca.MD5(), false), always(verify.WeakSig)},
		{"IC-31 MD5 on the intermediate", oldRSA(ca.MD5(), true), always(verify.WeakSig)},
		{"IC-31 MD4 on the leaf", leaf(ca.TBS(func(t *ca.TBSCertificate) {
			t.Signature = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 3}, Parameters: asn1.NullRawValue}
		})), always(verify.WeakSig)},
		{"IC-32 SHA-1 on the leaf", oldRSA(ca.SHA1(), false), always(verify.WeakSig)},
		{"IC-32 SHA-1 on the intermediate", oldRSA(ca.SHA1(), true), always(verify.WeakSig)},
		{"IC-32 ECDSA with SHA-1 on the leaf", leaf(ca.SHA1()), always(verify.WeakSig)},
		{"IC-32 ECDSA with SHA-1 on the intermediate", below(ca.SHA1()), always(verify.WeakSig)},
		{"IC-33 SHA-1 on the root", under(ca.SharedRSA(), ca.SHA1()), always(pass)},
		{"IC-33 MD5 on the root", under(ca.SharedRSA(), ca.MD5()), always(pass)},
	}
}

func TestSignatures(t *testing.T) { run(t, signatureRows()) }

func TestIC19Malformed(t *testing.T) {
	root := ca.TestAt(t, now)
	for name, id := range map[string]asn1.ObjectIdentifier{"keyUsage": {2, 5, 29, 15}, "subjectAltName": {2, 5, 29, 17}, "basicConstraints": {2, 5, 29, 19}} {
		for _, value := range [][]byte{nil, {0xff}, {0x30, 0x80}, {0x30, 0x03, 0x82, 0x05, 'a'}, make([]byte, 300)} {
			c, err := ca.New(now, ca.Template(func(c *x509.Certificate) {
				c.ExtraExtensions = []pkix.Extension{{Id: id, Value: value}}
			}))
			if err == nil {
				r := &rig{root: root, anchors: []*x509.Certificate{root.Cert}, name: "good.test"}
				if authenticate(t, r, verify.Private, []*x509.Certificate{c.Cert}) == nil {
					t.Errorf("%s %x passes", name, value)
				}
			}
		}
	}
}

func TestIC37ChainsInAnyOrder(t *testing.T) {
	shuffled := func(order ...int) func(*rig) []*x509.Certificate {
		return func(r *rig) []*x509.Certificate {
			a := r.root.Intermediate()
			b := a.Intermediate()
			all := append(b.Chain(b.Leaf(good)), r.root.Cert, r.other.Cert, r.other.Leaf(good).Cert)
			chain := all[:1]
			var out []*x509.Certificate
			for _, i := range order {
				out = append(out, all[i])
			}
			return append(append([]*x509.Certificate{}, chain...), out...)
		}
	}
	run(t, []row{
		{"IC-37 reversed", shuffled(3, 2, 1), always(pass)},
		{"IC-37 junk", shuffled(4, 1, 5, 2), always(pass)},
		{"IC-37 duplicates", shuffled(0, 1, 1, 2, 2, 3, 3), always(pass)},
		{"IC-37 cross-sign loop", func(r *rig) []*x509.Certificate {
			// Two CAs that sign each other, of which neither leads anywhere but by the third.
			a, b := r.other.Intermediate(ca.CN("loop a")), r.other.Intermediate(ca.CN("loop b"))
			ab := a.Intermediate(ca.CN("loop b"), ca.Key(b.Key))
			ba := b.Intermediate(ca.CN("loop a"), ca.Key(a.Key))
			up := r.root.Intermediate(ca.CN("loop a"), ca.Key(a.Key))
			return []*x509.Certificate{b.Leaf(good).Cert, ab.Cert, ba.Cert, up.Cert}
		}, always(pass)},
		{"IC-37 cross-sign loop that leads nowhere", func(r *rig) []*x509.Certificate {
			a, b := r.other.Intermediate(ca.CN("loop a")), r.other.Intermediate(ca.CN("loop b"))
			ab := a.Intermediate(ca.CN("loop b"), ca.Key(b.Key))
			ba := b.Intermediate(ca.CN("loop a"), ca.Key(a.Key))
			return []*x509.Certificate{b.Leaf(good).Cert, ab.Cert, ba.Cert}
		}, always(verify.UnknownCA)},
		{"IC-37 four paths, one valid", func(r *rig) []*x509.Certificate {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				r.t.Fatal(err)
			}
			same := func(p *ca.Tester, opts ...ca.Option) *ca.Tester {
				return p.Intermediate(append(opts, ca.CN("four"), ca.Key(crypto.Signer(key)))...)
			}
			fine := same(r.root)
			return []*x509.Certificate{fine.Leaf(good).Cert, same(r.root, ca.Expired()).Cert, same(r.root, ca.SHA1()).Cert, same(r.other).Cert, fine.Cert}
		}, always(pass)},
		{"IC-37 a path through a weak root and one that is not", func(r *rig) []*x509.Certificate {
			weak := ca.TestAt(r.t, now, ca.RSA(1024))
			r.anchors = append([]*x509.Certificate{weak.Cert}, r.anchors...)
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				r.t.Fatal(err)
			}
			a, b := weak.Intermediate(ca.CN("two"), ca.Key(key)), r.root.Intermediate(ca.CN("two"), ca.Key(key))
			return []*x509.Certificate{a.Leaf(good).Cert, a.Cert, b.Cert}
		}, always(pass)},
	})
}

func TestIC38Bounds(t *testing.T) {
	many := func(n int) []string {
		names := []string{"good.test"}
		for i := range n - 1 {
			names = append(names, fmt.Sprintf("host-%d.example.test", i))
		}
		return names
	}
	run(t, []row{
		{"IC-38 91 intermediates", func(r *rig) []*x509.Certificate {
			c := r.root
			for range 91 {
				c = c.Intermediate()
			}
			return c.Chain(c.Leaf(good))
		}, always(verify.Invalid)},
		{"IC-38 1000 certificates", func(r *rig) []*x509.Certificate {
			chain := leaf()(r)
			for len(chain) < 1000 {
				chain = append(chain, chain[1])
			}
			return chain
		}, always(verify.Invalid)},
		{"IC-38 1000 names", leafFor(many(1000)), always(pass)},
		{"IC-38 1000 names, none fits", named("bad.test", leafFor(many(1000))), always(verify.NameWrong)},
		{"IC-38 10000 names", leafFor(many(10000)), always(verify.Invalid)},
		{"IC-38 4096 names under as many constraints", func(r *rig) []*x509.Certificate {
			i := r.root.Intermediate(tmpl(func(c *x509.Certificate) { c.ExcludedDNSDomains = many(4096)[1:] }))
			return i.Chain(i.Leaf([]string{"good.test"}, tmpl(func(c *x509.Certificate) { c.DNSNames = append([]string{"good.test"}, many(4000)[1:]...) })))
		}, always(verify.Invalid)},
		{"IC-38 thirty intermediates of one name", func(r *rig) []*x509.Certificate {
			top := r.other.Intermediate(ca.CN("same"))
			chain := top.Chain(top.Leaf(good))
			for len(chain) < 32 {
				top = top.Intermediate(ca.CN("same"))
				chain = append(chain, top.Cert)
			}
			return chain
		}, always(verify.UnknownCA)},
	})
}

// A verdict costs a bounded number of signatures, whatever is sent: x509 has a
// bound of 100, the words for the refusal have one of their own. Measured against
// the cost of one, since the time of day says more about the machine.
func TestIC38Cost(t *testing.T) {
	r := &rig{t: t, root: ca.TestAt(t, now), other: ca.TestAt(t, now), name: "good.test"}
	r.anchors = []*x509.Certificate{r.root.Cert}
	top := r.other.Intermediate(ca.CN("same"), ca.ECDSA(elliptic.P521()))
	chain := top.Chain(top.Leaf(good))
	for len(chain) < 32 {
		top = top.Intermediate(ca.CN("same"), ca.ECDSA(elliptic.P521()))
		chain = append(chain, top.Cert)
	}
	cost := func(f func()) time.Duration {
		best := time.Hour
		for range 3 {
			start := time.Now()
			f()
			best = min(best, time.Since(start))
		}
		return best
	}
	ten := cost(func() {
		for range 10 {
			_ = chain[0].CheckSignatureFrom(chain[31])
		}
	})
	all := cost(func() {
		if authenticate(t, r, verify.Private, chain) == nil {
			t.Error("passes")
		}
	})
	t.Logf("ten signatures of P-521 %v, the worst verdict %v", ten, all)
	if all > 40*ten {
		t.Errorf("a verdict took %v, ten signatures take %v", all, ten)
	}
}
