package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"strings"
)

// Bounds on what a stranger may have us look at; no honest chain comes near.
const (
	maxPresented = 40        // certificates; Netflix's BetterTLS has cases of 36
	maxBytes     = 256 << 10 // of all of them; crypto/tls reads no longer message
	maxNames     = 4096      // subjectAltNames of a leaf
)

// PKIX authenticates by a path to a trust anchor (RFC 5280) and, for a server,
// by its name (RFC 9525). The zero value trusts nobody.
type PKIX struct {
	Anchors *Anchors
	From    string  // where the anchors are configured, for the texts: to.ca
	Profile Profile // anything but WebPKI and Private is Strict
	Own     Keys    // of CAs whose private halves this process has; read when somebody is authenticated
	Issuers Issuers // finds intermediates that are left out; nil: nobody looks for them
}

// Keys is a set of public keys.
type Keys map[[sha256.Size]byte]struct{} // by the SHA-256 of their SubjectPublicKeyInfo

// Add has the key of c in k.
func (k Keys) Add(c *x509.Certificate) { k[spkiOf(c)] = struct{}{} }

// String is the name for [Identity.By].
func (k PKIX) String() string { return "pkix" }

// Authenticate finds the paths from the leaf to an anchor and keeps those that
// the profile takes.
func (k PKIX) Authenticate(ctx context.Context, p *Presented) (*Identity, error) {
	if err := bounds(p); err != nil {
		return nil, err
	}
	leaf := p.Chain[0]
	if err := atTime(leaf, p.Now, false, k.From); err != nil {
		return nil, err
	}
	if p.Role == Server {
		if err := matchName(leaf, p.Name); err != nil {
			return nil, err
		}
	}
	if k.Anchors == nil || k.Anchors.Pool == nil {
		// To x509 no pool means the system's.
		return nil, fail(UnknownCA, "%s has no trust anchors", k.from())
	}
	key, keeps := keyOf(p)
	key.chased = k.Issuers != nil
	chains := k.Anchors.paths.at(key, p.Now)
	known := chains != nil
	if !known {
		var err error
		if chains, err = k.find(ctx, p); err != nil {
			return nil, err
		}
	}
	good, notes, err := k.judge(p, chains)
	if err != nil {
		return nil, err
	}
	if !known && keeps {
		k.Anchors.paths.keep(key, chains)
	}
	id := identify(k.String(), leaf, good, true)
	id.notes.list = notes
	return id, nil
}

// find gives the paths to the anchors.
func (k PKIX) find(ctx context.Context, p *Presented) ([][]*x509.Certificate, error) {
	chains, err := p.Chain[0].Verify(k.options(p))
	if err == nil {
		return chains, nil
	}
	if k.Issuers == nil || !leadsNowhere(err) {
		return nil, k.explain(p, err)
	}
	return k.chase(ctx, p, err)
}

// judge gives the paths that pass, and what there is to note of the first. Where
// none does, it is the first's fault that is heard.
func (k PKIX) judge(p *Presented, chains [][]*x509.Certificate) (good [][]*x509.Certificate, notes []Note, first error) {
	for _, chain := range chains {
		f := findings{profile: k.Profile}
		err := k.trusted(chain)
		if err == nil {
			err = floors(p, chain)
		}
		if err == nil {
			if f.judgePolicy(p, chain); f.refusal != nil {
				err = f.refusal
			}
		}
		switch {
		case err != nil && first == nil:
			first = err
		case err == nil:
			if good == nil {
				notes = f.notes[:min(len(f.notes), maxNotes)]
			}
			good = append(good, chain)
		}
	}
	if len(good) > 0 {
		first = nil
	}
	return good, notes, first
}

func (k PKIX) options(p *Presented) x509.VerifyOptions {
	usage := x509.ExtKeyUsageServerAuth
	if p.Role == Client {
		usage = x509.ExtKeyUsageClientAuth
	}
	inter := x509.NewCertPool()
	for _, c := range p.Chain[1:] {
		inter.AddCert(c)
	}
	return x509.VerifyOptions{
		Roots:         k.Anchors.Pool,
		Intermediates: inter,
		CurrentTime:   p.Now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	}
}

