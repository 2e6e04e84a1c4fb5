package probe

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"time"
)

// Report is what was found out about one server. Its JSON is for programs.
type Report struct {
	To     string `json:"to"`
	Server string `json:"server,omitempty"` // the address that answered
	Failed string `json:"failed,omitempty"` // why nothing more is known
	Reason string `json:"reason,omitempty"` // the same as a word of the log's

	Versions []Try   `json:"versions,omitempty"`
	Groups   []Try   `json:"groups,omitempty"`
	Agreed   *Agreed `json:"agreed,omitempty"`

	Chain    []Certificate `json:"chain,omitempty"`
	Extras   []Extra       `json:"extras,omitempty"`
	Verdicts []Verdict     `json:"verdicts,omitempty"`
	Routes   []Verdict     `json:"routes,omitempty"` // what a connection by each route comes to
}

// Good says whether every route would use the server.
func (r *Report) Good() bool {
	for _, v := range r.Routes {
		if !v.Passes {
			return false
		}
	}
	return r.Failed == "" && len(r.Routes) > 0
}

// Try is whether a handshake with one version or group alone succeeds.
type Try struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Unclear bool   `json:"unclear,omitempty"` // it could not be tried alone
	Why     string `json:"why,omitempty"`
}

// Agreed is what server and prober settle on where both may choose.
type Agreed struct {
	Version string  `json:"version"`
	Cipher  string  `json:"cipher"`
	Group   string  `json:"group,omitempty"`
	ALPN    string  `json:"alpn,omitempty"`
	Millis  float64 `json:"ms"`
}

// Certificate is one of those that the server sent, in its order.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
	Key       string    `json:"key"`
	Signature string    `json:"signature"`
	Pin       string    `json:"pin"`
}

// Extra is evidence beyond the chain: a staple, an SCT, a TLSA record.
type Extra struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Verdict is what one verifier says, or what becomes of a connection.
type Verdict struct {
	By     string   `json:"by"`
	Passes bool     `json:"passes"`
	Reason string   `json:"reason,omitempty"`
	Text   string   `json:"text,omitempty"`
	Notes  []string `json:"notes,omitempty"`
}

func certificate(c *x509.Certificate, now time.Time) Certificate {
	pin := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	out := Certificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Names: c.DNSNames,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, DaysLeft: int(c.NotAfter.Sub(now).Hours() / 24),
		Key: keyText(c), Signature: c.SignatureAlgorithm.String(), Pin: "sha256//" + base64.StdEncoding.EncodeToString(pin[:]),
	}
	for _, ip := range c.IPAddresses {
		out.Names = append(out.Names, ip.String())
	}
	for _, u := range c.URIs {
		out.Names = append(out.Names, u.String())
	}
	return out
}

func keyText(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	}
	return c.PublicKeyAlgorithm.String()
}
