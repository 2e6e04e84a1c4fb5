package verify_test

import (
	"context"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/revoke"
	"sallyport/verify"
)

type certificate = x509.Certificate

// authority is a root with an intermediate, and a server of CRLs and OCSP responses
// for both.
type authority struct {
	*testing.T
	root, inter *ca.Tester
	leaf        *ca.Leaf
	srv         *httptest.Server
	asked       atomic.Int32

	// What is revoked, and what the server does not have.
	revoked              *big.Int
	noCRL, noOCSP, hangs bool
}

const (
	crlHere  = 1 << iota // the certificates name a CRL
	ocspHere             // an OCSP responder
	mustStaple
	short // six days
)

func newAuthority(t *testing.T, kind int) *authority {
	a := &authority{T: t, root: ca.TestAt(t, now)}
	a.srv = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.srv.Close)
	var opts []ca.Option
	name := func(who string) (list []ca.Option) {
		if kind&crlHere != 0 {
			list = append(list, ca.CRLAt(a.srv.URL+"/crl/"+who))
		}
		if kind&ocspHere != 0 {
			list = append(list, ca.OCSPAt(a.srv.URL+"/ocsp/"+who))
		}
		return list
	}
	a.inter = a.root.Intermediate(name("root")...)
	opts = name("inter")
	if kind&mustStaple != 0 {
		opts = append(opts, ca.MustStaple())
	}
	if kind&short != 0 {
		opts = append(opts, ca.Template(func(x *certificate) { x.NotAfter = x.NotBefore.Add(6 * 24 * time.Hour) }))
	}
	a.leaf = a.inter.Leaf(good, opts...)
	return a
}

func (a *authority) serve(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	if a.hangs {
		<-r.Context().Done()
		return
	}
	by, about := a.inter, a.leaf.Cert
	if strings.Contains(r.URL.Path, "/root") {
		by, about = a.root, a.inter.Cert
	}
	switch crl := strings.HasPrefix(r.URL.Path, "/crl"); {
	case crl && a.noCRL, !crl && a.noOCSP:
		http.Error(w, "busy", http.StatusServiceUnavailable)
	case crl:
		w.Write(a.crl(by, now))
	default:
		st := ca.Status{Cert: about, Issuer: by.Cert, This: now.Add(-time.Hour), Next: now.Add(24 * time.Hour)}
		if a.revoked != nil && a.revoked.Cmp(about.SerialNumber) == 0 {
			st.Revoked = now.Add(-time.Hour)
		}
		der, err := by.Responder().Respond(now, st)
		if err != nil {
			a.Error(err)
		}
		w.Write(der)
	}
}

func (a *authority) crl(by *ca.Tester, at time.Time) []byte {
	var list []*big.Int
	if a.revoked != nil {
		list = append(list, a.revoked)
	}
	der, err := by.CRL(at, list, nil)
	if err != nil {
		a.Error(err)
	}
	return der
}

func (a *authority) file(by *ca.Tester, at time.Time) *revoke.CRL {
	a.Helper()
	l, err := revoke.ParseCRL(a.crl(by, at))
	if err != nil {
		a.Fatal(err)
	}
	return l
}

func (a *authority) staple(at time.Time, revoked bool) []byte {
	a.Helper()
	st := ca.Status{Cert: a.leaf.Cert, Issuer: a.inter.Cert, This: at.Add(-time.Hour), Next: at.Add(24 * time.Hour)}
	if revoked {
		st.Revoked = at.Add(-time.Hour)
	}
	der, err := a.inter.Responder().Respond(at, st)
	if err != nil {
		a.Fatal(err)
	}
	return der
}

