package dane_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"sallyport/dane"
	"sallyport/internal/testdns"
)

// overTLS is the far end of DNS over TLS, within it: each connection has `last`
// questions answered and is then closed.
type overTLS struct {
	t     *testing.T
	last  int
	dials atomic.Int32
	open  atomic.Int32
	asked atomic.Int32
}

func (o *overTLS) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	o.dials.Add(1)
	o.open.Add(1)
	go func() {
		defer o.open.Add(-1)
		defer theirs.Close()
		c := &dns.Conn{Conn: theirs}
		for range o.last {
			q, err := c.ReadMsg()
			if err != nil {
				return
			}
			o.asked.Add(1)
			time.Sleep(10 * time.Millisecond)
			c.Write(pack(o.t, reply(o.t, q, q.Question[0].Name+" 60 IN A 192.0.2.1")))
		}
	}()
	return ours, nil
}

func (o *overTLS) look(r *dane.Resolver, name string) {
	o.t.Helper()
	if a, err := r.Lookup(o.t.Context(), name, dane.A); err != nil || len(a.Addrs) != 1 {
		o.t.Errorf("%s: %+v, %v", name, a, err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	for what, c := range map[string]struct {
		last, dials int // answered on one connection, and made for twelve
	}{
		"as long as asked": {100, 1},
		"four each":        {4, 3},
		"one each":         {1, 12}, // which is no failure
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &overTLS{t: t, last: c.last}
				r := resolver(t, dane.Options{Servers: []dane.Server{{Addr: "192.0.2.1:853", TLS: true}}, DialTLS: o.dial})
				for i := range 12 {
					o.look(r, fmt.Sprintf("h%d.test", i))
				}
				if n := o.dials.Load(); int(n) != c.dials {
					t.Errorf("%d connections for twelve questions, want %d", n, c.dials)
				}
				time.Sleep(11 * time.Second)
				if n := o.open.Load(); n != 0 {
					t.Errorf("%d connections that nobody uses are open", n)
				}
				o.look(r, "late.test")
				time.Sleep(11 * time.Second)
			})
		})
	}
}

// Questions at once each have a connection, of which few are kept.
func TestConnectionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &overTLS{t: t, last: 100}
		r := resolver(t, dane.Options{Servers: []dane.Server{{Addr: "192.0.2.1:853", TLS: true}}, DialTLS: o.dial})
		for round := range 2 {
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { o.look(r, fmt.Sprintf("h%d-%d.test", round, i)) })
			}
			wg.Wait()
			synctest.Wait()
			if n := o.open.Load(); n != 4 {
				t.Errorf("%d connections are kept", n)
			}
		}
		time.Sleep(11 * time.Second)
	})
}

// What was found is known to the next resolver of the same settings, and to no other.
func TestWhatWasFoundOutlives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newForge(t)
		o := dane.Options{Servers: []dane.Server{{Addr: "192.0.2.1:53"}}, Anchors: f.anchors(), Dial: pipeDial(t, f.answer)}
		look := func(r *dane.Resolver, typ dane.Type) int {
			before := f.asked
			if _, err := r.Lookup(t.Context(), map[dane.Type]string{dane.A: "h.test", dane.TLSA: "_443._tcp.h.test"}[typ], typ); err != nil {
				t.Error(err)
			}
			return f.asked - before
		}
		first := resolver(t, o)
		look(first, dane.TLSA)
		o.Before, o.Anchors = first, f.anchors()
		same := resolver(t, o)
		if n := look(same, dane.TLSA); n != 0 {
			t.Errorf("what is known costs %d questions", n)
		}
		if n := look(same, dane.A); n != 1 {
			t.Errorf("with the zones' keys known, another record costs %d questions", n)
		}
		other := o
		other.Servers = []dane.Server{{Addr: "192.0.2.2:53"}}
		if n := look(resolver(t, other), dane.TLSA); n == 0 {
			t.Error("another server's word is taken")
		}
		other = o
		other.Servers = []dane.Server{{Addr: "192.0.2.1:53", Trusted: true}}
		if n := look(resolver(t, other), dane.TLSA); n == 0 {
			t.Error("what was found with other settings is taken")
		}
		f.keys["."].Hdr.Ttl++ // as another file has it
		other = o
		other.Anchors = parseAnchors(t, f.keys["."].String())
		if n := look(resolver(t, other), dane.TLSA); n == 0 {
			t.Error("what other anchors prove is taken")
		}
	})
}

// anchorsOf are those that prove what d has signed.
func anchorsOf(t *testing.T, d *testdns.DNS) *dane.TrustAnchors {
	t.Helper()
	data, err := os.ReadFile(d.Anchor)
	if err != nil {
		t.Fatal(err)
	}
	return parseAnchors(t, string(data))
}

func parseAnchors(t *testing.T, text string) *dane.TrustAnchors {
	t.Helper()
	a, err := dane.ParseAnchors("root", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return a
}
