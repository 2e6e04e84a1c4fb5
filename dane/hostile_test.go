package dane_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"sallyport/dane"
)

// answerer is a resolver on loopback that says what a test wants; no real one can be
// brought to say most of it.
func answerer(t *testing.T, answer func(network string, q *dns.Msg) [][]byte) []dane.Server {
	t.Helper()
	pc, l := bothPorts(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			for _, m := range answer("udp", q) {
				pc.WriteTo(m, from)
			}
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dc := &dns.Conn{Conn: c}
			if q, err := dc.ReadMsg(); err == nil {
				for _, m := range answer("tcp", q) {
					dc.Write(m)
				}
			}
			c.Close()
		}
	})
	t.Cleanup(func() { pc.Close(); l.Close(); wg.Wait() })
	return []dane.Server{{Addr: pc.LocalAddr().String()}}
}

// bothPorts are one that is free for UDP and TCP.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

func pack(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

func rrs(t *testing.T, lines ...string) []dns.RR {
	t.Helper()
	var list []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Error(err)
			continue
		}
		list = append(list, rr)
	}
	return list
}

// reply answers q securely with lines.
func reply(t *testing.T, q *dns.Msg, lines ...string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.AuthenticatedData, m.RecursionAvailable = true, true
	m.Answer = rrs(t, lines...)
	return m
}

