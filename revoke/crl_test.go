package revoke_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/revoke"
)

// point is an IssuingDistributionPoint (RFC 5280, section 5.2.5).
type point struct {
	Name    asn1.RawValue  `asn1:"optional,omitempty"`
	Users   bool           `asn1:"optional,tag:1"`
	CAs     bool           `asn1:"optional,tag:2"`
	Reasons asn1.BitString `asn1:"optional,omitempty,tag:3"`
	Other   bool           `asn1:"optional,tag:4"`
	Attr    bool           `asn1:"optional,tag:5"`
}

func extension(t *testing.T, id int, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: true, Value: der}
}

func fullName(uri string) asn1.RawValue {
	name := append([]byte{0x86, byte(len(uri))}, uri...)
	full := append([]byte{0xa0, byte(len(name))}, name...)
	return asn1.RawValue{FullBytes: append([]byte{0xa0, byte(len(full))}, full...)}
}

func (s *site) crl(by *ca.Tester, edit func(*x509.RevocationList), serials ...*big.Int) []byte {
	s.Helper()
	der, err := by.CRL(now, serials, edit)
	if err != nil {
		s.Fatal(err)
	}
	return der
}

func TestCRL(t *testing.T) {
	const here = "http://crl.test/1.crl"
	s := newSite(t, ca.CRLAt(here))
	serial := s.leaf.Cert.SerialNumber
	twin := ca.TestAt(t, now, ca.Template(func(x *x509.Certificate) { x.Subject = s.inter.Cert.Subject }))
	ext := func(e ...pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ExtraExtensions = e }
	}
	with := func(e ...pkix.Extension) []byte { return s.crl(s.inter, ext(e...), serial) }
	good := s.crl(s.inter, nil, big.NewInt(5), big.NewInt(-5), new(big.Int).Lsh(big.NewInt(3), 200))
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	weak := ca.TestAt(t, now, ca.KeyUsage(x509.KeyUsageCertSign))
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"good", good, "good"},
		{"none revoked", s.crl(s.inter, nil), "good"},
		{"PEM", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), "good"},
		{"revoked", s.crl(s.inter, nil, big.NewInt(5), serial, big.NewInt(9)), "revoked"},
		{"revoked, of a part with our point", with(extension(t, 28, point{Name: fullName(here), Users: true})), "revoked"},
		{"of a part with another point", with(extension(t, 28, point{Name: fullName("http://crl.test/2.crl")})), `"http://crl.test/2.crl"`},
		{"of CAs alone", with(extension(t, 28, point{CAs: true})), "of CAs alone"},
		{"indirect", with(extension(t, 28, point{Other: true})), "indirect CRL"},
		{"indirect by its entries", s.crl(s.inter, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{extension(t, 29, []int{1})}
		}, serial), "indirect CRL"},
		{"of attribute certificates", with(extension(t, 28, point{Attr: true})), "attribute certificates"},
		{"of some reasons", with(extension(t, 28, point{Reasons: asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}})), "some reasons"},
		{"delta", with(extension(t, 27, 3)), "delta CRL"},
		{"delta, not critical", with(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Value: []byte{2, 1, 3}}), "delta CRL"},
		{"critical extension", with(extension(t, 99, 3)), "critical extension"},
		{"critical extension of an entry", s.crl(s.inter, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{extension(t, 99, 3)}
		}, serial), "critical extension"},
		{"out of date", s.crl(s.inter, func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = now.Add(-2*day), now.Add(-day)
		}, serial), "was good until"},
		{"future", s.crl(s.inter, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(time.Hour) }, serial), "which is to come"},
		{"of another CA", s.crl(s.root, nil, serial), "the CRL is of"},
		{"of another CA of that name", s.crl(twin, nil), "not signed by the CA of that name"},
		{"bad signature", flipped, "not signed by the CA of that name"},
		{"two in one", append(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good})...), "several CRLs"},
		{"a certificate", s.inter.CertPEM(), "X509 CRL is expected"},
		{"garbage", []byte("not found"), "no CRL"},
		{"nothing", nil, "no CRL"},
		{"a byte too many", append(bytes.Clone(good), 0), "1 bytes too many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := revoke.ParseCRL(c.data)
			var a *revoke.Answer
			for range 2 { // the second time its signature is known
				if err == nil {
					a, err = l.Judge(s.leaf.Cert, s.inter.Cert, now)
				}
			}
			switch {
			case c.want == "good" || c.want == "revoked":
				if err != nil || a.Revoked != (c.want == "revoked") {
					t.Fatalf("%+v, %v", a, err)
				}
			case err == nil || !strings.Contains(err.Error(), c.want):
				t.Fatalf("%+v, %v, want an error with %q", a, err, c.want)
			}
			t.Log(err)
		})
	}
	t.Run("CA that may not sign CRLs", func(t *testing.T) {
		leaf := weak.Leaf([]string{"good.test"})
		may := ca.TestAt(t, now, ca.Key(weak.Key), ca.Template(func(x *x509.Certificate) { x.Subject = weak.Cert.Subject }))
		l, err := revoke.ParseCRL(s.crl(may, nil))
		if err != nil {
			t.Fatal(err)
		}
		if a, err := l.Judge(leaf.Cert, weak.Cert, now); err == nil {
			t.Fatalf("%+v", a)
		}
	})
	t.Run("of end entities alone, for a CA", func(t *testing.T) {
		l, err := revoke.ParseCRL(s.crl(s.root, ext(extension(t, 28, point{Users: true}))))
		if err != nil {
			t.Fatal(err)
		}
		if a, err := l.Judge(s.inter.Cert, s.root.Cert, now); err == nil || !strings.Contains(err.Error(), "not of CAs") {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

func TestCRLFiles(t *testing.T) {
	s := newSite(t)
	one, two := s.crl(s.inter, nil), s.crl(s.root, nil)
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}) }
	for _, c := range []struct {
		name string
		data []byte
		want int
	}{
		{"DER", one, 1},
		{"PEM", block(one), 1},
		{"two", append(block(one), block(two)...), 2},
		{"text before", append([]byte("Certificate Revocation List (CRL):\n"), block(one)...), 1},
		{"a certificate among them", append(block(one), s.root.CertPEM()...), 0},
		{"cut off", append(block(one), block(two)[:100]...), 0},
		{"garbage", []byte("x"), 0},
		{"nothing", nil, 0},
	} {
		list, err := revoke.ParseCRLs(c.data)
		if err == nil != (c.want > 0) || err == nil && len(list) != c.want {
			t.Errorf("%s: %d, %v", c.name, len(list), err)
		}
	}
}

