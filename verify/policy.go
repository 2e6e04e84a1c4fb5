package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"time"

	"sallyport/name"
)

// What RFC 5280 and the WebPKI's rules say against a certificate, and what
// installations live with nevertheless, is for the profile to decide; doc/verify.md
// has the table. The first of a row's stances is that of Private, then WebPKI, Strict.
type policy [3]stance

type stance uint8

const (
	silent stance = iota
	noted
	refused
)

var (
	wildcardSuffix = policy{noted, refused, refused}
	usageAbsent    = policy{silent, noted, refused}
	usageNotNamed  = policy{silent, refused, refused}
	leafIsCA       = policy{noted, noted, refused}
	ownAnchorIsCA  = policy{silent, noted, refused} // openssl req -x509 makes them so
	oldAnchor      = policy{silent, noted, refused}
	longValidity   = policy{silent, noted, refused}
	oddForm        = policy{noted, noted, refused}
)

func (p policy) of(f Profile) stance {
	switch f {
	case Private:
		return p[0]
	case WebPKI:
		return p[1]
	}
	return p[2]
}

// findings is what a profile has to say of one path.
type findings struct {
	profile Profile
	refusal *Error
	notes   []Note
}

func (f *findings) add(row policy, r Reason, format string, args ...any) {
	err := fail(r, format, args...)
	switch row.of(f.profile) {
	case refused:
		if f.refusal == nil {
			f.refusal = err
		}
	case noted:
		f.notes = append(f.notes, Note{r, err.Error()})
	}
}

// judgePolicy holds a path, of which the floors are known to hold, against the
// rows that are left to the profile.
func (f *findings) judgePolicy(p *Presented, chain []*x509.Certificate) {
	leaf, anchor := chain[0], chain[len(chain)-1]
	if p.Role == Server {
		f.wildcard(p, leaf)
	}
	f.usage(p, leaf)
	switch {
	case leaf.IsCA && len(chain) == 1:
		f.add(ownAnchorIsCA, Invalid, "the %s is that of a CA, not of a %s", describe(leaf), p.Role)
	case leaf.IsCA:
		f.add(leafIsCA, Invalid, "the %s is that of a CA, not of a %s", describe(leaf), p.Role)
	}
	if anchor.Version < 3 {
		f.add(oldAnchor, Invalid, "the trust anchor %s is an X.509v%d certificate", subject(anchor), anchor.Version)
	}
	if d, most := leaf.NotAfter.Sub(leaf.NotBefore), longest(p.Role, leaf.NotBefore); d > most {
		f.add(longValidity, Invalid, "the %s is valid for %d days; public CAs give at most %d", describe(leaf), days(d), days(most))
	}
	for i, c := range chain {
		switch {
		case i < len(chain)-1: // who trusts an anchor has looked at it
			f.form(c, i > 0)
			if len(c.AuthorityKeyId) == 0 && len(chain[i+1].SubjectKeyId) > 0 {
				f.add(oddForm, Invalid, "the %s has no authorityKeyIdentifier", describe(c))
			}
		case i == 0:
			f.form(c, false)
		}
	}
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }

// wildcard is about *.com, which stands for the sites of many owners.
func (f *findings) wildcard(p *Presented, leaf *x509.Certificate) {
	_, parent, ok := strings.Cut(strings.ToLower(strings.TrimSuffix(p.Name, ".")), ".")
	if !ok || !name.IsPublicSuffix(parent) {
		return
	}
	for _, n := range leaf.DNSNames {
		if strings.EqualFold(n, strings.TrimSuffix(p.Name, ".")) {
			return
		}
	}
	if slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.EqualFold(n, "*."+parent) }) {
		f.add(wildcardSuffix, NameWrong, "the %s is for %s, which is every site below a public suffix", describe(leaf), quote("*."+parent))
	}
}

func (f *findings) usage(p *Presented, leaf *x509.Certificate) {
	usage, word := x509.ExtKeyUsageServerAuth, "serverAuth"
	if p.Role == Client {
		usage, word = x509.ExtKeyUsageClientAuth, "clientAuth"
	}
	switch {
	case slices.Contains(leaf.ExtKeyUsage, usage):
	case len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0:
		f.add(usageAbsent, KeyUsage, "the %s has no extKeyUsage, so that it is good for anything", describe(leaf))
	default:
		f.add(usageNotNamed, KeyUsage, "the %s does not name %s in its extKeyUsage; profile: private takes it", describe(leaf), word)
	}
}