func TestHostileAnswers(t *testing.T) {
	const good = "h.test. 60 IN A 192.0.2.1"
	with := func(change func(*dns.Msg)) func(*testing.T, string, *dns.Msg) [][]byte {
		return func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			m := reply(t, q, good)
			change(m)
			return [][]byte{pack(t, m)}
		}
	}
	for name, c := range map[string]struct {
		answer func(*testing.T, string, *dns.Msg) [][]byte
		state  dane.State
		addrs  int
		says   string
	}{
		"good":               {with(func(*dns.Msg) {}), dane.Secure, 1, ""},
		"case of the name":   {with(func(m *dns.Msg) { m.Question[0].Name, m.Answer[0].Header().Name = "H.tEsT.", "h.TEST." }), dane.Secure, 1, ""},
		"not authenticated":  {with(func(m *dns.Msg) { m.AuthenticatedData = false }), dane.Insecure, 1, ""},
		"another ID":         {with(func(m *dns.Msg) { m.Id++ }), dane.Failed, 0, "no answer in time"},
		"another name":       {with(func(m *dns.Msg) { m.Question[0].Name = "g.test." }), dane.Failed, 0, "no answer in time"},
		"another type":       {with(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }), dane.Failed, 0, "no answer in time"},
		"another class":      {with(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dane.Failed, 0, "no answer in time"},
		"no answer bit":      {with(func(m *dns.Msg) { m.Response = false }), dane.Failed, 0, "no answer in time"},
		"another opcode":     {with(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dane.Failed, 0, "no answer in time"},
		"records of another": {with(func(m *dns.Msg) { m.Answer[0].Header().Name = "g.test." }), dane.Secure, 0, ""},
		"records of CHAOS":   {with(func(m *dns.Msg) { m.Answer[0].Header().Class = dns.ClassCHAOS }), dane.Secure, 0, ""},
		"no resolver":        {with(func(m *dns.Msg) { m.RecursionAvailable = false }), dane.Failed, 0, "own zones only"},
		"REFUSED":            {with(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), dane.Failed, 0, "REFUSED"},
		"FORMERR, bare":      {with(func(m *dns.Msg) { m.Rcode, m.Question, m.Answer = dns.RcodeFormatError, nil, nil }), dane.Failed, 0, "FORMERR"},
		"NXDOMAIN":           {with(func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeNameError, nil }), dane.Secure, 0, ""},
		"nothing, TTL 0":     {with(func(m *dns.Msg) { m.Answer[0].Header().Ttl = 0 }), dane.Secure, 1, ""},
		"malformed": {func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			b := pack(t, reply(t, q, good))
			return [][]byte{b[:len(b)-3]}
		}, dane.Failed, 0, "malformed"},
		"too short": {func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			return [][]byte{{byte(q.Id >> 8), byte(q.Id), 0x80}}
		}, dane.Failed, 0, "no answer in time"},
		"silence":             {func(*testing.T, string, *dns.Msg) [][]byte { return nil }, dane.Failed, 0, "no answer in time"},
		"a circle of aliases": {with(func(m *dns.Msg) { m.Answer = rrs(t, "h.test. 1 IN CNAME i.test.", "i.test. 1 IN CNAME h.test.") }), dane.Failed, 0, "circle"},
		"an alias of itself":  {with(func(m *dns.Msg) { m.Answer = rrs(t, "h.test. 1 IN CNAME h.test.") }), dane.Failed, 0, "circle"},
		"two aliases":         {with(func(m *dns.Msg) { m.Answer = rrs(t, "h.test. 1 IN CNAME i.test.", "h.test. 1 IN CNAME j.test.") }), dane.Failed, 0, "2 names at once"},
		"many aliases": {with(func(m *dns.Msg) {
			m.Answer = rrs(t, "h.test. 1 IN CNAME 0.test.")
			for i := range 20 {
				m.Answer = append(m.Answer, rrs(t, fmt.Sprintf("%d.test. 1 IN CNAME %d.test.", i, i+1))...)
			}
		}), dane.Failed, 0, "aliases in a row"},
		"stray ones first": {func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			stray := reply(t, q, "h.test. 60 IN A 192.0.2.66", "h.test. 60 IN A 192.0.2.67")
			stray.Id++
			return [][]byte{{}, {1}, pack(t, stray), pack(t, reply(t, q, good))}
		}, dane.Secure, 1, ""},
		"a flood of stray ones": {func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			var all [][]byte
			for range 40 {
				all = append(all, []byte("stray"))
			}
			return all
		}, dane.Failed, 0, "answer something else"},
		"cut short, then over TCP": {func(t *testing.T, network string, q *dns.Msg) [][]byte {
			m := reply(t, q, good)
			if m.Truncated = network == "udp"; m.Truncated {
				m.Answer = nil
			} else {
				m.Answer = append(m.Answer, rrs(t, "h.test. 60 IN A 192.0.2.2")...)
			}
			return [][]byte{pack(t, m)}
		}, dane.Secure, 2, ""},
		"cut short everywhere": {with(func(m *dns.Msg) { m.Truncated = true }), dane.Failed, 0, "cut short"},
		"a hundred addresses":  {hundred(100), dane.Secure, 100, ""},
		"a thousand addresses": {hundred(1000), dane.Failed, 0, "at most 256"},
		"SERVFAIL": {func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			m := reply(t, q)
			m.Rcode = dns.RcodeServerFailure
			return [][]byte{pack(t, m)}
		}, dane.Failed, 0, "SERVFAIL"},
		"SERVFAIL, not when unchecked": {func(t *testing.T, _ string, q *dns.Msg) [][]byte {
			m := reply(t, q, good)
			if !q.CheckingDisabled {
				m.Rcode, m.Answer = dns.RcodeServerFailure, nil
			}
			return [][]byte{pack(t, m)}
		}, dane.Bogus, 0, "SERVFAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := answerer(t, func(network string, q *dns.Msg) [][]byte { return c.answer(t, network, q) })
			o := dane.Options{Servers: servers}
			if c.says == "no answer in time" {
				o.Timeout = 300 * time.Millisecond
			}
			r := resolver(t, o)
			start := time.Now()
			a, err := r.Lookup(t.Context(), "h.test", dane.A)
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if c.state <= dane.Bogus {
				var e *dane.Error
				if !errors.As(err, &e) || e.State != c.state || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%+v, %v; want %s, %q", a, err, c.state, c.says)
				}
				return
			}
			if err != nil || a.State != c.state || len(a.Addrs) != c.addrs {
				t.Errorf("%+v, %v; want %s with %d addresses", a, err, c.state, c.addrs)
			}
		})
	}
}

func hundred(n int) func(*testing.T, string, *dns.Msg) [][]byte {
	return func(t *testing.T, network string, q *dns.Msg) [][]byte {
		m := reply(t, q)
		if m.Truncated = network == "udp"; !m.Truncated {
			for i := range n {
				m.Answer = append(m.Answer, rrs(t, fmt.Sprintf("h.test. 60 IN A 10.0.%d.%d", i/256, i%256))...)
			}
		}
		m.Compress = true
		return [][]byte{pack(t, m)}
	}
}

