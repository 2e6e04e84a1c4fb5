package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"

	"sallyport/internal/ca"
)

var privateOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

var critical = extension(pkix.Extension{Id: privateOID, Critical: true, Value: []byte{5, 0}})

func extension(e pkix.Extension) ca.Option {
	return tmpl(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e) })
}

func signedWith(a x509.SignatureAlgorithm) ca.Option {
	return tmpl(func(c *x509.Certificate) { c.SignatureAlgorithm = a })
}

func pathCases() []Case {
	return []Case{
		{"IC-00", "a good leaf", all(pass), nil, leaf()},
		{"IC-00", "a good leaf on P-384", all(pass), nil, leaf(ca.ECDSA(elliptic.P384()))},
		{"IC-00", "a good leaf on P-521", all(pass), nil, leaf(ca.ECDSA(elliptic.P521()))},
		{"IC-00", "a good leaf of Ed25519", all(pass), nil, leaf(ca.Ed25519())},
		{"IC-00", "a good leaf of RSA", all(pass), nil, leaf(ca.SharedRSA())},
		{"IC-00", "a good RSA chain", all(pass), nil, func(m *Made) {
			root := ca.TestAt(m.t, m.now, ca.SharedRSA())
			m.trust(root)
			m.send(root.Intermediate(ca.SharedRSA()).Leaf(good))
		}},
		{"IC-00", "a good chain signed with RSA-PSS", all(pass), nil, func(m *Made) {
			root := ca.TestAt(m.t, m.now, ca.SharedRSA(), signedWith(x509.SHA512WithRSAPSS))
			m.trust(root)
			m.send(root.Intermediate(ca.SharedRSA(), signedWith(x509.SHA384WithRSAPSS)).Leaf(good, signedWith(x509.SHA256WithRSAPSS)))
		}},
		{"IC-01", "self-signed", all(unknownCA), nil, func(m *Made) { m.send(m.root.SelfSigned(good)) }},
		{"IC-01", "self-signed, as its own anchor", all(pass), nil, func(m *Made) {
			l := m.root.SelfSigned(good)
			m.Anchors = []*x509.Certificate{l.Cert}
			m.send(l)
		}},
		{"IC-02", "unknown issuer", all(unknownCA), nil, func(m *Made) { m.send(m.other.Leaf(good)) }},
		{"IC-02", "unknown root, sent along", all(unknownCA), nil, func(m *Made) { m.send(m.other.Leaf(good), m.other.Cert) }},
		{"IC-02", "unknown root, with a trusted one sent along", all(unknownCA), nil, func(m *Made) {
			m.send(m.other.Leaf(good), m.other.Cert, m.root.Cert)
		}},
		{"IC-03", "the name of a trusted root, another key", all(unknownCA), nil, func(m *Made) {
			fake := ca.TestAt(m.t, m.now, ca.CN(m.root.Cert.Subject.CommonName))
			m.send(fake.Leaf(good), fake.Cert)
		}},
		{"IC-03", "the name and the key identifier of a trusted root, another key", all(invalid), nil, func(m *Made) {
			fake := ca.TestAt(m.t, m.now, ca.CN(m.root.Cert.Subject.CommonName),
				tmpl(func(c *x509.Certificate) { c.SubjectKeyId = m.root.Cert.SubjectKeyId }))
			m.send(fake.Leaf(good), fake.Cert)
		}},
		{"IC-04", "signature broken on the leaf", all(invalid), nil, leaf(ca.BadSignature())},
		{"IC-04", "signature broken on the intermediate", all(invalid), nil, below(ca.BadSignature())},
		{"IC-04", "a bit of the name flipped after signing", all(invalid), nil, func(m *Made) {
			// The tampered name is the one asked for.
			m.Name = "gooe.test"
			m.send(m.root.Intermediate().Leaf(good, ca.Tamper(replaceAll("good.test", "gooe.test"))))
		}},
		{"IC-11", "expired leaf", all(expired), nil, leaf(ca.Expired())},
		{"IC-11", "expired intermediate", all(expired), nil, below(ca.Expired())},
		{"IC-11", "expired root", all(expired), nil, under(ca.Expired())},
		{"IC-12", "future leaf", all(notYetValid), nil, leaf(ca.NotYet())},
		{"IC-12", "future intermediate", all(notYetValid), nil, below(ca.NotYet())},
		{"IC-12", "future root", all(notYetValid), nil, under(ca.NotYet())},
		{"IC-13", "a leaf as issuer", all(invalid), nil, below(ca.IsCA(false), ca.KeyUsage(x509.KeyUsageDigitalSignature))},
		{"IC-13", "CA:false with keyCertSign", all(invalid), nil, below(ca.IsCA(false))},
		{"IC-14", "intermediate without basicConstraints", all(invalid), nil, below(tmpl(func(c *x509.Certificate) {
			c.BasicConstraintsValid, c.IsCA = false, false
		}))},
		{"IC-14", "X.509v1 intermediate", all(invalid), nil, below(ca.V1())},
		{"IC-15", "X.509v1 root", Want{pass, pass, invalid}, Notes{"webpki": "X.509v1"}, under(ca.V1())},
		{"IC-16", "pathLenConstraint exceeded", all(invalid), nil, func(m *Made) {
			m.send(m.root.Intermediate(tmpl(func(c *x509.Certificate) { c.MaxPathLenZero = true })).Intermediate().Leaf(good))
		}},
		{"IC-16", "pathLenConstraint of the root exceeded", all(invalid), nil, func(m *Made) {
			root := ca.TestAt(m.t, m.now, tmpl(func(c *x509.Certificate) { c.MaxPathLen = 1 }))
			m.trust(root)
			m.send(root.Intermediate().Intermediate().Leaf(good))
		}},
		{"IC-16", "pathLenConstraint met", all(pass), nil, func(m *Made) {
			m.send(m.root.Intermediate(tmpl(func(c *x509.Certificate) { c.MaxPathLenZero = true })).Leaf(good))
		}},
		{"IC-18", "unknown critical extension on the leaf", all(invalid), nil, leaf(critical)},
		{"IC-18", "unknown critical extension on the intermediate", all(invalid), nil, below(critical)},
		{"IC-36", "missing intermediate", all(unknownCA), nil, func(m *Made) {
			m.send(m.root.Intermediate().Leaf(good))
			m.Chain = m.Chain[:1]
		}},
	}
}