// longest is how long a public CA may make a certificate valid that begins at t:
// Baseline Requirements for TLS server certificates, section 6.3.2.
func longest(r Role, t time.Time) time.Duration {
	const day = 24 * time.Hour
	begin := func(year int, month time.Month) time.Time {
		return time.Date(year, month, 15, 0, 0, 0, 0, time.UTC)
	}
	switch {
	case r == Client, t.Before(begin(2026, time.March)):
		return 398 * day
	case t.Before(begin(2027, time.March)):
		return 200 * day
	case t.Before(begin(2029, time.March)):
		return 100 * day
	}
	return 47 * day
}

var (
	oidSubjectKeyID   = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

const maxSerialBits = 159 // 20 octets with the sign (RFC 5280, section 4.1.2.2)

// form is what RFC 5280 asks of a certificate that no verdict depends on.
func (f *findings) form(c *x509.Certificate, issues bool) {
	if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > maxSerialBits {
		f.add(oddForm, Invalid, "the %s has the serial number %s, which is to be positive and of at most 20 octets", describe(c), quote(c.SerialNumber.Text(16)))
	}
	if issues && extensionOf(c, oidSubjectKeyID) == nil {
		f.add(oddForm, Invalid, "the %s, of a CA, has no subjectKeyIdentifier", describe(c))
	}
	san := extensionOf(c, oidSubjectAltName)
	switch empty := string(c.RawSubject) == "\x30\x00"; {
	case san == nil:
		if empty {
			f.add(oddForm, Invalid, "the %s has neither subject nor subjectAltName", describe(c))
		}
	case empty && !san.Critical:
		f.add(oddForm, Invalid, "the %s has no subject, and its subjectAltName is not critical", describe(c))
	case !empty && san.Critical:
		f.add(oddForm, Invalid, "the %s has a subject, and its subjectAltName is critical", describe(c))
	}
}

func extensionOf(c *x509.Certificate, oid asn1.ObjectIdentifier) *pkix.Extension {
	for i := range c.Extensions {
		if c.Extensions[i].Id.Equal(oid) {
			return &c.Extensions[i]
		}
	}
	return nil
}

// distrusted are keys that anybody may hold, or whose owner signed what they
// should not have, by the SHA-256 of their SubjectPublicKeyInfo. Each hash was
// taken from the certificate itself. It is no blocklist of today's: that is what
// the system's trust anchors are kept for.
var distrusted = map[[sha256.Size]byte]string{
	spki("4bb8f35ba1e126f8dde1b0c420625ed86dce61a7bddadbdea9aba578ff13145e"): "Superfish, the private key of which is public",
	spki("cdee9f3305572a677e1a6c82dc1e02a35b11cae6a684338c9f37fe1ac8daec23"): "eDellRoot, the private key of which is public",
	spki("130ad4e0633521290531b6651f5759b0bc7bc656709ff8f365c2143b0389b6f6"): "DSDTestProvider, the private key of which is public",
	spki("a903af8c07bb91b0d9e3f3a30c6d53339fc5bd47e5d6bdb476598860c068a024"): "DigiNotar Root CA, which others signed with",
	spki("d6a18443d348db994f934ccd8e635d833a27ac1e56f8afaf7c97cb4f43eab68b"): "Certification Authority of WoSign, which dated certificates back",
	spki("1f4224cec84fc99ced881ff6fcfd3e21f8c519c547aa6a5dd3de247302ce50d1"): "CNNIC ROOT, which gave a CA away",
	spki("3ff2809afbc23990716b819c67cf6fe20d6883f482eee210b495bb8a3f843c61"): "preact-cli, the private key of which is public",
	spki("2bd1e667ec9ebbe02b9a7da264210c99b3eac1cc9141a0e30e3f623eaccec4e1"): "webpack-dev-server, the private key of which is public",
}

func spki(text string) [sha256.Size]byte {
	pin, err := ParsePin(text)
	if err != nil {
		panic(err)
	}
	return pin
}

// trusted refuses a path by whose keys stand in it.
func (k PKIX) trusted(chain []*x509.Certificate) error {
	for i, c := range chain {
		key := spkiOf(c)
		if who, bad := distrusted[key]; bad {
			return fail(Distrusted, "the %s has the key of %s; no configuration makes it a trust anchor", describe(c), who)
		}
		// A certificate that serves on both sides, as its own anchor, signs for nobody.
		if _, ours := k.Own[key]; ours && i > 0 {
			return fail(OwnCA, "the %s is of a CA whose private key is here, for our clients: what it signs, this process or whoever got its key may have made, to stand between us and the server; have the server's certificate signed by another CA, or give `cert` here a leaf and not the CA", describe(c))
		}
	}
	return nil
}
