package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/flow"
)

// The sizes of payload that matter: none, one, an Ethernet frame, a jumbo frame,
// all that UDP carries.
var payloadSizes = []int{0, 1, 1472, 9000, maxPayload}

func TestPacketsKeepTheirBoundaries(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(host, func(t *testing.T) {
				d := listenDemux(t, host, PacketOptions{Sockets: sockets})
				c := d.call(host, host)
				var s *packetConn
				for i, size := range payloadSizes {
					sent := make([]byte, size)
					rand.Read(sent)
					c.send(sent)
					if i == 0 {
						_, s = d.accept()
					}
					got, err := read(s)
					if err != nil || got == nil || !bytes.Equal(got, sent) {
						t.Fatalf("of %d bytes came %d, %v", size, len(got), err)
					}
					wantWrite(t, s, string(sent))
					if got := c.hear(); !bytes.Equal(got, sent) {
						t.Fatalf("of %d bytes came back %d", size, len(got))
					}
				}
				// Each size begins an association as well as it goes on with one.
				for _, size := range payloadSizes {
					c := d.call(host, host)
					c.send(bytes.Repeat([]byte{7}, size))
					_, s := d.accept()
					wantRead(t, s, strings.Repeat("\x07", size))
				}
				d.wantCounts(map[PacketCount]uint64{PacketsBegun: uint64(1 + len(payloadSizes))})
			})
		}
	})
}

func TestPacketsTooLarge(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	c := d.caller()
	c.send([]byte("first"))
	_, s := d.accept()
	wantRead(t, s, "first")
	for _, size := range []int{maxPayload + 1, 1 << 20} {
		n, err := s.Write(make([]byte, size))
		if n != 0 || !errors.Is(err, flow.ErrTooLarge) || !strings.Contains(err.Error(), fmt.Sprintf("it has %d bytes, and UDP carries 65507", size)) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
		if n, err := s.WriteTo(make([]byte, size), net.UDPAddrFromAddrPort(c.addr())); n != 0 || !errors.Is(err, flow.ErrTooLarge) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
	}
	d.wantCounts(map[PacketCount]uint64{PacketsBegun: 1, PacketsTooLarge: 4})

	c.send([]byte("ten bytes!"), []byte("next"), []byte("ten bytes!"), []byte("next"))
	short := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, flow.ErrTooLarge) || !strings.Contains(err.Error(), "a datagram of 10 bytes is lost, the buffer has 9") {
			t.Errorf("%s: %v", what, err)
		}
	}
	n, err := s.Read(make([]byte, 9))
	if n != 0 {
		t.Errorf("%d bytes of a datagram that was cut", n)
	}
	short("Read", err)
	wantRead(t, s, "next")
	_, _, err = s.ReadFrom(make([]byte, 9))
	short("ReadFrom", err)
	wantRead(t, s, "next")
	// A buffer that is just long enough, and one of nothing for a datagram of nothing.
	c.send([]byte("ten bytes!"), nil, []byte("x"), nil)
	if n, err := s.Read(make([]byte, 10)); n != 10 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.Read(nil); n != 0 || !errors.Is(err, flow.ErrTooLarge) {
		t.Error(n, err)
	}
	if unit, err := s.ReadUnit(func() []byte { return nil }); unit == nil || len(unit) != 0 || err != nil {
		t.Error(unit, err)
	}
	wantWrite(t, s, "it goes on")
	c.wantHear("it goes on")
}

// Our answer has to come from where the client asked, or no client and no
// firewall takes it.
func TestAnswersComeFromTheAddressAsked(t *testing.T) {
	four, six := []string{"127.0.0.1", "127.0.0.2", "127.3.4.5"}, []string{"::1"}
	for _, l := range []struct {
		name, host string
		asked      []string
	}{
		{"all", "", append(six, four...)}, {"all of IPv6 and IPv4", "::", append(six, four...)}, {"all of IPv4", "0.0.0.0", four},
		{"one", "127.0.0.2", []string{"127.0.0.2"}}, {"one of IPv6", "::1", six},
	} {
		t.Run(l.name, func(t *testing.T) {
			eachSockets(t, func(t *testing.T, sockets int) {
				d := listenDemux(t, l.host, PacketOptions{Sockets: sockets})
				secured := listenDemux(t, l.host, PacketOptions{Sockets: sockets, DTLS: true})
				for _, local := range []string{"127.0.0.1", "::1"} {
					c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(local), 0)))
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					for _, asked := range l.asked {
						if (asked == "::1") == (local == "::1") {
							askPlain(t, d, c, asked)
							askDTLS(t, secured, c, asked)
						}
					}
				}
				n := uint64(len(l.asked))
				d.wantCounts(map[PacketCount]uint64{PacketsBegun: n})
				secured.wantCounts(map[PacketCount]uint64{PacketsBegun: n, PacketsVerifySent: n})
			})
		})
	}
}