// check verifies with r twice, the second time out of memory; it gives the reason
// and the notes.
func (a *authority) check(r verify.Revocation, p verify.Presented) (verify.Reason, []verify.Note) {
	a.Helper()
	cache, err := revoke.NewCache(revoke.Options{Now: func() time.Time { return now }})
	if err != nil {
		a.Fatal(err)
	}
	defer cache.Close()
	r.Fetch = cache.Fetcher("", http.DefaultClient)
	if r.Budget == 0 {
		r.Budget = 5 * time.Second
	}
	p.Chain, p.Now = a.root.Chain(a.leaf), now
	if p.Role == verify.Server {
		p.Name = "good.test"
	}
	if p.Transport == "" {
		p.Transport = "tcp"
	}
	v := verify.With(verify.PKIX{Anchors: anchorsOf(a.T, a.root.Cert), From: "to.ca", Profile: verify.Private}, verify.Revoked(r))
	var first verify.Reason
	for i := range 2 {
		id, err := v.Verify(a.Context(), &p)
		got := reason(a.T, err)
		a.Logf("%v", err)
		if i == 0 {
			first = got
			continue
		}
		if got != first {
			a.Errorf("%q at first, then %q", first, got)
		}
		if err == nil {
			if by := slices.Contains(id.By(), "revocation"); by != (r.Mode == verify.RevocationHard) {
				a.Errorf("by %q", id.By())
			}
			return got, id.Notes()
		}
	}
	return first, nil
}

