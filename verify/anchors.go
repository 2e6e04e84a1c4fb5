package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// Anchors are the certificates that a path may end in.
type Anchors struct {
	Pool     *x509.CertPool
	Hash     [32]byte // over all of them in their order, for what must not outlive a change of trust
	System   bool     // the system's are among them
	Warnings []string

	certs []*x509.Certificate // those from files; the system's cannot be listed
	paths paths
}

// System is the entry that stands for the system's anchors. SSL_CERT_FILE and
// SSL_CERT_DIR say where they are, as crypto/x509 has it.
const System = "system"

// LoadAnchors reads PEM files with any number of certificates each.
func LoadAnchors(now time.Time, entries []string, read func(file string) ([]byte, error)) (*Anchors, error) {
	a := &Anchors{Pool: x509.NewCertPool()}
	for _, e := range entries { // first, since it comes as a pool to add to
		if e != System || a.System {
			continue
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("reading the system's trust anchors: %w; is the package ca-certificates installed?", err)
		}
		a.Pool, a.System = pool, true
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "system=%t\n", a.System)
	for _, e := range entries {
		if e == System {
			continue
		}
		data, err := read(e)
		if err != nil {
			return nil, fmt.Errorf("reading trust anchors: %w", err)
		}
		certs, err := a.parse(e, data)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			a.warn(e, c, now)
			a.Pool.AddCert(c)
			hash.Write(c.Raw)
		}
		a.certs = append(a.certs, certs...)
	}
	if len(a.certs) == 0 && !a.System {
		return nil, fmt.Errorf("no trust anchors were named")
	}
	hash.Sum(a.Hash[:0])
	return a, nil
}

func (a *Anchors) parse(file string, data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := data
	for n := 1; ; n++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		switch {
		case b.Type == "CERTIFICATE":
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil { // bundles of hundreds have odd ones; not to trust them is safe
				a.Warnings = append(a.Warnings, fmt.Sprintf("%s: certificate %d cannot be read and is not trusted: %v", file, n, err))
				continue
			}
			certs = append(certs, c)
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			return nil, fmt.Errorf("%s: holds a private key; a file of trust anchors has certificates only: openssl x509 -in %s -out ca.pem", file, file)
		default:
			return nil, fmt.Errorf("%s: holds a %s where certificates are expected%s", file, quote(b.Type), hintFor(b.Type, file))
		}
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("%s: a PEM block is cut off or damaged after %d certificates", file, len(certs))
	}
	if len(certs) > 0 {
		return certs, nil
	}
	if len(data) > 2 && data[0] == 0x30 && data[1] >= 0x80 { // a SEQUENCE with a long length
		return nil, fmt.Errorf("%s: is DER, not PEM: openssl x509 -inform der -in %s -out ca.pem", file, file)
	}
	return nil, fmt.Errorf("%s: holds no certificate that could be read; trust anchors are PEM (-----BEGIN CERTIFICATE-----)", file)
}

func hintFor(kind, file string) string {
	switch kind {
	case "TRUSTED CERTIFICATE":
		return fmt.Sprintf(": openssl x509 -in %s -out ca.pem", file)
	case "PKCS7", "CMS":
		return fmt.Sprintf(": openssl pkcs7 -in %s -print_certs -out ca.pem", file)
	}
	return ""
}

func (a *Anchors) warn(file string, c *x509.Certificate, now time.Time) {
	say := func(format string, args ...any) {
		a.Warnings = append(a.Warnings, fmt.Sprintf("%s: the trust anchor %s %s", file, subject(c), fmt.Sprintf(format, args...)))
	}
	switch {
	case now.After(c.NotAfter):
		say("expired %s ago, on %s; nothing below it passes", ago(now.Sub(c.NotAfter)), stamp(c.NotAfter))
	case now.Before(c.NotBefore):
		say("is not valid before %s; nothing below it passes", stamp(c.NotBefore))
	}
	if who, bad := distrusted[spkiOf(c)]; bad {
		say("does not count: its key is that of %s", who)
	} else if err := keyFloor(c); err != nil {
		say("does not count: %v", err)
	}
	switch {
	case c.Version < 3:
		say("is an X.509v%d certificate, which does not say what it may sign; profile: strict refuses it", c.Version)
	case !c.IsCA:
		say("is not that of a CA: only the certificate itself is trusted, nothing that it signed")
	}
}