func askPlain(t *testing.T, d *demux, c *net.UDPConn, asked string) {
	t.Helper()
	to := d.addr(asked)
	if _, err := c.WriteToUDPAddrPort([]byte("to "+asked), to); err != nil {
		t.Fatal(err)
	}
	f, s := d.accept()
	client := c.LocalAddr().(*net.UDPAddr).AddrPort()
	if f.Origin.Local != to || f.Origin.Client != client || s.LocalAddr().String() != to.String() || s.RemoteAddr().String() != client.String() {
		t.Errorf("%+v, %v, %v; want %v and %v", f.Origin, s.LocalAddr(), s.RemoteAddr(), to, client)
	}
	wantRead(t, s, "to "+asked)
	for _, size := range []int{0, 5, 9000} {
		wantWrite(t, s, strings.Repeat("x", size))
		if got := hearFrom(t, c, to); len(got) != size {
			t.Errorf("%d bytes from %v, want %d", len(got), asked, size)
		}
	}
	if n, err := s.WriteTo([]byte("hi"), c.LocalAddr()); n != 2 || err != nil {
		t.Error(n, err)
	}
	hearFrom(t, c, to)
}

func askDTLS(t *testing.T, d *demux, c *net.UDPConn, asked string) {
	t.Helper()
	to, hello := d.addr(asked), greeting(1)
	if _, err := c.WriteToUDPAddrPort(hello, to); err != nil {
		t.Fatal(err)
	}
	_, cookie, ok := readVerify(hearFrom(t, c, to))
	if !ok {
		t.Fatal("no HelloVerifyRequest")
	}
	second := again(t, hello, cookie)
	if _, err := c.WriteToUDPAddrPort(second, to); err != nil {
		t.Fatal(err)
	}
	f, s := d.accept()
	if f.Origin.Local != to {
		t.Errorf("at %v, want %v", f.Origin.Local, to)
	}
	wantRead(t, s, string(second))
	wantWrite(t, s, "flight")
	hearFrom(t, c, to)
}

func hearFrom(t *testing.T, c *net.UDPConn, want netip.AddrPort) []byte {
	t.Helper()
	p := make([]byte, 64<<10)
	c.SetReadDeadline(time.Now().Add(patience))
	n, from, err := c.ReadFromUDPAddrPort(p)
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); err != nil || from != want {
		t.Fatalf("an answer from %v, %v; want %v", from, err, want)
	}
	return p[:n]
}

func TestPacketOrigin(t *testing.T) {
	before := time.Now()
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	c := d.caller()
	c.send([]byte("x"))
	f, s := d.accept()
	if f.Origin.Listener != "here" || f.Origin.Transport != flow.Datagram || f.Start.Before(before) || f.Start.After(time.Now()) {
		t.Errorf("%+v, start %v", f.Origin, f.Start)
	}
	if s.Transport() != flow.Datagram || s.CloseWrite() != nil {
		t.Error("it is no datagram connection")
	}
	wantRead(t, s, "x")
	if d.a.Addr().String() != d.addr("127.0.0.1").String() {
		t.Error(d.a.Addr())
	}
}

// A client is its address and port, together with the address that it asked.
func TestOneAssociationAClient(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDemux(t, "0.0.0.0", PacketOptions{Sockets: sockets})
		var callers []*caller
		var conns []*packetConn
		for i := range 40 {
			c := d.call("127.0.0."+strconv.Itoa(1+i%3), "127.0.0."+strconv.Itoa(1+i%2))
			c.send([]byte("first of " + strconv.Itoa(i)))
			_, s := d.accept()
			wantRead(t, s, "first of "+strconv.Itoa(i))
			callers, conns = append(callers, c), append(conns, s)
		}
		for round := range 3 {
			for i, c := range callers {
				c.send([]byte(fmt.Sprint(round, i)))
			}
			for i, s := range conns {
				wantRead(t, s, fmt.Sprint(round, i))
				wantWrite(t, s, fmt.Sprint("to ", round, i))
			}
			for i, c := range callers {
				c.wantHear(fmt.Sprint("to ", round, i))
			}
		}
		d.wantCounts(map[PacketCount]uint64{PacketsBegun: 40})
		d.wantLive(40, 0)
		used := map[*packetSocket]bool{}
		for _, s := range conns {
			used[s.socket] = true
		}
		if len(d.a.sockets) != sockets || sockets > 1 && len(used) == 1 {
			t.Errorf("%d sockets, and 40 clients at %d of them", len(d.a.sockets), len(used))
		}
		// What one left behind is not the next one's.
		callers[0].send([]byte("unread"))
		await(t, "the datagram is queued", func() bool { return d.a.queued.Load() > 0 })
		conns[0].Close()
		callers[0].send([]byte("anew"))
		_, s := d.accept()
		wantRead(t, s, "anew")
		d.wantLive(40, 0)
	})
}