// A resolver may only be believed where nobody can speak in its place.
func TestWhoseWordCounts(t *testing.T) {
	dial := new(net.Dialer).DialContext
	for _, c := range []struct {
		s  dane.Server
		ok bool
	}{
		{dane.Server{Addr: "127.0.0.1:53"}, true},
		{dane.Server{Addr: "127.8.8.8:53"}, true},
		{dane.Server{Addr: "[::1]:53"}, true},
		{dane.Server{Addr: "[::ffff:127.0.0.1]:53"}, true},
		{dane.Server{Addr: "192.0.2.1:53"}, false},
		{dane.Server{Addr: "localhost:53"}, false}, // whoever that is
		{dane.Server{Addr: "192.0.2.1:53", Trusted: true}, true},
		{dane.Server{Addr: "192.0.2.1:853", TLS: true}, true},
	} {
		_, err := dane.NewResolver(dane.Options{Servers: []dane.Server{{Addr: "127.0.0.1:53"}, c.s}, Dial: dial, DialTLS: dial, Now: time.Now})
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
}

func TestNextServer(t *testing.T) {
	bad := answerer(t, func(_ string, q *dns.Msg) [][]byte {
		m := reply(t, q)
		m.Rcode = dns.RcodeRefused
		return [][]byte{pack(t, m)}
	})
	good := answerer(t, func(_ string, q *dns.Msg) [][]byte {
		return [][]byte{pack(t, reply(t, q, "h.test. 60 IN A 192.0.2.1"))}
	})
	r := resolver(t, dane.Options{Servers: append(append([]dane.Server{{Addr: "127.0.0.1:1"}}, bad...), good...)})
	if a, err := r.Lookup(t.Context(), "h.test", dane.A); err != nil || len(a.Addrs) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// pipeDial has each connection answered in the process, for a clock that can be moved.
func pipeDial(t *testing.T, answer func(q *dns.Msg) *dns.Msg) dane.Dial {
	return func(_ context.Context, network, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			buf, head := make([]byte, 4096), 2
			if network == "udp" {
				head = 0
			} else if _, err := io.ReadFull(theirs, buf[:head]); err != nil {
				return
			}
			n, err := theirs.Read(buf)
			q := new(dns.Msg)
			if err != nil || q.Unpack(buf[:n]) != nil {
				return
			}
			if m := answer(q); m != nil {
				b := pack(t, m)
				theirs.Write(append([]byte{byte(len(b) >> 8), byte(len(b))}[:head], b...))
			}
		}()
		return ours, nil
	}
}

func TestCache(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(q *dns.Msg) *dns.Msg
		keep   time.Duration
	}{
		"by TTL": {func(q *dns.Msg) *dns.Msg { return reply(t, q, "h.test. 60 IN A 192.0.2.1") }, time.Minute},
		"TTL 0":  {func(q *dns.Msg) *dns.Msg { return reply(t, q, "h.test. 0 IN A 192.0.2.1") }, 5 * time.Second},
		"a week": {func(q *dns.Msg) *dns.Msg { return reply(t, q, "h.test. 604800 IN A 192.0.2.1") }, time.Hour},
		"the least": {func(q *dns.Msg) *dns.Msg {
			return reply(t, q, "h.test. 600 IN CNAME i.test.", "i.test. 30 IN A 192.0.2.1")
		}, 30 * time.Second},
		"nothing":        {func(q *dns.Msg) *dns.Msg { return withSOA(t, reply(t, q), "test. 90 IN SOA a. b. 1 2 3 4 40") }, 40 * time.Second},
		"nothing, SOA":   {func(q *dns.Msg) *dns.Msg { return withSOA(t, reply(t, q), "test. 20 IN SOA a. b. 1 2 3 4 40") }, 20 * time.Second},
		"nothing, day":   {func(q *dns.Msg) *dns.Msg { return withSOA(t, reply(t, q), "test. 86400 IN SOA a. b. 1 2 3 4 86400") }, 15 * time.Minute},
		"nothing at all": {func(q *dns.Msg) *dns.Msg { return reply(t, q) }, 5 * time.Second},
		"a failure": {func(q *dns.Msg) *dns.Msg {
			m := reply(t, q)
			m.Rcode = dns.RcodeRefused
			return m
		}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				r := resolver(t, dane.Options{
					Servers: []dane.Server{{Addr: "192.0.2.1:853", TLS: true}},
					DialTLS: pipeDial(t, func(q *dns.Msg) *dns.Msg { asked.Add(1); return c.answer(q) }),
				})
				look := func() { r.Lookup(t.Context(), "h.test", dane.A) }
				var wg sync.WaitGroup
				for range 10 { // of whom one asks
					wg.Go(look)
				}
				wg.Wait()
				time.Sleep(c.keep - time.Millisecond)
				look()
				if n := asked.Load(); n != 1 {
					t.Errorf("asked %d times before it was over", n)
				}
				time.Sleep(2 * time.Millisecond)
				look()
				if n := asked.Load(); n != 2 {
					t.Errorf("asked %d times after it was over", n)
				}
			})
		})
	}
}

