package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/flow"
	"sallyport/wire"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for by := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// eachSockets runs f with one socket and with several: which of them the kernel
// gives a client to must not matter.
func eachSockets(t *testing.T, f func(t *testing.T, sockets int)) {
	for _, n := range []int{1, 4} {
		t.Run("sockets"+strconv.Itoa(n), func(t *testing.T) { f(t, n) })
	}
}

// demux is a datagram listener under test.
type demux struct {
	testing.TB
	a    *PacketAcceptor
	sent atomic.Uint64 // datagrams, by all its callers
}

// listenDemux binds 127.0.0.1 unless host says otherwise. At the end of the test,
// once all is closed, nothing may be left of anything.
func listenDemux(t testing.TB, host string, o PacketOptions) *demux {
	t.Helper()
	a, err := ListenPackets(t.Context(), "here", Where{Host: host}, o)
	if err != nil {
		t.Fatal(err)
	}
	d := &demux{TB: t, a: a}
	t.Cleanup(func() {
		a.Close()
		ended := make(chan struct{})
		go func() { a.readers.Wait(); close(ended) }()
		within(t, "the end of the readers", ended)
		a.mu.Lock()
		defer a.mu.Unlock()
		if n := a.queued.Load(); n != 0 {
			t.Errorf("%d bytes stand in queues", n)
		}
		for what, n := range map[string]int{
			"places": len(a.at) + len(a.each), "connection IDs": len(a.cids), "associations": a.associations.all, "handshakes": a.handshakes.all,
			"prefixes of associations": len(a.associations.each), "prefixes of handshakes": len(a.handshakes.each), "associations not accepted": len(a.backlog),
		} {
			if n != 0 {
				t.Errorf("%d %s are left", n, what)
			}
		}
	})
	return d
}

func listenDTLS(t testing.TB, sockets int, l PacketLimits) *demux {
	t.Helper()
	return listenDemux(t, "127.0.0.1", PacketOptions{DTLS: true, Sockets: sockets, Limits: l})
}

func (d *demux) addr(host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), d.a.port)
}

func (d *demux) count(k PacketCount) uint64 { return d.a.counts[k].Load() }

// wantCounts is of all counters, but for datagrams received. What is counted after
// the client or the test has been told of it may come a little later.
func (d *demux) wantCounts(want map[PacketCount]uint64) {
	d.Helper()
	var wrong []string
	for by := time.Now().Add(patience / 4); time.Now().Before(by); time.Sleep(time.Millisecond) {
		wrong = nil
		for k, n := range d.a.Counters().Snapshot() {
			if k := PacketCount(k); k != PacketsReceived && n != want[k] {
				wrong = append(wrong, fmt.Sprintf("%s: %d, want %d", k, n, want[k]))
			}
		}
		if wrong == nil {
			return
		}
	}
	d.Error(wrong)
}

func (d *demux) wantLive(associations, handshakes int) {
	d.Helper()
	if all, open := d.a.Live(); all != associations || open != handshakes {
		d.Errorf("%d associations, %d of them in a handshake; want %d and %d", all, open, associations, handshakes)
	}
}

// accept gives the next association, which the test's end closes.
func (d *demux) accept() (*flow.Flow, *packetConn) {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f, c, err := d.a.Accept(ctx)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { c.Close() })
	return f, c.(*packetConn)
}

// caller is a client with a socket of its own.
type caller struct {
	*net.UDPConn
	d *demux
}

// call connects from an address of this host to one of the listener's.
func (d *demux) call(from, to string) *caller {
	d.Helper()
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), net.UDPAddrFromAddrPort(d.addr(to)))
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { c.Close() })
	return &caller{c, d}
}

func (d *demux) caller() *caller {
	d.Helper()
	return d.call("127.0.0.1", "127.0.0.1")
}

func (c *caller) addr() netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func (c *caller) send(datagrams ...[]byte) {
	c.d.Helper()
	for _, p := range datagrams {
		if n, err := c.Write(p); n != len(p) || err != nil {
			c.d.Fatalf("sent %d of %d: %v", n, len(p), err)
		}
		c.d.sent.Add(1)
	}
}

func (c *caller) hear() []byte {
	c.d.Helper()
	p := make([]byte, 64<<10)
	c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(p)
	if err != nil {
		c.d.Fatal(err)
	}
	return p[:n]
}