// A CRL has one list: of a second one crypto/x509, which is given it without the first,
// would take what follows for the CRL's extensions, where alone it sees none.
func TestCRLWithTwoLists(t *testing.T) {
	s := newSite(t)
	var outer, tbs []asn1.RawValue
	der := s.crl(s.inter, nil, big.NewInt(7))
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer[0].FullBytes, &tbs); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(tbs, func(v asn1.RawValue) bool { return v.Tag == asn1.TagUTCTime })
	for tbs[i].Tag == asn1.TagUTCTime {
		i++
	}
	double, err := asn1.Marshal(slices.Insert(tbs, i, tbs[i]))
	if err != nil {
		t.Fatal(err)
	}
	outer[0] = asn1.RawValue{FullBytes: double}
	if der, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseRevocationList(der); err != nil {
		t.Fatalf("crypto/x509 refuses it itself: %v", err)
	}
	if l, err := revoke.ParseCRL(der); err == nil {
		t.Errorf("it is taken, with %d entries", l.Len())
	}
}

// Each of twenty thousand is found, and none between them.
func TestLargeCRL(t *testing.T) {
	s := newSite(t)
	var serials []*big.Int
	for i := range int64(20_000) {
		serials = append(serials, big.NewInt(1+7919*i%20_011*2))
	}
	l, err := revoke.ParseCRL(s.crl(s.inter, nil, serials...))
	if err != nil || l.Len() != len(serials) {
		t.Fatal(err)
	}
	cert := *s.leaf.Cert
	for i := int64(0); i < 20_000; i += 97 {
		for _, d := range []int64{0, 1} {
			cert.SerialNumber = new(big.Int).Add(serials[i], big.NewInt(d))
			if a, err := l.Judge(&cert, s.inter.Cert, now); err != nil || a.Revoked != (d == 0) {
				t.Fatalf("%s: %+v, %v", cert.SerialNumber, a, err)
			}
		}
	}
}

