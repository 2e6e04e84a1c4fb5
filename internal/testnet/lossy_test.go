package testnet

import (
	be "encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
)

// socket is one on the loopback that fails the test rather than wait for ever.
func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(Patience))
	c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { c.Close() })
	return c
}

func at(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// numbers sends n datagrams through a relay, and gives them as they arrive, which
// begin with their number, and by how many clients' addresses they came.
func numbers(t *testing.T, w Weather, clients, n, size int) (arrived [][]uint16, r *LossyRelay) {
	t.Helper()
	server := socket(t)
	r = Relay(t, at(server), w)
	of := map[netip.AddrPort]int{}
	arrived = make([][]uint16, clients)
	got := 0
	take := func() {
		b := make([]byte, 65536)
		m, from, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatalf("%v; passed %+v", err, r.Passed(ToServer))
		}
		if m != size {
			t.Fatalf("a datagram of %d bytes, want %d", m, size)
		}
		if _, known := of[from]; !known {
			of[from] = int(be.BigEndian.Uint16(b[2:]))
		}
		c := of[from]
		arrived[c] = append(arrived[c], be.BigEndian.Uint16(b))
		got++
	}
	for c := range clients {
		from := socket(t)
		for i := range n {
			b := make([]byte, size)
			be.BigEndian.PutUint16(b, uint16(i))
			be.BigEndian.PutUint16(b[2:], uint16(c))
			if _, err := from.WriteToUDPAddrPort(b, r.Addr()); err != nil {
				t.Fatal(err)
			}
			for p := r.Passed(ToServer); p.Seen <= c*n+i; p = r.Passed(ToServer) {
				runtime.Gosched()
			}
			for got < r.Passed(ToServer).Sent {
				take()
			}
		}
		// Those held back go by a timer.
		for p := r.Passed(ToServer); p.Sent < p.Seen-p.Lost-p.TooLarge+p.Duplicated; p = r.Passed(ToServer) {
			time.Sleep(time.Millisecond)
		}
		for got < r.Passed(ToServer).Sent {
			take()
		}
	}
	return arrived, r
}

func TestRelayIsLossyBySeed(t *testing.T) {
	w := Weather{Loss: 20, Duplicate: 10, Seed: 7}
	first, r := numbers(t, w, 2, 500, 100)
	again, _ := numbers(t, w, 2, 500, 100)
	w.Seed++
	other, _ := numbers(t, w, 2, 500, 100)
	for c := range first {
		if !slices.Equal(first[c], again[c]) {
			t.Errorf("client %d: one seed had two outcomes:\n%v\n%v", c, first[c], again[c])
		}
		if slices.Equal(first[c], other[c]) {
			t.Errorf("client %d: two seeds had one outcome", c)
		}
	}
	if slices.Equal(first[0], first[1]) {
		t.Error("both clients fared alike")
	}
	p := r.Passed(ToServer)
	if p.Seen != 1000 || p.Lost < 150 || p.Lost > 250 || p.Duplicated < 50 || p.Duplicated > 110 || p.Sent != p.Seen-p.Lost+p.Duplicated || p.Reordered != 0 {
		t.Errorf("passed %+v", p)
	}
	if got := len(first[0]) + len(first[1]); got != p.Sent {
		t.Errorf("%d arrived, %d were sent", got, p.Sent)
	}
}

// What is overtaken arrives all the same, the last ones by time.
func TestRelayReorders(t *testing.T) {
	got, r := numbers(t, Weather{Reorder: 30, Seed: 1}, 1, 200, 10)
	if len(got[0]) != 200 || slices.IsSorted(got[0]) {
		t.Errorf("arrived as %v", got[0])
	}
	for i, n := range got[0] {
		if d := i - int(n); d > 20 || d < -20 {
			t.Errorf("%d arrived as the %d-th", n, i)
		}
	}
	slices.Sort(got[0])
	if u := slices.Compact(got[0]); len(u) != 200 {
		t.Errorf("%d of 200 arrived", len(u))
	}
	if p := r.Passed(ToServer); p.Reordered < 30 || p.Sent != 200 {
		t.Errorf("passed %+v", p)
	}
}

