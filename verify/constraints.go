package verify

import (
	"crypto/x509"
	"net/url"
	"strings"
)

// maxCompared bounds what a certificate of thousands of names under a CA of
// thousands of constraints can cost.
const maxCompared = 1 << 18

// constrain holds mailboxes and URIs against what the CAs above may certify. To
// x509 a constraint such as corp.example also takes all below that name, as it does
// for DNS names; for these RFC 5280, section 4.2.1.10, has it mean that host alone.
// What is excluded x509 judges: there, more is on the safe side.
func constrain(chain []*x509.Certificate) error {
	left := maxCompared
	for i, issuer := range chain[1:] {
		for j, c := range chain[:i+1] {
			if j > 0 && selfIssued(c) {
				continue
			}
			mails, uris := len(issuer.PermittedEmailAddresses), len(issuer.PermittedURIDomains)
			if left -= mails*len(c.EmailAddresses) + uris*len(c.URIs); left < 0 {
				return fail(Invalid, "the %s has too many names under too many name constraints", describe(c))
			}
			for _, m := range c.EmailAddresses {
				if mails > 0 && !permits(issuer.PermittedEmailAddresses, func(p string) bool { return mailWithin(m, p) }) {
					return unpermitted(c, issuer, m)
				}
			}
			for _, u := range c.URIs {
				if uris > 0 && !permits(issuer.PermittedURIDomains, func(p string) bool { return uriWithin(u, p) }) {
					return unpermitted(c, issuer, u.String())
				}
			}
		}
	}
	return nil
}

func permits(list []string, within func(string) bool) bool {
	for _, p := range list {
		if within(p) {
			return true
		}
	}
	return false
}

func unpermitted(c, issuer *x509.Certificate, what string) error {
	return fail(Invalid, "the %s has a name that its issuer %s may not certify (name constraints): %s", describe(c), subject(issuer), quote(what))
}

func mailWithin(mail, constraint string) bool {
	at := strings.LastIndexByte(mail, '@')
	if at < 0 {
		return false
	}
	if i := strings.LastIndexByte(constraint, '@'); i >= 0 { // one mailbox
		return mail[:at] == constraint[:i] && strings.EqualFold(mail[at:], constraint[i:])
	}
	return hostWithin(mail[at+1:], constraint)
}

func uriWithin(u *url.URL, constraint string) bool { return hostWithin(u.Hostname(), constraint) }

// hostWithin: with a period in front all below, without that host alone.
func hostWithin(host, constraint string) bool {
	if strings.HasPrefix(constraint, ".") {
		n := len(host) - len(constraint)
		return n > 0 && strings.EqualFold(host[n:], constraint)
	}
	return constraint == "" || strings.EqualFold(host, constraint)
}
