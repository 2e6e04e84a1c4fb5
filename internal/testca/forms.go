package testca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"

	"sallyport/internal/ca"
)

func serial(n *big.Int) ca.Option {
	return ca.TBS(func(t *ca.TBSCertificate) { t.SerialNumber = n })
}

// without leaves an extension out.
func without(oid asn1.ObjectIdentifier) ca.Option {
	return ca.TBS(func(t *ca.TBSCertificate) {
		t.Extensions = slices.DeleteFunc(t.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid) })
	})
}

var (
	oidSKI = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidBC  = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAKI = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// formCases break RFC 5280 by their form alone.
func formCases() []Case {
	odd := Want{pass, pass, invalid}
	noted := func(text string) Notes { return Notes{"private": text, "webpki": text} }
	cases := []Case{
		{"IC-19", "an extension twice", all(invalid), nil, leaf(unparsed, ca.TBS(func(t *ca.TBSCertificate) {
			t.Extensions = append(t.Extensions, t.Extensions[0])
		}))},
		{"IC-19", "an extension twice, on the intermediate", all(invalid), nil, func(m *Made) {
			// It does not parse, so that it cannot be made as one: it replaces one that does.
			i := m.root.Intermediate()
			m.send(i.Leaf(good))
			twice := m.root.Leaf(nil, ca.TBS(func(t *ca.TBSCertificate) { t.Extensions = append(t.Extensions, t.Extensions[0]) }), unparsed)
			m.Chain[1] = twice.Chain[0]
		}},
		{"IC-19", "a certificate with bytes behind it", all(invalid), nil, leaf(ca.Tamper(func(der []byte) []byte { return append(der, 0, 0) }))},
		{"IC-19", "no certificate at all", all(invalid), nil, leaf(ca.Tamper(func([]byte) []byte { return []byte("junk") }))},
		{"IC-19", "a certificate cut short", all(invalid), nil, leaf(ca.Tamper(func(der []byte) []byte { return der[:len(der)/2] }))},
		{"IC-19", "a length beyond the end", all(invalid), nil, leaf(ca.Tamper(func(der []byte) []byte { der[3] ^= 0x40; return der }))},
		{"IC-40", "serial 0", odd, noted("positive and of at most 20 octets"), leaf(serial(big.NewInt(0)))},
		{"IC-40", "serial negative", all(invalid), nil, leaf(serial(big.NewInt(-7)), unparsed)},
		{"IC-40", "serial of 21 octets", odd, noted("positive and of at most 20 octets"), leaf(serial(new(big.Int).Lsh(big.NewInt(1), 8*21-2)))},
		{"IC-40", "no authorityKeyIdentifier", odd, noted("has no authorityKeyIdentifier"), leaf(without(oidAKI))},
		{"IC-40", "a CA without subjectKeyIdentifier", odd, noted("no subjectKeyIdentifier"), below(without(oidSKI))},
		{"IC-40", "subjectAltName critical beside a subject", odd, noted("has a subject, and its subjectAltName is critical"), leaf(ca.NoSAN(), extension(pkix.Extension{
			Id: oidSAN, Critical: true, Value: sanOf("good.test")}))},
		{"IC-40", "no subject, subjectAltName not critical", odd, noted("no subject, and its subjectAltName is not critical"), leaf(ca.NoSAN(), extension(pkix.Extension{
			Id: oidSAN, Value: sanOf("good.test")}), tmpl(func(c *x509.Certificate) { c.Subject = pkix.Name{} }))},
		{"IC-40", "no subject, subjectAltName critical", all(pass), nil, leaf(ca.CN(""))},
	}
	for _, e := range []struct {
		name string
		id   asn1.ObjectIdentifier
	}{{"keyUsage", oidKeyUsage}, {"subjectAltName", oidSAN}, {"basicConstraints", oidBC}} {
		for _, value := range [][]byte{{0xff}, {0x30, 0x80}, {0x30, 0x03, 0x01, 0x05, 'a'}, bytes.Repeat([]byte{0}, 300)} {
			cases = append(cases, Case{"IC-19", fmt.Sprintf("%s is % x", e.name, value[:min(len(value), 5)]), all(invalid), nil,
				leaf(unparsed, appended(pkix.Extension{Id: e.id, Value: value}))})
		}
	}
	return cases
}

// unparsed lets a leaf pass that x509 cannot read.
var unparsed = ca.Tamper(func(der []byte) []byte { return der })

// appended replaces an extension behind x509's back.
func appended(e pkix.Extension) ca.Option {
	return ca.TBS(func(t *ca.TBSCertificate) {
		t.Extensions = append(slices.DeleteFunc(t.Extensions, func(o pkix.Extension) bool { return o.Id.Equal(e.Id) }), e)
	})
}

func sanOf(name string) []byte {
	der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}})
	if err != nil {
		panic(err)
	}
	return der
}

func hosts(n int) []string {
	names := []string{"good.test"}
	for i := range n - 1 {
		names = append(names, fmt.Sprintf("host-%d.example.test", i))
	}
	return names
}

// sizeCases are answered within bounds of time and memory, whatever the answer.
func sizeCases() []Case {
	return []Case{
		{"IC-38", "91 intermediates", all(invalid), nil, func(m *Made) {
			c := m.root
			for range 91 {
				c = c.Intermediate()
			}
			m.send(c.Leaf(good))
		}},
		{"IC-38", "1000 certificates", all(invalid), nil, func(m *Made) {
			// Small ones: crypto/tls reads no more than 256 KiB of them.
			m.send(m.root.Intermediate().Leaf(good))
			small := m.root.Leaf(nil, ca.Ed25519(), ca.V1(), ca.CN("")).Chain[0]
			for len(m.Chain) < 1000 {
				m.Chain = append(m.Chain, small)
			}
		}},
		{"IC-38", "1000 names", all(pass), nil, leafFor(hosts(1000))},
		{"IC-38", "1000 names, none fits", all(nameWrong), nil, named("bad.test", leafFor(hosts(1000)))},
		{"IC-38", "10000 names", all(invalid), nil, leafFor(hosts(10000))},
		{"IC-38", "a message of 1 MiB", all(invalid), nil, leaf(extension(pkix.Extension{Id: privateOID, Value: make([]byte, 1<<20)}))},
		{"IC-38", "4000 names under as many constraints", all(invalid), nil, func(m *Made) {
			i := m.root.Intermediate(tmpl(func(c *x509.Certificate) { c.ExcludedDNSDomains = hosts(4096)[1:] }))
			m.send(i.Leaf(good, tmpl(func(c *x509.Certificate) { c.DNSNames = append([]string{"good.test"}, hosts(4000)[1:]...) })))
		}},
		{"IC-38", "3000 mailboxes, each of them permitted", all(invalid), nil, func(m *Made) {
			var mails []string
			for i := range 3000 {
				mails = append(mails, fmt.Sprintf("m%d@good.test", i))
			}
			i := m.root.Intermediate(tmpl(func(c *x509.Certificate) { c.PermittedEmailAddresses = mails }))
			m.send(i.Leaf(append([]string{"good.test"}, mails...)))
		}},
		{"IC-38", "forty certificates of one name", all(unknownCA), nil, func(m *Made) {
			top := m.other.Intermediate(ca.CN("same"))
			m.send(top.Leaf(good))
			for len(m.Chain) < 40 {
				top = top.Intermediate(ca.CN("same"))
				m.Chain = append(m.Chain, top.Cert.Raw)
			}
		}},
	}
}
