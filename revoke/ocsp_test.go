package revoke_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/internal/ca"
	"sallyport/revoke"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// site is a leaf below an intermediate, whose status is in question.
type site struct {
	*testing.T
	root, inter *ca.Tester
	leaf        *ca.Leaf
	delegate    *ca.Responder // of inter
	status      ca.Status     // good
}

func newSite(t *testing.T, opts ...ca.Option) *site {
	s := &site{T: t, root: ca.TestAt(t, now)}
	s.inter = s.root.Intermediate()
	s.leaf = s.inter.Leaf([]string{"good.test"}, opts...)
	s.delegate = s.responder(ocspSigning)
	s.status = ca.Status{Cert: s.leaf.Cert, Issuer: s.inter.Cert, This: now.Add(-time.Hour), Next: now.Add(3 * day)}
	return s
}

var ocspSigning = ca.EKU(x509.ExtKeyUsageOCSPSigning)

// responder is a leaf of inter's that signs answers.
func (s *site) responder(opts ...ca.Option) *ca.Responder {
	return s.inter.Leaf([]string{"responder.test"}, opts...).Delegate()
}

func (s *site) respond(r *ca.Responder, list ...ca.Status) []byte {
	s.Helper()
	der, err := r.Respond(now, list...)
	if err != nil {
		s.Fatal(err)
	}
	return der
}

func (s *site) with(edit func(*ca.Status)) ca.Status {
	st := s.status
	edit(&st)
	return st
}

// The cases of IC-44, and what else can be wrong with a response. None of them is
// ever a yes.
func TestJudgeOCSP(t *testing.T) {
	s := newSite(t)
	stranger := ca.TestAt(t, now)
	revoked := s.with(func(st *ca.Status) { st.Revoked, st.Reason = now.Add(-2*time.Hour), 1 })
	critical := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	edit := func(f func(*ca.Status)) []byte { return s.respond(s.delegate, s.with(f)) }
	as := func(f func(*ca.Responder)) []byte {
		r := *s.delegate
		f(&r)
		return s.respond(&r, s.status)
	}
	for _, c := range []struct {
		name string
		der  []byte
		want string // "good", "revoked", or what the error says
	}{
		{"good, delegated", s.respond(s.delegate, s.status), "good"},
		{"good, by the CA", s.respond(s.inter.Responder(), s.status), "good"},
		{"good, by key", as(func(r *ca.Responder) { r.ByKey = true }), "good"},
		{"good, SHA-256 ID", edit(func(st *ca.Status) { st.Hash = crypto.SHA256 }), "good"},
		{"good, by the CA, which sends its certificate", s.respond(&ca.Responder{Cert: s.inter.Cert, Key: s.inter.Key, Attach: []*x509.Certificate{s.inter.Cert}}, s.status), "good"},
		{"good, among others", s.respond(s.delegate, s.with(func(st *ca.Status) { st.Serial = big.NewInt(7) }), s.status), "good"},
		{"good, other certificates first", as(func(r *ca.Responder) { r.Attach = []*x509.Certificate{s.root.Cert, s.inter.Cert, r.Cert} }), "good"},
		{"good, a slow clock of ours", edit(func(st *ca.Status) { st.This = now.Add(4 * time.Minute) }), "good"},
		{"revoked", s.respond(s.delegate, revoked), "revoked"},
		{"revoked and good", s.respond(s.delegate, s.status, revoked), "revoked"},
		{"good and revoked", s.respond(s.delegate, revoked, s.status), "revoked"},
		{"expired", edit(func(st *ca.Status) { st.This, st.Next = now.Add(-2*day), now.Add(-time.Hour) }), "not current: the OCSP response was good until"},
		{"future", edit(func(st *ca.Status) { st.This = now.Add(time.Hour) }), "which is to come"},
		{"no nextUpdate", edit(func(st *ca.Status) { st.Next = time.Time{} }), "nextUpdate"},
		{"ends before it begins", edit(func(st *ca.Status) { st.Next = st.This.Add(-time.Minute) }), "ends before it begins"},
		{"too old to be no replay", edit(func(st *ca.Status) { st.This, st.Next = now.Add(-11*day), now.Add(30*day) }), "more than 10 days"},
		{"wrong serial", edit(func(st *ca.Status) { st.Serial = big.NewInt(7) }), "other certificates"},
		{"wrong issuer hash", edit(func(st *ca.Status) { st.Issuer = stranger.Cert }), "other certificates"},
		{"issuer of the same name, other key", edit(func(st *ca.Status) {
			st.Issuer = ca.TestAt(t, now, ca.Template(func(x *x509.Certificate) { x.Subject = s.inter.Cert.Subject })).Cert
		}), "other certificates"},
		{"by a leaf that is not delegated", s.respond(s.responder(ca.ServerAuth()), s.status), "lacks OCSPSigning"},
		{"by a leaf for any purpose", s.respond(s.responder(ca.EKU(x509.ExtKeyUsageAny)), s.status), "lacks OCSPSigning"},
		{"by the leaf itself", s.respond(s.leaf.Delegate(), s.status), "lacks OCSPSigning"},
		{"delegate expired", s.respond(s.responder(ocspSigning, ca.Expired()), s.status), "is good from"},
		{"delegate not yet", s.respond(s.responder(ocspSigning, ca.NotYet()), s.status), "is good from"},
		{"delegate may not sign", s.respond(s.responder(ocspSigning, ca.KeyUsage(x509.KeyUsageKeyEncipherment)), s.status), "digitalSignature"},
		{"delegate with a weak key", s.respond(s.responder(ocspSigning, ca.RSA(1024)), s.status), "RSA key of 1024 bits"},
		{"delegate of the root", s.respond(s.root.Leaf([]string{"r.test"}, ocspSigning).Delegate(), s.status), "not of the CA that issued"},
		{"delegate of a stranger", s.respond(stranger.Leaf([]string{"r.test"}, ocspSigning).Delegate(), s.status), "not of the CA that issued"},
		{"delegate of a stranger with our name", s.respond(ca.TestAt(t, now, ca.Template(func(x *x509.Certificate) { x.Subject = s.inter.Cert.Subject })).Leaf([]string{"r.test"}, ocspSigning).Delegate(), s.status), "not signed by the CA of that name"},
		{"by the root", s.respond(s.root.Responder(), s.status), "does not have the certificate"},
		{"responder ID of another", as(func(r *ca.Responder) { r.As = s.leaf.Cert }), "does not have the certificate"},
		{"key ID of another", as(func(r *ca.Responder) { r.As, r.ByKey = s.leaf.Cert, true }), "does not have the certificate"},
		{"claims to be the CA", as(func(r *ca.Responder) { r.As = s.inter.Cert }), "is not by"},
		{"no responder's certificate", as(func(r *ca.Responder) { r.Attach = nil }), "does not have the certificate"},
		{"SHA-1", as(func(r *ca.Responder) { r.Hash = crypto.SHA1 }), "algorithm that is not taken"},
		{"bad signature", as(func(r *ca.Responder) {
			r.Attach = nil
			r.Cert, r.Key, r.As = s.inter.Cert, s.inter.Key, nil
			r.Tamper = func(der []byte) []byte { der[len(der)-1] ^= 1; return der }
		}), "is not by"},
		{"critical extension", as(func(r *ca.Responder) { r.Extensions = critical }), "critical extension"},
		{"critical extension of one", edit(func(st *ca.Status) { st.Extensions = critical }), "critical extension"},
		{"unknown", edit(func(st *ca.Status) { st.Unknown = true }), "(unknown)"},
		{"tryLater", ocsp.TryLaterErrorResponse, "tryLater"},
		{"unauthorized", ocsp.UnauthorizedErrorResponse, "unauthorized"},
		{"internalError", ocsp.InternalErrorErrorResponse, "internalError"},
		{"success without bytes", []byte{0x30, 3, 0x0a, 1, 0}, "id-pkix-ocsp-basic"},
		{"nothing", nil, "no OCSP response"},
		{"garbage", []byte("<html>busy</html>"), "no OCSP response"},
		{"trailing bytes", append(s.respond(s.delegate, s.status), 0), "too many"},
		{"huge", make([]byte, 1<<20), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := revoke.JudgeOCSP(c.der, s.leaf.Cert, s.inter.Cert, now)
			switch {
			case c.want == "good" || c.want == "revoked":
				if err != nil || a.Revoked != (c.want == "revoked") || !bytes.Equal(a.Raw(), c.der) {
					t.Fatalf("%+v, %v", a, err)
				}
				if a.Revoked && (a.Reason.String() != "keyCompromise" || !a.At.Equal(now.Add(-2*time.Hour))) {
					t.Errorf("revoked for %s at %s", a.Reason, a.At)
				}
			case err == nil || !strings.Contains(err.Error(), c.want):
				t.Fatalf("%+v, %v, want an error with %q", a, err, c.want)
			}
			t.Log(err)
		})
	}
}

