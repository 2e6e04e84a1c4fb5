package testca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ca"
)

// Profiles are the names of the profiles, in the order of [Want].
func Profiles() []string { return []string{"private", "webpki", "strict"} }

// Want is a verdict for each of [Profiles]: a reason of the flow record, or ""
// where the chain passes. The last one also holds for the profiles after it.
type Want []string

// ByHandshake says that the chain is good and what the server does with it is not.
func (c Case) ByHandshake() bool { return c.Want[0] == handshakeFailed }

// Of is the verdict of a profile.
func (w Want) Of(profile string) string {
	return w[min(slices.Index(Profiles(), profile), len(w)-1)]
}

// Same says whether the profiles agree.
func (w Want) Same() bool {
	for _, r := range w {
		if r != w[0] {
			return false
		}
	}
	return true
}

func all(reason string) Want { return Want{reason} }

// The reasons, as the flow record has them.
const (
	pass        = ""
	expired     = "cert_expired"
	notYetValid = "cert_not_yet_valid"
	unknownCA   = "unknown_ca"
	invalid     = "cert_invalid"
	nameWrong   = "name_mismatch"
	weakKey     = "weak_key"
	weakSig     = "weak_sig"
	keyUsage    = "key_usage"
	distrusted  = "ca_distrusted"
	ownCA       = "own_ca_upstream"

	handshakeFailed = "server_handshake_failed"
)

// Case is one row about certificates.
type Case struct {
	ID    string // of INTERCEPTION, IC-01 and on
	Title string
	Want  Want
	Notes Notes // what the record has to say where the chain passes
	make  func(*Made)
}

// Notes are texts that a profile has to note of a chain which it takes; it notes
// nothing of others.
type Notes map[string]string

// Name is one for a subtest.
func (c Case) Name() string { return c.ID + " " + c.Title }

// Made is a case, made.
type Made struct {
	Name    string // reference identity: a DNS name or an address
	Anchors []*x509.Certificate
	Chain   [][]byte      // as sent, leaf first; not all of it need parse
	Key     crypto.Signer // of the leaf; nil where nobody has it
	Own     *ca.Leaf      // what the proxy serves its clients with besides, if anything

	t           ca.T
	now         time.Time
	root, other *ca.Tester // a root that is trusted, and one that is not
}

// Make makes the chain as of now. What fails, fails the test.
func (c Case) Make(t ca.T, now time.Time) *Made {
	t.Helper()
	m := &Made{t: t, now: now, Name: good[0], root: ca.TestAt(t, now), other: ca.TestAt(t, now)}
	m.Anchors = []*x509.Certificate{m.root.Cert}
	c.make(m)
	return m
}

// Parsed is the chain, where all of it parses.
func (m *Made) Parsed() ([]*x509.Certificate, error) {
	return x509.ParseCertificates(bytes.Join(m.Chain, nil))
}

// AnchorsPEM is what a file of trust anchors has.
func (m *Made) AnchorsPEM() []byte {
	var out []byte
	for _, c := range m.Anchors {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

var good = []string{"good.test"}

// send has l presented with its chain, and more behind that.
func (m *Made) send(l *ca.Leaf, more ...*x509.Certificate) {
	m.Chain, m.Key = slices.Clone(l.Chain), l.Key
	for _, c := range more {
		m.Chain = append(m.Chain, c.Raw)
	}
}

// trust replaces the anchors.
func (m *Made) trust(roots ...*ca.Tester) {
	m.Anchors = nil
	for _, r := range roots {
		m.Anchors = append(m.Anchors, r.Cert)
	}
}

// leaf is a row of one leaf below an intermediate.
func leaf(opts ...ca.Option) func(*Made) { return leafFor(good, opts...) }

func leafFor(names []string, opts ...ca.Option) func(*Made) {
	return func(m *Made) { m.send(m.root.Intermediate().Leaf(names, opts...)) }
}

// below is a row of a good leaf below an intermediate that is not.
func below(opts ...ca.Option) func(*Made) {
	return func(m *Made) { m.send(m.root.Intermediate(opts...).Leaf(good)) }
}

// under is a row of a good leaf below a root that is not.
func under(opts ...ca.Option) func(*Made) {
	return func(m *Made) {
		root := ca.TestAt(m.t, m.now, opts...)
		m.trust(root)
		m.send(root.Leaf(good))
	}
}

func named(name string, f func(*Made)) func(*Made) {
	return func(m *Made) { m.Name = name; f(m) }
}

func tmpl(f func(*x509.Certificate)) ca.Option { return ca.Template(f) }

// ForClients is the row for a client that presents the chain: no name is asked for,
// and its usage is clientAuth. ok is false where nothing is left of it.
func (c Case) ForClients() (_ Case, ok bool) {
	switch {
	case slices.Contains(c.Want, nameWrong), c.ID == "IC-48":
		return c, false
	case c.Title == "clientAuth alone":
		c.Want = all(pass)
	case strings.HasPrefix(c.Title, "398 days"): // for servers it is 200
		c.Want, c.Notes = all(pass), nil
	case c.ID == "IC-39" && c.Notes != nil:
		c.Notes = Notes{"webpki": "at most 398"}
	}
	return c, true
}

// Cases is the table.
func Cases() []Case {
	return slices.Concat(pathCases(), nameCases(), constraintCases(), usageCases(), ownCases(), keyCases(),
		signatureCases(), formCases(), orderCases(), sizeCases())
}
