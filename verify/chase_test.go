package verify_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/verify"
)

// IC-36, where missing intermediates are looked for.
func TestChase(t *testing.T) {
	root := ca.TestAt(t, now)
	line := []*ca.Tester{root}
	for range 5 {
		line = append(line, line[len(line)-1].Intermediate())
	}
	old := root.Intermediate(ca.Expired())
	stranger := ca.TestAt(t, now).Intermediate()
	shelf := map[string]*x509.Certificate{}
	for _, c := range append(line[1:], old, stranger) {
		shelf[string(c.Cert.RawSubject)] = c.Cert
	}
	asked := 0
	find := func(_ context.Context, c *x509.Certificate) ([]*x509.Certificate, error) {
		asked++
		if i := shelf[string(c.RawIssuer)]; i != nil {
			return []*x509.Certificate{i}, nil
		}
		return nil, errors.New("nothing there")
	}
	anchors := anchorsOf(t, root.Cert)
	for _, c := range []struct {
		name  string
		by    *ca.Tester
		sent  []*ca.Tester
		find  verify.Issuers
		want  verify.Reason
		says  string
		asked int
	}{
		{"not looked for", line[1], nil, nil, verify.UnknownCA, "have the server send it", 0},
		{"sent", line[1], line[1:2], find, "", "", 0},
		{"one", line[1], nil, find, "", "", 1},
		{"three", line[3], nil, find, "", "", 3},
		{"the middle one", line[3], []*ca.Tester{line[3], line[1]}, find, "", "", 1},
		{"four", line[4], nil, find, "", "", 4},
		{"five", line[5], nil, find, verify.UnknownCA, "within 4 certificates", 4},
		{"of a stranger", stranger, nil, find, verify.UnknownCA, "nothing there", 2},
		{"expired", old, nil, find, verify.Expired, "expired", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked = 0
			pkix := verify.PKIX{Anchors: anchors, From: "to.ca", Profile: verify.Private, Issuers: c.find}
			leaf := c.by.Leaf(good)
			p := &verify.Presented{Name: "good.test", Now: now, Chain: []*x509.Certificate{leaf.Cert}}
			for _, s := range c.sent {
				p.Chain = append(p.Chain, s.Cert)
			}
			for i := range 2 {
				_, err := pkix.Authenticate(t.Context(), p)
				if got := reason(t, err); got != c.want || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%q, want %q: %v", got, c.want, err)
				}
				if i == 0 && asked != c.asked || i == 1 && err == nil && asked != c.asked {
					t.Errorf("asked %d times, want %d", asked, c.asked)
				}
			}
			// What was found for one route is nothing to another with the same anchors.
			if c.asked > 0 {
				pkix.Issuers = nil
				if _, err := pkix.Authenticate(t.Context(), p); reason(t, err) != verify.UnknownCA {
					t.Errorf("without looking: %v", err)
				}
			}
		})
	}
}

// Who does not answer costs three seconds at most.
func TestChaseHasAnEnd(t *testing.T) {
	root := ca.TestAt(t, now)
	hang := func(ctx context.Context, _ *x509.Certificate) ([]*x509.Certificate, error) {
		end, ok := ctx.Deadline()
		if !ok || time.Until(end) > 3*time.Second {
			t.Errorf("until %s", end)
		}
		return nil, context.DeadlineExceeded
	}
	pkix := verify.PKIX{Anchors: anchorsOf(t, root.Cert), Profile: verify.Private, Issuers: hang}
	p := &verify.Presented{Name: "good.test", Now: now, Chain: []*x509.Certificate{root.Intermediate().Leaf(good).Cert}}
	if _, err := pkix.Authenticate(t.Context(), p); reason(t, err) != verify.UnknownCA {
		t.Error(err)
	}
}
