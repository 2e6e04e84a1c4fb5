package testca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"strings"

	"sallyport/internal/ca"
)

func replace(der []byte, from, to string) []byte {
	return bytes.ReplaceAll(der, []byte(from), []byte(to))
}

var oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17}

// rawSAN is a subjectAltName of dNSNames that x509 would not write.
func rawSAN(names ...string) ca.Option {
	var all []asn1.RawValue
	for _, n := range names {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(n)})
	}
	der, err := asn1.Marshal(all)
	if err != nil {
		panic(err)
	}
	return extension(pkix.Extension{Id: oidSAN, Value: der})
}

func nameCases() []Case {
	label63 := strings.Repeat("a", 63)
	var cases []Case
	for _, n := range []struct {
		id, title, name string
		sans            []string
		want            Want
	}{
		{"IC-05", "wrong host", "bad.test", good, all(nameWrong)},
		{"IC-05", "a suffix of what is presented", "test", good, all(nameWrong)},
		{"IC-05", "a name below the one presented", "a.good.test", good, all(nameWrong)},
		{"IC-07", "bare wildcard", "good.test", []string{"*"}, all(nameWrong)},
		{"IC-07", "partial wildcard", "good.test", []string{"g*.test"}, all(nameWrong)},
		{"IC-07", "wildcard over two labels", "a.b.good.test", []string{"*.good.test"}, all(nameWrong)},
		{"IC-07", "wildcard in the middle", "a.b.good.test", []string{"a.*.good.test"}, all(nameWrong)},
		{"IC-07", "wildcard below itself", "good.test", []string{"*.good.test"}, all(nameWrong)},
		{"IC-07", "wildcard", "a.good.test", []string{"*.good.test"}, all(pass)},
		{"IC-09", "address as dNSName", "192.0.2.1", nil, all(nameWrong)},
		{"IC-09", "address", "192.0.2.1", []string{"192.0.2.1"}, all(pass)},
		{"IC-09", "another address", "192.0.2.2", []string{"192.0.2.1"}, all(nameWrong)},
		{"IC-09", "name for an address", "good.test", []string{"192.0.2.1"}, all(nameWrong)},
		{"IC-53", "upper case", "GOOD.test", []string{"good.TEST"}, all(pass)},
		{"IC-53", "trailing dot asked for", "good.test.", good, all(pass)},
		{"IC-53", "trailing dot presented", "good.test", []string{"good.test."}, all(nameWrong)},
		{"IC-53", "trailing dot in both", "good.test.", []string{"good.test."}, all(nameWrong)},
		{"IC-53", "A-label", "xn--bcher-kva.test", []string{"xn--bcher-kva.test"}, all(pass)},
		{"IC-53", "wildcard for an A-label", "xn--bcher-kva.good.test", []string{"*.good.test"}, all(pass)},
		{"IC-53", "partial wildcard A-label", "xn--bcher-kva.test", []string{"xn--*.test"}, all(nameWrong)},
		{"IC-53", "underscore", "a_b.good.test", []string{"a_b.good.test"}, all(pass)},
		{"IC-53", "label of 63", label63 + ".test", []string{label63 + ".test"}, all(pass)},
	} {
		cases = append(cases, Case{n.id, n.title, n.want, nil, named(n.name, leafFor(n.sans))})
	}
	suffix := Want{pass, nameWrong}
	everybody := Notes{"private": "every site below a public suffix"}
	nul := "good.test\x00.evil.test"
	return append(cases,
		Case{"IC-08", "wildcard over a top-level domain", suffix, everybody, leafFor([]string{"*.test"})},
		Case{"IC-08", "wildcard over a top-level domain, and the name itself", all(pass), nil, leafFor([]string{"*.test", "good.test"})},
		Case{"IC-08", "wildcard over a public suffix of two labels", suffix, everybody, named("good.co.uk", leafFor([]string{"*.co.uk"}))},
		Case{"IC-08", "wildcard over a provider's suffix", all(pass), nil, named("good.github.io", leafFor([]string{"*.github.io"}))},
		Case{"IC-06", "common name alone", all(nameWrong), nil, leaf(ca.NoSAN(), ca.CN("good.test"))},
		Case{"IC-06", "common name beside an address", all(nameWrong), nil, leafFor([]string{"192.0.2.1"}, ca.CN("good.test"))},
		Case{"IC-09", "address as dNSName", all(nameWrong), nil, named("192.0.2.1", leaf(tmpl(func(c *x509.Certificate) {
			c.DNSNames = []string{"192.0.2.1"}
		})))},
		Case{"IC-10", "NUL in the common name", all(nameWrong), nil, leaf(ca.NoSAN(), ca.CN(nul))},
		Case{"IC-10", "NUL in the subjectAltName", all(nameWrong), nil, leaf(ca.NoSAN(), rawSAN(nul))},
		Case{"IC-10", "escapes in the subject", all(nameWrong), nil, leafFor([]string{"evil.test"}, ca.CN("\x1b[2J\nlevel=error\""))},
	)
}