func TestRelayPassesAllInFairWeather(t *testing.T) {
	got, r := numbers(t, Weather{}, 3, 100, 1400)
	for c := range got {
		if len(got[c]) != 100 || !slices.IsSorted(got[c]) {
			t.Errorf("client %d: %v", c, got[c])
		}
	}
	if p := r.Passed(ToServer); p != (Passage{Seen: 300, Sent: 300}) {
		t.Errorf("passed %+v", p)
	}
}

func TestRelayMTU(t *testing.T) {
	if got, r := numbers(t, Weather{MTU: 512}, 1, 20, 513); len(got[0]) != 0 || r.Passed(ToServer).TooLarge != 20 {
		t.Errorf("%v passed, %+v", got, r.Passed(ToServer))
	}
	if got, r := numbers(t, Weather{MTU: 512}, 1, 20, 512); len(got[0]) != 20 || r.Passed(ToServer).TooLarge != 0 {
		t.Errorf("%v passed, %+v", got, r.Passed(ToServer))
	}
}

func hears(t *testing.T, c *net.UDPConn, want string) netip.AddrPort {
	t.Helper()
	b := make([]byte, 100)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("heard %q, %v, want %q", b[:n], err, want)
	}
	return from
}

func says(t *testing.T, c *net.UDPConn, to netip.AddrPort, s string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(s), to); err != nil {
		t.Fatal(err)
	}
}

// Answers find their client; a new port is heard at the old client, too.
func TestRelayBothWaysAndRebind(t *testing.T) {
	server, a, b := socket(t), socket(t), socket(t)
	r := Relay(t, at(server), Weather{})
	says(t, a, r.Addr(), "from a")
	atA := hears(t, server, "from a")
	says(t, b, r.Addr(), "from b")
	atB := hears(t, server, "from b")
	if atA == atB || r.Upstream(0) != atA || r.Upstream(1) != atB {
		t.Errorf("clients are seen at %v and %v; the relay says %v and %v", atA, atB, r.Upstream(0), r.Upstream(1))
	}
	says(t, server, atB, "to b")
	says(t, server, atA, "to a")
	hears(t, a, "to a")
	hears(t, b, "to b")

	r.Rebind()
	says(t, server, atA, "to nobody")
	says(t, a, r.Addr(), "moved")
	now := hears(t, server, "moved")
	if now == atA || now != r.Upstream(0) {
		t.Errorf("after a rebinding a is at %v, was at %v", now, atA)
	}
	says(t, server, now, "to a again")
	hears(t, a, "to a again")
}

// A man in the middle sees each datagram with its number, and may put others in
// its place.
func TestRelayThroughAndInject(t *testing.T) {
	server, client := socket(t), socket(t)
	r := Relay(t, at(server), Weather{})
	r.Through(func(c int, w Way, n int, p []byte) [][]byte {
		if c != 0 || w != ToServer {
			return [][]byte{p}
		}
		switch n {
		case 0:
			return nil
		case 1:
			return [][]byte{append(p, '!'), p}
		}
		return [][]byte{p}
	})
	for _, s := range []string{"zero", "one", "two"} {
		says(t, client, r.Addr(), s)
	}
	for _, s := range []string{"one!", "one", "two"} {
		hears(t, server, s)
	}
	r.Inject(0, ToServer, []byte("x"))
	says(t, server, hears(t, server, "x"), "y")
	hears(t, client, "y")
	r.Inject(0, ToClient, []byte("z"))
	hears(t, client, "z")
	if p := r.Passed(ToServer); p.Seen != 3 || p.Sent != 3 {
		t.Errorf("passed %+v", p)
	}
}