// What is still good in a month says so for ten days only.
func TestLongAnswersHoldTenDays(t *testing.T) {
	s := newSite(t)
	der := s.respond(s.delegate, s.with(func(st *ca.Status) { st.Next = now.Add(30 * day) }))
	a, err := revoke.JudgeOCSP(der, s.leaf.Cert, s.inter.Cert, now)
	if err != nil || !a.Next.Equal(a.This.Add(10*day)) {
		t.Fatalf("%+v, %v", a, err)
	}
}

// The library's own parser takes what ours takes.
func TestResponsesAreThoseOfTheLibrary(t *testing.T) {
	s := newSite(t)
	r, err := ocsp.ParseResponseForCert(s.respond(s.delegate, s.status), s.leaf.Cert, s.inter.Cert)
	if err != nil || r.Status != ocsp.Good {
		t.Fatalf("%+v, %v", r, err)
	}
}

func FuzzJudgeOCSP(f *testing.F) {
	root := ca.TestAt(f, now)
	leaf := root.Leaf([]string{"good.test"})
	st := ca.Status{Cert: leaf.Cert, Issuer: root.Cert, This: now.Add(-time.Hour), Next: now.Add(day), Revoked: now.Add(-time.Hour), Reason: 4}
	good, err := root.Responder().Respond(now, st)
	if err != nil {
		f.Fatal(err)
	}
	delegated, err := root.Leaf([]string{"r.test"}, ocspSigning).Delegate().Respond(now, st)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(delegated)
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, der []byte) {
		a, err := revoke.JudgeOCSP(der, leaf.Cert, root.Cert, now)
		if (a == nil) == (err == nil) {
			t.Fatalf("%+v with %v", a, err)
		}
		// Nobody without the key says anything new.
		if a != nil && (!a.Revoked || !a.Next.Equal(st.Next)) {
			t.Fatalf("forged: %+v", a)
		}
	})
}