func (c *caller) wantHear(want string) {
	c.d.Helper()
	if got := c.hear(); string(got) != want {
		c.d.Fatalf("the client hears %.80q of %d bytes, want %.80q", got, len(got), want)
	}
}

// settle waits until the listener has done with all that was sent, and gives what
// the client has heard before. A hello by the same way has the last word.
func (c *caller) settle() (heard [][]byte) {
	c.d.Helper()
	await(c.d, "all that was sent comes", func() bool { return c.d.count(PacketsReceived) >= c.d.sent.Load() })
	last := numbered(greeting(0), 0xabcdef)
	c.send(last)
	for {
		p := c.hear()
		if seq, _, ok := readVerify(p); ok && seq == 0xabcdef {
			return heard
		}
		heard = append(heard, p)
	}
}

// cookie says hello without one and gives what the listener asks for.
func (c *caller) cookie(hello ...[]byte) []byte {
	c.d.Helper()
	c.send(hello...)
	_, cookie, ok := readVerify(c.hear())
	if !ok {
		c.d.Fatal("that is no HelloVerifyRequest")
	}
	return cookie
}

// prove says hello twice, as a client does, and gives what was sent last.
func (c *caller) prove(hello []byte) []byte {
	c.d.Helper()
	second := again(c.d, hello, c.cookie(hello))
	c.send(second)
	return second
}

// begin is prove, and the association that comes of it.
func (c *caller) begin(hello []byte) *packetConn {
	c.d.Helper()
	second := c.prove(hello)
	f, s := c.d.accept()
	if f.Origin.Client != c.addr() {
		c.d.Fatalf("an association of %v, not of %v", f.Origin.Client, c.addr())
	}
	wantRead(c.d, s, string(second))
	return s
}

// begun is an association whose handshake is finished.
func (c *caller) begun(hello []byte) *packetConn {
	c.d.Helper()
	s := c.begin(hello)
	s.Established()
	return s
}

// greeting is a ClientHello as small as they come, whose random is n's.
func greeting(n uint64) []byte {
	body := make([]byte, 0, 44)
	body = append(body, wire.VersionDTLS12>>8, wire.VersionDTLS12&0xff)
	body = append(body, "a random of 32 bytes is "...)
	body = binary.BigEndian.AppendUint64(body, n)
	body = append(body, 0, 0, 0, 2, 0xc0, 0x2b, 1, 0) // no session, no cookie, one suite, one compression
	return helloOf(0, 0, body)
}

// helloOf is a ClientHello with this body.
func helloOf(recordSeq uint64, messageSeq uint16, body []byte) []byte {
	return helloPart(recordSeq, messageSeq, body, 0, len(body))
}

// helloPart is a part of it, in a datagram.
func helloPart(recordSeq uint64, messageSeq uint16, body []byte, from, to int) []byte {
	return recordOf(wire.TypeHandshake, 0, recordSeq, partOf(messageSeq, len(body), from, body[from:to]))
}

func partOf(messageSeq uint16, length, from int, body []byte) []byte {
	b := append([]byte{1}, three(length)...)
	b = binary.BigEndian.AppendUint16(b, messageSeq)
	b = append(b, three(from)...)
	b = append(b, three(len(body))...)
	return append(b, body...)
}

func three(n int) []byte { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }

