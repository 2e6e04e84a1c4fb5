package dane_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"sallyport/dane"
	"sallyport/internal/testdns"
)

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const svc = "svc A 127.0.0.1\n_443._tcp.svc TLSA 3 1 1 " + digest + "\n"

func resolver(t *testing.T, o dane.Options) *dane.Resolver {
	t.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	r, err := dane.NewResolver(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestServices asks real servers: by the word of a validating resolver, by proof with
// that resolver, and by proof through one that validates nothing (bind, which is the
// zones' own server here and never sets AD).
func TestServices(t *testing.T) {
	d := testdns.Start(t, testdns.Records{
		"example.test": svc + `alias CNAME svc
far CNAME svc.nsec3.test.
out CNAME svc.insecure.test.
_443._tcp.out TLSA 3 1 1 ` + digest + `
bare CNAME svc.insecure.test.
own CNAME empty
_443._tcp.own TLSA 3 1 1 ` + digest + `
empty A 127.0.0.1
six AAAA ::1
_443._tcp.six TLSA 3 1 1 ` + digest + `
there CNAME svc.bogus.test.
_443._udp.six TLSA 2 0 2 ` + digest + digest + `
indirect A 127.0.0.1
_443._tcp.indirect CNAME tlsa.indirect
tlsa.indirect TLSA 3 1 1 ` + digest + `
_imaps._tcp SRV 1 2 993 svc
*._tcp.wild TLSA 3 1 1 ` + digest + `
wild A 127.0.0.1
`,
		"nsec3.test": svc, "nsd.test": svc, "insecure.test": svc, "bogus.test": svc, "expired.test": svc, "future.test": svc, "lame.test": svc,
	})
	anchors := anchorsOf(t, d)
	unbound := []dane.Server{{Addr: d.Resolver}}
	ways := []*dane.Resolver{
		resolver(t, dane.Options{Servers: unbound}),
		resolver(t, dane.Options{Servers: unbound, Anchors: anchors}),
		resolver(t, dane.Options{Servers: []dane.Server{{Addr: d.Server}}, Anchors: anchors}),
	}
	one, none := 1, 0
	for _, c := range []struct {
		host  string
		state [3]dane.State // by way
		base  string
		count int
	}{
		{"svc.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", one},
		{"SVC.Example.Test.", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "svc.example.test", one},
		{"svc.nsec3.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", one},
		{"alias.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "svc.example.test", one},
		{"far.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Bogus}, "svc.nsec3.test", one}, // bind goes from zone to zone for nobody
		{"out.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "out.example.test", one},
		{"bare.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "bare.example.test", none},
		{"own.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "own.example.test", one},
		{"six.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", one},
		{"indirect.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", one},
		{"wild.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", one},
		{"nothing.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", none},
		{"empty.example.test", [3]dane.State{dane.Secure, dane.Secure, dane.Secure}, "", none},
		{"svc.insecure.test", [3]dane.State{dane.Insecure, dane.Insecure, dane.Insecure}, "", none},
		{"nothing.insecure.test", [3]dane.State{dane.Insecure, dane.Insecure, dane.Insecure}, "", none},
		{"svc.bogus.test", [3]dane.State{dane.Bogus, dane.Bogus, dane.Bogus}, "", none},
		{"there.example.test", [3]dane.State{dane.Bogus, dane.Bogus, dane.Bogus}, "", none},
		{"svc.expired.test", [3]dane.State{dane.Bogus, dane.Bogus, dane.Bogus}, "", none},
		{"svc.future.test", [3]dane.State{dane.Bogus, dane.Bogus, dane.Bogus}, "", none},
		{"svc.lame.test", [3]dane.State{dane.Failed, dane.Failed, dane.Failed}, "", none},
		{"nsd.test", [3]dane.State{dane.Secure, dane.Secure, dane.Failed}, "", none}, // which bind has not
	} {
		for i, r := range ways {
			s, err := r.Service(t.Context(), c.host, 443, "tcp")
			var e *dane.Error
			switch {
			case errors.As(err, &e):
				if e.State != c.state[i] {
					t.Errorf("%s, way %d: %s, want %s: %v", c.host, i, e.State, c.state[i], err)
				}
			case err != nil:
				t.Errorf("%s, way %d: %v is no *Error", c.host, i, err)
			case s.State != c.state[i]:
				t.Errorf("%s, way %d: %s, want %s: %+v", c.host, i, s.State, c.state[i], s)
			default:
				if s.State == dane.Secure && len(s.Records) != c.count {
					t.Errorf("%s, way %d: %d records, want %d", c.host, i, len(s.Records), c.count)
				}
				if c.base != "" && s.Base != c.base {
					t.Errorf("%s, way %d: the base is %q, want %q", c.host, i, s.Base, c.base)
				}
			}
		}
	}
	srv, err := ways[0].Lookup(t.Context(), "_imaps._tcp.example.test", dane.SRVs)
	if want := (dane.SRV{Priority: 1, Weight: 2, Port: 993, Target: "svc.example.test."}); err != nil || srv.State != dane.Secure || len(srv.SRV) != 1 || srv.SRV[0] != want {
		t.Errorf("SRV: %+v, %v", srv, err)
	}
	// Another transport, another record.
	s, err := ways[0].Service(t.Context(), "six.example.test", 443, "udp")
	if err != nil || len(s.Records) != 1 || s.Records[0].String() != "2 0 2 "+digest+digest {
		t.Errorf("udp: %+v, %v", s, err)
	}
	d.Kill()
	if _, err := ways[0].Service(context.Background(), "svc.example.test", 8443, "tcp"); err == nil {
		t.Error("without a resolver there is an answer")
	}
}
