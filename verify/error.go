package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Reason is a stable code for a refusal. Those about certificates are the words
// of the flow record where a server is refused.
type Reason string

const (
	Expired     Reason = "cert_expired"
	NotYetValid Reason = "cert_not_yet_valid"
	UnknownCA   Reason = "unknown_ca"
	Invalid     Reason = "cert_invalid"
	NameWrong   Reason = "name_mismatch"
	WeakKey     Reason = "weak_key"
	WeakSig     Reason = "weak_sig"
	KeyUsage    Reason = "key_usage"
	PinWrong    Reason = "pin_mismatch"
	Distrusted  Reason = "ca_distrusted"
	OwnCA       Reason = "own_ca_upstream"
	CTMissing   Reason = "ct_missing" // no SCT at all
	CTInvalid   Reason = "ct_invalid" // too few count, others being bad
	CTTooFew    Reason = "ct_too_few"
	CTNoList    Reason = "ct_no_list"

	DANEAbsent   Reason = "dane_absent"   // for sure none that can be used
	DANEInsecure Reason = "dane_insecure" // the zone is not signed
	DANEMismatch Reason = "dane_mismatch"
	DANEBogus    Reason = "dane_bogus"
	DANELookup   Reason = "dane_lookup" // no answer

	RevokedCert       Reason = "revoked"
	RevocationUnknown Reason = "revocation_unknown"
	MustStaple        Reason = "must_staple" // and no good staple

	NotAllowed Reason = "not_allowed" // a good certificate that no access rule takes
	Missing    Reason = "missing"     // no certificate at all
)

// Error is a refusal.
type Error struct {
	Reason Reason
	By     string // whose word it is, as of [Identity.By]; empty where nobody was asked
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

func fail(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Err: fmt.Errorf(format, args...)}
}

// by says that a refusal is the word of who, unless it says already whose it is.
func by(who any, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.By == "" {
		return &Error{e.Reason, whose(who), err}
	}
	return err
}

// whose also names those that refuse and whose passing says little.
func whose(who any) string {
	switch w := who.(type) {
	case *revocation:
		return revocationHard{w}.String()
	case allowAll:
		return allow{}.String()
	case fmt.Stringer:
		return w.String()
	}
	return ""
}

// The texts below carry strings that strangers chose: they are quoted, and cut
// so that a certificate with ten thousand names still makes one line.
const (
	maxText = 120
	maxList = 5
)

func quote(s string) string {
	if len(s) > maxText {
		return fmt.Sprintf("%q...", s[:maxText])
	}
	return fmt.Sprintf("%q", s)
}

// list quotes at most maxList of names and counts the rest.
func list(names []string) string {
	var b strings.Builder
	for i, n := range names {
		if i == maxList {
			fmt.Fprintf(&b, " and %d more", len(names)-maxList)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(n))
	}
	return b.String()
}

func subject(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return quote(s)
	}
	if len(c.DNSNames) > 0 {
		return quote(c.DNSNames[0])
	}
	return fmt.Sprintf("no subject (serial %s)", quote(fmt.Sprintf("%x", c.SerialNumber)))
}

func issuer(c *x509.Certificate) string {
	if s := c.Issuer.String(); s != "" {
		return quote(s)
	}
	return "no name"
}

// describe says which certificate of a path is meant.
func describe(c *x509.Certificate) string {
	if selfIssued(c) {
		return fmt.Sprintf("certificate of %s (self-issued)", subject(c))
	}
	return fmt.Sprintf("certificate of %s (issued by %s)", subject(c), issuer(c))
}

// ago is a duration in the words of somebody who has to find the date.
func ago(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
