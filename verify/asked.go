package verify

import (
	"fmt"

	"sallyport/rule"
)

// asked is what an expression sees of id. A name that nobody vouches for is not
// in it, since no expression is asked then.
func asked(p *Presented, id *Identity) *rule.Subject {
	c := id.leaf
	s := &rule.Subject{
		Names: id.Names(), DNS: c.DNSNames, Email: c.EmailAddresses, OU: c.Subject.OrganizationalUnit,
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: fmt.Sprintf("%x", c.SerialNumber), SPKI: FormatPin(id.spki),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		SNI: p.SNI, ALPN: p.ALPN, Version: versionName(p.Version), Resumed: p.Resumed, Time: p.Now.UTC(),
	}
	s.CN, _ = onlyCN(c)
	for _, u := range c.URIs {
		s.URI = append(s.URI, u.String())
	}
	for _, ip := range c.IPAddresses {
		s.IPSAN = append(s.IPSAN, ip.String())
	}
	if a := p.Remote.Addr(); a.IsValid() {
		s.Address = a.Unmap().WithZone("").String()
	}
	return s
}

// versionName is as in the log.
func versionName(v uint16) string {
	switch v {
	case 0x0301, 0x0302, 0x0303, 0x0304:
		return fmt.Sprintf("TLS 1.%d", v-0x0301)
	case 0xfefd:
		return "DTLS 1.2"
	case 0xfefc:
		return "DTLS 1.3"
	}
	return ""
}
