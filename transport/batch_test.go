package transport

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

var (
	info4 = unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 7, Spec_dst: [4]byte{192, 0, 2, 1}, Addr: [4]byte{192, 0, 2, 255}})
	info6 = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: netip.MustParseAddr("2001:db8::1").As16(), Ifindex: 7})
)

func TestPktinfo(t *testing.T) {
	mapped := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: netip.MustParseAddr("::ffff:192.0.2.1").As16(), Ifindex: 1 << 30})
	for _, c := range []struct {
		name string
		oob  []byte
		to   string
		by   uint32
	}{
		{"IPv4", info4, "192.0.2.1", 0},
		{"IPv6", info6, "2001:db8::1", 7},
		{"IPv4-mapped", mapped, "192.0.2.1", 1 << 30},
		{"another behind it", slices.Concat(info6, info4), "2001:db8::1", 7},
	} {
		if to, by := pktinfo(c.oob); to != netip.MustParseAddr(c.to) || by != c.by {
			t.Errorf("%s: %v, %d", c.name, to, by)
		}
	}
}

// What the kernel did not say, or not whole, is no address.
func TestPktinfoMalformed(t *testing.T) {
	none := func(what string, oob []byte) {
		t.Helper()
		if to, by := pktinfo(oob); to.IsValid() || by != 0 {
			t.Errorf("%s: %v, %d", what, to, by)
		}
	}
	for _, whole := range [][]byte{info4, info6} {
		size := unix.SizeofInet4Pktinfo
		if &whole[0] == &info6[0] {
			size = unix.SizeofInet6Pktinfo
		}
		// The padding behind it is no part of it.
		for n := range unix.CmsgLen(size) {
			none("cut", slices.Clip(whole[:n]))
		}
		// Its length is a size_t, the level and the type are ints.
		level := unix.SizeofCmsghdr - 8
		for i, values := range map[int][]uint32{
			0:         {0, 1, unix.SizeofCmsghdr - 1, unix.SizeofCmsghdr, uint32(unix.CmsgLen(size)) - 1, uint32(len(whole)) + 1, 1<<32 - 1},
			level:     {unix.SOL_SOCKET, 1<<32 - 1},
			level + 4: {0, 1<<32 - 1},
		} {
			for _, v := range values {
				bad := slices.Clone(whole)
				binary.NativeEndian.PutUint32(bad[i:], v)
				none("changed", bad)
			}
		}
	}
}

func TestBatchSenders(t *testing.T) {
	for _, c := range []struct {
		ip, zone string
		oob      []byte
		want     string
	}{
		{"192.0.2.9", "", info4, "192.0.2.9:5000"},
		{"::ffff:192.0.2.9", "", info6, "192.0.2.9:5000"},
		{"::ffff:169.254.0.9", "", info6, "169.254.0.9:5000"},
		{"2001:db8::9", "", info6, "[2001:db8::9]:5000"},
		{"fe80::9", "eth0", info6, "[fe80::9%7]:5000"}, // as zoneNumber reads it
		{"fe80::9", "", info6, "[fe80::9]:5000"},
		{"fe80::9", "eth0", nil, "[fe80::9]:5000"},
	} {
		var b batch
		b.msgs[0] = ipv4.Message{Addr: &net.UDPAddr{IP: net.ParseIP(c.ip), Zone: c.zone, Port: 5000}, OOB: c.oob, NN: len(c.oob)}
		if got := b.from(0).String(); got != c.want {
			t.Errorf("%s%%%s: %s, want %s", c.ip, c.zone, got, c.want)
		}
	}
}

// A socket that is closed, or left to another process by a deadline, ends the reading,
// also one that waits.
func TestBatchEnds(t *testing.T) {
	for what, end := range map[string]func(*packetSocket) error{
		"closed": func(s *packetSocket) error { return s.Close() },
		"left":   func(s *packetSocket) error { return s.SetReadDeadline(time.Unix(1, 0)) },
	} {
		sockets, err := listenPackets(t.Context(), Where{Host: "127.0.0.1"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer sockets[0].Close()
		b, ended := newBatch(sockets[0].UDPConn), make(chan struct{})
		go func() {
			defer close(ended)
			for range 2 {
				if n, err, closed := b.read(); n != 0 || err == nil || !closed {
					t.Errorf("%s: %d, %v, %v", what, n, err, closed)
				}
			}
		}()
		time.Sleep(10 * time.Millisecond)
		if err := end(sockets[0]); err != nil {
			t.Fatal(err)
		}
		within(t, what, ended)
	}
}

// Places are offered as they are needed, so that a datagram that comes alone is cheap.
func TestBatchOffers(t *testing.T) {
	sockets, err := listenPackets(t.Context(), Where{Host: "127.0.0.1"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer sockets[0].Close()
	b, c := newBatch(sockets[0].UDPConn), serveUDP(t, "127.0.0.1", 0)
	for range 100 {
		if _, err := c.WriteTo([]byte("x"), sockets[0].LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	var got []int
	for range 7 {
		n, err, _ := b.read()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if want := []int{1, 2, 4, 8, 16, 32, 32}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	sockets[0].SetReadDeadline(time.Now().Add(patience))
	if n, err, _ := b.read(); n != 5 || err != nil || b.want != 10 {
		t.Errorf("%d, %v, then %d", n, err, b.want)
	}
}

// What comes from a link-local address can be answered by it.
func TestBatchLinkLocal(t *testing.T) {
	at := linkLocal(t)
	sockets, err := listenPackets(t.Context(), Where{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := sockets[0]
	defer s.Close()
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: at.IP, Zone: at.Zone})
	if err != nil {
		t.Skip(err)
	}
	defer c.Close()
	port := s.LocalAddr().(*net.UDPAddr).Port
	if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: at.IP, Zone: at.Zone, Port: port}); err != nil {
		t.Skip(err)
	}
	b := newBatch(s.UDPConn)
	if n, err, _ := b.read(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	from, by := b.from(0), zoneNumber(b.from(0).Addr().Zone())
	i, err := net.InterfaceByIndex(int(by))
	if err != nil || i.Name != b.msgs[0].Addr.(*net.UDPAddr).Zone {
		t.Errorf("from %v, by %v, %v; the kernel says %v", from, i, err, b.msgs[0].Addr)
	}
	if err := s.sendNow([]byte("y"), answerFrom(b.to(0), s.inet6), from); err != nil {
		t.Fatal(err)
	}
	hearFrom(t, c, netip.AddrPortFrom(b.to(0).WithZone(at.Zone), uint16(port)))
}

// linkLocal is an address of this host's, if it has one.
func linkLocal(t *testing.T) *net.IPAddr {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				return &net.IPAddr{IP: n.IP, Zone: i.Name}
			}
		}
	}
	t.Skip("no interface has a link-local address")
	return nil
}