func TestRevocation(t *testing.T) {
	const both = crlHere | ocspHere
	leaf := func(a *authority) { a.revoked = a.leaf.Cert.SerialNumber }
	inter := func(a *authority) { a.revoked = a.inter.Cert.SerialNumber }
	none := func(*authority) {}
	down := func(a *authority) { a.noCRL, a.noOCSP = true, true }
	for _, c := range []struct {
		name    string
		kind    int
		set     func(*authority)
		with    func(*authority, *verify.Revocation, *verify.Presented)
		want    [3]verify.Reason // off, soft, hard
		noted   [3]verify.Reason
		fetches [3]bool
	}{
		{name: "good", kind: both, fetches: [3]bool{false, true, true}},
		{name: "leaf", kind: both, set: leaf, want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "intermediate", kind: both, set: inter, want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "leaf, by CRL alone", kind: crlHere, set: leaf, want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "leaf, by OCSP alone", kind: ocspHere, set: leaf, want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "leaf, no CRL to be had", kind: both, set: func(a *authority) { leaf(a); a.noCRL = true }, want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "leaf, no OCSP to be had", kind: both, set: func(a *authority) { leaf(a); a.noOCSP = true }, want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "leaf, of a client", kind: both, set: leaf, with: func(_ *authority, _ *verify.Revocation, p *verify.Presented) { p.Role = verify.Client },
			want: [3]verify.Reason{"", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "down", kind: both, set: down, want: [3]verify.Reason{"", "", "revocation_unknown"}, noted: [3]verify.Reason{"", "revocation_unknown"}, fetches: [3]bool{false, true, true}},
		{name: "nobody to ask", want: [3]verify.Reason{"", "", "revocation_unknown"}, noted: [3]verify.Reason{"", "revocation_unknown"}},
		{name: "staple and CRL files say good", set: none, with: func(a *authority, r *verify.Revocation, p *verify.Presented) {
			p.Staple, r.CRLs = a.staple(now, false), []*revoke.CRL{a.file(a.root, now)}
		}},
		{name: "staple says revoked", kind: both, with: func(a *authority, _ *verify.Revocation, p *verify.Presented) { p.Staple = a.staple(now, true) },
			want: [3]verify.Reason{"revoked", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "staple says good, CRL file revoked", set: leaf, with: func(a *authority, r *verify.Revocation, p *verify.Presented) {
			p.Staple, r.CRLs = a.staple(now, false), []*revoke.CRL{a.file(a.root, now), a.file(a.inter, now)}
		}, want: [3]verify.Reason{"revoked", "revoked", "revoked"}},
		{name: "staple says revoked, CRL file good", with: func(a *authority, r *verify.Revocation, p *verify.Presented) {
			p.Staple, r.CRLs = a.staple(now, true), []*revoke.CRL{a.file(a.root, now), a.file(a.inter, now)}
		}, want: [3]verify.Reason{"revoked", "revoked", "revoked"}},
		{name: "intermediate, CRL file", set: inter, with: func(a *authority, r *verify.Revocation, _ *verify.Presented) {
			r.CRLs = []*revoke.CRL{a.file(a.root, now)}
		}, want: [3]verify.Reason{"revoked", "revoked", "revoked"}},
		{name: "old staple and CRL file", kind: both, set: leaf, with: func(a *authority, r *verify.Revocation, p *verify.Presented) {
			p.Staple, r.CRLs = a.staple(now.Add(-48*time.Hour), true), []*revoke.CRL{a.file(a.inter, now.Add(-48*time.Hour))}
		}, want: [3]verify.Reason{"", "revoked", "revoked"}, noted: [3]verify.Reason{"revocation_unknown"}, fetches: [3]bool{false, true, true}},
		{name: "garbage for a staple", kind: both, set: down, with: func(_ *authority, _ *verify.Revocation, p *verify.Presented) { p.Staple = []byte("x") },
			want: [3]verify.Reason{"", "", "revocation_unknown"}, noted: [3]verify.Reason{"revocation_unknown", "revocation_unknown"}, fetches: [3]bool{false, true, true}},
		{name: "must-staple, good", kind: mustStaple, with: func(a *authority, r *verify.Revocation, p *verify.Presented) {
			p.Staple, r.CRLs = a.staple(now, false), []*revoke.CRL{a.file(a.root, now)}
		}},
		{name: "must-staple, none", kind: mustStaple | both, want: [3]verify.Reason{"must_staple", "must_staple", "must_staple"}, fetches: [3]bool{false, true, true}},
		{name: "must-staple, old", kind: mustStaple | both, with: func(a *authority, _ *verify.Revocation, p *verify.Presented) {
			p.Staple = a.staple(now.Add(-48*time.Hour), false)
		}, want: [3]verify.Reason{"must_staple", "must_staple", "must_staple"}, fetches: [3]bool{false, true, true}},
		{name: "must-staple, revoked", kind: mustStaple | both, with: func(a *authority, _ *verify.Revocation, p *verify.Presented) { p.Staple = a.staple(now, true) },
			want: [3]verify.Reason{"revoked", "revoked", "revoked"}, fetches: [3]bool{false, true, true}},
		{name: "must-staple, old, resumed", kind: mustStaple | both, with: func(a *authority, _ *verify.Revocation, p *verify.Presented) {
			p.Resumed, p.Staple = true, a.staple(now.Add(-48*time.Hour), false)
		}, noted: [3]verify.Reason{"revocation_unknown"}, fetches: [3]bool{false, true, true}},
		{name: "must-staple of a client", kind: mustStaple | both, with: func(_ *authority, _ *verify.Revocation, p *verify.Presented) { p.Role = verify.Client }, fetches: [3]bool{false, true, true}},
		{name: "must-staple over DTLS", kind: mustStaple | both, with: func(_ *authority, _ *verify.Revocation, p *verify.Presented) { p.Transport = "udp" },
			noted: [3]verify.Reason{"must_staple"}, fetches: [3]bool{false, true, true}},
		{name: "must-staple over DTLS, down", kind: mustStaple | both, set: down, with: func(_ *authority, _ *verify.Revocation, p *verify.Presented) { p.Transport = "udp" },
			want: [3]verify.Reason{"", "must_staple", "must_staple"}, noted: [3]verify.Reason{"must_staple"}, fetches: [3]bool{false, true, true}},
		{name: "short-lived", kind: short, with: func(a *authority, r *verify.Revocation, _ *verify.Presented) {
			r.CRLs = []*revoke.CRL{a.file(a.root, now)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for mode, want := range c.want {
				a := newAuthority(t, c.kind)
				if c.set != nil {
					c.set(a)
				}
				r, p := verify.Revocation{Mode: verify.RevocationMode(mode)}, verify.Presented{}
				if c.with != nil {
					c.with(a, &r, &p)
				}
				got, notes := a.check(r, p)
				if got != want {
					t.Errorf("mode %d: %q, want %q", mode, got, want)
				}
				if note := c.noted[mode]; note != "" != (len(notes) > 0) || note != "" && notes[0].Code != note {
					t.Errorf("mode %d: noted %v, want %q", mode, notes, note)
				}
				if asked := a.asked.Load() > 0; asked != c.fetches[mode] {
					t.Errorf("mode %d: fetched %t", mode, asked)
				}
			}
		})
	}
}

// Whoever answers nothing costs a soft check its budget, once, and a hard one no more.
func TestRevocationBudget(t *testing.T) {
	for _, mode := range []verify.RevocationMode{verify.RevocationSoft, verify.RevocationHard} {
		a := newAuthority(t, crlHere|ocspHere)
		a.hangs = true
		start := time.Now()
		got, notes := a.check(verify.Revocation{Mode: mode, Budget: 200 * time.Millisecond}, verify.Presented{})
		if took := time.Since(start); took > 2*time.Second { // two verifications
			t.Errorf("mode %d took %s", mode, took)
		}
		if hard := mode == verify.RevocationHard; hard != (got == verify.RevocationUnknown) || hard == (len(notes) > 0) {
			t.Errorf("mode %d: %q, %v", mode, got, notes)
		}
	}
}

// Two paths, of which one has a revoked intermediate: the other is what is left.
func TestRevokedPathIsDropped(t *testing.T) {
	one, two := ca.TestAt(t, now), ca.TestAt(t, now)
	key := one.Intermediate()
	cross := two.Intermediate(ca.Key(key.Key), ca.Template(func(x *certificate) { x.Subject, x.SubjectKeyId = key.Cert.Subject, key.Cert.SubjectKeyId }))
	leaf := key.Leaf(good)
	crl := func(by *ca.Tester, serials ...*big.Int) *revoke.CRL {
		der, err := by.CRL(now, serials, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := revoke.ParseCRL(der)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	p := &verify.Presented{Name: "good.test", Transport: "tcp", Now: now, Chain: append(one.Chain(leaf), cross.Cert)}
	pkix := verify.PKIX{Anchors: anchorsOf(t, one.Cert, two.Cert), From: "to.ca", Profile: verify.Private}
	for _, c := range []struct {
		lists []*revoke.CRL
		left  int
	}{
		{nil, 2},
		{[]*revoke.CRL{crl(one, key.Cert.SerialNumber)}, 1},
		{[]*revoke.CRL{crl(two, cross.Cert.SerialNumber)}, 1},
		{[]*revoke.CRL{crl(one, key.Cert.SerialNumber), crl(two, cross.Cert.SerialNumber)}, 0},
	} {
		id, err := verify.With(pkix, verify.Revoked(verify.Revocation{CRLs: c.lists})).Verify(context.Background(), p)
		if c.left == 0 {
			if got := reason(t, err); got != verify.RevokedCert {
				t.Errorf("%q: %v", got, err)
			}
			continue
		}
		if err != nil || len(id.Chains()) != c.left {
			t.Fatalf("%d paths, want %d: %v", len(id.Chains()), c.left, err)
		}
		for _, l := range c.lists {
			for _, path := range id.Chains() {
				if l.By(path[1]) {
					t.Error("the revoked path is left")
				}
			}
		}
	}
}

// Where the key alone is trusted there is no path to look at.
func TestRevocationWithoutPaths(t *testing.T) {
	a := newAuthority(t, mustStaple|crlHere)
	p := &verify.Presented{Transport: "tcp", Now: now, Chain: a.root.Chain(a.leaf)}
	r := verify.Revocation{Mode: verify.RevocationHard}
	id, err := verify.With(verify.PinAuthenticator(pinOf(p)), verify.Revoked(r)).Verify(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(id.By(), "revocation") {
		t.Errorf("passed by %q", id.By())
	}
}