// From port 0 something may come, but nothing gets there.
func TestNothingBeginsFromPortZero(t *testing.T) {
	plain := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: 1})
	secured := listenDTLS(t, 1, PacketLimits{})
	from := &sender{key: key{client: netip.MustParseAddrPort("127.0.0.1:0"), local: netip.MustParseAddr("127.0.0.1")}}
	newReader(plain.a, plain.a.sockets[0]).plain(time.Now(), from, []byte("x"))
	newReader(secured.a, secured.a.sockets[0]).record(time.Now(), from, greeting(1))
	plain.wantCounts(map[PacketCount]uint64{PacketsNoAssociation: 1})
	secured.wantCounts(map[PacketCount]uint64{PacketsNotDTLS: 1})
	plain.wantLive(0, 0)
}

// What a batch says of each of its datagrams, the first batch of a socket and one
// behind others.
func TestBatch(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		w := Where{Host: host}
		sockets, err := listenPackets(t.Context(), w, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer sockets[0].Close()
		to := sockets[0].LocalAddr().(*net.UDPAddr)
		b := newBatch(sockets[0].UDPConn)
		for round, total := range []int{batchSize + 8, 3, batchSize} {
			from := make(map[int]netip.AddrPort) // by size
			for i := range total {
				c, err := net.DialUDP("udp", nil, to)
				if err != nil {
					t.Fatal(err)
				}
				from[100*i] = c.LocalAddr().(*net.UDPAddr).AddrPort()
				if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, 100*i)); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			most := 0
			for len(from) > 0 {
				n, err, closed := b.read()
				if err != nil || closed || n > batchSize {
					t.Fatal(n, err, closed)
				}
				for i := range n {
					p := b.payload(i)
					if want, ok := from[len(p)]; !ok || b.from(i) != want || b.to(i) != to.AddrPort().Addr().Unmap() || !bytes.Equal(p, bytes.Repeat([]byte{byte(len(p) / 100)}, len(p))) {
						t.Errorf("%s, round %d: %d bytes are of %v to %v; want %v, %v", host, round, len(p), b.from(i), b.to(i), want, ok)
					}
					delete(from, len(p))
				}
				most = max(most, n)
			}
			if most == 1 {
				t.Errorf("%s: they come one by one", host)
			}
		}
	}
}

func TestListenPacketsErrorsAreWords(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: 4})
	for _, c := range []struct {
		w    Where
		is   error
		want string
	}{
		// Also where the other one has set SO_REUSEPORT, as ours have.
		{Where{Host: "127.0.0.1", Port: d.a.port}, syscall.EADDRINUSE, fmt.Sprintf("listening on 127.0.0.1:%d: another process listens on 127.0.0.1:%[1]d; `ss -lunp sport = :%[1]d` shows which", d.a.port)},
		{Where{Host: "192.0.2.1", Port: 4433}, syscall.EADDRNOTAVAIL, "192.0.2.1 is no address of this host"},
		{Where{Unix: "/tmp/x.sock"}, nil, "listening on unix:/tmp/x.sock: datagrams need a host and a port"},
		{Where{Systemd: "web"}, nil, "listening on systemd:web: systemd handed over no socket"},
	} {
		a, err := ListenPackets(t.Context(), "here", c.w, PacketOptions{})
		if err == nil {
			a.Close()
			t.Errorf("%s: no error", c.w)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.w, err)
		}
	}
	if other := listenDemux(t, "127.0.0.1", PacketOptions{}); len(other.a.sockets) != defaultSockets() || other.a.port == d.a.port {
		t.Errorf("%d sockets at port %d", len(other.a.sockets), other.a.port)
	}
}