func recordOf(typ uint8, epoch uint16, seq uint64, body []byte) []byte {
	b := []byte{typ, wire.VersionDTLS12 >> 8, wire.VersionDTLS12 & 0xff}
	b = binary.BigEndian.AppendUint64(b, uint64(epoch)<<48|seq)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// withCID is a record of a connection that has a connection ID.
func withCID(cid string, body string) []byte {
	b := append(recordOf(wire.TypeCID, 1, 7, nil)[:11], cid...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// sealed stands for what only those who have the keys can read.
func sealed(s string) []byte { return recordOf(23, 1, 1, []byte(s)) }

// numbered is a datagram with another number in its first record.
func numbered(b []byte, recordSeq uint64) []byte {
	binary.BigEndian.PutUint64(b[3:], recordSeq)
	return b
}

// again is a hello with a cookie.
func again(t testing.TB, hello, cookie []byte) []byte {
	t.Helper()
	h, err := wire.ParseDTLSHello(hello)
	if err != nil {
		t.Fatal(err)
	}
	return h.DTLSRecord(h.MessageSeq+1, h.RecordSeq+1, cookie)
}

// readVerify reads a datagram that is a HelloVerifyRequest and nothing else.
func readVerify(p []byte) (recordSeq uint64, cookie []byte, ok bool) {
	if len(p) != 13+12+3+cookieSize {
		return 0, nil, false
	}
	recordSeq, cookie = binary.BigEndian.Uint64(p[3:]), p[28:]
	want := wire.AppendHelloVerifyRequest(nil, recordSeq, binary.BigEndian.Uint16(p[17:]), cookie)
	return recordSeq, cookie, string(p) == string(want)
}

func read(c flow.Conn) ([]byte, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	defer c.SetReadDeadline(time.Time{})
	return flow.Units(c).ReadUnit(func() []byte { return make([]byte, 64<<10) })
}

func wantRead(t testing.TB, c flow.Conn, want string) {
	t.Helper()
	if got, err := read(c); err != nil || string(got) != want {
		t.Fatalf("read %.80q of %d bytes, %v; want %.80q of %d", got, len(got), err, want, len(want))
	}
}

// wantEmpty says that nothing waits to be read, after [caller.settle].
func wantEmpty(t testing.TB, conns ...*packetConn) {
	t.Helper()
	for i, c := range conns {
		c.queue.mu.Lock()
		n := c.queue.count
		c.queue.mu.Unlock()
		if n != 0 {
			t.Errorf("association %d: %d datagrams that are not its own", i, n)
		}
	}
}

func wantWrite(t testing.TB, c flow.Conn, p string) {
	t.Helper()
	if n, err := c.Write([]byte(p)); n != len(p) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(p), err)
	}
}

// wantReason is of an association that something ended.
func wantReason(t testing.TB, c flow.Conn, r flow.Reason) {
	t.Helper()
	_, err := read(c)
	if e, ok := errors.AsType[*flow.Error](err); !ok || e.Reason != r {
		t.Errorf("a read gives %v, want %s", err, r)
	}
	_, err = c.Write([]byte("x"))
	if e, ok := errors.AsType[*flow.Error](err); !ok || e.Reason != r {
		t.Errorf("a write gives %v, want %s", err, r)
	}
}

// spoofer sends from any address of 127.0.0.0/8, and hears what comes back to any.
type spoofer struct {
	*net.UDPConn
	d *demux
}

func (d *demux) spoofer() *spoofer {
	d.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(4 << 20); err != nil {
		d.Fatal(err)
	}
	return &spoofer{c, d}
}

// spoofed is the address of number n.
func spoofed(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})
}

// send waits for the listener now and then, so that no datagram is lost.
func (s *spoofer) send(n int, p []byte) error {
	oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: spoofed(n).As4()})
	if _, _, err := s.WriteMsgUDPAddrPort(p, oob, s.d.addr("127.0.0.1")); err != nil {
		return fmt.Errorf("from %v: %w", spoofed(n), err)
	}
	if sent := s.d.sent.Add(1); sent%64 == 0 {
		for by := time.Now().Add(patience); s.d.count(PacketsReceived) < sent; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(by) {
				return os.ErrDeadlineExceeded
			}
		}
	}
	return nil
}

func (s *spoofer) must(n int, p []byte) {
	s.d.Helper()
	if err := s.send(n, p); err != nil {
		s.d.Fatal(err)
	}
}

func (s *spoofer) hear() []byte {
	s.d.Helper()
	p := make([]byte, 64<<10)
	s.SetReadDeadline(time.Now().Add(patience))
	n, err := s.Read(p)
	if err != nil {
		s.d.Fatal(err)
	}
	return p[:n]
}

// prove has clients from to to-1 show their cookies, whose hellos have these numbers.
func (s *spoofer) prove(from, to int) {
	s.d.Helper()
	for ; from < to; from += 32 {
		end := min(from+32, to)
		for n := from; n < end; n++ {
			s.must(n, numbered(greeting(uint64(n)), uint64(n)))
		}
		for range end - from {
			n, cookie, ok := readVerify(s.hear())
			if !ok || n < uint64(from) || n >= uint64(end) {
				s.d.Fatalf("an answer for %d", n)
			}
			s.must(int(n), again(s.d, numbered(greeting(n), n), cookie))
		}
	}
}