// What openssl ca makes, and what openssl crl says of ours.
func TestOpenSSLCRL(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", args[0], err, out)
		}
		return string(out)
	}
	at := time.Now()
	root := ca.TestAt(t, at)
	good, bad := root.Leaf([]string{"good.test"}), root.Leaf([]string{"bad.test"})
	key := &ca.Leaf{Cert: root.Cert, Chain: [][]byte{root.Cert.Raw}, Key: root.Key}
	for stem, l := range map[string]*ca.Leaf{"ca": key, "good": good, "bad": bad} {
		if _, _, err := l.Write(dir, stem); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.cnf", "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ncertificate=ca.pem\nprivate_key=ca.key\ndefault_md=sha256\ndefault_crl_days=1\n")
	write("index", "")
	write("number", "01\n")
	run("ca", "-config", "ca.cnf", "-revoke", "bad.pem", "-crl_reason", "keyCompromise")
	run("ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem")
	data, err := os.ReadFile(filepath.Join(dir, "crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := revoke.ParseCRL(data)
	if err != nil {
		t.Fatal(err)
	}
	for leaf, revoked := range map[*ca.Leaf]bool{good: false, bad: true} {
		a, err := l.Judge(leaf.Cert, root.Cert, at.Add(time.Minute))
		if err != nil || a.Revoked != revoked || revoked && a.Reason.String() != "keyCompromise" {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	ours, err := root.CRL(at, []*big.Int{bad.Cert.SerialNumber}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write("ours.crl", string(ours))
	if out := run("crl", "-in", "ours.crl", "-CAfile", "ca.pem", "-noout", "-text"); !strings.Contains(out, "verify OK") {
		t.Fatal(out)
	}
}

// likeX509 holds the entries of l, which came from data, against those that
// crypto/x509 finds there.
func likeX509(t *testing.T, l *revoke.CRL, data []byte) {
	t.Helper()
	if b, _ := pem.Decode(data); b != nil {
		data = b.Bytes
	}
	want, err := x509.ParseRevocationList(data)
	if err != nil {
		t.Fatalf("crypto/x509: %v", err)
	}
	if n := len(want.RevokedCertificateEntries); l.Len() != n {
		t.Fatalf("%d entries, %d for crypto/x509", l.Len(), n)
	}
	for _, e := range want.RevokedCertificateEntries {
		if !l.Has(e.SerialNumber, e.RevocationTime, e.ReasonCode) {
			t.Fatalf("%x of %s, reason %d, is not there", e.SerialNumber, e.RevocationTime, e.ReasonCode)
		}
	}
}

func FuzzParseCRL(f *testing.F) {
	root := ca.TestAt(f, now)
	leaf := root.Leaf([]string{"good.test"})
	good, err := root.CRL(now, []*big.Int{leaf.Cert.SerialNumber, big.NewInt(3)}, nil)
	if err != nil {
		f.Fatal(err)
	}
	reasons, err := root.CRL(now, []*big.Int{leaf.Cert.SerialNumber, big.NewInt(3)}, func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[1].ReasonCode = 4
		l.RevokedCertificateEntries[1].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: []byte("date")}}
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(reasons)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := revoke.ParseCRL(data)
		if (l == nil) == (err == nil) {
			t.Fatalf("%v with %v", l, err)
		}
		if l == nil {
			return
		}
		likeX509(t, l, data)
		// Nobody without the key takes the leaf off the list.
		if a, err := l.Judge(leaf.Cert, root.Cert, now); err == nil && !a.Revoked {
			t.Fatal("forged")
		}
	})
}