func withSOA(t *testing.T, m *dns.Msg, soa string) *dns.Msg {
	m.Ns = rrs(t, soa)
	return m
}

// Who gives up takes nobody along, and leaves no failure behind.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		r := resolver(t, dane.Options{
			Servers: []dane.Server{{Addr: "192.0.2.1:853", TLS: true}},
			DialTLS: pipeDial(t, func(q *dns.Msg) *dns.Msg {
				if asked.Add(1) == 1 {
					time.Sleep(900 * time.Millisecond)
				}
				return reply(t, q, "h.test. 60 IN A 192.0.2.1")
			}),
		})
		var wg sync.WaitGroup
		hasty, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		wg.Go(func() {
			if _, err := r.Lookup(hasty, "h.test", dane.A); err == nil {
				t.Error("who gave up has an answer")
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if _, err := r.Lookup(t.Context(), "h.test", dane.A); err != nil {
					t.Errorf("who waited: %v", err)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second) // until the first answerer is done as well
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// Names of strangers fill no memory.
func TestCacheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		r := resolver(t, dane.Options{
			Servers: []dane.Server{{Addr: "192.0.2.1:853", TLS: true}},
			DialTLS: pipeDial(t, func(q *dns.Msg) *dns.Msg { asked.Add(1); return reply(t, q) }),
		})
		for range 2 {
			for i := range 3000 {
				r.Lookup(t.Context(), fmt.Sprintf("h%d.test", i), dane.A)
			}
		}
		if n := asked.Load(); n < 4500 {
			t.Errorf("%d of 6000 were asked: too many are kept", n)
		}
	})
}

func TestNames(t *testing.T) {
	r := resolver(t, dane.Options{Servers: []dane.Server{{Addr: "127.0.0.1:1"}}})
	for _, name := range []string{strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 128) + "test", "a..test", "."} {
		if a, err := r.Lookup(t.Context(), name, dane.A); err == nil {
			t.Errorf("%q: %+v", name, a)
		}
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// A service that is known costs no question.
func BenchmarkService(b *testing.B) {
	dial := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			c := &dns.Conn{Conn: theirs}
			if q, err := c.ReadMsg(); err == nil {
				m := new(dns.Msg).SetReply(q)
				m.AuthenticatedData, m.RecursionAvailable = true, true
				for _, l := range []string{"h.test. 600 IN A 192.0.2.1", forgedTLSA} {
					if rr, err := dns.NewRR(l); err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
						m.Answer = append(m.Answer, rr)
					}
				}
				c.WriteMsg(m)
			}
		}()
		return ours, nil
	}
	r, err := dane.NewResolver(dane.Options{Servers: []dane.Server{{Addr: "192.0.2.1:853", TLS: true}}, DialTLS: dial, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if s, err := r.Service(b.Context(), "h.test", 443, "tcp"); err != nil || len(s.Records) != 1 {
			b.Fatalf("%+v, %v", s, err)
		}
	}
}
