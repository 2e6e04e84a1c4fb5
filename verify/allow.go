package verify

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/name"
	"sallyport/rule"
)

// Rule takes a certificate for which all that it names holds. What is zero does
// not ask; a Rule that asks nothing takes nobody.
type Rule struct {
	DNS   name.Pattern // a dNSName
	URI   name.Pattern // a uniformResourceIdentifier
	CN    name.Pattern // the common name, where there is exactly one
	OU    name.Pattern // one of the organizational units
	Email name.Pattern // an rfc822Name
	IPSAN netip.Prefix // an iPAddress
	SPKI  [32]byte     // SHA-256 of the key
	If    *rule.Rule   // an expression that is true
}

// Allow is a check that any of rules takes the identity.
func Allow(rules []Rule) Check { return allow(slices.Clone(rules)) }

// AllowAll takes every identity that was authenticated.
func AllowAll() Check { return allowAll{} }

type allowAll struct{}

func (allowAll) String() string { return "allow: all" }

func (allowAll) Check(_ context.Context, _ *Presented, id *Identity) error {
	if !id.vouched {
		return fail(NotAllowed, "no trust anchor stands behind the %s", describe(id.leaf))
	}
	return nil
}

type allow []Rule

func (allow) String() string { return "allow" }

func (a allow) Check(_ context.Context, p *Presented, id *Identity) error {
	var failed error
	for i := range a {
		if !a[i].takes(id) {
			continue
		}
		is, err := a[i].holds(p, id)
		if is {
			return nil
		}
		if failed == nil {
			failed = err
		}
	}
	if failed != nil {
		return fail(NotAllowed, "the certificate of %s has %s, and no rule of allow takes it: %w", subject(id.leaf), facts(id), failed)
	}
	return fail(NotAllowed, "the certificate of %s has %s, and none of the %d rules of allow takes it", subject(id.leaf), facts(id), len(a))
}

// holds asks the expression, if there is one. One that fails takes nobody.
func (r *Rule) holds(p *Presented, id *Identity) (bool, error) {
	if r.If == nil {
		return true, nil
	}
	return r.If.Holds(asked(p, id))
}

func (r *Rule) takes(id *Identity) bool {
	c := id.leaf
	if r.SPKI != [32]byte{} && r.SPKI != id.spki {
		return false
	}
	named := !r.DNS.IsZero() || !r.URI.IsZero() || !r.CN.IsZero() || !r.OU.IsZero() || !r.Email.IsZero() || r.IPSAN.IsValid() || r.If != nil
	if !named {
		return r.SPKI != [32]byte{}
	}
	if !id.vouched { // whoever has a pinned key may write any name beside it
		return false
	}
	return (r.DNS.IsZero() || slices.ContainsFunc(c.DNSNames, func(s string) bool {
		// A wildcard is many names, and stands for none of them.
		return !strings.Contains(s, "*") && r.DNS.Match(s)
	})) &&
		(r.URI.IsZero() || takesURI(r.URI, c)) &&
		(r.CN.IsZero() || takesCN(r.CN, c)) &&
		(r.OU.IsZero() || slices.ContainsFunc(c.Subject.OrganizationalUnit, r.OU.Match)) &&
		(r.Email.IsZero() || slices.ContainsFunc(c.EmailAddresses, r.Email.Match)) &&
		(!r.IPSAN.IsValid() || takesAddr(r.IPSAN, c))
}

// takesURI holds SPIFFE's own rules where the pattern is one of its IDs.
func takesURI(p name.Pattern, c *x509.Certificate) bool {
	if strings.HasPrefix(p.String(), spiffeScheme) {
		id, err := SVID(c)
		return err == nil && p.Match(id)
	}
	for _, u := range c.URIs {
		if p.Match(u.String()) {
			return true
		}
	}
	return false
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

func takesCN(p name.Pattern, c *x509.Certificate) bool {
	cn, ok := onlyCN(c)
	return ok && p.Match(cn)
}

// onlyCN is none where a subject has two common names: x509 shows the last of
// them, other programs the first.
func onlyCN(c *x509.Certificate) (string, bool) {
	n := 0
	for _, a := range c.Subject.Names {
		if a.Type.Equal(oidCommonName) {
			n++
		}
	}
	if n != 1 {
		return "", false
	}
	return c.Subject.CommonName, true
}

func takesAddr(prefix netip.Prefix, c *x509.Certificate) bool {
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && prefix.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// facts is what rules could have asked for, in the words that they are written in.
func facts(id *Identity) string {
	if !id.vouched {
		return "the key " + FormatPin(id.spki) + " (its names are vouched for by nobody)"
	}
	c := id.leaf
	var uris, addrs, all []string
	for _, u := range c.URIs {
		uris = append(uris, u.String())
	}
	for _, ip := range c.IPAddresses {
		addrs = append(addrs, ip.String())
	}
	add := func(key string, values []string) {
		if len(values) > 0 {
			all = append(all, fmt.Sprintf("%s %s", key, list(values)))
		}
	}
	add("dns", c.DNSNames)
	add("uri", uris)
	add("email", c.EmailAddresses)
	add("ip_san", addrs)
	add("ou", c.Subject.OrganizationalUnit)
	if c.Subject.CommonName != "" {
		add("cn", []string{c.Subject.CommonName})
	}
	if len(all) == 0 {
		return "no names"
	}
	return strings.Join(all, ", ")
}