func (k PKIX) from() string {
	if k.From == "" {
		return "the configuration"
	}
	return k.From
}

// bounds also makes sure that nothing below computes with a giant key.
func bounds(p *Presented) error {
	if len(p.Chain) == 0 {
		return fail(Missing, "the %s sent no certificate", p.Role)
	}
	if p.Now.IsZero() { // x509 would take the clock of the process
		return fail(Invalid, "no time to verify at")
	}
	if n := len(p.Chain); n > maxPresented {
		return fail(Invalid, "the %s sent %d certificates; at most %d are looked at", p.Role, n, maxPresented)
	}
	size := 0
	for _, c := range p.Chain {
		size += len(c.Raw)
		if err := tooLarge(c); err != nil {
			return err
		}
	}
	if size > maxBytes {
		return fail(Invalid, "the %s sent %d bytes of certificates; at most %d are looked at", p.Role, size, maxBytes)
	}
	leaf := p.Chain[0]
	if n := len(leaf.DNSNames) + len(leaf.IPAddresses) + len(leaf.URIs) + len(leaf.EmailAddresses); n > maxNames {
		return fail(Invalid, "the %s has %d names; at most %d are looked at", describe(leaf), n, maxNames)
	}
	return nil
}

// matchName holds the certificate's subjectAltNames against the reference
// identity. The common name never counts (RFC 9525, section 2).
func matchName(leaf *x509.Certificate, name string) error {
	if strings.HasPrefix(name, spiffeScheme) {
		return matchSVID(leaf, name)
	}
	host := strings.TrimSuffix(strings.Trim(name, "[]"), ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		return matchAddr(leaf, addr.WithZone("").Unmap())
	}
	if host == "" {
		return fail(NameWrong, "there is no name to verify the server by: set to.name")
	}
	if !isHost(host) {
		return fail(NameWrong, "%s is no name that a certificate can have; write an international name in its xn-- form in to.name", quote(name))
	}
	if leaf.VerifyHostname(host) == nil {
		return nil
	}
	switch {
	case len(leaf.DNSNames) > 0:
		return fail(NameWrong, "the %s is for %s, not for %s; if the server is the right one, set to.name to a name it has",
			describe(leaf), list(leaf.DNSNames), quote(name))
	case strings.EqualFold(leaf.Subject.CommonName, host):
		return fail(NameWrong, "the %s has the name %s in its common name only; it needs a subjectAltName (RFC 9525)", describe(leaf), quote(name))
	case len(leaf.IPAddresses) > 0:
		return fail(NameWrong, "the %s is for the address %s, not for the name %s", describe(leaf), addresses(leaf), quote(name))
	}
	return fail(NameWrong, "the %s has no subjectAltName, so it is not for %s", describe(leaf), quote(name))
}

func matchAddr(leaf *x509.Certificate, addr netip.Addr) error {
	for _, ip := range leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap() == addr {
			return nil
		}
	}
	if len(leaf.IPAddresses) > 0 {
		return fail(NameWrong, "the %s is for the address %s, not for %s", describe(leaf), addresses(leaf), addr)
	}
	if len(leaf.DNSNames) > 0 {
		return fail(NameWrong, "the %s is for %s and has no iPAddress, so it is not for %s; set to.name to a name it has",
			describe(leaf), list(leaf.DNSNames), addr)
	}
	return fail(NameWrong, "the %s has no subjectAltName, so it is not for %s", describe(leaf), addr)
}

func addresses(c *x509.Certificate) string {
	var texts []string
	for _, ip := range c.IPAddresses {
		texts = append(texts, ip.String())
	}
	return list(texts)
}

// isHost is RFC 1123, section 2.1, and the underscore that private names have.
// With it VerifyHostname never takes its way of comparing unlike strings whole.
func isHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}