func constraintCases() []Case {
	constrain := func(f func(*x509.Certificate)) func(*Made) { return below(tmpl(f)) }
	within := func(names []string, f func(*x509.Certificate)) func(*Made) {
		return func(m *Made) { m.send(m.root.Intermediate(tmpl(f)).Leaf(names)) }
	}
	_, inside, _ := net.ParseCIDR("10.0.0.0/8")
	return []Case{
		{"IC-17", "permitted", all(pass), nil, constrain(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"test"} })},
		{"IC-17", "permitted violated", all(invalid), nil, constrain(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} })},
		{"IC-17", "permitted violated, critical", all(invalid), nil, constrain(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example"}
		})},
		{"IC-17", "permitted, a name beside it that is not", all(invalid), nil, within([]string{"good.test", "bad.example"}, func(c *x509.Certificate) {
			c.PermittedDNSDomains = []string{"test"}
		})},
		{"IC-17", "permitted ends within a label", all(invalid), nil, constrain(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ood.test"} })},
		{"IC-17", "permitted violated by a wildcard", all(invalid), nil, named("a.good.test", within([]string{"*.good.test"}, func(c *x509.Certificate) {
			c.ExcludedDNSDomains = []string{"a.good.test"}
		}))},
		{"IC-17", "excluded violated", all(invalid), nil, constrain(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"good.test"} })},
		{"IC-17", "excluded violated in another case", all(invalid), nil, constrain(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"GOOD.TEST"} })},
		{"IC-17", "two CAs up", all(invalid), nil, func(m *Made) {
			m.send(m.root.Intermediate(tmpl(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} })).Intermediate().Leaf(good))
		}},
		{"IC-17", "on the root", all(invalid), nil, under(tmpl(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }))},
		{"IC-17", "addresses", all(invalid), nil, within([]string{"good.test", "192.0.2.1"}, func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{inside}
		})},
		{"IC-17", "addresses, met", all(pass), nil, named("10.1.2.3", within([]string{"10.1.2.3"}, func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{inside}
		}))},
		{"IC-17", "mailboxes", all(invalid), nil, within([]string{"good.test", "me@good.test"}, func(c *x509.Certificate) {
			c.PermittedEmailAddresses = []string{"example"}
		})},
		{"IC-17", "URIs", all(invalid), nil, within([]string{"good.test", "spiffe://good.test/a"}, func(c *x509.Certificate) {
			c.PermittedURIDomains = []string{"example"}
		})},
		{"IC-17", "a mailbox at a host below the one permitted", all(invalid), nil, within([]string{"good.test", "me@a.good.test"}, func(c *x509.Certificate) {
			c.PermittedEmailAddresses = []string{"good.test"}
		})},
		{"IC-17", "mailboxes, met", all(pass), nil, within([]string{"good.test", "me@good.test", "you@a.other.test", "root@one.test"}, func(c *x509.Certificate) {
			c.PermittedEmailAddresses = []string{"GOOD.test", ".other.test", "root@one.test"}
		})},
		{"IC-17", "a URI at a host below the one permitted", all(invalid), nil, within([]string{"good.test", "spiffe://a.good.test/a"}, func(c *x509.Certificate) {
			c.PermittedURIDomains = []string{"good.test"}
		})},
		{"IC-17", "URIs, met", all(pass), nil, within([]string{"good.test", "spiffe://good.test/a", "https://a.other.test/"}, func(c *x509.Certificate) {
			c.PermittedURIDomains = []string{"good.test", ".other.test"}
		})},
		{"IC-17", "directory names, critical", all(invalid), nil, constrain(func(c *x509.Certificate) {
			// permitted: a directoryName with an empty sequence, which x509 cannot judge.
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true,
				Value: []byte{0x30, 0x08, 0xa0, 0x06, 0x30, 0x04, 0xa4, 0x02, 0x30, 0x00}}}
		})},
	}
}