// Routers may cut what is too large for their next link, whatever path MTU Linux
// has found.
func TestDatagramsMayBeFragmented(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: 4})
	for _, s := range d.a.sockets {
		wantOptions(t, "listening", s.raw, []option{{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}})
	}
	c, err := (&Dialer{Where: Where{Host: "127.0.0.1", Port: d.a.port}, Packets: true}).Dial(t.Context(), &flow.Flow{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantOptions(t, "dialled", c.(*datagrams).raw, []option{{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}})
}

func TestAssociationCaps(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		for _, c := range []struct {
			name   string
			limits PacketLimits
			from   func(i int) int // the prefix of client i
			most   int
		}{
			{"in all", PacketLimits{Associations: 5}, func(i int) int { return i }, 5},
			{"per prefix", PacketLimits{PerPrefix: 3}, func(i int) int { return i % 2 }, 6},
		} {
			t.Run(c.name, func(t *testing.T) {
				d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets, Limits: c.limits})
				call := func(i int) *caller { return d.call(spoofed(c.from(i)).String(), "127.0.0.1") }
				var conns []*packetConn
				for i := range c.most {
					call(i).send([]byte("x"))
					_, s := d.accept()
					conns = append(conns, s)
				}
				for i := range 4 {
					call(i).send([]byte("one too many"))
				}
				await(t, "those beyond the bound are counted", func() bool { return d.count(PacketsOverAssociations) == 4 })
				d.wantLive(c.most, 0)
				// A place that is free again is another's, and only once.
				conns[0].Close()
				conns[0].Close()
				d.wantLive(c.most-1, 0)
				call(0).send([]byte("y"))
				_, s := d.accept()
				wantRead(t, s, "y")
				call(0).send([]byte("one too many"))
				await(t, "it is counted", func() bool { return d.count(PacketsOverAssociations) == 5 })
				d.wantCounts(map[PacketCount]uint64{PacketsBegun: uint64(c.most) + 1, PacketsOverAssociations: 5})
			})
		}
	})
}

// A prefix is what one customer has: an IPv4 address, an IPv6 /64.
func TestPrefix(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%3": "fe80::/64", "::1": "::/64",
	} {
		if got := prefixOf(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	a := tally{all: 0, most: math.MaxInt, mostEach: 2, each: map[netip.Prefix]int{}}
	one, other := prefixOf(netip.MustParseAddr("2001:db8::1")), prefixOf(netip.MustParseAddr("2001:db8:0:1::1"))
	a.take(one)
	a.take(prefixOf(netip.MustParseAddr("2001:db8::2")))
	if !a.full(one) || a.full(other) {
		t.Errorf("%+v", a)
	}
	a.give(one)
	a.give(one)
	if a.full(one) || len(a.each) != 0 || a.all != 0 {
		t.Errorf("%+v", a)
	}
}

// Associations that nobody accepts are bounded too.
func TestBacklog(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets})
		s := d.spoofer()
		for i := range backlogSize + 100 {
			s.must(i, []byte(strconv.Itoa(i)))
		}
		await(t, "all of them are counted", func() bool {
			return d.count(PacketsBegun)+d.count(PacketsOverBacklog) == backlogSize+100
		})
		d.wantCounts(map[PacketCount]uint64{PacketsBegun: backlogSize, PacketsOverBacklog: 100})
		d.wantLive(backlogSize, 0)
		f, c := d.accept()
		wantRead(t, c, strconv.Itoa(int(f.Origin.Client.Addr().As4()[2])<<8+int(f.Origin.Client.Addr().As4()[3])))
		s.must(5000, []byte("5000"))
		await(t, "a place is free", func() bool { return d.count(PacketsBegun) == backlogSize+1 })
	})
}

func TestLimitsHaveDefaults(t *testing.T) {
	if got, want := (PacketLimits{}).withDefaults(), (PacketLimits{16384, 4096, 1024, 128, 256, 4, 5 * time.Second, 128, 512 << 10, 64 << 20, 128}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if set := (PacketLimits{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}); set.withDefaults() != set {
		t.Errorf("%+v", set.withDefaults())
	}
}

// Each kind has a name of its own, for the metrics.
func TestPacketCountNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range packetCounts {
		if name := k.String(); name == "" || seen[name] || strings.ToLower(name) != name {
			t.Errorf("%d is %q", k, name)
		} else {
			seen[name] = true
		}
	}
	for k, want := range map[PacketCount]string{
		PacketsReceived: "received", PacketsNotDTLS: "not_dtls", PacketsUnknownCID: "unknown_cid", PacketsBadFragments: "bad_fragments", PacketsHalfOpenEvicted: "half_open_evicted",
		PacketsOverHandshakes: "over_handshakes", PacketsOverAssociations: "over_associations", PacketsOverBacklog: "over_backlog", PacketsRestarted: "restarted",
	} {
		if k.String() != want {
			t.Errorf("%s, want %s", k, want)
		}
	}
}

func TestAcceptPacketsEndsWithItsContext(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, _, err := d.a.Accept(ctx); done <- err }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	d.caller().send([]byte("x"))
	await(t, "the association is there", func() bool { return d.count(PacketsBegun) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // select would take either
		if _, _, err := d.a.Accept(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	d.accept()
}
