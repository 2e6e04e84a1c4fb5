package testca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"time"

	"sallyport/internal/ca"
)

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

func usageCases() []Case {
	ku := ca.KeyUsage
	return []Case{
		{"IC-20", "keyCertSign alone", all(keyUsage), nil, leaf(ku(x509.KeyUsageCertSign))},
		{"IC-20", "cRLSign alone", all(keyUsage), nil, leaf(ku(x509.KeyUsageCRLSign))},
		{"IC-20", "keyEncipherment alone", all(keyUsage), nil, leaf(ca.SharedRSA(), ku(x509.KeyUsageKeyEncipherment))},
		{"IC-20", "an extension without a bit", all(keyUsage), nil, leaf(ku(0), extension(pkix.Extension{
			Id: oidKeyUsage, Critical: true, Value: []byte{3, 2, 0, 0}}))},
		{"IC-20", "no keyUsage", all(pass), nil, leaf(ku(0))},
		{"IC-21", "intermediate without keyCertSign", all(keyUsage), nil, below(ku(x509.KeyUsageCRLSign))},
		{"IC-21", "root without keyCertSign", all(keyUsage), nil, under(ku(x509.KeyUsageCRLSign))},
		{"IC-22", "clientAuth alone", all(keyUsage), nil, leaf(ca.ClientAuth())},
		{"IC-22", "codeSigning alone", all(keyUsage), nil, leaf(ca.EKU(x509.ExtKeyUsageCodeSigning))},
		{"IC-23", "no extKeyUsage", Want{pass, pass, keyUsage}, Notes{"webpki": "has no extKeyUsage"}, leaf(ca.EKU())},
		{"IC-23", "any alone", Want{pass, keyUsage}, nil, leaf(ca.EKU(x509.ExtKeyUsageAny))},
		{"IC-24", "intermediate for code", all(keyUsage), nil, below(ca.EKU(x509.ExtKeyUsageCodeSigning))},
		{"IC-24", "root for code", all(keyUsage), nil, under(ca.EKU(x509.ExtKeyUsageCodeSigning))},
		{"IC-25", "the leaf is a CA", Want{pass, pass, invalid}, Notes{"private": "is that of a CA", "webpki": "is that of a CA"}, leaf(ca.IsCA(true))},
		{"IC-25", "the leaf is a CA and its own anchor", Want{pass, pass, invalid}, Notes{"webpki": "is that of a CA"}, func(m *Made) {
			l := m.root.SelfSigned(good, ca.IsCA(true)) // as openssl req -x509 makes it
			m.Anchors = []*x509.Certificate{l.Cert}
			m.send(l)
		}},
		{"IC-39", "ten years", Want{pass, pass, invalid}, Notes{"webpki": "public CAs give at most 200"}, leaf(ca.Validity(10 * 365 * day))},
		{"IC-39", "398 days, of which an hour is over", Want{pass, pass, invalid}, Notes{"webpki": "public CAs give at most 200"}, leaf(ca.Validity(398*day - time.Hour))},
		{"IC-39", "200 days, of which an hour is over", all(pass), nil, leaf(ca.Validity(200*day - 2*time.Hour))},
	}
}

// ownCases are those of a CA whose private key the proxy has.
func ownCases() []Case {
	ours := func(m *Made, c *ca.Tester) *ca.Tester {
		m.Own = &ca.Leaf{Cert: c.Cert, Chain: [][]byte{c.Cert.Raw}, Key: c.Key}
		return c
	}
	return []Case{
		{"IC-48", "a CA of the proxy's own, below an anchor", all(ownCA), nil, func(m *Made) { m.send(ours(m, m.root.Intermediate()).Leaf(good)) }},
		{"IC-48", "a CA of the proxy's own, further up", all(ownCA), nil, func(m *Made) { m.send(ours(m, m.root.Intermediate()).Intermediate().Leaf(good)) }},
		{"IC-48", "a CA of the proxy's own, imported", all(ownCA), nil, func(m *Made) { m.send(ours(m, m.root).Leaf(good)) }},
		{"IC-48", "the CA above one of the proxy's own", all(pass), nil, func(m *Made) {
			ours(m, m.root.Intermediate())
			m.send(m.root.Leaf(good))
		}},
		{"IC-48", "the proxy's own certificate, a CA and its own anchor", Want{pass, pass, invalid}, Notes{"webpki": "is that of a CA"}, func(m *Made) {
			m.Own = m.root.SelfSigned(good, ca.IsCA(true))
			m.Anchors = []*x509.Certificate{m.Own.Cert}
			m.send(m.Own)
		}},
	}
}

const day = 24 * time.Hour
