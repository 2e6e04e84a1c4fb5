package rule

import (
	"fmt"
	"time"
)

// Rule is an expression over a [Subject]: whether a client may pass.
type Rule struct{ expression }

var ofSubject = language{of: Subject{}, hint: "it can ask of names, dns, uri, email, ip_san, cn, ou, subject, issuer, serial, spki, not_before, not_after, sni, alpn, address, version, resumed and time; see sallyport.yaml(5)"}

// Parse compiles the `if` of an access rule.
func Parse(text string) (*Rule, error) {
	e, err := compile(text, ofSubject)
	if err != nil {
		return nil, err
	}
	return &Rule{e}, nil
}

// Holds says whether the rule is true of s. What fails is not true.
func (r *Rule) Holds(s *Subject) (bool, error) {
	if err := s.bounded(); err != nil {
		return false, err
	}
	return r.holds(s)
}

// Subject is what an expression can ask of, by the names in its tags.
type Subject struct {
	Names     []string  `expr:"names" doc:"all subjectAltNames, as in the log"`
	DNS       []string  `expr:"dns" doc:"the dNSNames"`
	URI       []string  `expr:"uri" doc:"the URIs"`
	Email     []string  `expr:"email" doc:"the rfc822Names"`
	IPSAN     []string  `expr:"ip_san" doc:"the iPAddresses"`
	CN        string    `expr:"cn" doc:"the common name; empty where there are none or several"`
	OU        []string  `expr:"ou" doc:"the organizational units"`
	Subject   string    `expr:"subject" doc:"the subject, as RFC 4514 writes it"`
	Issuer    string    `expr:"issuer" doc:"the issuer, as RFC 4514 writes it"`
	Serial    string    `expr:"serial" doc:"the serial number in hexadecimal, lower case"`
	SPKI      string    `expr:"spki" doc:"the key, as sha256//BASE64"`
	NotBefore time.Time `expr:"not_before" doc:"when the certificate begins"`
	NotAfter  time.Time `expr:"not_after" doc:"when it ends"`
	SNI       string    `expr:"sni" doc:"the server name that the client asked for"`
	ALPN      string    `expr:"alpn" doc:"the protocol agreed on"`
	Address   string    `expr:"address" doc:"the client's IP address; empty for a unix socket"`
	Version   string    `expr:"version" doc:"TLS 1.2, TLS 1.3, DTLS 1.2 and the like"`
	Resumed   bool      `expr:"resumed" doc:"whether the session was resumed"`
	Time      time.Time `expr:"time" doc:"now, in UTC"`
}

// Bounds on what a stranger may have evaluated. Certificates of public CAs have
// 100 names at most; a SPIFFE ID has 2048 bytes.
const (
	maxItems = 128      // of one list
	maxOne   = 2048     // bytes of one text
	maxAll   = 16 << 10 // of all texts
)

func (s *Subject) bounded() error {
	all := 0
	one := func(t string) error {
		if all += len(t); len(t) > maxOne || all > maxAll {
			return fmt.Errorf("the certificate has too long names for an `if`: %d bytes in one, or %d in all, are more than is looked at", maxOne, maxAll)
		}
		return nil
	}
	for _, list := range [][]string{s.Names, s.DNS, s.URI, s.Email, s.IPSAN, s.OU, {s.CN, s.Subject, s.Issuer, s.Serial, s.SNI, s.ALPN}} {
		if len(list) > maxItems {
			return fmt.Errorf("the certificate has too many names for an `if`: %d, and %d are looked at", len(list), maxItems)
		}
		for _, t := range list {
			if err := one(t); err != nil {
				return err
			}
		}
	}
	return nil
}
