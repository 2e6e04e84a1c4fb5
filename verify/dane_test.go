package verify_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/dane"
	"sallyport/internal/ca"
	"sallyport/verify"
)

// published is what DNS says, for tests of what is made of it. How DNS says it is
// tested with package dane, and with the program.
type published struct {
	s   dane.Service
	err error
}

func (s published) Service(context.Context, string, uint16, string) (*dane.Service, error) {
	return &s.s, s.err
}

func tlsa(base string, records ...dane.Record) published {
	return published{s: dane.Service{Base: base, Name: dane.RecordName(base, 443, "tcp"), State: dane.Secure, Records: records}}
}

func newRecord(t *testing.T, c *x509.Certificate, u dane.Usage, s dane.Selector, m dane.Matching) dane.Record {
	t.Helper()
	r, err := dane.New(c, u, s, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// daneSite is a server below a CA of its own that nobody else trusts.
type daneSite struct {
	t           *testing.T
	root, inter *ca.Tester
	pkix        verify.PKIX // which trusts another CA
}

func newDANESite(t *testing.T) *daneSite {
	root := ca.TestAt(t, now)
	return &daneSite{t, root, root.Intermediate(), verify.PKIX{Anchors: anchorsOf(t, ca.TestAt(t, now).Cert), From: "to.ca", Profile: verify.WebPKI}}
}

func (s *daneSite) presented(names []string, opts ...ca.Option) *verify.Presented {
	return served(append(s.inter.Chain(s.inter.Leaf(names, opts...)), s.root.Cert)...)
}

func served(chain ...*x509.Certificate) *verify.Presented {
	return &verify.Presented{Role: verify.Server, Name: "a.test", Port: 443, Transport: "tcp", Chain: chain, Now: now}
}

func TestDANE(t *testing.T) {
	s := newDANESite(t)
	const h, f, b = dane.SHA256, dane.Full, dane.SHA512
	good := s.presented([]string{"a.test"})
	wrong := s.presented([]string{"b.test"})
	expired := s.presented([]string{"a.test"}, ca.Expired())
	other := s.root.Chain(s.root.Leaf([]string{"a.test"}))[0]
	self := served(s.root.Chain(s.root.SelfSigned([]string{"whatever"}, ca.Expired()))...)
	weak := s.presented([]string{"a.test"}, ca.RSA(1024))
	rec := func(c *x509.Certificate, u dane.Usage, sel dane.Selector, m dane.Matching) dane.Record {
		return newRecord(t, c, u, sel, m)
	}
	unknown := dane.Record{Usage: 4, Selector: dane.SPKI, Matching: h, Data: make([]byte, 32)}
	leaf := func(p *verify.Presented) *x509.Certificate { return p.Chain[0] }
	for _, c := range []struct {
		name    string
		p       *verify.Presented
		records []dane.Record
		reason  verify.Reason // "" passes
		vouched bool
	}{
		{"3 1 1", good, []dane.Record{rec(leaf(good), 3, 1, h)}, "", false},
		{"3 1 1, expired", expired, []dane.Record{rec(leaf(expired), 3, 1, h)}, "", false},
		{"3 0 2, wrong name", wrong, []dane.Record{rec(leaf(wrong), 3, 0, b)}, "", false},
		{"3 1 1, self-signed", self, []dane.Record{rec(leaf(self), 3, 1, h)}, "", false},
		{"3 1 1 of another", good, []dane.Record{rec(other, 3, 1, h)}, verify.DANEMismatch, false},
		{"3 1 1, a weak key", weak, []dane.Record{rec(leaf(weak), 3, 1, h)}, verify.WeakKey, false},
		{"roll-over", good, []dane.Record{rec(other, 3, 1, h), rec(leaf(good), 3, 1, h)}, "", false},
		{"the weaker digest alone matches", good, []dane.Record{rec(other, 3, 1, b), rec(leaf(good), 3, 1, h)}, verify.DANEMismatch, false},
		{"3 1 1 of the issuer", good, []dane.Record{rec(s.inter.Cert, 3, 1, h)}, verify.DANEMismatch, false},
		{"2 0 1 of the root", good, []dane.Record{rec(s.root.Cert, 2, 0, h)}, "", true},
		{"2 1 1 of the intermediate", good, []dane.Record{rec(s.inter.Cert, 2, 1, h)}, "", true},
		{"2 0 1, wrong name", wrong, []dane.Record{rec(s.root.Cert, 2, 0, h)}, verify.NameWrong, false},
		{"2 0 1, expired", expired, []dane.Record{rec(s.root.Cert, 2, 0, h)}, verify.Expired, false},
		{"2 0 1 of the leaf", good, []dane.Record{rec(leaf(good), 2, 0, h)}, verify.DANEMismatch, false},
		{"2 0 1 of itself", self, []dane.Record{rec(leaf(self), 2, 0, h)}, verify.DANEMismatch, false},
		{"2 0 1 of an anchor not sent", served(good.Chain[:2]...), []dane.Record{rec(s.root.Cert, 2, 0, h)}, verify.DANEMismatch, false},
		{"2 0 0 of an anchor not sent", served(good.Chain[:2]...), []dane.Record{rec(s.root.Cert, 2, 0, f)}, "", true},
		{"2 1 0 of an anchor not sent", served(good.Chain[:2]...), []dane.Record{rec(s.root.Cert, 2, 1, f)}, "", true},
		{"2 1 0 of an issuer not sent", served(good.Chain[:1]...), []dane.Record{rec(s.inter.Cert, 2, 1, f)}, "", true},
		{"2 1 0 of somebody else", served(good.Chain[:1]...), []dane.Record{rec(other, 2, 1, f)}, verify.DANEMismatch, false},
		{"2 1 0, wrong name", served(wrong.Chain[:1]...), []dane.Record{rec(s.inter.Cert, 2, 1, f)}, verify.NameWrong, false},
		{"0 0 1 without PKIX", good, []dane.Record{rec(s.root.Cert, 0, 0, h)}, verify.UnknownCA, false},
		{"1 1 1 without PKIX", good, []dane.Record{rec(leaf(good), 1, 1, h)}, verify.UnknownCA, false},
		{"1 1 1 and 3 1 1", good, []dane.Record{rec(leaf(good), 1, 1, h), rec(leaf(good), 3, 1, h)}, "", false},
		{"one that nobody knows beside", good, []dane.Record{unknown, rec(leaf(good), 3, 1, h)}, "", false},
		{"one that nobody knows alone", good, []dane.Record{unknown}, verify.DANEAbsent, false},
		{"none", good, nil, verify.DANEAbsent, false},
	} {
		d := &verify.DANE{Records: tlsa("a.test", c.records...), PKIX: s.pkix, Profile: verify.WebPKI}
		id, err := verify.With(d).Verify(t.Context(), c.p)
		if c.reason != "" {
			if err == nil || reason(t, err) != c.reason {
				t.Errorf("%s: %v, want %s", c.name, err, c.reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(id.By(), []string{"dane"}) || (len(id.Names()) > 0) != c.vouched || (len(id.Chains()) > 0) != c.vouched {
			t.Errorf("%s: by %v, names %v, %d chains", c.name, id.By(), id.Names(), len(id.Chains()))
		}
	}
}

func TestDANEWithPKIX(t *testing.T) {
	s := newDANESite(t)
	s.pkix.Anchors = anchorsOf(t, s.root.Cert)
	p := s.presented([]string{"a.test"}, ca.ServerAuth())
	stranger := ca.TestAt(t, now)
	for _, c := range []struct {
		name   string
		record dane.Record
		reason verify.Reason
	}{
		{"0 0 1 of the root", newRecord(t, s.root.Cert, 0, 0, dane.SHA256), ""},
		{"0 1 2 of the intermediate", newRecord(t, s.inter.Cert, 0, 1, dane.SHA512), ""},
		{"0 0 1 of another root", newRecord(t, stranger.Cert, 0, 0, dane.SHA256), verify.DANEMismatch},
		{"0 0 1 of the leaf", newRecord(t, p.Chain[0], 0, 0, dane.SHA256), verify.DANEMismatch},
		{"1 0 1", newRecord(t, p.Chain[0], 1, 0, dane.SHA256), ""},
		{"1 0 1 of another", newRecord(t, s.inter.Cert, 1, 0, dane.SHA256), verify.DANEMismatch},
	} {
		d := &verify.DANE{Records: tlsa("a.test", c.record), PKIX: s.pkix, Profile: verify.WebPKI}
		id, err := verify.With(d).Verify(t.Context(), p)
		if c.reason != "" {
			if err == nil || reason(t, err) != c.reason {
				t.Errorf("%s: %v, want %s", c.name, err, c.reason)
			}
		} else if err != nil || !slices.Equal(id.By(), []string{"pkix", "dane"}) || len(id.Names()) != 1 {
			t.Errorf("%s: %v, %v", c.name, id, err)
		}
	}
	// The issuer that is left out comes with the record.
	short := served(p.Chain[0])
	d := &verify.DANE{Records: tlsa("a.test", newRecord(t, s.inter.Cert, 0, 0, dane.Full)), PKIX: s.pkix}
	if _, err := d.Authenticate(t.Context(), short); err != nil {
		t.Errorf("0 0 0: %v", err)
	}
	if len(short.Chain) != 1 {
		t.Error("what was presented has changed")
	}
	// Nothing matches without an authenticator for it.
	d = &verify.DANE{Records: tlsa("a.test", newRecord(t, p.Chain[0], 1, 0, dane.SHA256))}
	if _, err := d.Authenticate(t.Context(), p); err == nil || reason(t, err) != verify.DANEMismatch {
		t.Errorf("1 0 1 with nobody for PKIX: %v", err)
	}
}

// A name is either of the two that a secure alias makes one.
func TestDANEBase(t *testing.T) {
	s := newDANESite(t)
	record := newRecord(t, s.root.Cert, 2, 0, dane.SHA256)
	for name, ok := range map[string]bool{"a.test": true, "base.test": true, "c.test": false} {
		p := s.presented([]string{name})
		d := &verify.DANE{Records: tlsa("base.test", record), PKIX: s.pkix}
		if _, err := d.Authenticate(t.Context(), p); (err == nil) != ok {
			t.Errorf("a certificate for %s: %v", name, err)
		}
		if base, err := d.ServerName(t.Context(), "a.test", 443, "tcp"); base != "base.test" || err != nil {
			t.Errorf("asked for as %q, %v", base, err)
		}
	}
}

func TestDANEStates(t *testing.T) {
	s := newDANESite(t)
	s.pkix.Anchors = anchorsOf(t, s.root.Cert)
	p := s.presented([]string{"a.test"}, ca.ServerAuth())
	insecure := tlsa("a.test", newRecord(t, p.Chain[0], 3, 1, dane.SHA256))
	insecure.s.State = dane.Insecure
	noState := insecure
	noState.s.State = dane.Failed
	unusable := tlsa("a.test", dane.Record{Usage: 3, Selector: 2, Matching: 1, Data: make([]byte, 32)})
	for _, c := range []struct {
		name    string
		records published
		reason  verify.Reason
		prefer  bool // PKIX may decide
	}{
		{"absent", tlsa("a.test"), verify.DANEAbsent, true},
		{"insecure", insecure, verify.DANEInsecure, true},
		{"unusable", unusable, verify.DANEAbsent, true},
		{"bogus", published{err: &dane.Error{State: dane.Bogus, Name: `"a.test"`, Type: "A", Err: errOne}}, verify.DANEBogus, false},
		{"failed", published{err: &dane.Error{State: dane.Failed, Name: `"a.test"`, Type: "A", Err: errOne}}, verify.DANELookup, false},
		{"another error", published{err: errOne}, verify.DANELookup, false},
		{"out of time", published{err: context.DeadlineExceeded}, verify.DANELookup, false},
		{"no state", noState, verify.DANELookup, false},
		{"mismatch", tlsa("a.test", newRecord(t, s.inter.Cert, 3, 1, dane.SHA256)), verify.DANEMismatch, false},
	} {
		d := &verify.DANE{Records: c.records, PKIX: s.pkix}
		_, err := verify.With(d).Verify(t.Context(), p)
		if err == nil || reason(t, err) != c.reason || errors.Is(err, verify.ErrNotApplicable) != c.prefer {
			t.Errorf("%s, required: %v, want %s", c.name, err, c.reason)
		}
		id, err := verify.With(verify.Either(d, s.pkix)).Verify(t.Context(), p)
		if (err == nil) != c.prefer {
			t.Errorf("%s, preferred: %v", c.name, err)
		}
		if c.prefer && (len(id.Notes()) != 1 || id.Notes()[0].Code != c.reason || !slices.Equal(id.By(), []string{"pkix"})) {
			t.Errorf("%s, preferred: notes %v, by %v", c.name, id.Notes(), id.By())
		}
		if err != nil && strings.Contains(err.Error(), "does not apply") {
			t.Errorf("%s: %v", c.name, err)
		}
		name, err := d.ServerName(t.Context(), "alias.test", 443, "tcp")
		if c.prefer && c.name != "unusable" && (name != "alias.test" || err != nil) {
			t.Errorf("%s: asked for as %q, %v", c.name, name, err)
		}
		if !c.prefer && c.reason != verify.DANEMismatch && err == nil {
			t.Errorf("%s: asked for as %q", c.name, name)
		}
	}
}

func TestDANEOfNoName(t *testing.T) {
	s := newDANESite(t)
	p := s.presented([]string{"127.0.0.1"})
	d := &verify.DANE{Records: tlsa("a.test", newRecord(t, p.Chain[0], 3, 1, dane.SHA256)), PKIX: s.pkix}
	for name, want := range map[string]verify.Reason{
		"127.0.0.1": verify.DANEAbsent, "[::1]": verify.DANEAbsent, "::1": verify.DANEAbsent,
		"": verify.NameWrong, "a b": verify.NameWrong, "a..test": verify.NameWrong, "-a.test": verify.NameWrong,
	} {
		p.Name = name
		if _, err := d.Authenticate(t.Context(), p); err == nil || reason(t, err) != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
	p.Name, p.Role = "a.test", verify.Client
	if _, err := d.Authenticate(t.Context(), p); err == nil {
		t.Error("a client passes by TLSA records")
	}
	p.Role, p.Now = verify.Server, time.Time{}
	if _, err := d.Authenticate(t.Context(), p); err == nil {
		t.Error("passes without a clock")
	}
}

// What an authenticator adds to a handshake, the look-up being kept.
func BenchmarkAuthenticate(b *testing.B) {
	root := ca.Test(b)
	leaf := root.Leaf([]string{"a.test"}, ca.ServerAuth())
	p := served(root.Chain(leaf)...)
	p.Now = time.Now()
	anchors, err := verify.LoadAnchors(p.Now, []string{root.File()}, os.ReadFile)
	if err != nil {
		b.Fatal(err)
	}
	pkix := verify.PKIX{Anchors: anchors, Profile: verify.Private}
	record := func(c *x509.Certificate, u dane.Usage) verify.Authenticator {
		r, err := dane.New(c, u, dane.SPKI, dane.SHA256)
		if err != nil {
			b.Fatal(err)
		}
		return &verify.DANE{Records: tlsa("a.test", r), PKIX: pkix}
	}
	p2 := *p
	p2.Chain = append(p2.Chain, root.Cert)
	for name, c := range map[string]struct {
		a verify.Authenticator
		p *verify.Presented
	}{
		"pkix": {pkix, p}, "dane-ee": {record(p.Chain[0], dane.DANEEE), p}, "dane-ta": {record(root.Cert, dane.DANETA), &p2}, "pkix-ee": {record(p.Chain[0], dane.PKIXEE), p},
		"prefer, none": {verify.Either(&verify.DANE{Records: tlsa("a.test")}, pkix), p},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.a.Authenticate(b.Context(), c.p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