func replaceAll(from, to string) func([]byte) []byte {
	return func(der []byte) []byte { return replace(der, from, to) }
}

func newKey(m *Made) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	return key
}

// orderCases are chains that have a way through, if one looks for it.
func orderCases() []Case {
	shuffled := func(order ...int) func(*Made) {
		return func(m *Made) {
			l := m.root.Intermediate().Intermediate().Leaf(good)
			m.send(l, m.root.Cert, m.other.Cert, m.other.Leaf(good).Cert)
			sent := m.Chain
			m.Chain = m.Chain[:1:1]
			for _, i := range order {
				m.Chain = append(m.Chain, sent[i])
			}
		}
	}
	return []Case{
		{"IC-37", "reversed", all(pass), nil, shuffled(3, 2, 1)},
		{"IC-37", "junk", all(pass), nil, shuffled(4, 1, 5, 2)},
		{"IC-37", "duplicates", all(pass), nil, shuffled(0, 1, 1, 2, 2, 3, 3)},
		{"IC-37", "a cross-sign loop with a way out", all(pass), nil, loop(true)},
		{"IC-37", "a cross-sign loop that leads nowhere", all(unknownCA), nil, loop(false)},
		{"IC-37", "four paths, one valid", all(pass), nil, func(m *Made) {
			key := newKey(m)
			same := func(p *ca.Tester, opts ...ca.Option) *ca.Tester {
				return p.Intermediate(append(opts, ca.CN("four"), ca.Key(key))...)
			}
			fine := same(m.root)
			l := fine.Leaf(good)
			l.Chain = l.Chain[:1]
			m.send(l, same(m.root, ca.Expired()).Cert, same(m.root, ca.SHA1()).Cert, same(m.other).Cert, fine.Cert)
		}},
		{"IC-37", "a path through a weak root and one that is not", all(pass), nil, func(m *Made) {
			weak := ca.TestAt(m.t, m.now, ca.RSA(1024))
			m.trust(weak, m.root)
			key := newKey(m)
			a, b := weak.Intermediate(ca.CN("two"), ca.Key(key)), m.root.Intermediate(ca.CN("two"), ca.Key(key))
			m.send(a.Leaf(good), b.Cert)
		}},
	}
}

// loop is two CAs that sign each other, of which neither leads anywhere but by a third.
func loop(out bool) func(*Made) {
	return func(m *Made) {
		a, b := m.other.Intermediate(ca.CN("loop a")), m.other.Intermediate(ca.CN("loop b"))
		ab := a.Intermediate(ca.CN("loop b"), ca.Key(b.Key))
		ba := b.Intermediate(ca.CN("loop a"), ca.Key(a.Key))
		l := b.Leaf(good)
		l.Chain = l.Chain[:1]
		m.send(l, ab.Cert, ba.Cert)
		if out {
			m.Chain = append(m.Chain, m.root.Intermediate(ca.CN("loop a"), ca.Key(a.Key)).Cert.Raw)
		}
	}
}
